//! Points in time: `Time` to the second, `MicroTime` to the microsecond, both RFC 3339 in UTC.

use crate::json::{self, Reader};
use crate::proto::{self, Wire};
use crate::reflect::Value;
use jiff::Timestamp;

macro_rules! time {
    ($(#[$doc:meta])* $name:ident, $nanos:expr, $print:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Timestamp);

        impl Default for $name {
            fn default() -> Self {
                $name(Timestamp::UNIX_EPOCH)
            }
        }

        impl $name {
            /// Seconds since 1970.
            pub fn seconds(&self) -> i64 {
                self.0.as_second()
            }
            pub fn parse(text: &str) -> Option<Self> {
                text.parse::<Timestamp>().ok().and_then(Self::truncated)
            }
            /// The time, cut to the precision of this type.
            pub fn truncated(time: Timestamp) -> Option<Self> {
                let nanos = time.subsec_nanosecond();
                Timestamp::new(time.as_second(), nanos - nanos % $nanos).ok().map($name)
            }
            pub fn from_seconds(seconds: i64) -> Option<Self> {
                Timestamp::from_second(seconds).ok().map($name)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.strftime($print).fmt(f)
            }
        }

        impl Value for $name {
            fn is_empty(&self) -> bool {
                false
            }
            fn write_json(&self, out: &mut Vec<u8>) {
                json::write_string(&self.to_string(), out)
            }
            fn read_json(&mut self, reader: &mut Reader<'_, '_>) -> Result<(), json::Error> {
                let text = reader.string()?;
                *self = Self::parse(&text).ok_or_else(|| {
                    reader.error(format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?}"))
                })?;
                Ok(())
            }
            fn write_proto(&self, tag: u32, out: &mut Vec<u8>) {
                proto::write_nested(tag, out, |out| {
                    proto::write_varint_field(1, self.0.as_second() as u64, out);
                    proto::write_varint_field(2, self.0.subsec_nanosecond() as i64 as u64, out);
                })
            }
            fn read_proto(&mut self, wire: Wire<'_>) -> Result<(), proto::Error> {
                let (mut seconds, mut nanos) = (0, 0);
                proto::fields(wire.bytes()?, |tag, wire| {
                    match tag {
                        1 => seconds = wire.varint()? as i64,
                        2 => nanos = wire.varint()? as i32,
                        _ => {}
                    }
                    Ok(())
                })?;
                *self = Timestamp::new(seconds, nanos)
                    .ok()
                    .and_then(Self::truncated)
                    .ok_or_else(|| proto::Error::Value(format!("time {seconds}.{nanos} out of range")))?;
                Ok(())
            }
        }
    };
}

time!(
    /// To the second: creation times, conditions.
    Time,
    1_000_000_000,
    "%Y-%m-%dT%H:%M:%SZ"
);
time!(
    /// To the microsecond: leases, events.
    MicroTime,
    1_000,
    "%Y-%m-%dT%H:%M:%S.%6fZ"
);
