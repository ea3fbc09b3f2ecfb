//! A span of time in Go's text form (`1h0m3.5s`), in nanoseconds.

use crate::json::{self, Reader};
use crate::proto::{self, Wire};
use crate::reflect::Value;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration {
    pub nanos: i64,
}

const SECOND: i64 = 1_000_000_000;

impl Duration {
    pub const fn from_secs(seconds: i64) -> Self {
        Duration { nanos: seconds * SECOND }
    }

    /// Reads Go's form; `None` where it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest == "0" {
            return Some(Duration::default());
        }
        if rest.is_empty() {
            return None;
        }
        let mut nanos = 0f64;
        let mut exact = 0i64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, tail) = rest.split_at(digits);
            let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(end);
            let scale = match unit {
                "ns" => 1,
                "us" | "µs" | "μs" => 1_000,
                "ms" => 1_000_000,
                "s" => SECOND,
                "m" => 60 * SECOND,
                "h" => 3600 * SECOND,
                _ => return None,
            };
            match number.split_once('.') {
                None => exact = exact.checked_add(number.parse::<i64>().ok()?.checked_mul(scale)?)?,
                Some(_) => nanos += number.parse::<f64>().ok()? * scale as f64,
            }
            rest = tail;
        }
        let total = exact.checked_add(nanos.round() as i64)?;
        Some(Duration { nanos: if negative { -total } else { total } })
    }
}

impl std::fmt::Display for Duration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let total = self.nanos.unsigned_abs();
        let sign = if self.nanos < 0 { "-" } else { "" };
        if total == 0 {
            return f.write_str("0s");
        }
        let fraction = |value: u64, scale: u64| {
            let text =
                format!("{}.{:0width$}", value / scale, value % scale, width = scale.ilog10() as usize);
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        };
        match total {
            0..1_000 => write!(f, "{sign}{total}ns"),
            1_000..1_000_000 => write!(f, "{sign}{}µs", fraction(total, 1_000)),
            1_000_000..1_000_000_000 => write!(f, "{sign}{}ms", fraction(total, 1_000_000)),
            _ => {
                let seconds = fraction(total % (60 * SECOND as u64), SECOND as u64);
                let minutes = total / (60 * SECOND as u64);
                match (minutes / 60, minutes % 60) {
                    (0, 0) => write!(f, "{sign}{seconds}s"),
                    (0, minutes) => write!(f, "{sign}{minutes}m{seconds}s"),
                    (hours, minutes) => write!(f, "{sign}{hours}h{minutes}m{seconds}s"),
                }
            }
        }
    }
}

impl Value for Duration {
    fn is_empty(&self) -> bool {
        false
    }
    fn write_json(&self, out: &mut Vec<u8>) {
        json::write_string(&self.to_string(), out)
    }
    fn read_json(&mut self, reader: &mut Reader<'_, '_>) -> Result<(), json::Error> {
        if reader.null()? {
            return Ok(());
        }
        let text = reader.string()?;
        *self =
            Duration::parse(&text).ok_or_else(|| reader.error(format!("time: invalid duration {text:?}")))?;
        Ok(())
    }
    fn write_proto(&self, tag: u32, out: &mut Vec<u8>) {
        proto::write_nested(tag, out, |out| proto::write_varint_field(1, self.nanos as u64, out))
    }
    fn read_proto(&mut self, wire: Wire<'_>) -> Result<(), proto::Error> {
        proto::fields(wire.bytes()?, |tag, wire| {
            if tag == 1 {
                self.nanos = wire.varint()? as i64;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Duration;

    #[test]
    fn text_form_is_gos() {
        for (given, printed) in [
            ("90s", "1m30s"),
            ("1h", "1h0m0s"),
            ("1.5h", "1h30m0s"),
            ("0", "0s"),
            ("1500ms", "1.5s"),
            ("2us", "2µs"),
            ("-3m", "-3m0s"),
        ] {
            assert_eq!(Duration::parse(given).map(|d| d.to_string()).as_deref(), Some(printed), "{given}");
        }
        for bad in ["", "1", "x", "1y", "-"] {
            assert_eq!(Duration::parse(bad), None, "{bad}");
        }
    }
}
