//! Entering a network namespace: always in a thread of its own, so that no other code ever runs in the wrong one.

use std::fs::File;
use std::io;
use std::path::Path;

/// Opens a namespace by path, such as `/proc/1/ns/net` or a file under `/run/netns`.
pub fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Runs `work` inside a network namespace and returns what it returned. Sockets that it opens stay in the namespace.
///
/// A panic of `work` is passed on.
pub fn within<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            Ok(work())
        })?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Moves the calling thread into a new network namespace, which lives as long as something uses it. For threads that
/// do nothing else: there is no way back.
pub fn leave_for_new() -> io::Result<()> {
    Ok(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?)
}
