//! The audit policy: how much is told of a request, and at which stages. Pure.

use registry::{AnnotationLevel, UserInfo};
use serde_json::Value;

/// How much an event holds; each level holds what the one before does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
    fn parse(text: &str) -> Option<Self> {
        let all = [Level::None, Level::Metadata, Level::Request, Level::RequestResponse];
        all.into_iter().find(|level| level.name() == text)
    }
    pub fn annotations(self) -> AnnotationLevel {
        match self {
            Level::None => AnnotationLevel::None,
            Level::Metadata => AnnotationLevel::Metadata,
            Level::Request | Level::RequestResponse => AnnotationLevel::Request,
        }
    }
}

/// When an event is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
    fn parse(text: &str) -> Option<Self> {
        let all = [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic];
        all.into_iter().find(|stage| stage.name() == text)
    }
}

/// What the policy says of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

/// What the policy decides by.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Absent when authentication failed.
    pub user: Option<&'a UserInfo>,
    pub verb: &'a str,
    pub is_resource: bool,
    pub path: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
}

#[derive(Clone, Debug)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

#[derive(Clone, Debug)]
struct Rule {
    verdict: Verdict,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    urls: Vec<String>,
}

/// All rules; the first that matches decides.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    otherwise: Verdict,
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect()
}

fn stages(value: &Value) -> Result<Vec<Stage>, String> {
    strings(value)
        .iter()
        .map(|name| Stage::parse(name).ok_or_else(|| format!("omitStages: Unsupported value: {name:?}")))
        .collect()
}

impl Policy {
    /// Reads a policy of audit.k8s.io/v1.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = api::codec::yaml_to_json(text).map_err(|error| error.to_string())?;
        let file: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        if file["kind"] != "Policy" || file["apiVersion"] != "audit.k8s.io/v1" {
            return Err("the file holds no Policy of audit.k8s.io/v1".into());
        }
        let omit = stages(&file["omitStages"])?;
        let omit_managed = file["omitManagedFields"].as_bool().unwrap_or(false);
        let list = file["rules"].as_array().filter(|rules| !rules.is_empty());
        let list = list.ok_or("loaded illegal policy with 0 rules")?;
        let mut rules = Vec::new();
        for (at, rule) in list.iter().enumerate() {
            rules.push(read_rule(rule, &omit, omit_managed).map_err(|why| format!("rules[{at}].{why}"))?);
        }
        let otherwise = Verdict { level: Level::None, omit_stages: omit, omit_managed_fields: omit_managed };
        Ok(Policy { rules, otherwise })
    }

    pub fn evaluate(&self, attributes: &Attributes<'_>) -> &Verdict {
        let found = self.rules.iter().find(|rule| rule.matches(attributes));
        found.map_or(&self.otherwise, |rule| &rule.verdict)
    }
}

fn read_rule(rule: &Value, omit: &[Stage], omit_managed: bool) -> Result<Rule, String> {
    let level = rule["level"].as_str().unwrap_or_default();
    let level = Level::parse(level).ok_or_else(|| format!("level: Unsupported value: {level:?}"))?;
    let mut omit_stages = stages(&rule["omitStages"])?;
    omit_stages.extend(omit.iter().copied());
    let resources: Vec<GroupResources> = rule["resources"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| GroupResources {
            group: item["group"].as_str().unwrap_or_default().into(),
            resources: strings(&item["resources"]),
            names: strings(&item["resourceNames"]),
        })
        .collect();
    if resources.iter().any(|item| item.resources.is_empty() && !item.names.is_empty()) {
        return Err("resources: using resourceNames requires at least one resource".into());
    }
    let (namespaces, urls) = (strings(&rule["namespaces"]), strings(&rule["nonResourceURLs"]));
    if !urls.is_empty() && (!resources.is_empty() || !namespaces.is_empty()) {
        return Err(
            "nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs".into()
        );
    }
    if let Some(url) = urls.iter().find(|url| *url != "*" && !url.starts_with('/')) {
        return Err(format!(
            "nonResourceURLs: Invalid value: {url:?}: non-resource URL rules must begin with a '/' character"
        ));
    }
    Ok(Rule {
        verdict: Verdict {
            level,
            omit_stages,
            omit_managed_fields: rule["omitManagedFields"].as_bool().unwrap_or(omit_managed),
        },
        users: strings(&rule["users"]),
        groups: strings(&rule["userGroups"]),
        verbs: strings(&rule["verbs"]),
        resources,
        namespaces,
        urls,
    })
}

impl Rule {
    fn matches(&self, of: &Attributes<'_>) -> bool {
        let has = |list: &[String], value: &str| list.iter().any(|item| item == value);
        if !self.users.is_empty() && !of.user.is_some_and(|user| has(&self.users, &user.name)) {
            return false;
        }
        let in_group = |user: &UserInfo| user.groups.iter().any(|group| has(&self.groups, group));
        if !self.groups.is_empty() && !of.user.is_some_and(in_group) {
            return false;
        }
        if !self.verbs.is_empty() && !has(&self.verbs, of.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return of.is_resource
                && (self.namespaces.is_empty() || has(&self.namespaces, of.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|item| item.matches(of)));
        }
        if !self.urls.is_empty() {
            return !of.is_resource && self.urls.iter().any(|spec| path_matches(spec, of.path));
        }
        true
    }
}

impl GroupResources {
    fn matches(&self, of: &Attributes<'_>) -> bool {
        if self.group != "*" && self.group != of.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.names.is_empty() && !self.names.iter().any(|name| name == of.name) {
            return false;
        }
        self.resources.iter().any(|spec| {
            let (resource, sub) = spec.split_once('/').unwrap_or((spec, ""));
            spec == "*"
                || (resource == of.resource && (sub == of.subresource || sub == "*"))
                || (resource == "*" && !of.subresource.is_empty() && sub == of.subresource)
        })
    }
}

fn path_matches(spec: &str, path: &str) -> bool {
    spec == "*" || spec == path || spec.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: ["system:kube-proxy"], verbs: [watch], resources: [{group: "", resources: [endpoints, services]}]}
- {level: None, userGroups: ["system:authenticated"], nonResourceURLs: ["/api*", "/version"]}
- {level: Request, resources: [{group: "", resources: [configmaps], resourceNames: [special]}], namespaces: [kube-system]}
- {level: Metadata, resources: [{group: "", resources: [secrets, "pods/*"]}], omitStages: [ResponseStarted]}
- {level: RequestResponse, resources: [{group: apps}, {group: "*", resources: ["*/scale"]}], omitManagedFields: true}
- {level: Metadata, verbs: [delete]}
"#;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = Policy::parse(POLICY.as_bytes()).unwrap();
        let check = |user: &str, verb: &str, place: &str| {
            let user = UserInfo {
                name: user.into(),
                groups: vec!["system:authenticated".into()],
                ..UserInfo::default()
            };
            let parts: Vec<&str> = place.split(' ').collect();
            let is_resource = parts.len() == 5;
            let at = |n: usize| if is_resource { parts[n].trim_matches('-') } else { "" };
            let verdict = policy.evaluate(&Attributes {
                user: Some(&user),
                verb,
                is_resource,
                path: parts[0],
                group: at(0),
                resource: at(1),
                subresource: at(2),
                namespace: at(3),
                name: at(4),
            });
            format!(
                "{verb} {place}: {:?} {:?} {}",
                verdict.level, verdict.omit_stages, verdict.omit_managed_fields
            )
        };
        let all = [
            check("system:kube-proxy", "watch", "- services - - -"),
            check("jane", "watch", "- services - - -"),
            check("jane", "get", "/api/v1"),
            check("jane", "get", "/metrics"),
            check("jane", "update", "- configmaps - kube-system special"),
            check("jane", "update", "- configmaps - default special"),
            check("jane", "get", "- pods log default x"),
            check("jane", "get", "- secrets - default x"),
            check("jane", "update", "apps deployments status default x"),
            check("jane", "update", "x.io things scale default x"),
            check("jane", "delete", "- configmaps - default x"),
        ];
        expect![[r#"
            watch - services - - -: None [RequestReceived] false
            watch - services - - -: None [RequestReceived] false
            get /api/v1: None [RequestReceived] false
            get /metrics: None [RequestReceived] false
            update - configmaps - kube-system special: Request [RequestReceived] false
            update - configmaps - default special: None [RequestReceived] false
            get - pods log default x: Metadata [ResponseStarted, RequestReceived] false
            get - secrets - default x: Metadata [ResponseStarted, RequestReceived] false
            update apps deployments status default x: RequestResponse [RequestReceived] true
            update x.io things scale default x: RequestResponse [RequestReceived] true
            delete - configmaps - default x: Metadata [RequestReceived] false"#]]
        .assert_eq(&all.join("\n"));
    }

    #[test]
    fn bad_policies_are_refused() {
        let of = |rules: &str| {
            let text = format!("{{kind: Policy, apiVersion: audit.k8s.io/v1, rules: [{rules}]}}");
            Policy::parse(text.as_bytes()).map_or_else(|why| why, |_| "fine".into())
        };
        assert_eq!(of(""), "loaded illegal policy with 0 rules");
        assert_eq!(of("{level: All}"), "rules[0].level: Unsupported value: \"All\"");
        assert_eq!(
            of("{level: None, omitStages: [Later]}"),
            "rules[0].omitStages: Unsupported value: \"Later\""
        );
        assert!(
            of("{level: None, nonResourceURLs: [/a], resources: [{group: x}]}")
                .contains("cannot apply to both")
        );
        assert!(Policy::parse(b"kind: Pod").is_err());
    }
}
