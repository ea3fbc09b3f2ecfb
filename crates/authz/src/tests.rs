//! Decisions over the default policy, written as one line per question.

use super::*;
use api::core::v1::{Pod, SecretVolumeSource, Volume, VolumeSource};
use api::rbac::v1::{ClusterRole, PolicyRule, RoleRef};
use expect_test::expect;

fn defaults() -> Policy {
    let mut policy = Policy::new(vec![Mode::Node, Mode::Rbac]);
    let bootstrap = bootstrap::policy();
    for role in &bootstrap.cluster_roles {
        policy.rbac.set_cluster_role(role);
    }
    for role in &bootstrap.roles {
        policy.rbac.set_role(role);
    }
    for binding in &bootstrap.cluster_role_bindings {
        policy.rbac.set_cluster_role_binding(binding);
    }
    for binding in &bootstrap.role_bindings {
        policy.rbac.set_role_binding(binding);
    }
    policy
}

/// `user[,group...] verb group/resource[/sub] [namespace] [name]`, or `user verb /path`.
fn ask(policy: &Policy, question: &str) -> String {
    let words: Vec<&str> = question.split_whitespace().collect();
    let mut names = words[0].split(',');
    let name = names.next().unwrap();
    let groups: Vec<String> = names.map(str::to_string).chain(["system:authenticated".to_string()]).collect();
    let (path, resource) = if words[2].starts_with('/') { (words[2], "") } else { ("", words[2]) };
    let mut parts = resource.splitn(3, '/');
    let group = parts.next().unwrap().replace("core", "");
    let request = Attributes {
        user: User { name, groups: &groups },
        verb: words[1],
        group: &group,
        resource: parts.next().unwrap_or(""),
        subresource: parts.next().unwrap_or(""),
        namespace: words.get(3).filter(|word| **word != "-").unwrap_or(&""),
        name: words.get(4).unwrap_or(&""),
        path,
        field_selector: &[],
    };
    format!("{question}: {:?}", decide(policy, &request))
}

fn check(policy: &Policy, questions: &str, expected: expect_test::Expect) {
    let lines: Vec<String> = questions
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| ask(policy, line))
        .collect();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn default_policy_answers() {
    check(
        &defaults(),
        "root,system:masters delete core/nodes - n1
         jane get core/pods default
         jane create authorization.k8s.io/selfsubjectaccessreviews
         jane get /healthz
         jane get /apis/apps
         jane get /metrics
         system:kube-scheduler create core/pods/binding default web
         system:kube-scheduler create core/secrets default
         system:kube-scheduler get coordination.k8s.io/leases kube-system kube-scheduler
         system:kube-scheduler get coordination.k8s.io/leases kube-system other
         system:serviceaccount:kube-system:deployment-controller update apps/deployments/status default web
         system:kube-controller-manager watch apps/daemonsets",
        expect![[r#"
            root,system:masters delete core/nodes - n1: Allow("")
            jane get core/pods default: NoOpinion("")
            jane create authorization.k8s.io/selfsubjectaccessreviews: Allow("RBAC: allowed by ClusterRoleBinding \"system:basic-user\" of ClusterRole \"system:basic-user\" to Group \"system:authenticated\"")
            jane get /healthz: Allow("RBAC: allowed by ClusterRoleBinding \"system:discovery\" of ClusterRole \"system:discovery\" to Group \"system:authenticated\"")
            jane get /apis/apps: Allow("RBAC: allowed by ClusterRoleBinding \"system:discovery\" of ClusterRole \"system:discovery\" to Group \"system:authenticated\"")
            jane get /metrics: NoOpinion("")
            system:kube-scheduler create core/pods/binding default web: Allow("RBAC: allowed by ClusterRoleBinding \"system:kube-scheduler\" of ClusterRole \"system:kube-scheduler\" to User \"system:kube-scheduler\"")
            system:kube-scheduler create core/secrets default: NoOpinion("")
            system:kube-scheduler get coordination.k8s.io/leases kube-system kube-scheduler: Allow("RBAC: allowed by ClusterRoleBinding \"system:kube-scheduler\" of ClusterRole \"system:kube-scheduler\" to User \"system:kube-scheduler\"")
            system:kube-scheduler get coordination.k8s.io/leases kube-system other: Allow("RBAC: allowed by RoleBinding \"system::leader-locking-kube-scheduler/kube-system\" of Role \"system::leader-locking-kube-scheduler\" to User \"system:kube-scheduler\"")
            system:serviceaccount:kube-system:deployment-controller update apps/deployments/status default web: Allow("RBAC: allowed by ClusterRoleBinding \"system:controller:deployment-controller\" of ClusterRole \"system:controller:deployment-controller\" to ServiceAccount \"deployment-controller/kube-system\"")
            system:kube-controller-manager watch apps/daemonsets: Allow("RBAC: allowed by ClusterRoleBinding \"system:kube-controller-manager\" of ClusterRole \"system:kube-controller-manager\" to User \"system:kube-controller-manager\"")"#]],
    );
}

#[test]
fn nodes_read_only_what_their_pods_use() {
    let mut policy = defaults();
    let mut pod = Pod::default();
    pod.metadata.namespace = "shop".into();
    pod.metadata.name = "web".into();
    pod.spec.node_name = "n1".into();
    let source = SecretVolumeSource { secret_name: "tls".into(), ..SecretVolumeSource::default() };
    pod.spec.volumes.push(Volume {
        volume_source: VolumeSource { secret: Some(Box::new(source)), ..VolumeSource::default() },
        ..Volume::default()
    });
    policy.graph.set_pod(&pod);
    check(
        &policy,
        "system:node:n1,system:nodes get core/secrets shop tls
         system:node:n2,system:nodes get core/secrets shop tls
         system:node:n1,system:nodes get core/secrets shop other
         system:node:n1,system:nodes list core/secrets shop
         system:node:n1,system:nodes list core/services
         system:node:n1,system:nodes get core/nodes - n2
         system:node:n1,system:nodes update coordination.k8s.io/leases kube-node-lease n1
         system:node:n1,system:nodes update coordination.k8s.io/leases kube-node-lease n2
         system:node:n1 get core/secrets shop tls",
        expect![[r#"
            system:node:n1,system:nodes get core/secrets shop tls: Allow("")
            system:node:n2,system:nodes get core/secrets shop tls: NoOpinion("no relationship found between node 'n2' and this object")
            system:node:n1,system:nodes get core/secrets shop other: NoOpinion("no relationship found between node 'n1' and this object")
            system:node:n1,system:nodes list core/secrets shop: NoOpinion("No Object name found")
            system:node:n1,system:nodes list core/services: Allow("")
            system:node:n1,system:nodes get core/nodes - n2: NoOpinion("node 'n1' cannot read 'n2', only its own Node object")
            system:node:n1,system:nodes update coordination.k8s.io/leases kube-node-lease n1: Allow("")
            system:node:n1,system:nodes update coordination.k8s.io/leases kube-node-lease n2: NoOpinion("can only access node lease with the same name as the requesting node")
            system:node:n1 get core/secrets shop tls: NoOpinion("")"#]],
    );
    policy.graph.remove_pod("shop", "web");
    check(
        &policy,
        "system:node:n1,system:nodes get core/secrets shop tls",
        expect![[
            r#"system:node:n1,system:nodes get core/secrets shop tls: NoOpinion("no relationship found between node 'n1' and this object")"#
        ]],
    );
    assert!(policy.graph.is_empty());
}

#[test]
fn granting_needs_holding() {
    let policy = defaults();
    let groups = vec!["dev".to_string()];
    let user = User { name: "jane", groups: &groups };
    let rule = PolicyRule {
        verbs: vec!["get".into(), "list".into()],
        api_groups: vec!["".into()],
        resources: vec!["pods".into()],
        ..PolicyRule::default()
    };
    let refused = escalation::check_role(&policy, user, "default", "reader", &[rule]).unwrap_err();
    expect![[r#"
        user "jane" (groups=["dev"]) is attempting to grant RBAC permissions not currently held:
        {APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}"#]]
    .assert_eq(&refused.0);
    let nobody = RoleRef { kind: "ClusterRole".into(), name: "nobody".into(), ..RoleRef::default() };
    let refused = escalation::check_binding(&policy, user, "", &nobody).unwrap_err();
    expect![[r#"clusterrole.rbac.authorization.k8s.io "nobody" not found"#]].assert_eq(&refused.0);
}

#[test]
fn reconciling_adds_and_never_takes() {
    let wanted =
        bootstrap::policy().cluster_roles.into_iter().find(|role| role.metadata.name == "system:kube-dns");
    let wanted = wanted.unwrap();
    let mut stored = ClusterRole { metadata: wanted.metadata.clone(), ..ClusterRole::default() };
    let next = bootstrap::reconcile_cluster_role(&stored, &wanted).unwrap();
    assert_eq!(bootstrap::reconcile_cluster_role(&next, &wanted), None);
    stored.metadata.annotations.insert("rbac.authorization.kubernetes.io/autoupdate".into(), "false".into());
    assert_eq!(bootstrap::reconcile_cluster_role(&stored, &wanted), None);
}
