//! Cron schedules: whether one can be read, and if not, why.

/// Lowest and highest value of each field, with the names it may use.
const FIELDS: [(u32, u32, &[&str]); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];
const DESCRIPTORS: [&str; 7] =
    ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Why a schedule cannot be read.
pub(super) fn fault(schedule: &str) -> Option<String> {
    let mut text = schedule;
    if schedule.starts_with("TZ=") || schedule.starts_with("CRON_TZ=") {
        match schedule.split_once(' ') {
            Some((_, rest)) => text = rest.trim(),
            None => return Some("expected exactly 5 fields, found 0: []".into()),
        }
    }
    if text.starts_with('@') {
        return descriptor(text);
    }
    let parts: Vec<&str> = text.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Some(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
    }
    parts
        .iter()
        .zip(FIELDS)
        .find_map(|(part, field)| part.split(',').find_map(|expression| range(expression, field).err()))
}

fn descriptor(text: &str) -> Option<String> {
    if let Some(span) = text.strip_prefix("@every ") {
        let duration = meta::Duration::parse(span);
        return duration
            .is_none()
            .then(|| format!("failed to parse duration {text}: invalid duration {span:?}"));
    }
    (!DESCRIPTORS.contains(&text)).then(|| format!("unrecognized descriptor: {text}"))
}

/// `*`, `5`, `1-5`, each perhaps with `/step`.
fn range(expression: &str, (low, high, names): (u32, u32, &[&str])) -> Result<(), String> {
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
    Ok(())
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
    use super::fault;

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
