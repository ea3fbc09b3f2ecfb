//! Volume attachments: a volume that should be at a node.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::object_meta::immutable_value;
use crate::strategy::{StatusMetadata, Strategy};
use crate::with_status;
use api::storage::v1::VolumeAttachment;
use meta::field::{Errors, Path};
use meta::{Time, validation};

pub struct VolumeAttachments;

const METADATA_MAX_BYTES: usize = 256 * 1024;
const MESSAGE_MAX_BYTES: usize = 1024;

impl Strategy for VolumeAttachments {
    type Object = VolumeAttachment;
    const PLURAL: &'static str = "volumeattachments";
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::string("Attacher").named(),
        Column::string("PV"),
        Column::string("Node"),
        Column::boolean("Attached"),
        AGE,
    ];
    const UNCONDITIONAL_UPDATE: bool = false;
    const STATUS_METADATA: StatusMetadata = StatusMetadata::Keep;
    with_status!();

    fn validate(new: &VolumeAttachment, old: Option<&VolumeAttachment>, errors: &mut Errors) {
        let (spec, path) = (&new.spec, Path::new("spec"));
        super::validate_driver_name(&spec.attacher, &path.child("attacher"), errors);
        let source = path.child("source");
        let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        match (&spec.source.inline_volume_spec, &spec.source.persistent_volume_name) {
            (None, None) => errors.required(&source, detail),
            (Some(_), Some(_)) => errors.forbidden(&source, detail),
            (None, Some(name)) if name.is_empty() => {
                let field = source.child("persistentVolumeName");
                errors.required(&field, "must specify non empty persistentVolumeName");
            }
            _ => {}
        }
        let faults = validation::dns1123_subdomain(&spec.node_name);
        errors.invalid_each(&path.child("nodeName"), &spec.node_name, faults);
        if let Some(old) = old {
            immutable_value(spec, &old.spec, &path, errors);
        }
    }

    fn validate_status(new: &VolumeAttachment, _old: &VolumeAttachment, errors: &mut Errors) {
        let (status, path) = (&new.status, Path::new("status"));
        let size: usize = status.attachment_metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        if size > METADATA_MAX_BYTES {
            errors.too_long(&path.child("attachmentMetadata"), METADATA_MAX_BYTES);
        }
        for (error, field) in [(&status.attach_error, "attachError"), (&status.detach_error, "detachError")] {
            if error.as_ref().is_some_and(|error| error.message.len() > MESSAGE_MAX_BYTES) {
                errors.too_long(&path.child(field).child("message"), METADATA_MAX_BYTES);
            }
        }
    }

    fn row(object: &VolumeAttachment, now: Time) -> Vec<Cell> {
        let spec = &object.spec;
        vec![
            columns::name(&object.metadata),
            spec.attacher.clone().into(),
            spec.source.persistent_volume_name.clone().unwrap_or_default().into(),
            spec.node_name.clone().into(),
            object.status.attached.into(),
            columns::age(&object.metadata, now),
        ]
    }
}
