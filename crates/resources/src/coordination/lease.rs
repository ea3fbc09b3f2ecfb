//! Leases: a claim that must be renewed.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::strategy::Strategy;
use api::coordination::v1::Lease;
use meta::Time;
use meta::field::{Errors, Path};

pub struct Leases;

impl Strategy for Leases {
    type Object = Lease;
    const PLURAL: &'static str = "leases";
    const COLUMNS: &'static [Column] = &[NAME, Column::string("Holder"), AGE];
    const CREATE_ON_UPDATE: bool = true;
    const UNCONDITIONAL_UPDATE: bool = false;

    fn validate(new: &Lease, _old: Option<&Lease>, errors: &mut Errors) {
        let (spec, path) = (&new.spec, Path::new("spec"));
        if let Some(seconds) = spec.lease_duration_seconds.filter(|seconds| *seconds <= 0) {
            errors.invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0");
        }
        if let Some(count) = spec.lease_transitions.filter(|count| *count < 0) {
            errors.invalid(&path.child("leaseTransitions"), count, crate::object_meta::NOT_NEGATIVE);
        }
        let strategy = spec.strategy.as_deref().unwrap_or_default();
        if spec.strategy.is_some() {
            super::lease_candidate::validate_strategy(strategy, &path.child("strategy"), errors);
        }
        let preferred = spec.preferred_holder.as_deref().unwrap_or_default();
        if !preferred.is_empty() && strategy.is_empty() {
            let detail = "may only be specified if `strategy` is defined";
            errors.forbidden(&path.child("preferredHolder"), detail);
        }
    }

    fn row(lease: &Lease, now: Time) -> Vec<Cell> {
        let holder = lease.spec.holder_identity.clone().unwrap_or_default();
        vec![columns::name(&lease.metadata), holder.into(), columns::age(&lease.metadata, now)]
    }
}
