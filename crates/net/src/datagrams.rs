//! UDP in batches: many datagrams per system call in, many out (recvmmsg, sendmmsg).

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

/// Datagrams of one batch.
pub const BATCH: usize = 64;
/// Longest datagram received whole: DNS queries, which have one question, stay far below.
pub const DATAGRAM_BYTES: usize = 2048;

/// Ends a waiting [`Batch::receive`] from another thread, once and for all.
#[derive(Debug)]
pub struct Stop {
    event: nix::sys::eventfd::EventFd,
}

impl Stop {
    pub fn new() -> io::Result<Stop> {
        Ok(Stop { event: nix::sys::eventfd::EventFd::new()? })
    }

    pub fn stop(&self) -> io::Result<()> {
        self.event.write(1)?;
        Ok(())
    }
}

/// A batch of datagrams with their senders; reused from one receive to the next.
pub struct Batch {
    buffers: Vec<[u8; DATAGRAM_BYTES]>,
    peers: Vec<libc::sockaddr_storage>,
    /// Length of each datagram received, and of each peer's address.
    received: Vec<(usize, libc::socklen_t)>,
}

impl Default for Batch {
    fn default() -> Self {
        // SAFETY: sockaddr_storage is plain data, for which zero is a value (AF_UNSPEC).
        let peer: libc::sockaddr_storage = unsafe { zeroed() };
        Batch {
            buffers: vec![[0; DATAGRAM_BYTES]; BATCH],
            peers: vec![peer; BATCH],
            received: Vec::with_capacity(BATCH),
        }
    }
}

impl Batch {
    /// Waits for datagrams and receives what is there, up to [`BATCH`]. Returns how many; 0 once stopped.
    pub fn receive(&mut self, socket: &UdpSocket, stop: &Stop) -> io::Result<usize> {
        loop {
            match self.receive_now(socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => return other,
            }
            use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
            let mut waiting = [
                PollFd::new(socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(stop.event.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut waiting, PollTimeout::NONE) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if waiting[1].any().unwrap_or(false) {
                return Ok(0);
            }
        }
    }

    fn receive_now(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.received.clear();
        // SAFETY: iovec and mmsghdr are plain data, for which zero is a value.
        let (mut parts, mut messages): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) =
            unsafe { (zeroed(), zeroed()) };
        for at in 0..BATCH {
            parts[at].iov_base = self.buffers[at].as_mut_ptr().cast();
            parts[at].iov_len = DATAGRAM_BYTES;
            let header = &mut messages[at].msg_hdr;
            header.msg_iov = &raw mut parts[at];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut self.peers[at]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        }
        // SAFETY: every pointer of the headers is to a buffer of self or of this frame with the length stated beside
        // it, and all outlive the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        let received = messages.iter().take(count as usize);
        self.received.extend(received.map(|message| (message.msg_len as usize, message.msg_hdr.msg_namelen)));
        Ok(count as usize)
    }

    /// The bytes of a datagram received; `number` is below what `receive` returned.
    pub fn bytes(&self, number: usize) -> &[u8] {
        &self.buffers[number][..self.received[number].0.min(DATAGRAM_BYTES)]
    }

    /// Who sent a datagram; `None` for addresses that are not of IP.
    pub fn peer(&self, number: usize) -> Option<SocketAddr> {
        let storage = &self.peers[number];
        match i32::from(storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says that the storage, which is large enough and aligned for all, holds this type.
                let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
                let ip = IpAddr::from(address.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddr::new(ip, u16::from_be(address.sin_port)))
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
                let ip = std::net::Ipv6Addr::from(address.sin6_addr.s6_addr);
                let port = u16::from_be(address.sin6_port);
                Some(std::net::SocketAddrV6::new(ip, port, 0, address.sin6_scope_id).into())
            }
            _ => None,
        }
    }

    /// Sends replies, each to the sender of the datagram it is numbered by. One that cannot be sent is left out: UDP
    /// promises no more.
    pub fn send(&self, socket: &UdpSocket, replies: &[(usize, Vec<u8>)]) {
        // SAFETY: as in receive_now.
        let (mut parts, mut messages): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) =
            unsafe { (zeroed(), zeroed()) };
        for (at, (number, bytes)) in replies.iter().take(BATCH).enumerate() {
            parts[at].iov_base = bytes.as_ptr().cast_mut().cast();
            parts[at].iov_len = bytes.len();
            let header = &mut messages[at].msg_hdr;
            header.msg_iov = &raw mut parts[at];
            header.msg_iovlen = 1;
            header.msg_name = (&raw const self.peers[*number]).cast_mut().cast();
            header.msg_namelen = self.received[*number].1;
        }
        let count = replies.len().min(BATCH);
        let mut sent = 0;
        while sent < count {
            // SAFETY: as in receive_now; the kernel only reads what is sent.
            let result = unsafe {
                let rest = messages.as_mut_ptr().add(sent);
                libc::sendmmsg(socket.as_raw_fd(), rest, (count - sent) as libc::c_uint, 0)
            };
            // The first of the rest was refused (its sender is gone, say): go on behind it.
            sent += if result > 0 { result as usize } else { 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_come_in_batches_and_are_answered_to_their_senders() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        let clients: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        for (number, client) in clients.iter().enumerate() {
            client.send_to(&[number as u8], to).unwrap();
        }
        let (mut batch, stop) = (Batch::default(), Stop::new().unwrap());
        assert_eq!(batch.receive(&socket, &stop).unwrap(), 3);
        let replies: Vec<_> = (0..3).map(|number| (number, vec![batch.bytes(number)[0] + 10])).collect();
        assert_eq!(batch.peer(1), clients[1].local_addr().ok());
        batch.send(&socket, &replies);
        for (number, client) in clients.iter().enumerate() {
            let mut buffer = [0; 8];
            assert_eq!(client.recv(&mut buffer).unwrap(), 1);
            assert_eq!(buffer[0], number as u8 + 10);
        }
        stop.stop().unwrap();
        assert_eq!(batch.receive(&socket, &stop).unwrap(), 0);
    }
}
