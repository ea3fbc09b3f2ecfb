//! What a request will cost, by what the cache knows of its resource.

use super::Fairness;
use crate::query::Query;
use crate::request::RequestInfo;
use flowcontrol::{ListFacts, Work};
use resources::Resource;
use std::time::{Duration, Instant};

/// How long sizes are believed: counting watchers of a resource is not free.
const FRESH: Duration = Duration::from_secs(1);
/// Resources whose sizes are remembered.
const KNOWN_MAX: usize = 2_000;

/// Sizes of a resource's cache, as they were.
#[derive(Clone, Copy)]
pub struct Known {
    at: Instant,
    objects: u64,
    bytes: u64,
    watchers: u64,
}

/// What is asked, as far as its cost goes.
pub struct Asked<'a> {
    pub info: &'a RequestInfo,
    pub query: &'a Query,
    /// `None` for what this server does not have.
    pub resource: Option<&'static dyn Resource>,
}

impl Fairness {
    pub fn estimate(&self, asked: &Asked<'_>, level_most: u64) -> Work {
        let info = asked.info;
        let Some(resource) = asked.resource.filter(|_| info.is_resource && info.subresource.is_empty())
        else {
            return Work::ONE;
        };
        match info.verb.as_str() {
            "list" | "watch" => {
                let text = |name: &str| asked.query.first(name).unwrap_or_default();
                let news = info.verb == "watch"
                    && asked.query.optional_boolean("sendInitialEvents") != Some(true)
                    && !matches!(text("resourceVersion"), "" | "0");
                if news || !info.name.is_empty() {
                    return Work::ONE;
                }
                let Some(known) = self.known(resource) else { return Work::ONE };
                let limit = text("limit").parse().unwrap_or(0);
                let facts =
                    ListFacts { objects: known.objects, bytes: known.bytes, limit, ..ListFacts::default() };
                flowcontrol::list(&facts, level_most)
            }
            "create" | "update" | "patch" | "delete" => self
                .known(resource)
                .map_or(Work::ONE, |known| flowcontrol::mutating(known.watchers, level_most)),
            _ => Work::ONE,
        }
    }

    fn known(&self, resource: &'static dyn Resource) -> Option<Known> {
        let prefix = resource.storage_prefix();
        if let Some(known) = self.sizes.lock().get(prefix).filter(|known| known.at.elapsed() < FRESH) {
            return Some(*known);
        }
        let (objects, bytes, watchers) = self.registry.upgrade()?.sizes_of(resource)?;
        let known = Known {
            at: Instant::now(),
            objects: objects as u64,
            bytes: bytes as u64,
            watchers: watchers as u64,
        };
        let mut all = self.sizes.lock();
        if all.len() >= KNOWN_MAX {
            all.clear();
        }
        all.insert(prefix.to_string(), known);
        Some(known)
    }
}
