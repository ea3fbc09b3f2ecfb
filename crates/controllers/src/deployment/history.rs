//! A Deployment's templates over time: their hash, their revision numbers, the new ReplicaSet, and those let go.

use super::{
    DESIRED_REPLICAS, MAX_REPLICAS, REVISION, REVISION_HISTORY, Rollout, TEMPLATE_HASH, mark, size_of,
};
use crate::ownership::controller_reference;
use crate::plan::{Action, Note, Report, Step, Target};
use api::Typed;
use api::apps::v1::{Deployment, ReplicaSet};
use api::core::v1::PodTemplateSpec;
use meta::ObjectKey;

/// The longest revision history that is kept in an annotation, in characters.
const HISTORY_CHARS_MAX: usize = 2000;
/// The longest name of an object.
const NAME_MAX: usize = 253;
/// Annotations of a Deployment that its ReplicaSets do not get.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// Whether two templates are the same but for the label that tells them apart.
pub(super) fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    if a.spec != b.spec {
        return false;
    }
    let bare = |template: &PodTemplateSpec| {
        let mut metadata = template.metadata.clone();
        metadata.labels.remove(TEMPLATE_HASH);
        metadata
    };
    bare(a) == bare(b)
}

/// The hash of a template, in the letters that upstream uses for it: no vowels, so no words.
///
/// Upstream hashes a Go-specific dump, which nothing else can reproduce; the value only has to differ for templates
/// that differ, and to stay the same for the same one.
pub(crate) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut bytes = Vec::new();
    meta::proto::write_fields(template, &mut bytes);
    if let Some(collisions) = collisions {
        bytes.extend_from_slice(&collisions.to_le_bytes());
    }
    let mut hash: u32 = 0x811c_9dc5;
    for byte in bytes {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    let letters = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string().bytes().map(|digit| letters[usize::from(digit) % letters.len()] as char).collect()
}

fn revision_of(set: &ReplicaSet) -> i64 {
    set.metadata.annotations.get(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Rollout<'_> {
    fn next_revision(&self) -> i64 {
        self.old.iter().map(revision_of).max().unwrap_or(0) + 1
    }

    /// Brings the new set's annotations, and the Deployment's revision, up to date. The set is not made here.
    pub(super) fn sync_revision(&mut self) {
        let revision = self.next_revision();
        let deployment = self.deployment;
        let Some(set) = &mut self.new else { return };
        let annotated = annotate(deployment, set, revision);
        let paced = set.spec.min_ready_seconds != deployment.spec.min_ready_seconds;
        if annotated || paced {
            set.spec.min_ready_seconds = deployment.spec.min_ready_seconds;
            self.plan.push(Action::Update(Box::new(set.clone())));
        }
        let name = set.metadata.name.clone();
        let revision = set.metadata.annotations.get(REVISION).cloned();
        self.publish_revision(revision.unwrap_or_default());
        if self.has_deadline() && self.progressing().is_none() {
            self.set_progressing("True", "FoundNewReplicaSet", format!("Found new replica set \"{name}\""));
        }
    }

    /// Writes the revision onto the Deployment, where it is another.
    fn publish_revision(&mut self, revision: String) {
        if revision.is_empty() || self.deployment.metadata.annotations.get(REVISION) == Some(&revision) {
            return;
        }
        let mut next = self.deployment.clone();
        next.metadata.annotations.insert(REVISION.into(), revision);
        self.plan.push(Action::Update(Box::new(next)));
    }

    /// Makes the new set if there is none; false where it cannot be made now, and the rollout waits.
    pub(super) fn ensure_new_set(&mut self) -> bool {
        if self.new.is_some() {
            self.sync_revision();
            return true;
        }
        let deployment = self.deployment;
        let hash = template_hash(&deployment.spec.template, deployment.status.collision_count);
        let mut set = new_set(deployment, &hash);
        let key = ObjectKey::new(set.metadata.namespace.clone(), set.metadata.name.clone());
        if self.context.view.get::<ReplicaSet>(&key).is_some() {
            // Another template, or another owner, has this very name: count on, so that the hash becomes another.
            let count = self.status.collision_count.unwrap_or(0) + 1;
            self.status.collision_count = Some(count);
            return false;
        }
        let revision = self.next_revision();
        self.new = Some(set.clone());
        let size = self.new_set_size();
        set.spec.replicas = Some(size);
        annotate(deployment, &mut set, revision);
        mark(&mut set.metadata.annotations, DESIRED_REPLICAS, self.replicas);
        mark(&mut set.metadata.annotations, MAX_REPLICAS, self.replicas + self.max_surge);
        let name = set.metadata.name.clone();
        let mut step = Step::new(Action::Create(Box::new(set.clone()))).failed(Note::warning(
            deployment,
            "ReplicaSetCreateError",
            format!("Failed to create new replica set \"{name}\": {{error}}"),
        ));
        if size > 0 {
            step = step.done(Note::normal(
                deployment,
                "ScalingReplicaSet",
                format!("Scaled up replica set {name} from 0 to {size}"),
            ));
        }
        self.plan.steps.push(step);
        if let Some(Report::Failed(failure)) = self.context.report
            && failure.verb == "create"
            && failure.code != 409
        {
            if self.has_deadline() {
                let message = format!("Failed to create new replica set \"{name}\": {}", failure.message);
                self.set_progressing("False", "ReplicaSetCreateError", message);
            }
            // Told whether or not the set can be made this time; what follows from it waits until it is there.
            self.new = None;
            return false;
        }
        self.publish_revision(revision.to_string());
        if self.has_deadline() {
            let message = format!("Created new replica set \"{name}\"");
            self.set_progressing("True", "NewReplicaSetCreated", message);
        }
        self.new = Some(set);
        true
    }

    /// Deletes the oldest sets beyond those that history keeps. Only empty ones go.
    pub(super) fn clean_up(&mut self) {
        let limit = self.deployment.spec.revision_history_limit;
        let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else { return };
        let limit = usize::try_from(limit).unwrap_or(0);
        let mut sets: Vec<&ReplicaSet> =
            self.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
        let surplus = sets.len().saturating_sub(limit);
        sets.sort_by_key(|set| (revision_of(set), set.metadata.creation_timestamp));
        let deletes: Vec<Action> = sets
            .into_iter()
            .take(surplus)
            .filter(|set| {
                set.status.replicas == 0
                    && size_of(set) == 0
                    && set.metadata.generation <= set.status.observed_generation
            })
            .map(|set| Action::Delete {
                target: Target::at_revision(set),
                propagation: None,
                grace_seconds: None,
            })
            .collect();
        for delete in deletes {
            self.plan.push(delete);
        }
    }
}

fn new_set(deployment: &Deployment, hash: &str) -> ReplicaSet {
    let mut set = ReplicaSet::default();
    let metadata = &deployment.metadata;
    let room = NAME_MAX - 1 - hash.len();
    let mut end = metadata.name.len().min(room);
    while !metadata.name.is_char_boundary(end) {
        end -= 1;
    }
    set.metadata.name = format!("{}-{hash}", &metadata.name[..end]);
    set.metadata.namespace.clone_from(&metadata.namespace);
    set.metadata.owner_references.push(controller_reference(Deployment::gvk(), metadata));
    set.spec.replicas = Some(0);
    set.spec.min_ready_seconds = deployment.spec.min_ready_seconds;
    set.spec.template = deployment.spec.template.clone();
    set.spec.template.metadata.labels.insert(TEMPLATE_HASH.into(), hash.into());
    set.spec.selector.clone_from(&deployment.spec.selector);
    set.spec.selector.get_or_insert_default().match_labels.insert(TEMPLATE_HASH.into(), hash.into());
    set.metadata.labels.clone_from(&set.spec.template.metadata.labels);
    set
}

/// Gives a set the Deployment's annotations and its revision; answers whether anything changed.
fn annotate(deployment: &Deployment, set: &mut ReplicaSet, revision: i64) -> bool {
    let mut changed = false;
    let annotations = &mut set.metadata.annotations;
    for (name, value) in &deployment.metadata.annotations {
        if !NOT_COPIED.contains(&name.as_str()) && annotations.get(name) != Some(value) {
            annotations.insert(name.clone(), value.clone());
            changed = true;
        }
    }
    let earlier = annotations.get(REVISION).cloned();
    let number = match earlier.as_deref() {
        None | Some("") => 0,
        Some(text) => match text.parse::<i64>() {
            Ok(number) => number,
            // Someone wrote nonsense there: it is left as it is.
            Err(_) => return false,
        },
    };
    if number < revision {
        annotations.insert(REVISION.into(), revision.to_string());
        changed = true;
        if let Some(earlier) = earlier {
            remember(annotations, &earlier);
        }
    }
    changed
}

/// A template that is rolled back to gets a new revision; the earlier one is kept in its history.
fn remember(annotations: &mut std::collections::BTreeMap<String, String>, earlier: &str) {
    let history = annotations.get(REVISION_HISTORY).cloned().unwrap_or_default();
    let mut revisions: Vec<&str> = history.split(',').filter(|text| !text.is_empty()).collect();
    revisions.push(earlier);
    let length =
        |revisions: &[&str]| revisions.iter().map(|text| text.len() + 1).sum::<usize>().saturating_sub(1);
    while length(&revisions) > HISTORY_CHARS_MAX && revisions.len() > 1 {
        revisions.remove(0);
    }
    annotations.insert(REVISION_HISTORY.into(), revisions.join(","));
}
