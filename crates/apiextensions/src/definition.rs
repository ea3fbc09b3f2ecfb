//! A definition made ready to serve: its names, and each version with its schema, columns and subresources compiled.

use crate::jsonpath::JsonPath;
use crate::rules::Rules;
use crate::schema::Schema;
use api::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, CustomResourceSubresources, WebhookConversion,
};
use serde_json::{Map, Value};
use std::sync::Arc;

/// One printed column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    /// `boolean`, `date`, `integer`, `number` or `string`.
    pub ty: String,
    pub format: String,
    pub description: String,
    pub priority: i32,
    pub path: JsonPath,
}

/// Where the numbers of a `scale` subresource stand in an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scale {
    pub spec_path: String,
    pub status_path: String,
    pub selector_path: Option<String>,
}

/// One version of a kind.
#[derive(Debug)]
pub struct Version {
    pub name: String,
    pub served: bool,
    pub storage: bool,
    /// What who uses the version is told, where it is deprecated.
    pub deprecation: Option<String>,
    pub schema: Schema,
    /// Its rules in CEL.
    pub rules: Option<Rules>,
    /// The schema as it was written, as JSON.
    pub source: String,
    pub status: bool,
    pub scale: Option<Scale>,
    pub columns: Vec<Column>,
    /// Fields that selectors may name, as they name them (`spec.color`), and where they stand.
    pub selectable: Vec<(String, JsonPath)>,
}

/// How objects get from one version to another.
#[derive(Clone, Debug, Default)]
pub enum Conversion {
    /// Only `apiVersion` changes.
    #[default]
    None,
    Webhook(Box<WebhookConversion>),
}

/// A kind as its definition has it, by the names that were accepted.
#[derive(Debug)]
pub struct Definition {
    pub group: String,
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub list_kind: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub versions: Vec<Arc<Version>>,
    pub conversion: Conversion,
    /// Its objects are being deleted, and no more are made.
    pub terminating: bool,
}

/// Whether a condition of this type says so.
pub fn is_true(definition: &CustomResourceDefinition, condition: &str) -> bool {
    definition.status.conditions.iter().any(|it| it.r#type == condition && it.status == "True")
}

impl Definition {
    /// Compiles a definition that has passed validation and whose names have been accepted.
    ///
    /// # Errors
    /// Why a schema or a path of it cannot be used, which only an unvalidated one can bring about.
    pub fn compile(definition: &CustomResourceDefinition) -> Result<Self, String> {
        let (spec, names) = (&definition.spec, &definition.status.accepted_names);
        let versions = spec.versions.iter().map(|version| Version::compile(definition, version));
        let conversion = match spec.conversion.as_deref() {
            Some(conversion) if conversion.strategy == "Webhook" => {
                Conversion::Webhook(conversion.webhook.clone().unwrap_or_default())
            }
            _ => Conversion::None,
        };
        Ok(Definition {
            group: spec.group.clone(),
            plural: names.plural.clone(),
            singular: names.singular.clone(),
            kind: names.kind.clone(),
            list_kind: names.list_kind.clone(),
            short_names: names.short_names.clone(),
            categories: names.categories.clone(),
            namespaced: spec.scope != "Cluster",
            versions: versions.map(|version| version.map(Arc::new)).collect::<Result<_, _>>()?,
            conversion,
            terminating: definition.metadata.deletion_timestamp.is_some(),
        })
    }

    pub fn storage_version(&self) -> Option<&Arc<Version>> {
        self.versions.iter().find(|version| version.storage)
    }
}

impl Version {
    fn compile(
        definition: &CustomResourceDefinition,
        version: &CustomResourceDefinitionVersion,
    ) -> Result<Self, String> {
        let spec = &definition.spec;
        let props = version.schema.as_ref().and_then(|schema| schema.open_apiv3_schema.as_deref());
        let (mut schema, source) = match props {
            Some(props) => {
                let mut source = Vec::new();
                meta::json::write_message(props, &mut source);
                (Schema::compile(props)?, String::from_utf8_lossy(&source).into_owned())
            }
            None => (Schema::default(), "{}".into()),
        };
        schema.preserve_unknown |= spec.preserve_unknown_fields || props.is_none();
        // Typed metadata is read by its own rules, whatever a schema says of it.
        let subresources = version.subresources.as_deref();
        let scale = subresources.and_then(|it: &CustomResourceSubresources| it.scale.as_deref());
        let selectable = version.selectable_fields.iter().map(|field| {
            let name = field.json_path.trim_start_matches('.').to_string();
            Ok((name, JsonPath::parse(&field.json_path)?))
        });
        Ok(Version {
            name: version.name.clone(),
            served: version.served,
            storage: version.storage,
            deprecation: version.deprecated.then(|| deprecation(definition, version)),
            rules: Rules::compile(&schema),
            schema,
            source,
            status: subresources.is_some_and(|it| it.status.is_some()),
            scale: scale.map(|scale| Scale {
                spec_path: scale.spec_replicas_path.clone(),
                status_path: scale.status_replicas_path.clone(),
                selector_path: scale.label_selector_path.clone().filter(|path| !path.is_empty()),
            }),
            columns: columns(version)?,
            selectable: selectable.collect::<Result<_, String>>()?,
        })
    }
}

fn deprecation(definition: &CustomResourceDefinition, version: &CustomResourceDefinitionVersion) -> String {
    let spec = &definition.spec;
    version
        .deprecation_warning
        .clone()
        .unwrap_or_else(|| format!("{}/{} {} is deprecated", spec.group, version.name, spec.names.kind))
}

/// The columns of a version; its age where it names none.
fn columns(version: &CustomResourceDefinitionVersion) -> Result<Vec<Column>, String> {
    if version.additional_printer_columns.is_empty() {
        return Ok(vec![Column {
            name: "Age".into(),
            ty: "date".into(),
            format: String::new(),
            description: "How long ago the object was created.".into(),
            priority: 0,
            path: JsonPath::parse(".metadata.creationTimestamp")?,
        }]);
    }
    let column = |column: &api::apiextensions::v1::CustomResourceColumnDefinition| {
        let description = match column.description.as_str() {
            "" => format!("Custom resource definition column (in JSONPath format): {}", column.json_path),
            text => text.into(),
        };
        Ok(Column {
            name: column.name.clone(),
            ty: column.r#type.clone(),
            format: column.format.clone(),
            description,
            priority: column.priority,
            // A path that cannot be read prints nothing.
            path: JsonPath::parse(&column.json_path).unwrap_or_default(),
        })
    };
    version.additional_printer_columns.iter().map(column).collect()
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('.').unwrap_or(path).split('.')
}

/// What stands at a path of nothing but fields.
pub fn get<'a>(fields: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut segments = segments(path);
    let mut found = fields.get(segments.next()?)?;
    for segment in segments {
        found = found.get(segment)?;
    }
    Some(found)
}

/// Puts a value at a path of nothing but fields, making the objects on the way; `false` where something else is in it.
pub fn set(fields: &mut Map<String, Value>, path: &str, value: Value) -> bool {
    let mut segments: Vec<&str> = segments(path).collect();
    let Some(last) = segments.pop() else { return false };
    let mut place = fields;
    for segment in segments {
        let next = place.entry(segment).or_insert_with(|| Value::Object(Map::new()));
        match next.as_object_mut() {
            Some(next) => place = next,
            None => return false,
        }
    }
    place.insert(last.into(), value);
    true
}
