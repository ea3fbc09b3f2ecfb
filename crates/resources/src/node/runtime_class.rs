//! Runtime classes: a handler of the node's runtime, and what it costs.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::core::resource_names;
use crate::object_meta::{immutable, validate_labels};
use crate::strategy::Strategy;
use api::node::v1::RuntimeClass;
use meta::field::{Errors, Path};
use meta::{Time, validation};

pub struct RuntimeClasses;

impl Strategy for RuntimeClasses {
    type Object = RuntimeClass;
    const PLURAL: &'static str = "runtimeclasses";
    const COLUMNS: &'static [Column] = &[NAME, Column::string("Handler"), AGE];
    const CREATE_ON_UPDATE: bool = true;
    const UNCONDITIONAL_UPDATE: bool = false;

    fn validate(new: &RuntimeClass, old: Option<&RuntimeClass>, errors: &mut Errors) {
        let handler = Path::new("handler");
        errors.invalid_each(&handler, &new.handler, validation::dns1123_label(&new.handler));
        if let Some(overhead) = &new.overhead {
            for (name, amount) in &overhead.pod_fixed {
                let path = Path::new("overhead").child("podFixed").key(name);
                resource_names::validate_container(name, &path, errors);
                resource_names::validate_amount(name, *amount, &path, errors);
            }
        }
        if let Some(scheduling) = &new.scheduling {
            let path = Path::new("scheduling");
            validate_labels(&scheduling.node_selector, &path.child("nodeSelector"), errors);
            for (index, toleration) in scheduling.tolerations.iter().enumerate() {
                if scheduling.tolerations[..index].contains(toleration) {
                    let field = path.child("tolerations").index(index);
                    errors.duplicate(&field, meta::field::Json(toleration));
                }
            }
        }
        if let Some(old) = old {
            immutable(&new.handler, &old.handler, &handler, errors);
        }
    }

    fn row(class: &RuntimeClass, now: Time) -> Vec<Cell> {
        let metadata = &class.metadata;
        vec![columns::name(metadata), class.handler.clone().into(), columns::age(metadata, now)]
    }
}
