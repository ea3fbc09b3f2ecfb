//! The configuration in force: flow schemas in their order, levels with their seats, and what their objects hear.

use super::level::{self, Level};
use super::metrics::FlowCounts;
use super::{Class, Fairness};
use crate::objects::{self, resource_of};
use api::Object;
use api::errors::ApiError;
use api::flowcontrol::v1::{FlowSchema, FlowSchemaCondition, PriorityLevelConfiguration};
use flowcontrol::{Bounds, Digest, Queuing, Share};
use http::HeaderValue;
use meta::ObjectKey;
use registry::{Registry, Request, UpdateKind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The schema and level that take what nothing else takes.
const CATCH_ALL: &str = "catch-all";
const CATCH_ALL_SHARE: Share = Share { shares: 5, lendable_percent: 0, borrowing_percent: None };
const REJECT: Queuing = Queuing { queues: 0, hand_size: 0, queue_length_limit: 0 };

/// A flow schema with its level.
pub struct Entry {
    pub name: String,
    pub class: Class,
    pub level: Arc<Level>,
    pub flow: Arc<FlowCounts>,
}

/// One state of the configuration.
pub struct State {
    /// In the order in which they are asked.
    schemas: Vec<FlowSchema>,
    pub entries: Vec<Entry>,
    /// Takes what no schema takes.
    rest: usize,
    pub levels: BTreeMap<String, Arc<Level>>,
    queuing: BTreeMap<String, Queuing>,
}

fn header(uid: &str) -> HeaderValue {
    HeaderValue::from_str(uid).unwrap_or(HeaderValue::from_static(""))
}

impl State {
    /// Before anything was read: one level, which refuses what is too much.
    pub fn mandatory(server_seats: u64) -> Self {
        let level = Level::limited(CATCH_ALL, REJECT, 0);
        let bounds = Bounds { nominal: server_seats, min: server_seats, max: server_seats };
        level.configure(REJECT, bounds, None, 0);
        let entry = Entry {
            name: CATCH_ALL.into(),
            class: Class { schema: header(""), level: header("") },
            level: Arc::clone(&level),
            flow: Arc::default(),
        };
        State {
            schemas: Vec::new(),
            entries: vec![entry],
            rest: 0,
            levels: BTreeMap::from([(CATCH_ALL.to_string(), level)]),
            queuing: BTreeMap::new(),
        }
    }

    /// The schema of a request, and what tells its flow from others of the schema.
    pub fn classify<'a>(&self, digest: &Digest<'a>) -> (&Entry, &'a str) {
        match flowcontrol::matching(&self.schemas, digest) {
            Some(flow) => (&self.entries[flow.schema], flow.distinguisher),
            None => (&self.entries[self.rest], ""),
        }
    }
}

impl Fairness {
    /// Takes the objects in as they are, and tells schemas whether their level exists.
    pub(super) async fn reload(&self, registry: &Registry) -> Result<(), ApiError> {
        let mut schemas = objects::list_typed::<FlowSchema>(registry, "").await?;
        let levels = objects::list_typed::<PriorityLevelConfiguration>(registry, "").await?;
        schemas.sort_by(|a, b| {
            let precedence = |schema: &FlowSchema| schema.spec.matching_precedence;
            precedence(a).cmp(&precedence(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
        });
        for schema in &schemas {
            let level = &schema.spec.priority_level_configuration.name;
            let exists = levels.iter().any(|known| known.metadata.name == *level);
            tell(registry, schema, level, exists).await?;
        }
        self.take_in(schemas, &levels);
        Ok(())
    }

    fn take_in(&self, schemas: Vec<FlowSchema>, objects: &[PriorityLevelConfiguration]) {
        let (old, now) = (self.state.load_full(), self.now());
        let mut levels: BTreeMap<String, Arc<Level>> = BTreeMap::new();
        let mut queuing: BTreeMap<String, Queuing> = BTreeMap::new();
        let mut shares: Vec<(String, Share)> = Vec::new();
        for object in objects {
            let name = &object.metadata.name;
            let (queues, share) = level::read(object);
            let same = old.levels.get(name).filter(|known| known.limited.is_some() == queues.is_some());
            let level = same.cloned().unwrap_or_else(|| match queues {
                Some(queues) => Level::limited(name, queues, now),
                None => Level::exempt(name),
            });
            queuing.extend(queues.map(|queues| (name.clone(), queues)));
            shares.push((name.clone(), share));
            levels.insert(name.clone(), level);
        }
        if !levels.contains_key(CATCH_ALL) {
            levels.insert(CATCH_ALL.into(), Level::limited(CATCH_ALL, REJECT, now));
            queuing.insert(CATCH_ALL.into(), REJECT);
            shares.push((CATCH_ALL.into(), CATCH_ALL_SHARE));
        }
        let only: Vec<Share> = shares.iter().map(|(_, share)| *share).collect();
        let bounds = flowcontrol::limits(self.server_seats, &only);
        for ((name, _), bounds) in shares.iter().zip(bounds) {
            levels[name].configure(queuing.get(name).copied().unwrap_or(REJECT), bounds, None, now);
        }
        let uid = |name: &str| {
            objects
                .iter()
                .find(|known| known.metadata.name == name)
                .map_or("", |known| known.metadata.uid.as_str())
        };
        let mut kept = Vec::new();
        let mut entries = Vec::new();
        for schema in schemas {
            let name = &schema.spec.priority_level_configuration.name;
            // A schema without its level is as if it were not there.
            let Some(level) = levels.get(name) else { continue };
            let before = old
                .entries
                .iter()
                .find(|entry| entry.name == schema.metadata.name && entry.level.name == level.name);
            entries.push(Entry {
                name: schema.metadata.name.clone(),
                class: Class { schema: header(&schema.metadata.uid), level: header(uid(name)) },
                level: Arc::clone(level),
                flow: before.map(|entry| Arc::clone(&entry.flow)).unwrap_or_default(),
            });
            kept.push(schema);
        }
        let rest = entries.len();
        entries.push(Entry {
            name: CATCH_ALL.into(),
            class: Class { schema: header(""), level: header(uid(CATCH_ALL)) },
            level: Arc::clone(&levels[CATCH_ALL]),
            flow: Arc::default(),
        });
        self.state.store(Arc::new(State { schemas: kept, entries, rest, levels, queuing }));
    }

    /// Lends seats by what each level could use.
    pub(super) fn adjust(&self) {
        let (state, now) = (self.state.load_full(), self.now());
        let (mut names, mut bounds, mut demands) = (Vec::new(), Vec::new(), Vec::new());
        for level in state.levels.values() {
            let Some(limited) = &level.limited else { continue };
            let mut inner = limited.inner.lock();
            let inner = &mut *inner;
            inner.demand.update(&mut inner.integrator, now);
            names.push(level);
            bounds.push(inner.bounds);
            demands.push((inner.demand.high_watermark, inner.demand.smoothed));
        }
        let available = bounds.iter().map(|bounds| bounds.nominal).sum();
        let (seats, fair) = flowcontrol::allocate(&bounds, &demands, available);
        *self.fair.lock() = fair;
        for (((level, bounds), (watermark, smoothed)), seats) in
            names.iter().zip(bounds).zip(demands).zip(seats)
        {
            let queuing = state.queuing.get(&level.name).copied().unwrap_or(REJECT);
            if let Some(limited) = &level.limited {
                let least = (bounds.min as f64).max((bounds.nominal as f64).min(watermark));
                limited.inner.lock().target = smoothed.max(least);
            }
            level.configure(queuing, bounds, Some(seats), now);
        }
        // Demand that is still falling is followed until it is gone.
        let falling = state.levels.values().any(|level| {
            level.limited.as_ref().is_some_and(|limited| limited.inner.lock().demand.smoothed > 0.01)
        });
        if falling {
            self.busy.notify_one();
        }
    }
}

/// Writes whether a schema's level exists, if its status does not say so.
async fn tell(registry: &Registry, schema: &FlowSchema, level: &str, exists: bool) -> Result<(), ApiError> {
    let (status, reason) = if exists { ("False", "Found") } else { ("True", "NotFound") };
    let told = |schema: &FlowSchema| {
        schema.status.conditions.iter().any(|known| known.r#type == "Dangling" && known.status == status)
    };
    if told(schema) {
        return Ok(());
    }
    let message = if exists {
        format!(
            "This FlowSchema references the PriorityLevelConfiguration object named {level:?} and it exists"
        )
    } else {
        format!(
            "This FlowSchema references the PriorityLevelConfiguration object named {level:?} but there is no such object"
        )
    };
    let change = |object: &mut dyn Object| {
        let Some(schema) = object.downcast_mut::<FlowSchema>() else { return Ok(()) };
        schema.status.conditions.retain(|known| known.r#type != "Dangling");
        schema.status.conditions.push(FlowSchemaCondition {
            r#type: "Dangling".into(),
            status: status.into(),
            last_transition_time: Some(crate::verbs::now()),
            reason: reason.into(),
            message: message.clone(),
        });
        Ok(())
    };
    let key = ObjectKey::cluster(schema.metadata.name.clone());
    let request = Request::internal("api-priority-and-fairness-config-consumer-v1");
    let resource = resource_of::<FlowSchema>();
    match registry.modify(&request, resource, &key, UpdateKind::Status, &change).await {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        other => other.map(|_| ()),
    }
}
