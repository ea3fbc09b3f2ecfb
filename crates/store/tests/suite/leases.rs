//! Decides what leases must do on every engine.

use store::{Error, Op, Txn};

use super::Room;

fn leased(room: &Room, name: &str, lease: i64) -> Op {
    Op::Put { key: room.key(name), value: "1".into(), lease, prev_kv: false }
}

pub async fn a_key_needs_an_existing_lease(room: Room) {
    let txn = Txn { success: vec![room.put_op("b", "1"), leased(&room, "a", 12345)], ..Txn::default() };
    assert_eq!(room.store.txn(txn).await, Err(Error::LeaseNotFound));
    assert_eq!(room.read(0).await.unwrap(), "");
    assert_eq!(room.store.lease_revoke(12345).await, Err(Error::LeaseNotFound));
    assert_eq!(room.store.lease_keep_alive(12345).await, Err(Error::LeaseNotFound));
    assert_eq!(room.store.lease_time_to_live(12345).await, Err(Error::LeaseNotFound));
}

pub async fn a_revoked_lease_deletes_its_keys_in_one_revision(room: Room) {
    let lease = room.store.lease_grant(1000).await.unwrap();
    assert!(lease.id != 0 && lease.granted_ttl == 1000);
    let ops = ["a", "b", "c", "d"].map(|name| leased(&room, name, lease.id)).to_vec();
    room.txn(Txn { success: ops, ..Txn::default() }).await;
    // A key that is written without the lease, or deleted, is no longer bound to it.
    room.put("b", "2").await;
    let last = room.delete("d").await;
    let mut watch = room.watch(last + 1).await;
    room.store.lease_revoke(lease.id).await.unwrap();
    assert_eq!(room.read(0).await.unwrap(), "b=2");
    let response = watch.recv().await.unwrap().unwrap();
    assert_eq!(room.told(&response), "-a -c");
    assert_eq!(response.revision, last + 1);
    assert_eq!(room.store.lease_revoke(lease.id).await, Err(Error::LeaseNotFound));
}

pub async fn an_expired_lease_deletes_its_keys(room: Room) {
    let lease = room.store.lease_grant(1).await.unwrap();
    let mut watch = room.watch(0).await;
    room.txn(Txn { success: vec![leased(&room, "a", lease.id)], ..Txn::default() }).await;
    assert_eq!(room.hear(&mut watch, 2).await, "+a=1 -a");
    assert_eq!(room.read(0).await.unwrap(), "");
    // The lease is gone by the time its keys are.
    assert_eq!(room.store.lease_keep_alive(lease.id).await, Err(Error::LeaseNotFound));
}

pub async fn a_lease_is_kept_alive_and_told(room: Room) {
    let lease = room.store.lease_grant(1000).await.unwrap();
    room.txn(Txn { success: vec![leased(&room, "a", lease.id)], ..Txn::default() }).await;
    let kept = room.store.lease_keep_alive(lease.id).await.unwrap();
    assert_eq!(kept.ttl, 1000);
    let told = room.store.lease_time_to_live(lease.id).await.unwrap();
    assert_eq!((told.granted_ttl, told.keys), (1000, vec![room.key("a")]));
    assert!((1..=1000).contains(&told.ttl), "{}", told.ttl);
    room.store.lease_revoke(lease.id).await.unwrap();
}
