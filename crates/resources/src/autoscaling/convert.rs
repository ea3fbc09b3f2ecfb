//! The first version of autoscalers, which knows one metric: all that it has no field for goes into annotations, as JSON of its time.

use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// How each source's fields are called in the first version: its place in the second (`a.b`), then its own name.
const SOURCES: &[(&str, &[(&str, &str)])] = &[
    (
        "object",
        &[
            ("describedObject", "target"),
            ("metric.name", "metricName"),
            ("metric.selector", "selector"),
            ("target.value", "targetValue"),
            ("target.averageValue", "averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("metric.name", "metricName"),
            ("metric.selector", "selector"),
            ("target.averageValue", "targetAverageValue"),
        ],
    ),
    (
        "resource",
        &[
            ("name", "name"),
            ("target.averageUtilization", "targetAverageUtilization"),
            ("target.averageValue", "targetAverageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", "name"),
            ("container", "container"),
            ("target.averageUtilization", "targetAverageUtilization"),
            ("target.averageValue", "targetAverageValue"),
        ],
    ),
    (
        "external",
        &[
            ("metric.name", "metricName"),
            ("metric.selector", "metricSelector"),
            ("target.value", "targetValue"),
            ("target.averageValue", "targetAverageValue"),
        ],
    ),
];

/// A status says `current` where a spec says `target`.
fn current(name: &str, is_status: bool) -> String {
    if !is_status {
        return name.into();
    }
    name.replace("target.", "current.")
        .replace("targetAverage", "currentAverage")
        .replace("targetValue", "currentValue")
}

fn get<'a>(value: &'a Value, place: &str) -> Option<&'a Value> {
    place.split('.').try_fold(value, |value, key| value.get(key)).filter(|value| !value.is_null())
}

fn put(value: &mut Value, place: &str, given: Value) {
    let mut at = value;
    for key in place.split('.') {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[key];
    }
    *at = given;
}

/// One metric from the second version's form to the first's, or back.
fn metric(from: &Value, is_status: bool, to_first: bool) -> Value {
    let mut out = json!({ "type": from.get("type").cloned().unwrap_or_default() });
    for (source, fields) in SOURCES {
        let Some(given) = from.get(source).filter(|given| !given.is_null()) else { continue };
        let mut made = json!({});
        for (second, first) in *fields {
            let (second, first) = (current(second, is_status), current(first, is_status));
            let (place, name) = if to_first { (&second, &first) } else { (&first, &second) };
            if let Some(value) = get(given, place) {
                put(&mut made, name, value.clone());
            }
        }
        if !to_first && !is_status {
            let target = &mut made["target"];
            let kind = if target.get("averageUtilization").is_some() {
                "Utilization"
            } else if target.get("averageValue").is_some() {
                "AverageValue"
            } else {
                "Value"
            };
            put(target, "type", kind.into());
        }
        out[source] = made;
    }
    out
}

fn is_cpu_utilization(metric: &Value) -> bool {
    get(metric, "resource.name").is_some_and(|name| name == "cpu")
        && get(metric, "resource.target.averageUtilization").is_some()
}

fn list(value: Option<&Value>) -> Vec<Value> {
    value.and_then(Value::as_array).cloned().unwrap_or_default()
}

/// `autoscaling/v2` as `autoscaling/v1` shows it.
pub(crate) fn from_hub(value: &mut Value) {
    let metrics = list(get(value, "spec.metrics"));
    let current_metrics = list(get(value, "status.currentMetrics"));
    let cpu = metrics.iter().find(|metric| is_cpu_utilization(metric));
    let cpu = cpu.and_then(|metric| get(metric, "resource.target.averageUtilization")).cloned();
    let used = current_metrics
        .iter()
        .filter(|metric| get(metric, "resource.name").is_some_and(|name| name == "cpu"))
        .find_map(|metric| get(metric, "resource.current.averageUtilization"))
        .cloned();
    let others: Vec<Value> = metrics
        .iter()
        .filter(|metric| !is_cpu_utilization(metric))
        .map(|it| metric(it, false, true))
        .collect();
    let statuses: Vec<Value> = current_metrics.iter().map(|it| metric(it, true, true)).collect();
    let conditions = list(get(value, "status.conditions"));
    let behavior = get(value, "spec.behavior").cloned();
    let mut notes: Vec<(&str, Value)> = Vec::new();
    for (key, list) in [(METRICS, others), (CURRENT, statuses), (CONDITIONS, conditions)] {
        if !list.is_empty() {
            notes.push((key, Value::Array(list)));
        }
    }
    notes.extend(behavior.map(|behavior| (BEHAVIOR, behavior)));
    if let Some(cpu) = cpu {
        put(value, "spec.targetCPUUtilizationPercentage", cpu);
    }
    if let Some(used) = used {
        put(value, "status.currentCPUUtilizationPercentage", used);
    }
    drop_notes(value);
    for (key, note) in notes {
        value["metadata"]["annotations"][key] = note.to_string().into();
    }
}

fn drop_notes(value: &mut Value) -> Vec<(&'static str, Value)> {
    let Some(annotations) = value.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return Vec::new();
    };
    [METRICS, CURRENT, BEHAVIOR, CONDITIONS]
        .into_iter()
        .filter_map(|key| {
            let text = annotations.remove(key)?;
            // Users may write anything into annotations; what is no JSON is dropped with them.
            serde_json::from_str(text.as_str()?).ok().map(|note| (key, note))
        })
        .collect()
}

/// `autoscaling/v1` in the hub's form.
pub(crate) fn to_hub(value: &mut Value) {
    let notes = drop_notes(value);
    let mut metrics = Vec::new();
    for (key, note) in notes {
        let forward = |is_status: bool| -> Vec<Value> {
            list(Some(&note)).iter().map(|it| metric(it, is_status, false)).collect()
        };
        match key {
            METRICS => metrics = forward(false),
            CURRENT => put(value, "status.currentMetrics", Value::Array(forward(true))),
            BEHAVIOR => put(value, "spec.behavior", note),
            _ => put(value, "status.conditions", note),
        }
    }
    if let Some(cpu) = get(value, "spec.targetCPUUtilizationPercentage").cloned() {
        metrics.push(json!({
            "type": "Resource",
            "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": cpu } }
        }));
    }
    if !metrics.is_empty() {
        put(value, "spec.metrics", Value::Array(metrics));
    }
    let used = get(value, "status.currentCPUUtilizationPercentage").cloned();
    if let Some(used) = used.filter(|_| get(value, "status.currentMetrics").is_none()) {
        let current = json!({ "averageUtilization": used });
        let metric = json!({ "type": "Resource", "resource": { "name": "cpu", "current": current } });
        put(value, "status.currentMetrics", json!([metric]));
    }
}
