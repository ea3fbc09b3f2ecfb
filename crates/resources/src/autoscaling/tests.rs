//! Autoscalers in both versions.

use crate::tests_support::*;
use expect_test::expect;

#[test]
fn the_first_version_is_a_view_of_the_second() {
    let text = "{metadata: {name: h, namespace: default}, spec: {maxReplicas: 3, scaleTargetRef: {kind: Deployment, name: web, apiVersion: apps/v1}, \
                behavior: {scaleUp: {}}, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}, \
                {type: External, external: {metric: {name: q}, target: {type: AverageValue, averageValue: 3}}}]}}";
    let stored = object("horizontalpodautoscalers", text);
    let first = crate::find("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
    let shown = first.from_storage(stored.clone_object()).unwrap();
    expect![[r#"
        apiVersion: autoscaling/v1
        kind: HorizontalPodAutoscaler
        metadata:
          annotations:
            autoscaling.alpha.kubernetes.io/behavior: "{\"scaleDown\":{\"policies\":[{\"periodSeconds\":15,\"type\":\"Percent\",\"value\":100}],\"selectPolicy\":\"Max\"},\"scaleUp\":{\"policies\":[{\"periodSeconds\":15,\"type\":\"Pods\",\"value\":4},{\"periodSeconds\":15,\"type\":\"Percent\",\"value\":100}],\"selectPolicy\":\"Max\",\"stabilizationWindowSeconds\":0}}"
            autoscaling.alpha.kubernetes.io/metrics: "[{\"external\":{\"metricName\":\"q\",\"targetAverageValue\":\"3\"},\"type\":\"External\"}]"
          name: h
          namespace: default
        spec:
          maxReplicas: 3
          minReplicas: 1
          scaleTargetRef:
            apiVersion: apps/v1
            kind: Deployment
            name: web
          targetCPUUtilizationPercentage: 50
        status:
          currentReplicas: 0
          desiredReplicas: 0
    "#]].assert_eq(&api::codec::to_yaml(shown.as_dyn()).unwrap());
    let back = first.to_storage(shown).unwrap();
    let metrics = |object: &dyn api::Object| {
        let value = api::codec::to_value(object.as_dyn());
        let mut all: Vec<String> =
            value["spec"]["metrics"].as_array().unwrap().iter().map(ToString::to_string).collect();
        all.sort();
        (all, value["spec"]["behavior"].clone(), value["metadata"].clone())
    };
    assert_eq!(metrics(back.as_ref()), metrics(stored.as_ref()));
    check_row(
        "horizontalpodautoscalers",
        text,
        expect![[r#"
        Name: "h"
        Reference: "Deployment/web"
        Targets: "cpu: <unknown>/50%, <unknown>/3 (avg)"
        MinPods: "1"
        MaxPods: 3
        Replicas: 0
        Age: "<unknown>"
    "#]],
    );
    check_errors("horizontalpodautoscalers", text, expect![""]);
    check_errors(
        "horizontalpodautoscalers",
        "{metadata: {name: h, namespace: default}, spec: {minReplicas: 5, maxReplicas: 3}}",
        expect![[r#"
            spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`
            spec.scaleTargetRef.kind: Required value
            spec.scaleTargetRef.name: Required value
        "#]],
    );
}
