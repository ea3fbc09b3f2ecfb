//! Claims and volumes: a fixture in, a plan out; and a model cluster in which they find each other.

use super::model::Model;
use super::{plan, plan_after};
use crate::attachdetach::AttachDetach;
use crate::ephemeral::EphemeralVolumes;
use crate::expander::VolumeExpander;
use crate::localpath::LocalPathProvisioner;
use crate::persistentvolume::VolumeBinder;
use crate::protection::{AttributesProtection, ClaimProtection, VolumeProtection};
use crate::{Controller, Target};
use api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use api::storage::v1::StorageClass;
use expect_test::{Expect, expect};
use meta::{ObjectKey, Quantity};

fn check(actual: String, expected: Expect) {
    expected.assert_eq(&actual);
}

const CLAIM: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: shop}
spec: {accessModes: [ReadWriteOnce], storageClassName: slow, resources: {requests: {storage: 5Gi}}}
status: {phase: Pending}
";

fn volume(name: &str, rest: &str) -> String {
    format!(
        "
---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec: {{accessModes: [ReadWriteOnce], storageClassName: slow, persistentVolumeReclaimPolicy: Retain, hostPath: {{path: /x}}, {rest}}}
status: {{phase: Available}}
"
    )
}

#[test]
fn the_smallest_volume_that_suits_is_taken() {
    let fixture = [
        CLAIM,
        &volume("large", "capacity: {storage: 50Gi}"),
        &volume("right", "capacity: {storage: 6Gi}"),
        &volume("small", "capacity: {storage: 1Gi}"),
        &volume("block", "capacity: {storage: 5Gi}, volumeMode: Block"),
    ]
    .concat();
    check(
        plan(&VolumeBinder, &fixture, "shop/data"),
        expect![[r#"
            update PersistentVolume {"apiVersion":"v1","kind":"PersistentVolume","metadata":{"annotations":{"pv.kubernetes.io/bound-by-controller":"yes"},"name":"right","resourceVersion":"3","uid":"uid-right"},"spec":{"accessModes":["ReadWriteOnce"],"capacity":{"storage":"6Gi"},"claimRef":{"apiVersion":"v1","kind":"PersistentVolumeClaim","name":"data","namespace":"shop","resourceVersion":"1","uid":"uid-data"},"hostPath":{"path":"/x"},"persistentVolumeReclaimPolicy":"Retain","storageClassName":"slow"}}
        "#]],
    );
}

#[test]
fn a_claim_without_a_volume_says_what_it_waits_for() {
    let class = |mode: &str, provisioner: &str| {
        format!(
            "\n---\napiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {{name: slow}}\nprovisioner: {provisioner}\nvolumeBindingMode: {mode}\n"
        )
    };
    check(
        plan(&VolumeBinder, CLAIM, "shop/data"),
        expect![[r#"
            event Warning ProvisioningFailed on PersistentVolumeClaim data: storageclass.storage.k8s.io "slow" not found
        "#]],
    );
    let fixture = [CLAIM, &class("WaitForFirstConsumer", "example.com/disk")].concat();
    check(
        plan(&VolumeBinder, &fixture, "shop/data"),
        expect![[r#"
            event Normal WaitForFirstConsumer on PersistentVolumeClaim data: waiting for first consumer to be created before binding
        "#]],
    );
    let fixture = [CLAIM, &class("Immediate", "example.com/disk")].concat();
    check(
        plan(&VolumeBinder, &fixture, "shop/data"),
        expect![[r#"
            update PersistentVolumeClaim {"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"annotations":{"volume.beta.kubernetes.io/storage-provisioner":"example.com/disk","volume.kubernetes.io/storage-provisioner":"example.com/disk"},"name":"data","namespace":"shop","resourceVersion":"1","uid":"uid-data"},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"5Gi"}},"storageClassName":"slow"}}
              then Normal ExternalProvisioning on PersistentVolumeClaim data: Waiting for a volume to be created either by the external provisioner 'example.com/disk' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.
        "#]],
    );
    let without = CLAIM.replace("storageClassName: slow, ", "");
    check(
        plan(&VolumeBinder, &without, "shop/data"),
        expect![[r#"
            event Normal FailedBinding on PersistentVolumeClaim data: no persistent volumes available for this claim and no storage class is set
        "#]],
    );
    let default = class("Immediate", "example.com/disk").replace(
        "{name: slow}",
        "{name: slow, annotations: {storageclass.kubernetes.io/is-default-class: 'true'}}",
    );
    let text = plan(&VolumeBinder, &[&without, &default].map(String::as_str).concat(), "shop/data");
    assert!(text.contains(r#""storageClassName":"slow""#), "{text}");
}

#[test]
fn a_lost_volume_and_a_released_one_are_named() {
    let bound = CLAIM
        .replace(
            "namespace: shop}",
            "namespace: shop, annotations: {pv.kubernetes.io/bind-completed: 'yes'}}",
        )
        .replace("spec: {", "spec: {volumeName: disk, ")
        .replace("Pending", "Bound");
    check(
        plan(&VolumeBinder, &bound, "shop/data"),
        expect![[r#"
            update PersistentVolumeClaim/status data: {"phase":"Lost"}
              then Warning ClaimLost on PersistentVolumeClaim data: Bound claim has lost its PersistentVolume. Data on the volume is lost!
        "#]],
    );
    let released = "capacity: {storage: 6Gi}, claimRef: {namespace: shop, name: data, uid: gone}";
    let alone = volume("disk", released).replace("---", "");
    check(
        plan(&VolumeBinder, &alone, "disk"),
        expect![[r#"
            update PersistentVolume/status disk: {"phase":"Released"}
        "#]],
    );
    let deleted = alone.replace("Available", "Released").replace("Retain", "Delete");
    check(
        plan(&VolumeBinder, &deleted, "disk"),
        expect![[r#"
            update PersistentVolume/status disk: {"message":"error getting deleter volume plugin for volume \"disk\": no deletable volume plugin matched","phase":"Failed"}
              then Warning VolumeFailedDelete on PersistentVolume disk: error getting deleter volume plugin for volume "disk": no deletable volume plugin matched
        "#]],
    );
}

#[test]
fn finalizers_stay_while_something_is_used() {
    let going = CLAIM.replace(
        "namespace: shop}",
        "namespace: shop, deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [kubernetes.io/pvc-protection]}",
    );
    let pod = "
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {nodeName: n1, containers: [{name: c, image: i}], volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]}
";
    check(
        plan(&ClaimProtection, &[&going, pod].concat(), "shop/data"),
        expect![[r#"
        nothing
    "#]],
    );
    let unplaced = pod.replace("nodeName: n1, ", "");
    let text = plan(&ClaimProtection, &[&going, unplaced.as_str()].concat(), "shop/data");
    assert!(text.starts_with("update") && !text.contains("finalizers"), "{text}");
    // Without any pod in view the deletion is believed after a while.
    check(
        plan(&ClaimProtection, &going, "shop/data"),
        expect![[r#"
        again in 1000 ms
    "#]],
    );
    let marked = Some(("unused", "2026-01-01T00:09:00Z"));
    let text = plan_after(&ClaimProtection, &going, "shop/data", None, marked);
    assert!(text.starts_with("update") && !text.contains("finalizers"), "{text}");
    let bound = volume("disk", "capacity: {storage: 6Gi}").replace("---", "").replace(
        "{name: disk}",
        "{name: disk, deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [kubernetes.io/pv-protection]}",
    );
    check(
        plan(&VolumeProtection, &bound.replace("Available", "Bound"), "disk"),
        expect![[r#"
        nothing
    "#]],
    );
    assert!(plan(&VolumeProtection, &bound, "disk").starts_with("update PersistentVolume"));
}

#[test]
fn a_class_of_attributes_stays_while_a_volume_names_it() {
    let class = "
apiVersion: storage.k8s.io/v1
kind: VolumeAttributesClass
metadata: {name: fast, deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [kubernetes.io/vac-protection]}
driverName: x.io
";
    let used = volume("disk", "capacity: {storage: 6Gi}, volumeAttributesClassName: fast");
    assert_eq!(plan(&AttributesProtection, &[class, used.as_str()].concat(), "fast"), "nothing\n");
    let text = plan(&AttributesProtection, class, "fast");
    assert!(text.starts_with("update VolumeAttributesClass") && !text.contains("finalizers"), "{text}");
}

#[test]
fn a_pods_own_claims_are_made() {
    let pod = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec:
  containers: [{name: c, image: i}]
  volumes: [{name: scratch, ephemeral: {volumeClaimTemplate: {metadata: {labels: {a: b}}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}}]
";
    check(
        plan(&EphemeralVolumes, pod, "shop/web"),
        expect![[r#"
            create PersistentVolumeClaim {"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"labels":{"a":"b"},"name":"web-scratch","namespace":"shop","ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":true,"controller":true,"kind":"Pod","name":"web","uid":"uid-web"}]},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}}
              else Warning FailedBinding on Pod web: ephemeral volume scratch: create PVC web-scratch: {error}
        "#]],
    );
}

const ATTACHED: &str = "
apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: disk}
spec: {accessModes: [ReadWriteOnce], csi: {driver: d.example.com, volumeHandle: h1}, claimRef: {namespace: shop, name: data, uid: uid-data}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: shop, annotations: {pv.kubernetes.io/bind-completed: 'yes'}}
spec: {volumeName: disk}
";

#[test]
fn volumes_are_attached_before_use_and_detached_after_it() {
    let controller = AttachDetach { force_on_timeout: true };
    let pod = "
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {nodeName: n1, containers: [{name: c, image: i}], volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]}
";
    let fixture = [ATTACHED, pod].concat();
    check(
        plan(&controller, &fixture, "n1"),
        expect![[r#"
            create VolumeAttachment {"apiVersion":"storage.k8s.io/v1","kind":"VolumeAttachment","metadata":{"name":"csi-b078b22d1096952a15ef3207f7f853696502bd1e6a5ae841d5eb413fc87f8ee8"},"spec":{"attacher":"d.example.com","nodeName":"n1","source":{"persistentVolumeName":"disk"}}}
        "#]],
    );
    let name = volumes::attachments::attachment_name("h1", "d.example.com", "n1");
    let attachment = format!(
        "
---
apiVersion: storage.k8s.io/v1
kind: VolumeAttachment
metadata: {{name: {name}}}
spec: {{attacher: d.example.com, nodeName: n1, source: {{persistentVolumeName: disk}}}}
status: {{attached: true}}
"
    );
    check(
        plan(&controller, &[ATTACHED, pod, attachment.as_str()].concat(), "n1"),
        expect![[r#"
            patch Node n1/status: {"status":{"volumesAttached":[{"devicePath":"","name":"kubernetes.io/csi/d.example.com^h1"}]}}
        "#]],
    );
    let used = ATTACHED.replace(
        "metadata: {name: n1}",
        "metadata: {name: n1}\nstatus: {volumesInUse: ['kubernetes.io/csi/d.example.com^h1']}",
    );
    check(
        plan(&controller, &[&used, attachment.as_str()].concat(), "n1"),
        expect![[r#"
            again in 360000 ms
        "#]],
    );
    let text = plan(&controller, &[ATTACHED, attachment.as_str()].concat(), "n1");
    assert!(text.starts_with("delete VolumeAttachment"), "{text}");
    // What somebody else has attached is not ours to detach.
    let theirs = attachment.replace(&name, "theirs");
    assert_eq!(plan(&controller, &[ATTACHED, theirs.as_str()].concat(), "n1"), "nothing\n");
}

fn claim(name: &str, class: &str, size: &str) -> Box<PersistentVolumeClaim> {
    let mut claim = PersistentVolumeClaim::default();
    claim.metadata.name = name.into();
    claim.metadata.namespace = "shop".into();
    claim.spec.storage_class_name = Some(class.into());
    claim.spec.access_modes = vec!["ReadWriteOnce".into()];
    claim.spec.resources.requests.insert("storage".into(), Quantity::parse(size).expect("it is a size"));
    claim.status.phase = "Pending".into();
    Box::new(claim)
}

/// Lets everything settle.
fn settle(model: &mut Model) {
    for _ in 0..200 {
        model.deliver(usize::MAX);
        if !model.work(0) {
            break;
        }
    }
}

#[test]
fn claims_that_compete_for_volumes_get_one_each() {
    let mut model = Model::new(vec![Box::new(VolumeBinder) as Box<dyn Controller>]);
    for name in ["one", "two", "three"] {
        model.create(claim(name, "slow", "1Gi"));
    }
    for name in ["v1", "v2"] {
        let mut volume = PersistentVolume::default();
        volume.metadata.name = name.into();
        volume.spec.storage_class_name = "slow".into();
        volume.spec.access_modes = vec!["ReadWriteOnce".into()];
        volume.spec.capacity.insert("storage".into(), Quantity::parse("1Gi").expect("it is a size"));
        volume.status.phase = "Pending".into();
        model.create(Box::new(volume));
    }
    settle(&mut model);
    let phase =
        |phase: &str| model.truth.list::<PersistentVolumeClaim>().filter(|c| c.status.phase == phase).count();
    assert_eq!((phase("Bound"), phase("Pending")), (2, 1));
    for volume in model.truth.list::<PersistentVolume>() {
        let reference = volume.spec.claim_ref.as_ref().expect("each volume is bound");
        let key = ObjectKey::new("shop", reference.name.clone());
        let claim = model.truth.get::<PersistentVolumeClaim>(&key).expect("its claim is there");
        assert_eq!((&claim.spec.volume_name, &volume.status.phase), (&volume.metadata.name, &"Bound".into()));
    }
}

#[test]
fn a_directory_is_provisioned_grown_and_given_back() {
    let mut model = Model::new(vec![
        Box::new(VolumeBinder) as Box<dyn Controller>,
        Box::new(LocalPathProvisioner),
        Box::new(VolumeExpander),
    ]);
    let mut node = Node::default();
    node.metadata.name = "n1".into();
    node.metadata.labels.insert("kubernetes.io/hostname".into(), "host-1".into());
    node.metadata.annotations.insert(volumes::local_path::DIRECTORY.into(), "/var/lib/x/local-path".into());
    model.create(Box::new(node));
    let mut class = StorageClass::default();
    class.metadata.name = "local-path".into();
    class.provisioner = volumes::local_path::PROVISIONER.into();
    class.volume_binding_mode = Some("WaitForFirstConsumer".into());
    class.reclaim_policy = Some("Delete".into());
    model.create(Box::new(class));
    model.create(claim("data", "local-path", "1Gi"));
    settle(&mut model);
    assert!(model.truth.is_empty::<PersistentVolume>(), "nothing is made before a node is chosen");

    let key = ObjectKey::new("shop", "data");
    model.edit::<PersistentVolumeClaim>(&key, |claim| {
        claim.metadata.annotations.insert(volumes::SELECTED_NODE.into(), "n1".into());
    });
    settle(&mut model);
    let bound = model.truth.get::<PersistentVolumeClaim>(&key).expect("it is there");
    assert_eq!(bound.status.phase, "Bound");
    let volume = model.truth.list::<PersistentVolume>().next().expect("it was made");
    let local = volume.spec.persistent_volume_source.local.as_ref().expect("it is local");
    assert_eq!(local.path, format!("/var/lib/x/local-path/{}", volume.metadata.name));
    assert_eq!(volumes::local_path::hostname_of(&volume), Some("host-1"));
    assert_eq!(volume.status.phase, "Bound");

    model.edit::<PersistentVolumeClaim>(&key, |claim| {
        let more = Quantity::parse("2Gi").expect("it is a size");
        claim.spec.resources.requests.insert("storage".into(), more);
    });
    settle(&mut model);
    let grown = model.truth.get::<PersistentVolumeClaim>(&key).expect("it is there");
    assert_eq!(grown.status.capacity["storage"].to_string(), "2Gi");

    let target = Target::of(grown.as_ref());
    model.edit::<PersistentVolumeClaim>(&target.key, |claim| {
        claim.metadata.deletion_timestamp = claim.metadata.creation_timestamp;
    });
    settle(&mut model);
    assert!(model.truth.is_empty::<PersistentVolume>(), "the volume is deleted once its claim is gone");
}
