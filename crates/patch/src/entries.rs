//! The entries of `metadata.managedFields`, read and written.

use crate::set::Set;
use api::meta::v1::ManagedFieldsEntry;
use meta::{FieldsV1, Time};
use std::collections::BTreeMap;
use std::fmt;

/// Entries of updates that an object keeps; beyond it the oldest are merged.
pub const MAX_UPDATE_MANAGERS: usize = 10;
/// Who owns what the oldest entries owned.
const ANCIENT: &str = "ancient-changes";
const FIELDS_TYPE: &str = "FieldsV1";
const APPLY: &str = "Apply";
const UPDATE: &str = "Update";

/// What tells one entry from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub manager: String,
    pub applies: bool,
    /// Empty for those that apply.
    pub api_version: String,
    pub subresource: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.manager)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        if !self.applies {
            write!(f, " using {}", self.api_version)?;
        }
        Ok(())
    }
}

/// What an entry holds besides.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    pub set: Set,
    /// The set's text as it was read, for as long as the set has not changed.
    pub text: Option<FieldsV1>,
    pub api_version: String,
    pub time: Option<Time>,
}

impl Owned {
    pub fn none(api_version: &str) -> Self {
        Owned { set: Set::default(), text: None, api_version: api_version.into(), time: None }
    }
}

/// All entries of an object.
#[derive(Clone, Debug, Default)]
pub(crate) struct Managers(pub BTreeMap<Owner, Owned>);

fn decode(entry: &ManagedFieldsEntry) -> Option<(Owner, Owned)> {
    let applies = match entry.operation.as_str() {
        APPLY => true,
        UPDATE => false,
        _ => return None,
    };
    if entry.api_version.is_empty() || entry.fields_type != FIELDS_TYPE {
        return None;
    }
    let set = match &entry.fields_v1 {
        Some(fields) => Set::decode(fields.as_bytes()).ok()?,
        None => Set::default(),
    };
    let owner = Owner {
        manager: entry.manager.clone(),
        applies,
        api_version: if applies { String::new() } else { entry.api_version.clone() },
        subresource: entry.subresource.clone(),
    };
    let text = entry.fields_v1.clone();
    Some((owner, Owned { set, text, api_version: entry.api_version.clone(), time: entry.time }))
}

/// Entries that can be read; none at all if one cannot, as upstream does.
pub fn readable(entries: &[ManagedFieldsEntry]) -> Vec<ManagedFieldsEntry> {
    if entries.iter().all(|entry| decode(entry).is_some()) { entries.to_vec() } else { Vec::new() }
}

impl Managers {
    pub fn decode(entries: &[ManagedFieldsEntry]) -> Self {
        Managers(entries.iter().filter_map(decode).collect())
    }

    /// Entries in upstream's order: appliers first, then by time, manager, version and subresource.
    pub fn encode(self) -> Vec<ManagedFieldsEntry> {
        let mut entries: Vec<_> = self
            .0
            .into_iter()
            .map(|(owner, owned)| ManagedFieldsEntry {
                manager: owner.manager,
                operation: if owner.applies { APPLY } else { UPDATE }.into(),
                api_version: owned.api_version,
                time: owned.time,
                fields_type: FIELDS_TYPE.into(),
                fields_v1: Some(owned.text.unwrap_or_else(|| FieldsV1::from_json(&owned.set.encode()))),
                subresource: owner.subresource,
            })
            .collect();
        let seconds = |entry: &ManagedFieldsEntry| entry.time.map_or(0, |time| time.seconds());
        entries.sort_by(|a, b| {
            a.operation
                .cmp(&b.operation)
                .then_with(|| seconds(a).cmp(&seconds(b)))
                .then_with(|| a.manager.cmp(&b.manager))
                .then_with(|| a.api_version.cmp(&b.api_version))
                .then_with(|| a.subresource.cmp(&b.subresource))
        });
        entries
    }

    /// Merges the oldest entries of updates, version by version, until there are no more than the limit.
    pub fn cap_updates(&mut self) {
        let mut updaters: Vec<(i64, Owner)> = self
            .0
            .iter()
            .filter(|(owner, _)| !owner.applies)
            .map(|(owner, owned)| (owned.time.map_or(0, |time| time.seconds()), owner.clone()))
            .collect();
        let mut count = updaters.len();
        if count <= MAX_UPDATE_MANAGERS {
            return;
        }
        updaters.sort();
        let mut first_of: BTreeMap<String, Owner> = BTreeMap::new();
        for (_, owner) in updaters {
            if count <= MAX_UPDATE_MANAGERS {
                break;
            }
            let version = owner.api_version.clone();
            let Some(first) = first_of.get(&version) else {
                first_of.insert(version, owner);
                continue;
            };
            let bucket = Owner {
                manager: ANCIENT.into(),
                applies: false,
                api_version: version,
                subresource: String::new(),
            };
            if !self.0.contains_key(&bucket)
                && let Some(owned) = self.0.remove(first)
            {
                self.0.insert(bucket.clone(), owned);
            }
            if owner == bucket {
                continue;
            }
            if let (Some(mut owned), Some(ancient)) = (self.0.remove(&owner), self.0.get(&bucket)) {
                owned.set = owned.set.union(&ancient.set);
                owned.text = None;
                self.0.insert(bucket, owned);
                count -= 1;
            }
        }
    }
}
