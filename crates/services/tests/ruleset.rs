//! Rules of services, as text: what the API says goes in as YAML, what a node does comes out.

use api::core::v1::Service;
use api::discovery::v1::EndpointSlice;
use expect_test::{Expect, expect};
use services::{NodeConfig, ruleset};

/// Services and slices from YAML documents; a slice is one that has endpoints.
fn check(yaml: &str, expected: &Expect) {
    let (mut services, mut slices) = (Vec::new(), Vec::new());
    for document in yaml.split("---\n") {
        let json = api::codec::yaml_to_json(document.as_bytes()).unwrap();
        if document.contains("endpoints:") {
            let mut slice: EndpointSlice = api::codec::from_json(&json).unwrap();
            slice.metadata.labels.insert(services::SERVICE_NAME_LABEL.into(), "web".into());
            slice.metadata.namespace = "shop".into();
            slices.push(slice);
        } else {
            let mut service: Service = api::codec::from_json(&json).unwrap();
            service.metadata.namespace = "shop".into();
            services.push(service);
        }
    }
    let node = NodeConfig { node_name: "here".into(), zone: "east".into() };
    expected.assert_eq(&ruleset(&services, &slices, &node).to_string());
}

const SLICE: &str = "
addressType: IPv4
ports: [{name: http, protocol: TCP, port: 8080}]
endpoints:
- {addresses: [10.244.0.7], nodeName: here, conditions: {ready: true}}
- {addresses: [10.244.1.3], nodeName: there, conditions: {ready: true}}
- {addresses: [10.244.1.4], nodeName: there, conditions: {ready: false, serving: false}}
- {addresses: [10.244.1.5], nodeName: there, conditions: {ready: false, serving: true, terminating: true}}
";

#[test]
fn ready_endpoints_serve_at_every_address() {
    check(
        &format!(
            "
metadata: {{name: web}}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.20
  clusterIPs: [10.96.0.20]
  externalIPs: [198.51.100.7]
  loadBalancerSourceRanges: [' 203.0.113.0/24']
  ports: [{{name: http, port: 80, nodePort: 30080}}, {{name: other, port: 81, protocol: UDP}}]
status:
  loadBalancer: {{ingress: [{{ip: 198.51.100.9}}, {{ip: 198.51.100.10, ipMode: Proxy}}, {{hostname: lb.example}}]}}
---
{SLICE}"
        ),
        &expect![[r#"
            shop/web:http IPv4 TCP
              cluster: 10.244.0.7:8080 10.244.1.3:8080
              ClusterIp 10.96.0.20:80 -> Cluster
              ExternalIp 198.51.100.7:80 -> Cluster
              LoadBalancer 198.51.100.9:80 -> Cluster from 203.0.113.0/24
              NodePort *:30080 -> Cluster
            shop/web:other IPv4 UDP
              ClusterIp 10.96.0.20:81 -> Reject
              ExternalIp 198.51.100.7:81 -> Reject
              LoadBalancer 198.51.100.9:81 -> Reject from 203.0.113.0/24
            hairpin: 10.244.0.7
        "#]],
    );
}

#[test]
fn a_local_policy_confines_outsiders_to_this_node() {
    check(
        &format!(
            "
metadata: {{name: web}}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.20
  externalTrafficPolicy: Local
  healthCheckNodePort: 32000
  sessionAffinity: ClientIP
  sessionAffinityConfig: {{clientIP: {{timeoutSeconds: 60}}}}
  ports: [{{name: http, port: 80, nodePort: 30080}}]
---
{SLICE}"
        ),
        &expect![[r#"
            shop/web:http IPv4 TCP affinity 60s
              cluster: 10.244.0.7:8080 10.244.1.3:8080
              local: 10.244.0.7:8080
              ClusterIp 10.96.0.20:80 -> Cluster
              NodePort *:30080 -> Local
            hairpin: 10.244.0.7
            health check :32000 1 local
        "#]],
    );
}

#[test]
fn a_local_policy_without_endpoints_here_drops_and_without_any_rejects() {
    let service = "
metadata: {name: web}
spec:
  type: NodePort
  clusterIP: 10.96.0.20
  internalTrafficPolicy: Local
  externalTrafficPolicy: Local
  ports: [{name: http, port: 80, nodePort: 30080}]
";
    let elsewhere = SLICE.replace("nodeName: here", "nodeName: there");
    check(
        &format!("{service}---\n{elsewhere}"),
        &expect![[r#"
            shop/web:http IPv4 TCP
              cluster: 10.244.0.7:8080 10.244.1.3:8080
              ClusterIp 10.96.0.20:80 -> Drop
              NodePort *:30080 -> Drop
        "#]],
    );
    check(
        service,
        &expect![[r#"
            shop/web:http IPv4 TCP
              ClusterIp 10.96.0.20:80 -> Reject
              NodePort *:30080 -> Reject
        "#]],
    );
}

#[test]
fn endpoints_that_terminate_but_serve_stand_in_when_none_is_ready() {
    let service = "
metadata: {name: web}
spec: {clusterIP: 10.96.0.20, ports: [{name: http, port: 80}]}
";
    check(
        &format!("{service}---\n{}", SLICE.replace("ready: true", "ready: false, serving: false")),
        &expect![[r#"
            shop/web:http IPv4 TCP
              cluster: 10.244.1.5:8080
              ClusterIp 10.96.0.20:80 -> Cluster
        "#]],
    );
}

#[test]
fn hints_keep_traffic_near_only_when_all_carry_them() {
    let service = "
metadata: {name: web}
spec: {clusterIP: 10.96.0.20, ports: [{name: http, port: 80}]}
";
    let slice = |first: &str, second: &str| {
        format!(
            "{service}---
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints:
- {{addresses: [10.244.0.7], hints: {first}}}
- {{addresses: [10.244.1.3], hints: {second}}}
"
        )
    };
    let near = expect![[r#"
        shop/web:http IPv4 TCP
          cluster: 10.244.1.3:8080
          ClusterIp 10.96.0.20:80 -> Cluster
    "#]];
    let all = expect![[r#"
        shop/web:http IPv4 TCP
          cluster: 10.244.0.7:8080 10.244.1.3:8080
          ClusterIp 10.96.0.20:80 -> Cluster
    "#]];
    check(&slice("{forZones: [{name: west}]}", "{forZones: [{name: east}]}"), &near);
    check(&slice("{forZones: [{name: west}]}", "{}"), &all);
    check(&slice("{forZones: [{name: west}]}", "{forZones: [{name: south}]}"), &all);
    let node =
        |zone: &str, node: &str| format!("{{forZones: [{{name: {zone}}}], forNodes: [{{name: {node}}}]}}");
    check(&slice(&node("east", "there"), &node("east", "here")), &near);
}

#[test]
fn both_families_have_rules_of_their_own() {
    check(
        "
metadata: {name: web}
spec:
  clusterIP: 10.96.0.20
  clusterIPs: [10.96.0.20, 'fd00::20']
  ports: [{port: 80, targetPort: 8080}]
---
addressType: IPv6
ports: [{name: '', port: 8080}]
endpoints: [{addresses: ['fd00:1::7'], nodeName: here}]
",
        &expect![[r#"
            shop/web IPv4 TCP
              ClusterIp 10.96.0.20:80 -> Reject
            shop/web IPv6 TCP
              cluster: [fd00:1::7]:8080
              ClusterIp [fd00::20]:80 -> Cluster
            hairpin: fd00:1::7
        "#]],
    );
}

#[test]
fn services_without_an_address_have_no_rules() {
    for spec in [
        "spec: {clusterIP: None, ports: [{port: 80}]}",
        "spec: {type: ExternalName, externalName: example.com}",
        "spec: {clusterIP: 10.96.0.20, type: ExternalName, externalName: example.com}",
    ] {
        check(&format!("metadata: {{name: web}}\n{spec}"), &expect![""]);
    }
    let labels = "{service.kubernetes.io/service-proxy-name: mesh}";
    check(
        &format!(
            "metadata: {{name: web, labels: {labels}}}\nspec: {{clusterIP: 10.96.0.20, ports: [{{port: 80}}]}}"
        ),
        &expect![""],
    );
}
