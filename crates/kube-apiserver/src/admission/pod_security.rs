//! PodSecurity: the levels `baseline` and `restricted`, as a namespace's labels ask for them.

use super::{Chain, forbidden};
use api::Object;
use api::core::v1::{Container, Namespace, Pod, SecurityContext};
use api::errors::ApiError;
use registry::{Attributes, Operation};

const PREFIX: &str = "pod-security.kubernetes.io/";
const BASELINE_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
    "",
];
const SAFE_SYSCTLS: [&str; 9] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
];

/// One thing that a level forbids, and where the pod does it.
struct Fault {
    reason: &'static str,
    detail: String,
}

impl Chain {
    pub(super) async fn pod_security(
        &self,
        attributes: &Attributes<'_>,
        object: &dyn Object,
    ) -> Result<(), ApiError> {
        let checked = attributes.operation == Operation::Create && attributes.subresource.is_empty()
            || attributes.subresource == "ephemeralcontainers";
        let Some(pod) = object.downcast::<Pod>().filter(|_| checked) else { return Ok(()) };
        let Some(namespace) = self.get::<Namespace>("", attributes.namespace).await? else { return Ok(()) };
        let level = |mode: &str| {
            namespace.metadata.labels.get(&format!("{PREFIX}{mode}")).map_or("privileged", String::as_str)
        };
        let version = |mode: &str| {
            let label = format!("{PREFIX}{mode}-version");
            namespace.metadata.labels.get(&label).map_or("latest", String::as_str)
        };
        if let Some(text) = violations(pod, level("enforce")) {
            let text =
                format!("violates PodSecurity \"{}:{}\": {text}", level("enforce"), version("enforce"));
            return Err(forbidden(attributes, Some(object), text));
        }
        if let Some(text) = violations(pod, level("warn")) {
            let text = format!("would violate PodSecurity \"{}:{}\": {text}", level("warn"), version("warn"));
            attributes.request.warnings.add(text);
        }
        Ok(())
    }
}

/// Everything a pod does that its level forbids, as one text.
fn violations(pod: &Pod, level: &str) -> Option<String> {
    let mut faults = Vec::new();
    if matches!(level, "baseline" | "restricted") {
        baseline(pod, &mut faults);
    }
    if level == "restricted" {
        restricted(pod, &mut faults);
    }
    if faults.is_empty() {
        return None;
    }
    let texts: Vec<String> =
        faults.iter().map(|fault| format!("{} ({})", fault.reason, fault.detail)).collect();
    Some(texts.join(", "))
}

fn containers(pod: &Pod) -> Vec<(String, Option<SecurityContext>, Vec<i32>)> {
    let ports = |container: &Container| container.ports.iter().map(|port| port.host_port).collect();
    let plain = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let mut out: Vec<_> = plain
        .map(|container| {
            (container.name.clone(), container.security_context.as_deref().cloned(), ports(container))
        })
        .collect();
    out.extend(pod.spec.ephemeral_containers.iter().map(|container| {
        let common = &container.ephemeral_container_common;
        (common.name.clone(), common.security_context.as_deref().cloned(), Vec::new())
    }));
    out
}

fn named(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    if names.len() == 1 {
        format!("container {}", quoted[0])
    } else {
        format!("containers {}", quoted.join(", "))
    }
}

/// Names of the containers for which `bad` holds.
fn offenders(pod: &Pod, bad: impl Fn(Option<&SecurityContext>) -> bool) -> Vec<String> {
    containers(pod)
        .into_iter()
        .filter(|(_, context, _)| bad(context.as_ref()))
        .map(|(name, _, _)| name)
        .collect()
}

fn add(faults: &mut Vec<Fault>, reason: &'static str, names: Vec<String>, tail: &str) {
    if !names.is_empty() {
        faults.push(Fault { reason, detail: format!("{} {tail}", named(&names)) });
    }
}

fn baseline(pod: &Pod, faults: &mut Vec<Fault>) {
    let spec = &pod.spec;
    let mut host = Vec::new();
    for (set, name) in
        [(spec.host_network, "hostNetwork"), (spec.host_pid, "hostPID"), (spec.host_ipc, "hostIPC")]
    {
        if set {
            host.push(format!("{name}=true"));
        }
    }
    if !host.is_empty() {
        faults.push(Fault { reason: "host namespaces", detail: host.join(", ") });
    }
    let privileged =
        offenders(pod, |context| context.is_some_and(|context| context.privileged == Some(true)));
    add(faults, "privileged", privileged, "must not set securityContext.privileged=true");
    let capable = offenders(pod, |context| {
        let capabilities = context.and_then(|context| context.capabilities.as_deref());
        capabilities.is_some_and(|capabilities| {
            capabilities.add.iter().any(|name| !BASELINE_CAPABILITIES.contains(&name.as_str()))
        })
    });
    add(
        faults,
        "non-default capabilities",
        capable,
        "must not include capabilities beyond the default set in securityContext.capabilities.add",
    );
    let paths: Vec<String> = spec
        .volumes
        .iter()
        .filter(|volume| volume.volume_source.host_path.is_some())
        .map(|volume| format!("{:?}", volume.name))
        .collect();
    if !paths.is_empty() {
        let word = if paths.len() == 1 { "volume" } else { "volumes" };
        faults.push(Fault { reason: "hostPath volumes", detail: format!("{word} {}", paths.join(", ")) });
    }
    let ported: Vec<String> = containers(pod)
        .into_iter()
        .filter(|(_, _, ports)| ports.iter().any(|port| *port > 0))
        .map(|(name, _, _)| name)
        .collect();
    add(faults, "hostPort", ported, "uses hostPorts");
    let masked = offenders(pod, |context| {
        context.and_then(|context| context.proc_mount.as_deref()).is_some_and(|mount| mount != "Default")
    });
    add(faults, "procMount", masked, "must not set securityContext.procMount");
    unconfined(pod, faults);
}

/// Profiles switched off, and kernel settings beyond those that concern the pod alone.
fn unconfined(pod: &Pod, faults: &mut Vec<Fault>) {
    let pod_context = pod.spec.security_context.as_deref();
    let unconfined_pod = pod_context
        .and_then(|context| context.seccomp_profile.as_deref())
        .is_some_and(|profile| profile.r#type == "Unconfined");
    let unconfined = offenders(pod, |context| {
        context
            .and_then(|context| context.seccomp_profile.as_deref())
            .is_some_and(|profile| profile.r#type == "Unconfined")
    });
    if unconfined_pod {
        let detail = "pod must not set securityContext.seccompProfile.type to \"Unconfined\"".into();
        faults.push(Fault { reason: "seccompProfile", detail });
    }
    add(
        faults,
        "seccompProfile",
        unconfined,
        "must not set securityContext.seccompProfile.type to \"Unconfined\"",
    );
    let sysctls: Vec<&str> = pod_context
        .map(|context| context.sysctls.iter().map(|sysctl| sysctl.name.as_str()).collect::<Vec<_>>())
        .unwrap_or_default()
        .into_iter()
        .filter(|name| !SAFE_SYSCTLS.contains(name))
        .collect();
    if !sysctls.is_empty() {
        faults.push(Fault { reason: "forbidden sysctls", detail: sysctls.join(", ") });
    }
}

fn restricted(pod: &Pod, faults: &mut Vec<Fault>) {
    let escalating = offenders(pod, |context| {
        context.and_then(|context| context.allow_privilege_escalation) != Some(false)
    });
    add(
        faults,
        "allowPrivilegeEscalation != false",
        escalating,
        "must set securityContext.allowPrivilegeEscalation=false",
    );
    let capable = offenders(pod, |context| {
        let capabilities = context.and_then(|context| context.capabilities.as_deref());
        let drops = capabilities.is_some_and(|known| known.drop.iter().any(|name| name == "ALL"));
        let adds = capabilities.is_some_and(|known| known.add.iter().any(|name| name != "NET_BIND_SERVICE"));
        !drops || adds
    });
    add(faults, "unrestricted capabilities", capable, "must set securityContext.capabilities.drop=[\"ALL\"]");
    let pod_context = pod.spec.security_context.as_deref();
    let pod_non_root = pod_context.and_then(|context| context.run_as_non_root);
    let rooted = offenders(pod, |context| {
        context.and_then(|context| context.run_as_non_root).or(pod_non_root) != Some(true)
    });
    if !rooted.is_empty() {
        let detail = format!("pod or {} must set securityContext.runAsNonRoot=true", named(&rooted));
        faults.push(Fault { reason: "runAsNonRoot != true", detail });
    }
    let zero = offenders(pod, |context| context.and_then(|context| context.run_as_user) == Some(0));
    if pod_context.and_then(|context| context.run_as_user) == Some(0) {
        faults.push(Fault { reason: "runAsUser=0", detail: "pod must not set runAsUser=0".into() });
    }
    add(faults, "runAsUser=0", zero, "must not set runAsUser=0");
    let pod_seccomp = pod_context.and_then(|context| context.seccomp_profile.as_deref());
    let loose = offenders(pod, |context| {
        let profile = context.and_then(|context| context.seccomp_profile.as_deref()).or(pod_seccomp);
        !profile.is_some_and(|profile| matches!(profile.r#type.as_str(), "RuntimeDefault" | "Localhost"))
    });
    if !loose.is_empty() {
        let detail = format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            named(&loose)
        );
        faults.push(Fault { reason: "seccompProfile", detail });
    }
    let volumes: Vec<String> = pod
        .spec
        .volumes
        .iter()
        .filter(|volume| {
            let source = &volume.volume_source;
            let allowed = source.config_map.is_some()
                || source.csi.is_some()
                || source.downward_api.is_some()
                || source.empty_dir.is_some()
                || source.ephemeral.is_some()
                || source.persistent_volume_claim.is_some()
                || source.projected.is_some()
                || source.secret.is_some()
                || source.image.is_some();
            !allowed
        })
        .map(|volume| format!("{:?}", volume.name))
        .collect();
    if !volumes.is_empty() {
        faults.push(Fault {
            reason: "restricted volume types",
            detail: format!("volumes {} use restricted volume types", volumes.join(", ")),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_plain_pod_is_baseline_and_not_restricted() {
        let mut pod = Pod::default();
        pod.spec.containers.push(Container { name: "c".into(), ..Container::default() });
        assert_eq!(violations(&pod, "baseline"), None);
        expect![[r#"allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#]].assert_eq(&violations(&pod, "restricted").unwrap());
        pod.spec.host_network = true;
        assert_eq!(violations(&pod, "baseline").unwrap(), "host namespaces (hostNetwork=true)");
    }
}
