//! Cron jobs and resource quotas: a fixture in, a plan out.

use super::plan;
use crate::cronjob::CronJobs;
use crate::resourcequota::ResourceQuotas;
use expect_test::{Expect, expect};

fn cron_job(spec: &str, status: &str) -> String {
    format!(
        "
apiVersion: batch/v1
kind: CronJob
metadata: {{name: tick, namespace: shop, creationTimestamp: '2026-01-01T00:00:00Z'}}
spec:
  jobTemplate:
    metadata: {{labels: {{app: tick}}}}
    spec: {{template: {{spec: {{restartPolicy: Never, containers: [{{name: a, image: a}}]}}}}}}
  {spec}
status: {{{status}}}
"
    )
}

fn job(name: &str, annotations: &str, status: &str) -> String {
    format!(
        "
---
apiVersion: batch/v1
kind: Job
metadata:
  name: {name}
  namespace: shop
  annotations: {{{annotations}}}
  ownerReferences: [{{apiVersion: batch/v1, kind: CronJob, name: tick, uid: uid-tick, controller: true}}]
status: {{{status}}}
"
    )
}

const ACTIVE: &str = "active: [{kind: Job, namespace: shop, name: tick-29453765, uid: uid-tick-29453765}]";
const COMPLETE: &str =
    "conditions: [{type: Complete, status: 'True'}], completionTime: '2026-01-01T00:06:00Z'";

fn check(fixture: &str, expected: Expect) {
    expected.assert_eq(&plan(&CronJobs::default(), fixture, "shop/tick"));
}

#[test]
fn a_job_is_made_when_it_is_due_and_never_twice() {
    let due = cron_job("schedule: '*/5 * * * *'\n  timeZone: Asia/Tokyo", "");
    check(
        &due,
        expect![[r#"
        create Job {"apiVersion":"batch/v1","kind":"Job","metadata":{"annotations":{"batch.kubernetes.io/cronjob-scheduled-timestamp":"2026-01-01T09:10:00+09:00"},"labels":{"app":"tick"},"name":"tick-29453770","namespace":"shop","ownerReferences":[{"apiVersion":"batch/v1","blockOwnerDeletion":true,"controller":true,"kind":"CronJob","name":"tick","uid":"uid-tick"}]},"spec":{"template":{"metadata":{},"spec":{"containers":[{"image":"a","name":"a","resources":{}}],"restartPolicy":"Never"}}}}
          then Normal SuccessfulCreate on CronJob tick: Created job {name}
          else Warning FailedCreate on CronJob tick: Error creating job: {error}
        again in 300100 ms
    "#]],
    );
    let known = job(
        "tick-29453770",
        "batch.kubernetes.io/cronjob-scheduled-timestamp: '2026-01-01T09:10:00+09:00'",
        "",
    );
    check(
        &format!("{due}{known}"),
        expect![[r#"
        update CronJob/status tick: {"active":[{"apiVersion":"batch/v1","kind":"Job","name":"tick-29453770","namespace":"shop","resourceVersion":"2","uid":"uid-tick-29453770"}],"lastScheduleTime":"2026-01-01T00:10:00Z"}
        again in 300100 ms
    "#]],
    );
    let written = "lastScheduleTime: '2026-01-01T00:10:00Z'";
    check(
        &cron_job("schedule: '*/5 * * * *'", written),
        expect![[r#"
        again in 300100 ms
    "#]],
    );
    check(
        &cron_job("schedule: '@hourly'", ""),
        expect![[r#"
        again in 3000100 ms
    "#]],
    );
}

#[test]
fn concurrency_policies_and_suspension() {
    let running = job("tick-29453765", "", "");
    let last = format!("lastScheduleTime: '2026-01-01T00:05:00Z', {ACTIVE}");
    let with =
        |spec: &str| format!("{}{running}", cron_job(&format!("schedule: '*/5 * * * *'\n  {spec}"), &last));
    check(
        &with("concurrencyPolicy: Forbid"),
        expect![[r#"
        event Normal JobAlreadyActive on CronJob tick: Not starting job because prior execution is running and concurrency policy is Forbid
        again in 300100 ms
    "#]],
    );
    check(
        &with("concurrencyPolicy: Replace"),
        expect![[r#"
        delete Job shop/tick-29453765 Background
          then Normal SuccessfulDelete on CronJob tick: Deleted job tick-29453765
          else Warning FailedDelete on CronJob tick: Deleted job: {error}
        create Job {"apiVersion":"batch/v1","kind":"Job","metadata":{"annotations":{"batch.kubernetes.io/cronjob-scheduled-timestamp":"2026-01-01T00:10:00Z"},"labels":{"app":"tick"},"name":"tick-29453770","namespace":"shop","ownerReferences":[{"apiVersion":"batch/v1","blockOwnerDeletion":true,"controller":true,"kind":"CronJob","name":"tick","uid":"uid-tick"}]},"spec":{"template":{"metadata":{},"spec":{"containers":[{"image":"a","name":"a","resources":{}}],"restartPolicy":"Never"}}}}
          then Normal SuccessfulCreate on CronJob tick: Created job {name}
          else Warning FailedCreate on CronJob tick: Error creating job: {error}
        update CronJob/status tick: {"lastScheduleTime":"2026-01-01T00:05:00Z"}
        again in 300100 ms
    "#]],
    );
    check(
        &with("suspend: true"),
        expect![[r#"
        nothing
    "#]],
    );
}

#[test]
fn the_status_follows_the_jobs() {
    let last = format!("lastScheduleTime: '2026-01-01T00:10:00Z', {ACTIVE}");
    let job_done = job("tick-29453765", "", COMPLETE);
    let spec = "schedule: '*/5 * * * *'\n  successfulJobsHistoryLimit: 1";
    check(
        &format!("{}{job_done}", cron_job(spec, &last)),
        expect![[r#"
        update CronJob/status tick: {"lastScheduleTime":"2026-01-01T00:10:00Z","lastSuccessfulTime":"2026-01-01T00:06:00Z"}
        event Normal SawCompletedJob on CronJob tick: Saw completed job: tick-29453765, condition: Complete
        again in 300100 ms
    "#]],
    );
    let older = job("tick-29453760", "", &format!("startTime: '2026-01-01T00:00:00Z', {COMPLETE}"));
    let newer = job("tick-29453766", "", &format!("startTime: '2026-01-01T00:06:00Z', {COMPLETE}"));
    let quiet = "lastScheduleTime: '2026-01-01T00:10:00Z', lastSuccessfulTime: '2026-01-01T00:06:00Z'";
    check(
        &format!("{}{older}{newer}", cron_job(spec, quiet)),
        expect![[r#"
        delete Job shop/tick-29453760 Background
          then Normal SuccessfulDelete on CronJob tick: Deleted job tick-29453760
          else Warning FailedDelete on CronJob tick: Deleted job: {error}
        again in 300100 ms
    "#]],
    );
    let foreign = job("by-hand", "", "");
    check(
        &format!("{}{foreign}", cron_job(spec, quiet)),
        expect![[r#"
        event Warning UnexpectedJob on CronJob tick: Saw a job that the controller did not create or forgot: by-hand
        again in 300100 ms
    "#]],
    );
}

#[test]
fn missed_times_and_what_cannot_be_scheduled() {
    check(
        &cron_job("schedule: '*/4 * * * *'\n  startingDeadlineSeconds: 100", ""),
        expect![[r#"
        again in 120100 ms
    "#]],
    );
    check(
        &cron_job("schedule: '* * * * *'", "lastScheduleTime: '2025-12-31T22:00:00Z'"),
        expect![[r#"
        create Job {"apiVersion":"batch/v1","kind":"Job","metadata":{"annotations":{"batch.kubernetes.io/cronjob-scheduled-timestamp":"2026-01-01T00:10:00Z"},"labels":{"app":"tick"},"name":"tick-29453770","namespace":"shop","ownerReferences":[{"apiVersion":"batch/v1","blockOwnerDeletion":true,"controller":true,"kind":"CronJob","name":"tick","uid":"uid-tick"}]},"spec":{"template":{"metadata":{},"spec":{"containers":[{"image":"a","name":"a","resources":{}}],"restartPolicy":"Never"}}}}
          then Normal SuccessfulCreate on CronJob tick: Created job {name}
          else Warning FailedCreate on CronJob tick: Error creating job: {error}
        event Warning TooManyMissedTimes on CronJob tick: too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew
        again in 60100 ms
    "#]],
    );
    check(
        &cron_job("schedule: '0 0 31 2 *'", ""),
        expect![[r#"
        event Warning InvalidSchedule on CronJob tick: invalid schedule: 0 0 31 2 * : time difference between two schedules is less than 1 second
    "#]],
    );
    check(
        &cron_job("schedule: '61 * * * *'", ""),
        expect![[r#"
        event Warning UnparseableSchedule on CronJob tick: unparseable schedule: "61 * * * *" : end of range (61) above maximum (59): 61
    "#]],
    );
    check(
        &cron_job("schedule: '* * * * *'\n  timeZone: Mars/Base", ""),
        expect![[r#"
        event Warning UnknownTimeZone on CronJob tick: invalid timeZone: "Mars/Base": unknown time zone Mars/Base
    "#]],
    );
    check(
        &cron_job("schedule: 'TZ=Asia/Tokyo 30 9 * * *'", ""),
        expect![[r#"
        event Warning UnsupportedSchedule on CronJob tick: CRON_TZ or TZ used in schedule "TZ=Asia/Tokyo 30 9 * * *" is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details
        again in 1200100 ms
    "#]],
    );
}

#[test]
fn a_quota_counts_what_its_namespace_holds() {
    let fixture = "
apiVersion: v1
kind: ResourceQuota
metadata: {name: all, namespace: shop}
spec: {hard: {pods: 5, requests.cpu: 2, limits.memory: 1Gi, count/configmaps: 9, secrets: 3, count/widgets.example.com: 1, services.nodeports: 2, requests.storage: 10Gi}}
status: {hard: {pods: 5}, used: {pods: 5, gone: 1, count/widgets.example.com: 4}}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: high, namespace: shop}
spec:
  hard: {pods: 1, services: 1}
  scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In, values: [high]}]}
status: {hard: {pods: 1, services: 1}, used: {pods: 1, services: 0}}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop}
spec: {priorityClassName: high, containers: [{name: a, resources: {requests: {cpu: 500m}, limits: {memory: 64Mi}}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: done, namespace: shop}
spec: {containers: [{name: a, resources: {requests: {cpu: 1}}}]}
status: {phase: Succeeded}
---
apiVersion: v1
kind: Pod
metadata: {name: going, namespace: shop, deletionTimestamp: '2026-01-01T00:10:10Z', deletionGracePeriodSeconds: 20}
spec: {containers: [{name: a, resources: {requests: {cpu: 1}}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stuck, namespace: shop, deletionTimestamp: '2026-01-01T00:09:00Z', deletionGracePeriodSeconds: 30}
spec: {containers: [{name: a, resources: {requests: {cpu: 1}}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: other}
spec: {containers: [{name: a}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: shop}
---
apiVersion: v1
kind: Secret
metadata: {name: a, namespace: shop}
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec: {type: NodePort, ports: [{port: 80}, {port: 81}]}
";
    let quotas = ResourceQuotas { resync_seconds: 300 };
    let check = |key: &str, expected: Expect| expected.assert_eq(&plan(&quotas, fixture, key));
    check(
        "shop/all",
        expect![[r#"
        update ResourceQuota/status all: {"hard":{"count/configmaps":"9","count/widgets.example.com":"1","limits.memory":"1Gi","pods":"5","requests.cpu":"2","requests.storage":"10Gi","secrets":"3","services.nodeports":"2"},"used":{"count/configmaps":"1","count/widgets.example.com":"4","limits.memory":"64Mi","pods":"2","requests.cpu":"1500m","requests.storage":"0","secrets":"1","services.nodeports":"2"}}
        again in 31000 ms
    "#]],
    );
    check(
        "shop/high",
        expect![[r#"
        again in 31000 ms
    "#]],
    );
}
