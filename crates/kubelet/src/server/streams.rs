//! exec, attach, port-forward and run: the runtime gives an address on its own streaming server, and the caller's
//! upgrade is passed through to it byte by byte, whatever protocol the two speak.

use super::{find_pod, query, text};
use crate::Context;
use bytes::Bytes;
use client::Body;
use container_runtime::cri::messages::*;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use meta::ObjectKey;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// What a streaming server may say instead of upgrading.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
const DIAL_MAX: Duration = Duration::from_secs(10);

type Query = BTreeMap<String, Vec<String>>;

fn flag(query: &Query, names: &[&str]) -> bool {
    names.iter().filter_map(|name| query.get(*name)).flatten().any(|value| value == "1" || value == "true")
}

pub async fn answer(ctx: Arc<Context>, parts: &[&str], request: Request<Incoming>) -> Response<Body> {
    let query = query(&request);
    let result = match parts {
        ["run", namespace, pod, container] => {
            return run(&ctx, &ObjectKey::new(*namespace, *pod), container, &query).await;
        }
        ["exec", namespace, pod, rest @ ..] if !rest.is_empty() => {
            exec_url(&ctx, &ObjectKey::new(*namespace, *pod), rest, &query).await
        }
        ["attach", namespace, pod, rest @ ..] if !rest.is_empty() => {
            attach_url(&ctx, &ObjectKey::new(*namespace, *pod), rest, &query).await
        }
        ["portForward", namespace, pod, ..] => {
            port_forward_url(&ctx, &ObjectKey::new(*namespace, *pod), &query).await
        }
        _ => return text(StatusCode::NOT_FOUND, "404 page not found\n"),
    };
    match result {
        Ok(url) => pass_through(&url, request).await,
        Err((status, words)) => text(status, &words),
    }
}

type Refusal = (StatusCode, String);

fn internal(error: &container_runtime::Error) -> Refusal {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

/// The id of the newest container of this name; `/exec/<ns>/<pod>/<uid>/<container>` has the uid between.
async fn container_id(ctx: &Context, key: &ObjectKey, rest: &[&str]) -> Result<String, Refusal> {
    let not_found = || (StatusCode::NOT_FOUND, format!("pod does not exist: {}_{}", key.name, key.namespace));
    let pod = find_pod(ctx, key).ok_or_else(not_found)?;
    let name = rest.last().copied().unwrap_or_default();
    if rest.len() > 1 && rest[0] != pod.metadata.uid {
        return Err(not_found());
    }
    let observed = crate::observe::pod(ctx, &pod.metadata.uid).await.map_err(|error| internal(&error))?;
    let found = observed.newest(name).filter(|one| one.state == pods::State::Running);
    found
        .map(|one| one.id.clone())
        .ok_or_else(|| (StatusCode::NOT_FOUND, format!("container not found ({name:?})")))
}

async fn exec_url(ctx: &Context, key: &ObjectKey, rest: &[&str], query: &Query) -> Result<String, Refusal> {
    let container_id = container_id(ctx, key, rest).await?;
    let tty = flag(query, &["tty"]);
    let request = ExecRequest {
        container_id,
        cmd: query.get("command").cloned().unwrap_or_default(),
        tty,
        stdin: flag(query, &["input", "stdin"]),
        stdout: flag(query, &["output", "stdout"]),
        // A terminal has one output.
        stderr: flag(query, &["error", "stderr"]) && !tty,
    };
    if !request.stdin && !request.stdout && !request.stderr {
        let words = "you must specify at least 1 of stdin, stdout, stderr";
        return Err((StatusCode::BAD_REQUEST, words.into()));
    }
    ctx.runtime.exec(request).await.map(|answer| answer.url).map_err(|error| internal(&error))
}

async fn attach_url(ctx: &Context, key: &ObjectKey, rest: &[&str], query: &Query) -> Result<String, Refusal> {
    let container_id = container_id(ctx, key, rest).await?;
    let pod = find_pod(ctx, key);
    // Whether it has a terminal is the container's nature, not the caller's wish.
    let tty = pod
        .and_then(|pod| pods::spec::find(&pod.spec, rest.last().copied().unwrap_or_default()))
        .is_some_and(|one| one.tty);
    let request = AttachRequest {
        container_id,
        stdin: flag(query, &["input", "stdin"]),
        tty,
        stdout: flag(query, &["output", "stdout"]),
        stderr: flag(query, &["error", "stderr"]) && !tty,
    };
    ctx.runtime.attach(request).await.map(|answer| answer.url).map_err(|error| internal(&error))
}

async fn port_forward_url(ctx: &Context, key: &ObjectKey, query: &Query) -> Result<String, Refusal> {
    let not_found = || (StatusCode::NOT_FOUND, format!("pod does not exist: {}_{}", key.name, key.namespace));
    let pod = find_pod(ctx, key).ok_or_else(not_found)?;
    let observed = crate::observe::pod(ctx, &pod.metadata.uid).await.map_err(|error| internal(&error))?;
    let sandbox = observed.sandboxes.iter().find(|sandbox| sandbox.ready).ok_or_else(not_found)?;
    let ports = query.get("port").into_iter().flatten().flat_map(|list| list.split(','));
    let request = PortForwardRequest {
        pod_sandbox_id: sandbox.id.clone(),
        port: ports.filter_map(|port| port.parse().ok()).collect(),
    };
    ctx.runtime.port_forward(request).await.map(|answer| answer.url).map_err(|error| internal(&error))
}

async fn run(ctx: &Context, key: &ObjectKey, container: &str, query: &Query) -> Response<Body> {
    let id = match container_id(ctx, key, &[container]).await {
        Ok(id) => id,
        Err((status, words)) => return text(status, &words),
    };
    let command = query.get("cmd").and_then(|values| values.last()).cloned().unwrap_or_default();
    let words = command.split_whitespace().map(String::from).collect();
    match ctx.runtime.exec_sync(&id, words, Duration::ZERO).await {
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend_from_slice(&answer.stderr);
            text(StatusCode::OK, &String::from_utf8_lossy(&output))
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Whether a container runs, by its id.
pub async fn is_running(ctx: &Context, id: &str) -> bool {
    let request = ContainerStatusRequest { container_id: id.into(), verbose: false };
    let answer = ctx.runtime.container_status(request).await;
    answer
        .ok()
        .and_then(|answer| answer.status)
        .is_some_and(|status| status.state == container_state::RUNNING)
}

/// Sends the caller's upgrade on to `url`, and joins both sides once it is agreed on.
async fn pass_through(url: &str, mut request: Request<Incoming>) -> Response<Body> {
    let bad = |words: String| text(StatusCode::BAD_GATEWAY, &words);
    let Ok(uri) = url.parse::<http::Uri>() else {
        return bad(format!("the runtime gave a bad address: {url}"));
    };
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let stream = match tokio::time::timeout(DIAL_MAX, TcpStream::connect(&authority)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return bad(format!("cannot reach the runtime's streaming server: {error}")),
        Err(_) => return bad("the runtime's streaming server did not answer".into()),
    };
    let _ = stream.set_nodelay(true);
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = match handshake {
        Ok(pair) => pair,
        Err(error) => return bad(error.to_string()),
    };
    tokio::spawn(connection.with_upgrades());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut onward =
        Request::builder().method(request.method().clone()).uri(path).header(header::HOST, &authority);
    for (name, value) in request.headers() {
        if name != header::HOST && name != header::AUTHORIZATION && name != header::CONTENT_LENGTH {
            onward = onward.header(name, value);
        }
    }
    let onward = match onward.body(Empty::<Bytes>::new()) {
        Ok(onward) => onward,
        Err(error) => return bad(error.to_string()),
    };
    let mut response = match sender.send_request(onward).await {
        Ok(response) => response,
        Err(error) => return bad(error.to_string()),
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let body = Limited::new(response.into_body(), REFUSAL_BYTES_MAX).collect().await;
        let bytes = body.map(|body| body.to_bytes()).unwrap_or_default();
        return text(status, &String::from_utf8_lossy(&bytes));
    }
    let theirs = hyper::upgrade::on(&mut response);
    let ours = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let (Ok(theirs), Ok(ours)) = tokio::join!(theirs, ours) {
            let (mut theirs, mut ours) = (TokioIo::new(theirs), TokioIo::new(ours));
            let _ = tokio::io::copy_bidirectional(&mut ours, &mut theirs).await;
        }
    });
    let mut answer = Response::new(client::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = response.headers().clone();
    answer
}
