//! Jobs by hand and by the clock.

use crate::tests_support::*;
use expect_test::expect;

const JOB: &str = "{metadata: {name: once, namespace: default, uid: u-1, resourceVersion: '1'}, spec: {template: {spec: {restartPolicy: Never, \
                   containers: [{name: a, image: busybox:1}]}}}}";

#[test]
fn a_job_selects_by_its_own_uid() {
    check_create(
        "jobs",
        JOB,
        expect![[r#"
        apiVersion: batch/v1
        kind: Job
        metadata:
          generation: 1
          name: once
          namespace: default
          resourceVersion: "1"
          uid: u-1
        spec:
          backoffLimit: 6
          completionMode: NonIndexed
          completions: 1
          manualSelector: false
          parallelism: 1
          podReplacementPolicy: TerminatingOrFailed
          selector:
            matchLabels:
              batch.kubernetes.io/controller-uid: u-1
          suspend: false
          template:
            metadata:
              labels:
                batch.kubernetes.io/controller-uid: u-1
                batch.kubernetes.io/job-name: once
                controller-uid: u-1
                job-name: once
            spec:
              containers:
              - image: busybox:1
                imagePullPolicy: IfNotPresent
                name: a
                resources: {}
                terminationMessagePath: /dev/termination-log
                terminationMessagePolicy: File
              dnsPolicy: ClusterFirst
              restartPolicy: Never
              schedulerName: default-scheduler
              securityContext: {}
              terminationGracePeriodSeconds: 30
        status: {}
    "#]],
    );
    check_errors("jobs", JOB, expect![""]);
    check_row(
        "jobs",
        JOB,
        expect![[r#"
        Name: "once"
        Status: "Running"
        Completions: "0/1"
        Duration: ""
        Age: "<unknown>"
        Containers: "a"
        Images: "busybox:1"
        Selector: "<none>"
    "#]],
    );
    assert!(row_of("jobs").orphans_by_default());
}

#[test]
fn jobs_run_to_an_end() {
    check_errors(
        "jobs",
        &JOB.replace("restartPolicy: Never, ", ""),
        expect![[r#"
        spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"
    "#]],
    );
    check_errors(
        "jobs",
        &JOB.replace("spec: {template", "spec: {completionMode: Indexed, parallelism: -1, template"),
        expect![[r#"
            spec.parallelism: Invalid value: -1: must be greater than or equal to 0
            spec.completions: Required value: when completion mode is Indexed
        "#]],
    );
    let stored = JOB.replace(
        "spec: {template",
        "spec: {selector: {matchLabels: {batch.kubernetes.io/controller-uid: u-1}}, template",
    );
    let stored = stored.replace(
        "template: {spec",
        "template: {metadata: {labels: {controller-uid: u-1, job-name: once, batch.kubernetes.io/controller-uid: u-1, batch.kubernetes.io/job-name: once}}, spec",
    );
    check_update_errors(
        "jobs",
        &stored,
        &stored.replace("busybox:1", "busybox:2"),
        expect![[r#"
        spec.template: Invalid value: {"metadata":{"labels":{"batch.kubernetes.io/controller-uid":"u-1","batch.kubernetes.io/job-name":"once","controller-uid":"u-1","job-name":"once"}},"spec":{"containers":[{"name":"a","image":"busybox:2","resources":{},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent"}],"restartPolicy":"Never","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","securityContext":{},"schedulerName":"default-scheduler"}}: field is immutable
    "#]],
    );
    check_update_errors(
        "jobs",
        &stored,
        &stored.replace("spec: {selector", "spec: {parallelism: 2, completions: 1, selector"),
        expect![""],
    );
}

#[test]
fn cron_jobs() {
    let job = "{metadata: {name: tick, namespace: default}, spec: {schedule: '*/5 * * * *', jobTemplate: {spec: {template: {spec: {\
               restartPolicy: OnFailure, containers: [{name: a, image: busybox:1}]}}}}}}";
    check_default(
        "cronjobs",
        job,
        expect![[r#"
        apiVersion: batch/v1
        kind: CronJob
        metadata:
          name: tick
          namespace: default
        spec:
          concurrencyPolicy: Allow
          failedJobsHistoryLimit: 1
          jobTemplate:
            metadata: {}
            spec:
              template:
                metadata: {}
                spec:
                  containers:
                  - image: busybox:1
                    imagePullPolicy: IfNotPresent
                    name: a
                    resources: {}
                    terminationMessagePath: /dev/termination-log
                    terminationMessagePolicy: File
                  dnsPolicy: ClusterFirst
                  restartPolicy: OnFailure
                  schedulerName: default-scheduler
                  securityContext: {}
                  terminationGracePeriodSeconds: 30
          schedule: "*/5 * * * *"
          successfulJobsHistoryLimit: 3
          suspend: false
        status: {}
    "#]],
    );
    check_errors("cronjobs", job, expect![""]);
    check_errors(
        "cronjobs",
        &job.replace("'*/5 * * * *'", "'TZ=UTC 61 * * * *', timeZone: ''"),
        expect![[r#"
        spec.schedule: Invalid value: "TZ=UTC 61 * * * *": end of range (61) above maximum (59): 61
        spec.schedule: Invalid value: "TZ=UTC 61 * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead
        spec.timeZone: Invalid value: "": timeZone must be nil or non-empty string
    "#]],
    );
    check_row(
        "cronjobs",
        job,
        expect![[r#"
        Name: "tick"
        Schedule: "*/5 * * * *"
        Timezone: "<none>"
        Suspend: "False"
        Active: 0
        Last Schedule: "<none>"
        Age: "<unknown>"
        Containers: "a"
        Images: "busybox:1"
        Selector: "<none>"
    "#]],
    );
}
