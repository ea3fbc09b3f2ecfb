//! Decides how a watch on etcd goes on through lost connections: from the last revision told.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch as signal};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::channel::Endpoints;
use super::proto::{self, watch_request::Request};
use super::{convert, proto::WatchCreateRequest};
use crate::error::Error;
use crate::hub::Watch;
use crate::types::{WatchRequest, WatchResponse};

/// How many responses may wait for the reader before etcd is made to wait.
const QUEUE: usize = 16;
/// How long a lost watch waits before the next attempt, at first and at most.
const BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

type Sent = mpsc::Sender<Result<WatchResponse, Error>>;

/// A watch's task.
struct Task {
    endpoints: Endpoints,
    request: WatchRequest,
    /// The first revision that has not been told; 0 until etcd said where "now" is.
    next: i64,
    /// What the reader knows already: a mark below it tells nothing.
    told: i64,
    out: Sent,
    progress: signal::Receiver<u64>,
    created: Option<oneshot::Sender<Result<i64, Error>>>,
}

/// Why a connection's part of a watch ended.
enum End {
    /// The connection was lost: go on with another.
    Lost(Error),
    /// The reader is gone, or etcd ended the watch for good and the reader was told.
    Over,
}

/// Starts a watch; answers when etcd has taken it on.
pub(super) async fn start(
    endpoints: Endpoints,
    request: WatchRequest,
    progress: signal::Receiver<u64>,
) -> Result<Watch, Error> {
    if request.key.is_empty() {
        return Err(Error::invalid("key is not provided"));
    }
    let (out, responses) = mpsc::channel(QUEUE);
    let (created, wait) = oneshot::channel();
    let next = request.start_revision.max(0);
    let task = Task { endpoints, request, next, told: 0, out, progress, created: Some(created) };
    tokio::spawn(task.run());
    let start = wait.await.unwrap_or(Err(Error::Closed))?;
    Ok(Watch::remote(responses, start - 1))
}

impl Task {
    async fn run(mut self) {
        let mut backoff = BACKOFF;
        loop {
            let before = self.next;
            let gone = self.gone();
            let end = tokio::select! {
                end = self.connection() => end,
                () = gone => return,
            };
            let error = match end {
                End::Over => return,
                End::Lost(error) => error,
            };
            // Whoever starts a watch is told that etcd does not answer; a watch that ran goes on.
            if let Some(created) = self.created.take() {
                let _ = created.send(Err(error));
                return;
            }
            tracing::debug!(%error, from = self.next, "a watch on etcd was lost and is taken up again");
            backoff = if self.next > before { BACKOFF } else { (backoff * 2).min(MAX_BACKOFF) };
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                () = self.gone() => return,
            }
        }
    }

    fn gone(&self) -> impl Future<Output = ()> + use<> {
        let out = self.out.clone();
        async move { out.closed().await }
    }

    async fn connection(&mut self) -> End {
        let (requests, outgoing) = mpsc::channel(4);
        let create = WatchCreateRequest {
            key: self.request.key.clone(),
            range_end: self.request.range_end.clone(),
            start_revision: self.next,
            progress_notify: self.request.progress,
            prev_kv: self.request.prev_kv,
        };
        let create = proto::WatchRequest { request: Some(Request::Create(create)) };
        if requests.send(create).await.is_err() {
            return End::Lost(Error::Closed);
        }
        let opened = self.endpoints.stream("/etcdserverpb.Watch/Watch", ReceiverStream::new(outgoing)).await;
        let (endpoint, mut responses): (usize, Streaming<proto::WatchResponse>) = match opened {
            Ok(opened) => opened,
            Err(error) => return End::Lost(error),
        };
        self.progress.mark_unchanged();
        loop {
            let response = tokio::select! {
                response = responses.message() => response,
                changed = self.progress.changed(), if self.request.progress => {
                    if changed.is_err() {
                        let _ = self.out.send(Err(Error::Closed)).await;
                        return End::Over;
                    }
                    let ask = proto::WatchRequest { request: Some(Request::Progress(proto::Nothing {})) };
                    // If earlier ones still wait to be sent, theirs will be answer enough.
                    let _ = requests.try_send(ask);
                    continue;
                }
            };
            let error = match response {
                Ok(Some(response)) => match self.tell(response).await {
                    Ok(()) => continue,
                    Err(end) => return end,
                },
                Ok(None) => Error::Unavailable("etcd ended the stream".into()),
                Err(status) => convert::error(&status),
            };
            self.endpoints.leave(endpoint);
            return End::Lost(error);
        }
    }

    /// Passes on one of etcd's responses.
    async fn tell(&mut self, response: proto::WatchResponse) -> Result<(), End> {
        let now = convert::revision(response.header.as_ref());
        if response.canceled || response.compact_revision > 0 {
            let error = match response.compact_revision {
                0 => Error::Unavailable(format!("etcd ended the watch: {}", response.cancel_reason)),
                compact_revision => Error::Compacted { compact_revision },
            };
            match self.created.take() {
                Some(created) => drop(created.send(Err(error))),
                None => drop(self.out.send(Err(error)).await),
            }
            return Err(End::Over);
        }
        if response.created {
            if self.next == 0 {
                self.next = now + 1;
            }
            if let Some(created) = self.created.take() {
                let _ = created.send(Ok(self.next));
            }
            return Ok(());
        }
        let events: Vec<_> = response.events.into_iter().filter_map(convert::event).collect();
        let (revision, progress) = match events.last() {
            Some(last) => (last.kv.mod_revision, false),
            None => (now, true),
        };
        // A mark that tells nothing new still answers whoever asked for it, but never goes back.
        let revision = revision.max(self.told);
        self.told = revision;
        self.next = self.next.max(revision + 1);
        if progress && !self.request.progress {
            return Ok(());
        }
        self.out.send(Ok(WatchResponse { revision, events, progress })).await.map_err(|_| End::Over)
    }
}
