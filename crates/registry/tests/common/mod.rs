//! A registry over a store in memory, and short words for what tests do with it.
#![allow(dead_code)]

use api::core::v1::{ConfigMap, Pod};
use api::errors::ApiError;
use api::{Object, Typed};
use meta::{ObjectKey, fields, labels};
use registry::{
    AlwaysAdmit, DeleteOptions, Encoded, Event, ListOptions, ListResult, Patch, PatchType, Registry, Request,
    UpdateKind, Updated, Watcher,
};
use resources::Resource;
use std::sync::Arc;
use std::time::Duration;

pub const NS: &str = "default";

pub struct Server {
    pub registry: Arc<Registry>,
}

pub fn row(group: &str, version: &str, plural: &str) -> &'static dyn Resource {
    resources::find(group, version, plural).expect("in the table")
}
pub fn maps() -> &'static dyn Resource {
    row("", "v1", "configmaps")
}
pub fn pods() -> &'static dyn Resource {
    row("", "v1", "pods")
}
pub fn deployments() -> &'static dyn Resource {
    row("apps", "v1", "deployments")
}

pub fn from_json<T: Typed + Object>(json: serde_json::Value) -> Box<dyn Object> {
    Box::new(api::codec::from_value::<T>(&json).expect("an object"))
}

pub fn map(name: &str, labels: &[(&str, &str)], data: &[(&str, &str)]) -> Box<dyn Object> {
    let mut map = ConfigMap::default();
    map.metadata.name = name.into();
    let pairs = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    };
    map.metadata.labels = pairs(labels);
    map.data = pairs(data);
    Box::new(map)
}

pub fn pod(name: &str, node: &str) -> Box<dyn Object> {
    let mut pod = from_json::<Pod>(serde_json::json!({
        "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "web", "image": "web:1"}]},
    }));
    pods().default(&mut *pod);
    pod
}

pub fn key(name: &str) -> ObjectKey {
    ObjectKey::new(NS, name)
}

pub fn request() -> Request {
    Request { user_agent: "kubectl/v1.36 (linux)".into(), ..Request::default() }
}

pub fn options() -> ListOptions {
    ListOptions::default()
}

pub fn labelled(selector: &str) -> ListOptions {
    ListOptions { labels: labels::Selector::parse(selector).expect("a selector"), ..options() }
}

pub fn with_fields(selector: &str) -> ListOptions {
    ListOptions { fields: fields::Selector::parse(selector).expect("a selector"), ..options() }
}

pub fn at(revision: impl ToString) -> ListOptions {
    ListOptions { resource_version: revision.to_string(), ..options() }
}

impl Server {
    pub fn new() -> Self {
        Self::over(store::memory())
    }
    pub fn over(store: Arc<dyn store::Store>) -> Self {
        Server { registry: Registry::new(store, Arc::new(AlwaysAdmit)) }
    }

    pub async fn create(
        &self,
        resource: &'static dyn Resource,
        object: Box<dyn Object>,
    ) -> Result<Arc<Encoded>, ApiError> {
        self.create_in(NS, resource, object).await
    }
    pub async fn create_in(
        &self,
        namespace: &str,
        resource: &'static dyn Resource,
        mut object: Box<dyn Object>,
    ) -> Result<Arc<Encoded>, ApiError> {
        resource.default(&mut *object);
        self.registry.create(&request(), resource, namespace, object).await
    }
    pub async fn make(&self, name: &str, labels: &[(&str, &str)]) -> Arc<Encoded> {
        self.create(maps(), map(name, labels, &[])).await.expect("created")
    }

    pub async fn get(&self, resource: &'static dyn Resource, name: &str) -> Result<Arc<Encoded>, ApiError> {
        self.registry.get(resource, &key(name), "").await
    }
    pub async fn list(
        &self,
        resource: &'static dyn Resource,
        options: &ListOptions,
    ) -> Result<ListResult, ApiError> {
        self.registry.list(resource, NS, options).await
    }
    pub async fn watch(&self, options: &ListOptions) -> Watcher {
        self.registry.watch(maps(), NS, options).await.expect("a watch")
    }

    pub async fn update(
        &self,
        resource: &'static dyn Resource,
        kind: UpdateKind,
        object: Box<dyn Object>,
    ) -> Result<Updated, ApiError> {
        let name = object.metadata().name.clone();
        self.registry.update(&request(), resource, &key(&name), kind, object).await
    }

    /// Reads a ConfigMap, changes it, writes it back.
    pub async fn change(&self, name: &str, change: impl FnOnce(&mut ConfigMap)) -> Arc<Encoded> {
        let mut object = self.get(maps(), name).await.expect("there").decode().expect("decodes");
        change(object.downcast_mut::<ConfigMap>().expect("a map"));
        self.update(maps(), UpdateKind::Spec, object).await.expect("updated").object
    }

    pub async fn patch(
        &self,
        resource: &'static dyn Resource,
        name: &str,
        kind: PatchType,
        body: serde_json::Value,
    ) -> Result<Updated, ApiError> {
        let patch = Patch { kind, body: body.to_string().into(), force: false };
        self.registry.patch(&request(), resource, &key(name), UpdateKind::Spec, &patch).await
    }

    pub async fn delete(
        &self,
        resource: &'static dyn Resource,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<registry::Deleted, ApiError> {
        self.registry.delete(&request(), resource, &key(name), options).await
    }
}

/// The next event as `TYPE name`.
pub async fn next(watcher: &mut Watcher) -> String {
    let event =
        tokio::time::timeout(Duration::from_secs(10), watcher.recv()).await.expect("an event in time");
    shown(event)
}

pub fn shown(event: Option<Event>) -> String {
    match event {
        None => "END".into(),
        Some(Event::Error(error)) => format!("ERROR {error}"),
        Some(event) => {
            let object = event.object().expect("an object");
            format!("{} {}", event.kind(), object.key().name)
        }
    }
}

/// What has arrived, without waiting for more. The feed has come as far as the store first.
pub async fn settled(server: &Server, watcher: &mut Watcher) -> Vec<String> {
    server.list(maps(), &options()).await.expect("a list");
    let mut events = Vec::new();
    while let Some(event) = watcher.try_recv() {
        events.push(shown(Some(event)));
    }
    events
}

pub fn names(list: &ListResult) -> String {
    let names: Vec<_> = list.items.iter().map(|item| item.key().name.clone()).collect();
    names.join(" ")
}
