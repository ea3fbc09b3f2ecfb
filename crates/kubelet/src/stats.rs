//! What the node, its pods and their containers use, read from control groups when someone asks.

use crate::{Context, node_info, sandbox};
use container_runtime::cgroups::{self, Usage};
use container_runtime::cri::messages::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Running containers: pod uid, name, id.
async fn containers(ctx: &Context) -> Vec<Container> {
    let filter = ContainerFilter {
        state: Some(ContainerStateValue { state: container_state::RUNNING }),
        ..Default::default()
    };
    let answer = ctx.runtime.list_containers(ListContainersRequest { filter: Some(filter) }).await;
    answer.map(|answer| answer.containers).unwrap_or_default()
}

fn cpu(usage: &Usage, time: &str) -> Value {
    json!({ "time": time, "usageNanoCores": 0, "usageCoreNanoSeconds": usage.cpu_nanoseconds })
}

fn memory(usage: &Usage, time: &str) -> Value {
    json!({
        "time": time, "usageBytes": usage.memory_bytes, "workingSetBytes": usage.working_set_bytes,
        "rssBytes": usage.rss_bytes, "pageFaults": usage.page_faults, "majorPageFaults": usage.major_page_faults,
    })
}

/// `/stats/summary`.
pub async fn summary(ctx: &Context) -> Value {
    let time = now();
    let running = containers(ctx).await;
    let mut pods = vec![];
    for pod in ctx.pods() {
        let group = sandbox::cgroup(&ctx.settings, &pod);
        let usage = cgroups::usage(&group);
        let own: Vec<Value> = running
            .iter()
            .filter(|one| one.labels.get(crate::observe::POD_UID) == Some(&pod.metadata.uid))
            .map(|one| {
                let usage = cgroups::usage(&format!("{group}/{}", one.id));
                let started =
                    jiff::Timestamp::from_nanosecond(i128::from(one.created_at)).unwrap_or_default();
                json!({
                    "name": one.labels.get(crate::observe::CONTAINER_NAME),
                    "startTime": started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                    "cpu": cpu(&usage, &time), "memory": memory(&usage, &time),
                })
            })
            .collect();
        pods.push(json!({
            "podRef": { "name": pod.metadata.name, "namespace": pod.metadata.namespace, "uid": pod.metadata.uid },
            "startTime": pod.status.start_time.map(|time| time.to_string()),
            "containers": own, "cpu": cpu(&usage, &time), "memory": memory(&usage, &time),
            "process_stats": { "process_count": usage.processes },
        }));
    }
    let node = cgroups::usage("/");
    let (total, free) = node_info::disk(&ctx.settings);
    let disk =
        json!({ "time": time, "availableBytes": free, "capacityBytes": total, "usedBytes": total - free });
    json!({
        "node": {
            "nodeName": ctx.settings.node_name,
            "startTime": time,
            "cpu": cpu(&node, &time),
            "memory": {
                "time": time, "availableBytes": node_info::memory_available(), "usageBytes": node.memory_bytes,
                "workingSetBytes": node.working_set_bytes, "rssBytes": node.rss_bytes,
                "pageFaults": node.page_faults, "majorPageFaults": node.major_page_faults,
            },
            "fs": disk, "runtime": { "imageFs": disk },
        },
        "pods": pods,
    })
}

/// `/metrics/resource`, in the text form of Prometheus.
pub async fn resource_metrics(ctx: &Context) -> String {
    let running = containers(ctx).await;
    let groups: BTreeMap<String, (String, String, String)> = ctx
        .pods()
        .iter()
        .map(|pod| {
            let meta = &pod.metadata;
            let group = sandbox::cgroup(&ctx.settings, pod);
            (meta.uid.clone(), (meta.namespace.clone(), meta.name.clone(), group))
        })
        .collect();
    let mut samples: Vec<(&str, String, Usage)> = vec![("node", String::new(), cgroups::usage("/"))];
    for (namespace, name, group) in groups.values() {
        let labels = format!("{{namespace={namespace:?},pod={name:?}}}");
        samples.push(("pod", labels, cgroups::usage(group)));
    }
    for one in &running {
        let uid = one.labels.get(crate::observe::POD_UID).cloned().unwrap_or_default();
        let Some((namespace, name, group)) = groups.get(&uid) else { continue };
        let container = one.labels.get(crate::observe::CONTAINER_NAME).cloned().unwrap_or_default();
        let labels = format!("{{container={container:?},namespace={namespace:?},pod={name:?}}}");
        samples.push(("container", labels, cgroups::usage(&format!("{group}/{}", one.id))));
    }
    let mut out = String::new();
    for kind in ["container", "node", "pod"] {
        let own = || samples.iter().filter(|(of, ..)| *of == kind);
        let _ = writeln!(
            out,
            "# HELP {kind}_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the {kind} in core-seconds"
        );
        let _ = writeln!(out, "# TYPE {kind}_cpu_usage_seconds_total counter");
        for (_, labels, usage) in own() {
            let _ = writeln!(
                out,
                "{kind}_cpu_usage_seconds_total{labels} {}",
                usage.cpu_nanoseconds as f64 / 1e9
            );
        }
        let _ = writeln!(
            out,
            "# HELP {kind}_memory_working_set_bytes [STABLE] Current working set of the {kind} in bytes"
        );
        let _ = writeln!(out, "# TYPE {kind}_memory_working_set_bytes gauge");
        for (_, labels, usage) in own() {
            let _ = writeln!(out, "{kind}_memory_working_set_bytes{labels} {}", usage.working_set_bytes);
        }
    }
    out
}

/// `/metrics`: the kubelet's own.
pub fn metrics(ctx: &Context) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "# HELP kubelet_node_name [ALPHA] The node's name. The count is always 1.");
    let _ = writeln!(out, "# TYPE kubelet_node_name gauge");
    let _ = writeln!(out, "kubelet_node_name{{node={:?}}} 1", ctx.settings.node_name);
    let _ =
        writeln!(out, "# HELP kubelet_active_pods [ALPHA] The number of pods the kubelet considers active.");
    let _ = writeln!(out, "# TYPE kubelet_active_pods gauge");
    let _ = writeln!(out, "kubelet_active_pods {}", ctx.pods().len());
    out
}
