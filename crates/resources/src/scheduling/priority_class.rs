//! Priority classes: a number with a name; the highest are the system's own.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::object_meta::immutable;
use crate::strategy::Strategy;
use api::scheduling::v1::PriorityClass;
use meta::Time;
use meta::field::{Errors, Path};

pub struct PriorityClasses;

const USER_MAX: i32 = 1_000_000_000;
const SYSTEM_PREFIX: &str = "system-";
/// The system's classes: name, value.
const SYSTEM: [(&str, i32); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

impl Strategy for PriorityClasses {
    type Object = PriorityClass;
    const PLURAL: &'static str = "priorityclasses";
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::integer("Value"),
        Column::boolean("Global-Default"),
        AGE,
        Column::string("PreemptionPolicy").wide(),
    ];
    const GENERATION: bool = true;

    fn spec_changed(new: &PriorityClass, old: &PriorityClass) -> bool {
        (new.value, new.global_default, &new.description, &new.preemption_policy)
            != (old.value, old.global_default, &old.description, &old.preemption_policy)
    }

    fn default(class: &mut PriorityClass) {
        class.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".into());
    }

    fn validate(new: &PriorityClass, old: Option<&PriorityClass>, errors: &mut Errors) {
        let name = Path::new("metadata").child("name");
        if new.metadata.name.starts_with(SYSTEM_PREFIX) {
            let known = SYSTEM.iter().find(|(known, _)| *known == new.metadata.name);
            let fault = match known {
                None => Some(format!("{} is not a known system priority class", new.metadata.name)),
                Some((known, value)) if *value != new.value => {
                    Some(format!("value of {known} PriorityClass must be {value}"))
                }
                Some((known, _)) if new.global_default => {
                    Some(format!("globalDefault of {known} PriorityClass must be false"))
                }
                Some(_) => None,
            };
            if let Some(fault) = fault {
                let detail = format!(
                    "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {fault}"
                );
                errors.forbidden(&name, detail);
            }
        } else if new.value > USER_MAX {
            let detail = format!("maximum allowed value of a user defined priority is {USER_MAX}");
            errors.forbidden(&Path::new("value"), detail);
        }
        let policies = ["PreemptLowerPriority", "Never"];
        if let Some(policy) = new.preemption_policy.as_ref().filter(|it| !policies.contains(&it.as_str())) {
            errors.not_supported(&Path::new("preemptionPolicy"), policy, &policies);
        }
        let Some(old) = old else { return };
        if new.value != old.value {
            errors.forbidden(&Path::new("value"), "may not be changed in an update.");
        }
        let policy = Path::new("preemptionPolicy");
        immutable(&new.preemption_policy, &old.preemption_policy, &policy, errors);
    }

    fn row(class: &PriorityClass, now: Time) -> Vec<Cell> {
        vec![
            columns::name(&class.metadata),
            class.value.into(),
            class.global_default.into(),
            columns::age(&class.metadata, now),
            class.preemption_policy.clone().unwrap_or_default().into(),
        ]
    }
}
