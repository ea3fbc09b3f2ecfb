//! Decides what transactions must do on every engine.

use bytes::Bytes;
use store::{Compare, Comparison, Error, Op, OpResponse, RangeRequest, Target, Txn};

use super::{Room, only_range};

pub async fn revisions_and_versions_count_writes(room: Room) {
    let first = room.put("a", "1").await;
    let second = room.put("a", "2").await;
    let kv = room.store.range(RangeRequest::key(room.key("a"))).await.unwrap().kvs[0].clone();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version, kv.lease), (first, second, 2, 0));
    assert!(second > first);
    room.delete("a").await;
    let third = room.put("a", "3").await;
    let kv = room.store.range(RangeRequest::key(room.key("a"))).await.unwrap().kvs[0].clone();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (third, third, 1));
    assert!(room.store.revision().await.unwrap() >= third);
}

pub async fn a_transaction_compares_and_takes_one_branch(room: Room) {
    let create = |value: &'static str| Txn {
        compares: vec![Compare::absent(room.key("a"))],
        success: vec![room.put_op("a", value)],
        failure: vec![Op::get(room.key("a"))],
    };
    let created = room.txn(create("1")).await;
    assert!(created.succeeded);
    assert_eq!(created.responses, vec![OpResponse::Put { prev_kv: None }]);
    let again = room.txn(create("2")).await;
    assert!(!again.succeeded);
    assert_eq!(room.words(&only_range(&again).kvs), "a=1");
    assert_eq!(again.revision, created.revision);

    let update = Txn {
        compares: vec![Compare::mod_revision(room.key("a"), created.revision)],
        success: vec![room.put_op("a", "3")],
        failure: vec![],
    };
    assert!(room.txn(update.clone()).await.succeeded);
    assert!(!room.txn(update).await.succeeded);
    assert_eq!(room.read(0).await.unwrap(), "a=3");
}

pub async fn every_comparison_compares(room: Room) {
    let first = room.put("a", "m").await;
    let second = room.put("a", "m").await;
    let holds = |key: &str, target: Target, result: Comparison| {
        let compare = Compare { key: room.key(key), target, result };
        let txn = Txn { compares: vec![compare], ..Txn::default() };
        let room = room.clone();
        async move { room.txn(txn).await.succeeded }
    };
    use Comparison::{Equal, Greater, Less, NotEqual};
    let value = |text: &'static str| Target::Value(Bytes::from_static(text.as_bytes()));
    let cases = [
        ("a", Target::ModRevision(second), Equal, true),
        ("a", Target::ModRevision(first), Greater, true),
        ("a", Target::ModRevision(second), Less, false),
        ("a", Target::CreateRevision(first), Equal, true),
        ("a", Target::CreateRevision(first), NotEqual, false),
        ("a", Target::Version(2), Equal, true),
        ("a", Target::Version(3), Less, true),
        ("a", value("m"), Equal, true),
        ("a", value("n"), Less, true),
        ("a", value("a"), Greater, true),
        ("a", value("m"), NotEqual, false),
        ("a", Target::Lease(0), Equal, true),
        ("missing", Target::ModRevision(0), Equal, true),
        ("missing", Target::CreateRevision(0), Equal, true),
        ("missing", Target::Version(0), Equal, true),
        ("missing", value(""), Equal, false),
        ("missing", value("x"), NotEqual, false),
    ];
    for (key, target, result, expected) in cases {
        assert_eq!(holds(key, target.clone(), result).await, expected, "{key} {target:?} {result:?}");
    }
}

pub async fn all_writes_of_a_transaction_share_a_revision(room: Room) {
    let before = room.put("old", "1").await;
    let txn = Txn {
        success: vec![room.put_op("a", "1"), room.put_op("b", "2"), Op::delete(room.key("old"))],
        ..Txn::default()
    };
    let response = room.txn(txn).await;
    assert_eq!(response.revision, before + 1);
    let found = room.store.range(room.all()).await.unwrap();
    assert_eq!(room.words(&found.kvs), "a=1 b=2");
    assert!(found.kvs.iter().all(|kv| kv.mod_revision == response.revision));
}

pub async fn a_read_in_a_transaction_sees_its_writes(room: Room) {
    let txn = Txn { success: vec![room.put_op("a", "1"), Op::Range(room.all())], ..Txn::default() };
    let response = room.txn(txn).await;
    let OpResponse::Range(range) = &response.responses[1] else { panic!("{response:?}") };
    assert_eq!(room.words(&range.kvs), "a=1");
}

pub async fn a_key_is_not_written_twice_in_a_transaction(room: Room) {
    let before = room.put("z", "1").await;
    let twice = Txn { success: vec![room.put_op("a", "1"), room.put_op("a", "2")], ..Txn::default() };
    let refused = room.store.txn(twice).await;
    assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
    let delete = Op::DeleteRange { key: room.key("a"), range_end: room.key("c"), prev_kv: false };
    let both = Txn { success: vec![delete, room.put_op("b", "2")], ..Txn::default() };
    let refused = room.store.txn(both).await;
    assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
    assert_eq!(room.read(0).await.unwrap(), "z=1");
    assert_eq!(room.put("z", "2").await, before + 1);
}

pub async fn a_deletion_of_nothing_makes_no_revision(room: Room) {
    let before = room.put("a", "1").await;
    let response = room.txn(Txn::delete(room.key("missing"))).await;
    assert_eq!(response.revision, before);
    assert_eq!(response.responses, vec![OpResponse::DeleteRange { deleted: 0, prev_kvs: vec![] }]);
}

pub async fn what_a_key_held_before_is_answered(room: Room) {
    room.put("a", "1").await;
    room.put("b", "2").await;
    let put = Op::Put { key: room.key("a"), value: "3".into(), lease: 0, prev_kv: true };
    let response = room.txn(Txn { success: vec![put], ..Txn::default() }).await;
    let [OpResponse::Put { prev_kv: Some(prev) }] = &response.responses[..] else { panic!("{response:?}") };
    assert_eq!(prev.value, "1");
    let delete = Op::DeleteRange { key: room.key("a"), range_end: room.key("c"), prev_kv: true };
    let response = room.txn(Txn { success: vec![delete], ..Txn::default() }).await;
    let [OpResponse::DeleteRange { deleted: 2, prev_kvs }] = &response.responses[..] else {
        panic!("{response:?}")
    };
    assert_eq!(room.words(prev_kvs), "a=3 b=2");
}

pub async fn too_large_a_request_is_refused(room: Room) {
    let value = Bytes::from(vec![b'x'; 2 << 20]);
    let refused = room.store.txn(Txn::put(room.key("a"), value)).await;
    assert!(matches!(refused, Err(Error::RequestTooLarge)), "{refused:?}");
    let ops = (0..200).map(|number| room.put_op(&number.to_string(), "x")).collect();
    let refused = room.store.txn(Txn { success: ops, ..Txn::default() }).await;
    assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
    assert_eq!(room.read(0).await.unwrap(), "");
}

pub async fn concurrent_compare_and_swap_loses_nothing(room: Room) {
    room.put("count", "0").await;
    let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(count_up(room.clone(), 10))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(room.read(0).await.unwrap(), "count=80");
}

async fn count_up(room: Room, times: usize) {
    for _ in 0..times {
        loop {
            let kv = room.store.range(RangeRequest::key(room.key("count"))).await.unwrap().kvs[0].clone();
            let count: u32 = std::str::from_utf8(&kv.value).unwrap().parse().unwrap();
            let txn = Txn {
                compares: vec![Compare::mod_revision(room.key("count"), kv.mod_revision)],
                success: vec![room.put_op("count", &(count + 1).to_string())],
                failure: vec![],
            };
            if room.txn(txn).await.succeeded {
                break;
            }
        }
    }
}
