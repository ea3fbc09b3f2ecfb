//! A schema as it is used: compiled once from what a definition says, shared by all who prune, default and validate.

use crate::pattern;
use api::apiextensions::v1::JSONSchemaProps;
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeMap;

/// Deepest nesting of schemas that is compiled.
const DEPTH_MAX: usize = 128;

/// JSON types as OpenAPI names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Type::Object,
            "array" => Type::Array,
            "string" => Type::String,
            "integer" => Type::Integer,
            "number" => Type::Number,
            "boolean" => Type::Boolean,
            _ => return None,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
        }
    }
}

/// `x-kubernetes-list-type`, other than atomic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListType {
    Set,
    /// The fields that tell elements apart.
    Map(Vec<String>),
}

/// What fields without a property of their own may be.
#[derive(Clone, Debug)]
pub enum Additional {
    Schema(Box<Schema>),
    /// `false` only ever stands in schemas that were written around validation.
    Any(bool),
}

/// One of `x-kubernetes-validations`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub rule: String,
    pub message: String,
    pub message_expression: String,
    pub reason: Option<String>,
    pub field_path: String,
    pub optional_old_self: Option<bool>,
}

/// A pattern and its text.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub text: String,
    pub compiled: Regex,
}

/// What a value must be, beyond its type.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// Without dashes; empty where none is known for the type.
    pub format: String,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub pattern: Option<Pattern>,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub unique_items: bool,
    pub multiple_of: Option<f64>,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
    pub required: Vec<String>,
    pub allowed: Vec<Value>,
    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Box<Schema>>,
}

/// One node of a schema.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    pub ty: Option<Type>,
    pub nullable: bool,
    pub default: Option<Value>,
    pub items: Option<Box<Schema>>,
    pub properties: BTreeMap<String, Schema>,
    pub additional: Option<Additional>,
    pub preserve_unknown: bool,
    pub embedded: bool,
    pub int_or_string: bool,
    pub list_type: Option<ListType>,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic_map: bool,
    pub rules: Vec<Rule>,
    pub checks: Checks,
    /// Whether a default stands here or below: what has none is not walked.
    pub has_defaults: bool,
}

fn tree(json: &meta::Json) -> Result<Value, String> {
    json.to_value().map_err(|error| error.to_string())
}

impl Schema {
    /// Compiles a schema that has passed validation; what validation refuses is an error here too.
    pub fn compile(props: &JSONSchemaProps) -> Result<Self, String> {
        Self::compile_at(props, 0)
    }

    fn compile_at(props: &JSONSchemaProps, depth: usize) -> Result<Self, String> {
        if depth > DEPTH_MAX {
            return Err(format!("schemas may not be nested deeper than {DEPTH_MAX}"));
        }
        supported(props)?;
        let inner = |props: &JSONSchemaProps| Self::compile_at(props, depth + 1);
        let ty = Type::parse(&props.r#type);
        let items = match props.items.as_deref() {
            Some(items) if !items.schemas.is_empty() => {
                return Err("OpenAPIV3Schema 'items' must be a schema, but is an array".into());
            }
            Some(items) => items.schema.as_deref().map(inner).transpose()?.map(Box::new),
            None => None,
        };
        let mut properties = BTreeMap::new();
        for (name, property) in &props.properties {
            properties.insert(name.clone(), inner(property)?);
        }
        let additional = match props.additional_properties.as_deref() {
            Some(additional) => Some(match additional.schema.as_deref() {
                Some(schema) => Additional::Schema(Box::new(inner(schema)?)),
                None => Additional::Any(additional.allows),
            }),
            None => None,
        };
        let default = props.default.as_ref().map(tree).transpose()?;
        let below = |schema: &Schema| schema.has_defaults;
        let has_defaults = default.is_some()
            || items.as_deref().is_some_and(below)
            || properties.values().any(below)
            || matches!(&additional, Some(Additional::Schema(schema)) if below(schema));
        let list_type = match props.x_kubernetes_list_type.as_deref() {
            Some("set") => Some(ListType::Set),
            Some("map") => Some(ListType::Map(props.x_kubernetes_list_map_keys.clone())),
            _ => None,
        };
        Ok(Schema {
            nullable: props.nullable,
            default,
            items,
            properties,
            additional,
            preserve_unknown: props.x_kubernetes_preserve_unknown_fields == Some(true),
            embedded: props.x_kubernetes_embedded_resource,
            int_or_string: props.x_kubernetes_int_or_string,
            list_type,
            atomic_map: props.x_kubernetes_map_type.as_deref() == Some("atomic"),
            rules: rules(props),
            checks: Checks::compile(props, ty, depth)?,
            has_defaults,
            ty,
        })
    }

    /// The types a value may have, as errors name them.
    pub fn types(&self) -> String {
        if self.int_or_string {
            return "integer,string".into();
        }
        self.ty.map(Type::as_str).unwrap_or_default().into()
    }

    /// The schema of a field: its own, or that of all fields that have none.
    pub fn field(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).or(match &self.additional {
            Some(Additional::Schema(schema)) => Some(schema),
            _ => None,
        })
    }

    /// Whether this node or one below it has rules in CEL.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
            || self.items.as_deref().is_some_and(Schema::has_rules)
            || self.properties.values().any(Schema::has_rules)
            || matches!(&self.additional, Some(Additional::Schema(schema)) if schema.has_rules())
    }
}

fn rules(props: &JSONSchemaProps) -> Vec<Rule> {
    let rule = |rule: &api::apiextensions::v1::ValidationRule| Rule {
        rule: rule.rule.clone(),
        message: rule.message.clone(),
        message_expression: rule.message_expression.clone(),
        reason: rule.reason.clone(),
        field_path: rule.field_path.clone(),
        optional_old_self: rule.optional_old_self,
    };
    props.x_kubernetes_validations.iter().map(rule).collect()
}

impl Checks {
    fn compile(props: &JSONSchemaProps, ty: Option<Type>, depth: usize) -> Result<Self, String> {
        let many = |all: &[JSONSchemaProps]| -> Result<Vec<Schema>, String> {
            all.iter().map(|props| Schema::compile_at(props, depth + 1)).collect()
        };
        let pattern = match props.pattern.as_str() {
            "" => None,
            text => Some(Pattern { text: text.into(), compiled: pattern::compile(text)? }),
        };
        let not = props.not.as_deref().map(|props| Schema::compile_at(props, depth + 1));
        Ok(Checks {
            format: crate::formats::effective(&props.format, ty).unwrap_or_default(),
            maximum: props.maximum,
            exclusive_maximum: props.exclusive_maximum,
            minimum: props.minimum,
            exclusive_minimum: props.exclusive_minimum,
            max_length: props.max_length,
            min_length: props.min_length,
            pattern,
            max_items: props.max_items,
            min_items: props.min_items,
            unique_items: props.unique_items,
            multiple_of: props.multiple_of,
            max_properties: props.max_properties,
            min_properties: props.min_properties,
            required: props.required.clone(),
            allowed: props.r#enum.iter().map(tree).collect::<Result<_, _>>()?,
            all_of: many(&props.all_of)?,
            any_of: many(&props.any_of)?,
            one_of: many(&props.one_of)?,
            not: not.transpose()?.map(Box::new),
        })
    }
}

/// Parts of JSON schema that have no place in a definition.
fn supported(props: &JSONSchemaProps) -> Result<(), String> {
    let refuse = |name: &str| Err(format!("OpenAPIV3Schema '{name}' is not supported"));
    if !props.id.is_empty() {
        return refuse("id");
    }
    if !props.schema.is_empty() {
        return refuse("schema");
    }
    if props.r#ref.as_ref().is_some_and(|text| !text.is_empty()) {
        return refuse("$ref");
    }
    if !props.pattern_properties.is_empty() {
        return refuse("patternProperties");
    }
    if !props.dependencies.is_empty() {
        return refuse("dependencies");
    }
    if props.additional_items.is_some() {
        return refuse("additionalItems");
    }
    if !props.definitions.is_empty() {
        return refuse("definitions");
    }
    if props.x_kubernetes_preserve_unknown_fields == Some(false) {
        return Err("internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined".into());
    }
    Ok(())
}
