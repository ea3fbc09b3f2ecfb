//! What a call asks for beside its object, and how it is spelled in a query.

use std::fmt::Write as _;

/// Percent-encodes everything but the unreserved characters of RFC 3986.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A query under construction; empty values are left out.
#[derive(Default)]
pub(crate) struct Query(String);

impl Query {
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        let _ = write!(self.0, "{name}={}", escape(value));
    }
    pub(crate) fn number(&mut self, name: &str, value: Option<i64>) {
        if let Some(value) = value {
            self.add(name, &value.to_string());
        }
    }
    pub(crate) fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.add(name, "true");
        }
    }
    pub(crate) fn finish(self) -> String {
        self.0
    }
}

#[derive(Clone, Debug, Default)]
pub struct GetOptions {
    pub resource_version: String,
}

#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub label_selector: String,
    pub field_selector: String,
    pub resource_version: String,
    pub resource_version_match: String,
    /// Objects a page; `list_all` pages by itself.
    pub limit: Option<i64>,
    pub continue_token: String,
}

impl ListOptions {
    pub(crate) fn query(&self) -> Query {
        let mut query = Query::default();
        query.add("labelSelector", &self.label_selector);
        query.add("fieldSelector", &self.field_selector);
        query.add("resourceVersion", &self.resource_version);
        query.add("resourceVersionMatch", &self.resource_version_match);
        query.number("limit", self.limit);
        query.add("continue", &self.continue_token);
        query
    }
}

#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    pub label_selector: String,
    pub field_selector: String,
    pub resource_version: String,
    pub resource_version_match: String,
    pub timeout_seconds: Option<i64>,
    pub allow_bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

impl WatchOptions {
    pub(crate) fn query(&self) -> Query {
        let mut query = Query::default();
        query.add("watch", "true");
        query.add("labelSelector", &self.label_selector);
        query.add("fieldSelector", &self.field_selector);
        query.add("resourceVersion", &self.resource_version);
        query.add("resourceVersionMatch", &self.resource_version_match);
        query.number("timeoutSeconds", self.timeout_seconds);
        query.flag("allowWatchBookmarks", self.allow_bookmarks);
        if let Some(send) = self.send_initial_events {
            query.add("sendInitialEvents", if send { "true" } else { "false" });
        }
        query
    }
}

#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    pub dry_run: bool,
    pub field_manager: String,
    /// `Strict`, `Warn`, `Ignore`, or empty for the server's default.
    pub field_validation: String,
}

/// Updates take the same options as creates.
pub type UpdateOptions = CreateOptions;

impl CreateOptions {
    pub(crate) fn query(&self) -> Query {
        let mut query = Query::default();
        query.add("dryRun", if self.dry_run { "All" } else { "" });
        query.add("fieldManager", &self.field_manager);
        query.add("fieldValidation", &self.field_validation);
        query
    }
}

/// A change by patch, as its JSON document.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902.
    Json(serde_json::Value),
    /// RFC 7386.
    Merge(serde_json::Value),
    /// Kubernetes' own merge, by the merge keys of the kind.
    Strategic(serde_json::Value),
    /// Server-side apply; needs `PatchOptions::field_manager`.
    Apply(serde_json::Value),
}

impl Patch {
    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Patch::Json(_) => "application/json-patch+json",
            Patch::Merge(_) => "application/merge-patch+json",
            Patch::Strategic(_) => "application/strategic-merge-patch+json",
            Patch::Apply(_) => "application/apply-patch+yaml",
        }
    }

    pub(crate) fn document(&self) -> &serde_json::Value {
        match self {
            Patch::Json(document)
            | Patch::Merge(document)
            | Patch::Strategic(document)
            | Patch::Apply(document) => document,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct PatchOptions {
    pub dry_run: bool,
    pub field_manager: String,
    pub field_validation: String,
    /// Apply only: takes fields over from other managers.
    pub force: bool,
}

impl PatchOptions {
    pub(crate) fn query(&self) -> Query {
        let mut query = Query::default();
        query.add("dryRun", if self.dry_run { "All" } else { "" });
        query.add("fieldManager", &self.field_manager);
        query.add("fieldValidation", &self.field_validation);
        query.flag("force", self.force);
        query
    }
}

/// What becomes of the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

impl Propagation {
    pub fn as_str(self) -> &'static str {
        match self {
            Propagation::Orphan => "Orphan",
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
        }
    }
}

/// What must hold for a write to happen; the server answers Conflict otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// `None` leaves it to the kind.
    pub grace_seconds: Option<i64>,
    pub preconditions: Preconditions,
    pub propagation: Option<Propagation>,
    pub dry_run: bool,
}

impl DeleteOptions {
    /// Deletes the object of this uid only.
    pub fn of_uid(uid: impl Into<String>) -> Self {
        DeleteOptions {
            preconditions: Preconditions { uid: Some(uid.into()), resource_version: None },
            ..DeleteOptions::default()
        }
    }

    /// The DeleteOptions object of the request's body.
    pub(crate) fn body(&self) -> Vec<u8> {
        let mut body = serde_json::json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        if let Some(seconds) = self.grace_seconds {
            body["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(propagation) = self.propagation {
            body["propagationPolicy"] = propagation.as_str().into();
        }
        if let Some(uid) = &self.preconditions.uid {
            body["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(revision) = &self.preconditions.resource_version {
            body["preconditions"]["resourceVersion"] = revision.as_str().into();
        }
        if self.dry_run {
            body["dryRun"] = serde_json::json!(["All"]);
        }
        body.to_string().into_bytes()
    }
}
