//! Auditing: who did what, told to a log and to a server, as much as the policy wants.
//!
//! Invariants: without a policy, or where it says None, a request pays for one look at it; what is told of a request is
//! never more than its level allows; queues are bounded, and what they cannot take is counted.

mod body;
mod event;
mod flags;
mod log;
mod policy;
mod sinks;
mod webhook;

pub use flags::AuditFlags;

use crate::families::Counters;
use crate::request::RequestInfo;
use crate::respond::Body;
use anyhow::{Context, Result};
use bytes::Bytes;
use event::Event;
use flags::Mode;
use http::{HeaderMap, Response, StatusCode};
use parking_lot::Mutex;
use policy::{Attributes, Level, Policy, Stage, Verdict};
use registry::{Annotations, UserInfo};
use serde_json::{Value, json};
use sinks::Sinks;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// Addresses of proxies that are told.
const SOURCES_MAX: usize = 16;

pub fn micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// The auditor of one server.
pub struct Auditor {
    policy: Policy,
    sinks: Sinks,
    strict: bool,
    events: Counters,
    levels: Counters,
    rejected: Counters,
}

impl Auditor {
    /// `None` where there is no policy, or nowhere to tell anything.
    pub fn open(flags: &AuditFlags, shutdown: &CancellationToken) -> Result<Option<Arc<Self>>> {
        let Some(path) = &flags.audit_policy_file else { return Ok(None) };
        let flag = "--audit-policy-file";
        let text = std::fs::read(path).with_context(|| format!("{flag}: cannot read {}", path.display()))?;
        let policy =
            Policy::parse(&text).map_err(|why| anyhow::anyhow!("{flag}: {}: {why}", path.display()))?;
        let sinks = Sinks::open(flags, shutdown)?;
        if sinks.is_empty() {
            return Ok(None);
        }
        let strict = [flags.audit_log_mode, flags.audit_webhook_mode].contains(&Mode::BlockingStrict);
        Ok(Some(Arc::new(Auditor {
            policy,
            sinks,
            strict,
            events: Counters::default(),
            levels: Counters::default(),
            rejected: Counters::default(),
        })))
    }

    fn evaluate(&self, user: Option<&UserInfo>, info: &RequestInfo) -> &Verdict {
        let verdict = self.policy.evaluate(&Attributes {
            user,
            verb: &info.verb,
            is_resource: info.is_resource,
            path: &info.path,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
        });
        self.levels.one(&[("level", verdict.level.name())]);
        verdict
    }

    /// Begins the record of a request; `None` where the policy wants none. `false`: the event could not be stored, and
    /// a strict mode refuses the request for it.
    pub async fn begin(
        self: &Arc<Self>,
        user: Option<&UserInfo>,
        info: &RequestInfo,
        arrival: &Arrival,
        headers: &HeaderMap,
    ) -> (Option<Arc<Record>>, bool) {
        let verdict = self.evaluate(user, info).clone();
        if verdict.level == Level::None {
            return (None, true);
        }
        let event = Event {
            id: arrival.id.clone(),
            uri: arrival.uri.clone(),
            verb: info.verb.clone(),
            user: user.cloned().unwrap_or_default(),
            source_ips: sources(headers, arrival.address),
            agent: crate::filters::header(headers, "user-agent").to_string(),
            object: event::object_reference(info),
            received: arrival.received,
            ..Event::default()
        };
        let annotations = Arc::new(Annotations::new(verdict.level.annotations()));
        let record =
            Arc::new(Record { auditor: Arc::clone(self), verdict, event: Mutex::new(event), annotations });
        let stored = record.tell(Stage::RequestReceived).await || !self.strict;
        if !stored {
            self.rejected.add(String::new(), 1.0);
        }
        (Some(record), stored)
    }

    pub fn render(&self, out: &mut String) {
        self.events.render(out, "apiserver_audit_event_total", "Audit events made.");
        self.levels.render(
            out,
            "apiserver_audit_level_total",
            "Requests by what the policy wants to know of them.",
        );
        self.sinks.errors.render(out, "apiserver_audit_error_total", "Audit events that were lost.");
        let name = "apiserver_audit_requests_rejected_total";
        self.rejected.render(out, name, "Requests refused because they could not be audited.");
    }
}

/// How a request came in, before anything was made of it.
#[derive(Clone, Debug, Default)]
pub struct Arrival {
    pub id: String,
    pub uri: String,
    pub address: Option<IpAddr>,
    /// Microseconds since 1970.
    pub received: i64,
}

/// Addresses of proxies as they tell them, then the one the connection came from.
fn sources(headers: &HeaderMap, peer: Option<IpAddr>) -> Vec<String> {
    let mut all: Vec<IpAddr> = crate::filters::header(headers, "x-forwarded-for")
        .split(',')
        .filter_map(|text| text.trim().parse().ok())
        .take(SOURCES_MAX)
        .collect();
    if let Ok(real) = crate::filters::header(headers, "x-real-ip").trim().parse()
        && !all.contains(&real)
    {
        all.push(real);
    }
    // Components of this process come from nowhere else.
    let peer = peer.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    if all.last() != Some(&peer) {
        all.push(peer);
    }
    all.iter().map(ToString::to_string).collect()
}

/// One request on its way through the server.
pub struct Record {
    auditor: Arc<Auditor>,
    verdict: Verdict,
    event: Mutex<Event>,
    pub annotations: Arc<Annotations>,
}

impl Record {
    pub fn impersonated(&self, user: &UserInfo) {
        self.event.lock().impersonated = Some(user.clone());
    }

    /// Whether answers must come as text, uncompressed, so that they can be told.
    pub fn wants_response(&self) -> bool {
        self.verdict.level >= Level::RequestResponse
    }

    /// Takes the body of a request in.
    pub fn request_body(&self, body: &Bytes, content_type: &str) {
        let mut event = self.event.lock();
        let creates = event.verb == "create" && event.object.is_some();
        if body.is_empty() || (self.verdict.level < Level::Request && !creates) {
            return;
        }
        let Some(mut object) = body::value(body, content_type) else { return };
        if let Some(reference) = event.object.as_mut().filter(|_| !content_type.contains("patch")) {
            event::complete_reference(reference, &object);
        }
        if self.verdict.level >= Level::Request {
            if self.verdict.omit_managed_fields {
                event::drop_managed_fields(&mut object);
            }
            event.request_object = Some(object);
        }
    }

    /// Makes the event of a stage; whether it was taken.
    pub async fn tell(&self, stage: Stage) -> bool {
        if self.verdict.omit_stages.contains(&stage) {
            return true;
        }
        let body = {
            let event = self.event.lock();
            event::body(&event, self.verdict.level, stage, micros(), &self.annotations.all())
        };
        self.auditor.events.add(String::new(), 1.0);
        self.auditor.sinks.take(body).await
    }

    fn set_status(&self, code: StatusCode, status: Option<&Value>) {
        let mut out = json!({"metadata": {}, "code": code.as_u16()});
        if let Some(status) = status {
            for name in ["status", "message", "reason", "details"] {
                if let Some(value) = status.get(name) {
                    out[name] = value.clone();
                }
            }
        }
        self.event.lock().status = Some(out);
    }

    /// The request made the server panic.
    pub async fn panicked(&self) {
        let status = json!({"status": "Failure", "reason": "InternalError", "message": "APIServer panic'd"});
        self.set_status(StatusCode::INTERNAL_SERVER_ERROR, Some(&status));
        self.tell(Stage::Panic).await;
    }

    /// Nobody knows who asked.
    pub async fn unauthenticated(&self, message: &str) {
        let status = json!({"status": "Failure", "reason": "Unauthorized", "message": message});
        self.set_status(StatusCode::UNAUTHORIZED, Some(&status));
        self.tell(Stage::ResponseStarted).await;
    }

    /// Tells of the answer: now, or for a long one now and again at its end.
    pub async fn answered(self: Arc<Self>, response: Response<Body>, long: bool) -> Response<Body> {
        let code = response.status();
        if long && !code.is_client_error() && !code.is_server_error() {
            self.set_status(code, None);
            self.tell(Stage::ResponseStarted).await;
            return body::until_end(response, self);
        }
        let wanted = code.is_client_error() || code.is_server_error() || self.wants_response();
        let (response, object) = if wanted { body::read(response).await } else { (response, None) };
        let is_status = object.as_ref().is_some_and(|object| object["kind"] == "Status");
        self.set_status(code, object.as_ref().filter(|_| is_status));
        if let Some(mut object) = object.filter(|_| self.wants_response()) {
            if self.verdict.omit_managed_fields {
                event::drop_managed_fields(&mut object);
            }
            let mut event = self.event.lock();
            if event.object.is_some() {
                event.response_object = Some(object);
            }
        }
        if long {
            self.tell(Stage::ResponseStarted).await;
        }
        self.tell(Stage::ResponseComplete).await;
        response
    }
}
