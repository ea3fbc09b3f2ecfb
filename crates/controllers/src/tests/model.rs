//! A model cluster: the truth, a view that lags behind it, write fences, and a kubelet that runs pods.
//!
//! Writes are checked as the API server checks them: names, uids, revisions.

use crate::{Action, Context, Controller, Plan, Step, Target};
use api::apps::v1::ReplicaSet;
use api::core::v1::{Pod, PodCondition};
use api::{Object, Typed};
use meta::{ObjectKey, Time};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use view::{KindId, View};

#[derive(Clone)]
enum Event {
    Put(Arc<dyn Object>),
    Gone(KindId, ObjectKey, u64),
}

enum Fence {
    Reached(KindId, u64),
    Gone(KindId, ObjectKey, String),
}

#[derive(Default)]
struct Key {
    fences: Vec<Fence>,
    dirty: bool,
}

pub struct Model {
    pub truth: View,
    lagging: View,
    events: VecDeque<Event>,
    revision: u64,
    pub seconds: i64,
    controllers: Vec<Box<dyn Controller>>,
    keys: Vec<HashMap<ObjectKey, Key>>,
    timers: BTreeSet<(i64, usize, ObjectKey)>,
    names: u64,
    pub writes: usize,
}

impl Model {
    pub fn new(controllers: Vec<Box<dyn Controller>>) -> Self {
        Model {
            truth: View::default(),
            lagging: View::default(),
            events: VecDeque::new(),
            revision: 0,
            seconds: 1_700_000_000,
            keys: controllers.iter().map(|_| HashMap::new()).collect(),
            controllers,
            timers: BTreeSet::new(),
            names: 0,
            writes: 0,
        }
    }

    fn now(&self) -> Time {
        Time::from_seconds(self.seconds).expect("it is in range")
    }

    /// Stores an object as the API server does.
    pub fn store(&mut self, mut object: Box<dyn Object>) -> Arc<dyn Object> {
        self.revision += 1;
        object.metadata_mut().resource_version = self.revision.to_string();
        let object: Arc<dyn Object> = Arc::from(object);
        let left = object.metadata().deletion_timestamp.is_some() && !object.is::<Pod>();
        if left {
            self.drop_object(object.as_ref());
        } else {
            self.truth.insert_object(object.clone());
            self.events.push_back(Event::Put(object.clone()));
        }
        object
    }

    pub fn create(&mut self, mut object: Box<dyn Object>) -> Option<Arc<dyn Object>> {
        let now = self.now();
        self.names += 1;
        let (serial, kind) = (self.names, view::kind_of(object.as_ref()));
        let metadata = object.metadata_mut();
        if metadata.name.is_empty() {
            metadata.name = format!("{}{serial}", metadata.generate_name);
        }
        metadata.uid = format!("uid-{serial}");
        metadata.creation_timestamp = Some(now);
        metadata.generation = 1;
        if self.truth.get_object(kind, &view::key_of(object.as_ref())).is_some() {
            return None;
        }
        if let Some(pod) = object.downcast_mut::<Pod>() {
            pod.status.phase = "Pending".into();
        }
        Some(self.store(object))
    }

    fn drop_object(&mut self, object: &dyn Object) {
        self.revision += 1;
        let (kind, key) = (view::kind_of(object), view::key_of(object));
        self.truth.remove_object(kind, &key);
        self.truth.advance(kind, self.revision);
        self.events.push_back(Event::Gone(kind, key, self.revision));
    }

    /// Changes an object of the truth, as a user or a kubelet would.
    pub fn edit<T: Typed + Object + Clone>(&mut self, key: &ObjectKey, change: impl FnOnce(&mut T)) {
        let Some(current) = self.truth.get::<T>(key) else { return };
        let mut next = T::clone(&current);
        change(&mut next);
        self.store(Box::new(next));
    }

    pub fn remove_pod(&mut self, key: &ObjectKey) {
        if let Some(pod) = self.truth.get::<Pod>(key) {
            self.drop_object(pod.as_ref());
        }
    }

    /// Brings some events to the view, and the keys they concern to the queues.
    pub fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            let Some(event) = self.events.pop_front() else { break };
            let (kind, old, new) = match event {
                Event::Put(object) => {
                    let kind = view::kind_of(object.as_ref());
                    (kind, self.lagging.insert_object(object.clone()), Some(object))
                }
                Event::Gone(kind, key, revision) => {
                    let old = self.lagging.remove_object(kind, &key);
                    self.lagging.advance(kind, revision);
                    (kind, old, None)
                }
            };
            for (index, controller) in self.controllers.iter().enumerate() {
                for watch in controller.watches().iter().filter(|watch| watch.kind == kind) {
                    for key in watch.keys(&self.lagging, old.as_deref(), new.as_deref()) {
                        self.keys[index].entry(key).or_default().dirty = true;
                    }
                }
            }
        }
    }

    /// Lets time pass and timers ring.
    pub fn pass(&mut self, seconds: i64) {
        self.seconds += seconds;
        while let Some((at, index, key)) = self.timers.first().cloned()
            && at <= self.seconds
        {
            self.timers.pop_first();
            self.keys[index].entry(key).or_default().dirty = true;
        }
    }

    pub fn rings_at(&self) -> Option<i64> {
        self.timers.first().map(|(at, _, _)| *at)
    }

    /// Works on the first key that is ready; false where none is.
    pub fn work(&mut self, pick: usize) -> bool {
        let lagging = self.lagging.clone();
        let mut ready: Vec<(usize, ObjectKey)> = Vec::new();
        for (index, keys) in self.keys.iter_mut().enumerate() {
            for (key, state) in keys.iter_mut() {
                let waited = !state.fences.is_empty();
                state.fences.retain(|fence| match fence {
                    Fence::Reached(kind, revision) => lagging.revision(*kind) < *revision,
                    Fence::Gone(kind, key, uid) => !lagging.gone(*kind, key, uid),
                });
                state.dirty |= waited && state.fences.is_empty();
                if state.dirty && state.fences.is_empty() {
                    ready.push((index, key.clone()));
                }
            }
        }
        ready.sort();
        let Some((index, key)) = ready.get(pick % ready.len().max(1)).cloned() else { return false };
        let context = Context { view: &lagging, key: &key, now: self.now(), report: None, marked: None };
        let plan = self.controllers[index].reconcile(&context);
        if let Some(again) = plan.again {
            let seconds = i64::try_from(again.as_secs()).unwrap_or(i64::MAX).max(1);
            self.timers.insert((self.seconds + seconds, index, key.clone()));
        }
        let (fences, failed) = self.carry_out(plan);
        let state = self.keys[index].entry(key).or_default();
        state.fences = fences;
        state.dirty = failed;
        true
    }

    fn carry_out(&mut self, plan: Plan) -> (Vec<Fence>, bool) {
        let mut fences = Vec::new();
        let mut failed = false;
        for Step { action, always, .. } in plan.steps {
            if failed && !always {
                continue;
            }
            match self.write(action) {
                Some(fence) => fences.push(fence),
                None => failed = true,
            }
        }
        (fences, failed)
    }

    fn write(&mut self, action: Action) -> Option<Fence> {
        self.writes += 1;
        let reached = |object: &Arc<dyn Object>| {
            Fence::Reached(view::kind_of(object.as_ref()), view::revision_of(object.as_ref()))
        };
        match action {
            Action::Create(object) => self.create(object).map(|created| reached(&created)),
            Action::Update(mut object) => {
                let current = self.current(object.as_ref())?;
                if api::codec::to_value(object.as_dyn())["spec"]
                    != api::codec::to_value(current.as_dyn())["spec"]
                {
                    object.metadata_mut().generation = current.metadata().generation + 1;
                }
                Some(reached(&self.store(object)))
            }
            Action::UpdateSub { object, .. } => {
                self.current(object.as_ref())?;
                Some(reached(&self.store(object)))
            }
            Action::Patch { target, strategic, body, .. } => {
                let current = self.find(&target)?;
                let document = api::codec::to_value(current.as_dyn());
                let mut body = body;
                if let Some(metadata) = body["metadata"].as_object_mut() {
                    metadata.remove("uid");
                }
                let next = if strategic {
                    patch::strategic::apply(&document, &body, current.descriptor()).expect("it is a patch")
                } else {
                    let mut next = document;
                    patch::merge::apply(&mut next, &body);
                    next
                };
                let gvk = current.gvk();
                let kind = api::kind(gvk.group, gvk.version, gvk.kind).expect("it is in the table");
                let mut notes = meta::json::Notes::default();
                let bytes = next.to_string();
                let object = api::codec::decode_object(
                    kind,
                    bytes.as_bytes(),
                    api::codec::MediaType::Json,
                    &mut notes,
                )
                .expect("a patched object is of its kind");
                Some(reached(&self.store(object)))
            }
            Action::Delete { target, .. } => {
                let kind = target.kind.expect("the model has tables only");
                let gone = Fence::Gone(kind, target.key.clone(), target.uid.clone());
                let Some(current) = self.find(&target) else { return Some(gone) };
                if current.is::<Pod>() {
                    let mut pod = current.clone_object();
                    pod.metadata_mut().deletion_timestamp.get_or_insert(self.now());
                    return Some(reached(&self.store(pod)));
                }
                self.drop_object(current.as_ref());
                Some(gone)
            }
            Action::ClearNamespace { .. }
            | Action::Review(_)
            | Action::Rescale { .. }
            | Action::Query(_)
            | Action::Errand(_) => None,
        }
    }

    /// The object of the truth, where it is in the state that the writer knew.
    fn current(&self, object: &dyn Object) -> Option<Arc<dyn Object>> {
        let current = self.truth.get_object(view::kind_of(object), &view::key_of(object))?;
        let same = current.metadata().uid == object.metadata().uid
            && current.metadata().resource_version == object.metadata().resource_version;
        same.then_some(current)
    }

    fn find(&self, target: &Target) -> Option<Arc<dyn Object>> {
        let current = self.truth.get_object(target.kind?, &target.key)?;
        (current.metadata().uid == target.uid).then_some(current)
    }

    /// The kubelet moves one pod on: it starts, or ends.
    pub fn kubelet(&mut self, pick: usize, healthy: impl Fn(&Pod) -> bool) -> bool {
        let moving: Vec<Arc<Pod>> = self
            .truth
            .list::<Pod>()
            .filter(|pod| {
                if pod.metadata.deletion_timestamp.is_some() {
                    // A finalizer holds what is over already.
                    return pod.metadata.finalizers.is_empty() || !crate::pod::is_finished(pod);
                }
                healthy(pod) && !crate::pod::is_ready(pod)
            })
            .collect();
        let Some(pod) = moving.get(pick % moving.len().max(1)) else { return false };
        let mut next = Pod::clone(pod);
        if pod.metadata.deletion_timestamp.is_some() {
            if pod.metadata.finalizers.is_empty() {
                self.drop_object(pod.as_ref());
            } else {
                next.status.phase = "Failed".into();
                self.store(Box::new(next));
            }
            return true;
        }
        if next.spec.node_name.is_empty() {
            next.spec.node_name = bound_to(&next).unwrap_or_else(|| "node".into());
        }
        next.status.phase = "Running".into();
        next.status.conditions = vec![PodCondition {
            r#type: "Ready".into(),
            status: "True".into(),
            last_transition_time: Some(self.now()),
            ..PodCondition::default()
        }];
        self.store(Box::new(next));
        true
    }

    /// Runs everything until nothing moves; panics where that does not happen.
    pub fn settle(&mut self, healthy: impl Fn(&Pod) -> bool + Copy) {
        for _ in 0..20_000 {
            self.deliver(usize::MAX);
            if self.work(0) || self.kubelet(0, healthy) {
                continue;
            }
            match self.rings_at() {
                Some(at) => self.pass((at - self.seconds).max(0)),
                None => return,
            }
        }
        panic!("the model does not settle");
    }

    /// The sets as they are, and as the view has them: for the messages of failing tests.
    pub fn told(&self) -> String {
        let sets = |view: &View| {
            let one = |set: Arc<ReplicaSet>| {
                let status = &set.status;
                let image = &set.spec.template.spec.containers[0].image;
                format!(
                    "{image} {:?} has {} available {}; ",
                    set.spec.replicas, status.replicas, status.available_replicas
                )
            };
            view.list::<ReplicaSet>().map(one).collect::<String>()
        };
        format!("{}\nas seen {}", sets(&self.truth), sets(&self.lagging))
    }

    /// What each controller would still do: nothing, once everything is settled.
    pub fn left_to_do(&self) -> String {
        let mut left = String::new();
        for (index, controller) in self.controllers.iter().enumerate() {
            for key in self.keys[index].keys() {
                let context = Context { view: &self.truth, key, now: self.now(), report: None, marked: None };
                let plan = controller.reconcile(&context);
                if !plan.is_empty() {
                    left.push_str(&format!("{} {key}: {plan}", controller.name()));
                }
            }
        }
        left
    }
}

/// The one node that a daemon's pod may go to.
fn bound_to(pod: &Pod) -> Option<String> {
    let affinity = pod.spec.affinity.as_deref()?.node_affinity.as_deref()?;
    let selector = affinity.required_during_scheduling_ignored_during_execution.as_deref()?;
    selector.node_selector_terms.first()?.match_fields.first()?.values.first().cloned()
}
