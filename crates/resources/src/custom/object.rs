//! An object of a custom kind: typed metadata, and its other fields as a tree.

use api::Object;
use api::meta::v1::ObjectMeta;
use apiextensions::{Version, embedded, prune};
use meta::json::{self, Reader};
use meta::proto::{self, Wire};
use meta::{Descriptor, Field, Flags, List, Message, Type, Value};
use serde_json::Map;
use std::any::Any;
use std::sync::Arc;

/// All other fields of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Content(pub serde_json::Value);

impl Content {
    pub fn fields(&self) -> Option<&Map<String, serde_json::Value>> {
        self.0.as_object()
    }
    pub fn fields_mut(&mut self) -> &mut Map<String, serde_json::Value> {
        if !self.0.is_object() {
            self.0 = serde_json::Value::Object(Map::new());
        }
        self.0.as_object_mut().expect("it has just been made an object")
    }
}

/// The fields of every custom kind, as its descriptor names them.
pub(super) const FIELDS: &[Field] = &[
    field("kind", 0, Type::String, Flags::OMIT_EMPTY),
    field("apiVersion", 0, Type::String, Flags::OMIT_EMPTY),
    field("metadata", 1, Type::Message(&api::meta::v1::OBJECT_META), Flags::OMIT_EMPTY),
    field("", 0, Type::Json, Flags::INLINE),
];

const fn field(name: &'static str, tag: u32, ty: Type, flags: u8) -> Field {
    Field {
        name,
        tag,
        ty,
        flags: Flags(flags),
        list: List::None,
        merge_key: "",
        patch_strategy: "",
        format: "",
        default: "",
    }
}

/// One object of a custom kind, in the version that its descriptor names.
pub struct Custom {
    kind: String,
    api_version: String,
    metadata: ObjectMeta,
    pub(super) content: Content,
    pub(super) descriptor: &'static Descriptor,
    pub(super) version: Arc<Version>,
}

impl Custom {
    pub(super) fn new(descriptor: &'static Descriptor, version: Arc<Version>) -> Self {
        Custom {
            kind: String::new(),
            api_version: String::new(),
            metadata: ObjectMeta::default(),
            content: Content::default(),
            descriptor,
            version,
        }
    }

    /// All fields but kind, apiVersion and metadata.
    pub fn content(&self) -> Option<&Map<String, serde_json::Value>> {
        self.content.fields()
    }

    /// The object as a tree, kind and all.
    pub fn tree(&self) -> serde_json::Value {
        api::codec::to_value(self)
    }

    /// The version whose rules the object was read by.
    pub fn version(&self) -> &Arc<Version> {
        &self.version
    }

    pub(super) fn clone_custom(&self) -> Custom {
        Custom {
            kind: self.kind.clone(),
            api_version: self.api_version.clone(),
            metadata: self.metadata.clone(),
            content: self.content.clone(),
            descriptor: self.descriptor,
            version: Arc::clone(&self.version),
        }
    }

    pub(super) fn take_metadata(&mut self, metadata: ObjectMeta) {
        self.metadata = metadata;
    }
}

impl Value for Content {
    fn is_empty(&self) -> bool {
        self.fields().is_none_or(Map::is_empty)
    }
    fn write_json(&self, out: &mut Vec<u8>) {
        json::write_value(&self.0, out);
    }
    fn read_json(&mut self, reader: &mut Reader<'_, '_>) -> Result<(), json::Error> {
        self.0 = reader.value()?;
        Ok(())
    }
    /// Custom objects have no form in protobuf.
    fn write_proto(&self, _: u32, _: &mut Vec<u8>) {}
    fn read_proto(&mut self, _: Wire<'_>) -> Result<(), proto::Error> {
        Ok(())
    }
    fn as_fields(&self) -> Option<&Map<String, serde_json::Value>> {
        self.fields()
    }
}

impl Message for Custom {
    fn descriptor(&self) -> &'static Descriptor {
        self.descriptor
    }
    fn field(&self, index: usize) -> &dyn Value {
        match index {
            0 => &self.kind,
            1 => &self.api_version,
            2 => &self.metadata,
            _ => &self.content,
        }
    }
    fn field_mut(&mut self, index: usize) -> &mut dyn Value {
        match index {
            0 => &mut self.kind,
            1 => &mut self.api_version,
            2 => &mut self.metadata,
            _ => &mut self.content,
        }
    }

    /// Reads one field by its schema: what that does not know is noted and dropped, and so are nulls that mean nothing.
    fn read_other(&mut self, reader: &mut Reader<'_, '_>, key: &str) -> Result<(), json::Error> {
        let schema = &self.version.schema;
        let mut read = Map::new();
        read.insert(key.to_string(), reader.value()?);
        let coerced =
            embedded::coerce(&mut read, schema).map_err(|errors| reader.error(errors.to_string()))?;
        let mut dropped = prune::object(&mut read, schema);
        dropped.extend(coerced);
        dropped.sort();
        for path in dropped {
            // The reader's own path leads to the key already.
            let below = path.strip_prefix('.').and_then(|path| path.strip_prefix(key)).unwrap_or(&path);
            reader.unknown_below(below);
        }
        apiextensions::defaulting::drop_nulls(&mut read, schema);
        self.content.fields_mut().extend(read);
        Ok(())
    }
}

meta::message_value!(Custom);

impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        self.descriptor.gvk == other.descriptor.gvk
            && self.metadata == other.metadata
            && self.content == other.content
    }
}

impl Object for Custom {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
    fn clone_object(&self) -> Box<dyn Object> {
        Box::new(self.clone_custom())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
    fn assign(&mut self, from: Box<dyn Object>) -> bool {
        match from.into_any().downcast::<Self>() {
            Ok(from) => {
                *self = *from;
                true
            }
            Err(_) => false,
        }
    }
    fn as_dyn(&self) -> &dyn Message {
        self
    }
    fn as_dyn_mut(&mut self) -> &mut dyn Message {
        self
    }
}
