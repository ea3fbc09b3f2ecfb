//! Attaches to each node the volumes of its pods, where their driver wants that said, and detaches what no pod of the
//! node needs and the node no longer mounts. Keys are nodes.
//!
//! A VolumeAttachment is the request; the driver's attacher answers in its status. The node mounts what its own status
//! names under volumesAttached: a volume leaves that list before its attachment goes.

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Note, Plan, Target};
use crate::pod;
use api::core::v1::{AttachedVolume, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use api::storage::v1::{CSIDriver, VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec};
use meta::ObjectKey;
use std::collections::BTreeMap;
use std::sync::Arc;
use view::View;
use volumes::attachments::{attachment_name, unique_name};

/// How long a node that is not healthy may keep a volume mounted that nobody needs any more.
const UNMOUNT_SECONDS: i64 = 360;
/// The length of a digest in an attachment's name.
const DIGEST_LETTERS: usize = 64;
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

pub struct AttachDetach {
    /// Detach from unhealthy nodes once [`UNMOUNT_SECONDS`] are over.
    pub force_on_timeout: bool,
}

/// A volume that a node's pods need attached.
struct Needed {
    volume: Arc<PersistentVolume>,
    driver: String,
    pod: Arc<Pod>,
}

impl Controller for AttachDetach {
    fn name(&self) -> &'static str {
        "persistentvolume-attach-detach-controller"
    }

    fn component(&self) -> &'static str {
        "attachdetach-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::new::<Pod>(|_, old, new| {
                let pods = [old, new].into_iter().flatten();
                let placed = pods
                    .filter(|pod| !pod.spec.node_name.is_empty() && volumes::claims_of(pod).next().is_some());
                let mut keys: Vec<ObjectKey> =
                    placed.map(|pod| ObjectKey::cluster(pod.spec.node_name.clone())).collect();
                keys.dedup();
                keys
            }),
            Watch::new::<PersistentVolumeClaim>(|view, old, new| {
                let bound = |claim: Option<&PersistentVolumeClaim>| claim.is_some_and(volumes::is_bound);
                let Some(claim) = new.filter(|_| bound(new) && !bound(old)) else { return Vec::new() };
                users(view, &claim.metadata.namespace, &claim.metadata.name)
            }),
            Watch::new::<PersistentVolume>(|view, old, new| {
                let Some(volume) = new.filter(|_| old.is_none()) else { return Vec::new() };
                let Some(reference) = volume.spec.claim_ref.as_deref() else { return Vec::new() };
                users(view, &reference.namespace, &reference.name)
            }),
            Watch::new::<Node>(|_, old, new| {
                let Some(node) = new else { return Vec::new() };
                let same = old.is_some_and(|old| {
                    old.status.volumes_in_use == node.status.volumes_in_use
                        && old.spec.taints == node.spec.taints
                });
                if same { Vec::new() } else { vec![view::key_of(node)] }
            }),
            Watch::new::<VolumeAttachment>(|view, old, new| {
                let Some(attachment) = new.or(old) else { return Vec::new() };
                let mut keys = vec![ObjectKey::cluster(attachment.spec.node_name.clone())];
                // A volume that is free again may be waited for elsewhere.
                if new.is_none()
                    && let Some(name) = &attachment.spec.source.persistent_volume_name
                    && let Some(volume) = view.get::<PersistentVolume>(&ObjectKey::cluster(name.clone()))
                    && let Some(reference) = volume.spec.claim_ref.as_deref()
                {
                    keys.extend(users(view, &reference.namespace, &reference.name));
                }
                keys
            }),
            Watch::new::<CSIDriver>(|_, _, _| Vec::new()),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let name = &context.key.name;
        let node = context.view.get::<Node>(context.key);
        let needed = needed(context.view, name);
        let attachments: Vec<Arc<VolumeAttachment>> = context
            .view
            .list::<VolumeAttachment>()
            .filter(|attachment| attachment.spec.node_name == *name && is_ours(context.view, attachment))
            .collect();
        if node.is_some() {
            attach(context.view, name, &needed, &mut plan);
        }
        let (kept, unneeded): (Vec<_>, Vec<_>) =
            attachments.iter().partition(|attachment| needed.contains_key(&attachment.metadata.name));
        if let Some(node) = &node {
            report(context.view, node, &kept, &mut plan);
        }
        self.detach(context, node.as_deref(), &unneeded, &mut plan);
        plan
    }
}

/// Whether an attachment bears the name that this controller gives: what others attach is theirs to detach.
fn is_ours(view: &View, attachment: &VolumeAttachment) -> bool {
    let name = &attachment.metadata.name;
    let volume = attachment.spec.source.persistent_volume_name.clone().map(ObjectKey::cluster);
    match volume.and_then(|key| view.get::<PersistentVolume>(&key)) {
        Some(volume) => volume.spec.persistent_volume_source.csi.as_deref().is_some_and(|csi| {
            *name == attachment_name(&csi.volume_handle, &csi.driver, &attachment.spec.node_name)
        }),
        // A volume that is gone can no longer be asked.
        None => name.strip_prefix("csi-").is_some_and(|rest| {
            rest.len() == DIGEST_LETTERS && rest.bytes().all(|letter| letter.is_ascii_hexdigit())
        }),
    }
}

/// The nodes of the pods that use a claim.
fn users(view: &View, namespace: &str, claim: &str) -> Vec<ObjectKey> {
    view.in_namespace::<Pod>(namespace)
        .filter(|pod| !pod.spec.node_name.is_empty())
        .filter(|pod| volumes::claims_of(pod).any(|own| own.claim == claim))
        .map(|pod| ObjectKey::cluster(pod.spec.node_name.clone()))
        .collect()
}

/// What the pods of a node need attached, by the names of the attachments.
fn needed(view: &View, node: &str) -> BTreeMap<String, Needed> {
    let mut needed = BTreeMap::new();
    for pod in view.pods_on_node(node).filter(|pod| !pod::is_finished(pod)) {
        for own in volumes::claims_of(&pod) {
            let key = ObjectKey::new(pod.metadata.namespace.clone(), own.claim);
            let Some(claim) = view.get::<PersistentVolumeClaim>(&key) else { continue };
            if !volumes::is_bound(&claim) {
                continue;
            }
            let key = ObjectKey::cluster(claim.spec.volume_name.clone());
            let Some(volume) = view.get::<PersistentVolume>(&key) else { continue };
            let Some((driver, handle)) = attachable(view, &volume) else { continue };
            let name = attachment_name(&handle, &driver, node);
            needed.entry(name).or_insert(Needed { volume, driver, pod: pod.clone() });
        }
    }
    needed
}

/// Driver and handle of a volume that has to be attached.
fn attachable(view: &View, volume: &PersistentVolume) -> Option<(String, String)> {
    let csi = volume.spec.persistent_volume_source.csi.as_deref()?;
    let driver = view.get::<CSIDriver>(&ObjectKey::cluster(csi.driver.clone()));
    let required = driver.is_none_or(|driver| driver.spec.attach_required.unwrap_or(true));
    required.then(|| (csi.driver.clone(), csi.volume_handle.clone()))
}

fn attach(view: &View, node: &str, needed: &BTreeMap<String, Needed>, plan: &mut Plan) {
    for (name, wanted) in needed {
        if view.get::<VolumeAttachment>(&ObjectKey::cluster(name.clone())).is_some() {
            continue;
        }
        let volume_name = &wanted.volume.metadata.name;
        let shared = wanted
            .volume
            .spec
            .access_modes
            .iter()
            .any(|mode| matches!(mode.as_str(), "ReadWriteMany" | "ReadOnlyMany"));
        let elsewhere = view.list::<VolumeAttachment>().any(|other| {
            other.spec.source.persistent_volume_name.as_deref() == Some(volume_name)
                && other.spec.node_name != node
        });
        if elsewhere && !shared {
            plan.events.push(multi_attach(view, node, wanted));
            continue;
        }
        let mut attachment = VolumeAttachment {
            spec: VolumeAttachmentSpec {
                attacher: wanted.driver.clone(),
                node_name: node.into(),
                source: VolumeAttachmentSource {
                    persistent_volume_name: Some(volume_name.clone()),
                    ..VolumeAttachmentSource::default()
                },
            },
            ..VolumeAttachment::default()
        };
        attachment.metadata.name.clone_from(name);
        plan.push(Action::Create(Box::new(attachment)));
    }
}

fn multi_attach(view: &View, node: &str, wanted: &Needed) -> Note {
    let reference = wanted.volume.spec.claim_ref.as_deref();
    let pods: Vec<String> = reference
        .map(|reference| {
            view.in_namespace::<Pod>(&reference.namespace)
                .filter(|pod| !pod.spec.node_name.is_empty() && pod.spec.node_name != node)
                .filter(|pod| volumes::claims_of(pod).any(|own| own.claim == reference.name))
                .map(|pod| pod.metadata.name.clone())
                .collect()
        })
        .unwrap_or_default();
    let why = if pods.is_empty() {
        "Volume is already exclusively attached to one node and can't be attached to another".to_string()
    } else {
        format!("Volume is already used by pod(s) {}", pods.join(", "))
    };
    let text = format!("Multi-Attach error for volume {:?} {why}", wanted.volume.metadata.name);
    Note::warning(wanted.pod.as_ref(), "FailedAttachVolume", text)
}

/// Says in the node's status what is attached and may be mounted.
fn report(view: &View, node: &Node, kept: &[&Arc<VolumeAttachment>], plan: &mut Plan) {
    let mut attached: Vec<AttachedVolume> = kept
        .iter()
        .filter(|attachment| attachment.status.attached && attachment.metadata.deletion_timestamp.is_none())
        .filter_map(|attachment| name_on_node(view, attachment))
        .map(|name| AttachedVolume { name, device_path: String::new() })
        .collect();
    attached.sort_by(|a, b| a.name.cmp(&b.name));
    let mut known: Vec<&String> = node.status.volumes_attached.iter().map(|own| &own.name).collect();
    known.sort();
    if attached.iter().map(|own| &own.name).eq(known) {
        return;
    }
    let list: Vec<serde_json::Value> = attached
        .iter()
        .map(|own| serde_json::json!({"name": own.name, "devicePath": own.device_path}))
        .collect();
    plan.push(Action::Patch {
        target: Target::of(node),
        subresource: "status",
        strategic: false,
        body: serde_json::json!({"status": {"volumesAttached": list}}),
    });
}

fn name_on_node(view: &View, attachment: &VolumeAttachment) -> Option<String> {
    let name = attachment.spec.source.persistent_volume_name.clone()?;
    let volume = view.get::<PersistentVolume>(&ObjectKey::cluster(name))?;
    let csi = volume.spec.persistent_volume_source.csi.as_deref()?;
    Some(unique_name(&csi.driver, &csi.volume_handle))
}

impl AttachDetach {
    fn detach(
        &self,
        context: &Context<'_>,
        node: Option<&Node>,
        unneeded: &[&Arc<VolumeAttachment>],
        plan: &mut Plan,
    ) {
        let going: Vec<&&Arc<VolumeAttachment>> =
            unneeded.iter().filter(|attachment| attachment.metadata.deletion_timestamp.is_none()).collect();
        if going.is_empty() {
            return;
        }
        plan.mark = "detach".into();
        let waited = context.seconds_marked(&plan.mark) >= UNMOUNT_SECONDS;
        let ready = |node: &Node| {
            node.status.conditions.iter().any(|own| own.r#type == "Ready" && own.status == "True")
        };
        let forced = node.is_none_or(|node| {
            node.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE)
                || (waited && self.force_on_timeout && !ready(node))
        });
        for attachment in going {
            let name = name_on_node(context.view, attachment);
            let stated = |list: &[String]| name.as_ref().is_some_and(|name| list.contains(name));
            let mounted = node.is_some_and(|node| stated(&node.status.volumes_in_use));
            let reported = node.is_some_and(|node| {
                let names: Vec<String> =
                    node.status.volumes_attached.iter().map(|own| own.name.clone()).collect();
                stated(&names)
            });
            if mounted && !forced {
                plan.again_after_seconds(UNMOUNT_SECONDS);
            } else if !reported {
                plan.push(Action::Delete {
                    target: Target::of(attachment.as_ref()),
                    propagation: None,
                    grace_seconds: None,
                });
            }
        }
    }
}
