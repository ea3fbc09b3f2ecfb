//! What the runtime is told of a pod's sandbox: names, labels, network, namespaces, control group.

use crate::observe::{POD_NAME, POD_NAMESPACE, POD_UID};
use crate::{Context, Settings, dns, security};
use api::core::v1::Pod;
use container_runtime::cgroups;
use container_runtime::cri::messages::*;
use meta::Quantity;
use pods::resources;
use std::path::PathBuf;

/// Where the logs of a pod's containers lie.
pub fn log_dir(settings: &Settings, pod: &Pod) -> PathBuf {
    let meta = &pod.metadata;
    settings.pod_logs_dir.join(format!("{}_{}_{}", meta.namespace, meta.name, meta.uid))
}

/// The pod's control group, by its quality of service.
pub fn cgroup(settings: &Settings, pod: &Pod) -> String {
    let root = settings.kubepods();
    let uid = &pod.metadata.uid;
    match resources::qos_class(&pod.spec) {
        "Guaranteed" => format!("{root}/pod{uid}"),
        class => format!("{root}/{}/pod{uid}", class.to_lowercase()),
    }
}

/// Makes the pod's control group with the sum of its limits.
pub fn create_cgroup(settings: &Settings, pod: &Pod) -> std::io::Result<()> {
    let requests = resources::pod_requests(&pod.spec);
    let limits = resources::pod_limits(&pod.spec);
    let milli = |amount: Option<&Quantity>| amount.map_or(0, Quantity::milli_value);
    let asked = requests.get("cpu").or_else(|| limits.get("cpu"));
    let quota =
        limits.get("cpu").map(|amount| resources::cpu_quota(amount.milli_value())).filter(|quota| *quota > 0);
    let memory = limits.get("memory").map(Quantity::value).filter(|bytes| *bytes > 0);
    let limits = cgroups::Limits {
        cpu_shares: Some(resources::cpu_shares(milli(asked)).unsigned_abs()),
        cpu_quota: quota,
        memory_bytes: memory,
        pids: None,
    };
    cgroups::create(&cgroup(settings, pod), limits)
}

/// The name that programs in the pod see as the host's.
pub fn hostname(pod: &Pod) -> String {
    if let Some(name) = pod.spec.hostname_override.as_ref().filter(|name| !name.is_empty()) {
        return name.clone();
    }
    let name = if pod.spec.hostname.is_empty() { &pod.metadata.name } else { &pod.spec.hostname };
    // A host name has at most 63 characters, and does not end in a dash or dot.
    let cut: String = name.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_string()
}

/// The pod's full name in the cluster's DNS, where its subdomain gives it one.
pub fn domain_name(settings: &Settings, pod: &Pod) -> Option<String> {
    (!pod.spec.subdomain.is_empty()).then(|| {
        let (namespace, domain) = (&pod.metadata.namespace, &settings.cluster_domain);
        format!("{}.{}.{namespace}.svc.{domain}", hostname(pod), pod.spec.subdomain)
    })
}

pub fn config(ctx: &Context, pod: &Pod, attempt: u32) -> PodSandboxConfig {
    let meta = &pod.metadata;
    let mut labels = meta.labels.clone();
    labels.insert(POD_NAME.into(), meta.name.clone());
    labels.insert(POD_NAMESPACE.into(), meta.namespace.clone());
    labels.insert(POD_UID.into(), meta.uid.clone());
    let fqdn = pod.spec.set_hostname_as_fqdn == Some(true);
    let hostname = match domain_name(&ctx.settings, pod) {
        _ if pod.spec.host_network => String::new(),
        Some(full) if fqdn => full,
        _ => hostname(pod),
    };
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            namespace: meta.namespace.clone(),
            attempt,
        }),
        hostname,
        log_directory: log_dir(&ctx.settings, pod).to_string_lossy().into(),
        dns_config: Some(dns::config(&ctx.settings, pod)),
        port_mappings: port_mappings(pod),
        labels,
        annotations: meta.annotations.clone(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: cgroup(&ctx.settings, pod),
            security_context: Some(security::of_sandbox(pod)),
            sysctls: security::sysctls(pod),
            overhead: None,
            resources: None,
        }),
    }
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    if pod.spec.host_network {
        return vec![];
    }
    let sidecars = pod.spec.init_containers.iter().filter(|one| pods::spec::is_sidecar(one));
    let ports = pod.spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
    ports
        .filter(|port| port.host_port > 0)
        .map(|port| PortMapping {
            protocol: match port.protocol.as_str() {
                "UDP" => protocol::UDP,
                "SCTP" => protocol::SCTP,
                _ => protocol::TCP,
            },
            container_port: port.container_port,
            host_port: port.host_port,
            host_ip: port.host_ip.clone(),
        })
        .collect()
}
