//! The built-in provisioner: a claim gets a directory of the node where its first consumer will run. The node makes
//! the directory when it is mounted first, and removes it when the volume goes; a finalizer waits for that.

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Note, Plan, Step, Target};
use api::core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim};
use api::storage::v1::StorageClass;
use meta::ObjectKey;
use std::sync::Arc;
use view::View;
use volumes::local_path::{self, DIRECTORY, PROVISIONER};

pub struct LocalPathProvisioner;

/// Whether a claim waits for us.
fn waits(claim: &PersistentVolumeClaim) -> bool {
    claim.spec.volume_name.is_empty()
        && claim.metadata.deletion_timestamp.is_none()
        && claim.metadata.annotations.get(volumes::STORAGE_PROVISIONER).is_some_and(|by| by == PROVISIONER)
}

impl Controller for LocalPathProvisioner {
    fn name(&self) -> &'static str {
        "local-path-provisioner-controller"
    }

    fn component(&self) -> &'static str {
        PROVISIONER
    }

    fn account(&self) -> &'static str {
        "persistent-volume-binder"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::new::<PersistentVolumeClaim>(|_, _, new| {
                new.filter(|claim| waits(claim)).map(|claim| view::key_of(claim)).into_iter().collect()
            }),
            Watch::new::<PersistentVolume>(|_, _, new| {
                let Some(volume) = new.filter(|volume| local_path::is_ours(volume)) else {
                    return Vec::new();
                };
                vec![view::key_of(volume)]
            }),
            // What was on a node that is gone is gone with it.
            Watch::new::<Node>(|view, old, new| {
                if old.is_none() || new.is_some() {
                    return Vec::new();
                }
                let leaving = |volume: &PersistentVolume| {
                    volume.metadata.deletion_timestamp.is_some() && local_path::is_ours(volume)
                };
                let volumes = view.list::<PersistentVolume>().filter(|volume| leaving(volume));
                volumes.map(|volume| view::key_of(volume.as_ref())).collect()
            }),
            Watch::new::<StorageClass>(|_, _, _| Vec::new()),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        if context.key.namespace.is_empty() {
            if let Some(volume) = context.view.get::<PersistentVolume>(context.key) {
                reclaim(context.view, &volume, &mut plan);
            }
        } else if let Some(claim) = context.view.get::<PersistentVolumeClaim>(context.key)
            && waits(&claim)
        {
            provision(context.view, &claim, &mut plan);
        }
        plan
    }
}

fn provision(view: &View, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    let name = local_path::volume_name(&claim.metadata.uid);
    if view.get::<PersistentVolume>(&ObjectKey::cluster(name.clone())).is_some() {
        return;
    }
    let class_name = volumes::class_of_claim(claim);
    let Some(class) = view.get::<StorageClass>(&ObjectKey::cluster(class_name.to_string())) else { return };
    if class.provisioner != PROVISIONER {
        return;
    }
    let failed = |why: &str| {
        let text = format!("failed to provision volume with StorageClass {class_name:?}: {why}");
        Note::warning(claim, "ProvisioningFailed", text)
    };
    if let Some(why) = unsupported(claim) {
        plan.events.push(failed(why));
        return;
    }
    let selected = claim.metadata.annotations.get(volumes::SELECTED_NODE);
    let node = match selected {
        Some(name) => view.get::<Node>(&ObjectKey::cluster(name.clone())).filter(|node| offers(node)),
        None if volumes::waits_for_consumer(Some(&class)) => return,
        None => least_used(view),
    };
    let Some(node) = node else {
        plan.events.push(failed("the node keeps no volumes of this kind"));
        if selected.is_some() {
            // The scheduler chooses again.
            let mut next = claim.clone();
            next.metadata.annotations.remove(volumes::SELECTED_NODE);
            plan.push(Action::Update(Box::new(next)));
        }
        return;
    };
    let text = format!("Successfully provisioned volume {name}");
    let done = Note::normal(claim, "ProvisioningSucceeded", text);
    let create = Action::Create(Box::new(volume_for(claim, &class, &node, name)));
    plan.steps.push(Step::new(create).done(done).failed(failed("{error}")));
}

/// Why a claim asks for what a directory of one node cannot give.
fn unsupported(claim: &PersistentVolumeClaim) -> Option<&'static str> {
    let spec = &claim.spec;
    let shared = |mode: &String| !matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod");
    if spec.access_modes.iter().any(shared) {
        Some("only the access modes ReadWriteOnce and ReadWriteOncePod are supported")
    } else if spec.volume_mode.as_deref() == Some("Block") {
        Some("block volumes are not supported")
    } else if spec.data_source.is_some() || spec.data_source_ref.is_some() {
        Some("data sources are not supported")
    } else if spec.selector.is_some() {
        Some("claim.Spec.Selector is not supported")
    } else {
        None
    }
}

fn offers(node: &Node) -> bool {
    node.metadata.annotations.get(DIRECTORY).is_some_and(|directory| !directory.is_empty())
}

/// For a claim that waits for nobody: the node with the fewest such volumes.
fn least_used(view: &View) -> Option<Arc<Node>> {
    let used = |node: &Node| {
        let hostname = node.metadata.labels.get(local_path::HOSTNAME).unwrap_or(&node.metadata.name);
        let volumes = view.list::<PersistentVolume>().filter(|volume| local_path::is_ours(volume));
        volumes.filter(|volume| local_path::hostname_of(volume) == Some(hostname)).count()
    };
    view.list::<Node>()
        .filter(|node| offers(node) && !node.spec.unschedulable)
        .min_by_key(|node| (used(node), node.metadata.name.clone()))
}

fn volume_for(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    node: &Node,
    name: String,
) -> PersistentVolume {
    let directory = node.metadata.annotations.get(DIRECTORY).map_or("", String::as_str);
    let (local, affinity) = local_path::source(directory, &name, node);
    let mut volume = PersistentVolume::default();
    volume.metadata.name = name;
    volume.metadata.finalizers.push(PROVISIONER.into());
    volume.metadata.annotations.insert(volumes::PROVISIONED_BY.into(), PROVISIONER.into());
    let spec = &mut volume.spec;
    spec.capacity.insert("storage".into(), volumes::requested(claim));
    spec.access_modes.clone_from(&claim.spec.access_modes);
    spec.persistent_volume_reclaim_policy = class.reclaim_policy.clone().unwrap_or_else(|| "Delete".into());
    spec.storage_class_name.clone_from(&class.metadata.name);
    spec.volume_mode.clone_from(&claim.spec.volume_mode);
    spec.node_affinity = Some(Box::new(affinity));
    spec.persistent_volume_source.local = Some(Box::new(local));
    spec.claim_ref = Some(Box::new(ObjectReference {
        kind: "PersistentVolumeClaim".into(),
        api_version: "v1".into(),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        field_path: String::new(),
    }));
    volume
}

/// A released volume goes, where that is its policy; what its node can no longer remove is let go.
fn reclaim(view: &View, volume: &PersistentVolume, plan: &mut Plan) {
    if volume.metadata.deletion_timestamp.is_none() {
        if volume.status.phase == "Released" && volume.spec.persistent_volume_reclaim_policy == "Delete" {
            plan.push(Action::Delete {
                target: Target::at_revision(volume),
                propagation: None,
                grace_seconds: None,
            });
        }
        return;
    }
    let held = volume.metadata.finalizers.iter().any(|finalizer| finalizer == PROVISIONER);
    let hostname = local_path::hostname_of(volume).unwrap_or_default();
    let there = view.list::<Node>().any(|node| {
        node.metadata.labels.get(local_path::HOSTNAME).map_or(node.metadata.name.as_str(), String::as_str)
            == hostname
    });
    if held && !there {
        let mut next = volume.clone();
        next.metadata.finalizers.retain(|finalizer| finalizer != PROVISIONER);
        plan.push(Action::Update(Box::new(next)));
    }
}
