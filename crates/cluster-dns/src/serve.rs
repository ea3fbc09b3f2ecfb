//! The sockets: UDP in batches on a thread of its own, TCP and readiness beside it.

use crate::resolver::{Resolver, Step, fail};
use net::datagrams::{BATCH, Batch, Stop};
use services::dns::Transport;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

/// Queries that wait for the host's resolvers at once, per address.
const WAITING_MAX: usize = 4096;
const CONNECTIONS_MAX: usize = 256;
/// How long a TCP connection may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// Longest head of an HTTP request for readiness.
const HEAD_BYTES_MAX: usize = 4096;

/// Answers UDP queries until the token is cancelled.
pub fn udp(address: SocketAddr, resolver: Arc<Resolver>, token: CancellationToken) -> std::io::Result<()> {
    let socket = Arc::new(UdpSocket::bind(address)?);
    let stop = Arc::new(Stop::new()?);
    let runtime = tokio::runtime::Handle::current();
    let stopped = stop.clone();
    std::thread::Builder::new().name("dns-udp".into()).spawn(move || {
        let waiting = Arc::new(Semaphore::new(WAITING_MAX));
        let mut batch = Batch::default();
        let mut replies = Vec::with_capacity(BATCH);
        let mut spare: Vec<Vec<u8>> = Vec::with_capacity(BATCH);
        loop {
            let count = match batch.receive(&socket, &stopped) {
                Ok(0) => return,
                Ok(count) => count,
                // An ICMP error for a former reply; the socket is as good as before.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => continue,
                Err(error) => {
                    error!(%address, %error, "Stopped answering DNS queries");
                    return;
                }
            };
            let now = Instant::now();
            for number in 0..count {
                let query = batch.bytes(number);
                let mut out = spare.pop().unwrap_or_else(|| Vec::with_capacity(1500));
                match resolver.answer(query, Transport::Udp, &mut out, now) {
                    Step::Answer => replies.push((number, out)),
                    Step::Silence => spare.push(out),
                    Step::Ask(asked) => {
                        let permit = waiting.clone().try_acquire_owned();
                        let (Some(peer), Ok(permit)) = (batch.peer(number), permit) else {
                            fail(query, &mut out);
                            replies.push((number, out));
                            continue;
                        };
                        let (query, resolver, socket) = (query.to_vec(), resolver.clone(), socket.clone());
                        runtime.spawn(async move {
                            let _permit = permit;
                            resolver.ask(&query, &asked, Transport::Udp, &mut out).await;
                            if let Err(error) = socket.send_to(&out, peer) {
                                debug!(%peer, %error, "Could not send an answer");
                            }
                        });
                    }
                }
            }
            batch.send(&socket, &replies);
            spare.extend(replies.drain(..).map(|(_, bytes)| bytes));
            spare.truncate(BATCH);
        }
    })?;
    tokio::spawn(async move {
        token.cancelled().await;
        if let Err(error) = stop.stop() {
            error!(%error, "Could not stop answering DNS queries");
        }
    });
    Ok(())
}

/// Runs `each` for every connection, as many at once as there is room for, until the token is cancelled.
fn accept<F: Future<Output = std::io::Result<()>> + Send + 'static>(
    listener: TcpListener,
    token: CancellationToken,
    each: impl Fn(TcpStream) -> F + Send + 'static,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::spawn(async move {
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = token.cancelled() => return,
            };
            let Ok((stream, peer)) = accepted else {
                // Out of descriptors: others have to give some back first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (work, token) = (each(stream), token.clone());
            tokio::spawn(async move {
                let _permit = permit;
                tokio::select! {
                    result = work => if let Err(error) = result {
                        debug!(%peer, %error, "Ended a connection");
                    },
                    () = token.cancelled() => {}
                }
            });
        }
    });
}

/// Answers TCP queries until the token is cancelled.
pub async fn tcp(
    address: SocketAddr,
    resolver: Arc<Resolver>,
    token: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    accept(listener, token, move |stream| converse(stream, resolver.clone()));
    Ok(())
}

/// One query after the other on a connection (RFC 7766), until the client closes or falls silent.
async fn converse(mut stream: TcpStream, resolver: Arc<Resolver>) -> std::io::Result<()> {
    let mut out = Vec::new();
    loop {
        let received = tokio::time::timeout(IDLE, async {
            let size = stream.read_u16().await?;
            let mut query = vec![0; usize::from(size)];
            stream.read_exact(&mut query).await?;
            Ok::<_, std::io::Error>(query)
        });
        let query = match received.await {
            Err(_) => return Ok(()),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(received) => received?,
        };
        match resolver.answer(&query, Transport::Tcp, &mut out, Instant::now()) {
            Step::Answer => {}
            Step::Silence => return Ok(()),
            Step::Ask(asked) => resolver.ask(&query, &asked, Transport::Tcp, &mut out).await,
        }
        let mut framed = (out.len() as u16).to_be_bytes().to_vec();
        framed.extend_from_slice(&out);
        tokio::time::timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

/// Tells over HTTP whether the server lives (`/health`) and is ready (any other path).
pub async fn ready(
    address: SocketAddr,
    resolver: Arc<Resolver>,
    token: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    accept(listener, token, move |stream| tell(stream, resolver.clone()));
    Ok(())
}

async fn tell(mut stream: TcpStream, resolver: Arc<Resolver>) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 512];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        match tokio::time::timeout(IDLE, stream.read(&mut buffer)).await?? {
            0 => return Ok(()),
            size => head.extend_from_slice(&buffer[..size]),
        }
    }
    let lives = head.starts_with(b"GET /health");
    let (status, text) =
        if lives || resolver.ready() { ("200 OK", "OK") } else { ("503 Service Unavailable", "") };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    tokio::time::timeout(IDLE, stream.write_all(answer.as_bytes())).await??;
    Ok(())
}
