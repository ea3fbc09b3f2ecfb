//! Decides nothing: measures how many durable transactions a second the embedded engine makes, beside the rate
//! at which the disk syncs. `cargo run --release -p store --example durable [DIRECTORY] [SECONDS]`

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use store::{Compare, Op, Store, Txn};

/// The size of each value.
const VALUE: usize = 1024;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().unwrap_or_else(|| ".".to_owned());
    let seconds = arguments.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(3);
    let length = Duration::from_secs(seconds);
    let dir = Path::new(&parent).join(format!("durable-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the directory can be made");
    for size in [1 << 10, 4 << 10, 64 << 10] {
        let (rate, p50) = syncs(&dir, size, length);
        println!("overwrite {:>2} KiB + fdatasync   {rate:>9.0}/s  p50 {p50:>6.0} us", size >> 10);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    for writers in [1, 8, 64, 256, 1024] {
        let store = store::open_embedded(dir.join(format!("store-{writers}"))).expect("a new store");
        let result = runtime.block_on(load(store, writers, length));
        println!(
            "{writers:>4} writers, 1 KiB txns     {:>9.0}/s  p50 {:>6.0} us  p99 {:>6.0} us  cpu {:>5.1} us each",
            result.rate, result.p50, result.p99, result.cpu
        );
    }
    let begun = Instant::now();
    let store = store::open_embedded(dir.join("store-256")).expect("the store opens again");
    let revision = runtime.block_on(store.revision()).expect("a revision");
    println!("reopened revision {revision} in {:.0} ms", begun.elapsed().as_secs_f64() * 1e3);
    drop(store);
    std::fs::remove_dir_all(&dir).expect("the directory can be removed");
}

/// Overwrites a preallocated file in steps of `size`, syncing each.
fn syncs(dir: &Path, size: usize, length: Duration) -> (f64, f64) {
    let path = dir.join("syncs");
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).expect("a file");
    file.write_all_at(&vec![0; 16 << 20], 0).expect("room");
    file.sync_all().expect("a sync");
    let data = vec![7; size];
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < length {
        let start = Instant::now();
        let at = (times.len() * size) % (16 << 20);
        file.write_all_at(&data, at as u64).and_then(|()| file.sync_data()).expect("a write");
        times.push(start.elapsed());
    }
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    times.sort_unstable();
    (rate, micros(times[times.len() / 2]))
}

struct Measured {
    rate: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
}

/// Creates and updates keys as the API server does: compared, then put.
async fn load(store: Arc<dyn Store>, writers: usize, length: Duration) -> Measured {
    let (begun, cpu) = (Instant::now(), cpu());
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                let mut number = 0;
                while begun.elapsed() < length {
                    let key = format!("/registry/configmaps/bench/w{writer}-{}", number % 1000);
                    let value = vec![b'v'; VALUE];
                    let compares =
                        if number < 1000 { vec![Compare::absent(key.clone())] } else { Vec::new() };
                    let txn = Txn {
                        compares,
                        success: vec![Op::put(key.clone(), value)],
                        failure: vec![Op::get(key)],
                    };
                    let start = Instant::now();
                    assert!(store.txn(txn).await.expect("the write is made").succeeded);
                    times.push(start.elapsed());
                    number += 1;
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("the writer ends"));
    }
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    let cpu = (self::cpu() - cpu) / times.len() as f64;
    times.sort_unstable();
    let at = |part: usize| micros(times[(times.len() * part / 100).min(times.len() - 1)]);
    Measured { rate, p50: at(50), p99: at(99), cpu }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// The processor time that this process has used, in microseconds.
fn cpu() -> f64 {
    // SAFETY: all zeros is a valid rusage, and getrusage fills in the one it is given.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let time = |value: libc::timeval| value.tv_sec as f64 * 1e6 + value.tv_usec as f64;
    time(usage.ru_utime) + time(usage.ru_stime)
}
