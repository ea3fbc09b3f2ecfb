//! An integer or a string: ports by number or name, counts or percentages.

use crate::json::{self, Reader};
use crate::proto::{self, Wire};
use crate::reflect::Value;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IntOrString {
    Int(i32),
    String(String),
}

impl Default for IntOrString {
    fn default() -> Self {
        IntOrString::Int(0)
    }
}

impl std::fmt::Display for IntOrString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            IntOrString::Int(value) => value.fmt(f),
            IntOrString::String(text) => text.fmt(f),
        }
    }
}

impl IntOrString {
    /// The value scaled to `total` where it is a percentage, rounded up or down; `None` for other text.
    pub fn scaled(&self, total: i32, round_up: bool) -> Option<i32> {
        match self {
            IntOrString::Int(value) => Some(*value),
            IntOrString::String(text) => {
                let percent = i64::from(text.strip_suffix('%')?.parse::<i32>().ok()?);
                let product = percent * i64::from(total);
                let scaled = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
                i32::try_from(scaled).ok()
            }
        }
    }
}

impl Value for IntOrString {
    fn is_empty(&self) -> bool {
        false
    }
    fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            IntOrString::Int(value) => json::write_display(value, out),
            IntOrString::String(text) => json::write_string(text, out),
        }
    }
    fn read_json(&mut self, reader: &mut Reader<'_, '_>) -> Result<(), json::Error> {
        if reader.null()? {
            return Ok(());
        }
        *self = if reader.at_string() {
            IntOrString::String(reader.string()?)
        } else {
            IntOrString::Int(reader.int32()?)
        };
        Ok(())
    }
    fn write_proto(&self, tag: u32, out: &mut Vec<u8>) {
        let (kind, number, text) = match self {
            IntOrString::Int(value) => (0, *value, ""),
            IntOrString::String(text) => (1, 0, text.as_str()),
        };
        proto::write_nested(tag, out, |out| {
            proto::write_varint_field(1, kind, out);
            proto::write_varint_field(2, i64::from(number) as u64, out);
            proto::write_bytes(3, text.as_bytes(), out);
        })
    }
    fn read_proto(&mut self, wire: Wire<'_>) -> Result<(), proto::Error> {
        let (mut kind, mut number, mut text) = (0, 0, String::new());
        proto::fields(wire.bytes()?, |tag, wire| {
            match tag {
                1 => kind = wire.varint()?,
                2 => number = wire.varint()? as i32,
                3 => text = wire.string()?,
                _ => {}
            }
            Ok(())
        })?;
        *self = if kind == 1 { IntOrString::String(text) } else { IntOrString::Int(number) };
        Ok(())
    }
}
