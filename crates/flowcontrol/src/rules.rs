//! Which flow schema a request belongs to, and which flow of it.

use api::flowcontrol::v1::{FlowSchema, PolicyRulesWithSubjects, ResourcePolicyRule, Subject};
use sha2::{Digest as _, Sha256};

/// A request as flow schemas see it.
#[derive(Clone, Copy, Debug)]
pub struct Digest<'a> {
    pub user: &'a str,
    pub groups: &'a [String],
    pub verb: &'a str,
    pub is_resource: bool,
    pub path: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
}

/// A schema and what tells its flows apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow<'a> {
    /// Place of the schema in the list that was searched.
    pub schema: usize,
    pub distinguisher: &'a str,
}

/// The first schema that matches; the list is ordered by matchingPrecedence, then by name.
pub fn matching<'a>(schemas: &[FlowSchema], of: &Digest<'a>) -> Option<Flow<'a>> {
    let at = schemas.iter().position(|schema| schema.spec.rules.iter().any(|rule| matches(rule, of)))?;
    let method = schemas[at].spec.distinguisher_method.as_ref().map(|method| method.r#type.as_str());
    let distinguisher = match method {
        Some("ByUser") => of.user,
        Some("ByNamespace") => of.namespace,
        _ => "",
    };
    Some(Flow { schema: at, distinguisher })
}

/// What a flow's queues are dealt by.
pub fn flow_hash(schema: &str, distinguisher: &str) -> u64 {
    let mut hash = Sha256::new();
    hash.update(schema.as_bytes());
    // Keeps "a" of "bc" and "ab" of "c" apart.
    hash.update([0]);
    hash.update(distinguisher.as_bytes());
    let bytes: [u8; 32] = hash.finalize().into();
    let mut first = [0; 8];
    first.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(first)
}

fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|item| item == "*" || item == value)
}

fn matches(rule: &PolicyRulesWithSubjects, of: &Digest<'_>) -> bool {
    if !rule.subjects.iter().any(|subject| is_subject(subject, of)) {
        return false;
    }
    if of.is_resource {
        return rule.resource_rules.iter().any(|rule| is_resource(rule, of));
    }
    rule.non_resource_rules.iter().any(|rule| {
        has(&rule.verbs, of.verb)
            && rule.non_resource_urls.iter().any(|url| {
                url == "*"
                    || url == of.path
                    || url.strip_suffix("/*").is_some_and(|prefix| {
                        of.path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
                    })
            })
    })
}

fn is_subject(subject: &Subject, of: &Digest<'_>) -> bool {
    match subject.kind.as_str() {
        "User" => subject.user.as_ref().is_some_and(|user| user.name == "*" || user.name == of.user),
        "Group" => {
            subject.group.as_ref().is_some_and(|group| group.name == "*" || of.groups.contains(&group.name))
        }
        "ServiceAccount" => subject.service_account.as_ref().is_some_and(|account| {
            let prefix = format!("system:serviceaccount:{}:", account.namespace);
            of.user.strip_prefix(&prefix).is_some_and(|name| account.name == "*" || account.name == name)
        }),
        _ => false,
    }
}

fn is_resource(rule: &ResourcePolicyRule, of: &Digest<'_>) -> bool {
    let named = if of.subresource.is_empty() {
        has(&rule.resources, of.resource)
    } else {
        rule.resources.iter().any(|item| {
            item == "*"
                || item
                    .split_once('/')
                    .is_some_and(|(resource, sub)| resource == of.resource && sub == of.subresource)
        })
    };
    let placed =
        if of.namespace.is_empty() { rule.cluster_scope } else { has(&rule.namespaces, of.namespace) };
    has(&rule.verbs, of.verb) && has(&rule.api_groups, of.group) && named && placed
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn schema(value: Value) -> FlowSchema {
        api::codec::from_value(&value).unwrap()
    }

    #[test]
    fn the_first_schema_that_matches_takes_the_request() {
        let schemas = [
            schema(json!({"metadata": {"name": "probes"}, "spec": {"rules": [{
                "subjects": [{"kind": "Group", "group": {"name": "system:unauthenticated"}}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/livez/*"]}]}]}})),
            schema(
                json!({"metadata": {"name": "nodes"}, "spec": {"distinguisherMethod": {"type": "ByUser"}, "rules": [{
                "subjects": [{"kind": "Group", "group": {"name": "system:nodes"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["nodes", "nodes/status"],
                    "namespaces": ["*"], "clusterScope": true}]}]}}),
            ),
            schema(
                json!({"metadata": {"name": "accounts"}, "spec": {"distinguisherMethod": {"type": "ByNamespace"}, "rules": [{
                "subjects": [{"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}}],
                "resourceRules": [{"verbs": ["get"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}]}]}}),
            ),
        ];
        let groups: Vec<String> = vec!["system:nodes".into(), "system:unauthenticated".into()];
        let none: Vec<String> = Vec::new();
        let base = Digest {
            user: "n1",
            groups: &groups,
            verb: "get",
            is_resource: true,
            path: "/x",
            group: "",
            resource: "nodes",
            subresource: "",
            namespace: "",
        };
        let name = |digest: Digest<'_>| {
            matching(&schemas, &digest).map_or("none".to_string(), |flow| {
                format!("{}/{}", schemas[flow.schema].metadata.name, flow.distinguisher)
            })
        };
        assert_eq!(name(base), "nodes/n1");
        assert_eq!(name(Digest { subresource: "status", ..base }), "nodes/n1");
        assert_eq!(name(Digest { subresource: "proxy", ..base }), "none");
        assert_eq!(name(Digest { is_resource: false, path: "/livez/ping", ..base }), "probes/");
        assert_eq!(name(Digest { is_resource: false, path: "/livezz", ..base }), "none");
        let account = Digest { user: "system:serviceaccount:kube-system:x", groups: &none, ..base };
        assert_eq!(name(account), "none");
        assert_eq!(
            name(Digest { namespace: "kube-public", resource: "pods", ..account }),
            "accounts/kube-public"
        );
        assert_ne!(flow_hash("a", "bc"), flow_hash("ab", "c"));
    }
}
