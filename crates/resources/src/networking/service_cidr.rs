//! Service CIDRs: the ranges from which services get their addresses.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::core::addresses;
use crate::strategy::{StatusMetadata, Strategy};
use crate::with_status;
use api::networking::v1::ServiceCIDR;
use meta::Time;
use meta::field::{Errors, Json, Path};
use std::collections::BTreeSet;

pub struct ServiceCIDRs;

impl Strategy for ServiceCIDRs {
    type Object = ServiceCIDR;
    const PLURAL: &'static str = "servicecidrs";
    const COLUMNS: &'static [Column] = &[NAME, Column::string("CIDRs"), AGE];
    const STATUS_METADATA: StatusMetadata = StatusMetadata::Keep;
    with_status!();

    fn validate(new: &ServiceCIDR, old: Option<&ServiceCIDR>, errors: &mut Errors) {
        let (ranges, path) = (&new.spec.cidrs, Path::new("spec").child("cidrs"));
        if ranges.is_empty() {
            return errors.required(&path, "at least one CIDR required");
        }
        if ranges.len() > 2 {
            return errors.invalid(&path, Json(ranges), "may only hold up to 2 values");
        }
        for (index, range) in ranges.iter().enumerate() {
            addresses::validate_network(range, &[], &path.index(index), errors);
        }
        let families: BTreeSet<bool> = ranges.iter().map(|range| range.contains(':')).collect();
        if families.len() != ranges.len() {
            errors.invalid(
                &path,
                Json(ranges),
                "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96",
            );
        }
        let Some(old) = old else { return };
        // A range may be joined by one of the other family, and that is all.
        for (index, before) in old.spec.cidrs.iter().enumerate() {
            if ranges.get(index) != Some(before) {
                let shown = ranges.get(index).cloned().unwrap_or_default();
                errors.invalid(&path.index(index), shown, crate::object_meta::IMMUTABLE);
            }
        }
    }

    fn row(object: &ServiceCIDR, now: Time) -> Vec<Cell> {
        let metadata = &object.metadata;
        vec![columns::name(metadata), object.spec.cidrs.join(",").into(), columns::age(metadata, now)]
    }
}
