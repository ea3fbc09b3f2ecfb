//! Volume attributes classes: what of a volume can change while it lives.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::strategy::Strategy;
use api::storage::v1::VolumeAttributesClass;
use meta::Time;
use meta::field::{Errors, Path};

pub struct VolumeAttributesClasses;

impl Strategy for VolumeAttributesClasses {
    type Object = VolumeAttributesClass;
    const PLURAL: &'static str = "volumeattributesclasses";
    const COLUMNS: &'static [Column] = &[NAME, Column::string("DriverName"), AGE];

    fn validate(new: &VolumeAttributesClass, old: Option<&VolumeAttributesClass>, errors: &mut Errors) {
        let (driver, parameters) = (Path::new("driverName"), Path::new("parameters"));
        super::validate_driver_name(&new.driver_name, &driver, errors);
        super::storage_class::validate_parameters(&new.parameters, false, &parameters, errors);
        let Some(old) = old else { return };
        if new.driver_name != old.driver_name {
            errors.forbidden(&driver, "updates to driverName are forbidden.");
        }
        if new.parameters != old.parameters {
            errors.forbidden(&parameters, "updates to parameters are forbidden.");
        }
    }

    fn row(class: &VolumeAttributesClass, now: Time) -> Vec<Cell> {
        let metadata = &class.metadata;
        vec![columns::name(metadata), class.driver_name.clone().into(), columns::age(metadata, now)]
    }
}
