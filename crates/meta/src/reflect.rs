//! Reflection: a message lends its fields as `dyn Value`, and says in a `Descriptor` what upstream's API facts say of them.
//!
//! Invariant: `Message::field(i)` and `Descriptor::fields[i]` speak of the same field, for every `i` below the length.

use crate::json::{self, Reader};
use crate::proto::{self, Wire};
use std::collections::BTreeMap;

/// Group, version and kind of a typed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvk {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
}

impl Gvk {
    /// `v1` for the core group, `apps/v1` for the others.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// The facts of one message.
#[derive(Debug)]
pub struct Descriptor {
    /// The short name, as upstream's decoding errors print it: `PodSpec`.
    pub name: &'static str,
    /// The name in OpenAPI: `io.k8s.api.core.v1.PodSpec`; empty where upstream publishes none.
    pub definition: &'static str,
    pub gvk: Option<Gvk>,
    /// `x-kubernetes-map-type: atomic`: server-side apply owns the whole value.
    pub atomic: bool,
    /// In the order of JSON.
    pub fields: &'static [Field],
    /// Places in `fields` of those that protobuf has, by their numbers: the order of the wire.
    pub wire_order: &'static [u16],
}

/// The facts of one field.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    /// The protobuf number; 0 where the field does not exist in protobuf.
    pub tag: u32,
    pub ty: Type,
    pub flags: Flags,
    pub list: List,
    /// Strategic merge: the key by which elements of a list are merged, and `x-kubernetes-patch-strategy`.
    pub merge_key: &'static str,
    pub patch_strategy: &'static str,
    /// OpenAPI `format`, where the type does not already say it.
    pub format: &'static str,
    /// The JSON text of a default declared beside the field.
    pub default: &'static str,
}

/// How a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    pub const INLINE: u8 = 1;
    pub const OMIT_EMPTY: u8 = 2;
    pub const OMIT_ZERO: u8 = 4;
    pub const REQUIRED: u8 = 8;
    pub const OPTIONAL: u8 = 16;
    /// `x-kubernetes-map-type: atomic` on the field itself.
    pub const ATOMIC: u8 = 32;

    pub const fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }
}

/// `x-kubernetes-list-type` and its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Not declared: server-side apply treats it as atomic.
    None,
    Atomic,
    Set,
    Map(&'static [&'static str]),
}

/// The type of a field's value.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    Bytes,
    Time,
    MicroTime,
    Duration,
    Quantity,
    IntOrString,
    RawExtension,
    FieldsV1,
    /// Any JSON value (apiextensions `JSON`, and its either-or helpers).
    Json,
    Message(&'static Descriptor),
    List(&'static Type),
    Map(&'static Type),
}

/// One value of a field: how it is read and written in each codec.
pub trait Value: Send + Sync {
    /// Go's `omitempty`: the zero value of its type.
    fn is_empty(&self) -> bool;
    fn write_json(&self, out: &mut Vec<u8>);
    fn read_json(&mut self, reader: &mut Reader<'_, '_>) -> Result<(), json::Error>;
    /// Appends tag and value. Absent values append nothing; zero scalars are written, as upstream's encoder does.
    fn write_proto(&self, tag: u32, out: &mut Vec<u8>);
    /// Reads one occurrence; lists and maps add to what they have.
    fn read_proto(&mut self, wire: Wire<'_>) -> Result<(), proto::Error>;
    /// The message behind an inlined field.
    fn as_message(&self) -> Option<&dyn Message> {
        None
    }
    fn as_message_mut(&mut self) -> Option<&mut dyn Message> {
        None
    }
    /// The fields behind an inlined field that is no message: names that are known at run time only.
    fn as_fields(&self) -> Option<&serde_json::Map<String, serde_json::Value>> {
        None
    }
}

/// A struct with a descriptor.
pub trait Message: Value {
    fn descriptor(&self) -> &'static Descriptor;
    fn field(&self, index: usize) -> &dyn Value;
    fn field_mut(&mut self, index: usize) -> &mut dyn Value;
    /// Reads the value of a key that the descriptor does not name; it must consume one value.
    fn read_other(&mut self, reader: &mut Reader<'_, '_>, _key: &str) -> Result<(), json::Error> {
        reader.unknown()
    }
}

/// Gives a generated message its `Value`: every codec walks `field` and `field_mut`.
#[macro_export]
macro_rules! message_value {
    ($name:ty) => {
        impl $crate::Value for $name {
            fn is_empty(&self) -> bool {
                false
            }
            fn write_json(&self, out: &mut Vec<u8>) {
                $crate::json::write_message(self, out)
            }
            fn read_json(
                &mut self,
                reader: &mut $crate::json::Reader<'_, '_>,
            ) -> Result<(), $crate::json::Error> {
                $crate::json::read_message(self, reader)
            }
            fn write_proto(&self, tag: u32, out: &mut Vec<u8>) {
                $crate::proto::write_message(self, tag, out)
            }
            fn read_proto(&mut self, wire: $crate::proto::Wire<'_>) -> Result<(), $crate::proto::Error> {
                $crate::proto::merge(self, wire.bytes()?)
            }
            fn as_message(&self) -> Option<&dyn $crate::Message> {
                Some(self)
            }
            fn as_message_mut(&mut self) -> Option<&mut dyn $crate::Message> {
                Some(self)
            }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::json::debug(self, f)
            }
        }
    };
}

macro_rules! scalar {
    ($type:ty, $empty:expr, $write:expr, $read:ident, $proto_write:expr, $proto_read:expr) => {
        impl Value for $type {
            fn is_empty(&self) -> bool {
                $empty(self)
            }
            fn write_json(&self, out: &mut Vec<u8>) {
                $write(self, out)
            }
            fn read_json(&mut self, reader: &mut Reader<'_, '_>) -> Result<(), json::Error> {
                if !reader.null()? {
                    *self = reader.$read()?;
                }
                Ok(())
            }
            fn write_proto(&self, tag: u32, out: &mut Vec<u8>) {
                $proto_write(self, tag, out)
            }
            fn read_proto(&mut self, wire: Wire<'_>) -> Result<(), proto::Error> {
                *self = $proto_read(wire)?;
                Ok(())
            }
        }
    };
}

scalar!(
    String,
    String::is_empty,
    |v: &String, out: &mut Vec<u8>| json::write_string(v, out),
    string,
    |v: &String, tag, out: &mut Vec<u8>| proto::write_bytes(tag, v.as_bytes(), out),
    |wire: Wire<'_>| wire.string()
);
scalar!(
    bool,
    |v: &bool| !*v,
    |v: &bool, out: &mut Vec<u8>| out.extend_from_slice(if *v { b"true" } else { b"false" }),
    bool,
    |v: &bool, tag, out: &mut Vec<u8>| proto::write_varint_field(tag, u64::from(*v), out),
    |wire: Wire<'_>| wire.varint().map(|v| v != 0)
);
scalar!(
    i32,
    |v: &i32| *v == 0,
    |v: &i32, out: &mut Vec<u8>| json::write_display(v, out),
    int32,
    |v: &i32, tag, out: &mut Vec<u8>| proto::write_varint_field(tag, i64::from(*v) as u64, out),
    |wire: Wire<'_>| wire.varint().map(|v| v as i32)
);
scalar!(
    i64,
    |v: &i64| *v == 0,
    |v: &i64, out: &mut Vec<u8>| json::write_display(v, out),
    int64,
    |v: &i64, tag, out: &mut Vec<u8>| proto::write_varint_field(tag, *v as u64, out),
    |wire: Wire<'_>| wire.varint().map(|v| v as i64)
);
scalar!(
    f64,
    |v: &f64| *v == 0.0,
    |v: &f64, out: &mut Vec<u8>| json::write_double(*v, out),
    double,
    |v: &f64, tag, out: &mut Vec<u8>| proto::write_fixed64(tag, v.to_bits(), out),
    |wire: Wire<'_>| wire.fixed64().map(f64::from_bits)
);

impl Value for Vec<u8> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
    fn write_json(&self, out: &mut Vec<u8>) {
        json::write_base64(self, out)
    }
    fn read_json(&mut self, reader: &mut Reader<'_, '_>) -> Result<(), json::Error> {
        if reader.null()? {
            self.clear();
        } else {
            *self = reader.base64()?;
        }
        Ok(())
    }
    fn write_proto(&self, tag: u32, out: &mut Vec<u8>) {
        proto::write_bytes(tag, self, out)
    }
    fn read_proto(&mut self, wire: Wire<'_>) -> Result<(), proto::Error> {
        *self = wire.bytes()?.to_vec();
        Ok(())
    }
}

/// Absent or present: a pointer upstream.
impl<T: Value + Default> Value for Option<T> {
    fn is_empty(&self) -> bool {
        self.is_none()
    }
    fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.write_json(out),
            None => out.extend_from_slice(b"null"),
        }
    }
    fn read_json(&mut self, reader: &mut Reader<'_, '_>) -> Result<(), json::Error> {
        if reader.null()? {
            *self = None;
            return Ok(());
        }
        self.get_or_insert_default().read_json(reader)
    }
    fn write_proto(&self, tag: u32, out: &mut Vec<u8>) {
        if let Some(value) = self {
            value.write_proto(tag, out);
        }
    }
    fn read_proto(&mut self, wire: Wire<'_>) -> Result<(), proto::Error> {
        self.get_or_insert_default().read_proto(wire)
    }
}

impl<T: Value> Value for Box<T> {
    fn is_empty(&self) -> bool {
        (**self).is_empty()
    }
    fn write_json(&self, out: &mut Vec<u8>) {
        (**self).write_json(out)
    }
    fn read_json(&mut self, reader: &mut Reader<'_, '_>) -> Result<(), json::Error> {
        (**self).read_json(reader)
    }
    fn write_proto(&self, tag: u32, out: &mut Vec<u8>) {
        (**self).write_proto(tag, out)
    }
    fn read_proto(&mut self, wire: Wire<'_>) -> Result<(), proto::Error> {
        (**self).read_proto(wire)
    }
    fn as_message(&self) -> Option<&dyn Message> {
        (**self).as_message()
    }
    fn as_message_mut(&mut self) -> Option<&mut dyn Message> {
        (**self).as_message_mut()
    }
}

/// What may stand in a list. `Vec<u8>` is bytes and not a list, so `u8` is no element.
pub trait Element: Value + Default {}
impl Element for String {}
impl Element for bool {}
impl Element for i32 {}
impl Element for i64 {}
impl<T: Message + Default> Element for T {}

impl<T: Element> Value for Vec<T> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
    fn write_json(&self, out: &mut Vec<u8>) {
        if self.is_empty() {
            // Upstream's nil slice; an empty one that is not nil does not survive its storage either.
            out.extend_from_slice(b"null");
            return;
        }
        out.push(b'[');
        for (index, item) in self.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            item.write_json(out);
        }
        out.push(b']');
    }
    fn read_json(&mut self, reader: &mut Reader<'_, '_>) -> Result<(), json::Error> {
        self.clear();
        if reader.null()? {
            return Ok(());
        }
        reader.array(|reader| {
            let mut item = T::default();
            item.read_json(reader)?;
            self.push(item);
            Ok(())
        })
    }
    fn write_proto(&self, tag: u32, out: &mut Vec<u8>) {
        for item in self {
            item.write_proto(tag, out);
        }
    }
    fn read_proto(&mut self, wire: Wire<'_>) -> Result<(), proto::Error> {
        let mut item = T::default();
        item.read_proto(wire)?;
        self.push(item);
        Ok(())
    }
}

impl<T: Value + Default> Value for BTreeMap<String, T> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
    fn write_json(&self, out: &mut Vec<u8>) {
        if self.is_empty() {
            out.extend_from_slice(b"null");
            return;
        }
        out.push(b'{');
        for (index, (key, value)) in self.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            json::write_string(key, out);
            out.push(b':');
            value.write_json(out);
        }
        out.push(b'}');
    }
    fn read_json(&mut self, reader: &mut Reader<'_, '_>) -> Result<(), json::Error> {
        self.clear();
        if reader.null()? {
            return Ok(());
        }
        reader.object("map[string]", |reader, key| {
            let mut value = T::default();
            value.read_json(reader)?;
            if self.insert(key.to_string(), value).is_some() {
                reader.duplicate(key);
            }
            Ok(())
        })
    }
    fn write_proto(&self, tag: u32, out: &mut Vec<u8>) {
        for (key, value) in self {
            proto::write_nested(tag, out, |out| {
                proto::write_bytes(1, key.as_bytes(), out);
                let before = out.len();
                value.write_proto(2, out);
                if out.len() == before {
                    proto::write_bytes(2, b"", out);
                }
            });
        }
    }
    fn read_proto(&mut self, wire: Wire<'_>) -> Result<(), proto::Error> {
        let (mut key, mut value) = (String::new(), T::default());
        proto::fields(wire.bytes()?, |tag, wire| match tag {
            1 => wire.string().map(|text| key = text),
            2 if matches!(wire, Wire::Bytes([])) => Ok(()),
            2 => value.read_proto(wire),
            _ => Ok(()),
        })?;
        self.insert(key, value);
        Ok(())
    }
}

/// A list of strings that protobuf wraps in a message of its own (`ExtraValue`, `Verbs`).
#[derive(Clone, Default, PartialEq, Debug)]
pub struct StringList(pub Vec<String>);

impl std::ops::Deref for StringList {
    type Target = Vec<String>;
    fn deref(&self) -> &Vec<String> {
        &self.0
    }
}

impl Value for StringList {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    fn write_json(&self, out: &mut Vec<u8>) {
        self.0.write_json(out)
    }
    fn read_json(&mut self, reader: &mut Reader<'_, '_>) -> Result<(), json::Error> {
        self.0.read_json(reader)
    }
    fn write_proto(&self, tag: u32, out: &mut Vec<u8>) {
        proto::write_nested(tag, out, |out| self.0.write_proto(1, out))
    }
    fn read_proto(&mut self, wire: Wire<'_>) -> Result<(), proto::Error> {
        proto::fields(wire.bytes()?, |tag, wire| if tag == 1 { self.0.read_proto(wire) } else { Ok(()) })
    }
}
