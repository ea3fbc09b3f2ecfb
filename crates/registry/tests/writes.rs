//! Creates, updates and deletes, as clients see them.

mod common;

use api::core::v1::{ConfigMap, Pod};
use common::*;
use registry::{DeleteOptions, Propagation, Request, UpdateKind};
use serde_json::json;

#[tokio::test]
async fn a_create_fills_metadata() {
    let server = Server::new();
    let created = server.make("a", &[]).await;
    let object = created.object().expect("decodes");
    let metadata = object.metadata();
    assert_eq!(metadata.namespace, NS);
    assert_eq!(metadata.uid.len(), 36);
    assert!(metadata.creation_timestamp.is_some());
    assert_eq!(metadata.resource_version, created.revision().to_string());
    assert_eq!(metadata.managed_fields.len(), 0, "an empty map sets nothing");
    let read = server.get(maps(), "a").await.expect("there");
    assert_eq!(read.revision(), created.revision());
    assert_eq!(read.json().expect("encodes"), created.json().expect("encodes"));

    let again = server.create(maps(), map("a", &[], &[])).await.expect_err("there already");
    assert_eq!(again.to_string(), "configmaps \"a\" already exists");
    let missing = server.get(maps(), "b").await.expect_err("not there");
    assert_eq!(missing.to_string(), "configmaps \"b\" not found");
}

#[tokio::test]
async fn the_store_holds_upstreams_layout() {
    let server = Server::new();
    server.create(maps(), map("a", &[], &[("k", "v")])).await.expect("created");
    let answer =
        server.registry.store().range(store::RangeRequest::prefix("/registry/")).await.expect("read");
    assert_eq!(answer.kvs[0].key, "/registry/configmaps/default/a");
    assert!(answer.kvs[0].value.starts_with(b"k8s\0"));
    let stored: ConfigMap = api::codec::from_protobuf(&answer.kvs[0].value).expect("a map");
    assert_eq!(stored.metadata.resource_version, "", "the revision is the store's to tell");
    assert_eq!(stored.metadata.managed_fields[0].manager, "kubectl");
}

#[tokio::test]
async fn names_are_generated() {
    let server = Server::new();
    let mut object = map("", &[], &[]);
    object.metadata_mut().generate_name = "web-".into();
    let created = server.create(maps(), object).await.expect("created");
    assert_eq!(created.key().name.len(), "web-".len() + 5);
    assert!(created.key().name.starts_with("web-"));
}

#[tokio::test]
async fn what_is_invalid_is_refused() {
    let server = Server::new();
    let error = server.create(maps(), map("Not Valid", &[], &[])).await.expect_err("refused");
    assert_eq!(error.code, 422);
    let mut object = map("a", &[], &[]);
    object.metadata_mut().namespace = "other".into();
    let error = server.create(maps(), object).await.expect_err("refused");
    let text = "the namespace of the provided object does not match the namespace sent on the request";
    assert_eq!((error.code, error.to_string().as_str()), (400, text));
    let mut object = map("a", &[], &[]);
    object.metadata_mut().resource_version = "7".into();
    let error = server.create(maps(), object).await.expect_err("refused");
    assert_eq!(error.to_string(), "resourceVersion should not be set on objects to be created");
}

#[tokio::test]
async fn updates_are_optimistic() {
    let server = Server::new();
    let first = server.make("a", &[]).await;
    let second = server.change("a", |map| drop(map.data.insert("k".into(), "1".into()))).await;
    assert!(second.revision() > first.revision());

    let mut stale = first.decode().expect("decodes");
    stale.downcast_mut::<ConfigMap>().expect("a map").data.insert("k".into(), "2".into());
    let error = server.update(maps(), UpdateKind::Spec, stale.clone_object()).await.expect_err("stale");
    let text = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your \
                changes to the latest version and try again";
    assert_eq!((error.code, error.to_string().as_str()), (409, text));

    stale.metadata_mut().resource_version.clear();
    let forced = server.update(maps(), UpdateKind::Spec, stale.clone_object()).await.expect("unconditional");
    assert!(forced.object.revision() > second.revision());
    assert_eq!(
        forced.object.object().expect("decodes").metadata().uid,
        first.object().unwrap().metadata().uid
    );

    stale.metadata_mut().uid = "other".into();
    let error = server.update(maps(), UpdateKind::Spec, stale).await.expect_err("another object");
    assert!(
        error.to_string().contains("Precondition failed: UID in precondition: other, UID in object meta: ")
    );

    let error = server.update(maps(), UpdateKind::Spec, map("b", &[], &[])).await.expect_err("not there");
    assert_eq!(error.code, 404);
}

#[tokio::test]
async fn an_update_that_changes_nothing_writes_nothing() {
    let server = Server::new();
    let first = server.create(maps(), map("a", &[], &[("k", "v")])).await.expect("created");
    let second = server.change("a", |_| ()).await;
    assert_eq!(first.revision(), second.revision());
    let before = server.registry.store().revision().await.expect("a revision");
    server
        .patch(maps(), "a", registry::PatchType::Merge, json!({"data": {"k": "v"}}))
        .await
        .expect("patched");
    assert_eq!(server.registry.store().revision().await.expect("a revision"), before);
}

#[tokio::test]
async fn names_and_bodies_must_agree() {
    let server = Server::new();
    server.make("a", &[]).await;
    let object = map("b", &[], &[]);
    let result = server.registry.update(&request(), maps(), &key("a"), UpdateKind::Spec, object).await;
    let text = "the name of the object (b) does not match the name on the URL (a)";
    assert_eq!(result.expect_err("refused").to_string(), text);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let server = Server::new();
    let dry = Request { dry_run: true, ..request() };
    let shown = server.registry.create(&dry, maps(), NS, map("a", &[], &[])).await.expect("created");
    assert_eq!(shown.object().expect("decodes").metadata().resource_version, "");
    assert_eq!(server.get(maps(), "a").await.expect_err("not there").code, 404);

    let stored = server.make("a", &[]).await;
    let error = server.registry.create(&dry, maps(), NS, map("a", &[], &[])).await.expect_err("there");
    assert!(error.is_already_exists());
    let object = map("a", &[("x", "y")], &[]);
    let shown =
        server.registry.update(&dry, maps(), &key("a"), UpdateKind::Spec, object).await.expect("updated");
    assert_eq!(shown.object.labels().len(), 1);
    assert_eq!(shown.object.revision(), stored.revision());
    let deleted =
        server.registry.delete(&dry, maps(), &key("a"), &DeleteOptions::default()).await.expect("deleted");
    assert!(deleted.gone);
    assert!(server.get(maps(), "a").await.expect("still there").labels().is_empty());
}

#[tokio::test]
async fn deletes_heed_preconditions() {
    let server = Server::new();
    let stored = server.make("a", &[]).await;
    let wrong = DeleteOptions { uid: Some("x".into()), ..DeleteOptions::default() };
    let error = server.delete(maps(), "a", &wrong).await.expect_err("refused");
    assert!(
        error
            .to_string()
            .starts_with("Operation cannot be fulfilled on configmaps \"a\": Precondition failed: UID")
    );
    let wrong = DeleteOptions { resource_version: Some("1".into()), ..DeleteOptions::default() };
    assert_eq!(server.delete(maps(), "a", &wrong).await.expect_err("refused").code, 409);
    let right = DeleteOptions {
        uid: Some(stored.object().expect("decodes").metadata().uid.clone()),
        resource_version: Some(stored.resource_version()),
        ..DeleteOptions::default()
    };
    let deleted = server.delete(maps(), "a", &right).await.expect("deleted");
    assert!(deleted.gone && deleted.object.revision() > stored.revision());
    let status = deleted.status().expect("a status");
    let details = status.details.expect("details");
    assert_eq!((details.kind.as_str(), details.name.as_str()), ("configmaps", "a"));
    assert_eq!(server.delete(maps(), "a", &right).await.expect_err("gone").code, 404);
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let server = Server::new();
    let mut object = map("a", &[], &[]);
    object.metadata_mut().finalizers = vec!["example.com/one".into(), "example.com/two".into()];
    server.create(maps(), object).await.expect("created");
    let deleted = server.delete(maps(), "a", &DeleteOptions::default()).await.expect("marked");
    assert!(!deleted.gone);
    let marked = deleted.object.object().expect("decodes");
    assert!(marked.metadata().deletion_timestamp.is_some());
    assert_eq!(marked.metadata().deletion_grace_period_seconds, Some(0));

    let again = server.create(maps(), map("a", &[], &[])).await.expect_err("still there");
    assert_eq!(again.to_string(), "object is being deleted: configmaps \"a\" already exists");
    let twice = server.delete(maps(), "a", &DeleteOptions::default()).await.expect("nothing to do");
    assert_eq!(twice.object.revision(), deleted.object.revision());

    server.change("a", |map| drop(map.metadata.finalizers.remove(0))).await;
    assert!(server.get(maps(), "a").await.is_ok());
    // The timestamp cannot be taken back.
    server.change("a", |map| map.metadata.deletion_timestamp = None).await;
    assert!(server.get(maps(), "a").await.unwrap().object().unwrap().metadata().deletion_timestamp.is_some());
    server.change("a", |map| map.metadata.finalizers.clear()).await;
    assert_eq!(server.get(maps(), "a").await.expect_err("gone").code, 404);
}

#[tokio::test]
async fn propagation_becomes_finalizers() {
    let server = Server::new();
    for (name, propagation, finalizer) in
        [("a", Propagation::Orphan, "orphan"), ("b", Propagation::Foreground, "foregroundDeletion")]
    {
        server.make(name, &[]).await;
        let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
        let deleted = server.delete(maps(), name, &options).await.expect("marked");
        assert!(!deleted.gone);
        assert_eq!(deleted.object.object().expect("decodes").metadata().finalizers, [finalizer]);
    }
    server.make("c", &[]).await;
    let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
    assert!(server.delete(maps(), "c", &options).await.expect("deleted").gone);

    let jobs = row("batch", "v1", "jobs");
    let job = from_json::<api::batch::v1::Job>(json!({
        "metadata": {"name": "d"},
        "spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "web", "image": "web:1"}],
        }}},
    }));
    server.create(jobs, job).await.expect("created");
    let deleted = server.delete(jobs, "d", &DeleteOptions::default()).await.expect("marked");
    assert_eq!(deleted.object.object().expect("decodes").metadata().finalizers, ["orphan"], "jobs orphan");
}

#[tokio::test]
async fn a_namespace_goes_when_its_own_finalizer_has_left() {
    let server = Server::new();
    let rows = row("", "v1", "namespaces");
    let object = from_json::<api::core::v1::Namespace>(json!({"metadata": {"name": "shop"}}));
    server.create_in("", rows, object).await.expect("created");
    let name = meta::ObjectKey::cluster("shop");
    let options = DeleteOptions::default();
    let deleted = server.registry.delete(&request(), rows, &name, &options).await.expect("marked");
    let namespace = deleted.object.object().expect("decodes");
    let namespace = namespace.downcast::<api::core::v1::Namespace>().expect("a namespace");
    assert!(!deleted.gone && namespace.metadata.deletion_timestamp.is_some());
    assert_eq!(namespace.metadata.deletion_grace_period_seconds, None);
    assert_eq!(namespace.status.phase, "Terminating");
    let finalize = |object: &mut dyn api::Object| {
        object.downcast_mut::<api::core::v1::Namespace>().expect("a namespace").spec.finalizers.clear();
        Ok(())
    };
    let kind = UpdateKind::Sub("finalize");
    server.registry.modify(&request(), rows, &name, kind, &finalize).await.expect("finalized");
    assert_eq!(server.registry.get(rows, &name, "").await.expect_err("gone").code, 404);
}

#[tokio::test]
async fn a_collection_is_deleted() {
    let server = Server::new();
    for number in 0..20 {
        let label = if number % 2 == 0 { "even" } else { "odd" };
        server.make(&format!("m{number:02}"), &[("is", label)]).await;
    }
    let options = DeleteOptions::default();
    let deleted = server
        .registry
        .delete_collection(&request(), maps(), NS, &options, &labelled("is=even"))
        .await
        .expect("deleted");
    assert_eq!(deleted.items.len(), 10);
    assert_eq!(server.list(maps(), &common::options()).await.expect("a list").items.len(), 10);
}

#[tokio::test]
async fn status_is_written_apart() {
    let server = Server::new();
    let created = server.create(pods(), pod("web", "")).await.expect("created");
    let mut object = created.decode().expect("decodes");
    let change = |object: &mut Box<dyn api::Object>| {
        let pod = object.downcast_mut::<Pod>().expect("a pod");
        pod.status.phase = "Running".into();
        pod.metadata.labels.insert("x".into(), "y".into());
    };
    change(&mut object);
    let updated = server.update(pods(), UpdateKind::Status, object).await.expect("updated").object;
    let pod = updated.object().expect("decodes");
    assert_eq!(pod.downcast::<Pod>().expect("a pod").status.phase, "Running");
    let status = &pod.metadata().managed_fields.iter().find(|entry| entry.subresource == "status");
    assert!(status.is_some(), "the status has its own entry");
}

#[tokio::test]
async fn changes_in_place_win_against_others() {
    let server = Server::new();
    server.create(maps(), map("a", &[], &[("n", "0")])).await.expect("created");
    let bump = |object: &mut dyn api::Object| {
        let map = object.downcast_mut::<ConfigMap>().expect("a map");
        let number: u32 = map.data["n"].parse().expect("a number");
        map.data.insert("n".into(), (number + 1).to_string());
        Ok(())
    };
    let all = (0..16).map(|_| {
        let registry = server.registry.clone();
        tokio::spawn(
            async move { registry.modify(&request(), maps(), &key("a"), UpdateKind::Spec, &bump).await },
        )
    });
    for done in futures::future::join_all(all).await {
        done.expect("no panic").expect("changed");
    }
    let map = server.get(maps(), "a").await.expect("there").object().expect("decodes");
    assert_eq!(map.downcast::<ConfigMap>().expect("a map").data["n"], "16");
}
