//! Two servers side by side: the median of each, their ratio, and how far single rounds stray from it.

use crate::run::Row;

/// One figure of one case, of both servers.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratio {
    pub workload: String,
    pub case: String,
    pub figure: &'static str,
    pub a: f64,
    pub b: f64,
    /// B's median by A's.
    pub ratio: f64,
    /// The least and the greatest ratio of any one round.
    pub low: f64,
    pub high: f64,
}

/// A name and how it is read from a row.
type Figure = (&'static str, fn(&Row) -> Option<f64>);

const FIGURES: [Figure; 5] = [
    ("per second", |row| Some(row.per_second)),
    ("cpu/op us", |row| row.cpu_micros),
    ("p50 us", |row| row.latency.map(|latency| latency.p50 as f64)),
    ("p99 us", |row| row.latency.map(|latency| latency.p99 as f64)),
    ("peak MiB", |row| row.peak_mib),
];

/// Compares the first server named in the rows with the second.
pub fn ratios(rows: &[Row]) -> Vec<Ratio> {
    let mut servers: Vec<&str> = Vec::new();
    let mut cases: Vec<(&str, &str)> = Vec::new();
    for row in rows {
        if !servers.contains(&row.server.as_str()) {
            servers.push(&row.server);
        }
        if !cases.contains(&(&row.workload, &row.case)) {
            cases.push((&row.workload, &row.case));
        }
    }
    let [first, second, ..] = servers[..] else { return Vec::new() };
    let mut found = Vec::new();
    for (workload, case) in cases {
        for (figure, read) in FIGURES {
            let of = |server: &str| -> Vec<f64> {
                let chosen = rows
                    .iter()
                    .filter(|row| row.workload == workload && row.case == case && row.server == server);
                chosen.filter_map(read).filter(|value| *value > 0.0).collect()
            };
            let (a, b) = (of(first), of(second));
            let rounds: Vec<f64> = a.iter().zip(&b).map(|(a, b)| b / a).collect();
            if rounds.is_empty() {
                continue;
            }
            let (a, b) = (median(a), median(b));
            found.push(Ratio {
                workload: workload.into(),
                case: case.into(),
                figure,
                a,
                b,
                ratio: b / a,
                low: rounds.iter().copied().fold(f64::INFINITY, f64::min),
                high: rounds.iter().copied().fold(0.0, f64::max),
            });
        }
    }
    found
}

/// The middle value; of an even number the mean of both in the middle. 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => (values[even / 2 - 1] + values[even / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_paired_and_medians_divided() {
        let mut rows = Vec::new();
        for (round, a, b) in [(1, 100.0, 900.0), (2, 110.0, 1100.0), (3, 50.0, 1000.0)] {
            for (server, rate) in [("upstream", a), ("ours", b)] {
                let row = Row {
                    server: server.into(),
                    case: "get".into(),
                    round,
                    per_second: rate,
                    ..Row::default()
                };
                rows.push(row);
            }
        }
        let found = ratios(&rows);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].a, found[0].b, found[0].ratio), (100.0, 1000.0, 10.0));
        assert_eq!((found[0].low, found[0].high), (9.0, 20.0));
        assert!(ratios(&rows[..1]).is_empty());
    }
}
