//! Result files as one page: Markdown with a table and a plot for each workload.

use crate::compare::{self, Ratio, median};
use crate::run::{Document, Row};
use crate::table::{micros, number};
use anyhow::{Context, Result};
use std::fmt::Write;
use std::path::PathBuf;

#[derive(clap::Args, Clone, Debug)]
pub struct ReportArgs {
    /// Files that --json wrote
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Where the page and its plots go
    #[arg(long, value_name = "DIRECTORY", default_value = "report")]
    pub out: PathBuf,
    /// The page's title
    #[arg(long, default_value = "Benchmarks")]
    pub title: String,
}

pub fn render(args: &ReportArgs) -> Result<()> {
    let mut documents = Vec::new();
    for file in &args.files {
        let text = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        let document: Document =
            serde_json::from_slice(&text).with_context(|| format!("{} is no result file", file.display()))?;
        documents.push(document);
    }
    let page = page(&args.title, &documents);
    std::fs::create_dir_all(&args.out).with_context(|| format!("making {}", args.out.display()))?;
    for (name, text) in page {
        let path = args.out.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    println!("{}", args.out.join("README.md").display());
    Ok(())
}

/// The files of a page, by name.
pub fn page(title: &str, documents: &[Document]) -> Vec<(String, String)> {
    let mut text = format!("# {title}\n");
    let mut files = Vec::new();
    for document in documents {
        let machine = &document.machine;
        let _ = write!(
            text,
            "\nMeasured at {} with version {} on {} ({} processors, {} MiB, Linux {}); load average before {}, after {}.\n\n```\n{}\n```\n",
            document.began,
            document.version,
            machine.cpu,
            machine.cpus,
            machine.memory_mib,
            machine.kernel,
            machine.load_before,
            machine.load_after,
            document.command
        );
        let mut workloads: Vec<&str> = Vec::new();
        for row in &document.rows {
            if !workloads.contains(&row.workload.as_str()) {
                workloads.push(&row.workload);
            }
        }
        for workload in workloads {
            let rows: Vec<Row> =
                document.rows.iter().filter(|row| row.workload == workload).cloned().collect();
            let _ = write!(text, "\n## {workload}\n\n{}", medians(&rows));
            let ratios = compare::ratios(&rows);
            if !ratios.is_empty() {
                let _ = write!(text, "\n{}", ratio_table(&ratios));
            }
            let name = format!("{workload}-{}.svg", files.len());
            let _ = write!(text, "\n![{workload}]({name})\n");
            files.push((name, plot(workload, &rows)));
        }
    }
    files.insert(0, ("README.md".into(), text));
    files
}

/// The cases of some rows in the order in which they came, with their server.
fn cases(rows: &[Row]) -> Vec<(&str, &str)> {
    let mut cases: Vec<(&str, &str)> = Vec::new();
    for row in rows {
        if !cases.contains(&(&row.case, &row.server)) {
            cases.push((&row.case, &row.server));
        }
    }
    cases
}

fn middle(rows: &[Row], case: (&str, &str), read: impl Fn(&Row) -> Option<f64>) -> Option<f64> {
    let chosen = rows.iter().filter(|row| (row.case.as_str(), row.server.as_str()) == case);
    let values: Vec<f64> = chosen.filter_map(read).collect();
    (!values.is_empty()).then(|| median(values))
}

fn medians(rows: &[Row]) -> String {
    let mut text = String::from(
        "| case | server | rounds | per second | p50 | p99 | CPU per operation | resident MiB | peak MiB | more |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for case in cases(rows) {
        let rounds = rows.iter().filter(|row| (row.case.as_str(), row.server.as_str()) == case).count();
        let figure = |read: fn(&Row) -> Option<f64>, show: fn(f64) -> String| {
            middle(rows, case, read).map_or_else(String::new, show)
        };
        let mut facts: Vec<&String> = rows
            .iter()
            .filter(|row| (row.case.as_str(), row.server.as_str()) == case)
            .flat_map(|row| row.facts.keys())
            .collect();
        facts.sort();
        facts.dedup();
        let facts: Vec<String> = facts
            .into_iter()
            .filter_map(|name| {
                Some(format!("{name} {}", number(middle(rows, case, |row| row.facts.get(name).copied())?)))
            })
            .collect();
        let _ = writeln!(
            text,
            "| {} | {} | {rounds} | {} | {} | {} | {} | {} | {} | {} |",
            case.0,
            case.1,
            figure(|row| Some(row.per_second), number),
            figure(|row| row.latency.map(|latency| latency.p50 as f64), micros),
            figure(|row| row.latency.map(|latency| latency.p99 as f64), micros),
            figure(|row| row.cpu_micros, micros),
            figure(|row| row.resident_mib, number),
            figure(|row| row.peak_mib, number),
            facts.join(", ")
        );
    }
    text
}

fn ratio_table(ratios: &[Ratio]) -> String {
    let mut text =
        String::from("| case | figure | A | B | B/A | least | greatest |\n|---|---|---|---|---|---|---|\n");
    for ratio in ratios {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | **{:.2}** | {:.2} | {:.2} |",
            ratio.case,
            ratio.figure,
            number(ratio.a),
            number(ratio.b),
            ratio.ratio,
            ratio.low,
            ratio.high
        );
    }
    text
}

const WIDTH: f64 = 960.0;
const LABEL: f64 = 420.0;
const BAR: f64 = 18.0;
const COLORS: [&str; 4] = ["#3b6ea5", "#d08c3f", "#5a9367", "#8c5a93"];

/// Bars of operations a second, on a logarithmic scale, so that what differs tenfold can be read side by side.
fn plot(title: &str, rows: &[Row]) -> String {
    let mut servers: Vec<&str> = Vec::new();
    for row in rows {
        if !servers.contains(&row.server.as_str()) {
            servers.push(&row.server);
        }
    }
    let bars: Vec<(String, &str, f64)> = cases(rows)
        .into_iter()
        .filter_map(|case| {
            let rate = middle(rows, case, |row| Some(row.per_second))?;
            (rate > 0.0).then(|| (format!("{} ({})", case.0, case.1), case.1, rate))
        })
        .collect();
    let least = bars.iter().map(|bar| bar.2).fold(f64::INFINITY, f64::min);
    let most = bars.iter().map(|bar| bar.2).fold(0.0, f64::max);
    let (low, high) = ((least.log10().floor()).min(0.0), most.max(1.0).log10().ceil().max(1.0));
    let height = BAR * 1.4 * bars.len() as f64 + 60.0;
    let x = |value: f64| LABEL + (value.log10() - low) / (high - low).max(1.0) * (WIDTH - LABEL - 90.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"10\" y=\"20\" font-size=\"14\">{}: operations a second (logarithmic)</text>\n",
        escape(title)
    );
    let mut power = low;
    while power <= high {
        let at = x(10f64.powf(power));
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" y1=\"30\" x2=\"{at:.1}\" y2=\"{:.0}\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"{:.0}\" text-anchor=\"middle\" fill=\"#666\">{}</text>",
            height - 25.0,
            height - 10.0,
            10f64.powf(power)
        );
        power += 1.0;
    }
    for (index, (label, server, rate)) in bars.iter().enumerate() {
        let y = 36.0 + index as f64 * BAR * 1.4;
        let color = COLORS[servers.iter().position(|known| known == server).unwrap_or(0) % COLORS.len()];
        let (from, to) = (x(10f64.powf(low)), x(*rate));
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{color}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LABEL - 8.0,
            y + 13.0,
            escape(label),
            (to - from).max(1.0),
            to + 5.0,
            y + 13.0,
            number(*rate)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_medians_ratios_and_a_plot() {
        let mut document = Document::default();
        for (round, server, rate) in [(1, "a", 10.0), (1, "b", 80.0), (2, "a", 20.0), (2, "b", 120.0)] {
            document.rows.push(Row {
                workload: "verbs".into(),
                case: "get <pod>".into(),
                server: server.into(),
                round,
                per_second: rate,
                ..Row::default()
            });
        }
        let text = serde_json::to_string(&document).unwrap();
        let document: Document = serde_json::from_str(&text).unwrap();
        let files = page("Figures", &[document]);
        assert_eq!(files.len(), 2);
        assert!(files[0].1.contains("| get <pod> | a | 2 | 15.0 |"), "{}", files[0].1);
        assert!(
            files[0].1.contains("| per second | 15.0 | 100 | **6.67** | 6.00 | 8.00 |"),
            "{}",
            files[0].1
        );
        assert_eq!(files[1].0, "verbs-0.svg");
        assert_eq!(files[1].1.matches("<rect").count(), 3, "{}", files[1].1);
        assert!(files[1].1.contains("get &lt;pod&gt; (a)"));
    }
}
