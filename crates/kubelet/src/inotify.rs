//! Waiting for a change of files by the kernel's notice, so that nothing polls.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tokio::io::unix::AsyncFd;

/// One reader's notices, of any number of paths.
pub struct Inotify {
    fd: AsyncFd<OwnedFd>,
}

/// Something was written, made, moved or removed.
pub const CHANGES: u32 = libc::IN_MODIFY
    | libc::IN_CREATE
    | libc::IN_DELETE
    | libc::IN_MOVED_TO
    | libc::IN_MOVED_FROM
    | libc::IN_CLOSE_WRITE;

impl Inotify {
    pub fn new() -> std::io::Result<Self> {
        // SAFETY: the call takes flags and returns a fresh descriptor or -1.
        let raw = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if raw < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given this descriptor to us alone.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: the descriptor moves into the registration, which alone closes it.
        let fd = unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) };
        Ok(Inotify { fd: fd.map_err(|error| std::io::Error::other(error.to_string()))? })
    }

    pub fn watch(&self, path: &Path) -> std::io::Result<()> {
        let path = CString::new(path.as_os_str().as_bytes()).map_err(std::io::Error::other)?;
        // SAFETY: the descriptor is open and the string ends in NUL.
        let result =
            unsafe { libc::inotify_add_watch(self.fd.get_ref().as_raw_fd(), path.as_ptr(), CHANGES) };
        if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for at least one notice, and takes all there are.
    pub async fn changed(&self) -> std::io::Result<()> {
        let mut buffer = [0u8; 4096];
        loop {
            let mut ready = self.fd.readable().await?;
            let mut taken = false;
            loop {
                let fd = self.fd.get_ref().as_raw_fd();
                // SAFETY: the buffer is ours and as long as said.
                let count = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
                if count <= 0 {
                    break;
                }
                taken = true;
            }
            ready.clear_ready();
            if taken {
                return Ok(());
            }
        }
    }
}
