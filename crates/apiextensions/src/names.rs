//! Whether a definition gets the names it asks for, and what its conditions say of it.

use api::apiextensions::v1::{CustomResourceDefinition, CustomResourceDefinitionCondition};
use meta::Time;
use std::collections::BTreeSet;

pub const NAMES_ACCEPTED: &str = "NamesAccepted";
pub const ESTABLISHED: &str = "Established";
pub const TERMINATING: &str = "Terminating";
pub const API_APPROVAL: &str = "KubernetesAPIApprovalPolicyConformant";
/// The annotation by which a definition in a group of Kubernetes' own says who approved it.
pub const APPROVED: &str = "api-approved.kubernetes.io";
/// Keeps a definition until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

fn condition(ty: &str, status: &str, reason: &str, message: &str) -> CustomResourceDefinitionCondition {
    CustomResourceDefinitionCondition {
        r#type: ty.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        ..CustomResourceDefinitionCondition::default()
    }
}

/// Sets a condition; its time moves only when its status does. Whether anything changed.
pub fn set_condition(
    definition: &mut CustomResourceDefinition,
    mut new: CustomResourceDefinitionCondition,
    now: Time,
) -> bool {
    let conditions = &mut definition.status.conditions;
    new.last_transition_time = Some(now);
    let Some(old) = conditions.iter_mut().find(|known| known.r#type == new.r#type) else {
        conditions.push(new);
        return true;
    };
    if old.status == new.status {
        new.last_transition_time = old.last_transition_time;
    }
    let changed = *old != new;
    *old = new;
    changed
}

fn fresh(wanted: &str, accepted: &str, used: &BTreeSet<&str>) -> Result<(), String> {
    if wanted == accepted || !used.contains(wanted) {
        Ok(())
    } else {
        Err(format!("{wanted:?} is already in use"))
    }
}

/// Gives a definition those of its names that no other of its group holds, and says so in its conditions. `others` are
/// the definitions there are; the one itself may be among them. Whether anything changed.
pub fn accept(
    definition: &mut CustomResourceDefinition,
    others: &[&CustomResourceDefinition],
    now: Time,
) -> bool {
    let before = definition.status.clone();
    let wanted = definition.spec.names.clone();
    let held = definition.status.accepted_names.clone();
    let group: Vec<_> = others
        .iter()
        .filter(|other| {
            other.spec.group == definition.spec.group && other.metadata.name != definition.metadata.name
        })
        .map(|other| &other.status.accepted_names)
        .collect();
    let resources: BTreeSet<&str> = group
        .iter()
        .flat_map(|names| [&names.plural, &names.singular].into_iter().chain(&names.short_names))
        .map(String::as_str)
        .collect();
    let kinds: BTreeSet<&str> =
        group.iter().flat_map(|names| [names.kind.as_str(), names.list_kind.as_str()]).collect();

    let mut names = held.clone();
    let mut conflict: Option<(&str, String)> = None;
    let mut take =
        |wanted: &String, held: &String, used: &BTreeSet<&str>, place: &mut String, reason| match fresh(
            wanted, held, used,
        ) {
            Ok(()) => place.clone_from(wanted),
            Err(why) => conflict = Some((reason, why)),
        };
    take(&wanted.plural, &held.plural, &resources, &mut names.plural, "PluralConflict");
    take(&wanted.singular, &held.singular, &resources, &mut names.singular, "SingularConflict");
    let faults: Vec<String> = wanted
        .short_names
        .iter()
        .filter(|name| !held.short_names.contains(name))
        .filter_map(|name| fresh(name, "", &resources).err())
        .collect();
    let short_conflict = match faults.as_slice() {
        [] => {
            names.short_names.clone_from(&wanted.short_names);
            None
        }
        [only] => Some(only.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    };
    let mut later: Option<(&str, String)> = None;
    let mut take =
        |wanted: &String, held: &String, place: &mut String, reason| match fresh(wanted, held, &kinds) {
            Ok(()) => place.clone_from(wanted),
            Err(why) => later = Some((reason, why)),
        };
    take(&wanted.kind, &held.kind, &mut names.kind, "KindConflict");
    take(&wanted.list_kind, &held.list_kind, &mut names.list_kind, "ListKindConflict");
    names.categories.clone_from(&wanted.categories);

    // The last conflict found is the one told of.
    let told = later.or(short_conflict.map(|why| ("ShortNamesConflict", why))).or(conflict);
    let accepted = told.is_none();
    let naming = match told {
        None => condition(NAMES_ACCEPTED, "True", "NoConflicts", "no conflicts found"),
        Some((reason, why)) => condition(NAMES_ACCEPTED, "False", reason, &why),
    };
    definition.status.accepted_names = names;
    set_condition(definition, naming, now);
    if !crate::definition::is_true(definition, ESTABLISHED) {
        let established = match accepted {
            // Whoever serves the kind says so once it does.
            true => condition(ESTABLISHED, "False", "Installing", "the initial names have been accepted"),
            false => condition(ESTABLISHED, "False", "NotAccepted", "not all names are accepted"),
        };
        set_condition(definition, established, now);
    }
    if let Some(approval) = approval(definition) {
        set_condition(definition, approval, now);
    }
    definition.status != before
}

/// The condition of a definition whose objects are being deleted with it.
pub fn terminating(status: &str, reason: &str, message: &str) -> CustomResourceDefinitionCondition {
    condition(TERMINATING, status, reason, message)
}

/// The condition of a definition that is served.
pub fn established() -> CustomResourceDefinitionCondition {
    condition(ESTABLISHED, "True", "InitialNamesAccepted", "the initial names have been accepted")
}

/// Groups that only Kubernetes itself may use.
pub fn is_protected(group: &str) -> bool {
    let ends = |domain: &str| group == domain || group.ends_with(&format!(".{domain}"));
    ends("k8s.io") || ends("kubernetes.io")
}

/// Whether a definition in a protected group says who approved it: its state, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    Approved,
    Bypassed,
    Missing,
    Invalid,
}

pub fn approval_state(definition: &CustomResourceDefinition) -> (Approval, String) {
    let text = definition.metadata.annotations.get(APPROVED).map(String::as_str).unwrap_or_default();
    if text.is_empty() {
        let why = format!(
            "protected groups must have approval annotation {APPROVED:?}, see https://github.com/kubernetes/enhancements/pull/1111"
        );
        return (Approval::Missing, why);
    }
    if text.starts_with("unapproved") {
        return (Approval::Bypassed, format!("not approved: {text:?}"));
    }
    let url = text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.split('/').next().unwrap_or_default().is_empty()
    });
    if url {
        return (Approval::Approved, format!("approved in {text}"));
    }
    let why = format!(
        "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111"
    );
    (Approval::Invalid, why)
}

fn approval(definition: &CustomResourceDefinition) -> Option<CustomResourceDefinitionCondition> {
    if !is_protected(&definition.spec.group) {
        return None;
    }
    let (state, why) = approval_state(definition);
    let (status, reason) = match state {
        Approval::Approved => ("True", "ApprovedAnnotation"),
        Approval::Bypassed => ("False", "UnapprovedAnnotation"),
        Approval::Missing => ("False", "MissingAnnotation"),
        Approval::Invalid => ("False", "InvalidAnnotation"),
    };
    Some(condition(API_APPROVAL, status, reason, &why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widgets(name: &str, kind: &str, short: &str) -> CustomResourceDefinition {
        let mut definition = CustomResourceDefinition::default();
        definition.metadata.name = format!("{name}.example.com");
        definition.spec.group = "example.com".into();
        definition.spec.names.plural = name.into();
        definition.spec.names.singular = name.trim_end_matches('s').into();
        definition.spec.names.kind = kind.into();
        definition.spec.names.list_kind = format!("{kind}List");
        definition.spec.names.short_names = vec![short.into()];
        definition
    }

    #[test]
    fn names_are_first_come_first_served() {
        let now = Time::from_seconds(1).unwrap();
        let mut first = widgets("widgets", "Widget", "w");
        assert!(accept(&mut first, &[], now));
        assert!(crate::definition::is_true(&first, NAMES_ACCEPTED));
        assert!(!accept(&mut first, &[], now), "nothing more to say");
        let mut second = widgets("wadgets", "Widget", "w");
        accept(&mut second, &[&first], now);
        let naming = &second.status.conditions[0];
        // Of several conflicts the last is told.
        assert_eq!((naming.status.as_str(), naming.reason.as_str()), ("False", "ListKindConflict"));
        assert_eq!(naming.message, "\"WidgetList\" is already in use");
        assert_eq!(second.status.accepted_names.plural, "wadgets");
        assert!(second.status.accepted_names.short_names.is_empty());
        assert_eq!(second.status.conditions[1].reason, "NotAccepted");
        accept(&mut second, &[], now);
        assert!(crate::definition::is_true(&second, NAMES_ACCEPTED), "once the other is gone");
    }
}
