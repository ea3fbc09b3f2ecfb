//! A netlink socket: requests out, acknowledgements and dumps in. What the requests mean stands in the modules beside.
//!
//! Written here rather than taken from the rtnetlink crate because a CNI plugin is a short-lived process that makes a
//! dozen blocking calls: no runtime, no threads, nothing to start.

mod link;
mod message;

pub use link::{Link, PeerPlace};
pub(crate) use message::{Attributes, Builder};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::os::fd::{AsRawFd, OwnedFd};

/// The kernel sends dumps in messages of at most 32 KiB.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Most entries a dump is read to: beyond it, whoever filled the table has another problem.
const DUMP_ENTRIES_MAX: usize = 1 << 20;

const ANSWER_SECONDS_MAX: i64 = 60;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open a netlink socket")]
    Open(#[source] nix::Error),
    #[error("cannot talk to the kernel over netlink")]
    Talk(#[source] nix::Error),
    #[error("the kernel refused to {what}: {}", errno.desc())]
    Refused { what: &'static str, errno: nix::Error },
    #[error("the kernel's netlink answer to {0} is cut short")]
    Malformed(&'static str),
    #[error("a link vanished while it was set up")]
    Vanished,
}

impl Error {
    /// Whether the kernel's reason was `errno`.
    pub fn is(&self, wanted: nix::Error) -> bool {
        matches!(self, Error::Refused { errno, .. } if *errno == wanted)
    }
}

/// A netlink socket. It stays in the network namespace it was opened in, wherever it is used.
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket for links, addresses and routes in the calling thread's network namespace.
    pub fn route() -> Result<Socket, Error> {
        Socket::open(SockProtocol::NetlinkRoute)
    }

    pub(crate) fn netfilter() -> Result<Socket, Error> {
        Socket::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> Result<Socket, Error> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
            .map_err(Error::Open)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(Error::Open)?;
        // The kernel answers within the call; only a fault of ours would leave us waiting.
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_SECONDS_MAX, 0))
            .map_err(Error::Open)?;
        // Refusals without a copy of what was refused, which may be large.
        let (level, name, on) = (libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1i32);
        // SAFETY: the option's value is an int that lives through the call. An old kernel's refusal does no harm.
        unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                level,
                name,
                (&raw const on).cast(),
                size_of::<i32>() as libc::socklen_t,
            );
        }
        Ok(Socket { fd, sequence: 0, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// Sends a request and waits for the kernel's acknowledgement. `what` completes "refused to".
    pub(crate) fn request(&mut self, what: &'static str, request: Builder) -> Result<(), Error> {
        self.exchange(what, request, libc::NLM_F_ACK as u16, |_, _| {})
    }

    /// Sends a request and hands each message of the dump to `each`: its type and its payload.
    pub(crate) fn dump(
        &mut self,
        what: &'static str,
        request: Builder,
        each: impl FnMut(u16, &[u8]),
    ) -> Result<(), Error> {
        self.exchange(what, request, libc::NLM_F_DUMP as u16, each)
    }

    /// Sends a batch and waits until its message numbered `last` is acknowledged. Returns the first refusal: which
    /// message, and why.
    pub(crate) fn transaction(
        &mut self,
        batch: &[u8],
        last: u32,
    ) -> Result<Option<(u32, nix::Error)>, Error> {
        // The kernel takes a batch in one piece; the default buffer holds two thousand elements.
        setsockopt(&self.fd, sockopt::SndBufForce, &(2 * batch.len() + RECEIVE_BYTES))
            .map_err(Error::Talk)?;
        send(self.fd.as_raw_fd(), batch, MsgFlags::empty()).map_err(Error::Talk)?;
        let mut refused = None;
        loop {
            let size = match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(size) => size,
                Err(nix::Error::EINTR) => continue,
                Err(errno) => return Err(Error::Talk(errno)),
            };
            let mut rest = &self.buffer[..size];
            while rest.len() >= message::HEADER_BYTES {
                let malformed = || Error::Malformed("a transaction");
                let header = message::Header::read(rest).ok_or_else(malformed)?;
                let payload = rest.get(message::HEADER_BYTES..header.length).ok_or_else(malformed)?;
                rest = rest.get(message::align(header.length)..).unwrap_or(&[]);
                if i32::from(header.kind) != libc::NLMSG_ERROR {
                    continue;
                }
                let code = i32::from_ne_bytes(
                    payload.get(..4).and_then(|b| b.try_into().ok()).ok_or_else(malformed)?,
                );
                if code != 0 && refused.is_none() {
                    refused = Some((header.sequence, nix::Error::from_raw(-code)));
                }
                if header.sequence == last || (code != 0 && header.sequence == 0) {
                    return Ok(refused);
                }
            }
        }
    }

    fn exchange(
        &mut self,
        what: &'static str,
        request: Builder,
        flags: u16,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request.finish(flags, self.sequence);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty()).map_err(Error::Talk)?;
        let mut entries = 0;
        loop {
            let size = match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(size) => size,
                Err(nix::Error::EINTR) => continue,
                Err(errno) => return Err(Error::Talk(errno)),
            };
            let mut rest = &self.buffer[..size];
            while rest.len() >= message::HEADER_BYTES {
                let header = message::Header::read(rest).ok_or(Error::Malformed(what))?;
                let payload = rest.get(message::HEADER_BYTES..header.length).ok_or(Error::Malformed(what))?;
                rest = rest.get(message::align(header.length)..).unwrap_or(&[]);
                if header.sequence != self.sequence {
                    continue;
                }
                match i32::from(header.kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => {
                        let code = payload.get(..4).ok_or(Error::Malformed(what))?;
                        let code = i32::from_ne_bytes(code.try_into().expect("four bytes were taken"));
                        return match code {
                            0 => Ok(()),
                            code => Err(Error::Refused { what, errno: nix::Error::from_raw(-code) }),
                        };
                    }
                    _ => {
                        entries += 1;
                        if entries > DUMP_ENTRIES_MAX {
                            return Err(Error::Malformed(what));
                        }
                        each(header.kind, payload);
                    }
                }
            }
        }
    }
}
