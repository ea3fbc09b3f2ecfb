//! The kubelet's HTTPS API: who may call is decided in `access`, what a call does here.
//!
//! HTTP/1.1 only: streams of exec, attach and port-forward are upgrades, which HTTP/2 does not have.

mod access;
mod streams;

use crate::{Context, logs, stats, tls};
use access::Access;
use api::core::v1::Pod;
use bytes::Bytes;
use client::Body;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use meta::ObjectKey;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1000;
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
const HEADER_MAX: Duration = Duration::from_secs(30);
/// Pieces of a log on their way to a client.
const PIECES_MAX: usize = 8;
/// Between tries to take the port, and how many: a predecessor may be about to let it go.
const BIND_RETRY: Duration = Duration::from_millis(200);
const BIND_TRIES: u32 = 25;

/// Begins to listen; the future serves until it is dropped.
pub async fn start(ctx: Arc<Context>) -> anyhow::Result<impl Future<Output = ()>> {
    use anyhow::Context as _;
    let address = (ctx.settings.address, ctx.settings.port);
    let acceptor = TlsAcceptor::from(Arc::new(tls::server(&ctx.settings)?));
    let mut tries = 0;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && tries < BIND_TRIES => {
                tries += 1;
                tokio::time::sleep(BIND_RETRY).await;
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot serve on {}:{}", address.0, address.1));
            }
        }
    };
    let access = Arc::new(Access::new(ctx.clone()));
    Ok(async move {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(BIND_RETRY).await;
                continue;
            };
            let (ctx, access, acceptor) = (ctx.clone(), access.clone(), acceptor.clone());
            tokio::spawn(async move {
                connection(ctx, access, acceptor, stream).await;
                drop(place);
            });
        }
    })
}

async fn connection(ctx: Arc<Context>, access: Arc<Access>, acceptor: TlsAcceptor, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await else { return };
    let peer = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = peer.and_then(|certificate| pki::Identity::from_der(certificate).ok()).map(Arc::new);
    let token = ctx.token.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (ctx, access, peer) = (ctx.clone(), access.clone(), peer.clone());
        async move { Ok::<_, std::convert::Infallible>(answer(ctx, &access, peer.as_deref(), request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        _ = served => {}
        () = token.cancelled() => {}
    }
}

async fn answer(
    ctx: Arc<Context>,
    access: &Access,
    peer: Option<&pki::Identity>,
    request: Request<Incoming>,
) -> Response<Body> {
    if let Err(refused) = access.check(peer, request.method(), request.uri().path(), request.headers()).await
    {
        return refused;
    }
    let path = request.uri().path().to_string();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    match parts.as_slice() {
        ["healthz" | "healthz/ping" | "healthz/log" | "healthz/syncloop"] | ["healthz", _] if reads => {
            text(StatusCode::OK, "ok")
        }
        ["pods" | "runningpods"] if reads => pods(&ctx),
        ["configz"] if reads => json_answer(&configz(&ctx)),
        ["metrics"] if reads => text(StatusCode::OK, &stats::metrics(&ctx)),
        ["metrics", "resource"] if reads => text(StatusCode::OK, &stats::resource_metrics(&ctx).await),
        ["metrics", "cadvisor" | "probes"] if reads => text(StatusCode::OK, ""),
        ["stats", "summary"] if reads => json_answer(&stats::summary(&ctx).await),
        ["containerLogs", namespace, pod, container] if reads => {
            container_logs(ctx, &ObjectKey::new(*namespace, *pod), container, &request).await
        }
        ["exec" | "attach" | "portForward" | "run", ..] => streams::answer(ctx, &parts, request).await,
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

pub(crate) fn text(status: StatusCode, words: &str) -> Response<Body> {
    let mut response = Response::new(client::full(words.to_string()));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn json_answer(value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(client::full(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// The pods of this node as a PodList.
fn pods(ctx: &Context) -> Response<Body> {
    let items: Vec<serde_json::Value> = ctx.pods().iter().map(|pod| api::codec::to_value(&**pod)).collect();
    json_answer(&json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
}

fn configz(ctx: &Context) -> serde_json::Value {
    let settings = &ctx.settings;
    json!({ "kubeletconfig": {
        "address": settings.address,
        "port": settings.port,
        "staticPodPath": settings.static_pods,
        "clusterDomain": settings.cluster_domain,
        "clusterDNS": settings.cluster_dns,
        "maxPods": settings.max_pods,
        "cgroupRoot": if settings.cgroup_root.is_empty() { "/" } else { &settings.cgroup_root },
        "cgroupDriver": "cgroupfs",
        "resolvConf": settings.resolv_conf,
        "containerLogMaxSize": settings.log_max_bytes.to_string(),
        "containerLogMaxFiles": settings.log_max_files,
        "nodeLeaseDurationSeconds": settings.lease_seconds,
        "podLogsDir": settings.pod_logs_dir,
        "authentication": { "anonymous": { "enabled": settings.anonymous }, "webhook": { "enabled": true } },
        "authorization": { "mode": if settings.always_allow { "AlwaysAllow" } else { "Webhook" } },
    }})
}

/// A query's values, the last of each name.
pub(crate) fn query(request: &Request<Incoming>) -> BTreeMap<String, Vec<String>> {
    let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in request.uri().query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        map.entry(decode(name)).or_default().push(decode(value));
    }
    map
}

/// Percent-decoding, `+` for a space.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        match (bytes[at], hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn log_query(request: &Request<Incoming>) -> Result<(logs::Query, bool), String> {
    let map = query(request);
    let get = |name: &str| {
        map.get(name).and_then(|values| values.last()).map(String::as_str).filter(|value| !value.is_empty())
    };
    let flag = |name: &str| get(name).is_some_and(|value| value == "true" || value == "1");
    let number = |name: &str| {
        get(name)
            .map(|value| value.parse::<u64>().map_err(|_| format!("invalid value {value:?} for {name}")))
            .transpose()
    };
    let mut since = None;
    if let Some(seconds) = number("sinceSeconds")? {
        let back = jiff::SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX / 4));
        since = jiff::Timestamp::now().checked_sub(back).ok();
    }
    if let Some(time) = get("sinceTime") {
        since = Some(time.parse().map_err(|_| format!("invalid value {time:?} for sinceTime"))?);
    }
    let stream = get("stream").filter(|stream| *stream != "All").map(str::to_lowercase);
    let query = logs::Query {
        follow: flag("follow"),
        timestamps: flag("timestamps"),
        tail: number("tailLines")?.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
        since,
        limit_bytes: number("limitBytes")?,
        stream,
    };
    Ok((query, flag("previous")))
}

async fn container_logs(
    ctx: Arc<Context>,
    key: &ObjectKey,
    container: &str,
    request: &Request<Incoming>,
) -> Response<Body> {
    let (query, previous) = match log_query(request) {
        Ok(parsed) => parsed,
        Err(words) => return text(StatusCode::UNPROCESSABLE_ENTITY, &words),
    };
    let Some(pod) = find_pod(&ctx, key) else {
        let words = format!("pod {:?} does not exist\n", format!("{}_{}", key.name, key.namespace));
        return text(StatusCode::NOT_FOUND, &words);
    };
    let (path, id) = match log_path(&ctx, &pod, container, previous).await {
        Ok(found) => found,
        Err(words) => return text(StatusCode::BAD_REQUEST, &words),
    };
    let (sender, mut receiver) = mpsc::channel::<Bytes>(PIECES_MAX);
    tokio::spawn(async move {
        let running = || {
            let (ctx, id) = (ctx.clone(), id.clone());
            async move { streams::is_running(&ctx, &id).await }
        };
        logs::send(path, query, sender, running).await;
    });
    let stream = async_stream(move |context| receiver.poll_recv(context));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(stream)));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    response
}

/// A stream of frames from a channel's poll function.
fn async_stream(
    mut poll: impl FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<Bytes>>,
) -> impl futures::Stream<Item = Result<Frame<Bytes>, client::Error>> {
    futures::stream::poll_fn(move |context| {
        poll(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    })
}

/// The pod of this name, as the API has it.
pub(crate) fn find_pod(ctx: &Context, key: &ObjectKey) -> Option<Arc<Pod>> {
    let own = ctx
        .pods()
        .into_iter()
        .find(|pod| pod.metadata.namespace == key.namespace && pod.metadata.name == key.name);
    own.or_else(|| ctx.views.view().get::<Pod>(key))
}

/// The log file of the newest start of a container, or of the one before; and the container's id.
async fn log_path(
    ctx: &Context,
    pod: &Pod,
    container: &str,
    previous: bool,
) -> Result<(PathBuf, String), String> {
    let observed = crate::observe::pod(ctx, &pod.metadata.uid).await.map_err(|error| error.to_string())?;
    let mut seen = observed.containers.iter().filter(|one| one.name == container);
    let name = &pod.metadata.name;
    let found = if previous {
        // The status says which one came before: for a container that waits to be started again, the one just dead.
        let status = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
        let told =
            status.filter(|one| one.name == container).find_map(|one| one.last_state.terminated.as_ref());
        let told = told.and_then(|end| end.container_id.rsplit('/').next()).unwrap_or_default();
        let dead = seen.clone().find(|one| one.id == told);
        dead.or_else(|| seen.skip(1).find(|one| one.state == pods::State::Exited))
            .ok_or_else(|| format!("previous terminated container {container:?} in pod {name:?} not found"))?
    } else {
        match seen.next() {
            Some(newest) => newest,
            None if pods::spec::find(&pod.spec, container).is_none() => {
                return Err(format!("container {container} is not valid for pod {name}"));
            }
            None => {
                let status = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
                let waiting =
                    status.filter(|one| one.name == container).find_map(|one| one.state.waiting.as_ref());
                let why = waiting.map_or("ContainerCreating", |waiting| waiting.reason.as_str());
                let kind = if why == "ErrImagePull" || why == "ImagePullBackOff" {
                    "trying and failing to pull image".to_string()
                } else {
                    why.to_string()
                };
                return Err(format!("container {container:?} in pod {name:?} is waiting to start: {kind}"));
            }
        }
    };
    let folder = crate::sandbox::log_dir(&ctx.settings, pod).join(container);
    Ok((folder.join(format!("{}.log", found.attempt)), found.id.clone()))
}
