//! Runs one probe: a command, an HTTP request, a TCP connection, a gRPC health check.

use crate::Context;
use api::core::v1::{Container, GRPCAction, HTTPGetAction, Pod, Probe};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use meta::IntOrString;
use pods::Outcome;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// What is read of an HTTP answer's body, and of a command's output in messages.
const BODY_BYTES_MAX: usize = 10 << 10;
/// Redirects that a probe follows on the same host.
const REDIRECTS_MAX: usize = 10;

pub async fn run(
    ctx: &Context,
    pod: &Pod,
    container: &Container,
    container_id: &str,
    probe: &Probe,
) -> Outcome {
    let limit = Duration::from_secs(probe.timeout_seconds.max(1).unsigned_abs().into());
    let handler = &probe.handler;
    if let Some(exec) = &handler.exec {
        return self::exec(ctx, container_id, &exec.command, limit).await;
    }
    if let Some(http) = &handler.http_get {
        return http_get(pod, container, http, limit).await;
    }
    if let Some(tcp) = &handler.tcp_socket {
        let host = if tcp.host.is_empty() { &pod.status.pod_ip } else { &tcp.host };
        let Some(port) = port(container, &tcp.port) else {
            return Outcome::Error(format!("couldn't find port: {}", tcp.port));
        };
        return match connect(host, port, limit).await {
            Ok(_) => Outcome::Success,
            Err(words) => Outcome::Failure(words),
        };
    }
    if let Some(grpc) = &handler.grpc {
        return self::grpc(&pod.status.pod_ip, grpc, limit).await;
    }
    Outcome::Error("missing probe handler".into())
}

async fn exec(ctx: &Context, id: &str, command: &[String], limit: Duration) -> Outcome {
    match ctx.runtime.exec_sync(id, command.to_vec(), limit).await {
        Ok(answer) if answer.exit_code == 0 => Outcome::Success,
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend_from_slice(&answer.stderr);
            output.truncate(BODY_BYTES_MAX);
            Outcome::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        Err(error) if error.is_deadline() => Outcome::Failure(format!(
            "command timed out: {:?} timed out after {}s",
            command.join(" "),
            limit.as_secs()
        )),
        Err(error) => Outcome::Error(error.to_string()),
    }
}

/// A port by number, or by the name that the container gives it.
fn port(container: &Container, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok().filter(|number| *number > 0),
        IntOrString::String(name) => {
            let named =
                container.ports.iter().find(|port| &port.name == name).map(|port| port.container_port);
            named.or_else(|| name.parse().ok()).and_then(|number| u16::try_from(number).ok())
        }
    }
}

async fn connect(host: &str, port: u16, limit: Duration) -> Result<TcpStream, String> {
    let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match tokio::time::timeout(limit, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("dial tcp {address}: connect: {}", reason(&error))),
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
    }
}

/// The system's words without Rust's number behind them.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

pub async fn http_get(pod: &Pod, container: &Container, action: &HTTPGetAction, limit: Duration) -> Outcome {
    let host = if action.host.is_empty() { pod.status.pod_ip.clone() } else { action.host.clone() };
    let Some(port) = port(container, &action.port) else {
        return Outcome::Error(format!("couldn't find port: {}", action.port));
    };
    let tls = action.scheme.eq_ignore_ascii_case("https");
    let mut path =
        if action.path.starts_with('/') { action.path.clone() } else { format!("/{}", action.path) };
    let scheme = if tls { "https" } else { "http" };
    let url = |path: &str| format!("{scheme}://{host}:{port}{path}");
    let work = async {
        for _ in 0..REDIRECTS_MAX {
            let (status, location, body) = match request(&host, port, tls, &path, action).await {
                Ok(answer) => answer,
                Err(words) => return Outcome::Failure(format!("Get {:?}: {words}", url(&path))),
            };
            if !(300..400).contains(&status) {
                return if (200..300).contains(&status) {
                    Outcome::Success
                } else {
                    let _ = body;
                    Outcome::Failure(format!("HTTP probe failed with statuscode: {status}"))
                };
            }
            match location.and_then(|target| same_host(&target, &host, port)) {
                Some(target) => path = target,
                None => {
                    return Outcome::Warning(
                        "Probe terminated redirects, Response body: ".to_string() + &body,
                    );
                }
            }
        }
        Outcome::Failure("stopped after 10 redirects".into())
    };
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Failure(format!(
            "Get {:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            url(&path_of(action))
        )),
    }
}

fn path_of(action: &HTTPGetAction) -> String {
    if action.path.starts_with('/') { action.path.clone() } else { format!("/{}", action.path) }
}

/// The path of a redirect that stays on this host; `None` where it leaves it.
fn same_host(target: &str, host: &str, port: u16) -> Option<String> {
    if target.starts_with('/') {
        return Some(target.to_string());
    }
    let uri: http::Uri = target.parse().ok()?;
    let same = uri.host() == Some(host) && uri.port_u16().is_none_or(|other| other == port);
    same.then(|| uri.path_and_query().map_or("/".to_string(), ToString::to_string))
}

type Answer = (u16, Option<String>, String);

async fn request(
    host: &str,
    port: u16,
    tls: bool,
    path: &str,
    action: &HTTPGetAction,
) -> Result<Answer, String> {
    let stream = connect(host, port, Duration::from_secs(3600)).await?;
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut request = http::Request::get(path)
        .header(http::header::USER_AGENT, "kube-probe/1.36")
        .header(http::header::ACCEPT, "*/*")
        .header(http::header::CONNECTION, "close");
    let own_host = action.http_headers.iter().find(|header| header.name.eq_ignore_ascii_case("host"));
    request = request
        .header(http::header::HOST, own_host.map_or(authority.as_str(), |header| header.value.as_str()));
    for header in action.http_headers.iter().filter(|header| !header.name.eq_ignore_ascii_case("host")) {
        if let Some(headers) = request.headers_mut() {
            let name = http::HeaderName::try_from(header.name.as_str()).map_err(|error| error.to_string())?;
            let value =
                http::HeaderValue::try_from(header.value.as_str()).map_err(|error| error.to_string())?;
            headers.remove(&name);
            headers.append(name, value);
        }
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    if tls {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(crate::tls::trusting_client()));
        let name =
            rustls_pki_types::ServerName::try_from(host.to_string()).map_err(|error| error.to_string())?;
        let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
        exchange(TokioIo::new(stream), request).await
    } else {
        exchange(TokioIo::new(stream), request).await
    }
}

async fn exchange<S>(stream: S, request: http::Request<Empty<Bytes>>) -> Result<Answer, String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let response =
        sender.send_request(request).await.map_err(|error| match error.is_incomplete_message() {
            true => "EOF".to_string(),
            false => container_chain(&error),
        })?;
    let status = response.status().as_u16();
    let location = response
        .headers()
        .get(http::header::LOCATION)
        .and_then(|value| value.to_str().ok())
        .map(String::from);
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
    driver.abort();
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    Ok((status, location, text))
}

fn container_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    if let Some(source) = error.source() {
        text = format!("{text}: {source}");
    }
    text
}

/// `grpc.health.v1.Health/Check` over plain HTTP/2, framed by hand: one short message each way.
async fn grpc(host: &str, action: &GRPCAction, limit: Duration) -> Outcome {
    let work = async {
        let port = u16::try_from(action.port).map_err(|_| format!("invalid port {}", action.port))?;
        let stream = connect(host, port, limit).await.map_err(|words| {
            format!("timeout: failed to connect service {host}:{port} within {}s: {words}", limit.as_secs())
        })?;
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let driver = tokio::spawn(connection);
        let mut message = vec![];
        if let Some(service) = action.service.as_deref().filter(|service| !service.is_empty()) {
            meta::proto::write_bytes(1, service.as_bytes(), &mut message);
        }
        let mut frame = vec![0];
        frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
        frame.extend_from_slice(&message);
        let request = http::Request::post(format!("http://{host}:{port}/grpc.health.v1.Health/Check"))
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .header("te", "trailers")
            .header(http::header::USER_AGENT, "kube-probe/1.36")
            .body(http_body_util::Full::new(Bytes::from(frame)))
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let head_code = code(response.headers());
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        driver.abort();
        let code = head_code.or_else(|| body.trailers().and_then(code)).unwrap_or_else(|| "0".into());
        Ok::<_, String>((code, body.to_bytes()))
    };
    let (code, body) = match tokio::time::timeout(limit, work).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(words)) => return Outcome::Failure(words),
        Err(_) => {
            return Outcome::Failure(format!(
                "timeout: health rpc did not complete within {}s",
                limit.as_secs()
            ));
        }
    };
    match code.as_str() {
        "0" => {}
        "12" => {
            return Outcome::Failure(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
                    .into(),
            );
        }
        other => return Outcome::Failure(format!("error: health rpc probe failed: code = {other}")),
    }
    let mut status = 0;
    let _ = meta::proto::fields(body.get(5..).unwrap_or_default(), |tag, wire| {
        if tag == 1 {
            status = wire.varint()?;
        }
        Ok(())
    });
    match status {
        1 => Outcome::Success,
        other => {
            let name = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"]
                .get(other as usize)
                .unwrap_or(&"UNKNOWN");
            Outcome::Failure(format!("service unhealthy (responded with {name:?})"))
        }
    }
}

fn code(headers: &http::HeaderMap) -> Option<String> {
    headers.get("grpc-status").and_then(|value| value.to_str().ok()).map(String::from)
}
