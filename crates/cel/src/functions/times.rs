//! The parts of times and durations: `getHours()`, `getFullYear('+02:00')`.

use super::{Implementation, no_overload};
use crate::error::EvalError;
use crate::eval::Evaluated;
use crate::time::{Civil, Timestamp};
use crate::value::Value;

/// The function of this name, where it is one of times.
pub(super) fn function(name: &str) -> Option<Implementation> {
    Some(match name {
        "getFullYear" => |args, _| part(&args, |c, _| c.year, None),
        "getMonth" => |args, _| part(&args, |c, _| c.month - 1, None),
        "getDayOfYear" => |args, _| part(&args, |c, _| c.day_of_year, None),
        "getDayOfMonth" => |args, _| part(&args, |c, _| c.day - 1, None),
        "getDate" => |args, _| part(&args, |c, _| c.day, None),
        "getDayOfWeek" => |args, _| part(&args, |c, _| c.weekday, None),
        "getHours" => |args, _| part(&args, |c, _| c.hour, Some(3_600_000_000_000)),
        "getMinutes" => |args, _| part(&args, |c, _| c.minute, Some(60_000_000_000)),
        "getSeconds" => |args, _| part(&args, |c, _| c.second, Some(1_000_000_000)),
        "getMilliseconds" => {
            |args, _| part(&args, |_, time| i64::from(time.nanos / 1_000_000), Some(1_000_000))
        }
        _ => return None,
    })
}

/// A part of a time at an offset, or how many units of so many nanoseconds a duration has.
fn part<'a>(args: &[Value<'a>], of: fn(&Civil, Timestamp) -> i64, unit: Option<i64>) -> Evaluated<'a> {
    match (args, unit) {
        ([Value::Timestamp(time)], _) => Ok(Value::Int(of(&time.civil(0), *time))),
        ([Value::Timestamp(time), Value::String(zone)], _) => {
            Ok(Value::Int(of(&time.civil(offset(zone)?), *time)))
        }
        ([Value::Duration(duration)], Some(unit)) => Ok(Value::Int(duration.nanos / unit)),
        _ => no_overload(),
    }
}

/// The seconds east of UTC of a zone: `UTC`, or an offset such as `-08:00`.
fn offset(zone: &str) -> Result<i64, EvalError> {
    if matches!(zone, "" | "UTC") {
        return Ok(0);
    }
    let Some((hours, minutes)) = zone.split_once(':') else {
        return Err(EvalError::new(format!("unknown time zone {zone}")));
    };
    let number = |text: &str| {
        text.parse::<i32>()
            .map(i64::from)
            .map_err(|_| EvalError::new(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let minutes = if zone.starts_with('-') { -minutes } else { minutes };
    Ok(hours * 3600 + minutes * 60)
}
