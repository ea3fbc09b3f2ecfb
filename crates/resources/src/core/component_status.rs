//! Component statuses: computed on request, never stored.

use crate::columns::{self, Cell, Column, NAME};
use crate::strategy::Strategy;
use api::core::v1::ComponentStatus;
use meta::Time;

pub struct ComponentStatuses;

impl Strategy for ComponentStatuses {
    type Object = ComponentStatus;
    const PLURAL: &'static str = "componentstatuses";
    const COLUMNS: &'static [Column] =
        &[NAME, Column::string("Status"), Column::string("Message"), Column::string("Error")];

    fn row(object: &ComponentStatus, _now: Time) -> Vec<Cell> {
        let healthy = object.conditions.iter().find(|condition| condition.r#type == "Healthy");
        let (status, message, error) = match healthy {
            None => ("Unknown", "", ""),
            Some(condition) => {
                let status = if condition.status == "True" { "Healthy" } else { "Unhealthy" };
                (status, condition.message.as_str(), condition.error.as_str())
            }
        };
        vec![columns::name(&object.metadata), status.into(), message.into(), error.into()]
    }
}
