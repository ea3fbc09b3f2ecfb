//! The either-or values of JSON schemas: one schema or several, a schema or a boolean, a schema or names.

use crate::generated::apiextensions::v1::JSONSchemaProps;
use meta::json::{self, Reader};
use meta::proto::{self, Wire};
use meta::{Json, Value};

/// `items`: one schema for all, or one for each position.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct JSONSchemaPropsOrArray {
    pub schema: Option<Box<JSONSchemaProps>>,
    pub schemas: Vec<JSONSchemaProps>,
}

/// `additionalProperties`: a schema, or whether anything is allowed.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct JSONSchemaPropsOrBool {
    pub allows: bool,
    pub schema: Option<Box<JSONSchemaProps>>,
}

/// `dependencies`: a schema, or the names of properties.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct JSONSchemaPropsOrStringArray {
    pub schema: Option<Box<JSONSchemaProps>>,
    pub property: Vec<String>,
}

impl Value for JSONSchemaPropsOrArray {
    fn is_empty(&self) -> bool {
        false
    }
    fn write_json(&self, out: &mut Vec<u8>) {
        if self.schemas.is_empty() { self.schema.write_json(out) } else { self.schemas.write_json(out) }
    }
    fn read_json(&mut self, reader: &mut Reader<'_, '_>) -> Result<(), json::Error> {
        if reader.at_array() { self.schemas.read_json(reader) } else { self.schema.read_json(reader) }
    }
    fn write_proto(&self, tag: u32, out: &mut Vec<u8>) {
        proto::write_nested(tag, out, |out| {
            self.schema.write_proto(1, out);
            self.schemas.write_proto(2, out);
        })
    }
    fn read_proto(&mut self, wire: Wire<'_>) -> Result<(), proto::Error> {
        proto::fields(wire.bytes()?, |tag, wire| match tag {
            1 => self.schema.read_proto(wire),
            2 => self.schemas.read_proto(wire),
            _ => Ok(()),
        })
    }
}

impl Value for JSONSchemaPropsOrBool {
    fn is_empty(&self) -> bool {
        false
    }
    fn write_json(&self, out: &mut Vec<u8>) {
        match &self.schema {
            Some(schema) => schema.write_json(out),
            None => self.allows.write_json(out),
        }
    }
    fn read_json(&mut self, reader: &mut Reader<'_, '_>) -> Result<(), json::Error> {
        if reader.at_object() {
            self.allows = true;
            return self.schema.read_json(reader);
        }
        self.schema = None;
        self.allows.read_json(reader)
    }
    fn write_proto(&self, tag: u32, out: &mut Vec<u8>) {
        proto::write_nested(tag, out, |out| {
            self.allows.write_proto(1, out);
            self.schema.write_proto(2, out);
        })
    }
    fn read_proto(&mut self, wire: Wire<'_>) -> Result<(), proto::Error> {
        proto::fields(wire.bytes()?, |tag, wire| match tag {
            1 => self.allows.read_proto(wire),
            2 => self.schema.read_proto(wire),
            _ => Ok(()),
        })
    }
}

impl Value for JSONSchemaPropsOrStringArray {
    fn is_empty(&self) -> bool {
        false
    }
    fn write_json(&self, out: &mut Vec<u8>) {
        if self.property.is_empty() { self.schema.write_json(out) } else { self.property.write_json(out) }
    }
    fn read_json(&mut self, reader: &mut Reader<'_, '_>) -> Result<(), json::Error> {
        if reader.at_array() { self.property.read_json(reader) } else { self.schema.read_json(reader) }
    }
    fn write_proto(&self, tag: u32, out: &mut Vec<u8>) {
        proto::write_nested(tag, out, |out| {
            self.schema.write_proto(1, out);
            self.property.write_proto(2, out);
        })
    }
    fn read_proto(&mut self, wire: Wire<'_>) -> Result<(), proto::Error> {
        proto::fields(wire.bytes()?, |tag, wire| match tag {
            1 => self.schema.read_proto(wire),
            2 => self.property.read_proto(wire),
            _ => Ok(()),
        })
    }
}

/// Any JSON of a schema, such as its default, as a tree.
pub fn tree(json: &Json) -> Option<serde_json::Value> {
    json.to_value().ok()
}
