//! JSON: a strict pull reader with paths and Go's wording, and writers of the compact form.
//!
//! Reading never fails on unknown or duplicate fields; it notes them, and the caller decides by `fieldValidation`.

use crate::reflect::{Flags, Message};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

/// Deepest nesting that is read, as upstream's decoder limits it.
pub const MAX_DEPTH: usize = 10_000 / 40;

/// Notes kept of unknown and duplicate fields; upstream keeps as many.
pub const MAX_NOTES: usize = 100;

/// Why a document could not be read; the text is what upstream prints.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

#[derive(Debug, Clone, PartialEq)]
enum Segment<'a> {
    Key(Cow<'a, str>),
    Index(usize),
}

/// What strict decoding found: `unknown field "spec.foo"`, `duplicate field "spec.bar"`, in order of appearance.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Notes(pub Vec<String>);

pub struct Reader<'a, 's> {
    input: &'a [u8],
    at: usize,
    depth: usize,
    path: Vec<Segment<'a>>,
    owner: &'static str,
    notes: &'s mut Notes,
}

impl<'a, 's> Reader<'a, 's> {
    pub fn new(input: &'a [u8], notes: &'s mut Notes) -> Self {
        Reader { input, at: 0, depth: 0, path: Vec::new(), owner: "", notes }
    }

    pub fn error(&self, text: impl Into<String>) -> Error {
        Error(text.into())
    }

    fn space(&mut self) {
        while matches!(self.input.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Result<u8, Error> {
        self.space();
        self.input.get(self.at).copied().ok_or_else(|| self.error("unexpected end of JSON input"))
    }

    fn invalid(&self, context: &str) -> Error {
        match self.input.get(self.at) {
            None => self.error("unexpected end of JSON input"),
            Some(byte) if byte.is_ascii_graphic() || *byte == b' ' => {
                let shown = if *byte == b'\'' { "'\\''".to_string() } else { format!("'{}'", *byte as char) };
                self.error(format!("invalid character {shown} {context}"))
            }
            Some(byte) => self.error(format!("invalid character '\\x{byte:02x}' {context}")),
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), Error> {
        for expected in word.bytes() {
            if self.input.get(self.at) != Some(&expected) {
                return Err(self.invalid(&format!("in literal {word} (expecting '{}')", expected as char)));
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Consumes `null` where one stands.
    pub fn null(&mut self) -> Result<bool, Error> {
        if self.peek()? != b'n' {
            return Ok(false);
        }
        self.literal("null")?;
        Ok(true)
    }

    pub fn at_string(&mut self) -> bool {
        self.peek().is_ok_and(|byte| byte == b'"')
    }

    pub fn at_array(&mut self) -> bool {
        self.peek().is_ok_and(|byte| byte == b'[')
    }

    pub fn at_object(&mut self) -> bool {
        self.peek().is_ok_and(|byte| byte == b'{')
    }

    /// Nothing may follow the document.
    pub fn end(&mut self) -> Result<(), Error> {
        self.space();
        if self.at == self.input.len() { Ok(()) } else { Err(self.invalid("after top-level value")) }
    }

    fn dotted(&self, indices: bool) -> String {
        let mut text = String::new();
        for segment in &self.path {
            match segment {
                Segment::Key(key) => {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    text.push_str(key);
                }
                Segment::Index(index) if indices => text.push_str(&format!("[{index}]")),
                Segment::Index(_) => {}
            }
        }
        text
    }

    /// The value here is of another type than `wanted`, Go's name of it.
    fn mismatch(&mut self, wanted: &str) -> Error {
        let found = match self.peek() {
            Err(error) => return error,
            Ok(b'"') => "string".to_string(),
            Ok(b'{') => "object".to_string(),
            Ok(b'[') => "array".to_string(),
            Ok(b't' | b'f') => "bool".to_string(),
            Ok(b'-' | b'0'..=b'9') => match self.number() {
                Ok(text) if wanted.starts_with("int") || wanted == "float64" => format!("number {text}"),
                Ok(_) => "number".to_string(),
                Err(error) => return error,
            },
            Ok(_) => return self.invalid("looking for beginning of value"),
        };
        if self.path.is_empty() {
            return self.error(format!("json: cannot unmarshal {found} into Go value of type {wanted}"));
        }
        let path = self.dotted(false);
        self.error(format!(
            "json: cannot unmarshal {found} into Go struct field {}.{path} of type {wanted}",
            self.owner
        ))
    }

    pub fn bool(&mut self) -> Result<bool, Error> {
        match self.peek()? {
            b't' => self.literal("true").map(|()| true),
            b'f' => self.literal("false").map(|()| false),
            _ => Err(self.mismatch("bool")),
        }
    }

    fn number(&mut self) -> Result<&'a str, Error> {
        let start = self.at;
        if self.input.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        match self.input.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.invalid("in numeric literal")),
        }
        if self.input.get(self.at) == Some(&b'.') {
            self.at += 1;
            if !self.input.get(self.at).is_some_and(u8::is_ascii_digit) {
                return Err(self.invalid("after decimal point in numeric literal"));
            }
            self.digits();
        }
        if matches!(self.input.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.input.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if !self.input.get(self.at).is_some_and(u8::is_ascii_digit) {
                return Err(self.invalid("in exponent of numeric literal"));
            }
            self.digits();
        }
        std::str::from_utf8(&self.input[start..self.at]).map_err(|_| self.error("invalid UTF-8 in number"))
    }

    fn digits(&mut self) {
        while self.input.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn parsed<T: std::str::FromStr>(&mut self, wanted: &str) -> Result<T, Error> {
        if !matches!(self.peek()?, b'-' | b'0'..=b'9') {
            return Err(self.mismatch(wanted));
        }
        let start = self.at;
        let text = self.number()?;
        text.parse().map_err(|_| {
            self.at = start;
            self.mismatch(wanted)
        })
    }

    pub fn int32(&mut self) -> Result<i32, Error> {
        self.parsed("int32")
    }

    pub fn int64(&mut self) -> Result<i64, Error> {
        self.parsed("int64")
    }

    pub fn double(&mut self) -> Result<f64, Error> {
        self.parsed("float64")
    }

    /// A quantity is a string, or a bare number taken by its text.
    pub fn string_or_number(&mut self) -> Result<String, Error> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number().map(str::to_owned),
            _ => self.string(),
        }
    }

    pub fn base64(&mut self) -> Result<Vec<u8>, Error> {
        let text = self.text("[]uint8")?;
        let plain: String = text.chars().filter(|c| *c != '\n' && *c != '\r').collect();
        STANDARD.decode(plain.as_bytes()).map_err(|error| {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(length) => length,
                base64::DecodeError::InvalidPadding => plain.len(),
            };
            self.error(format!("illegal base64 data at input byte {at}"))
        })
    }

    pub fn string(&mut self) -> Result<String, Error> {
        self.text("string").map(Cow::into_owned)
    }

    fn text(&mut self, wanted: &str) -> Result<Cow<'a, str>, Error> {
        if self.peek()? != b'"' {
            return Err(self.mismatch(wanted));
        }
        self.at += 1;
        let start = self.at;
        loop {
            match self.input.get(self.at) {
                Some(b'"') => {
                    let text = String::from_utf8_lossy(&self.input[start..self.at]);
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => break,
                Some(0..0x20) | None => return Err(self.invalid("in string literal")),
                Some(_) => self.at += 1,
            }
        }
        let mut text = self.input[start..self.at].to_vec();
        loop {
            match self.input.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(String::from_utf8_lossy(&text).into_owned()));
                }
                Some(b'\\') => self.escape(&mut text)?,
                Some(0..0x20) | None => return Err(self.invalid("in string literal")),
                Some(byte) => {
                    text.push(*byte);
                    self.at += 1;
                }
            }
        }
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), Error> {
        self.at += 1;
        let plain = match self.input.get(self.at) {
            Some(b'u') => {
                let mut unit = self.unit()?;
                if (0xd800..0xdc00).contains(&unit) && self.input[self.at..].starts_with(b"\\u") {
                    let back = self.at;
                    self.at += 1;
                    let low = self.unit()?;
                    if (0xdc00..0xe000).contains(&low) {
                        unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                    } else {
                        self.at = back;
                    }
                }
                let c = char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
                text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'r') => b'\r',
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
            _ => return Err(self.invalid("in string escape code")),
        };
        self.at += 1;
        text.push(plain);
        Ok(())
    }

    /// Four hexadecimal digits after `u`.
    fn unit(&mut self) -> Result<u32, Error> {
        self.at += 1;
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.input.get(self.at).and_then(|byte| (*byte as char).to_digit(16));
            unit = unit * 16 + digit.ok_or_else(|| self.invalid("in \\u hexadecimal character escape"))?;
            self.at += 1;
        }
        Ok(unit)
    }

    fn enter(&mut self) -> Result<(), Error> {
        self.depth += 1;
        self.at += 1;
        if self.depth > MAX_DEPTH { Err(self.error("exceeded max depth")) } else { Ok(()) }
    }

    /// Calls `each` for every element; it must consume one value.
    pub fn array(&mut self, mut each: impl FnMut(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        if self.peek()? != b'[' {
            return Err(self.mismatch("[]"));
        }
        self.enter()?;
        let mut index = 0;
        if self.peek()? == b']' {
            self.at += 1;
            self.depth -= 1;
            return Ok(());
        }
        loop {
            self.path.push(Segment::Index(index));
            each(self)?;
            self.path.pop();
            index += 1;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => break,
                _ => return Err(self.invalid("after array element")),
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    /// Calls `each` with every key; it must consume one value. `wanted` is Go's name of the type.
    pub fn object(
        &mut self,
        wanted: &str,
        mut each: impl FnMut(&mut Self, &str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.peek()? != b'{' {
            return Err(self.mismatch(wanted));
        }
        self.enter()?;
        if self.peek()? == b'}' {
            self.at += 1;
            self.depth -= 1;
            return Ok(());
        }
        loop {
            if self.peek()? != b'"' {
                return Err(self.invalid("looking for beginning of object key string"));
            }
            let key = self.text("string")?;
            if self.peek()? != b':' {
                return Err(self.invalid("after object key"));
            }
            self.at += 1;
            self.path.push(Segment::Key(key.clone()));
            each(self, &key)?;
            self.path.pop();
            match self.peek()? {
                b',' => {
                    self.at += 1;
                    self.space();
                }
                b'}' => break,
                _ => return Err(self.invalid("after object key:value pair")),
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    fn note(&mut self, what: &str) {
        if self.notes.0.len() < MAX_NOTES {
            let text = format!("{what} field {:?}", self.dotted(true));
            self.notes.0.push(text);
        }
    }

    /// The field whose value is being read stands twice.
    pub fn duplicate(&mut self, _key: &str) {
        self.note("duplicate");
    }

    /// The field whose value stands here is not known: notes it and passes over the value.
    pub fn unknown(&mut self) -> Result<(), Error> {
        self.note("unknown");
        self.skip()
    }

    /// A field below the one whose value has been read is not known; `path` starts with a dot or a bracket.
    pub fn unknown_below(&mut self, path: &str) {
        if self.notes.0.len() < MAX_NOTES {
            let text = format!("unknown field {:?}", format!("{}{path}", self.dotted(true)));
            self.notes.0.push(text);
        }
    }

    /// Any value as a tree. Of keys that stand twice the last one counts, and the field is noted.
    pub fn value(&mut self) -> Result<serde_json::Value, Error> {
        use serde_json::Value;
        Ok(match self.peek()? {
            b'{' => {
                let mut fields = serde_json::Map::new();
                self.object("map[string]interface {}", |reader, key| {
                    let value = reader.value()?;
                    if fields.insert(key.to_string(), value).is_some() {
                        reader.duplicate(key);
                    }
                    Ok(())
                })?;
                Value::Object(fields)
            }
            b'[' => {
                let mut items = Vec::new();
                self.array(|reader| {
                    items.push(reader.value()?);
                    Ok(())
                })?;
                Value::Array(items)
            }
            b'"' => Value::String(self.string()?),
            b't' | b'f' => Value::Bool(self.bool()?),
            b'n' => {
                self.literal("null")?;
                Value::Null
            }
            b'-' | b'0'..=b'9' => {
                let text = self.number()?;
                // As upstream: what is written as a whole number is one, where it fits; all else is a float.
                match text.parse::<i64>() {
                    Ok(whole) => whole.into(),
                    Err(_) => {
                        let float: f64 = text.parse().map_err(|_| self.error("invalid number"))?;
                        serde_json::Number::from_f64(float)
                            .map(Value::Number)
                            .ok_or_else(|| self.error(format!("number {text} is out of range")))?
                    }
                }
            }
            _ => return Err(self.invalid("looking for beginning of value")),
        })
    }

    /// Passes over one value, checking its syntax.
    pub fn skip(&mut self) -> Result<(), Error> {
        match self.peek()? {
            b'{' => self.object("object", |reader, _| reader.skip()),
            b'[' => self.array(|reader| reader.skip()),
            b'"' => self.text("string").map(|_| ()),
            b't' | b'f' => self.bool().map(|_| ()),
            b'n' => self.null().map(|_| ()),
            b'-' | b'0'..=b'9' => self.number().map(|_| ()),
            _ => Err(self.invalid("looking for beginning of value")),
        }
    }

    /// One value as it stands, without the white space between tokens.
    pub fn verbatim(&mut self) -> Result<Vec<u8>, Error> {
        self.space();
        let start = self.at;
        self.skip()?;
        let text = &self.input[start..self.at];
        let (mut compact, mut quoted, mut escaped) = (Vec::with_capacity(text.len()), false, false);
        for &byte in text {
            if quoted {
                quoted = escaped || byte != b'"';
                escaped = byte == b'\\' && !escaped;
            } else if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                continue;
            } else {
                quoted = byte == b'"';
            }
            compact.push(byte);
        }
        Ok(compact)
    }
}

/// Where a JSON key leads: a field of the message, or of one that is inlined in it.
fn place(message: &dyn Message, key: &str, hint: usize) -> Option<(usize, Option<usize>)> {
    let fields = message.descriptor().fields;
    let own = |at: &usize| fields[*at].name == key && !fields[*at].flags.has(Flags::INLINE);
    if let Some(at) = (hint..fields.len()).chain(0..hint.min(fields.len())).find(own) {
        return Some((at, None));
    }
    for (at, field) in fields.iter().enumerate() {
        if field.flags.has(Flags::INLINE)
            && message.field(at).as_message().is_some_and(|inner| place(inner, key, 0).is_some())
        {
            return Some((at, Some(at)));
        }
    }
    None
}

/// Keys of one object that have been read, so that a second one is noticed: known fields by their place, the few others
/// (inlined and unknown ones) by name.
#[derive(Default)]
struct Seen {
    places: u128,
    others: Vec<String>,
}

impl Seen {
    /// Whether the key stood there before.
    fn again(&mut self, place: Option<(usize, Option<usize>)>, key: &str) -> bool {
        if let Some((at @ 0..128, None)) = place {
            let bit = 1u128 << at;
            let before = self.places & bit != 0;
            self.places |= bit;
            return before;
        }
        let before = self.others.iter().any(|known| known == key);
        if !before && self.others.len() < MAX_NOTES {
            self.others.push(key.to_string());
        }
        before
    }
}

fn read_field(
    message: &mut dyn Message,
    reader: &mut Reader<'_, '_>,
    key: &str,
    place_of_key: Option<(usize, Option<usize>)>,
) -> Result<(), Error> {
    match place_of_key {
        None => message.read_other(reader, key),
        Some((at, None)) => message.field_mut(at).read_json(reader),
        Some((_, Some(inline))) => match message.field_mut(inline).as_message_mut() {
            Some(inner) => {
                let at = place(inner, key, 0);
                read_field(inner, reader, key, at)
            }
            None => reader.unknown(),
        },
    }
}

pub fn read_message(message: &mut dyn Message, reader: &mut Reader<'_, '_>) -> Result<(), Error> {
    if reader.null()? {
        return Ok(());
    }
    let descriptor = message.descriptor();
    let outer = std::mem::replace(&mut reader.owner, descriptor.name);
    let mut hint = 0;
    let mut seen = Seen::default();
    let wanted = descriptor.definition.rsplit_once("io.k8s.api.").map_or(descriptor.name, |(_, name)| name);
    reader.object(wanted, |reader, key| {
        reader.owner = descriptor.name;
        let at = place(message, key, hint);
        if seen.again(at, key) {
            reader.duplicate(key);
        }
        if let Some((own, None)) = at {
            hint = own + 1;
        }
        read_field(message, reader, key, at)
    })?;
    reader.owner = outer;
    Ok(())
}

/// Reads a whole document into `message`.
pub fn decode(message: &mut dyn Message, input: &[u8], notes: &mut Notes) -> Result<(), Error> {
    let mut reader = Reader::new(input, notes);
    read_message(message, &mut reader)?;
    reader.end()
}

fn write_fields(message: &dyn Message, out: &mut Vec<u8>, first: &mut bool, skip_type: bool) {
    for (index, field) in message.descriptor().fields.iter().enumerate() {
        let value = message.field(index);
        if field.flags.has(Flags::INLINE) {
            if let Some(inner) = value.as_message() {
                write_fields(inner, out, first, false);
            }
            for (name, value) in value.as_fields().into_iter().flatten() {
                if !*first {
                    out.push(b',');
                }
                *first = false;
                write_string(name, out);
                out.push(b':');
                write_value(value, out);
            }
            continue;
        }
        if skip_type && index < 2 {
            continue;
        }
        let omitted = (field.flags.has(Flags::OMIT_EMPTY) && value.is_empty())
            || (field.flags.has(Flags::OMIT_ZERO)
                && (value.is_empty() || value.as_message().is_some_and(is_zero)));
        if omitted {
            continue;
        }
        if !*first {
            out.push(b',');
        }
        *first = false;
        write_string(field.name, out);
        out.push(b':');
        value.write_json(out);
    }
}

/// Whether nothing at all is set in a message.
pub fn is_zero(message: &dyn Message) -> bool {
    (0..message.descriptor().fields.len()).all(|at| {
        let value = message.field(at);
        value.is_empty()
            || (!message.descriptor().fields[at].flags.has(Flags::OPTIONAL)
                && value.as_message().is_some_and(is_zero))
    })
}

pub fn write_message(message: &dyn Message, out: &mut Vec<u8>) {
    out.push(b'{');
    write_fields(message, out, &mut true, false);
    out.push(b'}');
}

/// A whole document: a typed message states its kind and version first, whatever its fields say.
pub fn encode(message: &dyn Message, out: &mut Vec<u8>) {
    let mut first = true;
    out.push(b'{');
    let typed = message.descriptor().gvk;
    if let Some(gvk) = typed {
        first = false;
        out.extend_from_slice(b"\"kind\":");
        write_string(gvk.kind, out);
        out.extend_from_slice(b",\"apiVersion\":");
        write_string(&gvk.api_version(), out);
    }
    write_fields(message, out, &mut first, typed.is_some());
    out.push(b'}');
}

/// For `Debug`: the JSON form, but never what a Secret or any bytes hold.
pub fn debug(message: &dyn Message, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    let descriptor = message.descriptor();
    if descriptor.name == "Secret" {
        return f.write_str("Secret(redacted)");
    }
    let mut text = Vec::new();
    write_message(message, &mut text);
    write!(f, "{}{}", descriptor.name, String::from_utf8_lossy(&text))
}

/// A quoted string, escaped as Go's encoder does without HTML escaping, but for U+2028 and U+2029.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let escaped: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            8 => b"\\b",
            12 => b"\\f",
            0..0x20 => &[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]],
            0xe2 if bytes[at..].starts_with(b"\xe2\x80\xa8") => b"\\u2028",
            0xe2 if bytes[at..].starts_with(b"\xe2\x80\xa9") => b"\\u2029",
            _ => continue,
        };
        out.extend_from_slice(&bytes[from..at]);
        out.extend_from_slice(escaped);
        from = if byte == 0xe2 { at + 3 } else { at + 1 };
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

/// A tree in the same form as everything else: Go's escapes and floats.
pub fn write_value(value: &serde_json::Value, out: &mut Vec<u8>) {
    use serde_json::Value;
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Number(number) if number.is_f64() => write_double(number.as_f64().unwrap_or_default(), out),
        Value::Number(number) => write_display(number, out),
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(item, out);
            }
            out.push(b']');
        }
        Value::Object(fields) => {
            out.push(b'{');
            for (index, (name, value)) in fields.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(name, out);
                out.push(b':');
                write_value(value, out);
            }
            out.push(b'}');
        }
    }
}

pub fn write_display(value: &dyn std::fmt::Display, out: &mut Vec<u8>) {
    use std::io::Write;
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{value}");
}

/// A float as Go prints it: no fraction where there is none.
pub fn write_double(value: f64, out: &mut Vec<u8>) {
    if !value.is_finite() {
        out.extend_from_slice(b"null");
    } else if value != 0.0 && !(1e-6..1e21).contains(&value.abs()) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(("+", exponent), |digits| ("-", digits));
        write_display(&format_args!("{mantissa}e{sign}{digits:0>2}"), out);
    } else {
        write_display(&value, out);
    }
}

pub fn write_base64(value: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(STANDARD.encode(value).as_bytes());
    out.push(b'"');
}
