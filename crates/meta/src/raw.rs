//! Values that the API keeps verbatim: any JSON, and objects of kinds unknown to the reader.

use crate::json::{self, Reader};
use crate::proto::{self, Wire};
use crate::reflect::{Element, Value};
use std::sync::Arc;

macro_rules! raw {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, Debug)]
        pub struct $name(pub Option<Arc<[u8]>>);

        impl $name {
            /// Takes JSON text as it is.
            pub fn from_json(text: &[u8]) -> Self {
                $name(Some(text.into()))
            }
            /// The text, `null` where there is none.
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_deref().unwrap_or(b"null")
            }
            pub fn to_value(&self) -> Result<serde_json::Value, serde_json::Error> {
                serde_json::from_slice(self.as_bytes())
            }
        }

        impl Value for $name {
            fn is_empty(&self) -> bool {
                self.0.is_none()
            }
            fn write_json(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(self.as_bytes())
            }
            fn read_json(&mut self, reader: &mut Reader<'_, '_>) -> Result<(), json::Error> {
                self.0 = Some(reader.verbatim()?.into());
                Ok(())
            }
            fn write_proto(&self, tag: u32, out: &mut Vec<u8>) {
                proto::write_nested(tag, out, |out| {
                    if let Some(raw) = &self.0 {
                        proto::write_bytes(1, raw, out);
                    }
                })
            }
            fn read_proto(&mut self, wire: Wire<'_>) -> Result<(), proto::Error> {
                proto::fields(wire.bytes()?, |tag, wire| {
                    if tag == 1 {
                        self.0 = Some(wire.bytes()?.into());
                    }
                    Ok(())
                })
            }
        }

        impl Element for $name {}
    };
}

raw!(
    /// An object of any kind, as JSON text.
    RawExtension
);
raw!(
    /// A set of fields in the form of managedFields.
    FieldsV1
);
raw!(
    /// Any JSON value.
    Json
);
