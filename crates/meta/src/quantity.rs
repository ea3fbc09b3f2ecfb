//! Amounts of resources: `100m`, `1Gi`, `3e6`, in upstream's canonical text form.
//!
//! Held as a whole number of billionths, which is upstream's finest scale; smaller fractions round up, as there.

use crate::json::{self, Reader};
use crate::proto::{self, Wire};
use crate::reflect::{Element, Value};

/// The family of suffixes that a quantity was written with, and is printed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

const UNIT: i128 = 1_000_000_000;
/// Larger values are capped, as upstream caps what does not fit 64 bits.
const MAX: i128 = i64::MAX as i128 * UNIT;

/// Why text is no quantity; upstream's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
/// From 10^-9 up in steps of a thousand.
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

impl Quantity {
    pub fn from_units(value: i64, format: Format) -> Self {
        Quantity { nanos: i128::from(value) * UNIT, format }
    }
    pub fn from_millis(value: i64) -> Self {
        Quantity { nanos: i128::from(value) * (UNIT / 1_000), format: Format::DecimalSi }
    }
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }
    /// The value in whole units, rounded up.
    pub fn value(&self) -> i64 {
        clamp(div_up(self.nanos, UNIT))
    }
    /// The value in thousandths, rounded up.
    pub fn milli_value(&self) -> i64 {
        clamp(div_up(self.nanos, UNIT / 1_000))
    }
    pub fn plus(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Quantity { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX), format }
    }
    pub fn minus(self, other: Self) -> Self {
        self.plus(Quantity { nanos: -other.nanos, format: other.format })
    }

    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
            None => return Err(ParseError::Format),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(ParseError::Format);
        }
        let (base, exponent, format) = suffix_scale(suffix)?;
        let digits: String = [whole, fraction].concat();
        let digits = digits.trim_start_matches('0');
        let magnitude = scaled(digits, fraction.len() as i32, base, exponent).ok_or(ParseError::Numeric)?;
        Ok(Quantity { nanos: if negative { -magnitude } else { magnitude }, format })
    }
}

fn clamp(value: i128) -> i64 {
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

fn div_up(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    match value % by {
        0 => quotient,
        rest if rest > 0 => quotient + 1,
        _ => quotient - 1,
    }
}

/// Base, exponent and family of a suffix.
fn suffix_scale(suffix: &str) -> Result<(u32, i32, Format), ParseError> {
    if let Some(at) = BINARY.iter().skip(1).position(|known| *known == suffix) {
        return Ok((1024, at as i32 + 1, Format::BinarySi));
    }
    if let Some(at) = DECIMAL.iter().position(|known| *known == suffix) {
        return Ok((10, at as i32 * 3 - 9, Format::DecimalSi));
    }
    if let Some(exponent) = suffix.strip_prefix(['e', 'E']) {
        let exponent: i32 = exponent.parse().map_err(|_| ParseError::Suffix)?;
        return Ok((10, exponent.clamp(-1_000, 1_000), Format::DecimalExponent));
    }
    if suffix.bytes().all(|byte| b"eEinumkKMGTP+-0123456789".contains(&byte)) {
        Err(ParseError::Suffix)
    } else {
        Err(ParseError::Format)
    }
}

/// `digits x 10^-places x base^exponent` in billionths, rounded up and capped.
fn scaled(digits: &str, places: i32, base: u32, exponent: i32) -> Option<i128> {
    if digits.is_empty() {
        return Some(0);
    }
    let mut shift = 9 - places;
    if base == 10 {
        shift += exponent;
    }
    // More digits than matter at the finest scale: cut them, remembering that something was there.
    let (mut digits, mut rest) = (digits, false);
    if digits.len() > 37 {
        let cut = digits.len() - 37;
        rest = digits[37..].bytes().any(|byte| byte != b'0');
        digits = &digits[..37];
        shift += cut as i32;
    }
    let mut value: i128 = digits.parse().ok()?;
    if base == 1024 {
        value = value.checked_mul(1i128 << (10 * exponent)).unwrap_or(MAX);
    }
    for _ in 0..shift.unsigned_abs() {
        if shift > 0 {
            value = value.checked_mul(10).unwrap_or(i128::MAX / 10 - 1).min(i128::MAX / 20);
            if value >= MAX {
                return Some(MAX);
            }
        } else {
            rest |= value % 10 != 0;
            value /= 10;
            if value == 0 {
                break;
            }
        }
    }
    Some((value + i128::from(rest)).min(MAX))
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * UNIT;
        if self.format == Format::BinarySi && !small {
            let mut value = div_up(self.nanos, UNIT);
            let mut power = 0;
            while value % 1024 == 0 && power < BINARY.len() - 1 {
                value /= 1024;
                power += 1;
            }
            return write!(f, "{value}{}", BINARY[power]);
        }
        let mut value = self.nanos;
        let mut power = 0;
        while value % 1_000 == 0 && power < DECIMAL.len() - 1 {
            value /= 1_000;
            power += 1;
        }
        match self.format {
            Format::DecimalExponent if power != 3 => write!(f, "{value}e{}", power as i32 * 3 - 9),
            _ => write!(f, "{value}{}", DECIMAL[power]),
        }
    }
}

impl Value for Quantity {
    fn is_empty(&self) -> bool {
        false
    }
    fn write_json(&self, out: &mut Vec<u8>) {
        json::write_string(&self.to_string(), out)
    }
    fn read_json(&mut self, reader: &mut Reader<'_, '_>) -> Result<(), json::Error> {
        if reader.null()? {
            *self = Quantity::default();
            return Ok(());
        }
        let text = reader.string_or_number()?;
        *self = Quantity::parse(&text).map_err(|error| reader.error(error.to_string()))?;
        Ok(())
    }
    fn write_proto(&self, tag: u32, out: &mut Vec<u8>) {
        proto::write_nested(tag, out, |out| proto::write_bytes(1, self.to_string().as_bytes(), out))
    }
    fn read_proto(&mut self, wire: Wire<'_>) -> Result<(), proto::Error> {
        proto::fields(wire.bytes()?, |tag, wire| {
            if tag == 1 {
                let text = wire.string()?;
                *self = Quantity::parse(&text).map_err(|error| proto::Error::Value(error.to_string()))?;
            }
            Ok(())
        })
    }
}

impl Element for Quantity {}

#[cfg(test)]
mod tests {
    use super::{ParseError, Quantity};

    #[test]
    fn canonical_form_is_upstreams() {
        for (given, printed) in [
            ("1000m", "1"),
            ("0.5Gi", "512Mi"),
            ("1024Mi", "1Gi"),
            ("100m", "100m"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("0.1", "100m"),
            ("1.5", "1500m"),
            ("1000Ki", "1000Ki"),
            ("0Gi", "0"),
            ("-1", "-1"),
            ("+2k", "2k"),
            ("0.0000000001", "1n"),
            ("1000000", "1M"),
            ("1001", "1001"),
            ("99999999999999999999E", "9223372036854775807"),
            ("512", "512"),
            (".5", "500m"),
            ("1.", "1"),
        ] {
            assert_eq!(Quantity::parse(given).map(|q| q.to_string()).as_deref(), Ok(printed), "{given}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for (given, error) in [
            ("", ParseError::Format),
            ("x", ParseError::Format),
            ("1x", ParseError::Format),
            ("1.2.3", ParseError::Format),
            ("1ki", ParseError::Suffix),
            ("1e", ParseError::Suffix),
        ] {
            assert_eq!(Quantity::parse(given), Err(error), "{given}");
        }
    }

    #[test]
    fn values_round_up() {
        let half = Quantity::parse("1500m").expect("a quantity");
        assert_eq!((half.value(), half.milli_value()), (2, 1500));
        assert_eq!(Quantity::parse("1u").map(|q| q.milli_value()), Ok(1));
    }
}
