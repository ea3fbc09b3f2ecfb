//! Errors of the API: code, reason and wording as upstream's `Status` carries them, in one closed set.

use crate::generated::meta::v1::{ListMeta, Status, StatusCause, StatusDetails};
use meta::field;
use std::fmt;

/// Why a request failed; clients branch on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

/// Each reason with its name on the wire and its usual HTTP code.
const REASONS: &[(Reason, &str, u16)] = &[
    (Reason::Unknown, "", 500),
    (Reason::Unauthorized, "Unauthorized", 401),
    (Reason::Forbidden, "Forbidden", 403),
    (Reason::NotFound, "NotFound", 404),
    (Reason::AlreadyExists, "AlreadyExists", 409),
    (Reason::Conflict, "Conflict", 409),
    (Reason::Gone, "Gone", 410),
    (Reason::Invalid, "Invalid", 422),
    (Reason::ServerTimeout, "ServerTimeout", 500),
    (Reason::Timeout, "Timeout", 504),
    (Reason::TooManyRequests, "TooManyRequests", 429),
    (Reason::BadRequest, "BadRequest", 400),
    (Reason::MethodNotAllowed, "MethodNotAllowed", 405),
    (Reason::NotAcceptable, "NotAcceptable", 406),
    (Reason::RequestEntityTooLarge, "RequestEntityTooLarge", 413),
    (Reason::UnsupportedMediaType, "UnsupportedMediaType", 415),
    (Reason::InternalError, "InternalError", 500),
    (Reason::Expired, "Expired", 410),
    (Reason::ServiceUnavailable, "ServiceUnavailable", 503),
];

impl Reason {
    pub fn as_str(self) -> &'static str {
        REASONS.iter().find(|(reason, ..)| *reason == self).map_or("", |(_, name, _)| name)
    }

    /// `Unknown` for names that are not in the set.
    pub fn parse(name: &str) -> Self {
        REASONS.iter().find(|(_, known, _)| *known == name).map_or(Reason::Unknown, |(reason, ..)| *reason)
    }

    fn code(self) -> u16 {
        REASONS.iter().find(|(reason, ..)| *reason == self).map_or(500, |(.., code)| *code)
    }
}

/// What more is known of an error: the object it speaks of, single causes, when to try again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    pub group: String,
    /// A kind, or for most reasons a resource.
    pub kind: String,
    pub name: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    pub retry_after_seconds: i32,
    /// For an expired page of a list: where to go on with the newest state. Stands in the Status' own metadata.
    pub continue_token: String,
}

/// One of several causes of an error.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

/// A failed request. `Display` is the message a user reads.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    pub code: u16,
    pub reason: Reason,
    pub message: String,
    pub details: Option<Box<Details>>,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

/// `deployments.apps`, or `pods` in the core group.
pub fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_string() } else { format!("{resource}.{group}") }
}

impl ApiError {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        ApiError { code: reason.code(), reason, message: message.into(), details: None }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        (details.group, details.kind, details.name) = (group.into(), kind.into(), name.into());
        self
    }

    /// Tells the client when to try again; also sent as `Retry-After`.
    pub fn retry_after(mut self, seconds: i32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    pub fn with_causes(mut self, causes: Vec<Cause>) -> Self {
        self.details.get_or_insert_default().causes = causes;
        self
    }

    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let text = format!("{} {name:?} not found", qualified(group, resource));
        ApiError::new(Reason::NotFound, text).about(group, resource, name)
    }

    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let text = format!("{} {name:?} already exists", qualified(group, resource));
        ApiError::new(Reason::AlreadyExists, text).about(group, resource, name)
    }

    /// No free name was found for `generateName` after several tries.
    pub fn generate_name_conflict(group: &str, resource: &str, name: &str) -> Self {
        let text = format!(
            "{} {name:?} already exists, the server was not able to generate a unique name for the object",
            qualified(group, resource)
        );
        ApiError::new(Reason::AlreadyExists, text).about(group, resource, name).retry_after(1)
    }

    pub fn conflict(group: &str, resource: &str, name: &str, text: impl fmt::Display) -> Self {
        let text =
            format!("Operation cannot be fulfilled on {} {name:?}: {text}", qualified(group, resource));
        ApiError::new(Reason::Conflict, text).about(group, resource, name)
    }

    /// The object was changed since the caller read it.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        let text =
            "the object has been modified; please apply your changes to the latest version and try again";
        ApiError::conflict(group, resource, name, text)
    }

    /// Other managers own fields of a server-side apply.
    pub fn apply_conflict(causes: Vec<Cause>, message: impl Into<String>) -> Self {
        ApiError::new(Reason::Conflict, message).with_causes(causes)
    }

    pub fn invalid(group: &str, kind: &str, name: &str, errors: &field::Errors) -> Self {
        let what = qualified(group, kind);
        let text = if errors.is_empty() {
            format!("{what} {name:?} is invalid")
        } else {
            format!("{what} {name:?} is invalid: {errors}")
        };
        let cause = |error: &field::Error| Cause {
            reason: error.kind.reason().into(),
            message: error.body(),
            field: error.field.clone(),
        };
        let causes = errors.iter().map(cause).collect();
        ApiError::new(Reason::Invalid, text).about(group, kind, name).with_causes(causes)
    }

    pub fn forbidden(group: &str, resource: &str, name: &str, text: impl fmt::Display) -> Self {
        let what = qualified(group, resource);
        let text = match (resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {text}"),
            (false, true) => format!("{what} is forbidden: {text}"),
            (false, false) => format!("{what} {name:?} is forbidden: {text}"),
        };
        ApiError::new(Reason::Forbidden, text).about(group, resource, name)
    }

    pub fn bad_request(text: impl Into<String>) -> Self {
        ApiError::new(Reason::BadRequest, text)
    }

    pub fn unauthorized(text: impl Into<String>) -> Self {
        ApiError::new(Reason::Unauthorized, text)
    }

    /// A revision, or a continue token, that is no longer kept.
    pub fn expired(text: impl Into<String>) -> Self {
        ApiError::new(Reason::Expired, text)
    }

    pub fn gone(text: impl Into<String>) -> Self {
        ApiError::new(Reason::Gone, text)
    }

    pub fn method_not_supported(group: &str, resource: &str, verb: &str) -> Self {
        let text = format!("{verb} is not supported on resources of kind {:?}", qualified(group, resource));
        ApiError::new(Reason::MethodNotAllowed, text).about(group, resource, "")
    }

    pub fn internal(text: impl fmt::Display) -> Self {
        let cause = Cause { message: text.to_string(), ..Cause::default() };
        ApiError::new(Reason::InternalError, format!("Internal error occurred: {text}"))
            .with_causes(vec![cause])
    }

    pub fn timeout(text: impl fmt::Display, retry_after_seconds: i32) -> Self {
        ApiError::new(Reason::Timeout, format!("Timeout: {text}")).retry_after(retry_after_seconds)
    }

    pub fn server_timeout(group: &str, resource: &str, operation: &str, retry_after_seconds: i32) -> Self {
        let text = format!(
            "The {operation} operation against {} could not be completed at this time, please try again.",
            qualified(group, resource)
        );
        ApiError::new(Reason::ServerTimeout, text)
            .about(group, resource, operation)
            .retry_after(retry_after_seconds)
    }

    pub fn too_many_requests(text: impl Into<String>, retry_after_seconds: i32) -> Self {
        ApiError::new(Reason::TooManyRequests, text).retry_after(retry_after_seconds)
    }

    pub fn service_unavailable(text: impl Into<String>) -> Self {
        ApiError::new(Reason::ServiceUnavailable, text)
    }

    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let text = format!("only the following media types are accepted: {}", accepted.join(", "));
        ApiError::new(Reason::NotAcceptable, text)
    }

    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let text = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        ApiError::new(Reason::UnsupportedMediaType, text)
    }

    pub fn request_entity_too_large(text: impl fmt::Display) -> Self {
        ApiError::new(Reason::RequestEntityTooLarge, format!("Request entity too large: {text}"))
    }

    pub fn is_not_found(&self) -> bool {
        self.reason == Reason::NotFound
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason == Reason::AlreadyExists
    }

    pub fn is_conflict(&self) -> bool {
        self.reason == Reason::Conflict
    }

    /// The revision asked for is gone: list again.
    pub fn is_expired(&self) -> bool {
        matches!(self.reason, Reason::Expired | Reason::Gone)
    }

    pub fn to_status(&self) -> Status {
        let shown = self.details.as_ref().filter(|details| {
            Details { continue_token: String::new(), ..Details::clone(details) } != Details::default()
        });
        let mut metadata = ListMeta::default();
        if let Some(details) = &self.details {
            metadata.r#continue = details.continue_token.clone();
        }
        let details = shown.map(|details| {
            let cause = |cause: &Cause| StatusCause {
                reason: cause.reason.clone(),
                message: cause.message.clone(),
                field: cause.field.clone(),
            };
            Box::new(StatusDetails {
                name: details.name.clone(),
                group: details.group.clone(),
                kind: details.kind.clone(),
                uid: details.uid.clone(),
                causes: details.causes.iter().map(cause).collect(),
                retry_after_seconds: details.retry_after_seconds,
            })
        });
        Status {
            metadata,
            status: "Failure".into(),
            message: self.message.clone(),
            reason: self.reason.as_str().into(),
            details,
            code: i32::from(self.code),
            ..Status::default()
        }
    }

    pub fn from_status(status: &Status) -> Self {
        let reason = Reason::parse(&status.reason);
        let details = status.details.as_ref().map(|details| {
            let cause = |cause: &StatusCause| Cause {
                reason: cause.reason.clone(),
                message: cause.message.clone(),
                field: cause.field.clone(),
            };
            Box::new(Details {
                group: details.group.clone(),
                kind: details.kind.clone(),
                name: details.name.clone(),
                uid: details.uid.clone(),
                causes: details.causes.iter().map(cause).collect(),
                retry_after_seconds: details.retry_after_seconds,
                continue_token: status.metadata.r#continue.clone(),
            })
        });
        let code = u16::try_from(status.code).ok().filter(|code| *code >= 100).unwrap_or(reason.code());
        ApiError { code, reason, message: status.message.clone(), details }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use meta::field::{Errors, Path};

    #[test]
    fn a_status_survives_the_way_there_and_back() {
        let mut errors = Errors::default();
        errors.required(&Path::new("spec").child("containers"), "");
        let error = ApiError::invalid("apps", "Deployment", "web", &errors);
        assert_eq!(ApiError::from_status(&error.to_status()), error);
        expect![[r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Deployment.apps \"web\" is invalid: spec.containers: Required value","reason":"Invalid","details":{"name":"web","group":"apps","kind":"Deployment","causes":[{"reason":"FieldValueRequired","message":"Required value","field":"spec.containers"}]},"code":422}"#]]
            .assert_eq(&String::from_utf8_lossy(&crate::codec::to_json(&error.to_status())));
    }
}
