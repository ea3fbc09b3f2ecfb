//! Watches: where they start, what they tell, how they end.

mod common;

use api::core::v1::ConfigMap;
use common::*;
use registry::{DeleteOptions, Event, ListOptions, QUEUE_MAX, Watcher};
use std::collections::BTreeMap;

fn streaming() -> ListOptions {
    ListOptions {
        send_initial_events: Some(true),
        resource_version_match: "NotOlderThan".into(),
        allow_bookmarks: true,
        ..options()
    }
}

async fn remove(server: &Server, name: &str) {
    server.delete(maps(), name, &DeleteOptions::default()).await.expect("deleted");
}

#[tokio::test]
async fn a_watch_without_a_revision_begins_with_what_is_there() {
    let server = Server::new();
    server.make("a", &[]).await;
    let mut watcher = server.watch(&options()).await;
    server.make("b", &[]).await;
    server.change("a", |map| drop(map.data.insert("k".into(), "v".into()))).await;
    remove(&server, "b").await;
    for wanted in ["ADDED a", "ADDED b", "MODIFIED a", "DELETED b"] {
        assert_eq!(next(&mut watcher).await, wanted);
    }
}

#[tokio::test]
async fn a_watch_goes_on_from_a_revision() {
    let server = Server::new();
    let first = server.make("a", &[]).await;
    server.make("b", &[]).await;
    server.list(maps(), &options()).await.expect("the cache is loaded");
    server.make("c", &[]).await;
    remove(&server, "a").await;
    // Older than the cache: the store's history tells it.
    let mut watcher = server.watch(&at(first.revision())).await;
    for wanted in ["ADDED b", "ADDED c", "DELETED a"] {
        assert_eq!(next(&mut watcher).await, wanted);
    }
    server.make("d", &[]).await;
    assert_eq!(next(&mut watcher).await, "ADDED d");
    assert_eq!(settled(&server, &mut watcher).await, [""; 0], "nothing twice");
}

#[tokio::test]
async fn a_revision_that_is_compacted_is_too_old() {
    let server = Server::new();
    let first = server.make("a", &[]).await;
    server.make("b", &[]).await;
    server.make("c", &[]).await;
    let now = server.registry.store().revision().await.expect("a revision");
    server.registry.store().compact(now).await.expect("compacted");
    server.list(maps(), &options()).await.expect("the cache is loaded");
    let error = server.registry.watch(maps(), NS, &at(first.revision())).await.err().expect("too old");
    assert_eq!(error.code, 410);
    assert!(error.to_string().starts_with(&format!("too old resource version: {} (", first.revision())));
}

#[tokio::test]
async fn deletions_carry_the_last_state_at_their_own_revision() {
    let server = Server::new();
    let created = server.create(maps(), map("a", &[], &[("k", "v")])).await.expect("created");
    let mut watcher = server.watch(&at(created.revision())).await;
    let deleted = server.delete(maps(), "a", &DeleteOptions::default()).await.expect("deleted");
    let event = watcher.recv().await.expect("an event");
    let Event::Deleted(object) = event else { panic!("{event:?}") };
    assert_eq!(object.revision(), deleted.object.revision());
    let map = object.object().expect("decodes");
    assert_eq!(map.downcast::<ConfigMap>().expect("a map").data["k"], "v");
    assert_eq!(map.metadata().resource_version, object.resource_version());
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let server = Server::new();
    server.make("a", &[]).await;
    let last = server.make("b", &[]).await;
    let mut watcher = server.watch(&streaming()).await;
    assert_eq!(next(&mut watcher).await, "ADDED a");
    assert_eq!(next(&mut watcher).await, "ADDED b");
    let Some(Event::Bookmark(mark)) = watcher.recv().await else { panic!("no bookmark") };
    assert!(mark.revision() >= last.revision());
    let text = String::from_utf8(mark.json().expect("encodes").to_vec()).expect("text");
    assert!(text.contains(r#""annotations":{"k8s.io/initial-events-end":"true"}"#), "{text}");
    server.make("c", &[]).await;
    assert_eq!(next(&mut watcher).await, "ADDED c");

    let refused = ListOptions { resource_version_match: String::new(), ..streaming() };
    let error = server.registry.watch(maps(), NS, &refused).await.err().expect("refused");
    assert!(
        error.to_string().contains("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
    );
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let server = Server::new();
    server.make("a", &[("app", "x")]).await;
    let mut watcher = server.watch(&labelled("app=x")).await;
    assert_eq!(next(&mut watcher).await, "ADDED a");
    server.make("b", &[]).await;
    let set = |value: &'static str| {
        move |map: &mut ConfigMap| drop(map.metadata.labels.insert("app".into(), value.into()))
    };
    server.change("b", set("x")).await;
    assert_eq!(next(&mut watcher).await, "ADDED b");
    server.change("b", |map| drop(map.data.insert("k".into(), "v".into()))).await;
    assert_eq!(next(&mut watcher).await, "MODIFIED b");
    let left = server.change("b", set("y")).await;
    let Some(Event::Deleted(object)) = watcher.recv().await else { panic!("not deleted") };
    assert_eq!(object.revision(), left.revision());
    assert_eq!(object.labels()["app"], "x", "the last state that was selected");
    remove(&server, "b").await;
    remove(&server, "a").await;
    assert_eq!(next(&mut watcher).await, "DELETED a");
}

#[tokio::test]
async fn watchers_of_fields_hear_only_of_theirs() {
    let server = Server::new();
    let on = |node: &str| with_fields(&format!("spec.nodeName={node}"));
    let mut one = server.registry.watch(pods(), "", &on("one")).await.expect("a watch");
    let mut unbound = server.registry.watch(pods(), "", &on("")).await.expect("a watch");
    let named = with_fields("metadata.name=b");
    let mut named = server.registry.watch(pods(), NS, &named).await.expect("a watch");
    server.create(pods(), pod("a", "one")).await.expect("created");
    server.create(pods(), pod("b", "")).await.expect("created");
    let bind = |object: &mut dyn api::Object| {
        object.downcast_mut::<api::core::v1::Pod>().expect("a pod").spec.node_name = "one".into();
        Ok(())
    };
    let kind = registry::UpdateKind::Sub("binding");
    server.registry.modify(&request(), pods(), &key("b"), kind, &bind).await.expect("bound");
    assert_eq!([next(&mut one).await, next(&mut one).await], ["ADDED a", "ADDED b"]);
    assert_eq!([next(&mut unbound).await, next(&mut unbound).await], ["ADDED b", "DELETED b"]);
    assert_eq!([next(&mut named).await, next(&mut named).await], ["ADDED b", "MODIFIED b"]);
    let listed = server.registry.list(pods(), "", &on("one")).await.expect("a list");
    assert_eq!(names(&listed), "a b");
    let mut again = server.registry.watch(pods(), "", &on("one")).await.expect("a watch");
    assert_eq!([next(&mut again).await, next(&mut again).await], ["ADDED a", "ADDED b"]);
    server
        .delete(pods(), "a", &DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() })
        .await
        .expect("deleted");
    let listed = server.registry.list(pods(), "", &on("one")).await.expect("a list");
    assert_eq!(names(&listed), "b");
}

#[tokio::test]
async fn a_slow_watcher_is_closed_and_nobody_waits_for_it() {
    let server = Server::new();
    server.create(maps(), map("a", &[], &[("n", "x")])).await.expect("created");
    let mut slow = server.watch(&options()).await;
    let mut quick = server.watch(&options()).await;
    assert_eq!(next(&mut quick).await, "ADDED a");
    for number in 0..QUEUE_MAX + 10 {
        server.change("a", |map| drop(map.data.insert("n".into(), number.to_string()))).await;
        assert_eq!(next(&mut quick).await, "MODIFIED a");
    }
    let mut count = 0;
    while slow.recv().await.is_some() {
        count += 1;
    }
    assert_eq!(count, QUEUE_MAX + 1, "what was queued, and the initial object");
    assert_eq!(server.registry.sizes().watchers, 1);
    drop(quick);
    assert_eq!(server.registry.sizes().watchers, 0);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_tell_progress_of_other_resources() {
    let server = Server::new();
    server.make("a", &[]).await;
    let watched = ListOptions { allow_bookmarks: true, ..labelled("none=such") };
    let mut watcher = server.watch(&watched).await;
    let last = server.make("b", &[]).await;
    let Some(Event::Bookmark(mark)) = watcher.recv().await else { panic!("no bookmark") };
    assert_eq!(mark.revision(), last.revision());
    assert!(watcher.bookmark().is_none(), "nothing has moved since");
    server.make("c", &[]).await;
    server.list(maps(), &options()).await.expect("caught up");
    assert!(watcher.bookmark().is_some());
}

/// A list as of now, by replaying a watch.
fn replay(state: &mut BTreeMap<String, i64>, watcher: &mut Watcher) {
    while let Some(event) = watcher.try_recv() {
        let object = event.object().expect("no error");
        let name = object.key().to_string();
        match event {
            Event::Added(_) => {
                assert!(state.insert(name, object.revision()).is_none(), "added twice: {event:?}")
            }
            Event::Modified(_) => {
                assert!(state.insert(name, object.revision()).is_some(), "unknown: {event:?}")
            }
            Event::Deleted(_) => assert!(state.remove(&name).is_some(), "unknown: {event:?}"),
            _ => {}
        }
    }
}

/// A small generator, so that a failure is found again.
struct Dice(u64);
impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[tokio::test]
async fn a_replayed_watch_equals_a_list() {
    for seed in 0..4 {
        let server = Server::new();
        let mut dice = Dice(seed);
        let selections = ["", "app=0", "app!=0", "app in (1,2)", "!app"];
        let mut watchers = Vec::new();
        for step in 0..250 {
            let name = format!("m{}", dice.roll(8));
            let label = dice.roll(4).to_string();
            match dice.roll(4) {
                0 => drop(server.create(maps(), map(&name, &[("app", &label)], &[])).await),
                1 => drop(server.delete(maps(), &name, &DeleteOptions::default()).await),
                _ => {
                    let labels = if label == "3" {
                        serde_json::json!({"app": null})
                    } else {
                        serde_json::json!({"app": label})
                    };
                    let patch = serde_json::json!({"metadata": {"labels": labels}, "data": {"step": step.to_string()}});
                    drop(server.patch(maps(), &name, registry::PatchType::Merge, patch).await);
                }
            }
            if step % 20 == 0 {
                let selector = selections[dice.roll(5) as usize];
                let options = labelled(selector);
                watchers.push((selector, server.watch(&options).await, BTreeMap::new()));
            }
        }
        for (selector, watcher, state) in &mut watchers {
            let list = server.list(maps(), &labelled(selector)).await.expect("a list");
            replay(state, watcher);
            let listed: BTreeMap<_, _> =
                list.items.iter().map(|item| (item.key().to_string(), item.revision())).collect();
            assert_eq!(*state, listed, "seed {seed}, selector {selector:?}");
        }
    }
}
