//! A small fake of the API server: keeps objects as JSON, streams watches, binds, patches, deletes,
//! and writes down what it was asked to do.

use api::core::v1::{Binding, Event};
use bytes::Bytes;
use client::{Client, Error, Response, Transport, full};
use futures::future::BoxFuture;
use http::Method;
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;

#[derive(Default)]
struct State {
    /// By plural, then key.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    watchers: Vec<(String, mpsc::UnboundedSender<String>)>,
    revision: u64,
    log: Vec<String>,
    /// How many bindings to refuse.
    refuse_bindings: usize,
}

#[derive(Clone, Default)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

impl Fake {
    pub fn client(&self) -> Client {
        Client::new(Arc::new(self.clone()))
    }

    pub fn put(&self, plural: &str, yaml: &str) {
        let object = api::codec::yaml_to_json(yaml.as_bytes()).unwrap();
        self.state.lock().put(plural, serde_json::from_slice(&object).unwrap());
    }

    pub fn delete(&self, plural: &str, key: &str) {
        self.state.lock().remove(plural, key);
    }

    pub fn refuse_bindings(&self, count: usize) {
        self.state.lock().refuse_bindings = count;
    }

    /// Waits until a line of the log contains the text; answers the log.
    pub async fn until(&self, text: &str) -> Vec<String> {
        self.until_count(text, 1).await
    }

    /// Waits until so many lines contain the text.
    pub async fn until_count(&self, text: &str, count: usize) -> Vec<String> {
        loop {
            let changed = self.changed.notified();
            let log = self.log();
            if log.iter().filter(|line| line.contains(text)).count() >= count {
                return log;
            }
            changed.await;
        }
    }

    pub fn log(&self) -> Vec<String> {
        self.state.lock().log.clone()
    }
}

fn key_of(object: &Value) -> String {
    let part = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    format!("{}/{}", part("namespace"), part("name"))
}

impl State {
    fn tell(&mut self, plural: &str, kind: &str, object: &Value) {
        let line = json!({"type": kind, "object": object}).to_string() + "\n";
        self.watchers.retain(|(of, watcher)| of != plural || watcher.send(line.clone()).is_ok());
    }

    fn put(&mut self, plural: &str, mut object: Value) {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let all = self.objects.entry(plural.into()).or_default();
        let kind = if all.insert(key_of(&object), object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        self.tell(plural, kind, &object);
    }

    fn remove(&mut self, plural: &str, key: &str) {
        self.revision += 1;
        if let Some(mut object) = self.objects.get_mut(plural).and_then(|all| all.remove(key)) {
            object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
            self.tell(plural, "DELETED", &object);
        }
    }

    fn watch(&mut self, plural: &str) -> Response {
        let (sender, receiver) = mpsc::unbounded_channel();
        for object in self.objects.get(plural).into_iter().flat_map(BTreeMap::values) {
            let _ = sender.send(json!({"type": "ADDED", "object": object}).to_string() + "\n");
        }
        let annotations = json!({"k8s.io/initial-events-end": "true"});
        let metadata = json!({"resourceVersion": self.revision.to_string(), "annotations": annotations});
        let _ = sender.send(json!({"type": "BOOKMARK", "object": {"metadata": metadata}}).to_string() + "\n");
        self.watchers.push((plural.into(), sender));
        let frames = futures::StreamExt::map(UnboundedReceiverStream::new(receiver), |line| {
            Ok::<_, Error>(http_body::Frame::data(Bytes::from(line)))
        });
        answer(200, StreamBody::new(frames).boxed())
    }

    /// Merges a status patch: conditions by type, the rest by name.
    fn patch_status(&mut self, key: &str, patch: &Value) -> Response {
        let Some(mut pod) = self.objects.get("pods").and_then(|all| all.get(key)).cloned() else {
            return status(404, "NotFound");
        };
        for (name, value) in patch["status"].as_object().into_iter().flatten() {
            if name != "conditions" {
                pod["status"][name] = value.clone();
                continue;
            }
            let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            for condition in value.as_array().into_iter().flatten() {
                conditions.retain(|old| old["type"] != condition["type"]);
                conditions.push(condition.clone());
                self.log.push(format!(
                    "condition {key} {}={} {}",
                    condition["type"].as_str().unwrap_or_default(),
                    condition["status"].as_str().unwrap_or_default(),
                    condition["reason"].as_str().unwrap_or_default()
                ));
            }
            pod["status"]["conditions"] = json!(conditions);
        }
        if let Some(node) = patch["status"].get("nominatedNodeName") {
            self.log.push(format!("nominate {key} {node}"));
        }
        self.put("pods", pod.clone());
        answer(200, full(pod.to_string()))
    }

    fn bind(&mut self, key: &str, body: &[u8]) -> Response {
        let binding: Binding = api::codec::from_protobuf(body).unwrap();
        if self.refuse_bindings > 0 {
            self.refuse_bindings -= 1;
            self.log.push(format!("refused {key}"));
            return status(409, "Conflict");
        }
        let Some(mut pod) = self.objects.get("pods").and_then(|all| all.get(key)).cloned() else {
            return status(404, "NotFound");
        };
        self.log.push(format!("bind {key} {}", binding.target.name));
        pod["spec"]["nodeName"] = json!(binding.target.name);
        self.put("pods", pod);
        answer(201, full(json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}).to_string()))
    }

    fn serve(&mut self, request: &http::Request<Bytes>) -> Response {
        let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
        let watching = request.uri().query().unwrap_or_default().contains("watch=true");
        match (request.method(), path.as_slice()) {
            (&Method::GET, [.., plural]) if watching => self.watch(plural),
            (&Method::POST, ["api", "v1", "namespaces", namespace, "pods", name, "binding"]) => {
                self.bind(&format!("{namespace}/{name}"), request.body())
            }
            (&Method::PATCH, ["api", "v1", "namespaces", namespace, "pods", name, "status"]) => {
                let patch = serde_json::from_slice(request.body()).unwrap();
                self.patch_status(&format!("{namespace}/{name}"), &patch)
            }
            (&Method::DELETE, ["api", "v1", "namespaces", namespace, "pods", name]) => {
                self.log.push(format!("delete {namespace}/{name}"));
                self.remove("pods", &format!("{namespace}/{name}"));
                answer(
                    200,
                    full(json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}).to_string()),
                )
            }
            (&Method::POST, [.., "events"]) => {
                let event: Event = api::codec::from_protobuf(request.body()).unwrap();
                let (kind, of) = (&event.r#type, &event.involved_object.name);
                self.log.push(format!("event {kind} {of} {}: {}", event.reason, event.message));
                answer(201, full(api::codec::to_json(&event)))
            }
            (&Method::POST | &Method::PUT, [.., "leases"] | [.., "leases", _]) => {
                let lease: api::coordination::v1::Lease = api::codec::from_protobuf(request.body()).unwrap();
                self.log.push(format!("lease {}", lease.spec.holder_identity.is_some()));
                answer(201, full(api::codec::to_json(&lease)))
            }
            _ => status(404, "NotFound"),
        }
    }
}

fn answer(code: u16, body: client::Body) -> Response {
    http::Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}

fn status(code: u16, reason: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason});
    answer(code, full(body.to_string()))
}

impl Transport for Fake {
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'static, Result<Response, Error>> {
        let answer = self.state.lock().serve(&request);
        self.changed.notify_waiters();
        Box::pin(async move { Ok(answer) })
    }
}
