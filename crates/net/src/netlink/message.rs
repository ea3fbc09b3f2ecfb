//! Netlink messages as bytes: header, a fixed part, attributes that may nest.

pub const HEADER_BYTES: usize = 16;

/// Netlink aligns everything to four bytes.
pub const fn align(length: usize) -> usize {
    (length + 3) & !3
}

pub struct Header {
    pub length: usize,
    pub kind: u16,
    pub sequence: u32,
}

impl Header {
    pub fn read(bytes: &[u8]) -> Option<Header> {
        let length = u32::from_ne_bytes(bytes.get(0..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
        (length >= HEADER_BYTES).then_some(Header { length, kind, sequence })
    }
}

/// A request being written.
pub struct Builder {
    bytes: Vec<u8>,
}

impl Builder {
    /// Starts a request of `kind` with `flags` and the fixed part that kind has.
    pub fn new(kind: u16, flags: i32, fixed: &[u8]) -> Builder {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        bytes.resize(align(bytes.len()), 0);
        Builder { bytes }
    }

    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Builder {
        self.bytes.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(align(self.bytes.len()), 0);
        self
    }

    /// A text attribute, zero-terminated.
    pub fn text(self, kind: u16, value: &str) -> Builder {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    pub fn number(self, kind: u16, value: u32) -> Builder {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// An attribute that holds what `fill` writes.
    pub fn nested(mut self, kind: u16, fill: impl FnOnce(Builder) -> Builder) -> Builder {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&(kind | libc::NLA_F_NESTED as u16).to_ne_bytes());
        let mut filled = fill(self);
        let length = (filled.bytes.len() - start) as u16;
        filled.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled
    }

    /// Bytes as they are: a fixed part inside an attribute.
    pub fn raw(mut self, value: &[u8]) -> Builder {
        self.bytes.extend_from_slice(value);
        self.bytes.resize(align(self.bytes.len()), 0);
        self
    }

    pub fn finish(mut self, flags: u16, sequence: u32) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        let own = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]);
        self.bytes[6..8].copy_from_slice(&(own | flags).to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// The attributes of a payload, one after the other.
#[derive(Clone)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// `payload` without the fixed part of `fixed` bytes.
    pub fn after(payload: &'a [u8], fixed: usize) -> Attributes<'a> {
        Attributes { rest: payload.get(align(fixed)..).unwrap_or(&[]) }
    }

    /// The value of the first attribute of `kind`.
    pub fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find_map(|(of, value)| (of == kind).then_some(value))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.rest.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.rest.get(2..4)?.try_into().ok()?);
        let value = self.rest.get(4..length)?;
        self.rest = self.rest.get(align(length)..).unwrap_or(&[]);
        // The upper two bits say nested and byte order.
        Some((kind & 0x3fff, value))
    }
}
