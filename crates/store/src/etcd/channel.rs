//! Decides how etcd's endpoints are called: over TLS or not, which one, what is tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use tokio_stream::Stream;
use tonic::client::Grpc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, ConnectError, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::convert;
use crate::error::Error;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long one call may take.
const CALL: Duration = Duration::from_secs(30);
/// Pings that tell a dead connection, at upstream's pace.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer taken, as upstream's client: what etcd sends is bounded by what was asked for.
const MAX_ANSWER: usize = i32::MAX as usize;
/// The largest request sent: etcd's client's default.
const MAX_REQUEST: usize = 2 << 20;

/// What authenticates etcd to the store, and the store to etcd.
#[derive(Clone)]
pub struct EtcdTls {
    /// Certificates of the authorities that etcd's certificate is checked against, in PEM.
    pub ca_pem: Vec<u8>,
    /// The store's own certificate and key, in PEM, if etcd asks for one.
    pub identity_pem: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for EtcdTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EtcdTls")
            .field("identity", &self.identity_pem.is_some())
            .finish_non_exhaustive()
    }
}

/// The endpoints of a cluster: one is used until it fails, then the next.
#[derive(Clone)]
pub(super) struct Endpoints {
    channels: Arc<[Channel]>,
    current: Arc<AtomicUsize>,
}

impl Endpoints {
    /// Takes note of the endpoints; connections are made when they are needed. Must be called within a tokio
    /// runtime.
    pub(super) fn new(endpoints: &[String], tls: Option<&EtcdTls>) -> Result<Endpoints, Error> {
        if endpoints.is_empty() {
            return Err(Error::invalid("no etcd endpoint is given"));
        }
        let channels =
            endpoints.iter().map(|endpoint| channel(endpoint, tls)).collect::<Result<Vec<_>, _>>()?;
        Ok(Endpoints { channels: channels.into(), current: Arc::default() })
    }

    fn pick(&self) -> (usize, Channel) {
        let at = self.current.load(Ordering::Relaxed) % self.channels.len();
        (at, self.channels[at].clone())
    }

    /// Moves on from an endpoint that failed, unless someone else has.
    pub(super) fn leave(&self, at: usize) {
        let _ = self.current.compare_exchange(
            at,
            (at + 1) % self.channels.len(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// Calls what may be repeated: every endpoint is tried.
    pub(super) async fn read<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Error>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.call(path, request, |_| true).await
    }

    /// Calls what must not be repeated: another endpoint is tried only if this one was not reached.
    pub(super) async fn write<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Error>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.call(path, request, never_sent).await
    }

    /// Calls every endpoint with the same request.
    pub(super) async fn every<Q, A>(&self, path: &'static str, request: Q) -> Result<Vec<A>, Error>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut answers = Vec::new();
        for channel in self.channels.iter() {
            let one = Endpoints { channels: Arc::new([channel.clone()]), current: Arc::default() };
            answers.push(one.read(path, request.clone()).await?);
        }
        Ok(answers)
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q, again: fn(&Status) -> bool) -> Result<A, Error>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        if request.encoded_len() > MAX_REQUEST {
            return Err(Error::RequestTooLarge);
        }
        let mut left = self.channels.len();
        loop {
            let (at, channel) = self.pick();
            let mut message = Request::new(request.clone());
            message.set_timeout(CALL);
            let answer = async {
                let mut grpc = ready(channel).await?;
                grpc.unary(message, PathAndQuery::from_static(path), ProstCodec::<Q, A>::default()).await
            };
            let status = match tokio::time::timeout(CALL, answer).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer came in time"),
            };
            left -= 1;
            if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded) {
                self.leave(at);
                if left > 0 && again(&status) {
                    continue;
                }
            }
            return Err(convert::error(&status));
        }
    }

    /// Opens a stream in both directions; also answers which endpoint it goes to.
    pub(super) async fn stream<Q, A>(
        &self,
        path: &'static str,
        requests: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<(usize, Streaming<A>), Error>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let (at, channel) = self.pick();
        let open = async {
            let mut grpc = ready(channel).await?;
            let codec = ProstCodec::<Q, A>::default();
            grpc.streaming(Request::new(requests), PathAndQuery::from_static(path), codec).await
        };
        match tokio::time::timeout(CALL, open).await {
            Ok(Ok(answers)) => Ok((at, answers.into_inner())),
            Ok(Err(status)) => {
                self.leave(at);
                Err(convert::error(&status))
            }
            Err(_) => {
                self.leave(at);
                Err(Error::Unavailable("etcd did not open a stream in time".into()))
            }
        }
    }

    /// Sends one message on a stream and waits for one answer.
    pub(super) async fn first_of_stream<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Error>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let (_, mut answers) = self.stream(path, tokio_stream::once(request)).await?;
        match tokio::time::timeout(CALL, answers.message()).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => Err(Error::Unavailable("etcd ended a stream without an answer".into())),
            Ok(Err(status)) => Err(convert::error(&status)),
            Err(_) => Err(Error::Unavailable("etcd did not answer in time".into())),
        }
    }
}

async fn ready(channel: Channel) -> Result<Grpc<Channel>, Status> {
    let mut grpc =
        Grpc::new(channel).max_decoding_message_size(MAX_ANSWER).max_encoding_message_size(MAX_REQUEST);
    grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    Ok(grpc)
}

/// Whether the request cannot have reached etcd: no connection was made.
fn never_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

fn channel(endpoint: &str, tls: Option<&EtcdTls>) -> Result<Channel, Error> {
    let invalid = |error: &dyn std::fmt::Display| {
        Error::InvalidArgument(format!("the etcd endpoint {endpoint} cannot be used: {error}"))
    };
    let with_scheme =
        if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
    let mut built = Endpoint::from_shared(with_scheme.clone())
        .map_err(|error| invalid(&error))?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    if with_scheme.starts_with("https://") {
        let tls = tls.ok_or_else(|| invalid(&"https needs the certificate of etcd's authority"))?;
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca_pem));
        if let Some((certificate, key)) = &tls.identity_pem {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        built = built.tls_config(config).map_err(|error| invalid(&error))?;
    } else if !with_scheme.starts_with("http://") {
        return Err(invalid(&"only http:// and https:// are known"));
    }
    Ok(built.connect_lazy())
}
