//! What every API type is built on: scalars with upstream's text forms, and reflection over messages.
//!
//! A message is a generated struct that lends its fields as `dyn Value`; each codec is written once, against that.
//! Nothing here knows a kind.
#![forbid(unsafe_code)]

pub mod duration;
pub mod field;
pub mod fields;
pub mod intstr;
pub mod json;
pub mod key;
pub mod labels;
pub mod proto;
pub mod quantity;
pub mod raw;
pub mod reflect;
pub mod time;
pub mod validation;

pub use duration::Duration;
pub use intstr::IntOrString;
pub use key::ObjectKey;
pub use quantity::Quantity;
pub use raw::{FieldsV1, Json, RawExtension};
pub use reflect::{Descriptor, Field, Flags, Gvk, List, Message, StringList, Type, Value};
pub use time::{MicroTime, Time};
