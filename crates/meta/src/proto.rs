//! The protobuf wire form, as upstream writes it: fields in order of their numbers, zero scalars of required fields included.

use crate::reflect::{Flags, Message};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("unexpected EOF")]
    Truncated,
    #[error("proto: integer overflow")]
    Overflow,
    #[error("proto: wrong wireType = {0}")]
    WireType(u8),
    #[error("proto: illegal tag {0}")]
    Tag(u64),
    #[error("proto: invalid UTF-8 in a string field")]
    Utf8,
    #[error("proto: {0}")]
    Value(String),
    #[error("proto: nested deeper than {MAX_DEPTH} messages")]
    Depth,
}

/// Deepest nesting that is read; JSONSchemaProps nests, so it is generous, but a stack has an end.
pub const MAX_DEPTH: usize = 200;

/// One field's payload.
#[derive(Clone, Copy, Debug)]
pub enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Wire<'a> {
    fn kind(&self) -> u8 {
        match self {
            Wire::Varint(_) => 0,
            Wire::Fixed64(_) => 1,
            Wire::Bytes(_) => 2,
            Wire::Fixed32(_) => 5,
        }
    }
    pub fn varint(self) -> Result<u64, Error> {
        match self {
            Wire::Varint(value) => Ok(value),
            other => Err(Error::WireType(other.kind())),
        }
    }
    pub fn fixed64(self) -> Result<u64, Error> {
        match self {
            Wire::Fixed64(value) => Ok(value),
            other => Err(Error::WireType(other.kind())),
        }
    }
    pub fn bytes(self) -> Result<&'a [u8], Error> {
        match self {
            Wire::Bytes(value) => Ok(value),
            other => Err(Error::WireType(other.kind())),
        }
    }
    pub fn string(self) -> Result<String, Error> {
        std::str::from_utf8(self.bytes()?).map(str::to_owned).map_err(|_| Error::Utf8)
    }
}

fn varint(input: &mut &[u8]) -> Result<u64, Error> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = input.split_first().ok_or(Error::Truncated)?;
        *input = rest;
        if shift == 63 && byte > 1 {
            return Err(Error::Overflow);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Error::Overflow)
}

fn take<'a>(input: &mut &'a [u8], length: u64) -> Result<&'a [u8], Error> {
    let length = usize::try_from(length).map_err(|_| Error::Truncated)?;
    let (head, rest) = input.split_at_checked(length).ok_or(Error::Truncated)?;
    *input = rest;
    Ok(head)
}

/// Calls `each` for every field of an encoded message, in the order of the wire.
pub fn fields<'a>(
    mut input: &'a [u8],
    mut each: impl FnMut(u32, Wire<'a>) -> Result<(), Error>,
) -> Result<(), Error> {
    while !input.is_empty() {
        let key = varint(&mut input)?;
        let tag = u32::try_from(key >> 3).ok().filter(|tag| *tag > 0).ok_or(Error::Tag(key >> 3))?;
        let wire = match key & 7 {
            0 => Wire::Varint(varint(&mut input)?),
            1 => {
                let bytes: [u8; 8] = take(&mut input, 8)?.try_into().map_err(|_| Error::Truncated)?;
                Wire::Fixed64(u64::from_le_bytes(bytes))
            }
            2 => {
                let length = varint(&mut input)?;
                Wire::Bytes(take(&mut input, length)?)
            }
            5 => {
                let bytes: [u8; 4] = take(&mut input, 4)?.try_into().map_err(|_| Error::Truncated)?;
                Wire::Fixed32(u32::from_le_bytes(bytes))
            }
            other => return Err(Error::WireType(other as u8)),
        };
        each(tag, wire)?;
    }
    Ok(())
}

pub fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn write_varint_field(tag: u32, value: u64, out: &mut Vec<u8>) {
    write_varint(u64::from(tag) << 3, out);
    write_varint(value, out);
}

pub fn write_fixed64(tag: u32, value: u64, out: &mut Vec<u8>) {
    write_varint(u64::from(tag) << 3 | 1, out);
    out.extend_from_slice(&value.to_le_bytes());
}

pub fn write_bytes(tag: u32, value: &[u8], out: &mut Vec<u8>) {
    write_varint(u64::from(tag) << 3 | 2, out);
    write_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Writes what `body` appends as one length-delimited field, in one pass: room for a short length is kept and
/// widened where the body turns out long.
pub fn write_nested(tag: u32, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    write_varint(u64::from(tag) << 3 | 2, out);
    let start = out.len();
    out.push(0);
    body(out);
    let length = out.len() - start - 1;
    if length < 0x80 {
        out[start] = length as u8;
        return;
    }
    let mut prefix = Vec::with_capacity(5);
    write_varint(length as u64, &mut prefix);
    out.splice(start..start + 1, prefix);
}

pub fn write_message(message: &dyn Message, tag: u32, out: &mut Vec<u8>) {
    write_nested(tag, out, |out| write_fields(message, out));
}

/// Appends the fields of a message, without tag or length.
pub fn write_fields(message: &dyn Message, out: &mut Vec<u8>) {
    let descriptor = message.descriptor();
    for &index in descriptor.wire_order {
        let index = usize::from(index);
        let field = &descriptor.fields[index];
        let value = message.field(index);
        // Bytes, lists and maps have no presence: upstream leaves the nil ones out, and so do we.
        let absent =
            matches!(field.ty, crate::Type::Bytes) && !field.flags.has(Flags::OPTIONAL) && value.is_empty();
        if absent {
            continue;
        }
        if field.flags.has(Flags::OPTIONAL) || !matches!(field.ty, crate::Type::Time | crate::Type::MicroTime)
        {
            value.write_proto(field.tag, out);
        } else if value.is_empty() {
            // A time that is no pointer is always there; the zero time is an empty message.
            write_bytes(field.tag, &[], out);
        } else {
            value.write_proto(field.tag, out);
        }
    }
}

/// Reads the fields of an encoded message into `message`. Unknown fields are passed over.
pub fn merge(message: &mut dyn Message, input: &[u8]) -> Result<(), Error> {
    thread_local! { static DEPTH: std::cell::Cell<usize> = const { std::cell::Cell::new(0) }; }
    let depth = DEPTH.get();
    if depth >= MAX_DEPTH {
        return Err(Error::Depth);
    }
    DEPTH.set(depth + 1);
    let known = message.descriptor().fields;
    let mut hint = 0;
    let result = fields(input, |tag, wire| {
        let at = (hint..known.len()).chain(0..hint).find(|at| known[*at].tag == tag);
        let Some(at) = at else { return Ok(()) };
        hint = at;
        // Upstream's zero time is an empty message.
        if matches!(known[at].ty, crate::Type::Time | crate::Type::MicroTime)
            && matches!(wire, Wire::Bytes([]))
        {
            return Ok(());
        }
        message.field_mut(at).read_proto(wire)
    });
    DEPTH.set(depth);
    result
}
