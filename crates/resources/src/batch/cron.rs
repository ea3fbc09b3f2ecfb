//! Cron schedules: what one says, or why it cannot be read. When it is next due, in which zone, is not decided here.

/// Lowest and highest value of each field, with the names it may use.
const FIELDS: [(u32, u32, &[&str]); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

/// The bit of a field that was written as `*` or `?`.
const ANY: u64 = 1 << 63;

/// When something is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// The minutes whose parts are all among those of the fields.
    Calendar(Calendar),
    /// Over and over, this many seconds apart; at least one.
    Every { seconds: i64 },
}

/// The values of minute, hour, day of month, month and day of week, each as a set of bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    fields: [u64; 5],
}

impl Calendar {
    fn has(&self, field: usize, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.fields[field] & (1 << value) != 0)
    }
    pub fn has_minute(&self, minute: i8) -> bool {
        self.has(0, minute)
    }
    pub fn has_hour(&self, hour: i8) -> bool {
        self.has(1, hour)
    }
    /// January is 1.
    pub fn has_month(&self, month: i8) -> bool {
        self.has(3, month)
    }
    /// Sunday is 0. Where both the day of the month and that of the week are restricted, either will do.
    pub fn has_day(&self, of_month: i8, of_week: i8) -> bool {
        let (month, week) = (self.has(2, of_month), self.has(4, of_week));
        if (self.fields[2] | self.fields[4]) & ANY != 0 { month && week } else { month || week }
    }
}

/// Splits off the zone that stands in front of a schedule (`TZ=Europe/Paris 0 * * * *`).
pub fn split_zone(schedule: &str) -> (Option<&str>, &str) {
    let zone = schedule.strip_prefix("TZ=").or_else(|| schedule.strip_prefix("CRON_TZ="));
    match zone.and_then(|rest| rest.split_once(' ')) {
        Some((zone, rest)) => (Some(zone), rest.trim()),
        None => (None, schedule),
    }
}

/// Reads a schedule: five fields, or a descriptor such as `@hourly` or `@every 5m`. A zone in front is skipped.
///
/// # Errors
/// Why it cannot be read, in the words of cron's reader upstream.
pub fn parse(schedule: &str) -> Result<Schedule, String> {
    let (_, text) = split_zone(schedule);
    if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
        return Err("expected exactly 5 fields, found 0: []".into());
    }
    if text.starts_with('@') {
        return descriptor(text);
    }
    if text.is_empty() {
        return Err("empty spec string".into());
    }
    let parts: Vec<&str> = text.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
    }
    let mut fields = [0; 5];
    for ((bits, part), field) in fields.iter_mut().zip(parts).zip(FIELDS) {
        for expression in part.split(',').filter(|expression| !expression.is_empty()) {
            *bits |= range(expression, field)?;
        }
    }
    Ok(Schedule::Calendar(Calendar { fields }))
}

/// Why a schedule cannot be read.
pub(super) fn fault(schedule: &str) -> Option<String> {
    parse(schedule).err()
}

fn descriptor(text: &str) -> Result<Schedule, String> {
    if let Some(span) = text.strip_prefix("@every ") {
        let Some(duration) = meta::Duration::parse(span) else {
            return Err(format!("failed to parse duration {text}: invalid duration {span:?}"));
        };
        return Ok(Schedule::Every { seconds: (duration.nanos / 1_000_000_000).max(1) });
    }
    let same = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => return Err(format!("unrecognized descriptor: {text}")),
    };
    parse(same)
}

/// `*`, `5`, `1-5`, each perhaps with `/step`, as bits.
fn range(expression: &str, (low, high, names): (u32, u32, &[&str])) -> Result<u64, String> {
    let mut steps = expression.split('/');
    let base = steps.next().unwrap_or_default();
    let step = steps.next();
    if steps.next().is_some() {
        return Err(format!("too many slashes: {expression}"));
    }
    let mut ends = base.split('-');
    let first = ends.next().unwrap_or_default();
    let second = ends.next();
    if ends.next().is_some() {
        return Err(format!("too many hyphens: {expression}"));
    }
    let any = first == "*" || first == "?";
    let start = if any { low } else { value(first, names)? };
    let mut end = match second {
        Some(second) if !any => value(second, names)?,
        _ if any => high,
        _ => start,
    };
    let step = match step {
        None => 1,
        Some(step) => {
            // `5/15` means from 5 to the end, every 15.
            if second.is_none() && !any {
                end = high;
            }
            value(step, &[])?
        }
    };
    if start < low {
        return Err(format!("beginning of range ({start}) below minimum ({low}): {expression}"));
    }
    if end > high {
        return Err(format!("end of range ({end}) above maximum ({high}): {expression}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {expression}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {expression}"));
    }
    let stride = usize::try_from(step).unwrap_or(usize::MAX);
    let bits = (start..=end).step_by(stride).fold(0, |bits, value| bits | 1 << value);
    // `*/2` restricts, as `*` does not.
    Ok(if any && step == 1 { bits | ANY } else { bits })
}

fn value(text: &str, names: &[&str]) -> Result<u32, String> {
    let lower = text.to_lowercase();
    if let Some(at) = names.iter().position(|name| *name == lower) {
        // Months count from one, days from zero.
        return Ok(at as u32 + u32::from(names.len() == 12));
    }
    text.parse().map_err(|_| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")
    })
}

#[cfg(test)]
mod tests {
    use super::{Schedule, fault, parse};

    #[test]
    fn days_of_month_and_of_week_are_alternatives_only_where_both_restrict() {
        let days = |text: &str| match parse(text) {
            Ok(Schedule::Calendar(calendar)) => {
                [calendar.has_day(13, 5), calendar.has_day(13, 1), calendar.has_day(14, 5)]
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(days("0 0 13 * FRI"), [true, true, true]);
        assert_eq!(days("0 0 13 * *"), [true, true, false]);
        assert_eq!(days("0 0 * * fri"), [true, false, true]);
        assert_eq!(days("0 0 */13 * 5"), [true, false, true]);
        assert_eq!(parse("@every 90m"), Ok(Schedule::Every { seconds: 5400 }));
    }

    #[test]
    fn schedules_are_read_as_cron_reads_them() {
        for good in ["* * * * *", "*/5 0-6 1,15 jan-mar MON", "@hourly", "@every 5m", "5/15 * ? * *"] {
            assert_eq!(fault(good), None, "{good}");
        }
        for (bad, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("@never", "unrecognized descriptor: @never"),
        ] {
            assert_eq!(fault(bad).as_deref(), Some(why), "{bad}");
        }
    }
}
