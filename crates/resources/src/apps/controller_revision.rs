//! Controller revisions: what a set was at some point, never changed afterwards.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::object_meta::{IMMUTABLE, not_negative};
use crate::strategy::Strategy;
use api::apps::v1::ControllerRevision;
use meta::Time;
use meta::field::{Errors, Path};

pub struct ControllerRevisions;

impl Strategy for ControllerRevisions {
    type Object = ControllerRevision;
    const PLURAL: &'static str = "controllerrevisions";
    const COLUMNS: &'static [Column] = &[NAME, Column::string("Controller"), Column::string("Revision"), AGE];

    fn validate(new: &ControllerRevision, old: Option<&ControllerRevision>, errors: &mut Errors) {
        not_negative(new.revision, &Path::new("revision"), errors);
        let data = Path::new("data");
        if let Some(old) = old {
            if old.data != new.data {
                errors.invalid(&data, meta::field::Json(&new.data), IMMUTABLE);
            }
            return;
        }
        match new.data.to_value() {
            Ok(serde_json::Value::Object(_)) => {}
            Ok(serde_json::Value::Null) | Err(_) => errors.required(&data, "data is mandatory"),
            Ok(_) => errors.required(&data, "data must be a valid JSON object"),
        }
    }

    fn row(object: &ControllerRevision, now: Time) -> Vec<Cell> {
        let owner = object.metadata.owner_references.iter().find(|owner| owner.controller == Some(true));
        let controller = owner.map_or_else(
            || "<none>".to_string(),
            |owner| {
                let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
                let kind = owner.kind.to_lowercase();
                if group.is_empty() {
                    format!("{kind}/{}", owner.name)
                } else {
                    format!("{kind}.{group}/{}", owner.name)
                }
            },
        );
        vec![
            columns::name(&object.metadata),
            controller.into(),
            object.revision.into(),
            columns::age(&object.metadata, now),
        ]
    }
}
