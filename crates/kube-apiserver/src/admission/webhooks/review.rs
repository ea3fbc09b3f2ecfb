//! AdmissionReviews: what a webhook is told, and whether its answer is one. Pure.

use super::{Invocation, Kind, rules};
use crate::outbound::webhook::CallError;
use api::Object;
use api::errors::{ApiError, Details, Reason};
use api::meta::v1::Status;
use base64::Engine;
use registry::{Attributes, FieldValidation, Operation, UserInfo};
use resources::Resource;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The versions of AdmissionReview there are.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// A review on its way: its version, its uid, and its text.
pub struct Question {
    version: &'static str,
    uid: String,
    pub review: Value,
}

/// What a webhook decided.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    pub allowed: bool,
    /// A JSON patch; empty for none.
    pub patch: Vec<u8>,
    pub status: Option<Status>,
    pub annotations: BTreeMap<String, String>,
    pub warnings: Vec<String>,
}

pub fn kind_json(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

pub fn resource_json(resource: &dyn Resource) -> Value {
    json!({"group": resource.group(), "version": resource.version(), "resource": resource.plural()})
}

pub fn user_json(user: &UserInfo) -> Value {
    let mut out = Map::new();
    if !user.name.is_empty() {
        out.insert("username".into(), json!(user.name));
    }
    if !user.uid.is_empty() {
        out.insert("uid".into(), json!(user.uid));
    }
    if !user.groups.is_empty() {
        out.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        out.insert("extra".into(), json!(user.extra));
    }
    Value::Object(out)
}

/// The options of the verb, as they would stand in the request's body.
pub fn options_json(attributes: &Attributes<'_>) -> Value {
    let request = attributes.request;
    if attributes.operation == Operation::Connect {
        return Value::Null;
    }
    if attributes.operation == Operation::Delete {
        let mut options = request.delete_options.as_deref().cloned().unwrap_or_default();
        (options.kind, options.api_version) = ("DeleteOptions".into(), "meta.k8s.io/v1".into());
        return api::codec::to_value(&options);
    }
    let default = if attributes.operation == Operation::Create { "CreateOptions" } else { "UpdateOptions" };
    let kind = if request.options_kind.is_empty() { default } else { request.options_kind };
    let mut out = Map::new();
    out.insert("kind".into(), json!(kind));
    out.insert("apiVersion".into(), json!("meta.k8s.io/v1"));
    if request.dry_run {
        out.insert("dryRun".into(), json!(["All"]));
    }
    if !request.field_manager.is_empty() {
        out.insert("fieldManager".into(), json!(request.field_manager));
    }
    let validation = match request.field_validation {
        FieldValidation::Ignore => "Ignore",
        FieldValidation::Warn => "Warn",
        FieldValidation::Strict => "Strict",
    };
    out.insert("fieldValidation".into(), json!(validation));
    Value::Object(out)
}

/// The review for one invocation; `object` and `old` are in the invocation's version.
pub(super) fn question(
    uid: String,
    invocation: &Invocation,
    attributes: &Attributes<'_>,
    object: Value,
    old: Value,
) -> Result<Question, CallError> {
    let known = |wanted: &String| VERSIONS.into_iter().find(|version| wanted == version);
    let version = invocation.hook.versions.iter().find_map(known).ok_or_else(|| CallError {
        reason:
            "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, \
                 v1beta1)"
                .into(),
        code: 400,
    })?;
    let own = Kind::of(attributes.resource, attributes.subresource);
    let mut request = json!({
        "uid": uid,
        "kind": kind_json(&invocation.kind),
        "resource": resource_json(invocation.resource),
        "requestKind": kind_json(&own),
        "requestResource": resource_json(attributes.resource),
        "operation": attributes.operation.as_str(),
        "userInfo": user_json(&attributes.request.user),
        "object": object,
        "oldObject": old,
        "dryRun": attributes.request.dry_run,
        "options": options_json(attributes),
    });
    for (name, text) in [
        ("subResource", attributes.subresource),
        ("requestSubResource", attributes.subresource),
        ("name", attributes.name),
        ("namespace", rules::namespace_of(attributes)),
    ] {
        if !text.is_empty() {
            request[name] = json!(text);
        }
    }
    let review = json!({
        "kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{version}"), "request": request,
    });
    Ok(Question { version, uid, review })
}

/// Reads the answer to a question; what is not one is an error in upstream's words.
pub fn answer(question: &Question, mutating: bool, review: &Value) -> Result<Answer, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let wanted = format!("admission.k8s.io/{}", question.version);
    let (api_version, kind) = (text(&review["apiVersion"]), text(&review["kind"]));
    let Some(response) = review.get("response").filter(|response| response.is_object()) else {
        return Err("webhook response was absent".into());
    };
    let patch = match response.get("patch").and_then(Value::as_str) {
        Some(encoded) => base64::prelude::BASE64_STANDARD
            .decode(encoded)
            .map_err(|error| format!("illegal base64 data: {error}"))?,
        None => Vec::new(),
    };
    let patch_type = response.get("patchType").and_then(Value::as_str);
    if question.version == "v1" {
        let uid = text(&response["uid"]);
        if uid != question.uid {
            return Err(format!("expected response.uid={:?}, got {uid:?}", question.uid));
        }
        if api_version != wanted || kind != "AdmissionReview" {
            let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
            return Err(format!(
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {group}/{version}, Kind={kind}"
            ));
        }
        check_patch(mutating, &patch, patch_type)?;
    }
    let status = match response.get("status").filter(|status| status.is_object()) {
        Some(status) => Some(api::codec::from_value::<Status>(status).map_err(|error| error.to_string())?),
        None => None,
    };
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect()
    };
    let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
    Ok(Answer {
        allowed: response["allowed"].as_bool().unwrap_or(false),
        patch: if mutating { patch } else { Vec::new() },
        status,
        annotations: annotations.map(|(key, value)| (key.clone(), text(value))).collect(),
        warnings: strings(&response["warnings"]),
    })
}

fn check_patch(mutating: bool, patch: &[u8], kind: Option<&str>) -> Result<(), String> {
    let fault = match (mutating, patch.is_empty(), kind) {
        (true, false, None) => "webhook returned response.patch but not response.patchType",
        (true, true, Some(_)) => "webhook returned response.patchType but not response.patch",
        (true, false, Some("")) => "webhook returned invalid response.patchType of \"\"",
        (false, false, _) => "validating webhook may not return response.patch",
        (false, true, Some(_)) => "validating webhook may not return response.patchType",
        _ => return Ok(()),
    };
    Err(fault.into())
}

/// The refusal that a webhook's status makes.
pub fn denial(webhook: &str, status: Option<Status>) -> ApiError {
    let status = status.unwrap_or_default();
    let denied = format!("admission webhook {webhook:?} denied the request");
    let message = if !status.message.is_empty() {
        format!("{denied}: {}", status.message)
    } else if !status.reason.is_empty() {
        format!("{denied}: {}", status.reason)
    } else {
        format!("{denied} without explanation")
    };
    let code = if status.code < 400 { 400 } else { status.code };
    let known = ApiError::from_status(&status);
    ApiError {
        code: u16::try_from(code).unwrap_or(400),
        reason: Reason::parse(&status.reason),
        message,
        details: known.details.filter(|details| **details != Details::default()),
    }
}

/// The object as JSON in the version of `to`; `None` is null.
pub fn versioned(
    object: Option<&dyn Object>,
    from: &'static dyn Resource,
    to: &'static dyn Resource,
) -> Result<Value, ApiError> {
    let Some(object) = object else { return Ok(Value::Null) };
    if from.gvk() == to.gvk() {
        return Ok(api::codec::to_value(object.as_dyn()));
    }
    let hub = from.to_storage(object.clone_object()).map_err(ApiError::internal)?;
    let other = to.from_storage(hub).map_err(ApiError::internal)?;
    Ok(api::codec::to_value(other.as_dyn()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn read(version: &'static str, mutating: bool, review: Value) -> String {
        let question = Question { version, uid: "u1".into(), review: Value::Null };
        match answer(&question, mutating, &review) {
            Ok(answer) => format!("{answer:?}"),
            Err(error) => error,
        }
    }

    #[test]
    fn answers_are_checked_as_upstream_checks_them() {
        let v1 = |response: Value| json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        let all = [
            read("v1", true, json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"})),
            read("v1", true, v1(json!({"uid": "other", "allowed": true}))),
            read("v1", true, json!({"response": {"uid": "u1"}})),
            read("v1", true, v1(json!({"uid": "u1", "patch": "W10="}))),
            read("v1", true, v1(json!({"uid": "u1", "patchType": "JSONPatch"}))),
            read("v1", false, v1(json!({"uid": "u1", "patch": "W10=", "patchType": "JSONPatch"}))),
            read("v1beta1", true, json!({"response": {"allowed": true, "patch": "W10="}})),
        ];
        expect![[r#"
            webhook response was absent
            expected response.uid="u1", got "other"
            expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind=
            webhook returned response.patch but not response.patchType
            webhook returned response.patchType but not response.patch
            validating webhook may not return response.patch
            Answer { allowed: true, patch: [91, 93], status: None, annotations: {}, warnings: [] }"#]]
        .assert_eq(&all.join("\n"));
    }

    #[test]
    fn refusals_name_the_webhook() {
        let status = |value: Value| Some(api::codec::from_value(&value).unwrap());
        let text = |error: ApiError| format!("{} {:?} {}", error.code, error.reason, error.message);
        let all = [
            text(denial("a.b.c", None)),
            text(denial("a.b.c", status(json!({"message": "no", "code": 200})))),
            text(denial("a.b.c", status(json!({"reason": "Forbidden", "code": 403})))),
        ];
        expect![[r#"
            400 Unknown admission webhook "a.b.c" denied the request without explanation
            400 Unknown admission webhook "a.b.c" denied the request: no
            403 Forbidden admission webhook "a.b.c" denied the request: Forbidden"#]]
        .assert_eq(&all.join("\n"));
    }
}
