//! Horizontal pod autoscalers: a fixture and answers in, a plan out.

use super::{plan_after, view_of};
use crate::horizontalpodautoscaler::{HorizontalPodAutoscalers, Startup};
use crate::{Context, Controller, Failure, Report};
use expect_test::{Expect, expect};
use meta::{ObjectKey, Time};
use serde_json::{Value, json};

fn controller() -> HorizontalPodAutoscalers {
    HorizontalPodAutoscalers {
        period_seconds: 15,
        downscale_seconds: 300,
        tolerance: 0.1,
        startup: Startup { cpu_seconds: 300, readiness_seconds: 30 },
    }
}

fn hpa(spec: &str) -> String {
    format!(
        "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: web, namespace: shop}}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}
  minReplicas: 1
  maxReplicas: 10
  {spec}
"
    )
}

const CPU: &str =
    "metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]";

fn pod(name: &str, ready: &str, start: &str) -> String {
    format!(
        "
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{app: web}}}}
spec: {{containers: [{{name: a, resources: {{requests: {{cpu: 100m}}}}}}]}}
status: {{phase: Running, startTime: '{start}', conditions: [{{type: Ready, status: '{ready}', lastTransitionTime: '{start}'}}]}}
"
    )
}

const LONG_AGO: &str = "2025-12-31T00:00:00Z";

fn pods(count: usize) -> String {
    (0..count).map(|number| pod(&format!("p{number}"), "True", LONG_AGO)).collect()
}

fn scale(replicas: usize) -> Value {
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": "web", "namespace": "shop", "uid": "uid-d", "resourceVersion": "7"},
        "spec": {"replicas": replicas}, "status": {"replicas": replicas, "selector": "app=web"}})
}

fn cpu(usages: &[&str]) -> Value {
    let item = |(number, usage): (usize, &&str)| {
        json!({"metadata": {"name": format!("p{number}")}, "timestamp": "2026-01-01T00:09:50Z", "window": "30s",
            "containers": [{"name": "a", "usage": {"cpu": usage, "memory": "64Mi"}}]})
    };
    json!({"items": usages.iter().enumerate().map(item).collect::<Vec<_>>()})
}

fn mark(series: &str) -> String {
    format!(r#"{{"asked":1767226190,"selector":"app=web"{series}}}"#)
}

/// Without the status, of which each test tells what it is about.
fn check(fixture: &str, mark: &str, answers: Vec<Value>, expected: Expect) {
    let report = Report::Answers(answers.into_iter().map(Ok).collect());
    let marked = (!mark.is_empty()).then_some((mark, "2026-01-01T00:09:50Z"));
    let text = plan_after(&controller(), fixture, "shop/web", Some(&report), marked);
    let told = |line: &str| match line.split_once("/status web: ") {
        Some((_, status)) => {
            let status: Value = serde_json::from_str(status).expect("it is JSON");
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let conditions: Vec<String> = conditions
                .iter()
                .map(|c| format!("{}={}({})", c["type"], c["status"], c["reason"]))
                .collect();
            format!(
                "status {} -> {}, {}",
                status["currentReplicas"],
                status["desiredReplicas"],
                conditions.join(" ")
            )
            .replace('"', "")
        }
        None => line.to_string(),
    };
    expected.assert_eq(&text.lines().map(told).collect::<Vec<_>>().join("\n"));
}

#[test]
fn the_scale_comes_first_then_the_metrics() {
    let fixture = hpa(CPU);
    let text = plan_after(&controller(), &fixture, "shop/web", None, None);
    expect![[r#"
        query /apis/apps/v1/namespaces/shop/deployments/web/scale
        again in 15000 ms
    "#]]
    .assert_eq(&text);
    check(
        &fixture,
        &mark("").replace("app=web", ""),
        vec![scale(2)],
        expect![[r#"
        query /apis/apps/v1/namespaces/shop/deployments/web/scale /apis/metrics.k8s.io/v1beta1/namespaces/shop/pods?labelSelector=app%3Dweb
        again in 15000 ms"#]],
    );
    let text =
        plan_after(&controller(), &fixture, "shop/web", None, Some((&mark(""), "2026-01-01T00:09:50Z")));
    expect![[r#"
        again in 5000 ms
    "#]]
    .assert_eq(&text);
}

#[test]
fn use_above_the_target_scales_up_and_a_little_off_does_not() {
    check(
        &format!("{}{}", hpa(CPU), pods(2)),
        &mark(""),
        vec![scale(2), cpu(&["90m", "90m"])],
        expect![[r#"
            scale Deployment shop/web to 4
              then Normal SuccessfulRescale on HorizontalPodAutoscaler web: New size: 4; reason: cpu resource utilization (percentage of request) above target
              else Warning FailedRescale on HorizontalPodAutoscaler web: New size: 4; reason: cpu resource utilization (percentage of request) above target; error: {error}
            status 2 -> 4, AbleToScale=True(SucceededRescale) ScalingActive=True(ValidMetricFound) ScalingLimited=False(DesiredWithinRange)
            again in 15000 ms"#]],
    );
    check(
        &format!("{}{}", hpa(CPU), pods(2)),
        &mark(""),
        vec![scale(2), cpu(&["52m", "54m"])],
        expect![[r#"
            status 2 -> 2, AbleToScale=True(ReadyForNewScale) ScalingActive=True(ValidMetricFound) ScalingLimited=False(DesiredWithinRange)
            again in 15000 ms"#]],
    );
}

#[test]
fn recent_recommendations_hold_against_a_scale_down() {
    let fixture = format!("{}{}", hpa(CPU), pods(4));
    let idle = || vec![scale(4), cpu(&["5m", "5m", "5m", "5m"])];
    check(
        &fixture,
        &mark(r#","recommendations":[[1767226000,4]]"#),
        idle(),
        expect![[r#"
        status 4 -> 4, AbleToScale=True(ScaleDownStabilized) ScalingActive=True(ValidMetricFound) ScalingLimited=False(DesiredWithinRange)
        again in 15000 ms"#]],
    );
    check(
        &fixture,
        &mark(r#","recommendations":[[1767225000,4]]"#),
        idle(),
        expect![[r#"
        scale Deployment shop/web to 1
          then Normal SuccessfulRescale on HorizontalPodAutoscaler web: New size: 1; reason: All metrics below target
          else Warning FailedRescale on HorizontalPodAutoscaler web: New size: 1; reason: All metrics below target; error: {error}
        status 4 -> 1, AbleToScale=True(SucceededRescale) ScalingActive=True(ValidMetricFound) ScalingLimited=False(DesiredWithinRange)
        again in 15000 ms"#]],
    );
}

#[test]
fn unmeasured_and_unready_pods_dampen() {
    // Two of four are measured: the others count as nothing on the way up.
    let fixture = format!("{}{}", hpa(CPU), pods(4));
    check(
        &fixture,
        &mark(""),
        vec![scale(4), cpu(&["90m", "90m"])],
        expect![[r#"
        status 4 -> 4, AbleToScale=True(ReadyForNewScale) ScalingActive=True(ValidMetricFound) ScalingLimited=False(DesiredWithinRange)
        again in 15000 ms"#]],
    );
    let starting = pod("p1", "False", "2026-01-01T00:09:00Z");
    let fixture = format!("{}{}{starting}", hpa(CPU), pods(1));
    check(
        &fixture,
        &mark(""),
        vec![scale(2), cpu(&["150m", "1"])],
        expect![[r#"
        scale Deployment shop/web to 3
          then Normal SuccessfulRescale on HorizontalPodAutoscaler web: New size: 3; reason: cpu resource utilization (percentage of request) above target
          else Warning FailedRescale on HorizontalPodAutoscaler web: New size: 3; reason: cpu resource utilization (percentage of request) above target; error: {error}
        status 2 -> 3, AbleToScale=True(SucceededRescale) ScalingActive=True(ValidMetricFound) ScalingLimited=False(DesiredWithinRange)
        again in 15000 ms"#]],
    );
}

#[test]
fn behaviors_limit_the_rate() {
    let spec = format!(
        "{CPU}\n  behavior: {{scaleUp: {{stabilizationWindowSeconds: 0, selectPolicy: Max, policies: [{{type: Pods, value: 1, periodSeconds: 60}}]}}, scaleDown: {{selectPolicy: Disabled, policies: [{{type: Percent, value: 100, periodSeconds: 15}}]}}}}"
    );
    let fixture = format!("{}{}", hpa(&spec), pods(2));
    let busy = || vec![scale(2), cpu(&["200m", "200m"])];
    check(
        &fixture,
        &mark(""),
        busy(),
        expect![[r#"
        scale Deployment shop/web to 3
          then Normal SuccessfulRescale on HorizontalPodAutoscaler web: New size: 3; reason: cpu resource utilization (percentage of request) above target
          else Warning FailedRescale on HorizontalPodAutoscaler web: New size: 3; reason: cpu resource utilization (percentage of request) above target; error: {error}
        status 2 -> 3, AbleToScale=True(SucceededRescale) ScalingActive=True(ValidMetricFound) ScalingLimited=True(ScaleUpLimit)
        again in 15000 ms"#]],
    );
    check(
        &fixture,
        &mark(r#","ups":[[1767226170,1]]"#),
        busy(),
        expect![[r#"
        status 2 -> 2, AbleToScale=True(ReadyForNewScale) ScalingActive=True(ValidMetricFound) ScalingLimited=True(ScaleUpLimit)
        again in 15000 ms"#]],
    );
    check(
        &fixture,
        &mark(""),
        vec![scale(2), cpu(&["1m", "1m"])],
        expect![[r#"
        status 2 -> 2, AbleToScale=True(ScaleDownStabilized) ScalingActive=True(ValidMetricFound) ScalingLimited=False(DesiredWithinRange)
        again in 15000 ms"#]],
    );
}

#[test]
fn metrics_of_pods_objects_and_the_outside() {
    let spec = "metrics: [{type: Pods, pods: {metric: {name: rps}, target: {type: AverageValue, averageValue: 10}}}, {type: Object, object: {describedObject: {apiVersion: networking.k8s.io/v1, kind: Ingress, name: main}, metric: {name: hits}, target: {type: Value, value: 100}}}, {type: External, external: {metric: {name: queue, selector: {matchLabels: {q: jobs}}}, target: {type: AverageValue, averageValue: 5}}}]";
    let fixture = format!("{}{}", hpa(spec), pods(2));
    let marked = mark("").replace("1767226190", "1767226000");
    let text = plan_after(&controller(), &fixture, "shop/web", None, Some((&marked, "2026-01-01T00:09:50Z")));
    expect![[r#"
        query /apis/apps/v1/namespaces/shop/deployments/web/scale /apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/*/rps?labelSelector=app%3Dweb /apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/ingresses.networking.k8s.io/main/hits /apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue?labelSelector=q%3Djobs
        again in 15000 ms
    "#]].assert_eq(&text);
    let of = |name: &str, value: &str| json!({"describedObject": {"name": name}, "value": value});
    let answers = vec![
        scale(2),
        json!({"items": [of("p0", "12"), of("p1", "20")]}),
        json!({"items": [of("main", "110")]}),
        json!({"items": [{"value": "20"}, {"value": "5"}]}),
    ];
    check(
        &fixture,
        &mark(""),
        answers,
        expect![[r#"
        scale Deployment shop/web to 4
          then Normal SuccessfulRescale on HorizontalPodAutoscaler web: New size: 4; reason: external metric queue(q=jobs) above target
          else Warning FailedRescale on HorizontalPodAutoscaler web: New size: 4; reason: external metric queue(q=jobs) above target; error: {error}
        status 2 -> 4, AbleToScale=True(SucceededRescale) ScalingActive=True(ValidMetricFound) ScalingLimited=True(ScaleUpLimit)
        again in 15000 ms"#]],
    );
}

#[test]
fn what_cannot_be_read_is_told_and_never_scales_down() {
    let fixture = format!("{}{}", hpa(CPU), pods(2));
    let failure = || Failure {
        verb: "get",
        code: 404,
        reason: "NotFound".into(),
        message: "the server could not find the requested resource".into(),
    };
    let view = view_of(&fixture);
    let (key, marked) = (ObjectKey::parse("shop/web"), mark(""));
    let since = Time::parse("2026-01-01T00:09:50Z").expect("it is a time");
    let tell = |answers| {
        let report = Report::Answers(answers);
        let context = Context {
            view: &view,
            key: &key,
            now: super::now(),
            report: Some(&report),
            marked: Some((&marked, since)),
        };
        controller().reconcile(&context).to_string()
    };
    expect![[r#"
        update HorizontalPodAutoscaler/status web: {"conditions":[{"lastTransitionTime":"2026-01-01T00:10:00Z","message":"the HPA controller was able to get the target's current scale","reason":"SucceededGetScale","status":"True","type":"AbleToScale"},{"lastTransitionTime":"2026-01-01T00:10:00Z","message":"the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource","reason":"FailedGetResourceMetric","status":"False","type":"ScalingActive"}],"currentMetrics":[{"type":""}],"currentReplicas":2,"desiredReplicas":0}
        event Warning FailedGetResourceMetric on HorizontalPodAutoscaler web: failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource
        event Warning FailedComputeMetricsReplicas on HorizontalPodAutoscaler web: invalid metrics (1 invalid out of 1), first error is: failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource
        again in 15000 ms
    "#]].assert_eq(&tell(vec![Ok(scale(2)), Err(failure())]));
    expect![[r#"
        update HorizontalPodAutoscaler/status web: {"conditions":[{"lastTransitionTime":"2026-01-01T00:10:00Z","message":"the HPA controller was unable to get the target's current scale: the server could not find the requested resource","reason":"FailedGetScale","status":"False","type":"AbleToScale"}],"currentMetrics":null,"desiredReplicas":0}
        event Warning FailedGetScale on HorizontalPodAutoscaler web: the server could not find the requested resource
        again in 15000 ms
    "#]].assert_eq(&tell(vec![Err(failure())]));
    check(
        &fixture,
        &mark(""),
        vec![scale(0), cpu(&[])],
        expect![[r#"
        status null -> 0, AbleToScale=True(SucceededGetScale) ScalingActive=False(ScalingDisabled)
        again in 15000 ms"#]],
    );
    check(
        &fixture,
        &mark(""),
        vec![scale(12), cpu(&[])],
        expect![[r#"
        scale Deployment shop/web to 10
          then Normal SuccessfulRescale on HorizontalPodAutoscaler web: New size: 10; reason: Current number of replicas above Spec.MaxReplicas
          else Warning FailedRescale on HorizontalPodAutoscaler web: New size: 10; reason: Current number of replicas above Spec.MaxReplicas; error: {error}
        status 12 -> 10, AbleToScale=True(SucceededRescale)
        again in 15000 ms"#]],
    );
}
