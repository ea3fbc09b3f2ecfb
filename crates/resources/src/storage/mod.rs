//! The storage group: classes of volumes and the drivers that provide them.

pub mod csi_driver;
pub mod csi_node;
pub mod csi_storage_capacity;
pub mod storage_class;
pub mod volume_attachment;
pub mod volume_attributes_class;

use meta::field::{Errors, Path};
use meta::validation;

const DRIVER_MAX_BYTES: usize = 63;

/// The name of a CSI driver: a DNS name, whose case does not matter.
pub(crate) fn validate_driver_name(name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path, "");
    }
    if name.len() > DRIVER_MAX_BYTES {
        errors.too_long(path, DRIVER_MAX_BYTES);
    }
    errors.invalid_each(path, name, validation::dns1123_subdomain(&name.to_lowercase()));
}
