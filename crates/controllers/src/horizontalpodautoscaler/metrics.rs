//! Where metrics are read, and what the answers say.

use crate::plan::Failure;
use api::autoscaling::v2::{CrossVersionObjectReference, MetricIdentifier, MetricSpec};
use api::meta::v1::LabelSelector;
use meta::{Quantity, Time};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What one pod uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PodMetric {
    /// In thousandths.
    pub value: i64,
    /// When, and over how many seconds it was measured.
    pub at: Option<Time>,
    pub window_seconds: i64,
}

pub(super) type PodMetrics = BTreeMap<String, PodMetric>;
pub(super) type Answer = Result<Value, Failure>;

/// Custom metrics that do not say their window have this one, in seconds.
const WINDOW_SECONDS: i64 = 60;

/// Escapes all that has a meaning in a path or a query.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

fn query(parts: &[(&str, String)]) -> String {
    let parts: Vec<String> = parts
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={}", escape(value)))
        .collect();
    if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
}

fn selector(from: Option<&LabelSelector>) -> Result<String, String> {
    from.map_or(Ok(String::new()), |from| Ok(api::selector(from)?.to_string()))
}

/// The plural by which the metrics API names the kind of an object, with its group.
pub(super) type Plural<'a> = &'a dyn Fn(&CrossVersionObjectReference) -> Option<String>;

/// Where a metric is read. `pods` selects the target's pods, as text.
///
/// # Errors
/// A metric that names nothing that can be read.
pub(super) fn path(
    spec: &MetricSpec,
    namespace: &str,
    pods: &str,
    plural: Plural<'_>,
) -> Result<String, String> {
    let custom = "/apis/custom.metrics.k8s.io/v1beta2";
    let named = |metric: &MetricIdentifier| -> Result<(String, String), String> {
        Ok((escape(&metric.name), selector(metric.selector.as_deref())?))
    };
    if spec.resource.is_some() || spec.container_resource.is_some() {
        let query = query(&[("labelSelector", pods.into())]);
        return Ok(format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods{query}"));
    }
    if let Some(source) = &spec.pods {
        let (name, metric) = named(&source.metric)?;
        let query = query(&[("labelSelector", pods.into()), ("metricLabelSelector", metric)]);
        return Ok(format!("{custom}/namespaces/{namespace}/pods/*/{name}{query}"));
    }
    if let Some(source) = &spec.object {
        let (name, metric) = named(&source.metric)?;
        let query = query(&[("metricLabelSelector", metric)]);
        let object = &source.described_object;
        if object.kind == "Namespace" && object.api_version.trim_start_matches("v1").is_empty() {
            return Ok(format!("{custom}/namespaces/{namespace}/metrics/{name}{query}"));
        }
        let plural = plural(object).ok_or_else(|| format!("no matches for kind {:?}", object.kind))?;
        return Ok(format!(
            "{custom}/namespaces/{namespace}/{plural}/{}/{name}{query}",
            escape(&object.name)
        ));
    }
    if let Some(source) = &spec.external {
        let (name, metric) = named(&source.metric)?;
        let query = query(&[("labelSelector", metric)]);
        return Ok(format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{name}{query}"));
    }
    Err(format!("unknown metric source type {:?}", spec.r#type))
}

fn milli(value: &Value) -> Option<i64> {
    Some(Quantity::parse(value.as_str()?).ok()?.milli_value())
}

fn time(value: &Value) -> Option<Time> {
    Time::parse(value.as_str()?)
}

fn items<'a>(answer: &'a Answer, api: &str) -> Result<&'a Vec<Value>, String> {
    let value = answer
        .as_ref()
        .map_err(|why| format!("unable to fetch metrics from {api} metrics API: {}", why.message))?;
    let items = value["items"].as_array().filter(|items| !items.is_empty());
    items.ok_or_else(|| format!("no metrics returned from {api} metrics API"))
}

/// What each pod, or one container of each, uses of a resource.
pub(super) fn of_resource(answer: &Answer, resource: &str, container: &str) -> Result<PodMetrics, String> {
    let mut out = PodMetrics::new();
    for item in items(answer, "resource")? {
        let containers = item["containers"].as_array().cloned().unwrap_or_default();
        let wanted = containers.iter().filter(|known| container.is_empty() || known["name"] == container);
        let usages: Option<Vec<i64>> = wanted.map(|known| milli(&known["usage"][resource])).collect();
        // A pod of which one container is not measured is not measured.
        let (Some(usages), Some(name)) =
            (usages.filter(|usages| !usages.is_empty()), item["metadata"]["name"].as_str())
        else {
            continue;
        };
        let window = item["window"].as_str().and_then(meta::Duration::parse);
        out.insert(
            name.into(),
            PodMetric {
                value: usages.iter().sum(),
                at: time(&item["timestamp"]),
                window_seconds: window.map_or(0, |window| window.nanos / 1_000_000_000),
            },
        );
    }
    Ok(out)
}

/// A custom metric of each pod.
pub(super) fn of_pods(answer: &Answer) -> Result<PodMetrics, String> {
    let metric = |item: &Value| {
        let name = item["describedObject"]["name"].as_str()?.to_string();
        let window_seconds = item["windowSeconds"].as_i64().unwrap_or(WINDOW_SECONDS);
        Some((
            name,
            PodMetric { value: milli(&item["value"])?, at: time(&item["timestamp"]), window_seconds },
        ))
    };
    Ok(items(answer, "custom")?.iter().filter_map(metric).collect())
}

/// A custom metric of one object, in thousandths.
pub(super) fn of_object(answer: &Answer) -> Result<i64, String> {
    let items = items(answer, "custom")?;
    milli(&items[0]["value"]).ok_or_else(|| "the custom metrics API answered without a value".into())
}

/// The sum of an external metric, in thousandths.
pub(super) fn of_external(answer: &Answer) -> Result<i64, String> {
    Ok(items(answer, "external")?
        .iter()
        .filter_map(|item| milli(&item["value"]))
        .fold(0, i64::saturating_add))
}
