//! What every request passes before a verb: panic recovery, authentication, impersonation, limits, authorization, time.
//!
//! Invariant: nothing below `dispatch` runs for a request that authorization did not allow.

use crate::audit::{self, Arrival, Auditor, Record};
use crate::authn::{self, Peer};
use crate::body::RequestBody;
use crate::fairness::{Asked, Class, Fairness, Place};
use crate::metrics::RequestLabels;
use crate::negotiate::{self, Forms, Output};
use crate::query::Query;
use crate::request::RequestInfo;
use crate::respond::{self, Body};
use crate::{Api, limits};
use api::errors::{ApiError, Reason};
use flowcontrol::Digest;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use registry::{FieldValidation, UserInfo};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How a request came in.
pub enum Caller {
    Wire(Peer),
    /// One of the process's own components, by its identity.
    InProcess(UserInfo),
}

/// A request that has passed the filters.
pub struct Passed {
    pub info: RequestInfo,
    pub query: Query,
    pub request: registry::Request,
    pub output: Output,
    /// Which forms the objects have that are asked for; known once the resource is.
    pub forms: Forms,
    pub headers: HeaderMap,
    pub method: http::Method,
    pub body: RequestBody,
    /// What hyper hands a connection over by, for exec, attach and port-forward.
    pub extensions: http::Extensions,
    pub audit: Option<Arc<Record>>,
}

/// What a request leaves behind on its way through the filters.
struct Traces {
    audit: Option<Arc<Audit>>,
    class: OnceLock<Class>,
}

/// What is audited of a request: how it came in, and its record once it is known who asked.
struct Audit {
    auditor: Arc<Auditor>,
    arrival: Arrival,
    record: OnceLock<Arc<Record>>,
}

impl Audit {
    fn new(
        auditor: &Arc<Auditor>,
        caller: &Caller,
        request: &Request<RequestBody>,
        id: Option<&HeaderValue>,
    ) -> Arc<Self> {
        let address = match caller {
            Caller::Wire(peer) => peer.address,
            Caller::InProcess(_) => None,
        };
        let arrival = Arrival {
            id: id.and_then(|id| id.to_str().ok()).unwrap_or_default().to_string(),
            uri: request.uri().path_and_query().map_or(String::new(), |uri| uri.to_string()),
            address,
            received: audit::micros(),
        };
        Arc::new(Audit { auditor: Arc::clone(auditor), arrival, record: OnceLock::new() })
    }

    /// Begins the record of an authenticated request.
    async fn begin(
        &self,
        user: &UserInfo,
        info: &RequestInfo,
        headers: &mut HeaderMap,
    ) -> Result<Option<Arc<Record>>, ApiError> {
        let (record, stored) = self.auditor.begin(Some(user), info, &self.arrival, headers).await;
        if let Some(record) = &record {
            let _ = self.record.set(Arc::clone(record));
            if record.wants_response() {
                // What is compressed could not be told.
                headers.remove(http::header::ACCEPT_ENCODING);
            }
        }
        if stored { Ok(record) } else { Err(ApiError::internal("failed to store audit event")) }
    }

    /// Tells of a request whose credentials do not hold.
    async fn unauthenticated(&self, info: &RequestInfo, headers: &HeaderMap, certificate: bool) {
        let (record, _) = self.auditor.begin(None, info, &self.arrival, headers).await;
        let Some(record) = record else { return };
        let authorization = header(headers, "authorization").to_ascii_lowercase();
        let mut tried: Vec<&str> = ["basic", "bearer"]
            .into_iter()
            .filter(|kind| authorization.starts_with(&format!("{kind} ")))
            .collect();
        if certificate {
            tried.push("x509");
        }
        let message = if tried.is_empty() {
            "Authentication failed, no credentials provided".to_string()
        } else {
            format!("Authentication failed, attempted: {}", tried.join(", "))
        };
        record.unauthenticated(&message).await;
    }
}

/// The query parameter `timeout` may shorten a request's time, never lengthen it.
fn time_limit(query: &Query, most: Duration) -> Result<Duration, ApiError> {
    match query.first("timeout").filter(|text| !text.is_empty()) {
        None => Ok(most),
        Some(text) => match crate::options::duration(text) {
            Ok(Duration::ZERO) => Ok(most),
            Ok(wanted) => Ok(wanted.min(most)),
            Err(error) => {
                Err(ApiError::bad_request(format!("invalid timeout specified in the request URL - {error}")))
            }
        },
    }
}

impl Api {
    /// Answers one request, whatever it is and whatever goes wrong.
    pub async fn handle(self: Arc<Self>, caller: Caller, request: Request<RequestBody>) -> Response<Body> {
        let started = Instant::now();
        let head = request.method() == http::Method::HEAD;
        let audit_id = request
            .headers()
            .get("Audit-Id")
            .filter(|id| id.len() <= 64)
            .cloned()
            .or_else(|| HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).ok());
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let agent = header(request.headers(), "user-agent").to_string();
        let accept = request.headers().get(http::header::ACCEPT).and_then(|value| value.to_str().ok());
        let fallback = error_output(accept, &query, &agent);
        let info = RequestInfo::parse(request.method(), request.uri().path(), &query);
        let audit =
            self.auditor.as_ref().map(|auditor| Audit::new(auditor, &caller, &request, audit_id.as_ref()));
        let mut response = match info {
            Err(text) => respond::failure(&ApiError::bad_request(text), fallback),
            Ok(info) => {
                let labels = labels(&info);
                let long_running = info.is_long_running(&query);
                let dry_run = query.first("dryRun").is_some();
                let api = Arc::clone(&self);
                let work: BoxFuture<'static, Response<Body>> =
                    Box::pin(api.filtered(caller, request, query, info, fallback, audit.clone()));
                let work = AssertUnwindSafe(work);
                let record = || audit.as_ref().and_then(|audit| audit.record.get());
                let response = match work.catch_unwind().await {
                    Ok(response) => match record() {
                        Some(record) => Arc::clone(record).answered(response, long_running).await,
                        None => response,
                    },
                    Err(_) => {
                        tracing::error!(
                            verb = labels.verb,
                            resource = labels.resource,
                            "Panicked in a request"
                        );
                        if let Some(record) = record() {
                            record.panicked().await;
                        }
                        let text = "This request caused apiserver to panic. Look in the logs for details.";
                        respond::failure(&ApiError::internal(text), fallback)
                    }
                };
                let took = (!long_running).then(|| started.elapsed());
                self.metrics.request(&labels, dry_run, response.status().as_u16(), took);
                tracing::debug!(
                    verb = labels.verb,
                    resource = labels.resource,
                    code = response.status().as_u16(),
                    agent,
                    "Answered a request"
                );
                response
            }
        };
        if let Some(id) = audit_id {
            response.headers_mut().insert("Audit-Id", id);
        }
        if head {
            *response.body_mut() = respond::full(bytes::Bytes::new());
        }
        response
    }

    async fn filtered(
        self: Arc<Self>,
        caller: Caller,
        request: Request<RequestBody>,
        query: Query,
        info: RequestInfo,
        fallback: Output,
        audit: Option<Arc<Audit>>,
    ) -> Response<Body> {
        let traces = Traces { audit, class: OnceLock::new() };
        let result = Arc::clone(&self).passed(caller, request, query, info, fallback, &traces).await;
        let mut response = match result {
            Ok(response) => response,
            Err(error) => {
                let mut response = respond::failure(&error, fallback);
                if error.reason == Reason::Unauthorized && !self.authn.anonymous {
                    let challenge = HeaderValue::from_static("Bearer realm=\"kubernetes\"");
                    response.headers_mut().insert(http::header::WWW_AUTHENTICATE, challenge);
                }
                response
            }
        };
        if let Some(class) = traces.class.into_inner() {
            let headers = response.headers_mut();
            headers.insert("X-Kubernetes-PF-FlowSchema-UID", class.schema);
            headers.insert("X-Kubernetes-PF-PriorityLevel-UID", class.level);
        }
        response
    }

    async fn passed(
        self: Arc<Self>,
        caller: Caller,
        request: Request<RequestBody>,
        query: Query,
        info: RequestInfo,
        fallback: Output,
        traces: &Traces,
    ) -> Result<Response<Body>, ApiError> {
        let Traces { audit, class } = traces;
        let (mut parts, body) = request.into_parts();
        let metrics = Arc::clone(&self.metrics);
        let own = matches!(caller, Caller::InProcess(_));
        let user = match caller {
            Caller::InProcess(user) => user,
            Caller::Wire(peer) => {
                let result = self.authn.authenticate(&peer, &parts.headers).await;
                let outcome = if result.is_ok() { "success" } else { "failure" };
                *self.metrics.authentication.lock().entry(outcome).or_default() += 1;
                if let (Err(_), Some(audit)) = (&result, audit) {
                    audit.unauthenticated(&info, &parts.headers, peer.certificate.is_some()).await;
                }
                result?
            }
        };
        let record = match audit {
            Some(audit) => audit.begin(&user, &info, &mut parts.headers).await?,
            None => None,
        };
        let asker = record.as_ref().map(|_| user.name.clone());
        let user = self.impersonate(user, &parts.headers)?;
        if let (Some(record), Some(asker)) = (&record, asker)
            && parts.headers.contains_key("impersonate-user")
            && asker != user.name
        {
            record.impersonated(&user);
        }
        let long_running = info.is_long_running(&query);
        let _place = match &self.fairness {
            // Components of this process are its own, and streams are never counted; a watch is, until it has begun.
            Some(_) if own || (long_running && info.verb != "watch") => None,
            None => None,
            Some(fairness) => match self.queue(fairness, &user, &info, &query, class).await {
                Ok(place) => Some(place),
                Err(refusal) => return Ok(refusal),
            },
        };
        let privileged = user.groups.iter().any(|group| group == authz::PRIVILEGED_GROUP);
        let _slot = if self.fairness.is_some() || long_running || privileged || own {
            None
        } else {
            Some(self.limits.enter(limits::Kind::of(&info.verb), metrics).await?)
        };
        let allowed = self.access.authorize(&user, &info);
        let annotations = record.as_ref().map(|record| Arc::clone(&record.annotations)).unwrap_or_default();
        if annotations.wanted() {
            let (decision, reason) = match &allowed {
                Ok(reason) => ("allow", reason.as_str()),
                Err(error) => ("forbid", error.message.rsplit_once(": ").map_or("", |(_, why)| why)),
            };
            annotations.add("authorization.k8s.io/decision", decision);
            annotations.add("authorization.k8s.io/reason", reason);
        }
        allowed?;
        let agent = header(&parts.headers, "user-agent").to_string();
        let context = registry::Request {
            user,
            user_agent: agent,
            field_manager: query.first("fieldManager").unwrap_or_default().to_string(),
            dry_run: false,
            field_validation: FieldValidation::default(),
            annotations,
            ..registry::Request::default()
        };
        let extensions = std::mem::take(&mut parts.extensions);
        let passed = Passed {
            info,
            query,
            request: context,
            output: fallback,
            forms: Forms::All,
            headers: parts.headers,
            method: parts.method,
            body,
            extensions,
            audit: record,
        };
        if long_running {
            return Arc::clone(&self).dispatch(passed).await;
        }
        let limit = time_limit(&passed.query, self.options.request_timeout)?;
        match tokio::time::timeout(limit, Arc::clone(&self).dispatch(passed)).await {
            Ok(result) => result,
            Err(_) => Err(ApiError::timeout("request did not complete within the allotted timeout", 0)),
        }
    }

    /// Waits for the seats of a request; a refusal is a 429 in upstream's words.
    async fn queue(
        &self,
        fairness: &Arc<Fairness>,
        user: &UserInfo,
        info: &RequestInfo,
        query: &Query,
        class: &OnceLock<Class>,
    ) -> Result<Place, Response<Body>> {
        let digest = Digest {
            user: &user.name,
            groups: &user.groups,
            verb: &info.verb,
            is_resource: info.is_resource,
            path: &info.path,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
        };
        let width = |most: u64| {
            let resource = self.kinds.resource(&info.group, &info.version, &info.resource);
            fairness.estimate(&Asked { info, query, resource }, most)
        };
        let (found, place) = fairness.enter(&digest, width).await;
        let _ = class.set(found);
        place.map_err(|_| {
            let text = "Too many requests, please try again later.\n";
            let mut response = respond::text(StatusCode::TOO_MANY_REQUESTS, text);
            response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
            response
        })
    }

    /// Takes on the user that a request asks to act as, if the caller may.
    fn impersonate(&self, user: UserInfo, headers: &HeaderMap) -> Result<UserInfo, ApiError> {
        let texts = |name: &str| -> Vec<String> {
            let all = headers.get_all(name).iter();
            all.filter_map(|value| value.to_str().ok()).map(str::to_string).collect()
        };
        let (name, groups) = (header(headers, "impersonate-user"), texts("impersonate-group"));
        let uid = header(headers, "impersonate-uid");
        let mut extra: std::collections::BTreeMap<String, Vec<String>> = Default::default();
        for (header, value) in headers {
            if let (Some(key), Ok(value)) =
                (header.as_str().strip_prefix("impersonate-extra-"), value.to_str())
            {
                let key = crate::query::percent_decode(key, false).unwrap_or_else(|| key.into());
                extra.entry(key).or_default().push(value.to_string());
            }
        }
        if name.is_empty() {
            if groups.is_empty() && uid.is_empty() && extra.is_empty() {
                return Ok(user);
            }
            return Err(ApiError::internal(
                "requested impersonation of groups, uid or extra without impersonating a user",
            ));
        }
        let mut next = UserInfo { name: name.into(), uid: uid.into(), groups, extra };
        self.access.may_impersonate(&user, &next)?;
        if let Some((namespace, _)) = pki::token::split_user_name(&next.name)
            && next.groups.is_empty()
        {
            next.groups = pki::token::groups(namespace).to_vec();
        }
        let everyone =
            if next.name == authn::ANONYMOUS { authn::UNAUTHENTICATED } else { authn::AUTHENTICATED };
        if !next.groups.iter().any(|group| group == everyone) {
            next.groups.push(everyone.into());
        }
        Ok(next)
    }
}

/// A header's text; empty when absent or not text.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// How failures are written: as the request asks, else as JSON.
fn error_output(accept: Option<&str>, query: &Query, agent: &str) -> Output {
    let output = negotiate::output(accept, query, agent, false, Forms::All).unwrap_or(Output::JSON);
    Output { shape: negotiate::Shape::Object, ..output }
}

pub fn labels(info: &RequestInfo) -> RequestLabels {
    let scope = if !info.is_resource {
        ""
    } else if !info.name.is_empty() {
        "resource"
    } else if !info.namespace.is_empty() {
        "namespace"
    } else {
        "cluster"
    };
    let verb = match info.verb.as_str() {
        "create" => "POST".into(),
        "update" => "PUT".into(),
        other => other.to_ascii_uppercase(),
    };
    RequestLabels {
        verb,
        group: info.group.clone(),
        version: info.version.clone(),
        resource: info.resource.clone(),
        subresource: if info.is_resource {
            info.subresource.clone()
        } else {
            subresource_of_path(&info.path)
        },
        scope,
    }
}

/// Paths outside of resources are told apart by their first segment only, so that nobody can fill the metrics.
fn subresource_of_path(path: &str) -> String {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    const KNOWN: [&str; 10] = [
        "healthz",
        "livez",
        "readyz",
        "metrics",
        "version",
        "openapi",
        "api",
        "apis",
        "openid",
        ".well-known",
    ];
    if KNOWN.contains(&first) { format!("/{first}") } else { String::new() }
}

/// A redirect-free 404 for paths that do not exist.
pub fn no_such_path() -> Response<Body> {
    respond::text(StatusCode::NOT_FOUND, "404 page not found\n")
}
