//! Which kinds are served: those of the table, and those that definitions make at run time.
//!
//! Invariant: what is served is one value that is exchanged as a whole; a request reads it once, without a lock.

use crate::discovery::Discovery;
use crate::openapi::OpenApi;
use api::apiextensions::v1::CustomResourceDefinition;
use apiextensions::Definition;
use apiextensions::definition::is_true;
use apiextensions::names::ESTABLISHED;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use registry::Registry;
use resources::Resource;
use resources::custom::{CustomKinds, CustomRow};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that is said of what is served.
pub struct Served {
    pub discovery: Discovery,
    pub openapi: OpenApi,
}

/// One definition that is served.
struct Entry {
    definition: Arc<Definition>,
    rows: Vec<&'static CustomRow>,
    /// Of the spec and the accepted names: while they stay, so does everything here.
    generation: (String, i64, api::apiextensions::v1::CustomResourceDefinitionNames),
}

/// The kinds of one server.
pub struct Kinds {
    builtin: Vec<&'static dyn Resource>,
    host: String,
    custom: CustomKinds,
    entries: Mutex<BTreeMap<String, Entry>>,
    served: ArcSwap<Served>,
}

impl Kinds {
    /// `host` is where clients are told to find the server.
    pub fn new(builtin: Vec<&'static dyn Resource>, host: String) -> Self {
        let served = Served {
            discovery: Discovery::new(&builtin, host.clone()),
            openapi: OpenApi::new(builtin.clone(), None),
        };
        Kinds {
            builtin,
            host,
            custom: CustomKinds::default(),
            entries: Mutex::default(),
            served: ArcSwap::from_pointee(served),
        }
    }

    pub fn served(&self) -> arc_swap::Guard<Arc<Served>> {
        self.served.load()
    }

    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&'static dyn Resource> {
        self.served().discovery.resource(group, version, plural)
    }

    /// The resource that serves a kind.
    pub fn resource_of_kind(&self, group: &str, version: &str, kind: &str) -> Option<&'static dyn Resource> {
        self.served().discovery.resource_of_kind(group, version, kind)
    }

    /// Group and version of everything that is built in.
    pub fn built_in_versions(&self) -> Vec<(String, String)> {
        Discovery::new(&self.builtin, self.host.clone()).versions()
    }

    /// The row in which the objects of a definition are stored, whether it is served or not.
    pub fn storage_row(&self, definition: &CustomResourceDefinition) -> Option<&'static CustomRow> {
        let entries = self.entries.lock();
        let entry = entries.get(&definition.metadata.name)?;
        let at = entry.definition.versions.iter().position(|version| version.storage)?;
        entry.rows.get(at).copied()
    }

    /// Takes a definition as it is now: serves it, serves it anew, or leaves it. Whether `publish` has something to say.
    pub fn take(&self, registry: &Registry, crd: &CustomResourceDefinition) -> bool {
        let name = &crd.metadata.name;
        if !is_true(crd, ESTABLISHED) {
            return self.remove(registry, name);
        }
        let terminating = crd.metadata.deletion_timestamp.is_some();
        let generation =
            (crd.metadata.uid.clone(), crd.metadata.generation, crd.status.accepted_names.clone());
        let mut entries = self.entries.lock();
        let known = entries.get(name);
        if known.is_some_and(|known| {
            known.generation == generation && known.definition.terminating == terminating
        }) {
            return false;
        }
        let definition = match Definition::compile(crd) {
            Ok(definition) => Arc::new(definition),
            Err(error) => {
                tracing::error!(definition = name, error, "Could not serve a custom resource definition");
                return false;
            }
        };
        let rows = self.custom.rows(Arc::clone(&definition));
        // What is cached was read by the old rules, and who watches sees the old kind.
        if let Some(row) =
            known.filter(|known| known.generation != generation).and_then(|known| known.rows.first())
        {
            registry.forget(*row);
        }
        entries.insert(name.clone(), Entry { definition, rows, generation });
        tracing::info!(definition = name, "Serving a custom resource definition");
        true
    }

    /// Stops serving a definition.
    pub fn remove(&self, registry: &Registry, name: &str) -> bool {
        let Some(entry) = self.entries.lock().remove(name) else { return false };
        if let Some(row) = entry.rows.first() {
            registry.forget(*row);
        }
        tracing::info!(definition = name, "Stopped serving a custom resource definition");
        true
    }

    /// Tells what is served now.
    pub fn publish(&self) {
        let mut all = self.builtin.clone();
        for entry in self.entries.lock().values() {
            let served =
                entry.definition.versions.iter().zip(&entry.rows).filter(|(version, _)| version.served);
            all.extend(served.map(|(_, row)| *row as &'static dyn Resource));
        }
        let openapi = OpenApi::new(all.clone(), Some(&self.served.load().openapi));
        let discovery = Discovery::new(&all, self.host.clone());
        self.served.store(Arc::new(Served { discovery, openapi }));
    }
}
