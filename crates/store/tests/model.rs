//! Decides that the local engines do what a simple model does, over long random histories.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::StdRng};
use store::{
    Compare, Error, EventKind, KeyValue, Limits, Op, OpResponse, Options, RangeRequest, Store, Txn,
    WatchRequest,
};

/// All states of a store, one for each revision; the first is that of revision 1.
struct Model {
    states: Vec<BTreeMap<Bytes, KeyValue>>,
    compacted: i64,
}

impl Model {
    fn revision(&self) -> i64 {
        self.states.len() as i64
    }

    fn now(&self) -> &BTreeMap<Bytes, KeyValue> {
        &self.states[self.states.len() - 1]
    }

    fn at(&self, revision: i64) -> &BTreeMap<Bytes, KeyValue> {
        &self.states[revision as usize - 1]
    }

    /// Applies writes (`None` deletes) as one revision, if they change anything.
    fn write(&mut self, writes: Vec<(Bytes, Option<Bytes>)>) {
        let mut next = self.now().clone();
        let revision = self.revision() + 1;
        let mut changed = false;
        for (key, value) in writes {
            match value {
                None => changed |= next.remove(&key).is_some(),
                Some(value) => {
                    changed = true;
                    let before = next.get(&key);
                    let kv = KeyValue {
                        key: key.clone(),
                        value,
                        create_revision: before.map_or(revision, |kv| kv.create_revision),
                        mod_revision: revision,
                        version: before.map_or(0, |kv| kv.version) + 1,
                        lease: 0,
                    };
                    next.insert(key, kv);
                }
            }
        }
        if changed {
            self.states.push(next);
        }
    }

    /// The changes from a revision on, as `(revision, key, value or none)`.
    fn changes(&self, from: i64) -> Vec<(i64, Bytes, Option<Bytes>)> {
        let mut changes = Vec::new();
        for revision in from.max(2)..=self.revision() {
            let (before, after) = (self.at(revision - 1), self.at(revision));
            for kv in after.values().filter(|kv| kv.mod_revision == revision) {
                changes.push((revision, kv.key.clone(), Some(kv.value.clone())));
            }
            for key in before.keys().filter(|key| !after.contains_key(*key)) {
                changes.push((revision, key.clone(), None));
            }
        }
        changes.sort();
        changes
    }
}

fn key(random: &mut StdRng) -> Bytes {
    format!("k{:02}", random.random_range(0..40)).into()
}

async fn write(random: &mut StdRng, store: &dyn Store, model: &mut Model) {
    let mut writes: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
    for _ in 0..random.random_range(1..4) {
        let value = random.random_bool(0.7).then(|| Bytes::from(random.random_range(0..1000).to_string()));
        writes.insert(key(random), value);
    }
    let ops = writes.iter().map(|(key, value)| match value {
        Some(value) => Op::put(key.clone(), value.clone()),
        None => Op::delete(key.clone()),
    });
    let guarded = key(random);
    let known = model.now().get(&guarded).map_or(0, |kv| kv.mod_revision);
    let guess = if random.random_bool(0.8) { known } else { known + 1 };
    let txn = Txn {
        compares: vec![Compare::mod_revision(guarded, guess)],
        success: ops.collect(),
        failure: vec![Op::Range(RangeRequest::prefix("k"))],
    };
    let response = store.txn(txn).await.unwrap();
    assert_eq!(response.succeeded, guess == known);
    if response.succeeded {
        model.write(writes.into_iter().collect());
    } else {
        let [OpResponse::Range(range)] = &response.responses[..] else { panic!("{response:?}") };
        assert!(range.kvs.iter().map(|kv| &**kv).eq(model.now().values()));
    }
    assert_eq!(response.revision, model.revision());
}

async fn delete_range(random: &mut StdRng, store: &dyn Store, model: &mut Model) {
    let (first, last) = (key(random), key(random));
    let op = Op::DeleteRange { key: first.clone(), range_end: last.clone(), prev_kv: true };
    let response = store.txn(Txn { success: vec![op], ..Txn::default() }).await.unwrap();
    let gone: Vec<KeyValue> =
        model.now().values().filter(|kv| kv.key >= first && kv.key < last).cloned().collect();
    let [OpResponse::DeleteRange { deleted, prev_kvs }] = &response.responses[..] else {
        panic!("{response:?}")
    };
    assert_eq!(*deleted, gone.len() as i64);
    assert!(prev_kvs.iter().map(|kv| &**kv).eq(&gone));
    model.write(gone.into_iter().map(|kv| (kv.key, None)).collect());
}

async fn read(random: &mut StdRng, store: &dyn Store, model: &Model) {
    let revision = random.random_range(1..=model.revision());
    let (first, last) = (key(random), key(random));
    let limit = random.random_range(0..10);
    let request =
        RangeRequest { key: first.clone(), range_end: last.clone(), revision, limit, ..Default::default() };
    let answer = store.range(request).await;
    if revision < model.compacted {
        return assert!(matches!(answer, Err(Error::Compacted { .. })), "{revision}: {answer:?}");
    }
    let answer = answer.unwrap();
    let found: Vec<&KeyValue> =
        model.at(revision).values().filter(|kv| kv.key >= first && kv.key < last).collect();
    assert_eq!(answer.count, found.len() as i64, "at {revision}");
    let shown = if limit == 0 { found.len() } else { found.len().min(limit as usize) };
    assert!(answer.kvs.iter().map(|kv| &**kv).eq(found[..shown].iter().copied()), "at {revision}");
    assert_eq!(answer.more, shown < found.len());
}

async fn watch(random: &mut StdRng, store: &dyn Store, model: &Model) {
    let from = random.random_range(1..=model.revision());
    let opened = store.watch(WatchRequest::prefix("k", from)).await;
    if from < model.compacted {
        return assert!(matches!(opened, Err(Error::Compacted { .. })), "{from}");
    }
    let mut watch = opened.unwrap();
    let expected = model.changes(from);
    let mut told = Vec::new();
    while told.len() < expected.len() {
        let response = watch.recv().await.unwrap().unwrap();
        for event in response.events {
            let value = (event.kind == EventKind::Put).then(|| event.kv.value.clone());
            told.push((event.kv.mod_revision, event.kv.key.clone(), value));
        }
    }
    told.sort();
    assert_eq!(told, expected);
}

async fn run(seed: u64, open: impl Fn() -> Arc<dyn Store>, reopens: bool) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut model = Model { states: vec![BTreeMap::new()], compacted: 0 };
    let mut store = open();
    for _ in 0..3000 {
        match random.random_range(0..100) {
            0..60 => write(&mut random, &*store, &mut model).await,
            60..65 => delete_range(&mut random, &*store, &mut model).await,
            65..96 => read(&mut random, &*store, &model).await,
            96..98 => watch(&mut random, &*store, &model).await,
            98 if random.random_bool(0.1) => {
                let revision = random.random_range(1..=model.revision());
                match store.compact(revision).await {
                    Ok(()) => {
                        assert!(revision > model.compacted);
                        model.compacted = revision;
                    }
                    Err(error) => {
                        assert!(matches!(error, Error::Compacted { .. }) && revision <= model.compacted)
                    }
                }
            }
            99 if reopens && random.random_bool(0.2) => {
                drop(store);
                store = open();
            }
            _ => {}
        }
    }
    let kept = RangeRequest::prefix("k");
    assert!(store.range(kept).await.unwrap().kvs.iter().map(|kv| &**kv).eq(model.now().values()));
}

#[tokio::test]
async fn memory_does_what_the_model_does() {
    for seed in 0..3 {
        let store = store::memory_with(Limits { bytes: 1 << 30, ..Limits::default() });
        run(seed, || store.clone(), false).await;
    }
}

#[tokio::test]
async fn embedded_does_what_the_model_does() {
    let dir = tempfile::tempdir().unwrap();
    let history = Limits { bytes: 1 << 30, ..Limits::default() };
    let options = Options { history, segment_bytes: 16 << 10, checkpoint_bytes: 32 << 10 };
    run(11, || store::open_embedded_with(dir.path(), options.clone()).unwrap(), true).await;
}
