//! Device classes: which devices count as one sort.

use crate::columns::{self, Column};
use crate::strategy::Strategy;
use crate::with_spec;
use api::resource::v1::DeviceClass;

pub struct DeviceClasses;

impl Strategy for DeviceClasses {
    type Object = DeviceClass;
    const PLURAL: &'static str = "deviceclasses";
    const COLUMNS: &'static [Column] = columns::NAME_AND_AGE;
    with_spec!();
}
