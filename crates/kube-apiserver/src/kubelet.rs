//! The way to nodes, pods and services: logs, exec, attach, port-forward and proxies, each a connection made for one request.
//!
//! What is inside a stream is the streaming room's: here it is decided where it goes.

use crate::body::RequestBody;
use crate::filters::{self, Passed};
use crate::outbound::Stream;
use crate::outbound::tls::{self, Trust};
use crate::respond::{self, Body, BodyError};
use crate::verbs::Target;
use crate::{Api, objects};
use anyhow::{Context, Result};
use api::core::v1::{Endpoints, Node, Pod, Service};
use api::errors::{ApiError, Reason};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use meta::{IntOrString, ObjectKey};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const KUBELET_PORT: i32 = 10250;
/// Headers that speak of one connection only.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// For connecting to a pod or service.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// How the server speaks to kubelets.
pub struct KubeletClient {
    tls: Arc<ClientConfig>,
    /// For `https:` proxies to pods and services, whose certificates nobody can vouch for.
    unverified: Arc<ClientConfig>,
    address_types: Vec<String>,
    timeout: Duration,
}

/// Where a request goes.
struct Backend {
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    timeout: Duration,
}

impl KubeletClient {
    /// Without an authority a kubelet's certificate is taken as it is, as upstream does.
    pub fn new(
        client: Option<&pki::CertifiedKey>,
        authority_pem: Option<&str>,
        address_types: Vec<String>,
        timeout: Duration,
    ) -> Result<Self> {
        let unverified = tls::client_config(&Trust::Anyone, None)?;
        let trust = authority_pem.map_or(Trust::Anyone, |pem| Trust::Bundle(pem.as_bytes().to_vec()));
        let tls = tls::client_config(&trust, client).context("--kubelet-certificate-authority")?;
        Ok(KubeletClient { tls: Arc::new(tls), unverified: Arc::new(unverified), address_types, timeout })
    }
}

impl Backend {
    async fn dial(&self) -> Result<Box<dyn Stream>, String> {
        let connect = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port))
                .await
                .map_err(|error| format!("dial tcp {}:{}: {error}", self.host, self.port))?;
            // Small frames of a terminal must not wait for each other.
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            let Some(tls) = &self.tls else { return Ok(Box::new(stream) as Box<dyn Stream>) };
            let name = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
            let stream = TlsConnector::from(Arc::clone(tls))
                .connect(name, stream)
                .await
                .map_err(|error| format!("tls {}:{}: {error}", self.host, self.port))?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        };
        tokio::time::timeout(self.timeout, connect)
            .await
            .map_err(|_| format!("dial tcp {}:{}: i/o timeout", self.host, self.port))?
    }
}

impl Api {
    /// Answers `log`, `exec`, `attach`, `portforward` and `proxy`.
    pub(crate) async fn connect(
        self: Arc<Self>,
        passed: Passed,
        target: Target,
        subresource: &'static str,
    ) -> Result<Response<Body>, ApiError> {
        if subresource != "log" {
            self.admit_connection(&passed, &target, subresource).await?;
        }
        match (target.resource.plural(), subresource) {
            ("pods", "log") => self.log(passed, &target.key).await,
            ("pods", "exec" | "attach" | "portforward") => {
                self.stream(passed, &target.key, subresource).await
            }
            ("pods" | "services" | "nodes", "proxy") => self.proxy(passed, &target).await,
            _ => Ok(filters::no_such_path()),
        }
    }

    async fn log(&self, passed: Passed, key: &ObjectKey) -> Result<Response<Body>, ApiError> {
        if !matches!(passed.info.verb.as_str(), "get") {
            return Ok(crate::paths::method_not_allowed());
        }
        let pod: Pod = self.find(key).await?;
        check_log_options(&passed, &key.name)?;
        let container = container_of(&pod, passed.query.first("container").unwrap_or_default())?;
        if pod.spec.node_name.is_empty() {
            // Nothing has run yet: an empty log, as upstream answers.
            return Ok(respond::bytes(StatusCode::OK, "text/plain", Bytes::new()));
        }
        let backend = self.kubelet_of(&pod.spec.node_name).await?;
        let mut query = String::new();
        for (name, value) in
            passed.query.pairs().iter().filter(|(name, _)| LOG_PARAMETERS.contains(&name.as_str()))
        {
            let joint = if query.is_empty() { '?' } else { '&' };
            query.push_str(&format!("{joint}{name}={}", crate::query::percent_encode(value)));
        }
        let path = format!("/containerLogs/{}/{}/{container}{query}", key.namespace, key.name);
        let request = Request::get(path)
            .header(header::HOST, host_header(&backend))
            .body(RequestBody::Whole(Bytes::new()))
            .map_err(ApiError::internal)?;
        let mut response = forward(&backend, request).await?;
        if !response.status().is_success() {
            return Err(kubelet_failure(response).await);
        }
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Ok(response)
    }

    /// Joins the client with the kubelet after the upgrade that both agree on.
    async fn stream(
        &self,
        passed: Passed,
        key: &ObjectKey,
        subresource: &'static str,
    ) -> Result<Response<Body>, ApiError> {
        let pod: Pod = self.find(key).await?;
        let mut path = format!("/{}/{}/{}", kubelet_path(subresource), key.namespace, key.name);
        let mut query = Vec::new();
        if subresource != "portforward" {
            let container = container_of(&pod, passed.query.first("container").unwrap_or_default())?;
            path.push('/');
            path.push_str(&container);
            query = exec_query(&passed, subresource)?;
        } else {
            let ports = passed.query.all("ports").map(|port| ("port".to_string(), port.to_string()));
            query.extend(ports);
        }
        if pod.spec.node_name.is_empty() {
            return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", key.name)));
        }
        let backend = self.kubelet_of(&pod.spec.node_name).await?;
        for (at, (name, value)) in query.iter().enumerate() {
            let joint = if at == 0 { '?' } else { '&' };
            path.push_str(&format!("{joint}{name}={}", crate::query::percent_encode(value)));
        }
        if !wants_upgrade(&passed.headers) {
            return Err(ApiError::bad_request("Upgrade request required"));
        }
        let carry = if subresource == "portforward" { Carry::Ports } else { Carry::Terminal };
        upgrade(passed, backend, path, carry).await
    }

    async fn proxy(&self, passed: Passed, target: &Target) -> Result<Response<Body>, ApiError> {
        let (scheme, name, port) = split_proxy_name(&target.key.name);
        let mut backend = match target.resource.plural() {
            "nodes" => self.kubelet_of(&name).await?,
            "pods" => self.pod_backend(&ObjectKey::new(target.key.namespace.clone(), name), &port).await?,
            _ => self.service_backend(&ObjectKey::new(target.key.namespace.clone(), name), &port).await?,
        };
        if scheme == "https" && target.resource.plural() != "nodes" {
            backend.tls = Some(Arc::clone(&self.kubelet.unverified));
        }
        let raw = passed.query.raw();
        let query = if raw.is_empty() { String::new() } else { format!("?{raw}") };
        let path = format!("/{}{query}", passed.info.rest);
        if wants_upgrade(&passed.headers) {
            return upgrade(passed, backend, path, Carry::Through).await;
        }
        let mut request = Request::builder().method(passed.method.clone()).uri(path);
        if let Some(headers) = request.headers_mut() {
            *headers = forwarded_headers(&passed.headers);
            headers.insert(header::HOST, host_header(&backend));
        }
        forward(&backend, request.body(passed.body).map_err(ApiError::internal)?).await
    }

    /// The kubelet of a node, by the kind of address that is preferred.
    async fn kubelet_of(&self, node: &str) -> Result<Backend, ApiError> {
        let node: Node = self.find(&ObjectKey::cluster(node)).await?;
        let addresses = &node.status.addresses;
        let wanted = self.kubelet.address_types.iter().find_map(|kind| {
            addresses.iter().find(|address| address.r#type == *kind).map(|address| address.address.clone())
        });
        let host = wanted.ok_or_else(|| {
            ApiError::internal(format!("no preferred addresses found; known addresses: {}", addresses.len()))
        })?;
        let endpoint = node.status.daemon_endpoints.kubelet_endpoint.port;
        let port = if endpoint > 0 { endpoint } else { KUBELET_PORT };
        Ok(Backend {
            host,
            port: u16::try_from(port).map_err(ApiError::internal)?,
            tls: Some(Arc::clone(&self.kubelet.tls)),
            timeout: self.kubelet.timeout,
        })
    }

    async fn pod_backend(&self, key: &ObjectKey, port: &str) -> Result<Backend, ApiError> {
        let pod: Pod = self.find(key).await?;
        if pod.status.pod_ip.is_empty() {
            return Err(ApiError::bad_request("address not allowed"));
        }
        let first = pod.spec.containers.iter().flat_map(|container| &container.ports).next();
        let port = if port.is_empty() {
            first.map_or(80, |port| port.container_port)
        } else {
            port.parse().map_err(|_| ApiError::bad_request(format!("invalid port {port:?}")))?
        };
        plain_backend(pod.status.pod_ip.clone(), port)
    }

    /// A ready endpoint of a service, for the named or numbered port of the service.
    async fn service_backend(&self, key: &ObjectKey, port: &str) -> Result<Backend, ApiError> {
        let service: Service = self.find(key).await?;
        let unavailable =
            || ApiError::service_unavailable(format!("no endpoints available for service {:?}", key.name));
        let chosen = service
            .spec
            .ports
            .iter()
            .find(|known| port.is_empty() || known.name == port || known.port.to_string() == port);
        let Some(chosen) = chosen else {
            return Err(ApiError::service_unavailable(format!(
                "no service port {port:?} found for service {:?}",
                key.name
            )));
        };
        let endpoints = objects::get::<Endpoints>(&self.registry, key).await?.ok_or_else(unavailable)?;
        for subset in &endpoints.subsets {
            let number =
                subset.ports.iter().find(|known| known.name == chosen.name).map(|known| known.port).or(
                    match &chosen.target_port {
                        IntOrString::Int(number) if *number > 0 => Some(*number),
                        _ => None,
                    },
                );
            if let (Some(address), Some(number)) = (subset.addresses.first(), number) {
                return plain_backend(address.ip.clone(), number);
            }
        }
        Err(unavailable())
    }
}

fn plain_backend(host: String, port: i32) -> Result<Backend, ApiError> {
    let port = u16::try_from(port).map_err(|_| ApiError::bad_request(format!("invalid port {port}")))?;
    Ok(Backend { host, port, tls: None, timeout: DIAL_TIMEOUT })
}

/// `name`, `name:port`, `scheme:name:port`.
fn split_proxy_name(text: &str) -> (String, String, String) {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [name] => (String::new(), name.to_string(), String::new()),
        [name, port] => (String::new(), name.to_string(), port.to_string()),
        [scheme, name, port] => (scheme.to_string(), name.to_string(), port.to_string()),
        _ => (String::new(), text.to_string(), String::new()),
    }
}

fn kubelet_path(subresource: &str) -> &'static str {
    match subresource {
        "exec" => "exec",
        "attach" => "attach",
        _ => "portForward",
    }
}

/// The kubelet's names for the streams: `input`, `output`, `error`, `tty`, `command`.
fn exec_query(passed: &Passed, subresource: &str) -> Result<Vec<(String, String)>, ApiError> {
    let mut out = Vec::new();
    for (theirs, ours) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if passed.query.boolean(theirs) {
            out.push((ours.to_string(), "1".to_string()));
        }
    }
    if !out.iter().any(|(name, _)| name != "tty") {
        return Err(ApiError::bad_request("you must specify at least one of stdin, stdout, stderr"));
    }
    if subresource == "exec" {
        let command: Vec<_> =
            passed.query.all("command").map(|word| ("command".to_string(), word.to_string())).collect();
        if command.is_empty() {
            return Err(ApiError::bad_request("you must specify at least 1 command for the container"));
        }
        out.extend(command);
    }
    Ok(out)
}

const LOG_PARAMETERS: [&str; 8] =
    ["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream"];

fn check_log_options(passed: &Passed, name: &str) -> Result<(), ApiError> {
    let mut errors = meta::field::Errors::default();
    let query = &passed.query;
    let path = meta::field::Path::new;
    if let Some(lines) = query.integer("tailLines")?.filter(|lines| *lines < 0) {
        errors.invalid(&path("tailLines"), lines, "must be greater than or equal to 0");
    }
    if let Some(bytes) = query.integer("limitBytes")?.filter(|bytes| *bytes < 1) {
        errors.invalid(&path("limitBytes"), bytes, "must be greater than 0");
    }
    let seconds = query.integer("sinceSeconds")?;
    if seconds.is_some() && query.first("sinceTime").is_some() {
        errors.forbidden(
            &meta::field::Path::root(),
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        );
    } else if let Some(seconds) = seconds.filter(|seconds| *seconds < 1) {
        errors.invalid(&path("sinceSeconds"), seconds, "must be greater than 0");
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("", "PodLogOptions", name, &errors)) }
}

/// The container a request means: the named one, the only one, or the one an annotation names.
fn container_of(pod: &Pod, wanted: &str) -> Result<String, ApiError> {
    let spec = &pod.spec;
    let all: Vec<&String> = spec.containers.iter().map(|container| &container.name).collect();
    let other: Vec<&String> = spec
        .init_containers
        .iter()
        .map(|container| &container.name)
        .chain(spec.ephemeral_containers.iter().map(|container| &container.ephemeral_container_common.name))
        .collect();
    if !wanted.is_empty() {
        if all.iter().chain(&other).any(|name| *name == wanted) {
            return Ok(wanted.to_string());
        }
        return Err(ApiError::bad_request(format!(
            "container {wanted} is not valid for pod {}",
            pod.metadata.name
        )));
    }
    if let [only] = all.as_slice() {
        return Ok((*only).clone());
    }
    if let Some(name) = pod.metadata.annotations.get("kubectl.kubernetes.io/default-container")
        && all.contains(&name)
    {
        return Ok(name.clone());
    }
    let join = |names: &[&String]| names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ");
    let mut text = format!(
        "a container name must be specified for pod {}, choose one of: [{}]",
        pod.metadata.name,
        join(&all)
    );
    if !spec.init_containers.is_empty() {
        let names: Vec<&String> = spec.init_containers.iter().map(|container| &container.name).collect();
        text.push_str(&format!(" or one of the init containers: [{}]", join(&names)));
    }
    Err(ApiError::bad_request(text))
}

pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    filters::header(headers, "connection").to_ascii_lowercase().contains("upgrade")
        && headers.contains_key(header::UPGRADE)
}

fn host_header(backend: &Backend) -> HeaderValue {
    HeaderValue::from_str(&format!("{}:{}", backend.host, backend.port))
        .unwrap_or(HeaderValue::from_static("localhost"))
}

/// The client's headers without those of its connection, and without its credentials: those are the API server's to judge.
pub fn forwarded_headers(headers: &HeaderMap) -> HeaderMap {
    let mut out = headers.clone();
    for name in HOP_BY_HOP.iter().chain(&["authorization", "host"]) {
        out.remove(*name);
    }
    out
}

/// Takes away what an answer says of its connection.
pub fn drop_hop_by_hop(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn bad_gateway(text: String) -> ApiError {
    let mut error = ApiError::new(Reason::ServiceUnavailable, text);
    error.code = StatusCode::SERVICE_UNAVAILABLE.as_u16();
    error
}

/// Sends one request over a fresh connection and hands the answer on as it comes.
async fn forward(backend: &Backend, request: Request<RequestBody>) -> Result<Response<Body>, ApiError> {
    let dial = |error: String| bad_gateway(format!("error trying to reach service: {error}"));
    let stream = backend.dial().await.map_err(dial)?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| dial(error.to_string()))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "Closed a connection to a backend");
        }
    });
    let request = request.map(RequestBody::stream);
    let mut response = sender.send_request(request).await.map_err(|error| dial(error.to_string()))?;
    drop_hop_by_hop(response.headers_mut());
    Ok(response.map(|body| body.map_err(BodyError::other).boxed_unsync()))
}

/// How streams are carried between the client and what is behind.
enum Carry {
    Terminal,
    Ports,
    /// Whatever both agree on.
    Through,
}

/// Answers an upgrade: the streaming room translates where client and kubelet speak differently.
async fn upgrade(
    passed: Passed,
    backend: Backend,
    path: String,
    carry: Carry,
) -> Result<Response<Body>, ApiError> {
    let uri = format!("/?{}", passed.query.raw());
    let mut client = Request::builder().method(passed.method.clone()).uri(uri);
    if let Some(headers) = client.headers_mut() {
        *headers = passed.headers.clone();
        headers.remove(header::AUTHORIZATION);
    }
    let mut client = client.body(()).map_err(ApiError::internal)?;
    *client.extensions_mut() = passed.extensions;
    let method = if matches!(carry, Carry::Through) { passed.method } else { http::Method::POST };
    let connect: streaming::Connect = Box::new(move |headers| {
        Box::pin(async move {
            let io = backend.dial().await.map_err(streaming::Error::Unreachable)?;
            let mut request = Request::builder().method(method).uri(path);
            if let Some(out) = request.headers_mut() {
                *out = headers;
                out.insert(header::HOST, host_header(&backend));
            }
            let request = request
                .body(http_body_util::Empty::new())
                .map_err(|error| streaming::Error::Refused(error.to_string()))?;
            streaming::request_upgrade(io, request).await
        })
    });
    let response = match carry {
        Carry::Terminal => {
            let streams = streaming::remotecommand::Streams::from_query(passed.query.raw());
            streaming::remotecommand::serve(client, streams, connect).await
        }
        Carry::Ports => streaming::portforward::serve(client, connect).await,
        Carry::Through => streaming::proxy(client, connect).await,
    };
    Ok(response.map(|body| body.map_err(|never| match never {}).boxed_unsync()))
}

/// What a kubelet says when it does not do as asked, as a Status.
async fn kubelet_failure(response: Response<Body>) -> ApiError {
    const MAX_TEXT: usize = 4096;
    let status = response.status();
    let text = match http_body_util::Limited::new(response.into_body(), MAX_TEXT).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_string(),
        Err(_) => String::new(),
    };
    if let Ok(known) = api::codec::from_json::<api::meta::v1::Status>(text.as_bytes())
        && known.code != 0
    {
        return ApiError::from_status(&known);
    }
    let reason = match status {
        StatusCode::BAD_REQUEST => Reason::BadRequest,
        StatusCode::NOT_FOUND => Reason::NotFound,
        StatusCode::FORBIDDEN => Reason::Forbidden,
        StatusCode::UNAUTHORIZED => Reason::Unauthorized,
        _ => Reason::InternalError,
    };
    let mut error = ApiError::new(reason, text);
    error.code = status.as_u16();
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_names_may_carry_scheme_and_port() {
        let text = |name: &str| {
            let (scheme, name, port) = split_proxy_name(name);
            format!("{scheme}|{name}|{port}")
        };
        assert_eq!(text("web"), "|web|");
        assert_eq!(text("web:http"), "|web|http");
        assert_eq!(text("https:web:443"), "https|web|443");
    }

    #[test]
    fn a_container_is_chosen_or_asked_for() {
        let mut pod = Pod::default();
        pod.metadata.name = "p".into();
        let container = |name: &str| api::core::v1::Container { name: name.into(), ..Default::default() };
        pod.spec.containers.push(container("a"));
        assert_eq!(container_of(&pod, "").unwrap(), "a");
        assert_eq!(container_of(&pod, "x").unwrap_err().message, "container x is not valid for pod p");
        pod.spec.containers.push(container("b"));
        assert_eq!(
            container_of(&pod, "").unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [a b]"
        );
    }
}
