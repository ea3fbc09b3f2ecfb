//! Ingresses, policies and ranges.

use crate::tests_support::*;
use expect_test::expect;

#[test]
fn ingresses_lead_somewhere() {
    let ingress = "{metadata: {name: i, namespace: default}, spec: {rules: [{host: a.example.com, http: {paths: [{path: /, pathType: Prefix, \
                   backend: {service: {name: web, port: {number: 80}}}}]}}]}}";
    check_errors("ingresses", ingress, expect![""]);
    check_row(
        "ingresses",
        ingress,
        expect![[r#"
        Name: "i"
        Class: "<none>"
        Hosts: "a.example.com"
        Address: ""
        Ports: "80"
        Age: "<unknown>"
    "#]],
    );
    check_errors(
        "ingresses",
        "{metadata: {name: i, namespace: default}, spec: {rules: [{host: 10.0.0.1, http: {paths: [{path: a//b, pathType: Exact, backend: {}}, {}]}}], tls: [{hosts: ['*x']}]}}",
        expect![[r#"
            spec.rules[0].host: Invalid value: "10.0.0.1": must be a DNS name, not an IP address
            spec.rules[0].http.paths[0].path: Invalid value: "a//b": must be an absolute path
            spec.rules[0].http.paths[0].path: Invalid value: "a//b": must not contain '//'
            spec.rules[0].http.paths[0].backend: Invalid value: "": resource or service backend is required
            spec.rules[0].http.paths[1].pathType: Required value: pathType must be specified
            spec.tls[0].hosts[0]: Invalid value: "*x": a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        "#]],
    );
    check_errors(
        "ingresses",
        "{metadata: {name: i, namespace: default}}",
        expect![[r#"
        spec: Invalid value: null: either `defaultBackend` or `rules` must be specified
    "#]],
    );
    check_errors(
        "ingressclasses",
        "{metadata: {name: i}, spec: {controller: x, parameters: {kind: a, name: b, namespace: c}}}",
        expect![[r#"
            spec.controller: Invalid value: "x": must be a domain-prefixed path (such as "acme.io/foo")
            spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'
        "#]],
    );
}

#[test]
fn policies_imply_their_types() {
    check_default(
        "networkpolicies",
        "{metadata: {name: p}, spec: {egress: [{ports: [{port: 53}]}]}}",
        expect![[r#"
            apiVersion: networking.k8s.io/v1
            kind: NetworkPolicy
            metadata:
              name: p
            spec:
              egress:
              - ports:
                - port: 53
                  protocol: TCP
              podSelector: {}
              policyTypes:
              - Ingress
              - Egress
        "#]],
    );
    check_errors(
        "networkpolicies",
        "{metadata: {name: p, namespace: default}, spec: {ingress: [{from: [{}, {ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/8, 10.0.0.1/16]}}], \
                 ports: [{port: 0, endPort: 5}, {protocol: ICMP, endPort: 1}]}]}}",
        expect![[r#"
            spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive
            spec.ingress[0].ports[1].protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP"
            spec.ingress[0].ports[1].endPort: Invalid value: 1: may not be specified when `port` is not specified
            spec.ingress[0].from[0]: Required value: must specify a peer
            spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: "11.0.0.0/8": must be a strict subset of `cidr`
            spec.ingress[0].from[1].ipBlock.except[1]: Invalid value: "10.0.0.1/16": must not have bits set beyond the prefix length
        "#]],
    );
}

#[test]
fn addresses_are_their_names() {
    check_errors(
        "ipaddresses",
        "{metadata: {name: '2001:DB8::1'}}",
        expect![[r#"
        metadata.name: Invalid value: "2001:DB8::1": must be in canonical form ("2001:db8::1")
        spec.parentRef: Required value
    "#]],
    );
    check_row(
        "ipaddresses",
        "{metadata: {name: 10.96.0.1}, spec: {parentRef: {resource: services, namespace: default, name: kubernetes}}}",
        expect![[r#"
            Name: "10.96.0.1"
            ParentRef: "services/default/kubernetes"
            Age: "<unknown>"
        "#]],
    );
    check_errors(
        "servicecidrs",
        "{metadata: {name: r}, spec: {cidrs: [10.96.0.0/16, 10.97.0.0/16]}}",
        expect![[r#"
            spec.cidrs: Invalid value: ["10.96.0.0/16","10.97.0.0/16"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96
        "#]],
    );
}
