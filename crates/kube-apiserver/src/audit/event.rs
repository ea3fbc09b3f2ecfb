//! Audit events as text: audit.k8s.io/v1, its fields in upstream's order. Pure.

use super::policy::{Level, Stage};
use crate::admission::user_json;
use crate::request::RequestInfo;
use registry::UserInfo;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Longest user agent that is told.
const AGENT_MAX: usize = 1024;

/// What is known of a request so far.
#[derive(Clone, Debug, Default)]
pub struct Event {
    pub id: String,
    pub uri: String,
    pub verb: String,
    pub user: UserInfo,
    pub impersonated: Option<UserInfo>,
    pub source_ips: Vec<String>,
    pub agent: String,
    pub object: Option<Map<String, Value>>,
    pub status: Option<Value>,
    pub request_object: Option<Value>,
    pub response_object: Option<Value>,
    /// Microseconds since 1970.
    pub received: i64,
}

/// `2026-01-02T03:04:05.000006Z`.
pub fn micro_time(micros: i64) -> String {
    let seconds = micros.div_euclid(1_000_000);
    let text = meta::Time::from_seconds(seconds).unwrap_or_default().to_string();
    format!("{}.{:06}Z", text.trim_end_matches('Z'), micros.rem_euclid(1_000_000))
}

/// The object a request names.
pub fn object_reference(info: &RequestInfo) -> Option<Map<String, Value>> {
    if !info.is_resource {
        return None;
    }
    let mut out = Map::new();
    for (name, text) in [
        ("resource", &info.resource),
        ("namespace", &info.namespace),
        ("name", &info.name),
        ("apiGroup", &info.group),
        ("apiVersion", &info.version),
        ("subresource", &info.subresource),
    ] {
        if !text.is_empty() {
            out.insert(name.into(), json!(text));
        }
    }
    Some(out)
}

/// Takes what the reference lacks out of the object that was sent.
pub fn complete_reference(reference: &mut Map<String, Value>, object: &Value) {
    let metadata = &object["metadata"];
    for (name, field) in
        [("namespace", "namespace"), ("name", "name"), ("uid", "uid"), ("resourceVersion", "resourceVersion")]
    {
        if let Some(text) = metadata[field].as_str().filter(|text| !text.is_empty())
            && !reference.contains_key(name)
        {
            reference.insert(name.into(), json!(text));
        }
    }
}

/// Takes managed fields out of an object, the items of a list, or the rows of a table.
pub fn drop_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    for items in ["items", "rows"] {
        for item in object.get_mut(items).and_then(Value::as_array_mut).into_iter().flatten() {
            let inner = if items == "rows" { item.get_mut("object") } else { Some(item) };
            if let Some(metadata) =
                inner.and_then(|inner| inner.get_mut("metadata")).and_then(Value::as_object_mut)
            {
                metadata.remove("managedFields");
            }
        }
    }
}

/// The fields that follow kind and apiVersion, and the closing brace.
pub fn body(
    event: &Event,
    level: Level,
    stage: Stage,
    now: i64,
    annotations: &BTreeMap<String, String>,
) -> String {
    let mut out = String::with_capacity(512);
    let mut field = |name: &str, value: &Value| {
        if !out.is_empty() {
            out.push(',');
        }
        let _ = write!(out, "\"{name}\":{value}");
    };
    field("level", &json!(level.name()));
    field("auditID", &json!(event.id));
    field("stage", &json!(stage.name()));
    field("requestURI", &json!(event.uri));
    field("verb", &json!(event.verb));
    field("user", &user_json(&event.user));
    if let Some(user) = &event.impersonated {
        field("impersonatedUser", &user_json(user));
    }
    if !event.source_ips.is_empty() {
        field("sourceIPs", &json!(event.source_ips));
    }
    if !event.agent.is_empty() {
        let mut end = event.agent.len().min(AGENT_MAX);
        while !event.agent.is_char_boundary(end) {
            end -= 1;
        }
        let more = if end < event.agent.len() { "...TRUNCATED" } else { "" };
        field("userAgent", &json!(format!("{}{more}", &event.agent[..end])));
    }
    if let Some(object) = &event.object {
        field("objectRef", &Value::Object(object.clone()));
    }
    if stage != Stage::RequestReceived {
        if let Some(status) = &event.status {
            field("responseStatus", status);
        }
        if let Some(object) = event.request_object.as_ref().filter(|_| level >= Level::Request) {
            field("requestObject", object);
        }
        if let Some(object) = event.response_object.as_ref().filter(|_| level >= Level::RequestResponse) {
            field("responseObject", object);
        }
    }
    field("requestReceivedTimestamp", &json!(micro_time(event.received)));
    field("stageTimestamp", &json!(micro_time(now)));
    if !annotations.is_empty() {
        field("annotations", &json!(annotations));
    }
    out.push('}');
    out
}

/// One line of the log.
pub fn line(body: &str) -> String {
    format!("{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",{body}\n")
}

/// What a webhook is sent.
pub fn list(bodies: &[String]) -> String {
    let items: Vec<String> = bodies.iter().map(|body| format!("{{{body}")).collect();
    format!(
        "{{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"metadata\":{{}},\"items\":[{}]}}",
        items.join(",")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn events_read_as_upstream_writes_them() {
        let info = RequestInfo {
            is_resource: true,
            verb: "create".into(),
            version: "v1".into(),
            namespace: "x".into(),
            resource: "configmaps".into(),
            ..RequestInfo::default()
        };
        let mut object = object_reference(&info);
        complete_reference(object.as_mut().unwrap(), &json!({"metadata": {"name": "m", "namespace": "y"}}));
        let event = Event {
            id: "7".into(),
            uri: "/api/v1/namespaces/x/configmaps?a=b".into(),
            verb: info.verb.clone(),
            user: UserInfo { name: "jane".into(), groups: vec!["dev".into()], ..UserInfo::default() },
            source_ips: vec!["192.0.2.1".into()],
            agent: "kubectl".into(),
            object,
            status: Some(json!({"metadata": {}, "code": 201})),
            request_object: Some(json!({"kind": "ConfigMap"})),
            received: 1_767_323_045_000_006,
            ..Event::default()
        };
        let annotations =
            BTreeMap::from([("authorization.k8s.io/decision".to_string(), "allow".to_string())]);
        let of = |level, stage| line(&body(&event, level, stage, 1_767_323_045_100_000, &annotations));
        expect![[r#"
            {"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"7","stage":"RequestReceived","requestURI":"/api/v1/namespaces/x/configmaps?a=b","verb":"create","user":{"groups":["dev"],"username":"jane"},"sourceIPs":["192.0.2.1"],"userAgent":"kubectl","objectRef":{"apiVersion":"v1","name":"m","namespace":"x","resource":"configmaps"},"requestReceivedTimestamp":"2026-01-02T03:04:05.000006Z","stageTimestamp":"2026-01-02T03:04:05.100000Z","annotations":{"authorization.k8s.io/decision":"allow"}}
            {"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"7","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/x/configmaps?a=b","verb":"create","user":{"groups":["dev"],"username":"jane"},"sourceIPs":["192.0.2.1"],"userAgent":"kubectl","objectRef":{"apiVersion":"v1","name":"m","namespace":"x","resource":"configmaps"},"responseStatus":{"code":201,"metadata":{}},"requestObject":{"kind":"ConfigMap"},"requestReceivedTimestamp":"2026-01-02T03:04:05.000006Z","stageTimestamp":"2026-01-02T03:04:05.100000Z","annotations":{"authorization.k8s.io/decision":"allow"}}
        "#]]
        .assert_eq(&format!("{}{}", of(Level::Request, Stage::RequestReceived), of(Level::Request, Stage::ResponseComplete)));
    }

    #[test]
    fn managed_fields_go_where_they_are() {
        let mut list = json!({"metadata": {}, "items": [{"metadata": {"name": "a", "managedFields": [1]}}],
            "rows": [{"object": {"metadata": {"managedFields": [1]}}}]});
        drop_managed_fields(&mut list);
        assert!(!list.to_string().contains("managedFields"));
    }
}
