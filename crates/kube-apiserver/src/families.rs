//! Families of metrics: counters, gauges and histograms told apart by labels, in Prometheus' text form.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Most label combinations of one family; what is new beyond them is not counted.
const SERIES_MAX: usize = 10_000;

/// Joins names and values as they stand between the braces.
pub fn labels(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push(',');
        }
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{name}=\"{value}\"");
    }
    out
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn braces(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

/// Numbers that only grow, by labels.
#[derive(Default)]
pub struct Counters(Mutex<BTreeMap<String, f64>>);

impl Counters {
    pub fn add(&self, labels: String, amount: f64) {
        let mut series = self.0.lock();
        if series.len() < SERIES_MAX || series.contains_key(&labels) {
            *series.entry(labels).or_default() += amount;
        }
    }
    pub fn one(&self, pairs: &[(&str, &str)]) {
        self.add(labels(pairs), 1.0);
    }
    pub fn render(&self, out: &mut String, name: &str, help: &str) {
        let series = self.0.lock();
        if series.is_empty() {
            return;
        }
        head(out, name, "counter", help);
        for (labels, value) in series.iter() {
            let _ = writeln!(out, "{name}{} {value}", braces(labels));
        }
    }
}

/// Writes a gauge family out of what is known now.
pub fn gauges(out: &mut String, name: &str, help: &str, series: &[(String, f64)]) {
    if series.is_empty() {
        return;
    }
    head(out, name, "gauge", help);
    for (labels, value) in series {
        let _ = writeln!(out, "{name}{} {value}", braces(labels));
    }
}

#[derive(Clone)]
struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: f64,
}

/// Distributions, by labels.
pub struct Histograms {
    bounds: &'static [f64],
    series: Mutex<BTreeMap<String, Histogram>>,
}

impl Histograms {
    pub fn new(bounds: &'static [f64]) -> Self {
        Histograms { bounds, series: Mutex::default() }
    }
    pub fn observe(&self, pairs: &[(&str, &str)], value: f64) {
        let labels = labels(pairs);
        let mut series = self.series.lock();
        if series.len() >= SERIES_MAX && !series.contains_key(&labels) {
            return;
        }
        let fresh = || Histogram { buckets: vec![0; self.bounds.len()], count: 0, sum: 0.0 };
        let histogram = series.entry(labels).or_insert_with(fresh);
        if let Some(at) = self.bounds.iter().position(|bound| value <= *bound) {
            histogram.buckets[at] += 1;
        }
        histogram.count += 1;
        histogram.sum += value;
    }
    pub fn render(&self, out: &mut String, name: &str, help: &str) {
        let series = self.series.lock();
        if series.is_empty() {
            return;
        }
        head(out, name, "histogram", help);
        for (labels, histogram) in series.iter() {
            let joint = if labels.is_empty() { "" } else { "," };
            let mut total = 0;
            for (bound, count) in self.bounds.iter().zip(&histogram.buckets) {
                total += count;
                let _ = writeln!(out, "{name}_bucket{{{labels}{joint}le=\"{bound}\"}} {total}");
            }
            let _ = writeln!(out, "{name}_bucket{{{labels}{joint}le=\"+Inf\"}} {}", histogram.count);
            let _ = writeln!(out, "{name}_sum{} {}", braces(labels), histogram.sum);
            let _ = writeln!(out, "{name}_count{} {}", braces(labels), histogram.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn families_print_as_prometheus_reads_them() {
        let (counters, histograms) = (Counters::default(), Histograms::new(&[0.5, 1.0]));
        counters.one(&[("name", "a\"b"), ("code", "200")]);
        histograms.observe(&[("name", "x")], 0.7);
        histograms.observe(&[("name", "x")], 7.0);
        let mut out = String::new();
        counters.render(&mut out, "c_total", "Counts.");
        histograms.render(&mut out, "h_seconds", "Measures.");
        expect![[r#"
            # HELP c_total Counts.
            # TYPE c_total counter
            c_total{name="a\"b",code="200"} 1
            # HELP h_seconds Measures.
            # TYPE h_seconds histogram
            h_seconds_bucket{name="x",le="0.5"} 0
            h_seconds_bucket{name="x",le="1"} 1
            h_seconds_bucket{name="x",le="+Inf"} 2
            h_seconds_sum{name="x"} 7.7
            h_seconds_count{name="x"} 2
        "#]]
        .assert_eq(&out);
    }
}
