//! Device classes: which devices count as one sort.

use super::selectors;
use crate::columns::{self, Column};
use crate::strategy::Strategy;
use crate::with_spec;
use api::resource::v1::DeviceClass;
use meta::field::{Errors, Path};

pub struct DeviceClasses;

impl Strategy for DeviceClasses {
    type Object = DeviceClass;
    const PLURAL: &'static str = "deviceclasses";
    const COLUMNS: &'static [Column] = columns::NAME_AND_AGE;
    with_spec!();

    fn validate(new: &DeviceClass, _old: Option<&DeviceClass>, errors: &mut Errors) {
        selectors::validate(&new.spec.selectors, &Path::new("spec"), errors);
    }
}
