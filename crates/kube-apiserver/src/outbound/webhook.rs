//! The one client of webhooks: admission and conversion both post a review and read one back.
//!
//! [`WebhookClient::call`] takes the `clientConfig` of a configuration object as [`ClientConfig`] (made by `From` out of
//! the API's own types), the review as JSON, and the time the webhook has; the answer is the review that came back.
//! Errors print as upstream's text behind `failed to call webhook: `.

use super::pool::{self, HttpClient, Place, Target};
use super::services::Services;
use super::tls::{self, Trust};
use super::users::Users;
use crate::respond;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Longest answer that is read, in bytes: the limit of an object, and room for a patch of it.
const ANSWER_MAX: usize = 12 * 1024 * 1024;
/// Clients kept. Each belongs to one `clientConfig`; when there are more, all are made anew.
const CLIENTS_MAX: usize = 512;
const HTTPS: i32 = 443;

/// Where a webhook is and who vouches for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientConfig {
    pub url: Option<String>,
    pub service: Option<ServiceTarget>,
    /// PEM; empty means the machine's authorities.
    pub ca_bundle: Vec<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceTarget {
    pub namespace: String,
    pub name: String,
    pub path: String,
    pub port: i32,
}

macro_rules! from_api {
    ($($module:ident)::+) => {
        impl From<&api::$($module)::+::WebhookClientConfig> for ClientConfig {
            fn from(from: &api::$($module)::+::WebhookClientConfig) -> Self {
                let service = from.service.as_deref().map(|service| ServiceTarget {
                    namespace: service.namespace.clone(),
                    name: service.name.clone(),
                    path: service.path.clone().unwrap_or_default(),
                    port: service.port.unwrap_or(HTTPS),
                });
                ClientConfig { url: from.url.clone(), service, ca_bundle: from.ca_bundle.clone() }
            }
        }
    };
}
from_api!(admissionregistration::v1);
from_api!(apiextensions::v1);

/// Why a webhook could not be asked. The status code is for metrics; upstream answers 500 for all of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct CallError {
    pub reason: String,
    pub code: u16,
}

fn failed(reason: impl Into<String>) -> CallError {
    CallError { reason: reason.into(), code: StatusCode::SERVICE_UNAVAILABLE.as_u16() }
}

/// A prepared way to one webhook.
struct Way {
    client: HttpClient,
    /// Scheme, host and port, as errors and the Host header name them.
    origin: String,
    path: String,
    authorization: Option<http::HeaderValue>,
}

/// Calls webhooks, over connections that are kept.
pub struct WebhookClient {
    services: Arc<Services>,
    users: Users,
    ways: Mutex<HashMap<ClientConfig, Arc<Way>>>,
}

impl WebhookClient {
    /// `users` says who the server is towards which webhook; by default nobody.
    pub fn new(services: Arc<Services>, users: Users) -> Arc<Self> {
        Arc::new(WebhookClient { services, users, ways: Mutex::default() })
    }

    /// Posts a review and reads the one that comes back.
    pub async fn call(
        &self,
        config: &ClientConfig,
        review: &Value,
        timeout: Duration,
    ) -> Result<Value, CallError> {
        let way = self.way(config)?;
        // The webhook hears how long its answer is waited for.
        let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
        let joint = if way.path.contains('?') { '&' } else { '?' };
        let url = format!("{}{}{joint}timeout={seconds}s", way.origin, way.path);
        let told = |why: &str| failed(format!("Post {url:?}: {why}"));
        let mut request = Request::post(&url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .header(header::USER_AGENT, "kube-apiserver-admission");
        if let Some(value) = &way.authorization {
            request = request.header(header::AUTHORIZATION, value.clone());
        }
        let request =
            request.body(respond::full(review.to_string())).map_err(|error| told(&error.to_string()))?;
        let exchange = async {
            let response = way.client.request(request).await.map_err(|error| told(&pool::cause(&error)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
            let body = body.map_err(|error| told(&error.to_string()))?.to_bytes();
            Ok((status, body))
        };
        let (status, body) = tokio::time::timeout(timeout, exchange)
            .await
            .map_err(|_| told("context deadline exceeded"))??;
        if !status.is_success() {
            return Err(refused(status, &body));
        }
        serde_json::from_slice(&body)
            .map_err(|error| failed(format!("couldn't get version/kind; json parse error: {error}")))
    }

    fn way(&self, config: &ClientConfig) -> Result<Arc<Way>, CallError> {
        if let Some(known) = self.ways.lock().get(config) {
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(self.prepare(config).map_err(|why| CallError {
            reason: format!("could not get REST client: {why}"),
            code: StatusCode::INTERNAL_SERVER_ERROR.as_u16(),
        })?);
        let mut ways = self.ways.lock();
        if ways.len() >= CLIENTS_MAX {
            ways.clear();
        }
        ways.insert(config.clone(), Arc::clone(&made));
        Ok(made)
    }

    fn prepare(&self, config: &ClientConfig) -> Result<Way, String> {
        let (place, host, port, path) = match (&config.service, &config.url) {
            (Some(service), _) => {
                let place = Place::Service {
                    services: Arc::clone(&self.services),
                    namespace: service.namespace.clone(),
                    name: service.name.clone(),
                    port: service.port,
                };
                let host = format!("{}.{}.svc", service.name, service.namespace);
                (place, host, service.port, service.path.clone())
            }
            (None, Some(url)) => {
                let uri: http::Uri = url.parse().map_err(|error| format!("Unparsable URL: {error}"))?;
                let authority = uri.authority().ok_or("Unparsable URL: no host")?;
                let port = authority.port_u16().unwrap_or(443);
                let host = authority.host().to_string();
                let place = Place::Host(host.trim_matches(['[', ']']).to_string(), port);
                let path = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
                (place, host, i32::from(port), path.to_string())
            }
            (None, None) => return Err("webhook configuration must have either service or URL".into()),
        };
        let user = self.users.find(&host, port);
        let mut bundle = user.and_then(|user| user.ca_pem.clone()).unwrap_or_default().into_bytes();
        bundle.push(b'\n');
        bundle.extend_from_slice(&config.ca_bundle);
        let trust = match bundle.as_slice() {
            b"\n" => Trust::System,
            _ => Trust::Bundle(bundle),
        };
        let config = tls::client_config(&trust, user.and_then(|user| user.client.as_ref()))
            .map_err(|error| format!("{error:#}"))?;
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_string())
            .map_err(|error| error.to_string())?;
        let target = Target { place, tls: Some((Arc::new(config), name)) };
        let path = if path.is_empty() || path.starts_with('/') { path } else { format!("/{path}") };
        Ok(Way {
            client: target.client(),
            origin: format!("https://{host}:{port}"),
            path: if path.is_empty() { "/".into() } else { path },
            authorization: user.and_then(|user| user.authorization()),
        })
    }
}

/// An answer that is no review: the Status it holds, or what its code means in upstream's words.
fn refused(status: StatusCode, body: &[u8]) -> CallError {
    let code = status.as_u16();
    if let Ok(known) = api::codec::from_json::<api::meta::v1::Status>(body)
        && known.kind == "Status"
        && !known.message.is_empty()
    {
        return CallError { reason: known.message, code };
    }
    let said = String::from_utf8_lossy(body);
    let said = said.trim();
    let reason = match code {
        401 => "the server has asked for the client to provide credentials".to_string(),
        403 if !said.is_empty() => said.to_string(),
        404 => "the server could not find the requested resource".into(),
        405 => "the server does not allow this method on the requested resource".into(),
        409 => "the server reported a conflict".into(),
        422 => "the server rejected our request due to an error in our request".into(),
        429 => "the server has received too many requests and has asked us to try again later".into(),
        503 => "the server is currently unable to handle the request".into(),
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing \
                the request"
                .into()
        }
        500.. => format!("an error on the server ({said:?}) has prevented the request from succeeding"),
        _ => "the server rejected our request for an unknown reason".into(),
    };
    CallError { reason, code }
}
