//! Horizontal pod autoscalers: replicas that follow metrics, between two bounds and at a bounded pace.

use crate::columns::{self, AGE, Cell, Column, NAME, or_unset};
use crate::names;
use crate::object_meta::not_negative;
use crate::strategy::Strategy;
use crate::with_status;
use api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler,
    MetricIdentifier, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus, ResourceMetricSource,
};
use meta::field::{Errors, Path};
use meta::{Quantity, Time};

pub struct HorizontalPodAutoscalers;

const CPU_PERCENT: i32 = 80;
const PERIOD_SECONDS: i32 = 15;
const WINDOW_SECONDS_MAX: i32 = 3600;
const PERIOD_SECONDS_MAX: i32 = 1800;
/// How many metrics a row shows.
const SHOWN: usize = 2;

fn policy(kind: &str, value: i32) -> HPAScalingPolicy {
    HPAScalingPolicy { r#type: kind.into(), value, period_seconds: PERIOD_SECONDS }
}

fn default_rules(
    rules: &mut Option<Box<HPAScalingRules>>,
    window: Option<i32>,
    policies: Vec<HPAScalingPolicy>,
) {
    let rules = rules.get_or_insert_default();
    rules.select_policy.get_or_insert_with(|| "Max".into());
    if rules.stabilization_window_seconds.is_none() {
        rules.stabilization_window_seconds = window;
    }
    if rules.policies.is_empty() {
        rules.policies = policies;
    }
}

impl Strategy for HorizontalPodAutoscalers {
    type Object = HorizontalPodAutoscaler;
    const PLURAL: &'static str = "horizontalpodautoscalers";
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::string("Reference"),
        Column::string("Targets"),
        Column::string("MinPods"),
        Column::string("MaxPods"),
        Column::string("Replicas"),
        AGE,
    ];
    with_status!();

    fn default(object: &mut HorizontalPodAutoscaler) {
        let spec = &mut object.spec;
        spec.min_replicas.get_or_insert(1);
        if spec.metrics.is_empty() {
            let target = MetricTarget {
                r#type: "Utilization".into(),
                average_utilization: Some(CPU_PERCENT),
                ..Default::default()
            };
            spec.metrics.push(MetricSpec {
                r#type: "Resource".into(),
                resource: Some(Box::new(ResourceMetricSource { name: "cpu".into(), target })),
                ..Default::default()
            });
        }
        if let Some(behavior) = &mut spec.behavior {
            let up = vec![policy("Pods", 4), policy("Percent", 100)];
            default_rules(&mut behavior.scale_up, Some(0), up);
            // The window down is the controller's own setting.
            default_rules(&mut behavior.scale_down, None, vec![policy("Percent", 100)]);
        }
    }

    fn validate(new: &HorizontalPodAutoscaler, _old: Option<&HorizontalPodAutoscaler>, errors: &mut Errors) {
        let (spec, path) = (&new.spec, Path::new("spec"));
        if let Some(min) = spec.min_replicas.filter(|min| *min < 1) {
            errors.invalid(&path.child("minReplicas"), min, "must be greater than or equal to 1");
        }
        let max = path.child("maxReplicas");
        match spec.max_replicas {
            0 => errors.required(&max, "must be set and greater than 0"),
            count if count < 1 => errors.invalid(&max, count, "must be greater than or equal to 1"),
            _ => {}
        }
        if spec.min_replicas.is_some_and(|min| spec.max_replicas < min) {
            errors.invalid(&max, spec.max_replicas, "must be greater than or equal to `minReplicas`");
        }
        reference(&spec.scale_target_ref, &path.child("scaleTargetRef"), errors);
        for (index, metric) in spec.metrics.iter().enumerate() {
            metric_spec(metric, &path.child("metrics").index(index), errors);
        }
        if let Some(behavior) = &spec.behavior {
            let path = path.child("behavior");
            for (rules, field) in [(&behavior.scale_up, "scaleUp"), (&behavior.scale_down, "scaleDown")] {
                if let Some(rules) = rules {
                    scaling_rules(rules, &path.child(field), errors);
                }
            }
        }
    }

    fn validate_status(new: &HorizontalPodAutoscaler, _old: &HorizontalPodAutoscaler, errors: &mut Errors) {
        let path = Path::new("status");
        let status = &new.status;
        not_negative(i64::from(status.current_replicas), &path.child("currentReplicas"), errors);
        not_negative(i64::from(status.desired_replicas), &path.child("desiredReplicas"), errors);
    }

    fn row(object: &HorizontalPodAutoscaler, now: Time) -> Vec<Cell> {
        let (spec, status) = (&object.spec, &object.status);
        vec![
            columns::name(&object.metadata),
            format!("{}/{}", spec.scale_target_ref.kind, spec.scale_target_ref.name).into(),
            metrics(&spec.metrics, &status.current_metrics).into(),
            or_unset(spec.min_replicas).into(),
            spec.max_replicas.into(),
            status.current_replicas.into(),
            columns::age(&object.metadata, now),
        ]
    }
}

fn reference(target: &CrossVersionObjectReference, path: &Path, errors: &mut Errors) {
    for (value, field) in [(&target.kind, "kind"), (&target.name, "name")] {
        if value.is_empty() {
            errors.required(&path.child(field), "");
        } else {
            errors.invalid_each(&path.child(field), value, names::path_segment(value, false));
        }
    }
    if target.api_version.matches('/').count() > 1 {
        let detail = format!("unexpected GroupVersion string: {}", target.api_version);
        errors.invalid(&path.child("apiVersion"), &target.api_version, detail);
    }
}

fn scaling_rules(rules: &HPAScalingRules, path: &Path, errors: &mut Errors) {
    if let Some(seconds) = rules.stabilization_window_seconds {
        let field = path.child("stabilizationWindowSeconds");
        if seconds < 0 {
            errors.invalid(&field, seconds, "must be greater than or equal to zero");
        }
        if seconds > WINDOW_SECONDS_MAX {
            errors.invalid(&field, seconds, format!("must be less than or equal to {WINDOW_SECONDS_MAX}"));
        }
    }
    let known = ["Disabled", "Max", "Min"];
    if let Some(select) = rules.select_policy.as_ref().filter(|it| !known.contains(&it.as_str())) {
        errors.not_supported(&path.child("selectPolicy"), select, &known);
    }
    let policies = path.child("policies");
    if rules.policies.is_empty() {
        errors.required(&policies, "must specify at least one Policy");
    }
    for (index, policy) in rules.policies.iter().enumerate() {
        let path = policies.index(index);
        if policy.r#type != "Percent" && policy.r#type != "Pods" {
            errors.not_supported(&path.child("type"), &policy.r#type, &["Percent", "Pods"]);
        }
        if policy.value <= 0 {
            errors.invalid(&path.child("value"), policy.value, "must be greater than zero");
        }
        let (field, seconds) = (path.child("periodSeconds"), policy.period_seconds);
        if seconds <= 0 {
            errors.invalid(&field, seconds, "must be greater than zero");
        }
        if seconds > PERIOD_SECONDS_MAX {
            errors.invalid(&field, seconds, format!("must be less than or equal to {PERIOD_SECONDS_MAX}"));
        }
    }
    if let Some(tolerance) = rules.tolerance.filter(|tolerance| tolerance.is_negative()) {
        errors.invalid(&path.child("tolerance"), tolerance, crate::object_meta::NOT_NEGATIVE);
    }
}

fn metric_spec(spec: &MetricSpec, path: &Path, errors: &mut Errors) {
    let known = ["ContainerResource", "External", "Object", "Pods", "Resource"];
    if spec.r#type.is_empty() {
        errors.required(&path.child("type"), "must specify a metric source type");
    } else if !known.contains(&spec.r#type.as_str()) {
        errors.not_supported(&path.child("type"), &spec.r#type, &known);
    }
    let given = [
        ("Object", "object", spec.object.is_some()),
        ("Pods", "pods", spec.pods.is_some()),
        ("Resource", "resource", spec.resource.is_some()),
        ("External", "external", spec.external.is_some()),
        ("ContainerResource", "containerResource", spec.container_resource.is_some()),
    ];
    for (kind, field, given) in given {
        if spec.r#type == kind && !given {
            errors.required(&path.child(field), "must populate information for the given metric source");
        }
        if spec.r#type != kind && given {
            let detail = "must populate the given metric source only";
            errors.forbidden(&path.child(field), detail);
        }
    }
    if let Some(source) = &spec.object {
        let path = path.child("object");
        reference(&source.described_object, &path.child("describedObject"), errors);
        identifier(&source.metric, &path.child("metric"), errors);
        target(&source.target, &path.child("target"), errors);
        one_of(&source.target, &path.child("target"), errors);
    }
    if let Some(source) = &spec.external {
        let path = path.child("external");
        identifier(&source.metric, &path.child("metric"), errors);
        target(&source.target, &path.child("target"), errors);
        one_of(&source.target, &path.child("target"), errors);
    }
    if let Some(source) = &spec.pods {
        let path = path.child("pods");
        identifier(&source.metric, &path.child("metric"), errors);
        target(&source.target, &path.child("target"), errors);
        if source.target.average_value.is_none_or(|value| value.is_negative() || value.is_zero()) {
            let detail = "must specify a positive target averageValue";
            errors.required(&path.child("target").child("averageValue"), detail);
        }
    }
    if let Some(source) = &spec.resource {
        resource(&source.name, &source.target, &path.child("resource"), errors);
    }
    if let Some(source) = &spec.container_resource {
        let path = path.child("containerResource");
        if source.container.is_empty() {
            errors.required(&path.child("container"), "must specify a container");
        }
        resource(&source.name, &source.target, &path, errors);
    }
}

fn resource(name: &str, goal: &MetricTarget, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(&path.child("name"), "must specify a resource name");
    }
    let path = path.child("target");
    target(goal, &path, errors);
    match (goal.average_utilization, goal.average_value) {
        (None, None) => errors.required(
            &path.child("averageUtilization"),
            "must set either a target raw value or a target utilization",
        ),
        (Some(_), Some(_)) => errors.forbidden(
            &path.child("averageValue"),
            "may not set both a target raw value and a target utilization",
        ),
        _ => {}
    }
}

fn one_of(target: &MetricTarget, path: &Path, errors: &mut Errors) {
    match (target.value, target.average_value) {
        (None, None) => errors.required(
            &path.child("averageValue"),
            "must set either a target value for metric or a per-pod target",
        ),
        (Some(_), Some(_)) => errors.forbidden(
            &path.child("value"),
            "may not set both a target value for metric and a per-pod target",
        ),
        _ => {}
    }
}

fn identifier(metric: &MetricIdentifier, path: &Path, errors: &mut Errors) {
    if metric.name.is_empty() {
        errors.required(&path.child("name"), "must specify a metric name");
    } else {
        errors.invalid_each(&path.child("name"), &metric.name, names::path_segment(&metric.name, false));
    }
}

fn target(target: &MetricTarget, path: &Path, errors: &mut Errors) {
    let known = ["AverageValue", "Utilization", "Value"];
    if target.r#type.is_empty() {
        errors.required(&path.child("type"), "must specify a metric target type");
    } else if !known.contains(&target.r#type.as_str()) {
        errors.invalid(
            &path.child("type"),
            &target.r#type,
            "must be either Utilization, Value, or AverageValue",
        );
    }
    let bad = |value: Quantity| value.is_negative() || value.is_zero();
    for (value, field) in [(target.value, "value"), (target.average_value, "averageValue")] {
        if let Some(value) = value.filter(|value| bad(*value)) {
            errors.invalid(&path.child(field), value, "must be positive");
        }
    }
    if let Some(percent) = target.average_utilization.filter(|percent| *percent < 1) {
        errors.invalid(&path.child("averageUtilization"), percent, "must be greater than 0");
    }
}

fn metrics(specs: &[MetricSpec], statuses: &[MetricStatus]) -> String {
    if specs.is_empty() {
        return "<none>".into();
    }
    let shown: Vec<String> = specs
        .iter()
        .enumerate()
        .take(SHOWN)
        .map(|(index, spec)| one_metric(spec, statuses.get(index)))
        .collect();
    let text = shown.join(", ");
    if specs.len() > SHOWN { format!("{text} + {} more...", specs.len() - SHOWN) } else { text }
}

fn one_metric(spec: &MetricSpec, status: Option<&MetricStatus>) -> String {
    let current = |pick: fn(&MetricStatus) -> Option<&MetricValueStatus>| status.and_then(pick);
    if let Some(source) = &spec.external {
        let now = current(|status| status.external.as_ref().map(|it| &it.current));
        return by_value(&source.target, now);
    }
    if let Some(source) = &spec.object {
        let now = current(|status| status.object.as_ref().map(|it| &it.current));
        return by_value(&source.target, now);
    }
    if let Some(source) = &spec.pods {
        let now = current(|status| status.pods.as_ref().map(|it| &it.current));
        let now = amount(now.and_then(|now| now.average_value));
        return format!("{now}/{}", amount(source.target.average_value));
    }
    if let Some(source) = &spec.resource {
        let now = current(|status| status.resource.as_ref().map(|it| &it.current));
        return by_use(&source.name, &source.target, now);
    }
    if let Some(source) = &spec.container_resource {
        let now = current(|status| status.container_resource.as_ref().map(|it| &it.current));
        return by_use(&source.name, &source.target, now);
    }
    "<unknown type>".into()
}

fn amount(value: Option<Quantity>) -> String {
    value.map_or_else(|| "<unknown>".into(), |value| value.to_string())
}

fn by_value(target: &MetricTarget, now: Option<&MetricValueStatus>) -> String {
    match target.average_value {
        Some(goal) => format!("{}/{goal} (avg)", amount(now.and_then(|now| now.average_value))),
        None => format!("{}/{}", amount(now.and_then(|now| now.value)), amount(target.value)),
    }
}

fn by_use(name: &str, target: &MetricTarget, now: Option<&MetricValueStatus>) -> String {
    if let Some(goal) = target.average_value {
        return format!("{name}: {}/{goal}", amount(now.and_then(|now| now.average_value)));
    }
    let percent =
        |value: Option<i32>, none: &str| value.map_or_else(|| none.to_string(), |value| format!("{value}%"));
    let used = percent(now.and_then(|now| now.average_utilization), "<unknown>");
    format!("{name}: {used}/{}", percent(target.average_utilization, "<auto>"))
}
