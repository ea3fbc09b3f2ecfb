//! Decides how many streams share one SPDY/3.1 connection.
//!
//! Flow is bounded by backpressure: a stream whose reader is slow makes the connection stop reading, and the
//! peer's writes wait in TCP. The windows of SPDY/3.1 are not kept, as Kubernetes' other implementation does
//! not announce them either: whoever waited for them would wait for ever.

mod dictionary;
mod frame;
mod headers;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};

pub use self::frame::Malformed;
use self::frame::{Decoder, Encoder, Frame, MAX_PIECE};
pub use self::headers::Headers;
use crate::Error;

/// How many pieces of data may wait for a stream's reader.
const INCOMING: usize = 8;
/// How many frames may wait to be written.
const OUTGOING: usize = 16;
/// How many streams a peer may have open: several for each of many forwarded connections.
const MAX_STREAMS: usize = 1000;
/// How long the peer may take to accept a stream: upstream's limit.
const ACCEPT: Duration = Duration::from_secs(30);

const REFUSED_STREAM: u32 = 3;
const CANCEL: u32 = 5;

type Table = Arc<Mutex<Streams>>;

fn lock(table: &Table) -> MutexGuard<'_, Streams> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Streams {
    open: HashMap<u32, Open>,
    closed: bool,
}

struct Open {
    incoming: mpsc::Sender<Incoming>,
    /// Told when the peer accepts or refuses the stream.
    accepted: Option<oneshot::Sender<()>>,
}

enum Incoming {
    Data(Bytes),
    End,
}

/// A connection. Dropping it ends its streams; what was written before is still sent.
pub struct Connection {
    table: Table,
    outgoing: mpsc::Sender<Frame>,
    next: AtomicU32,
    accepted: tokio::sync::Mutex<mpsc::Receiver<Stream>>,
    reader: tokio::task::AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.outgoing.try_send(Frame::GoAway { last: 0, status: 0 });
        // Ends the streams' readers too; what waits to be written still is.
        self.reader.abort();
        lock(&self.table).open.clear();
        lock(&self.table).closed = true;
    }
}

impl Connection {
    /// The side that asked for the connection: its streams have odd numbers.
    pub fn client<T: AsyncRead + AsyncWrite + Send + 'static>(io: T) -> Connection {
        Connection::new(io, 1)
    }

    /// The side that was asked.
    pub fn server<T: AsyncRead + AsyncWrite + Send + 'static>(io: T) -> Connection {
        Connection::new(io, 2)
    }

    fn new<T: AsyncRead + AsyncWrite + Send + 'static>(io: T, first: u32) -> Connection {
        let (read, write) = tokio::io::split(io);
        let table = Table::default();
        let (outgoing, frames) = mpsc::channel(OUTGOING);
        let (accept, accepted) = mpsc::channel(16);
        tokio::spawn(write_frames(write, frames));
        // Kubernetes' servers open no streams toward a client: there they are refused.
        let accept = first.is_multiple_of(2).then_some(accept);
        let reader =
            Reader { table: table.clone(), outgoing: outgoing.downgrade(), accept, parity: first % 2 };
        let reader = tokio::spawn(reader.run(read)).abort_handle();
        Connection { table, outgoing, next: AtomicU32::new(first), accepted: accepted.into(), reader }
    }

    /// Opens a stream and waits until the peer has accepted it.
    ///
    /// # Errors
    /// `Closed` if the connection is, `Refused` if the peer refuses or does not answer in time.
    pub async fn open(&self, headers: Headers) -> Result<Stream, Error> {
        let id = self.next.fetch_add(2, Ordering::Relaxed);
        let (incoming, data) = mpsc::channel(INCOMING);
        let (accepted, wait) = oneshot::channel();
        {
            let mut streams = lock(&self.table);
            if streams.closed {
                return Err(Error::Closed);
            }
            streams.open.insert(id, Open { incoming, accepted: Some(accepted) });
        }
        let stream = Stream::new(id, headers.clone(), data, self.outgoing.clone(), self.table.clone());
        let syn = Frame::SynStream { id, headers, fin: false, unidirectional: false };
        self.outgoing.send(syn).await.map_err(|_| Error::Closed)?;
        match tokio::time::timeout(ACCEPT, wait).await {
            Ok(Ok(())) => Ok(stream),
            Ok(Err(_)) => Err(Error::Refused("the stream was not accepted".into())),
            Err(_) => Err(Error::Refused("the stream was not accepted in time".into())),
        }
    }

    /// The next stream that the peer opened; `None` when the connection is closed.
    pub async fn accept(&self) -> Option<Stream> {
        self.accepted.lock().await.recv().await
    }
}

/// A stream: two directions that end each for itself.
pub struct Stream {
    /// What the stream was opened with.
    pub headers: Headers,
    reader: StreamReader,
    writer: StreamWriter,
}

/// The direction toward us.
pub struct StreamReader {
    id: u32,
    data: mpsc::Receiver<Incoming>,
    ended: bool,
    table: Table,
}

/// The direction away from us. Dropped without [`StreamWriter::finish`] the whole stream is reset, so that a
/// client that is lost is not taken for one that has said all it had to say.
pub struct StreamWriter {
    id: u32,
    outgoing: mpsc::Sender<Frame>,
    finished: bool,
}

impl Stream {
    fn new(
        id: u32,
        headers: Headers,
        data: mpsc::Receiver<Incoming>,
        outgoing: mpsc::Sender<Frame>,
        table: Table,
    ) -> Stream {
        let reader = StreamReader { id, data, ended: false, table };
        let writer = StreamWriter { id, outgoing, finished: false };
        Stream { headers, reader, writer }
    }

    /// Takes the two directions apart.
    #[must_use]
    pub fn split(self) -> (StreamReader, StreamWriter) {
        (self.reader, self.writer)
    }
}

impl StreamReader {
    /// The next piece of data, at most 32 KiB; `None` when the peer has ended its direction. May be cancelled.
    ///
    /// # Errors
    /// `Closed` if the stream was reset or the connection lost.
    pub async fn read(&mut self) -> Result<Option<Bytes>, Error> {
        if self.ended {
            return Ok(None);
        }
        match self.data.recv().await {
            Some(Incoming::Data(data)) => Ok(Some(data)),
            Some(Incoming::End) => {
                self.ended = true;
                Ok(None)
            }
            None => Err(Error::Closed),
        }
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        // What still comes for the stream is dropped.
        lock(&self.table).open.remove(&self.id);
    }
}

impl StreamWriter {
    /// Sends data; waits as long as the peer does not take it.
    ///
    /// # Errors
    /// `Closed` if the connection is.
    pub async fn write(&mut self, mut data: Bytes) -> Result<(), Error> {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(MAX_PIECE));
            let frame = Frame::Data { id: self.id, data: piece, fin: false };
            self.outgoing.send(frame).await.map_err(|_| Error::Closed)?;
        }
        Ok(())
    }

    /// Ends this direction.
    ///
    /// # Errors
    /// `Closed` if the connection is.
    pub async fn finish(mut self) -> Result<(), Error> {
        self.finished = true;
        let frame = Frame::Data { id: self.id, data: Bytes::new(), fin: true };
        self.outgoing.send(frame).await.map_err(|_| Error::Closed)
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        if !self.finished {
            let frame = Frame::RstStream { id: self.id, status: CANCEL };
            if let Err(mpsc::error::TrySendError::Full(frame)) = self.outgoing.try_send(frame)
                && let Ok(runtime) = tokio::runtime::Handle::try_current()
            {
                let outgoing = self.outgoing.clone();
                runtime.spawn(async move { outgoing.send(frame).await });
            }
        }
    }
}

async fn write_frames<T: AsyncWrite>(mut io: WriteHalf<T>, mut frames: mpsc::Receiver<Frame>) {
    let mut encoder = Encoder::new();
    while let Some(frame) = frames.recv().await {
        let head = match encoder.encode(&frame) {
            Ok(head) => head,
            Err(error) => {
                tracing::debug!(%error, "a frame could not be written");
                break;
            }
        };
        let mut written = io.write_all(&head).await;
        if let (Ok(()), Frame::Data { data, .. }) = (&written, &frame) {
            written = io.write_all(data).await;
        }
        if written.is_ok() && frames.is_empty() {
            written = io.flush().await;
        }
        if let Err(error) = written {
            tracing::debug!(%error, "a SPDY connection could not be written to");
            break;
        }
    }
    let _ = io.shutdown().await;
}

/// The task that reads a connection.
struct Reader {
    table: Table,
    /// Weak, so that the writing side ends when nobody else holds the connection.
    outgoing: mpsc::WeakSender<Frame>,
    accept: Option<mpsc::Sender<Stream>>,
    /// Whether our own numbers are odd (1) or even (0).
    parity: u32,
}

impl Reader {
    async fn run<T: AsyncRead>(self, mut io: ReadHalf<T>) {
        let mut decoder = Decoder::new();
        let mut bytes = BytesMut::new();
        'reading: loop {
            loop {
                match decoder.decode(&mut bytes) {
                    Ok(Some(frame)) => self.take(frame).await,
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(%error, "a SPDY connection broke the protocol");
                        break 'reading;
                    }
                }
            }
            bytes.reserve(MAX_PIECE);
            match io.read_buf(&mut bytes).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "a SPDY connection was lost");
                    break;
                }
            }
        }
        let mut streams = lock(&self.table);
        streams.closed = true;
        streams.open.clear();
    }

    async fn take(&self, frame: Frame) {
        match frame {
            Frame::SynStream { id, headers, fin, .. } => self.opened(id, headers, fin).await,
            Frame::SynReply { id, fin, .. } => {
                if let Some(accepted) =
                    lock(&self.table).open.get_mut(&id).and_then(|open| open.accepted.take())
                {
                    let _ = accepted.send(());
                }
                if fin {
                    self.deliver(id, Incoming::End).await;
                }
            }
            Frame::Data { id, data, fin } => {
                if !data.is_empty() {
                    self.deliver(id, Incoming::Data(data)).await;
                }
                if fin {
                    self.deliver(id, Incoming::End).await;
                }
            }
            Frame::Headers { id, fin: true, .. } => self.deliver(id, Incoming::End).await,
            Frame::RstStream { id, .. } => drop(lock(&self.table).open.remove(&id)),
            Frame::Ping(number) if number % 2 != self.parity => {
                if let Some(outgoing) = self.outgoing.upgrade() {
                    // A full queue means that the peer does not read; waiting for it could stall both sides.
                    let _ = outgoing.try_send(Frame::Ping(number));
                }
            }
            // No new streams are opened after a farewell, but those that are open go on.
            Frame::GoAway { .. } => lock(&self.table).closed = true,
            Frame::Ping(_) | Frame::Settings(_) | Frame::WindowUpdate { .. } | Frame::Headers { .. } => {}
        }
    }

    async fn deliver(&self, id: u32, incoming: Incoming) {
        let sender = lock(&self.table).open.get(&id).map(|open| open.incoming.clone());
        if let Some(sender) = sender {
            let _ = sender.send(incoming).await;
        }
    }

    async fn opened(&self, id: u32, headers: Headers, fin: bool) {
        let Some(outgoing) = self.outgoing.upgrade() else { return };
        let (incoming, data) = mpsc::channel(INCOMING);
        let accepted = {
            let mut streams = lock(&self.table);
            let fits = self.accept.is_some()
                && id % 2 != self.parity
                && streams.open.len() < MAX_STREAMS
                && !streams.closed
                && !streams.open.contains_key(&id);
            if fits {
                streams.open.insert(id, Open { incoming: incoming.clone(), accepted: None });
            }
            fits
        };
        let (true, Some(accept)) = (accepted, &self.accept) else {
            let _ = outgoing.try_send(Frame::RstStream { id, status: REFUSED_STREAM });
            return;
        };
        if fin {
            let _ = incoming.send(Incoming::End).await;
        }
        let reply = Frame::SynReply { id, headers: Headers::default(), fin: false };
        if outgoing.send(reply).await.is_ok() {
            let stream = Stream::new(id, headers, data, outgoing, self.table.clone());
            let _ = accept.send(stream).await;
        }
    }
}
