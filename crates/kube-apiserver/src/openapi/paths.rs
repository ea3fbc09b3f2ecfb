//! Operations: the paths of every resource, with the parameters that clients look for before they use them.

use super::schema::{Definitions, Dialect};
use api::SubresourceFacts;
use meta::Gvk;
use resources::Resource;
use serde_json::{Map, Value, json};

const JSON: &str = "application/json";
const BODIES: [&str; 3] = [JSON, "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAMS: [&str; 2] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// Query parameters, by what they are options of; `i` marks integers, `b` booleans.
const LIST: &[(&str, char)] = &[
    ("allowWatchBookmarks", 'b'),
    ("continue", 's'),
    ("fieldSelector", 's'),
    ("labelSelector", 's'),
    ("limit", 'i'),
    ("resourceVersion", 's'),
    ("resourceVersionMatch", 's'),
    ("sendInitialEvents", 'b'),
    ("timeoutSeconds", 'i'),
    ("watch", 'b'),
];
const WRITE: &[(&str, char)] = &[("dryRun", 's'), ("fieldManager", 's'), ("fieldValidation", 's')];
const DELETE: &[(&str, char)] =
    &[("dryRun", 's'), ("gracePeriodSeconds", 'i'), ("orphanDependents", 'b'), ("propagationPolicy", 's')];
const FORCE: (&str, char) = ("force", 'b');
const PRETTY: (&str, char) = ("pretty", 's');

/// One operation before it is written in a dialect.
struct Operation {
    method: &'static str,
    action: &'static str,
    gvk: Gvk,
    parameters: Vec<(&'static str, char)>,
    /// The definition of the body, and whether it must be there.
    body: Option<(String, bool)>,
    consumes: &'static [&'static str],
    answers: Vec<(u16, String)>,
    stream: bool,
    id: String,
}

/// All paths of one group and version, and the definitions they need.
pub fn add(
    paths: &mut Map<String, Value>,
    definitions: &mut Definitions,
    resources: &[&'static dyn Resource],
) {
    for resource in resources {
        Walk { resource: *resource, definitions }.resource(paths);
    }
}

struct Walk<'a> {
    resource: &'static dyn Resource,
    definitions: &'a mut Definitions,
}

impl Walk<'_> {
    fn resource(&mut self, paths: &mut Map<String, Value>) {
        let facts = self.resource.facts();
        let root = if facts.group.is_empty() {
            format!("/api/{}", facts.version)
        } else {
            format!("/apis/{}/{}", facts.group, facts.version)
        };
        let base = if facts.namespaced {
            format!("{root}/namespaces/{{namespace}}/{}", facts.plural)
        } else {
            format!("{root}/{}", facts.plural)
        };
        let item = format!("{base}/{{name}}");
        let (collection, single): (Vec<_>, Vec<_>) = facts
            .verbs
            .iter()
            .filter_map(|verb| self.operation(verb))
            .partition(|operation| matches!(operation.action, "list" | "post" | "deletecollection"));
        let namespaced = facts.namespaced;
        self.put(paths, &base, collection, namespaced, false);
        if namespaced && facts.verbs.contains(&"list") {
            let list = self.operation("list").into_iter().collect();
            self.put(paths, &format!("{root}/{}", facts.plural), list, false, false);
        }
        self.put(paths, &item, single, namespaced, true);
        for sub in facts.subresources {
            let operations = sub.verbs.iter().filter_map(|verb| self.sub_operation(sub, verb)).collect();
            self.put(paths, &format!("{item}/{}", sub.name), operations, namespaced, true);
        }
    }

    fn operation(&mut self, verb: &str) -> Option<Operation> {
        let facts = self.resource.facts();
        let gvk = self.resource.gvk();
        let own = match self.resource.custom() {
            Some(row) => self.definitions.add_custom(row),
            None => self.definitions.add(self.resource.descriptor()),
        };
        let id = |what: &str| format!("{what}{}", facts.kind);
        let written = || vec![(200, own.clone()), (201, own.clone()), (202, own.clone())];
        let blank = Operation {
            method: "get",
            action: "get",
            gvk,
            parameters: Vec::new(),
            body: None,
            consumes: &["*/*"],
            answers: vec![(200, own.clone())],
            stream: false,
            id: id("read"),
        };
        Some(match verb {
            "get" => blank,
            "list" => Operation {
                action: "list",
                parameters: LIST.to_vec(),
                answers: vec![(200, self.list_definition())],
                stream: true,
                id: id("list"),
                ..blank
            },
            "create" => Operation {
                method: "post",
                action: "post",
                parameters: WRITE.to_vec(),
                body: Some((own.clone(), true)),
                answers: written(),
                id: id("create"),
                ..blank
            },
            "update" => Operation {
                method: "put",
                action: "put",
                parameters: WRITE.to_vec(),
                body: Some((own.clone(), true)),
                answers: vec![(200, own.clone()), (201, own)],
                id: id("replace"),
                ..blank
            },
            "patch" => {
                self.patch_definition();
                Operation {
                    method: "patch",
                    action: "patch",
                    parameters: [WRITE, &[FORCE]].concat(),
                    body: Some((PATCH.into(), true)),
                    consumes: if self.resource.custom().is_some() { &PATCHES[..3] } else { &PATCHES },
                    answers: vec![(200, own.clone()), (201, own)],
                    id: id("patch"),
                    ..blank
                }
            }
            "delete" | "deletecollection" => self.deletion(verb, blank),
            // The watch of a collection is its list with a parameter.
            _ => return None,
        })
    }

    fn deletion(&mut self, verb: &str, blank: Operation) -> Operation {
        self.definitions.add(&api::meta::v1::DELETE_OPTIONS);
        self.definitions.add(&api::meta::v1::STATUS);
        let kind = self.resource.kind();
        let (single, deletion) = (
            verb == "delete",
            Operation { method: "delete", body: Some((DELETE_OPTIONS.into(), false)), ..blank },
        );
        if single {
            return Operation {
                action: "delete",
                parameters: DELETE.to_vec(),
                answers: vec![(200, STATUS.into()), (202, STATUS.into())],
                id: format!("delete{kind}"),
                ..deletion
            };
        }
        let list = LIST.iter().filter(|(name, _)| !matches!(*name, "watch" | "allowWatchBookmarks"));
        Operation {
            action: "deletecollection",
            parameters: DELETE.iter().chain(list).copied().collect(),
            answers: vec![(200, STATUS.into())],
            id: format!("deletecollection{kind}"),
            ..deletion
        }
    }

    fn sub_operation(&mut self, sub: &SubresourceFacts, verb: &str) -> Option<Operation> {
        let kind = resources::find_kind(sub.group, sub.version, sub.kind).map(|row| row.descriptor());
        let kind = kind.or_else(|| api::kind(sub.group, sub.version, sub.kind).map(|kind| kind.descriptor));
        let gvk = Gvk { group: sub.group, version: sub.version, kind: sub.kind };
        let mut operation = self.operation(verb)?;
        let own = match self.resource.custom() {
            Some(row) if sub.kind == row.kind() => Some(self.definitions.add_custom(row)),
            _ => kind.filter(|kind| !kind.definition.is_empty()).map(|kind| self.definitions.add(kind)),
        };
        operation.gvk = gvk;
        operation.id = format!("{}{}", operation.id, sub.name);
        match own {
            Some(own) => {
                if operation.body.as_ref().is_some_and(|(body, _)| body != PATCH) {
                    operation.body = Some((own.clone(), true));
                }
                for (_, answer) in &mut operation.answers {
                    *answer = own.clone();
                }
            }
            // Streams and proxies: what goes through them is not described.
            None => {
                operation.body = None;
                operation.answers.clear();
                operation.action = "connect";
            }
        }
        Some(operation)
    }

    fn list_definition(&mut self) -> String {
        match self.resource.custom() {
            Some(row) => self.definitions.add_custom_list(row),
            None => self.definitions.add_list(self.resource.descriptor()),
        }
    }

    fn patch_definition(&mut self) {
        self.definitions.all.entry(PATCH.into()).or_insert_with(|| json!({"type": "object"}));
    }

    fn put(
        &self,
        paths: &mut Map<String, Value>,
        path: &str,
        operations: Vec<Operation>,
        namespaced: bool,
        named: bool,
    ) {
        if operations.is_empty() {
            return;
        }
        let dialect = self.definitions.dialect;
        let tag = self.resource.gvk().api_version().replace(['/', '.'], "_");
        let mut item = Map::new();
        for operation in &operations {
            item.insert(operation.method.into(), write(operation, dialect, &tag, path));
        }
        let mut parameters = Vec::new();
        if named {
            parameters.push(path_parameter("name", dialect));
        }
        if namespaced {
            parameters.push(path_parameter("namespace", dialect));
        }
        parameters.push(query_parameter(PRETTY, dialect));
        item.insert("parameters".into(), parameters.into());
        paths.insert(path.to_string(), item.into());
    }
}

fn path_parameter(name: &str, dialect: Dialect) -> Value {
    let mut parameter = json!({"name": name, "in": "path", "required": true});
    place_type(&mut parameter, json!({"type": "string"}), dialect);
    parameter["uniqueItems"] = true.into();
    if dialect == Dialect::V3 {
        parameter.as_object_mut().map(|object| object.remove("uniqueItems"));
    }
    parameter
}

fn query_parameter((name, kind): (&str, char), dialect: Dialect) -> Value {
    let kind = match kind {
        'i' => "integer",
        'b' => "boolean",
        _ => "string",
    };
    let mut parameter = json!({"name": name, "in": "query"});
    place_type(&mut parameter, json!({ "type": kind }), dialect);
    parameter
}

fn place_type(parameter: &mut Value, schema: Value, dialect: Dialect) {
    match dialect {
        Dialect::V2 => parameter["type"] = schema["type"].clone(),
        Dialect::V3 => parameter["schema"] = schema,
    }
}

fn write(operation: &Operation, dialect: Dialect, tag: &str, path: &str) -> Value {
    let scope = if path.contains("{namespace}") { "Namespaced" } else { "" };
    let mut out = json!({
        "tags": [tag],
        "operationId": format!("{}{scope}", operation.id),
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": {
            "group": operation.gvk.group, "version": operation.gvk.version, "kind": operation.gvk.kind,
        },
    });
    let mut parameters: Vec<Value> =
        operation.parameters.iter().map(|parameter| query_parameter(*parameter, dialect)).collect();
    let produces: Vec<&str> =
        if operation.stream { BODIES.iter().chain(&STREAMS).copied().collect() } else { BODIES.to_vec() };
    let mut answers = Map::new();
    for (code, name) in &operation.answers {
        let schema = json!({"$ref": dialect.reference(name)});
        let text = if *code == 201 {
            "Created"
        } else if *code == 202 {
            "Accepted"
        } else {
            "OK"
        };
        let answer = match dialect {
            Dialect::V2 => json!({"description": text, "schema": schema}),
            Dialect::V3 => {
                let content: Map<String, Value> =
                    produces.iter().map(|media| (media.to_string(), json!({ "schema": schema }))).collect();
                json!({"description": text, "content": content})
            }
        };
        answers.insert(code.to_string(), answer);
    }
    if answers.is_empty() {
        answers.insert("200".into(), json!({"description": "OK"}));
    }
    answers.insert("401".into(), json!({"description": "Unauthorized"}));
    out["responses"] = answers.into();
    if let Some((body, required)) = &operation.body {
        let schema = json!({"$ref": dialect.reference(body)});
        match dialect {
            Dialect::V2 => {
                let mut parameter = json!({"in": "body", "name": "body", "schema": schema});
                if *required {
                    parameter["required"] = true.into();
                }
                parameters.insert(0, parameter);
            }
            Dialect::V3 => {
                let content: Map<String, Value> = operation
                    .consumes
                    .iter()
                    .map(|media| (media.to_string(), json!({ "schema": schema })))
                    .collect();
                out["requestBody"] = json!({ "content": content });
                if *required {
                    out["requestBody"]["required"] = true.into();
                }
            }
        }
    }
    if dialect == Dialect::V2 {
        out["consumes"] = json!(operation.consumes);
        out["produces"] = json!(produces);
        out["schemes"] = json!(["https"]);
    }
    if !parameters.is_empty() {
        out["parameters"] = parameters.into();
    }
    out
}
