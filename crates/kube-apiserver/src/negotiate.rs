//! Which form an answer takes: the media type, and whether objects are turned into tables or bare metadata.

use crate::query::Query;
use api::errors::ApiError;

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Most clauses of an Accept header that are looked at.
const MAX_CLAUSES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

impl Encoding {
    pub fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => JSON,
            Encoding::Yaml => YAML,
            Encoding::Protobuf => PROTOBUF,
        }
    }
    fn of(kind: &str, sub: &str) -> Option<Self> {
        match (kind, sub) {
            ("application", "json") | ("*", "*") | ("application", "*") => Some(Encoding::Json),
            ("application", "yaml") => Some(Encoding::Yaml),
            ("application", "vnd.kubernetes.protobuf") => Some(Encoding::Protobuf),
            _ => None,
        }
    }
}

/// What an object is turned into before it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Object,
    Table,
    Metadata,
    MetadataList,
}

/// How each row of a table carries its object: `includeObject`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

/// The form an answer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    pub encoding: Encoding,
    pub shape: Shape,
    /// `v1` or `v1beta1` of meta.k8s.io, for tables and metadata.
    pub beta: bool,
    pub pretty: bool,
    pub include_object: IncludeObject,
}

impl Output {
    pub const JSON: Output = Output {
        encoding: Encoding::Json,
        shape: Shape::Object,
        beta: false,
        pretty: false,
        include_object: IncludeObject::Metadata,
    };
    pub fn meta_version(&self) -> &'static str {
        if self.beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
    }
}

/// One clause of an Accept header.
#[derive(Debug, PartialEq)]
pub struct Clause<'a> {
    pub kind: &'a str,
    pub sub: &'a str,
    pub parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Clause<'_> {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

/// The clauses, best first; equal ones keep their order.
pub fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut out: Vec<Clause<'_>> = accept
        .split(',')
        .take(MAX_CLAUSES)
        .filter_map(|text| {
            let mut parts = text.split(';').map(str::trim);
            let (kind, sub) = parts.next()?.split_once('/')?;
            let parameters: Vec<_> = parts
                .filter_map(|part| part.split_once('='))
                .map(|(key, value)| (key.trim(), value.trim().trim_matches('"')))
                .collect();
            let quality = parameters
                .iter()
                .find(|(key, _)| *key == "q")
                .map_or(1.0, |(_, value)| value.parse().unwrap_or(1.0));
            Some(Clause { kind, sub, parameters, quality })
        })
        .collect();
    out.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    out
}

/// Which forms the objects of an answer have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forms {
    All,
    /// Custom resources have no protobuf; their metadata has.
    NoProtobuf,
}

/// Chooses by the Accept header. `stream` is for watches, which have no YAML form.
pub fn output(
    accept: Option<&str>,
    query: &Query,
    user_agent: &str,
    stream: bool,
    forms: Forms,
) -> Result<Output, ApiError> {
    let accept = accept.map(str::trim).filter(|text| !text.is_empty()).unwrap_or("*/*");
    let chosen = clauses(accept).into_iter().find_map(|clause| {
        let encoding = Encoding::of(clause.kind, clause.sub)?;
        if stream && encoding == Encoding::Yaml {
            return None;
        }
        let (shape, beta) = shape(&clause)?;
        if encoding == Encoding::Protobuf && shape == Shape::Object && forms == Forms::NoProtobuf {
            return None;
        }
        Some((encoding, shape, beta, clause.parameter("pretty").is_some_and(|value| value == "1")))
    });
    let Some((encoding, shape, beta, asked)) = chosen else {
        let accepted: &[&str] = match (stream, forms) {
            (true, Forms::All) => &[JSON, PROTOBUF],
            (false, Forms::All) => &[JSON, YAML, PROTOBUF],
            (true, Forms::NoProtobuf) => &[JSON],
            (false, Forms::NoProtobuf) => &[JSON, YAML],
        };
        return Err(ApiError::not_acceptable(accepted));
    };
    let include_object = match query.first("includeObject") {
        None | Some("" | "Metadata") => IncludeObject::Metadata,
        Some("None") => IncludeObject::None,
        Some("Object") => IncludeObject::Object,
        Some(other) if shape == Shape::Table => {
            return Err(ApiError::bad_request(format!("unrecognized includeObject value: {other:?}")));
        }
        Some(_) => IncludeObject::Metadata,
    };
    let pretty = encoding == Encoding::Json && !stream && (asked || is_pretty(query, user_agent));
    Ok(Output { encoding, shape, beta, pretty, include_object })
}

fn is_pretty(query: &Query, user_agent: &str) -> bool {
    match query.first("pretty") {
        Some(_) => query.boolean("pretty"),
        None => ["curl", "Wget", "Mozilla/5.0"].iter().any(|prefix| user_agent.starts_with(prefix)),
    }
}

/// `None` refuses the clause: it asks for a form that does not exist.
fn shape(clause: &Clause<'_>) -> Option<(Shape, bool)> {
    let Some(wanted) = clause.parameter("as") else { return Some((Shape::Object, false)) };
    if clause.parameter("g") != Some("meta.k8s.io") {
        return None;
    }
    let beta = match clause.parameter("v")? {
        "v1" => false,
        "v1beta1" => true,
        _ => return None,
    };
    match wanted {
        "Table" => Some((Shape::Table, beta)),
        "PartialObjectMetadata" => Some((Shape::Metadata, beta)),
        "PartialObjectMetadataList" => Some((Shape::MetadataList, beta)),
        _ => None,
    }
}

/// What a body is written in, by its Content-Type; an absent one is JSON.
pub fn input(content_type: Option<&str>) -> Result<Encoding, ApiError> {
    let text = content_type.map(str::trim).filter(|text| !text.is_empty()).unwrap_or(JSON);
    let base = text.split(';').next().unwrap_or(text).trim();
    match base.to_ascii_lowercase().as_str() {
        JSON => Ok(Encoding::Json),
        YAML | "application/x-yaml" | "text/yaml" => Ok(Encoding::Yaml),
        PROTOBUF => Ok(Encoding::Protobuf),
        _ => Err(ApiError::unsupported_media_type(&[JSON, YAML, PROTOBUF])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn chosen(accept: &str) -> String {
        match output(Some(accept), &Query::default(), "kubectl/v1.36", false, Forms::All) {
            Ok(output) => format!("{:?} {:?} beta={}", output.encoding, output.shape, output.beta),
            Err(error) => format!("{} {}", error.code, error.message),
        }
    }

    #[test]
    fn the_first_clause_that_can_be_served_wins() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let lines = [
            kubectl,
            "application/vnd.kubernetes.protobuf, */*",
            "application/json;as=Table;v=v9;g=meta.k8s.io, application/yaml",
            "application/yaml;q=0.5, application/json;q=0.9",
            "text/html",
            "",
        ];
        expect![[r#"
            Json Table beta=false
            Protobuf Object beta=false
            Yaml Object beta=false
            Json Object beta=false
            406 only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf
            Json Object beta=false"#]].assert_eq(&lines.map(chosen).join("\n"));
    }
}
