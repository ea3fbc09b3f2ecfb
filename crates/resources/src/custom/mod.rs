//! Kinds that definitions make at run time: rows of the same table, with objects of JSON trees.
//!
//! Invariants: a row is one set of facts (names, verbs, columns) and is never freed, so that it can be handed out as
//! `&'static`; what is large, the schema, hangs on it and is exchanged when the definition changes. Rows are kept by
//! their facts, so that what they take is bounded by how many different ones there have been.

mod object;
mod row;

pub use object::Custom;
pub use row::CustomRow;

use crate::resource::Resource;
use api::{ResourceFacts, SubresourceFacts};
use apiextensions::{Definition, Version};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Verbs of every custom resource.
const VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const SUB_VERBS: &[&str] = &["get", "patch", "update"];

/// The same text for good: each different one is kept once.
pub(crate) fn intern(text: &str) -> &'static str {
    static KNOWN: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = known.get(text) {
        return known;
    }
    let kept: &'static str = Box::leak(text.to_string().into_boxed_str());
    known.insert(kept);
    kept
}

fn intern_all(texts: &[String]) -> &'static [&'static str] {
    Box::leak(texts.iter().map(|text| intern(text)).collect())
}

/// What tells one row from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Facts {
    group: String,
    version: String,
    plural: String,
    singular: String,
    kind: String,
    list_kind: String,
    namespaced: bool,
    short_names: Vec<String>,
    categories: Vec<String>,
    status: bool,
    scale: bool,
    columns: Vec<(String, String, String, String, i32)>,
}

impl Facts {
    fn of(definition: &Definition, version: &Version) -> Self {
        let columns = version.columns.iter().map(|column| {
            let text = |text: &String| text.clone();
            (
                text(&column.name),
                text(&column.ty),
                text(&column.format),
                text(&column.description),
                column.priority,
            )
        });
        Facts {
            group: definition.group.clone(),
            version: version.name.clone(),
            plural: definition.plural.clone(),
            singular: definition.singular.clone(),
            kind: definition.kind.clone(),
            list_kind: definition.list_kind.clone(),
            namespaced: definition.namespaced,
            short_names: definition.short_names.clone(),
            categories: definition.categories.clone(),
            status: version.status,
            scale: version.scale.is_some(),
            columns: columns.collect(),
        }
    }

    fn leak(&self) -> &'static ResourceFacts {
        let mut subresources = Vec::new();
        if self.status {
            subresources.push(SubresourceFacts {
                name: "status",
                group: intern(&self.group),
                version: intern(&self.version),
                kind: intern(&self.kind),
                verbs: SUB_VERBS,
            });
        }
        if self.scale {
            let (group, version, kind) = ("autoscaling", "v1", "Scale");
            subresources.push(SubresourceFacts { name: "scale", group, version, kind, verbs: SUB_VERBS });
        }
        Box::leak(Box::new(ResourceFacts {
            group: intern(&self.group),
            version: intern(&self.version),
            plural: intern(&self.plural),
            singular: intern(&self.singular),
            kind: intern(&self.kind),
            namespaced: self.namespaced,
            verbs: VERBS,
            short_names: intern_all(&self.short_names),
            categories: intern_all(&self.categories),
            subresources: Box::leak(subresources.into_boxed_slice()),
        }))
    }
}

/// The rows of one server, by their facts.
#[derive(Default)]
pub struct CustomKinds {
    rows: Mutex<HashMap<Facts, &'static CustomRow>>,
}

impl CustomKinds {
    /// The rows of a definition, one for each of its versions. Every row of the same group and plural, also those that
    /// are no longer served, now goes by this definition.
    pub fn rows(&self, definition: Arc<Definition>) -> Vec<&'static CustomRow> {
        let mut known = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let rows: Vec<&'static CustomRow> = definition
            .versions
            .iter()
            .map(|version| {
                let facts = Facts::of(&definition, version);
                *known.entry(facts).or_insert_with_key(|facts| {
                    let columns = facts.columns.as_slice();
                    Box::leak(Box::new(CustomRow::new(facts.leak(), intern(&facts.list_kind), columns)))
                })
            })
            .collect();
        let shared: Arc<[&'static CustomRow]> = rows.clone().into();
        for row in known.values() {
            if row.group() == definition.group && row.plural() == definition.plural {
                row.take(&definition, &shared);
            }
        }
        rows
    }
}
