//! Who asks, for what, under which options: everything of a request that the write path decides by.

use api::Object;
use api::errors::ApiError;
use async_trait::async_trait;
use meta::{fields, labels};
use parking_lot::Mutex;
use resources::Resource;
use std::collections::BTreeMap;

/// Longest field manager, as upstream cuts and validates it.
pub const MAX_FIELD_MANAGER: usize = 128;
/// Most warnings that one request collects; what comes after is dropped.
pub const MAX_WARNINGS: usize = 64;
/// Most annotations that one request collects.
pub const MAX_ANNOTATIONS: usize = 256;

/// The authenticated user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What to do with unknown and duplicate fields of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// Warnings for the `Warning` headers of the answer: each text once, in order.
#[derive(Debug, Default)]
pub struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut all = self.0.lock();
        if all.len() < MAX_WARNINGS && !all.contains(&text) {
            all.push(text);
        }
    }
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// How much of a request's annotations is kept: what its audit level has room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnnotationLevel {
    /// Nobody reads them.
    #[default]
    None,
    Metadata,
    Request,
}

/// What admission and authorization tell the audit log about a request, each key once.
#[derive(Debug, Default)]
pub struct Annotations {
    level: AnnotationLevel,
    all: Mutex<BTreeMap<String, String>>,
}

impl Annotations {
    pub fn new(level: AnnotationLevel) -> Self {
        Annotations { level, all: Mutex::default() }
    }
    pub fn wanted(&self) -> bool {
        self.level > AnnotationLevel::None
    }
    /// The first value of a key stays.
    pub fn add(&self, key: impl Into<String>, value: impl Into<String>) {
        if self.wanted() {
            let mut all = self.all.lock();
            if all.len() < MAX_ANNOTATIONS {
                all.entry(key.into()).or_insert_with(|| value.into());
            }
        }
    }
    /// For what may hold parts of the object: kept only where the object itself would be.
    pub fn add_at_request_level(&self, key: impl Into<String>, value: impl Into<String>) {
        if self.level >= AnnotationLevel::Request {
            self.add(key, value);
        }
    }
    pub fn all(&self) -> BTreeMap<String, String> {
        self.all.lock().clone()
    }
}

/// One request, as the filters before the registry understood it.
#[derive(Debug, Default)]
pub struct Request {
    pub user: UserInfo,
    pub user_agent: String,
    /// `?fieldManager=`; empty where the user agent names the manager.
    pub field_manager: String,
    /// `?dryRun=All`: everything but the write.
    pub dry_run: bool,
    pub field_validation: FieldValidation,
    pub warnings: Warnings,
    /// For the audit log.
    pub annotations: std::sync::Arc<Annotations>,
    /// `CreateOptions`, `UpdateOptions` or `PatchOptions`: the kind of the options that the fields above are from.
    pub options_kind: &'static str,
    /// The options of a delete, as they were sent.
    pub delete_options: Option<Box<api::meta::v1::DeleteOptions>>,
}

impl Request {
    /// A request of the server itself.
    pub fn internal(manager: &str) -> Self {
        Request {
            user: UserInfo {
                name: "system:apiserver".into(),
                groups: vec!["system:masters".into(), "system:authenticated".into()],
                ..UserInfo::default()
            },
            field_manager: manager.into(),
            ..Request::default()
        }
    }

    /// The manager of the fields that this request sets: as asked for, else the user agent up to its first slash.
    pub fn manager(&self) -> String {
        if !self.field_manager.is_empty() {
            return self.field_manager.clone();
        }
        let first = self.user_agent.split('/').next().unwrap_or_default();
        let mut name = String::new();
        for character in first.chars().filter(|character| !character.is_control()) {
            if name.len() + character.len_utf8() > MAX_FIELD_MANAGER {
                break;
            }
            name.push(character);
        }
        name
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// What admission decides by.
pub struct Attributes<'a> {
    pub request: &'a Request,
    pub resource: &'static dyn Resource,
    /// `status`, `binding`, ...; empty for the resource itself.
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub operation: Operation,
    /// The object as it is, for updates and deletes. A delete of a collection asks once per object.
    pub old: Option<&'a dyn Object>,
}

/// The admission chain: mutating plugins and webhooks, then validating ones.
///
/// Both are called for every write and may be called again when a write is retried. Warnings go to
/// `attributes.request.warnings`. For deletes there is no object.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// May change the object. Called after defaulting and before preparation's validation.
    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut dyn Object>,
    ) -> Result<(), ApiError>;
    /// May only refuse. Called on the object as it would be stored.
    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
    ) -> Result<(), ApiError>;
}

/// Admits everything.
pub struct AlwaysAdmit;

#[async_trait]
impl Admission for AlwaysAdmit {
    async fn admit(&self, _: &Attributes<'_>, _: Option<&mut dyn Object>) -> Result<(), ApiError> {
        Ok(())
    }
    async fn validate(&self, _: &Attributes<'_>, _: Option<&dyn Object>) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Which part of an object an update writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateKind {
    /// The resource itself: the status of the stored object is kept.
    Spec,
    /// `/status`: everything but the status is kept.
    Status,
    /// Another subresource, by name: the caller's change is taken as it is.
    Sub(&'static str),
}

impl UpdateKind {
    pub fn subresource(self) -> &'static str {
        match self {
            UpdateKind::Spec => "",
            UpdateKind::Status => "status",
            UpdateKind::Sub(name) => name,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    Json,
    Merge,
    StrategicMerge,
    /// Server-side apply; the body is JSON (decode YAML before).
    Apply,
}

impl PatchType {
    pub fn of(media_type: &str) -> Option<Self> {
        match media_type {
            "application/json-patch+json" => Some(PatchType::Json),
            "application/merge-patch+json" => Some(PatchType::Merge),
            "application/strategic-merge-patch+json" => Some(PatchType::StrategicMerge),
            "application/apply-patch+yaml" => Some(PatchType::Apply),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Patch {
    pub kind: PatchType,
    /// JSON text.
    pub body: bytes::Bytes,
    /// `?force=true`, for apply only.
    pub force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    /// `preconditions.uid` and `.resourceVersion`.
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

/// Options of list and watch, selectors parsed.
#[derive(Clone, Debug)]
pub struct ListOptions {
    pub labels: labels::Selector,
    pub fields: fields::Selector,
    /// Empty for the most recent, `0` for any, else a revision.
    pub resource_version: String,
    /// `Exact`, `NotOlderThan` or empty; others are refused in upstream's words.
    pub resource_version_match: String,
    /// 0 for no limit.
    pub limit: i64,
    pub continue_token: String,
    pub allow_bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

impl Default for ListOptions {
    fn default() -> Self {
        ListOptions {
            labels: labels::Selector::everything(),
            fields: fields::Selector::everything(),
            resource_version: String::new(),
            resource_version_match: String::new(),
            limit: 0,
            continue_token: String::new(),
            allow_bookmarks: false,
            send_initial_events: None,
        }
    }
}
