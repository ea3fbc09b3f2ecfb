//! One aggregated server: where it is, whether it is there, and what it last said of itself.

use crate::outbound::pool::{HttpClient, Place, Target};
use crate::outbound::services::Services;
use crate::outbound::tls::{self, Trust};
use api::apidiscovery::v2::APIVersionDiscovery;
use api::apiregistration::v1::{APIService, APIServiceSpec};
use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use meta::ObjectKey;
use registry::UserInfo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const HTTPS: i32 = 443;

/// The Service before an aggregated server.
pub struct Backend {
    pub namespace: String,
    pub name: String,
    pub port: i32,
}

/// What a server says of itself, as it was last read.
#[derive(Default)]
pub struct Documents {
    /// Its part of the aggregated discovery; `None` until it was read.
    pub discovery: Option<APIVersionDiscovery>,
    /// Paths of its OpenAPI v3 documents, with their hashes.
    pub openapi_v3: BTreeMap<String, String>,
    pub openapi_v2: Option<Bytes>,
}

pub struct Remote {
    /// Name of the APIService.
    pub name: String,
    pub spec: APIServiceSpec,
    pub service: Backend,
    /// The way to it, or why there is none.
    pub way: Result<(Target, HttpClient), String>,
    available: AtomicBool,
    /// The APIService as it was last seen, for its status.
    pub seen: ArcSwapOption<APIService>,
    pub documents: ArcSwap<Documents>,
    /// Wakes the check of its availability.
    pub look: Notify,
    pub cancel: CancellationToken,
}

impl Remote {
    pub fn new(
        service: &APIService,
        services: &Arc<Services>,
        identity: Option<&pki::CertifiedKey>,
        shutdown: &CancellationToken,
    ) -> Self {
        let reference = service.spec.service.as_deref().cloned().unwrap_or_default();
        let backend = Backend {
            namespace: reference.namespace,
            name: reference.name,
            port: reference.port.unwrap_or(HTTPS),
        };
        Remote {
            name: service.metadata.name.clone(),
            way: way(&service.spec, &backend, services, identity),
            spec: service.spec.clone(),
            service: backend,
            available: AtomicBool::new(false),
            seen: ArcSwapOption::empty(),
            documents: ArcSwap::default(),
            look: Notify::new(),
            cancel: shutdown.child_token(),
        }
    }

    /// Takes over what the APIService's status says.
    pub fn take_in(&self, service: &APIService) {
        let conditions = &service.status.conditions;
        let available =
            conditions.iter().any(|condition| condition.r#type == "Available" && condition.status == "True");
        self.available.store(available, Ordering::Release);
        self.seen.store(Some(Arc::new(service.clone())));
    }

    pub fn is_available(&self) -> bool {
        self.available.load(Ordering::Acquire)
    }

    pub fn key(&self) -> ObjectKey {
        ObjectKey::cluster(self.name.clone())
    }

    /// `/apis/GROUP/VERSION`, or `/api/v1` for a server that stands in for the core.
    pub fn root(&self) -> String {
        if self.spec.group.is_empty() {
            format!("/api/{}", self.spec.version)
        } else {
            format!("/apis/{}/{}", self.spec.group, self.spec.version)
        }
    }

    /// As what requests to it are addressed.
    pub fn authority(&self) -> String {
        format!("{}.{}.svc:{}", self.service.name, self.service.namespace, self.service.port)
    }

    /// Reads a document as the aggregator itself; `None` for anything but a success in JSON.
    pub async fn read(&self, path: &str, accept: &'static str) -> Option<(http::HeaderMap, Value)> {
        use http_body_util::{BodyExt, Limited};
        /// Longest document, in bytes.
        const MAX: usize = 32 * 1024 * 1024;
        let (_, client) = self.way.as_ref().ok()?;
        let mut request = http::Request::get(format!("https://{}{path}", self.authority()));
        request.headers_mut()?.insert(http::header::ACCEPT, HeaderValue::from_static(accept));
        identify(request.headers_mut()?, &aggregator_user());
        let request = request.body(crate::respond::full(Bytes::new())).ok()?;
        let response = client.request(request).await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX).collect().await.ok()?.to_bytes();
        Some((parts.headers, serde_json::from_slice(&body).ok()?))
    }
}

fn way(
    spec: &APIServiceSpec,
    backend: &Backend,
    services: &Arc<Services>,
    identity: Option<&pki::CertifiedKey>,
) -> Result<(Target, HttpClient), String> {
    let trust = if spec.insecure_skip_tls_verify {
        Trust::Anyone
    } else if spec.ca_bundle.is_empty() {
        Trust::System
    } else {
        Trust::Bundle(spec.ca_bundle.clone())
    };
    let config = tls::client_config(&trust, identity).map_err(|error| format!("{error:#}"))?;
    let host = format!("{}.{}.svc", backend.name, backend.namespace);
    let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
    let place = Place::Service {
        services: Arc::clone(services),
        namespace: backend.namespace.clone(),
        name: backend.name.clone(),
        port: backend.port,
    };
    let target = Target { place, tls: Some((Arc::new(config), name)) };
    let client = target.client();
    Ok((target, client))
}

/// As whom the aggregator asks in its own name.
pub fn aggregator_user() -> UserInfo {
    UserInfo {
        name: "system:kube-aggregator".into(),
        groups: vec!["system:masters".into()],
        ..UserInfo::default()
    }
}

/// Puts the user into the headers that an aggregated server believes, and takes away what the client put there.
pub fn identify(headers: &mut HeaderMap, user: &UserInfo) {
    let ours = |name: &HeaderName| name.as_str().starts_with("x-remote-");
    let forged: Vec<HeaderName> = headers.keys().filter(|name| ours(name)).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes()))
        {
            headers.append(name, value);
        }
    };
    add("x-remote-user", &user.name);
    if !user.uid.is_empty() {
        add("x-remote-uid", &user.uid);
    }
    for group in &user.groups {
        add("x-remote-group", group);
    }
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", escape_key(key));
        for value in values {
            add(&name, value);
        }
    }
}

/// What a header's name cannot hold is percent-encoded, and so is the percent sign.
fn escape_key(key: &str) -> String {
    let mut out = String::new();
    for byte in key.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
        if plain {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_tell_the_user_and_nothing_that_the_client_forged() {
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("root"));
        headers.insert("x-remote-extra-scopes", HeaderValue::from_static("all"));
        let mut user = UserInfo {
            name: "jane".into(),
            uid: "7".into(),
            groups: vec!["a".into(), "b".into()],
            ..UserInfo::default()
        };
        user.extra.insert("example.com/x".into(), vec!["1".into(), "2".into()]);
        identify(&mut headers, &user);
        let text: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        assert_eq!(
            text,
            [
                "x-remote-user: jane",
                "x-remote-uid: 7",
                "x-remote-group: a",
                "x-remote-group: b",
                "x-remote-extra-example.com%2fx: 1",
                "x-remote-extra-example.com%2fx: 2",
            ]
        );
    }
}
