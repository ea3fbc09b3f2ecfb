//! Decides what the embedded engine must survive: being closed, killed, damaged, locked out, out of space.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::StdRng};
use store::{Error, Limits, Op, Options, RangeRequest, Store, Txn, WatchRequest};

/// Small files, so that segments end and checkpoints are made all the time.
fn small() -> Options {
    Options { segment_bytes: 64 << 10, checkpoint_bytes: 128 << 10, ..Options::default() }
}

fn open(dir: &Path) -> Arc<dyn Store> {
    store::open_embedded_with(dir, small()).unwrap()
}

async fn put(store: &dyn Store, key: &str, value: impl Into<Bytes>) -> i64 {
    store.txn(Txn::put(key.to_owned(), value)).await.unwrap().revision
}

async fn all(store: &dyn Store, revision: i64) -> Result<String, Error> {
    let request = RangeRequest { key: "\0".into(), range_end: "\0".into(), revision, ..Default::default() };
    let response = store.range(request).await?;
    let words = response.kvs.iter().map(|kv| {
        let text = |bytes: &Bytes| String::from_utf8_lossy(&bytes[..bytes.len().min(8)]).into_owned();
        format!(
            "{}={}@{}.{}.{}",
            text(&kv.key),
            text(&kv.value),
            kv.create_revision,
            kv.mod_revision,
            kv.version
        )
    });
    Ok(words.collect::<Vec<_>>().join(" "))
}

fn files(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        names.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix)).collect();
    paths.sort();
    paths
}

#[tokio::test]
async fn everything_outlasts_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&*store, "a", "1").await;
    put(&*store, "b", "1").await;
    put(&*store, "a", "2").await;
    let lease = store.lease_grant(1000).await.unwrap();
    let leased = Op::Put { key: "l".into(), value: "1".into(), lease: lease.id, prev_kv: false };
    store.txn(Txn { success: vec![leased], ..Txn::default() }).await.unwrap();
    store.txn(Txn::delete("b")).await.unwrap();
    let before = [all(&*store, 0).await.unwrap(), all(&*store, 3).await.unwrap()];
    expect_test::expect!["a=2@2.4.2 l=1@5.5.1 | a=1@2.2.1 b=1@3.3.1"].assert_eq(&before.join(" | "));
    drop(store);

    let store = open(dir.path());
    assert_eq!([all(&*store, 0).await.unwrap(), all(&*store, 3).await.unwrap()], before);
    assert_eq!(store.lease_time_to_live(lease.id).await.unwrap().keys, ["l"]);
    // The history is there too: a watch resumes where it was.
    let mut watch = store
        .watch(WatchRequest { key: "b".into(), start_revision: 2, prev_kv: true, ..Default::default() })
        .await
        .unwrap();
    let events = watch.recv().await.unwrap().unwrap().events;
    assert_eq!(events.iter().map(|event| event.kv.mod_revision).collect::<Vec<_>>(), [3, 6]);
    assert_eq!(events[1].prev_kv.as_ref().unwrap().value, "1");
    store.lease_revoke(lease.id).await.unwrap();
    store.compact(5).await.unwrap();
    drop((store, watch));

    let store = open(dir.path());
    assert_eq!(all(&*store, 0).await.unwrap(), "a=2@2.4.2");
    assert!(matches!(all(&*store, 4).await, Err(Error::Compacted { compact_revision: 5 })));
    assert_eq!(store.revision().await.unwrap(), 7);
}

#[tokio::test]
async fn checkpoints_bound_the_files_and_keep_the_history() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut revision = 0;
    for round in 0..1500 {
        revision = put(&*store, &format!("k{}", round % 10), vec![b'a' + (round % 26) as u8; 1000]).await;
    }
    // A checkpoint is made behind the writers; wait for one that has seen this much.
    for _ in 0..500 {
        if files(dir.path(), "checkpoint-").len() == 1 && files(dir.path(), "log-").len() <= 4 {
            break;
        }
        put(&*store, "more", vec![b'x'; 1000]).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(files(dir.path(), "checkpoint-").len(), 1);
    assert!(files(dir.path(), "log-").len() <= 4, "{:?}", files(dir.path(), ""));
    assert!(files(dir.path(), "spare-").len() <= 2);
    let then = all(&*store, revision - 700).await.unwrap();
    let now = all(&*store, 0).await.unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(all(&*store, 0).await.unwrap(), now);
    assert_eq!(all(&*store, revision - 700).await.unwrap(), then, "the past is in the checkpoint");
    assert!(files(dir.path(), "temporary-").is_empty());
}

#[tokio::test]
async fn history_is_bounded_without_a_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let history = Limits { revisions: 100, ..Limits::default() };
    let options = Options { history, ..small() };
    let store = store::open_embedded_with(dir.path(), options.clone()).unwrap();
    for round in 0..300 {
        put(&*store, "a", round.to_string()).await;
    }
    assert!(matches!(all(&*store, 150).await, Err(Error::Compacted { .. })));
    assert_eq!(all(&*store, 202).await.unwrap(), "a=200@2.202.201");
    drop(store);
    let store = store::open_embedded_with(dir.path(), options).unwrap();
    assert!(matches!(all(&*store, 150).await, Err(Error::Compacted { .. })));
    assert_eq!(all(&*store, 202).await.unwrap(), "a=200@2.202.201");
}

#[tokio::test]
async fn a_slow_watcher_is_told_that_it_was_too_slow_and_holds_up_nobody() {
    let store = store::memory_with(Limits { revisions: 100, ..Limits::default() });
    let mut watch = store.watch(WatchRequest::prefix("a", 0)).await.unwrap();
    for round in 0..1000 {
        put(&*store, "a", round.to_string()).await;
    }
    assert!(matches!(watch.recv().await, Some(Err(Error::Compacted { .. }))));
    assert!(watch.recv().await.is_none());
}

#[tokio::test]
async fn a_second_process_is_told_who_holds_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(dir.path());
    let Err(error) = store::open_embedded(dir.path()) else { panic!("it opened") };
    assert_eq!(
        error.to_string(),
        format!(
            "the data directory {} is in use by process {}: stop that process or choose another data directory",
            dir.path().display(),
            std::process::id()
        )
    );
}

/// The log's only segment, with all that was written to it.
async fn one_segment(dir: &Path) -> PathBuf {
    let store = store::open_embedded(dir).unwrap();
    for round in 0..10 {
        put(&*store, "a", round.to_string()).await;
    }
    drop(store);
    let logs = files(dir, "log-");
    assert_eq!(logs.len(), 1);
    logs[0].clone()
}

#[tokio::test]
async fn a_torn_tail_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let log = one_segment(dir.path()).await;
    let bytes = std::fs::read(&log).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    // Somewhere inside the last record.
    let file = std::fs::OpenOptions::new().write(true).open(&log).unwrap();
    file.write_all_at(b"torn", end as u64 - 9).unwrap();
    let store = store::open_embedded(dir.path()).unwrap();
    assert_eq!(all(&*store, 0).await.unwrap(), "a=8@2.10.9");
    // What follows takes the torn record's place.
    put(&*store, "b", "1").await;
    drop(store);
    let store = store::open_embedded(dir.path()).unwrap();
    assert_eq!(all(&*store, 0).await.unwrap(), "a=8@2.10.9 b=1@11.11.1");
}

#[tokio::test]
async fn damage_before_the_tail_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { checkpoint_bytes: 1 << 30, ..small() };
    let store = store::open_embedded_with(dir.path(), options).unwrap();
    for _ in 0..3000 {
        put(&*store, "a", vec![b'x'; 1000]).await;
        if files(dir.path(), "log-").len() >= 2 {
            break;
        }
    }
    for _ in 0..5 {
        put(&*store, "a", vec![b'x'; 100]).await;
    }
    drop(store);
    let logs = files(dir.path(), "log-");
    let damage = |log: &Path, at: u64, bytes: &[u8]| {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(log).unwrap();
        let mut before = vec![0; bytes.len()];
        file.read_exact_at(&mut before, at).unwrap();
        file.write_all_at(bytes, at).unwrap();
        before
    };
    let refusal = |words: &str| {
        let Err(error) = store::open_embedded(dir.path()) else { panic!("it opened: {words}") };
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    let last = &logs[logs.len() - 1];
    let earlier = &logs[logs.len() - 2];
    for (log, at, bytes, words) in [
        (last, 4, b"damage".as_slice(), "its header is damaged"),
        (last, 200, b"damage", "is damaged and others follow it"),
        (earlier, 5000, b"damage", "is damaged and others follow it"),
        (earlier, 32, &[0; 60], "breaks off at byte 0 although"),
    ] {
        let before = damage(log, at, bytes);
        refusal(words);
        damage(log, at, &before);
    }
    std::fs::remove_file(earlier).unwrap();
    refusal("the file is missing");
}

#[tokio::test]
async fn damage_anywhere_never_panics_and_never_invents() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 8 << 10, checkpoint_bytes: 16 << 10, ..Options::default() };
    let store = store::open_embedded_with(dir.path(), options.clone()).unwrap();
    for round in 0..400 {
        put(&*store, &format!("k{}", round % 7), vec![b'v'; 100]).await;
    }
    drop(store);
    let whole: Vec<(PathBuf, Vec<u8>)> =
        files(dir.path(), "").into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    assert!(whole.iter().any(|(path, _)| path.to_str().unwrap().contains("checkpoint-")));
    let mut random = StdRng::seed_from_u64(3);
    for _ in 0..150 {
        for path in files(dir.path(), "") {
            std::fs::remove_file(path).unwrap();
        }
        for (path, bytes) in &whole {
            let mut bytes = bytes.clone();
            if random.random_bool(0.3) && !bytes.is_empty() {
                let at = random.random_range(0..bytes.len());
                bytes[at] ^= 1 << random.random_range(0..8);
            }
            if random.random_bool(0.05) {
                bytes.truncate(random.random_range(0..=bytes.len()));
            }
            std::fs::write(path, bytes).unwrap();
        }
        if let Ok(store) = store::open_embedded_with(dir.path(), options.clone()) {
            let revision = store.revision().await.unwrap();
            assert!(revision <= 401);
            let found = store.range(RangeRequest::prefix("k")).await.unwrap();
            assert!(found.kvs.iter().all(|kv| kv.value == vec![b'v'; 100] && kv.mod_revision <= revision));
        }
    }
}

/// A small file system in memory, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> SmallDisk {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(dir.path()).status();
        assert!(mounted.unwrap().success(), "tests run as root");
        SmallDisk(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_heals() {
    let disk = SmallDisk::mount("4m");
    let dir = disk.0.path().join("store");
    let store = open(&dir);
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    let mut written = 0;
    let error = loop {
        // Values that stay: neither a checkpoint nor a compaction makes room.
        match store.txn(Txn::put(format!("k{written:06}"), vec![b'x'; 10_000])).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000, "the disk is never full");
    };
    assert!(matches!(error, Error::NoSpace(_)), "{error}");
    let count = RangeRequest { count_only: true, ..RangeRequest::prefix("k") };
    assert_eq!(store.range(count.clone()).await.unwrap().count, written, "reads go on");
    std::fs::remove_file(&ballast).unwrap();
    put(&*store, "k9", "healed").await;
    drop(store);
    let store = open(&dir);
    assert_eq!(store.range(count).await.unwrap().count, written + 1);
}

/// The other half of the next test: writes until it is killed, telling each write that was answered.
#[test]
fn crashing_child() {
    let Some(dir) = std::env::var_os("STORE_CRASH_DIR") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async move {
        let store = open(Path::new(&dir));
        let start = store.revision().await.unwrap();
        let writers = (0..8).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 0.. {
                    let key = format!("w{writer}/{start}/{number}");
                    put(&*store, &key, vec![b'v'; 300]).await;
                    println!("acknowledged {key}");
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
    });
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(7);
    let mut acknowledged: Vec<String> = Vec::new();
    for _ in 0..10 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["crashing_child", "--exact", "--nocapture"])
            .env("STORE_CRASH_DIR", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let until = random.random_range(1..600);
        let told = |line: &str| line.trim().strip_prefix("acknowledged ").map(str::to_owned);
        let mut count = 0;
        while count < until {
            let mut line = String::new();
            assert!(output.read_line(&mut line).unwrap() > 0, "the child ended by itself");
            let told = told(&line);
            count += usize::from(told.is_some());
            acknowledged.extend(told);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        // The last line may be cut off in the middle.
        let whole = rest.rfind('\n').map_or("", |end| &rest[..end]);
        acknowledged.extend(whole.lines().filter_map(told));

        let store = open(dir.path());
        let found = store.range(RangeRequest { keys_only: true, ..RangeRequest::prefix("w") }).await.unwrap();
        let found: std::collections::HashSet<&[u8]> = found.kvs.iter().map(|kv| kv.key.as_ref()).collect();
        let lost: Vec<_> = acknowledged.iter().filter(|key| !found.contains(key.as_bytes())).collect();
        assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());
    }
    assert!(acknowledged.len() > 500, "{}", acknowledged.len());
}
