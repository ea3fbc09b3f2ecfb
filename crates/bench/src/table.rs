//! Rows as text for a terminal.

use crate::compare::Ratio;
use crate::run::Row;

/// All rows, a line each.
pub fn rows(rows: &[Row]) -> String {
    let mut table = vec![
        [
            "workload",
            "case",
            "server",
            "count",
            "per second",
            "p50",
            "p99",
            "max",
            "cpu/op",
            "rss MiB",
            "peak MiB",
        ]
        .map(String::from)
        .to_vec(),
    ];
    for row in rows {
        let latency = |pick: fn(&crate::run::Latency) -> u64| {
            row.latency.as_ref().map_or_else(String::new, |latency| micros(pick(latency) as f64))
        };
        let mib = |value: Option<f64>| value.map_or_else(String::new, |mib| format!("{mib:.0}"));
        table.push(vec![
            row.workload.clone(),
            row.case.clone(),
            row.server.clone(),
            row.count.to_string(),
            number(row.per_second),
            latency(|latency| latency.p50),
            latency(|latency| latency.p99),
            latency(|latency| latency.max),
            row.cpu_micros.map_or_else(String::new, micros),
            mib(row.resident_mib),
            mib(row.peak_mib),
        ]);
    }
    let mut text = aligned(&table, 3);
    for row in rows {
        if !row.facts.is_empty() {
            let facts: Vec<String> =
                row.facts.iter().map(|(name, value)| format!("{name} {}", number(*value))).collect();
            text.push_str(&format!("{}, {}: {}\n", row.case, row.server, facts.join(", ")));
        }
    }
    text
}

/// The comparison of two servers.
pub fn ratios(ratios: &[Ratio]) -> String {
    let mut table =
        vec![["workload", "case", "figure", "A", "B", "B/A", "from", "to"].map(String::from).to_vec()];
    for ratio in ratios {
        table.push(vec![
            ratio.workload.clone(),
            ratio.case.clone(),
            ratio.figure.into(),
            number(ratio.a),
            number(ratio.b),
            format!("{:.2}", ratio.ratio),
            format!("{:.2}", ratio.low),
            format!("{:.2}", ratio.high),
        ]);
    }
    aligned(&table, 3)
}

/// Columns from `right_from` on are numbers and end at the same place.
fn aligned(table: &[Vec<String>], right_from: usize) -> String {
    let columns = table.first().map_or(0, Vec::len);
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in table {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let gap = " ".repeat(widths[column] - cell.chars().count());
            let (before, after) = if column >= right_from { (gap.as_str(), "") } else { ("", gap.as_str()) };
            line.push_str(&format!("{before}{cell}{after}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A time in the unit that it reads best in.
pub fn micros(micros: f64) -> String {
    match micros {
        slow if slow >= 1e6 => format!("{:.2} s", slow / 1e6),
        middle if middle >= 1e4 => format!("{:.0} ms", middle / 1e3),
        quick if quick >= 1e3 => format!("{:.1} ms", quick / 1e3),
        fast => format!("{fast:.0} us"),
    }
}

/// A number with three digits that count.
pub fn number(number: f64) -> String {
    match number.abs() {
        large if large >= 100.0 => format!("{number:.0}"),
        middle if middle >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Latency;

    #[test]
    fn columns_line_up() {
        let row = Row {
            workload: "verbs".into(),
            case: "get pod".into(),
            server: "ours".into(),
            count: 1200,
            per_second: 240.0,
            latency: Some(Latency { p50: 310, p90: 2_000, p99: 12_345, max: 2_500_000 }),
            cpu_micros: Some(31.4),
            resident_mib: Some(60.2),
            facts: [("bytes_per_second_mb".to_string(), 1.5)].into(),
            ..Row::default()
        };
        let short = Row { case: "a".into(), ..Row::default() };
        let text = rows(&[row, short]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1],
            "verbs     get pod  ours     1200         240  310 us  12 ms  2.50 s   31 us       60"
        );
        assert_eq!(lines[0].find("per second"), lines[1].find("       240"));
        assert_eq!(lines[3], "get pod, ours: bytes_per_second_mb 1.50");
    }
}
