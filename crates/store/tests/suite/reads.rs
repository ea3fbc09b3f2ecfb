//! Decides what reads must do on every engine.

use store::{Error, RangeRequest};

use super::Room;

pub async fn a_range_is_ordered_limited_and_counted(room: Room) {
    for name in ["c", "a", "b", "ab"] {
        room.put(name, "1").await;
    }
    assert_eq!(room.read(0).await.unwrap(), "a=1 ab=1 b=1 c=1");
    let page = room.store.range(RangeRequest { limit: 2, ..room.all() }).await.unwrap();
    assert_eq!((room.words(&page.kvs).as_str(), page.more, page.count), ("a=1 ab=1", true, 4));
    let exact = room.store.range(RangeRequest { limit: 4, ..room.all() }).await.unwrap();
    assert_eq!((exact.kvs.len(), exact.more), (4, false));
    let count = room.store.range(RangeRequest { count_only: true, ..room.all() }).await.unwrap();
    assert_eq!((count.kvs.len(), count.count, count.more), (0, 4, false));
    let keys = room.store.range(RangeRequest { keys_only: true, ..room.all() }).await.unwrap();
    assert_eq!(room.words(&keys.kvs), "a= ab= b= c=");
    assert_eq!(keys.kvs[0].version, 1);
    let one = room.store.range(RangeRequest::key(room.key("a"))).await.unwrap();
    assert_eq!((room.words(&one.kvs).as_str(), one.count), ("a=1", 1));
    let none = room.store.range(RangeRequest::key(room.key("nothing"))).await.unwrap();
    assert_eq!((none.kvs.len(), none.count, none.more), (0, 0, false));
    let backwards = RangeRequest { key: room.key("c"), range_end: room.key("a"), ..RangeRequest::default() };
    assert_eq!(room.store.range(backwards).await.unwrap().count, 0);
}

pub async fn a_range_end_of_zero_reads_to_the_end(room: Room) {
    room.put("a", "1").await;
    room.put("b", "2").await;
    let request = RangeRequest { key: room.key("b"), range_end: "\0".into(), ..RangeRequest::default() };
    let response = room.store.range(request).await.unwrap();
    let ours: Vec<_> = response.kvs.iter().filter(|kv| kv.key.starts_with(room.prefix.as_bytes())).collect();
    assert_eq!(ours.len(), 1);
    assert_eq!(ours[0].value, "2");
}

pub async fn the_past_can_be_read_until_it_is_compacted(room: Room) {
    let first = room.put("a", "1").await;
    let second = room.put("b", "1").await;
    let third = room.put("a", "2").await;
    let fourth = room.delete("b").await;
    let fifth = room.put("b", "3").await;
    for (revision, expected) in
        [(first, "a=1"), (second, "a=1 b=1"), (third, "a=2 b=1"), (fourth, "a=2"), (fifth, "a=2 b=3")]
    {
        assert_eq!(room.read(revision).await.unwrap(), expected, "at {revision}");
    }
    room.store.compact(third).await.unwrap();
    assert!(matches!(room.read(second).await, Err(Error::Compacted { .. })));
    assert_eq!(room.read(third).await.unwrap(), "a=2 b=1");
    assert_eq!(room.read(0).await.unwrap(), "a=2 b=3");
    assert!(matches!(room.store.compact(second).await, Err(Error::Compacted { .. })));
    assert!(matches!(room.store.compact(fifth + 1000).await, Err(Error::FutureRevision { .. })));
}

pub async fn the_future_cannot_be_read(room: Room) {
    let revision = room.put("a", "1").await;
    assert!(matches!(room.read(revision + 1000).await, Err(Error::FutureRevision { .. })));
}

pub async fn paging_at_a_revision_sees_one_state(room: Room) {
    for number in 0..20 {
        room.put(&format!("k{number:02}"), "old").await;
    }
    let first = room.store.range(RangeRequest { limit: 5, ..room.all() }).await.unwrap();
    for number in 0..20 {
        match number % 3 {
            0 => room.put(&format!("k{number:02}"), "new").await,
            1 => room.delete(&format!("k{number:02}")).await,
            _ => room.put(&format!("k{number:02}x"), "new").await,
        };
    }
    let mut words = vec![room.words(&first.kvs)];
    let mut last = first.kvs[4].key.clone();
    loop {
        let key = [last.as_ref(), b"\0"].concat().into();
        let request = RangeRequest { key, revision: first.revision, limit: 5, ..room.all() };
        let page = room.store.range(request).await.unwrap();
        words.push(room.words(&page.kvs));
        if !page.more {
            break;
        }
        last = page.kvs[4].key.clone();
    }
    let expected: Vec<_> = (0..20).map(|number| format!("k{number:02}=old")).collect();
    assert_eq!(words.join(" "), expected.join(" "));
}

pub async fn an_empty_key_is_refused(room: Room) {
    let refused = room.store.range(RangeRequest::default()).await;
    assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
}
