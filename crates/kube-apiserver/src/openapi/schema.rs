//! Definitions of types, from the facts in their descriptors: what `explain` shows and client-side merging goes by.

use meta::{Descriptor, Flags, List, Type};
use resources::Resource;
use resources::custom::CustomRow;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Which OpenAPI the definitions are for: they differ in where references point and what may stand beside one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    V2,
    V3,
}

impl Dialect {
    pub fn reference(self, name: &str) -> String {
        match self {
            Dialect::V2 => format!("#/definitions/{name}"),
            Dialect::V3 => format!("#/components/schemas/{name}"),
        }
    }

    fn of_custom(self) -> apiextensions::openapi::Dialect {
        match self {
            Dialect::V2 => apiextensions::openapi::Dialect::V2,
            Dialect::V3 => apiextensions::openapi::Dialect::V3,
        }
    }
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const RAW: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const ANY: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";

/// Definitions by name, in order.
pub struct Definitions {
    pub dialect: Dialect,
    pub all: BTreeMap<String, Value>,
}

impl Definitions {
    pub fn new(dialect: Dialect) -> Self {
        Definitions { dialect, all: BTreeMap::new() }
    }

    /// Adds a message and everything it is made of; answers its name.
    pub fn add(&mut self, descriptor: &'static Descriptor) -> String {
        let name = name_of(descriptor);
        if self.all.contains_key(&name) {
            return name;
        }
        // Holds the place, so that a type that contains itself ends here.
        self.all.insert(name.clone(), Value::Null);
        let (mut properties, mut required) = (Map::new(), Vec::new());
        self.fields(descriptor, &mut properties, &mut required);
        let mut schema = json!({"type": "object"});
        if let Some(text) = super::docs::of_type(&name) {
            schema["description"] = text.into();
        }
        if !properties.is_empty() {
            schema["properties"] = properties.into();
        }
        if !required.is_empty() {
            required.sort();
            schema["required"] = required.into();
        }
        if descriptor.atomic {
            schema["x-kubernetes-map-type"] = "atomic".into();
        }
        if let Some(gvk) = descriptor.gvk {
            let group = if gvk.group == "meta.k8s.io" { "" } else { gvk.group };
            schema["x-kubernetes-group-version-kind"] =
                json!([{"group": group, "kind": gvk.kind, "version": gvk.version}]);
        }
        self.all.insert(name.clone(), schema);
        name
    }

    /// Adds a kind made at run time; answers its name.
    pub fn add_custom(&mut self, row: &CustomRow) -> String {
        let name = row.descriptor().definition.to_string();
        if self.all.contains_key(&name) {
            return name;
        }
        let metadata = self.add(&api::meta::v1::OBJECT_META);
        let schema = row.definition().map(|definition| {
            let metadata = self.dialect.reference(&metadata);
            apiextensions::openapi::schema(&definition, &row.current(), &metadata, self.dialect.of_custom())
        });
        self.all.insert(name.clone(), schema.unwrap_or_else(|| json!({"type": "object"})));
        name
    }

    /// Adds the list of a kind made at run time.
    pub fn add_custom_list(&mut self, row: &CustomRow) -> String {
        let element = self.add_custom(row);
        let metadata = self.add(&api::meta::v1::LIST_META);
        let name = apiextensions::openapi::name(row.group(), row.version(), &row.list_kind());
        let (item, metadata) = (self.dialect.reference(&element), self.dialect.reference(&metadata));
        if let Some(definition) = row.definition() {
            let list = apiextensions::openapi::list(&definition, &row.current(), &item, &metadata);
            self.all.insert(name.clone(), list);
        }
        name
    }

    /// Adds the list of a kind.
    pub fn add_list(&mut self, item: &'static Descriptor) -> String {
        let element = self.add(item);
        let name = format!("{element}List");
        let metadata = self.add(&api::meta::v1::LIST_META);
        let dialect = self.dialect;
        let text = || json!({"type": "string"});
        let mut schema = json!({
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": text(),
                "kind": text(),
                "items": {"type": "array", "items": {"$ref": dialect.reference(&element)}},
                "metadata": {"$ref": dialect.reference(&metadata)},
            },
        });
        if let Some(gvk) = item.gvk {
            schema["x-kubernetes-group-version-kind"] =
                json!([{"group": gvk.group, "kind": format!("{}List", gvk.kind), "version": gvk.version}]);
        }
        self.all.insert(name.clone(), schema);
        name
    }

    fn fields(
        &mut self,
        descriptor: &'static Descriptor,
        properties: &mut Map<String, Value>,
        required: &mut Vec<String>,
    ) {
        let owner = name_of(descriptor);
        for field in descriptor.fields {
            if field.flags.has(Flags::INLINE) {
                if let Type::Message(inner) = field.ty {
                    self.fields(inner, properties, required);
                }
                continue;
            }
            if field.flags.has(Flags::REQUIRED) {
                required.push(field.name.to_string());
            }
            let mut schema = self.schema(field.ty);
            if !field.format.is_empty() {
                schema["format"] = field.format.into();
            }
            match field.list {
                List::None => {}
                List::Atomic => schema["x-kubernetes-list-type"] = "atomic".into(),
                List::Set => schema["x-kubernetes-list-type"] = "set".into(),
                List::Map(keys) => {
                    schema["x-kubernetes-list-map-keys"] = json!(keys);
                    schema["x-kubernetes-list-type"] = "map".into();
                }
            }
            if field.flags.has(Flags::ATOMIC) {
                schema["x-kubernetes-map-type"] = "atomic".into();
            }
            if !field.merge_key.is_empty() {
                schema["x-kubernetes-patch-merge-key"] = field.merge_key.into();
            }
            if !field.patch_strategy.is_empty() {
                schema["x-kubernetes-patch-strategy"] = field.patch_strategy.into();
            }
            if self.dialect == Dialect::V3
                && let Ok(default) = serde_json::from_str::<Value>(field.default)
            {
                schema["default"] = default;
            }
            if let Some(text) = super::docs::of_field(&owner, field.name) {
                schema["description"] = text.into();
            }
            properties.insert(field.name.to_string(), self.beside_reference(schema));
        }
    }

    /// In version 3 nothing may stand beside a reference, so it moves one level down.
    fn beside_reference(&self, mut schema: Value) -> Value {
        let Some(object) = schema.as_object_mut() else { return schema };
        if self.dialect == Dialect::V3
            && object.len() > 1
            && let Some(reference) = object.remove("$ref")
        {
            object.insert("allOf".into(), json!([{ "$ref": reference }]));
        }
        schema
    }

    fn schema(&mut self, ty: Type) -> Value {
        match ty {
            Type::String => json!({"type": "string"}),
            Type::Bool => json!({"type": "boolean"}),
            Type::Int32 => json!({"type": "integer", "format": "int32"}),
            Type::Int64 => json!({"type": "integer", "format": "int64"}),
            Type::Double => json!({"type": "number", "format": "double"}),
            Type::Bytes => json!({"type": "string", "format": "byte"}),
            Type::Time => self.leaf(format!("{META}.Time"), json!({"type": "string", "format": "date-time"})),
            Type::MicroTime => {
                self.leaf(format!("{META}.MicroTime"), json!({"type": "string", "format": "date-time"}))
            }
            Type::Duration => self.leaf(format!("{META}.Duration"), json!({"type": "string"})),
            Type::Quantity => {
                let schema = match self.dialect {
                    Dialect::V2 => json!({"type": "string"}),
                    Dialect::V3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
                };
                self.leaf(QUANTITY.into(), schema)
            }
            Type::IntOrString => {
                let schema = match self.dialect {
                    Dialect::V2 => json!({"type": "string", "format": "int-or-string"}),
                    Dialect::V3 => {
                        json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"})
                    }
                };
                self.leaf(INT_OR_STRING.into(), schema)
            }
            Type::RawExtension => self.leaf(RAW.into(), json!({"type": "object"})),
            Type::FieldsV1 => self.leaf(format!("{META}.FieldsV1"), json!({"type": "object"})),
            Type::Json => self.leaf(ANY.into(), json!({})),
            Type::Message(descriptor) => {
                let name = self.add(descriptor);
                json!({"$ref": self.dialect.reference(&name)})
            }
            Type::List(item) => json!({"type": "array", "items": self.schema(*item)}),
            Type::Map(item) => json!({"type": "object", "additionalProperties": self.schema(*item)}),
        }
    }

    fn leaf(&mut self, name: String, schema: Value) -> Value {
        let reference = json!({"$ref": self.dialect.reference(&name)});
        self.all.entry(name).or_insert(schema);
        reference
    }
}

/// The published name, or one made from the type's own where upstream publishes none.
pub fn name_of(descriptor: &'static Descriptor) -> String {
    if descriptor.definition.is_empty() {
        format!("{META}.{}", descriptor.name)
    } else {
        descriptor.definition.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_definition_carries_merge_keys_and_list_types() {
        let mut definitions = Definitions::new(Dialect::V2);
        definitions.add(&api::core::v1::CONTAINER);
        let container = &definitions.all["io.k8s.api.core.v1.Container"];
        let mut ports = container["properties"]["ports"].clone();
        if let Some(object) = ports.as_object_mut() {
            object.remove("description");
        }
        expect![[r##"{"items":{"$ref":"#/definitions/io.k8s.api.core.v1.ContainerPort"},"type":"array","x-kubernetes-list-map-keys":["containerPort","protocol"],"x-kubernetes-list-type":"map","x-kubernetes-patch-merge-key":"containerPort","x-kubernetes-patch-strategy":"merge"}"##]].assert_eq(&ports.to_string());
        assert_eq!(container["required"], json!(["name"]));
        assert!(definitions.all.contains_key("io.k8s.api.core.v1.Probe"));
    }
}
