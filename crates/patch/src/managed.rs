//! Managed fields: who owns what after a write, and what a server-side apply makes of an object.
//!
//! Paths are taken to mean the same in all versions of a kind: entries of another version than the request's are
//! compared as they stand.

use crate::combine::merge;
use crate::entries::{Managers, Owned, Owner};
use crate::set::Set;
use crate::shape::Shape;
use crate::walk::{Comparison, compare, field_set, remove, validate, with_named_fields};
use api::meta::v1::ManagedFieldsEntry;
use meta::Time;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::LazyLock;

pub use crate::entries::readable;

/// Who owns what was there before the first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager whose applies take over from its client-side ones.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Nobody owns these.
static STRIPPED: LazyLock<Set> = LazyLock::new(|| {
    Set::of_paths(&[
        "apiVersion",
        "kind",
        "metadata",
        "metadata.name",
        "metadata.namespace",
        "metadata.creationTimestamp",
        "metadata.selfLink",
        "metadata.uid",
        "metadata.clusterName",
        "metadata.generation",
        "metadata.managedFields",
        "metadata.resourceVersion",
    ])
});

/// Who writes, through which endpoint, when.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    pub manager: &'a str,
    /// `apps/v1`: the version that the request is made in.
    pub api_version: &'a str,
    /// `status`, ..; empty for the main resource.
    pub subresource: &'a str,
    pub now: Time,
    /// What is known of the kind's fields.
    pub shape: Shape<'a>,
    /// An object of the kind with nothing in it: what a create is compared with. Structs that are always there are
    /// no one's doing.
    pub empty: &'a Value,
    /// Dotted paths that this endpoint does not write, and nobody owns through it.
    pub reset: &'a [&'a str],
}

impl Claim<'_> {
    fn owner(&self, applies: bool) -> Owner {
        Owner {
            manager: if self.manager.is_empty() { "unknown" } else { self.manager }.into(),
            applies,
            // An applier keeps its entry when it moves to another version.
            api_version: if applies { String::new() } else { self.api_version.into() },
            subresource: self.subresource.into(),
        }
    }

    fn shape(&self) -> Shape<'_> {
        self.shape
    }
}

/// A field that somebody else owns and that an apply would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// As messages name it: `"kubectl-edit" using apps/v1`.
    pub manager: String,
    /// `.spec.replicas`.
    pub field: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The configuration has fields that are not declared, or lists whose elements cannot be told apart.
    #[error("{0}")]
    Invalid(String),
}

/// What an apply makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The object, without managed fields.
    pub object: Value,
    pub entries: Vec<ManagedFieldsEntry>,
}

/// The managed fields after an update turned `live` (for a create, the empty object) into `new`. Both are without
/// managed fields; `entries` are those that the object had.
pub fn update(
    live: &Value,
    new: &Value,
    entries: &[ManagedFieldsEntry],
    claim: &Claim<'_>,
) -> Vec<ManagedFieldsEntry> {
    let mut managers = Managers::decode(entries);
    claim_changes(&mut managers, live, new, claim);
    managers.encode()
}

fn claim_changes(managers: &mut Managers, live: &Value, new: &Value, claim: &Claim<'_>) {
    let comparison = compare(claim.shape(), Some(live), Some(new));
    let comparison = comparison.without(&Set::of_paths(claim.reset));
    let Comparison { removed, modified, added: mut changed } = comparison;
    changed.absorb(modified);
    disown(managers, &changed, &removed, None);
    changed.subtract(&STRIPPED);
    if !changed.is_empty() {
        let owner = claim.owner(false);
        let owned = managers.0.entry(owner).or_insert_with(|| Owned::none(claim.api_version));
        owned.set.absorb(changed);
        owned.text = None;
        owned.api_version = claim.api_version.into();
        owned.time = Some(claim.now);
    }
    managers.cap_updates();
}

/// Takes what changed from its owners, but for `except`. Fields that are gone nobody owns.
fn disown(managers: &mut Managers, changed: &Set, removed: &Set, except: Option<&Owner>) {
    for (owner, owned) in &mut managers.0 {
        let touched = owned.set.intersects(changed) || owned.set.intersects(removed);
        if Some(owner) != except && touched {
            owned.text = None;
            owned.set.subtract(changed);
            owned.set.subtract(removed);
        }
    }
    managers.0.retain(|owner, owned| Some(owner) == except || !owned.set.is_empty());
}

/// Applies a configuration to `live`; both are without managed fields.
///
/// # Errors
/// Conflicts with other managers unless `force`; a configuration that cannot be merged.
pub fn apply(
    live: &Value,
    config: &Value,
    entries: &[ManagedFieldsEntry],
    claim: &Claim<'_>,
    force: bool,
) -> Result<Applied, ApplyError> {
    let faults = validate(claim.shape(), config);
    match &faults[..] {
        [] => {}
        [only] => return Err(ApplyError::Invalid(only.clone())),
        _ => return Err(ApplyError::Invalid(format!("errors:\n  {}", faults.join("\n  ")))),
    }
    let mut managers = Managers::decode(entries);
    if managers.0.is_empty() {
        let first = Claim { manager: BEFORE_FIRST_APPLY, ..*claim };
        claim_changes(&mut managers, claim.empty, live, &first);
    }
    let merged = match apply_to(live, config, managers.clone(), claim, force) {
        Err(Clash(clashes)) if claim.manager == KUBECTL => {
            let Some(allowed) = last_applied_set(live, claim) else { return Err(conflicts(&clashes)) };
            let left: BTreeMap<_, _> = clashes
                .into_iter()
                .map(|(owner, set)| (owner, set.difference(&allowed)))
                .filter(|(_, set)| !set.is_empty())
                .collect();
            if !left.is_empty() {
                return Err(conflicts(&left));
            }
            // What kubectl itself once applied from the client's side is its own to take over.
            apply_to(live, config, managers, claim, true)
        }
        result => result,
    };
    let (object, managers) = merged.map_err(|Clash(clashes)| conflicts(&clashes))?;
    let object = renew_last_applied(object, config, claim);
    Ok(Applied { object, entries: managers.encode() })
}

/// What stands in the way of an apply, by owner.
struct Clash(BTreeMap<Owner, Set>);

fn conflicts(clashes: &BTreeMap<Owner, Set>) -> ApplyError {
    let each = |(owner, set): (&Owner, &Set)| {
        let manager = owner.to_string();
        set.paths().into_iter().map(move |field| Conflict { manager: manager.clone(), field })
    };
    ApplyError::Conflicts(clashes.iter().flat_map(each).collect())
}

fn apply_to(
    live: &Value,
    config: &Value,
    mut managers: Managers,
    claim: &Claim<'_>,
    force: bool,
) -> Result<(Value, Managers), Clash> {
    let shape = claim.shape();
    let reset = Set::of_paths(claim.reset);
    let owner = claim.owner(true);
    let merged = merge(shape, Some(live), Some(config)).unwrap_or_else(|| live.clone());
    let last = managers.0.get(&owner).map(|owned| owned.set.clone()).unwrap_or_default();
    let set = field_set(shape, config).recursive_difference(&reset);
    let time = managers.0.get(&owner).and_then(|owned| owned.time);
    managers.0.insert(owner.clone(), Owned { set, text: None, api_version: claim.api_version.into(), time });
    let merged = prune(shape, merged, &managers, &last);
    let comparison = compare(shape, Some(live), Some(&merged)).without(&reset);
    let changed = comparison.modified.union(&comparison.added);
    let clashes: BTreeMap<Owner, Set> = managers
        .0
        .iter()
        .filter(|(other, _)| **other != owner)
        .map(|(other, owned)| (other.clone(), owned.set.intersection(&changed)))
        .filter(|(_, set)| !set.is_empty())
        .collect();
    if !force && !clashes.is_empty() {
        return Err(Clash(clashes));
    }
    disown(&mut managers, &changed, &comparison.removed, Some(&owner));
    let same = merged == *live;
    if let Some(owned) = managers.0.get_mut(&owner) {
        owned.set.subtract(&STRIPPED);
        if !same {
            owned.time = Some(claim.now);
        }
    }
    managers.0.retain(|_, owned| !owned.set.is_empty());
    Ok((merged, managers))
}

/// Removes what this manager applied before and now does not, unless somebody owns it.
fn prune(shape: Shape<'_>, merged: Value, managers: &Managers, last: &Set) -> Value {
    if last.is_empty() {
        return merged;
    }
    let full = |set: &Set| with_named_fields(shape, set);
    let nothing = || Value::Object(serde_json::Map::new());
    let set_of = |value: &Value| full(&field_set(shape, value));
    let last = full(last);
    let pruned = remove(shape, &merged, &last).unwrap_or_else(nothing);
    let owned = managers.0.values().fold(Set::default(), |all, owned| all.union(&owned.set));
    let merged_set = set_of(&merged);
    let keep = set_of(&pruned).union(&full(&owned));
    let pruned = remove(shape, &merged, &merged_set.difference(&keep)).unwrap_or_else(nothing);
    // What was never this manager's stays, even where what it hung on is gone.
    let dangling = merged_set.difference(&set_of(&pruned)).intersection(&last);
    remove(shape, &merged, &dangling).unwrap_or_else(nothing)
}

/// The fields that kubectl's own annotation says it applied, as far as they still are as it said.
fn last_applied_set(live: &Value, claim: &Claim<'_>) -> Option<Set> {
    let text = live.pointer("/metadata/annotations")?.get(LAST_APPLIED)?.as_str()?;
    let applied: Value = serde_json::from_str(text).ok()?;
    if applied.get("apiVersion")?.as_str()? != claim.api_version {
        return None;
    }
    let shape = claim.shape();
    if !validate(shape, &applied).is_empty() {
        return None;
    }
    let comparison = compare(shape, Some(&applied), Some(live));
    let set = field_set(shape, &applied);
    Some(set.difference(&comparison.modified).difference(&comparison.added).difference(&comparison.removed))
}

/// Where the object carries kubectl's annotation, kubectl's apply brings it up to date.
fn renew_last_applied(mut object: Value, config: &Value, claim: &Claim<'_>) -> Value {
    if claim.manager != KUBECTL {
        return object;
    }
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return object;
    };
    let has = annotations.get(LAST_APPLIED).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    if has {
        let mut config = config.clone();
        if let Some(own) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
            own.remove(LAST_APPLIED);
        }
        annotations.insert(LAST_APPLIED.into(), format!("{config}\n").into());
    }
    object
}

/// `live` with everything that a configuration states, nobody's ownership asked or changed. A configuration that holds
/// lists or objects that are only ever replaced as a whole is refused, since what it leaves out of them would be lost.
pub fn merge_configuration(shape: Shape<'_>, live: &Value, configuration: &Value) -> Result<Value, String> {
    let faults = validate(shape, configuration);
    if !faults.is_empty() {
        return Err(format!("failed to convert patch object to typed object: {}", faults.join(", ")));
    }
    let mut atomics = Vec::new();
    find_atomics(shape, configuration, String::new(), &mut atomics);
    if !atomics.is_empty() {
        let all = atomics.join(", ");
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {all}"
        ));
    }
    Ok(merge(shape, Some(live), Some(configuration)).unwrap_or_else(|| live.clone()))
}

fn find_atomics(shape: Shape<'_>, value: &Value, path: String, found: &mut Vec<String>) {
    let shape = shape.settle(None, Some(value));
    match value {
        Value::Object(fields) if shape.is_object() => {
            for (name, inner) in fields {
                find_atomics(shape.field(name).0, inner, format!("{path}.{name}"), found);
            }
        }
        Value::Array(items) if shape.is_list() => {
            for (index, item) in items.iter().enumerate() {
                find_atomics(shape.element(), item, format!("{path}[{index}]"), found);
            }
        }
        Value::Object(_) | Value::Array(_) => found.push(path),
        _ => {}
    }
}

/// Upstream's message for conflicts.
pub fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", only.manager, only.field);
    }
    let mut managers: Vec<&str> = conflicts.iter().map(|conflict| conflict.manager.as_str()).collect();
    managers.sort_unstable();
    managers.dedup();
    let mut lines = Vec::new();
    for manager in managers {
        lines.push(format!("conflicts with {manager}:"));
        let theirs = conflicts.iter().filter(|conflict| conflict.manager == manager);
        lines.extend(theirs.map(|conflict| format!("- {}", conflict.field)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}
