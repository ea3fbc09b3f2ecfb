//! One server under measurement: its connections, its encoding, its processes.

use crate::args::Common;
use crate::process::Processes;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use client::{Body, Client, Config, Transport, Wire};
use http::{Method, Request, header};
use http_body_util::BodyExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use client::Protocol;

/// Clients that share a connection, unless told otherwise.
const CLIENTS_PER_CONNECTION: usize = 8;
/// The most connections that are made for calls.
const CONNECTIONS_MAX: usize = 64;
/// Watches on one transport: it spreads them over four connections, on each of which servers allow 100 streams.
pub const WATCHES_PER_WIRE: usize = 320;

/// How objects travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Encoding {
    Json,
    Protobuf,
}

impl Encoding {
    pub fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Json => "json",
            Encoding::Protobuf => "protobuf",
        }
    }
}

/// A server and the way to it.
#[derive(Clone)]
pub struct Target {
    /// How the server is called in tables: the kubeconfig's file name without its ending.
    pub label: String,
    pub processes: Processes,
    config: Config,
    wires: Arc<Vec<Arc<dyn Transport>>>,
    turn: Arc<AtomicUsize>,
}

/// One request.
pub struct Call<'a> {
    pub method: Method,
    pub path: &'a str,
    pub accept: &'a str,
    /// The body with its media type.
    pub body: Option<(&'a str, Bytes)>,
}

impl<'a> Call<'a> {
    pub fn get(path: &'a str, encoding: Encoding) -> Self {
        Call { method: Method::GET, path, accept: encoding.media_type(), body: None }
    }
    pub fn post(path: &'a str, encoding: Encoding, body: Bytes) -> Self {
        Call {
            method: Method::POST,
            path,
            accept: encoding.media_type(),
            body: Some((encoding.media_type(), body)),
        }
    }
    pub fn put(path: &'a str, encoding: Encoding, body: Bytes) -> Self {
        Call {
            method: Method::PUT,
            path,
            accept: encoding.media_type(),
            body: Some((encoding.media_type(), body)),
        }
    }
    /// `kind` is `merge` or `strategic-merge`. A patch is always JSON; its answer need not be.
    pub fn patch(path: &'a str, encoding: Encoding, kind: &'a str, body: Bytes) -> Self {
        let media_type = match kind {
            "merge" => "application/merge-patch+json",
            _ => "application/strategic-merge-patch+json",
        };
        Call { method: Method::PATCH, path, accept: encoding.media_type(), body: Some((media_type, body)) }
    }
    pub fn delete(path: &'a str, encoding: Encoding) -> Self {
        Call { method: Method::DELETE, path, accept: encoding.media_type(), body: None }
    }

    fn request(self) -> Result<Request<Bytes>> {
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.path)
            .header(header::ACCEPT, self.accept)
            .header(header::USER_AGENT, concat!("timonel-bench/", env!("CARGO_PKG_VERSION")));
        let mut bytes = Bytes::new();
        if let Some((media_type, body)) = self.body {
            request = request.header(header::CONTENT_TYPE, media_type);
            bytes = body;
        }
        Ok(request.body(bytes)?)
    }
}

impl Target {
    /// The server that a kubeconfig names, reached over `connections` connections.
    pub fn open(kubeconfig: &Path, common: &Common, processes: Processes) -> Result<Self> {
        let config = Config::from_kubeconfig(kubeconfig)
            .with_context(|| format!("reading the kubeconfig {}", kubeconfig.display()))?;
        let label =
            kubeconfig.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let protocol = if common.http == 1 { Protocol::Http1 } else { Protocol::Any };
        Self::of(label, Config { protocol, ..config }, processes)
    }

    /// A server by its address and credentials.
    pub fn of(label: String, config: Config, processes: Processes) -> Result<Self> {
        let mut target = Target { label, processes, config, wires: Arc::default(), turn: Arc::default() };
        target.wires = Arc::new(target.make_wires(1)?);
        Ok(target)
    }

    /// The same server over as many connections as so many clients get.
    pub fn with_clients(&self, common: &Common, clients: usize) -> Result<Self> {
        // HTTP/1.1 takes a connection per client by itself.
        let default = if common.http == 1 { 1 } else { clients.div_ceil(CLIENTS_PER_CONNECTION) };
        let wires = common.connections.unwrap_or(default).clamp(1, CONNECTIONS_MAX);
        Ok(Target { wires: Arc::new(self.make_wires(wires)?), turn: Arc::default(), ..self.clone() })
    }

    /// The same server over connections enough for so many watches.
    pub fn with_watches(&self, watches: usize) -> Result<Self> {
        let wires = watches.div_ceil(WATCHES_PER_WIRE).max(1);
        Ok(Target { wires: Arc::new(self.make_wires(wires)?), turn: Arc::default(), ..self.clone() })
    }

    fn make_wires(&self, count: usize) -> Result<Vec<Arc<dyn Transport>>> {
        (0..count).map(|_| Ok(Arc::new(Wire::new(self.config.clone())?) as Arc<dyn Transport>)).collect()
    }

    fn wire(&self) -> &Arc<dyn Transport> {
        &self.wires[self.turn.fetch_add(1, Ordering::Relaxed) % self.wires.len()]
    }

    /// A typed client, for what is prepared and not measured.
    pub fn client(&self) -> Client {
        Client::new(self.wire().clone())
    }

    /// Sends a request and gathers the answer; anything but success is an error that quotes it.
    pub async fn send(&self, call: Call<'_>) -> Result<Bytes> {
        let (code, body) = self.ask(call).await?;
        if !(200..300).contains(&code) {
            bail!("{code}: {}", String::from_utf8_lossy(&body[..body.len().min(300)]));
        }
        Ok(body)
    }

    /// Sends a request and gathers the answer, whatever its code.
    pub async fn ask(&self, call: Call<'_>) -> Result<(u16, Bytes)> {
        let answer =
            self.wire().send(call.request()?).await.map_err(|error| anyhow::anyhow!(error.chain()))?;
        let code = answer.status().as_u16();
        Ok((code, answer.into_body().collect().await?.to_bytes()))
    }

    /// Opens a watch; its body is read by the caller.
    pub async fn watch(&self, path: &str, encoding: Encoding) -> Result<Body> {
        let accept = match encoding {
            Encoding::Json => "application/json",
            Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        };
        let call = Call { method: Method::GET, path, accept, body: None };
        let answer =
            self.wire().send(call.request()?).await.map_err(|error| anyhow::anyhow!(error.chain()))?;
        if !answer.status().is_success() {
            let code = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            bail!("{code}: {}", String::from_utf8_lossy(&body[..body.len().min(300)]));
        }
        Ok(answer.into_body())
    }

    /// How many objects a collection holds, without reading them.
    pub async fn count(&self, collection: &str) -> Result<u64> {
        #[derive(serde::Deserialize)]
        struct List {
            metadata: Metadata,
            items: Vec<serde::de::IgnoredAny>,
        }
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            remaining_item_count: Option<u64>,
        }
        let body = self.send(Call::get(&format!("{collection}?limit=1"), Encoding::Json)).await?;
        let list: List = serde_json::from_slice(&body)?;
        Ok(list.items.len() as u64 + list.metadata.remaining_item_count.unwrap_or(0))
    }

    /// The revision of a collection now.
    pub async fn revision(&self, collection: &str) -> Result<String> {
        let body = self.send(Call::get(&format!("{collection}?limit=1"), Encoding::Json)).await?;
        let list: serde_json::Value = serde_json::from_slice(&body)?;
        Ok(list["metadata"]["resourceVersion"].as_str().context("a list without a revision")?.to_string())
    }
}
