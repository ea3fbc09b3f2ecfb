//! Paths that are no resources: discovery, version, health, metrics, keys, and the index of them all.

use crate::Api;
use crate::filters::{self, Passed};
use crate::negotiate::{self, Encoding};
use crate::respond::{self, Body};
use api::errors::ApiError;
use api::meta::v1::{APIGroup, APIGroupList};
use http::{HeaderValue, Response, StatusCode, header};
use std::sync::Arc;

/// The release whose API this is. `gitVersion` is what clients parse.
pub const MINOR: &str = "36";
pub const GIT_VERSION: &str = "v1.36.0+timonel";

const AGGREGATED: &str = "APIGroupDiscoveryList";

impl Api {
    pub(crate) async fn path(self: Arc<Self>, passed: Passed) -> Result<Response<Body>, ApiError> {
        let path = passed.info.path.clone();
        let trimmed = path.trim_end_matches('/');
        if matches!(passed.method.as_str(), "GET" | "HEAD") {
            if let Some(response) = self.health.answer(trimmed, &passed.query) {
                return Ok(response);
            }
        } else if !matches!(passed.method.as_str(), "OPTIONS") {
            return Ok(method_not_allowed());
        }
        let parts: Vec<&str> = trimmed.split('/').skip(1).collect();
        match parts.as_slice() {
            [] => Ok(self.index(&passed)),
            ["version"] => Ok(respond::bytes(StatusCode::OK, negotiate::JSON, version())),
            ["api"] => Ok(self.discovery_answer(&passed, true)),
            ["apis"] => Ok(self.discovery_answer(&passed, false)),
            ["apis", group] => match self.group_list().into_iter().find(|known| known.name == *group) {
                Some(group) => Ok(respond::message(StatusCode::OK, &group, passed.output)),
                None => Ok(filters::no_such_path()),
            },
            ["api", version] => Ok(self.resource_list(&passed, "", version)),
            ["apis", group, version] => Ok(self.resource_list(&passed, group, version)),
            ["openapi", rest @ ..] => {
                let owner = match rest {
                    ["v3", path @ ..] => self.aggregator.openapi_owner(&path.join("/")),
                    _ => None,
                };
                match owner {
                    Some(remote) => Arc::clone(&self).proxy_aggregated(passed, remote).await,
                    None => Ok(self.kinds.served().openapi.answer(
                        rest,
                        &passed.headers,
                        &passed.query,
                        &self.aggregator,
                    )),
                }
            }
            ["metrics"] => {
                let mut text = self.metrics.render(&self.registry.object_counts());
                self.webhooks.metrics.render(&mut text);
                self.aggregator.metrics.render(&mut text);
                self.fairness.iter().for_each(|fairness| fairness.render(&mut text));
                self.auditor.iter().for_each(|auditor| auditor.render(&mut text));
                self.encryption.iter().for_each(|encryption| encryption.render(&mut text));
                Ok(respond::bytes(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text))
            }
            ["debug", "api_priority_and_fairness", what] => {
                match self.fairness.as_ref().and_then(|fairness| fairness.dump(what)) {
                    Some(text) => Ok(respond::text(StatusCode::OK, text)),
                    None => Ok(filters::no_such_path()),
                }
            }
            [".well-known", "openid-configuration"] => Ok(self.key_document(false)),
            ["openid", "v1", "jwks"] => Ok(self.key_document(true)),
            _ => Ok(filters::no_such_path()),
        }
    }

    fn resource_list(&self, passed: &Passed, group: &str, version: &str) -> Response<Body> {
        match self.kinds.served().discovery.resource_list(group, version) {
            Some(list) => respond::message(StatusCode::OK, &list, passed.output),
            None => filters::no_such_path(),
        }
    }

    /// `/api` or `/apis`: the aggregated document for who asks for it, else the old one.
    fn discovery_answer(&self, passed: &Passed, core: bool) -> Response<Body> {
        let accept = filters::header(&passed.headers, "accept");
        let wanted = negotiate::clauses(accept).into_iter().find_map(|clause| {
            let encoding = match (clause.kind, clause.sub) {
                ("application", "json") => Encoding::Json,
                ("application", "vnd.kubernetes.protobuf") => Encoding::Protobuf,
                ("*", "*") | ("application", "*" | "yaml") => return Some(None),
                _ => return None,
            };
            match clause.parameter("as") {
                None => Some(None),
                Some(AGGREGATED)
                    if clause.parameter("g") == Some("apidiscovery.k8s.io")
                        && clause.parameter("v") == Some("v2") =>
                {
                    Some(Some(encoding))
                }
                Some(_) => None,
            }
        });
        let served = self.kinds.served();
        let discovery = &served.discovery;
        let Some(Some(encoding)) = wanted else {
            return if core {
                respond::message(StatusCode::OK, &discovery.api_versions(), passed.output)
            } else {
                let list = APIGroupList { groups: self.group_list(), ..APIGroupList::default() };
                respond::message(StatusCode::OK, &list, passed.output)
            };
        };
        let merged = (!core && !self.aggregator.is_idle()).then(|| self.aggregator.merged(discovery));
        let document = merged.as_deref().unwrap_or_else(|| discovery.aggregated(core));
        let media_type = format!("{};g=apidiscovery.k8s.io;v=v2;as={AGGREGATED}", encoding.media_type());
        let unchanged = filters::header(&passed.headers, "if-none-match") == document.etag;
        let mut response = if unchanged {
            respond::bytes(StatusCode::NOT_MODIFIED, &media_type, bytes::Bytes::new())
        } else {
            let body = if encoding == Encoding::Json { &document.json } else { &document.protobuf };
            respond::bytes(StatusCode::OK, &media_type, body.clone())
        };
        let headers = response.headers_mut();
        if let Ok(etag) = HeaderValue::from_str(&document.etag) {
            headers.insert(header::ETAG, etag);
        }
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
        response
    }

    /// The groups of this server and of those behind it.
    fn group_list(&self) -> Vec<APIGroup> {
        let mut groups = self.kinds.served().discovery.group_list().groups;
        self.aggregator.add_groups(&mut groups);
        groups
    }

    /// The list of paths at the root.
    fn index(&self, passed: &Passed) -> Response<Body> {
        let mut paths: Vec<String> =
            ["/.well-known/openid-configuration", "/api", "/api/v1", "/apis", "/apis/"]
                .map(str::to_string)
                .to_vec();
        for group in self.kinds.served().discovery.groups.iter().filter(|group| !group.name.is_empty()) {
            paths.push(format!("/apis/{}", group.name));
            paths.extend(
                group.versions.iter().map(|version| format!("/apis/{}/{}", group.name, version.name)),
            );
        }
        let rest = [
            "/healthz",
            "/livez",
            "/metrics",
            "/openapi/v2",
            "/openapi/v3",
            "/openapi/v3/",
            "/openid/v1/jwks",
        ];
        paths.extend(rest.map(str::to_string));
        paths.extend(["/readyz", "/version"].map(str::to_string));
        paths.sort();
        let body = serde_json::json!({ "paths": paths }).to_string();
        let _ = passed;
        respond::bytes(StatusCode::OK, negotiate::JSON, respond::indent(body.as_bytes()))
    }

    fn key_document(&self, keys: bool) -> Response<Body> {
        let Some(verifier) = &self.authn.verifier else { return filters::no_such_path() };
        let (media_type, body) = if keys {
            ("application/jwk-set+json", verifier.jwks())
        } else {
            (negotiate::JSON, verifier.discovery(&self.jwks_uri))
        };
        let mut response = respond::bytes(StatusCode::OK, media_type, body);
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
        response
    }
}

/// What a router without the method answers.
pub fn method_not_allowed() -> Response<Body> {
    respond::text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed")
}

fn version() -> Vec<u8> {
    let platform = format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
    let document = format!(
        r#"{{"major":"1","minor":"{MINOR}","emulationMajor":"1","emulationMinor":"{MINOR}","minCompatibilityMajor":"1","minCompatibilityMinor":"35","gitVersion":"{GIT_VERSION}","gitCommit":"","gitTreeState":"clean","buildDate":"1970-01-01T00:00:00Z","goVersion":"","compiler":"rustc","platform":"{platform}"}}"#
    );
    respond::indent(document.as_bytes())
}
