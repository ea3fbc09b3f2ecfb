//! The registry over every engine of the store, and over a store that was closed and opened again.

mod common;
#[allow(dead_code)]
#[path = "../../store/tests/suite/server.rs"]
mod etcd;

use common::*;
use registry::{DeleteOptions, ListOptions};
use std::sync::Arc;

/// What must hold over any store.
async fn scenario(store: Arc<dyn store::Store>) {
    let server = Server::over(Arc::clone(&store));
    for name in ["a", "b", "c"] {
        server.make(name, &[("app", "x")]).await;
    }
    let mut watcher = server.watch(&options()).await;
    for wanted in ["ADDED a", "ADDED b", "ADDED c"] {
        assert_eq!(next(&mut watcher).await, wanted);
    }
    let before = server.change("b", |map| drop(map.data.insert("k".into(), "v".into()))).await.revision();
    assert_eq!(next(&mut watcher).await, "MODIFIED b");
    let deleted = server.delete(maps(), "a", &DeleteOptions::default()).await.expect("deleted");
    let event = watcher.recv().await.expect("an event");
    assert_eq!(event.object().expect("an object").revision(), deleted.object.revision());
    assert_eq!(names(&server.list(maps(), &options()).await.expect("a list")), "b c");
    let exact = ListOptions { resource_version_match: "Exact".into(), ..at(before) };
    assert_eq!(names(&server.list(maps(), &exact).await.expect("a list")), "a b c");
    let page = server.list(maps(), &ListOptions { limit: 1, ..options() }).await.expect("a page");
    assert_eq!((names(&page).as_str(), page.remaining), ("b", Some(1)));

    // A write outside of the registry's keys moves the store's revision, and holds no reader up.
    let elsewhere = store::Txn::put("/elsewhere", "x");
    server.registry.store().txn(elsewhere).await.expect("written");
    assert_eq!(names(&server.list(maps(), &options()).await.expect("a list")), "b c");

    // Another server on the same store is heard and seen.
    let other = Server::over(store);
    other.make("d", &[]).await;
    assert_eq!(next(&mut watcher).await, "ADDED d");
    assert_eq!(names(&server.list(maps(), &options()).await.expect("a list")), "b c d");
    let mut resumed = other.watch(&at(before)).await;
    assert_eq!(next(&mut resumed).await, "DELETED a");
    assert_eq!(next(&mut resumed).await, "ADDED d");

    let event = from_json::<api::core::v1::Event>(serde_json::json!({
        "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": NS},
        "reason": "Started", "message": "m", "type": "Normal",
    }));
    let events = row("", "v1", "events");
    server.create(events, event).await.expect("created");
    let stored = server.registry.store().range(store::RangeRequest::prefix("/registry/events/")).await;
    let lease = stored.expect("read").kvs[0].lease;
    let lease = server.registry.store().lease_time_to_live(lease).await.expect("a lease");
    assert_eq!(lease.granted_ttl, registry::EVENT_TTL_SECONDS + 60);
    let series = row("events.k8s.io", "v1", "events");
    let converted = server.registry.get(series, &key("e"), "").await.expect("there in its other version");
    let text = String::from_utf8(converted.json().expect("encodes").to_vec()).expect("text");
    assert!(
        text.starts_with(r#"{"kind":"Event","apiVersion":"events.k8s.io/v1","metadata":{"name":"e""#),
        "{text}"
    );
    assert!(text.contains(r#""note":"m""#), "{text}");
}

#[tokio::test]
async fn in_memory() {
    scenario(store::memory()).await;
}

#[tokio::test]
async fn embedded_and_opened_again() {
    let dir = tempfile::tempdir().expect("a folder");
    scenario(store::open_embedded(dir.path()).expect("opened")).await;
    let store = loop {
        // The last server's tasks let go of the store in their own time.
        match store::open_embedded(dir.path()) {
            Err(store::Error::Locked { .. }) => tokio::task::yield_now().await,
            opened => break opened.expect("opened"),
        }
    };
    let server = Server::over(store);
    let list = server.list(maps(), &options()).await.expect("a list");
    assert_eq!(names(&list), "b c d");
    let mut watcher = server.watch(&at(list.revision)).await;
    server.make("e", &[]).await;
    assert_eq!(next(&mut watcher).await, "ADDED e");
}

#[tokio::test]
async fn etcd() {
    let etcd = etcd::Server::start("http", &[]);
    let store = store::connect_etcd(std::slice::from_ref(&etcd.url), None).expect("connected");
    etcd.ready(&*store).await;
    scenario(store).await;
}
