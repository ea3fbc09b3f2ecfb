//! Jobs' policies: a fixture in, a plan out.

use super::{plan, plan_after};
use crate::job::Jobs;
use expect_test::{Expect, expect};

fn job(spec: &str, status: &str) -> String {
    format!(
        "
apiVersion: batch/v1
kind: Job
metadata: {{name: j, namespace: shop, uid: uid-j}}
spec:
  selector: {{matchLabels: {{job: j}}}}
  template: {{metadata: {{labels: {{job: j}}}}, spec: {{restartPolicy: Never, containers: [{{name: a}}]}}}}
  {spec}
status: {{startTime: '2026-01-01T00:00:00Z', {status}}}
"
    )
}

fn pod(name: &str, annotations: &str, status: &str) -> String {
    format!(
        "
---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: shop
  labels: {{job: j}}
  annotations: {{{annotations}}}
  finalizers: [batch.kubernetes.io/job-tracking]
  ownerReferences: [{{apiVersion: batch/v1, kind: Job, name: j, uid: uid-j, controller: true}}]
spec: {{containers: [{{name: a}}]}}
status: {{{status}}}
"
    )
}

fn failed(code: u8) -> String {
    format!(
        "phase: Failed, containerStatuses: [{{name: a, state: {{terminated: {{exitCode: {code}, finishedAt: '2026-01-01T00:09:55Z'}}}}}}]"
    )
}

fn check(fixture: &str, expected: Expect) {
    let text = plan(&Jobs, fixture, "shop/j");
    // What is created is told by the model tests; here it is only that it is.
    let short: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("  "))
        .map(|line| line.split_once("\"name\":\"j\",\"namespace\"").map_or(line, |(start, _)| start))
        .collect();
    expected.assert_eq(&short.join("\n"));
}

#[test]
fn a_failure_policy_ignores_counts_or_ends() {
    let rules = "parallelism: 1\n  completions: 1\n  backoffLimit: 2\n  podFailurePolicy: {rules: [{action: Ignore, onPodConditions: [{type: DisruptionTarget, status: 'True'}]}, {action: FailJob, onExitCodes: {operator: In, values: [42]}}]}";
    let job = job(rules, "");
    check(
        &format!("{job}{}", pod("p", "", &failed(42))),
        expect![[
            r#"update Job/status j: {"conditions":[{"lastProbeTime":"2026-01-01T00:10:00Z","lastTransitionTime":"2026-01-01T00:10:00Z","message":"Container a for pod shop/p failed with exit code 42 matching FailJob rule at index 1","reason":"PodFailurePolicy","status":"True","type":"FailureTarget"}],"ready":0,"startTime":"2026-01-01T00:00:00Z","terminating":0,"uncountedTerminatedPods":{"failed":["uid-p"]}}"#
        ]],
    );
    let disrupted = format!("{}, conditions: [{{type: DisruptionTarget, status: 'True'}}]", failed(1));
    check(
        &format!("{job}{}", pod("p", "", &disrupted)),
        expect![[r#"
        patch Pod shop/p: {"metadata":{"$deleteFromPrimitiveList/finalizers":["batch.kubernetes.io/job-tracking"],"uid":"uid-p"}}
        update Job/status j: {"ready":0,"startTime":"2026-01-01T00:00:00Z","terminating":0,"uncountedTerminatedPods":{}}
        again in 5000 ms"#]],
    );
    check(
        &format!("{job}{}", pod("p", "", &failed(1))),
        expect![[r#"
        update Job/status j: {"ready":0,"startTime":"2026-01-01T00:00:00Z","terminating":0,"uncountedTerminatedPods":{"failed":["uid-p"]}}
        again in 5000 ms"#]],
    );
}

const PER_INDEX: &str = "parallelism: 2\n  completions: 2\n  completionMode: Indexed\n  backoffLimitPerIndex: 1\n  backoffLimit: 2147483647";

fn index(index: u8, failures: u8) -> String {
    format!(
        "batch.kubernetes.io/job-completion-index: '{index}', batch.kubernetes.io/job-index-failure-count: '{failures}'"
    )
}

#[test]
fn each_index_fails_for_itself() {
    let running = pod("p1", &index(1, 0), "phase: Running");
    let once = pod("p0", &index(0, 0), &failed(1));
    let job_of = |status: &str| job(PER_INDEX, status);
    check(
        &format!("{}{once}{running}", job_of("")),
        expect![[r#"
        update Job/status j: {"active":1,"failedIndexes":"","ready":0,"startTime":"2026-01-01T00:00:00Z","terminating":0,"uncountedTerminatedPods":{}}
        again in 5000 ms"#]],
    );
    let long_ago = once.replace("00:09:55", "00:08:00");
    check(
        &format!("{}{long_ago}{running}", job_of("")),
        expect![[r#"
        create Pod {"apiVersion":"v1","kind":"Pod","metadata":{"annotations":{"batch.kubernetes.io/job-completion-index":"0","batch.kubernetes.io/job-index-failure-count":"1"},"finalizers":["batch.kubernetes.io/job-tracking"],"generateName":"j-0-","labels":{"batch.kubernetes.io/job-completion-index":"0","job":"j"},"namespace":"shop","ownerReferences":[{"apiVersion":"batch/v1","blockOwnerDeletion":true,"controller":true,"kind":"Job","name":"j","uid":"uid-j"}]},"spec":{"containers":[{"env":[{"name":"JOB_COMPLETION_INDEX","valueFrom":{"fieldRef":{"fieldPath":"metadata.labels['batch.kubernetes.io/job-completion-index']"}}}],"name":"a","resources":{}}],"hostname":"j-0","restartPolicy":"Never"}}
        update Job/status j: {"active":1,"failedIndexes":"","ready":0,"startTime":"2026-01-01T00:00:00Z","terminating":0,"uncountedTerminatedPods":{}}"#]],
    );
    let twice = pod("p0b", &index(0, 1), &failed(1));
    check(
        &format!("{}{twice}{running}", job_of("")),
        expect![[
            r#"update Job/status j: {"active":1,"failedIndexes":"0","ready":0,"startTime":"2026-01-01T00:00:00Z","terminating":0,"uncountedTerminatedPods":{"failed":["uid-p0b"]}}"#
        ]],
    );
    let done = pod("p1", &index(1, 0), "phase: Succeeded");
    check(
        &format!("{}{done}", job_of("failedIndexes: '0', failed: 2")),
        expect![[
            r#"update Job/status j: {"completedIndexes":"1","conditions":[{"lastProbeTime":"2026-01-01T00:10:00Z","lastTransitionTime":"2026-01-01T00:10:00Z","message":"Job has failed indexes","reason":"FailedIndexes","status":"True","type":"FailureTarget"}],"failed":2,"failedIndexes":"0","ready":0,"startTime":"2026-01-01T00:00:00Z","succeeded":1,"terminating":0,"uncountedTerminatedPods":{}}"#
        ]],
    );
}

#[test]
fn a_success_policy_ends_early() {
    let spec = "parallelism: 2\n  completions: 2\n  completionMode: Indexed\n  backoffLimit: 6\n  successPolicy: {rules: [{succeededIndexes: '0'}]}";
    let pods = format!(
        "{}{}",
        pod("p0", &index(0, 0), "phase: Succeeded"),
        pod("p1", &index(1, 0), "phase: Running")
    );
    check(
        &format!("{}{pods}", job(spec, "")),
        expect![[r#"
        patch Pod shop/p1: {"metadata":{"$deleteFromPrimitiveList/finalizers":["batch.kubernetes.io/job-tracking"],"uid":"uid-p1"}}
        delete Pod shop/p1
        update Job/status j: {"active":1,"completedIndexes":"0","conditions":[{"lastProbeTime":"2026-01-01T00:10:00Z","lastTransitionTime":"2026-01-01T00:10:00Z","message":"Matched rules at index 0","reason":"SuccessPolicy","status":"True","type":"SuccessCriteriaMet"}],"ready":0,"startTime":"2026-01-01T00:00:00Z","succeeded":1,"terminating":0,"uncountedTerminatedPods":{}}"#]],
    );
}

#[test]
fn deleted_pods_are_failures_only_where_they_are_replaced_at_once() {
    let going = pod("p", "", "phase: Running")
        .replace("namespace: shop\n", "namespace: shop\n  deletionTimestamp: '2026-01-01T00:10:00Z'\n");
    let spec = "parallelism: 1\n  completions: 1\n  backoffLimit: 6";
    check(
        &format!("{}{going}", job(spec, "")),
        expect![[r#"
        update Job/status j: {"ready":0,"startTime":"2026-01-01T00:00:00Z","terminating":1,"uncountedTerminatedPods":{"failed":["uid-p"]}}
        again in 10000 ms"#]],
    );
    let late = format!("{spec}\n  podReplacementPolicy: Failed");
    check(
        &format!("{}{going}", job(&late, "")),
        expect![[
            r#"update Job/status j: {"ready":0,"startTime":"2026-01-01T00:00:00Z","terminating":1,"uncountedTerminatedPods":{}}"#
        ]],
    );
}

#[test]
fn pods_of_a_job_that_is_gone_are_let_go() {
    let fixture = pod("p", "", "phase: Running");
    check(&fixture, expect!["again in 2000 ms"]);
    let marked = Some(("gone", "2026-01-01T00:09:55Z"));
    expect![[r#"
        patch Pod shop/p: {"metadata":{"$deleteFromPrimitiveList/finalizers":["batch.kubernetes.io/job-tracking"],"uid":"uid-p"}}
    "#]].assert_eq(&plan_after(&Jobs, &fixture, "shop/j", None, marked));
}
