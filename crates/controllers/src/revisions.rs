//! ControllerRevisions: the templates that DaemonSets and StatefulSets had, so that they can be told apart and brought back.

use crate::deployment::template_hash;
use crate::ownership::{controller_reference, is_controlled_by};
use crate::plan::{Action, Plan, Target};
use api::apps::v1::ControllerRevision;
use api::core::v1::PodTemplateSpec;
use api::meta::v1::ObjectMeta;
use meta::{Gvk, ObjectKey, RawExtension};
use std::sync::Arc;
use view::View;

/// The label of pods and revisions that names their template.
pub(crate) const REVISION_HASH: &str = "controller-revision-hash";

/// What an owner's history is made from.
pub(crate) struct Subject<'a> {
    pub owner: &'a ObjectMeta,
    pub gvk: Gvk,
    pub template: &'a PodTemplateSpec,
    pub collisions: Option<i32>,
}

/// An owner's revisions.
pub(crate) struct History {
    /// Those before the newest, oldest first.
    pub old: Vec<Arc<ControllerRevision>>,
    /// The one of the template as it is.
    pub newest: ControllerRevision,
    /// The name was taken by another template: the hash must become another.
    pub collided: bool,
}

impl History {
    /// The hash of the newest template, without the owner's name.
    pub(crate) fn hash(&self) -> &str {
        self.newest.metadata.labels.get(REVISION_HASH).map_or("", String::as_str)
    }
}

/// The data of a revision: a patch that brings the template back.
fn data(template: &PodTemplateSpec) -> serde_json::Value {
    let mut template = api::codec::to_value(template);
    template["$patch"] = "replace".into();
    serde_json::json!({"spec": {"template": template}})
}

/// The template that a revision holds.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let value = revision.data.to_value().ok()?;
    api::codec::from_value(&value["spec"]["template"]).ok()
}

/// Finds or makes the revision of the present template; one that is used again becomes the newest.
pub(crate) fn sync(view: &View, subject: &Subject<'_>, plan: &mut Plan) -> History {
    let owner = subject.owner;
    let mut revisions: Vec<Arc<ControllerRevision>> = view
        .owned_by::<ControllerRevision>(&owner.uid)
        .filter(|revision| is_controlled_by(&revision.metadata, &owner.uid))
        .collect();
    revisions.sort_by_key(|revision| (revision.revision, revision.metadata.name.clone()));
    let wanted = data(subject.template);
    let next = revisions.last().map_or(0, |last| last.revision) + 1;
    let found =
        revisions.iter().rposition(|revision| revision.data.to_value().is_ok_and(|value| value == wanted));
    if let Some(at) = found {
        let mut newest = ControllerRevision::clone(&revisions.remove(at));
        if at != revisions.len() {
            newest.revision = next;
            plan.push(Action::Update(Box::new(newest.clone())));
        }
        return History { old: revisions, newest, collided: false };
    }
    let hash = template_hash(subject.template, subject.collisions);
    let mut newest = ControllerRevision {
        data: RawExtension::from_json(wanted.to_string().as_bytes()),
        revision: next,
        ..ControllerRevision::default()
    };
    newest.metadata.name = format!("{}-{hash}", owner.name);
    newest.metadata.namespace.clone_from(&owner.namespace);
    newest.metadata.labels.clone_from(&subject.template.metadata.labels);
    newest.metadata.labels.insert(REVISION_HASH.into(), hash);
    newest.metadata.owner_references.push(controller_reference(subject.gvk, owner));
    let key = ObjectKey::new(owner.namespace.clone(), newest.metadata.name.clone());
    let collided = view.get::<ControllerRevision>(&key).is_some();
    if !collided && owner.deletion_timestamp.is_none() {
        plan.push(Action::Create(Box::new(newest.clone())));
    }
    History { old: revisions, newest, collided }
}

/// Deletes the oldest revisions beyond the limit that are not in use.
pub(crate) fn clean_up(
    history: &History,
    limit: Option<i32>,
    in_use: impl Fn(&str) -> bool,
    plan: &mut Plan,
) {
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
    let unused: Vec<_> = history.old.iter().filter(|revision| !in_use(&revision.metadata.name)).collect();
    let surplus = unused.len().saturating_sub(limit);
    for revision in unused.into_iter().take(surplus) {
        let target = Target::of(revision.as_ref());
        plan.push(Action::Delete { target, propagation: None, grace_seconds: None });
    }
}
