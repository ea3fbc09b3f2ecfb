//! Decides that every engine behaves the same: the suite of behaviours over each.

mod suite;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    suite::run(|| async { store::memory() }).await;
}
