//! Events sent to a server, in lists, not too often; what it does not take is sent again a few times, then given up.

use super::event;
use crate::outbound::pool::{self, HttpClient, Place, Target};
use crate::outbound::tls::{self, Trust};
use crate::outbound::users::User;
use crate::respond;
use anyhow::{Context, Result};
use http::{HeaderValue, Request, header};
use http_body_util::BodyExt;
use rustls_pki_types::ServerName;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Upstream's tries, and how the pause between them grows.
const TRIES: u32 = 5;
const GROWTH: f64 = 1.5;
/// How long one try may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The server that a kubeconfig names.
pub struct Server {
    client: HttpClient,
    url: String,
    authorization: Option<HeaderValue>,
    backoff: Duration,
}

impl Server {
    pub fn open(path: &Path, backoff: Duration) -> Result<Self> {
        let flag = "--audit-webhook-config-file";
        let config =
            pki::Kubeconfig::read(path).with_context(|| format!("{flag}: cannot read {}", path.display()))?;
        let uri: http::Uri =
            config.server.parse().with_context(|| format!("{flag}: the server is no URL"))?;
        let authority = uri.authority().with_context(|| format!("{flag}: the server names no host"))?;
        let secure = uri.scheme_str() == Some("https");
        let host = authority.host().trim_matches(['[', ']']).to_string();
        let trust = match (&config.ca_pem, config.insecure_skip_tls_verify) {
            (_, true) => Trust::Anyone,
            (Some(pem), _) => Trust::Bundle(pem.clone().into_bytes()),
            (None, _) => Trust::System,
        };
        let tls = if secure {
            let name = config.tls_server_name.clone().unwrap_or_else(|| host.clone());
            Some((Arc::new(tls::client_config(&trust, config.client.as_ref())?), ServerName::try_from(name)?))
        } else {
            None
        };
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Server {
            client: Target { place: Place::Host(host, port), tls }.client(),
            url: config.server.clone(),
            authorization: User::new(config).authorization(),
            backoff,
        })
    }

    /// Sends a list; tries again until it is taken or the tries are used up.
    pub async fn send(&self, bodies: &[String]) -> Result<(), String> {
        let text = event::list(bodies);
        let mut pause = self.backoff;
        let mut last = String::new();
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(pause).await;
                pause = pause.mul_f64(GROWTH);
            }
            match self.try_once(text.clone()).await {
                Ok(()) => return Ok(()),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    async fn try_once(&self, text: String) -> Result<(), String> {
        let mut request = Request::post(&self.url).header(header::CONTENT_TYPE, "application/json");
        if let Some(value) = &self.authorization {
            request = request.header(header::AUTHORIZATION, value.clone());
        }
        let request = request.body(respond::full(text)).map_err(|error| error.to_string())?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| pool::cause(&error))?;
            let status = response.status();
            // Read to its end, so that the connection can be used again.
            let _ = http_body_util::Limited::new(response.into_body(), 64 * 1024).collect().await;
            if status.is_success() { Ok(()) } else { Err(format!("the server answered {status}")) }
        };
        let answered = tokio::time::timeout(TIMEOUT, exchange).await;
        answered.unwrap_or_else(|_| Err("context deadline exceeded".into()))
    }
}
