//! What a URL and a method ask for: which resource, which verb, in which namespace.
//!
//! Everything after this, authorization first, looks at the parsed form and never at the URL again.

use crate::query::Query;
use http::Method;

/// One request as upstream's resolver would understand it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub is_resource: bool,
    pub path: String,
    /// API verb for resources, else the method in lower case.
    pub verb: String,
    /// `api` or `apis`; empty for paths outside of both.
    pub prefix: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// Path after the subresource, for proxies: no leading slash.
    pub rest: String,
    /// The deprecated `/watch/` form, which takes no selectors.
    pub watch_in_path: bool,
    /// The field selector as written, for verbs that have one: authorization of nodes reads it.
    pub field_selector: String,
}

/// Sub-paths of `namespaces/NAME` that are subresources of the namespace, not resources inside it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// Parses; an error is the text of a 400.
    pub fn parse(method: &Method, path: &str, query: &Query) -> Result<Self, String> {
        let mut info = RequestInfo {
            path: path.to_string(),
            verb: method.as_str().to_ascii_lowercase(),
            ..RequestInfo::default()
        };
        let trimmed = path.trim_matches('/');
        let parts: Vec<&str> = if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').collect() };
        if parts.len() < 3 || !matches!(parts[0], "api" | "apis") {
            return Ok(info);
        }
        info.prefix = parts[0].to_string();
        let mut rest = &parts[1..];
        if parts[0] == "apis" {
            if rest.len() < 3 {
                info.prefix.clear();
                return Ok(info);
            }
            info.group = decode(rest[0]);
            rest = &rest[1..];
        }
        info.is_resource = true;
        info.version = decode(rest[0]);
        rest = &rest[1..];
        info.read_verb(method, &mut rest, path)?;
        info.read_names(rest, path);
        info.refine_verb(query);
        Ok(info)
    }

    fn read_verb(&mut self, method: &Method, rest: &mut &[&str], path: &str) -> Result<(), String> {
        if matches!(rest[0], "proxy" | "watch") {
            if rest.len() < 2 {
                return Err(format!("unable to determine kind and namespace from url, {path}"));
            }
            self.verb = rest[0].to_string();
            self.watch_in_path = rest[0] == "watch";
            *rest = &rest[1..];
            return Ok(());
        }
        self.verb = match method.as_str() {
            "POST" => "create",
            "GET" | "HEAD" => "get",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            _ => "",
        }
        .to_string();
        Ok(())
    }

    fn read_names(&mut self, mut parts: &[&str], path: &str) {
        if parts[0] == "namespaces" && parts.len() > 1 {
            self.namespace = decode(parts[1]);
            if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
                parts = &parts[2..];
            }
        }
        self.resource = decode(parts[0]);
        if let Some(name) = parts.get(1) {
            self.name = decode(name);
        }
        if let Some(subresource) = parts.get(2) {
            if self.verb != "proxy" {
                self.subresource = decode(subresource);
            }
            self.rest = parts[3..].join("/");
            if parts.len() > 3 && path.ends_with('/') {
                self.rest.push('/');
            }
        }
    }

    /// Without a name, get means list or watch, and delete means deletecollection.
    fn refine_verb(&mut self, query: &Query) {
        if self.name.is_empty() && self.verb == "get" {
            let watch = query.first("watch").is_some_and(|value| is_true(value) || value.is_empty());
            self.verb = if watch { "watch" } else { "list" }.to_string();
        }
        if matches!(self.verb.as_str(), "list" | "watch") && self.name.is_empty() {
            let selector = query.first("fieldSelector").unwrap_or_default();
            if let Ok(selector) = meta::fields::Selector::parse(selector)
                && let Some(name) = selector.required("metadata.name")
                && !name.contains(['/', '%'])
                && name != "."
                && name != ".."
            {
                self.name = name.to_string();
            }
        }
        if self.name.is_empty() && self.verb == "delete" {
            self.verb = "deletecollection".into();
        }
        if !self.watch_in_path && matches!(self.verb.as_str(), "list" | "watch" | "deletecollection") {
            self.field_selector = query.first("fieldSelector").unwrap_or_default().to_string();
        }
    }

    /// Whether the request may outlive every timeout: watches, and streams to and from a node.
    pub fn is_long_running(&self, query: &Query) -> bool {
        if !self.is_resource {
            return self.path.starts_with("/debug/pprof/");
        }
        match (self.verb.as_str(), self.subresource.as_str()) {
            ("watch" | "proxy", _) => true,
            (_, "exec" | "attach" | "portforward" | "proxy") => true,
            (_, "log") => query.first("follow").is_some_and(is_true),
            _ => false,
        }
    }

    /// `pods/log`, as metrics and messages name it.
    pub fn resource_path(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

/// Upstream's reading of a boolean in a query: anything but these is true.
pub fn is_true(value: &str) -> bool {
    !matches!(value.to_ascii_lowercase().as_str(), "false" | "0" | "")
}

/// Percent-decodes one path segment; what is not UTF-8 stays as it was.
pub fn decode(segment: &str) -> String {
    if !segment.contains('%') {
        return segment.to_string();
    }
    crate::query::percent_decode(segment, false).unwrap_or_else(|| segment.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn check(lines: &str, expected: expect_test::Expect) {
        let out: Vec<String> = lines
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(|line| {
                let (method, uri) = line.split_once(' ').unwrap();
                let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                match RequestInfo::parse(&method, path, &Query::parse(query)) {
                    Ok(i) => format!(
                        "{line}: {} g={} v={} ns={} {}/{} name={} rest={}",
                        i.verb, i.group, i.version, i.namespace, i.resource, i.subresource, i.name, i.rest
                    ),
                    Err(error) => format!("{line}: {error}"),
                }
            })
            .collect();
        expected.assert_eq(&out.join("\n"));
    }

    #[test]
    fn urls_as_upstream_reads_them() {
        check(
            "GET /api/v1/pods
             GET /api/v1/namespaces/default/pods?watch=true
             GET /api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dweb
             GET /api/v1/namespaces/default
             PUT /api/v1/namespaces/default/finalize
             GET /api/v1/namespaces/default/pods/web/log
             POST /apis/apps/v1/namespaces/x/deployments
             DELETE /apis/apps/v1/namespaces/x/deployments
             GET /api/v1/watch/namespaces/x/pods/web
             GET /api/v1/namespaces/x/services/http:web:80/proxy/a/b/
             GET /apis/apps/v1
             GET /healthz/ping
             GET /api/v1/watch",
            expect![[r#"
                GET /api/v1/pods: list g= v=v1 ns= pods/ name= rest=
                GET /api/v1/namespaces/default/pods?watch=true: watch g= v=v1 ns=default pods/ name= rest=
                GET /api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dweb: list g= v=v1 ns=default pods/ name=web rest=
                GET /api/v1/namespaces/default: get g= v=v1 ns=default namespaces/ name=default rest=
                PUT /api/v1/namespaces/default/finalize: update g= v=v1 ns=default namespaces/finalize name=default rest=
                GET /api/v1/namespaces/default/pods/web/log: get g= v=v1 ns=default pods/log name=web rest=
                POST /apis/apps/v1/namespaces/x/deployments: create g=apps v=v1 ns=x deployments/ name= rest=
                DELETE /apis/apps/v1/namespaces/x/deployments: deletecollection g=apps v=v1 ns=x deployments/ name= rest=
                GET /api/v1/watch/namespaces/x/pods/web: watch g= v=v1 ns=x pods/ name=web rest=
                GET /api/v1/namespaces/x/services/http:web:80/proxy/a/b/: get g= v=v1 ns=x services/proxy name=http:web:80 rest=a/b/
                GET /apis/apps/v1: get g= v= ns= / name= rest=
                GET /healthz/ping: get g= v= ns= / name= rest=
                GET /api/v1/watch: unable to determine kind and namespace from url, /api/v1/watch"#]],
        );
    }
}
