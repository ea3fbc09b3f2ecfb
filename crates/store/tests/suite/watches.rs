//! Decides what watches must do on every engine.

use store::{Error, EventKind, Txn, WatchRequest};

use super::Room;

pub async fn a_watch_tells_changes_in_its_range(room: Room) {
    let mut all = room.watch(0).await;
    let one = WatchRequest { key: room.key("b"), ..WatchRequest::default() };
    let mut one = room.store.watch(one).await.unwrap();
    room.put("a", "1").await;
    room.put("b", "2").await;
    room.delete("a").await;
    let both = Txn { success: vec![room.put_op("b", "3"), room.put_op("c", "4")], ..Txn::default() };
    room.txn(both).await;
    assert_eq!(room.hear(&mut all, 5).await, "+a=1 +b=2 -a +b=3 +c=4");
    assert_eq!(room.hear(&mut one, 2).await, "+b=2 +b=3");
}

pub async fn a_watch_starts_in_the_past(room: Room) {
    room.put("a", "1").await;
    let second = room.put("a", "2").await;
    let third = room.delete("a").await;
    let mut watch = room.watch(second).await;
    assert_eq!(room.hear(&mut watch, 2).await, "+a=2 -a");
    room.put("b", "3").await;
    let response = watch.recv().await.unwrap().unwrap();
    assert_eq!(room.told(&response), "+b=3");
    assert!(response.revision > third && !response.progress);
}

pub async fn a_watch_of_a_compacted_revision_is_told_so(room: Room) {
    let first = room.put("a", "1").await;
    room.put("a", "2").await;
    let third = room.put("a", "3").await;
    room.store.compact(third).await.unwrap();
    let request = WatchRequest::prefix(room.prefix.clone(), first);
    let told = match room.store.watch(request).await {
        Ok(mut watch) => watch.recv().await.expect("an error comes").expect_err("an error"),
        Err(error) => error,
    };
    assert!(matches!(told, Error::Compacted { .. }), "{told:?}");
    let mut watch = room.watch(third).await;
    room.put("b", "4").await;
    assert_eq!(room.hear(&mut watch, 2).await, "+a=3 +b=4");
}

pub async fn a_watch_starts_in_the_future(room: Room) {
    let now = room.put("a", "1").await;
    let mut watch = room.watch(now + 2).await;
    room.put("a", "2").await;
    room.put("a", "3").await;
    assert_eq!(room.hear(&mut watch, 1).await, "+a=3");
}

pub async fn a_watch_carries_what_was_before(room: Room) {
    let start = room.put("a", "1").await;
    room.put("a", "2").await;
    room.delete("a").await;
    let request = WatchRequest { prev_kv: true, ..WatchRequest::prefix(room.prefix.clone(), start) };
    let mut watch = room.store.watch(request).await.unwrap();
    let mut events = Vec::new();
    while events.len() < 3 {
        events.extend(watch.recv().await.unwrap().unwrap().events);
    }
    let before: Vec<_> =
        events.iter().map(|event| event.prev_kv.as_ref().map(|kv| kv.value.clone())).collect();
    assert_eq!(before, [None, Some("1".into()), Some("2".into())]);
    assert_eq!((events[2].kind, events[2].kv.value.len(), events[2].kv.version), (EventKind::Delete, 0, 0));
    assert_eq!(events[2].kv.mod_revision, start + 2);
}

pub async fn a_progress_mark_comes_when_asked_for(room: Room) {
    let request = WatchRequest { progress: true, ..WatchRequest::prefix(room.prefix.clone(), 0) };
    let mut watch = room.store.watch(request).await.unwrap();
    room.put("a", "1").await;
    assert_eq!(room.hear(&mut watch, 1).await, "+a=1");
    let elsewhere = room.store.txn(Txn::put(format!("/elsewhere{}", room.prefix), "x")).await.unwrap();
    loop {
        if !room.store.request_progress().await.unwrap() {
            // An etcd whose marks may overtake changes: a write that the watch sees takes a mark's place.
            let written = room.put("mark", "").await;
            assert_eq!(room.hear(&mut watch, 1).await, "+mark=");
            assert!(watch.progress().revision() >= elsewhere.revision || written > elsewhere.revision);
            return;
        }
        let response = watch.recv().await.unwrap().unwrap();
        assert!(response.progress && response.events.is_empty(), "{response:?}");
        if response.revision >= elsewhere.revision {
            break;
        }
    }
    assert!(watch.progress().revision() >= elsewhere.revision);
}

pub async fn progress_counts_what_the_reader_is_done_with(room: Room) {
    let mut watch = room.watch(0).await;
    let progress = watch.progress();
    let revision = room.put("a", "1").await;
    assert!(progress.revision() < revision, "nothing has been read");
    watch.recv().await.unwrap().unwrap();
    assert!(progress.revision() < revision, "the reader still works on it");
    let again = room.put("a", "2").await;
    watch.recv().await.unwrap().unwrap();
    assert!(progress.revision() >= revision && progress.revision() < again);
    drop(watch);
}

pub async fn many_events_all_come_in_order(room: Room) {
    let mut watch = room.watch(0).await;
    let writer = tokio::spawn({
        let room = room.clone();
        async move {
            for number in 0..3000 {
                room.put(&format!("k{}", number % 7), &number.to_string()).await;
            }
        }
    });
    let mut next = 0;
    let mut revision = 0;
    while next < 3000 {
        let response = watch.recv().await.unwrap().unwrap();
        for event in &response.events {
            assert_eq!(event.kv.value, next.to_string());
            assert!(event.kv.mod_revision > revision && event.kv.mod_revision <= response.revision);
            revision = event.kv.mod_revision;
            next += 1;
        }
    }
    writer.await.unwrap();
}
