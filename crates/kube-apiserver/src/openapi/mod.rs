//! OpenAPI documents of what is served, made from the table when somebody first asks for them.

mod docs;
mod gnostic;
mod paths;
mod schema;

use crate::aggregation::Aggregator;
use crate::filters;
use crate::negotiate::{self, JSON};
use crate::query::Query;
use crate::respond::{self, Body};
use apiextensions::Version;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use resources::Resource;
use schema::{Definitions, Dialect};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

const PROTOBUF_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// Subtypes by which the protobuf form is asked for; the first is the older name of the second.
const PROTOBUF_SUBTYPES: [&str; 2] =
    ["com.github.proto-openapi.spec.v2@v1.0+protobuf", "com.github.proto-openapi.spec.v2.v1.0+protobuf"];

/// The v2 document, as JSON and as protobuf.
pub struct Documents {
    text: Document,
    protobuf: Document,
}

impl Documents {
    pub fn new(document: Map<String, Value>) -> Self {
        let protobuf = Document::new(gnostic::document(&document));
        Documents { text: Document::new(Value::from(document).to_string().into_bytes()), protobuf }
    }
}

struct Document {
    body: Bytes,
    etag: String,
}

impl Document {
    fn new(body: Vec<u8>) -> Self {
        let etag = Sha256::digest(&body).iter().map(|byte| format!("{byte:02X}")).collect();
        Document { body: body.into(), etag }
    }
}

/// The resources of one group and version, and the document about them once somebody has asked for it.
struct Group {
    resources: Vec<&'static dyn Resource>,
    /// The versions that the definitions of custom resources had, so that a change of one is seen.
    custom: Vec<Arc<Version>>,
    hash: String,
    v3: OnceLock<Document>,
}

impl Group {
    fn new(resources: Vec<&'static dyn Resource>) -> Self {
        let custom: Vec<Arc<Version>> =
            resources.iter().filter_map(|resource| resource.custom()).map(|row| row.current()).collect();
        let mut hash = Sha256::new();
        hash.update(crate::paths::GIT_VERSION);
        for resource in &resources {
            hash.update(resource.plural());
        }
        for version in &custom {
            hash.update(&version.source);
        }
        let hash = hash.finalize().iter().map(|byte| format!("{byte:02X}")).collect();
        Group { resources, custom, hash, v3: OnceLock::new() }
    }

    fn is_of(&self, resources: &[&'static dyn Resource]) -> bool {
        let same = |a: &&'static dyn Resource, b: &&'static dyn Resource| std::ptr::addr_eq(*a, *b);
        let mut current = resources.iter().filter_map(|resource| resource.custom()).map(|row| row.current());
        self.resources.len() == resources.len()
            && self.resources.iter().zip(resources).all(|(a, b)| same(a, b))
            && self.custom.iter().all(|known| current.next().is_some_and(|now| Arc::ptr_eq(known, &now)))
    }
}

/// The documents of one server.
pub struct OpenApi {
    /// By `api/v1`, `apis/apps/v1`.
    groups: BTreeMap<String, Arc<Group>>,
    /// Of all groups' hashes: what the merged v2 document is of.
    hash: String,
    v2: OnceLock<Documents>,
}

impl OpenApi {
    /// What stays as it was in `before` is not made again.
    pub fn new(resources: Vec<&'static dyn Resource>, before: Option<&OpenApi>) -> Self {
        let mut groups: BTreeMap<String, Vec<&'static dyn Resource>> = BTreeMap::new();
        for resource in resources {
            let gvk = resource.gvk().api_version();
            let root = if resource.group().is_empty() { "api" } else { "apis" };
            groups.entry(format!("{root}/{gvk}")).or_default().push(resource);
        }
        let group = |(path, resources): (String, Vec<&'static dyn Resource>)| {
            let known = before.and_then(|before| before.groups.get(&path));
            let group = match known.filter(|known| known.is_of(&resources)) {
                Some(known) => Arc::clone(known),
                None => Arc::new(Group::new(resources)),
            };
            (path, group)
        };
        let groups: BTreeMap<String, Arc<Group>> = groups.into_iter().map(group).collect();
        let mut hash = Sha256::new();
        groups.values().for_each(|group| hash.update(&group.hash));
        let hash = hash.finalize().iter().map(|byte| format!("{byte:02X}")).collect();
        OpenApi { groups, hash, v2: OnceLock::new() }
    }

    /// Answers what follows `/openapi/`.
    pub fn answer(
        &self,
        rest: &[&str],
        headers: &HeaderMap,
        query: &Query,
        aggregator: &Aggregator,
    ) -> Response<Body> {
        match rest {
            ["v2"] => self.answer_v2(headers, aggregator),
            ["v3"] => {
                let mut index = self.index();
                aggregator.add_openapi_paths(&mut index);
                send(&Document::new(index.to_string().into_bytes()), JSON, headers, false)
            }
            ["v3", path @ ..] => match self.version3(&path.join("/")) {
                Some(document) => send(document, JSON, headers, query.first("hash").is_some()),
                None => filters::no_such_path(),
            },
            _ => filters::no_such_path(),
        }
    }

    fn answer_v2(&self, headers: &HeaderMap, aggregator: &Aggregator) -> Response<Body> {
        if aggregator.is_idle() {
            return negotiate_v2(self.v2.get_or_init(|| Documents::new(self.version2())), headers);
        }
        negotiate_v2(&aggregator.merged_v2(&self.hash, || self.version2()), headers)
    }

    fn version2(&self) -> Map<String, Value> {
        let mut definitions = Definitions::new(Dialect::V2);
        let mut paths = Map::new();
        for group in self.groups.values() {
            paths::add(&mut paths, &mut definitions, &group.resources);
        }
        let document = json!({
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": crate::paths::GIT_VERSION},
            "paths": paths,
            "definitions": definitions.all,
            "securityDefinitions": {"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header",
                "description": "Bearer Token authentication"}},
            "security": [{"BearerToken": []}],
        });
        match document {
            Value::Object(object) => object,
            _ => Map::new(),
        }
    }

    fn version3(&self, path: &str) -> Option<&Document> {
        let group = self.groups.get(path)?;
        Some(group.v3.get_or_init(|| {
            let mut definitions = Definitions::new(Dialect::V3);
            let mut paths = Map::new();
            paths::add(&mut paths, &mut definitions, &group.resources);
            let document = json!({
                "openapi": "3.0.0",
                "info": {"title": "Kubernetes", "version": crate::paths::GIT_VERSION},
                "paths": paths,
                "components": {
                    "schemas": definitions.all,
                    "securitySchemes": {"BearerToken": {"type": "apiKey", "name": "authorization",
                        "in": "header", "description": "Bearer Token authentication"}},
                },
            });
            Document::new(document.to_string().into_bytes())
        }))
    }

    /// Where each version's document is. The hash lets clients keep what has not changed.
    fn index(&self) -> Value {
        let mut paths = Map::new();
        for (path, group) in &self.groups {
            let hash = &group.hash;
            let url = format!("/openapi/v3/{path}?hash={hash}");
            paths.insert(path.clone(), json!({ "serverRelativeURL": url }));
        }
        json!({ "paths": paths })
    }
}

/// The v2 document in the form that the client takes.
fn negotiate_v2(documents: &Documents, headers: &HeaderMap) -> Response<Body> {
    let Documents { text, protobuf } = documents;
    let accept = filters::header(headers, "accept");
    if accept.is_empty() {
        return send(text, JSON, headers, false);
    }
    for clause in negotiate::clauses(accept) {
        match (clause.kind, clause.sub) {
            ("application", "json") | ("*", "*") | ("application", "*") => {
                return send(text, JSON, headers, false);
            }
            ("application", sub) if PROTOBUF_SUBTYPES.contains(&sub) => {
                return send(protobuf, PROTOBUF_V2, headers, false);
            }
            _ => {}
        }
    }
    respond::bytes(StatusCode::NOT_ACCEPTABLE, "text/plain", Bytes::new())
}

/// A document, or that the client's copy is still right. One that is asked for by its hash never changes.
fn send(document: &Document, media_type: &str, headers: &HeaderMap, immutable: bool) -> Response<Body> {
    let etag = format!("\"{}\"", document.etag);
    let mut response = if filters::header(headers, "if-none-match") == etag {
        respond::bytes(StatusCode::NOT_MODIFIED, media_type, Bytes::new())
    } else {
        respond::bytes(StatusCode::OK, media_type, document.body.clone())
    };
    let out = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        out.insert(ETAG, etag);
    }
    out.insert(VARY, HeaderValue::from_static("Accept"));
    let cache = if immutable { "public, immutable" } else { "no-cache, private" };
    out.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}
