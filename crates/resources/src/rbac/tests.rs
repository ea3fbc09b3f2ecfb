//! Roles and bindings.

use crate::tests_support::*;
use expect_test::expect;

#[test]
fn rules_name_what_they_allow() {
    check_errors(
        "roles",
        "{metadata: {name: 'system:a', namespace: default}, rules: [{nonResourceURLs: [/x]}, {verbs: [get]}]}",
        expect![[r#"
            rules[0].verbs: Required value: verbs must contain at least one value
            rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs
            rules[1].apiGroups: Required value: resource rules must supply at least one api group
            rules[1].resources: Required value: resource rules must supply at least one resource
        "#]],
    );
    check_errors(
        "clusterroles",
        "{metadata: {name: a/b}, aggregationRule: {}}",
        expect![[r#"
        metadata.name: Invalid value: "a/b": may not contain '/'
        aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil
    "#]],
    );
}

#[test]
fn bindings_keep_their_role() {
    let binding = "{metadata: {name: b, namespace: default, resourceVersion: '1'}, roleRef: {kind: Role, name: r}, subjects: [{kind: User, name: u}, \
                   {kind: ServiceAccount, name: s, namespace: n1}]}";
    check_default(
        "rolebindings",
        binding,
        expect![[r#"
        apiVersion: rbac.authorization.k8s.io/v1
        kind: RoleBinding
        metadata:
          name: b
          namespace: default
          resourceVersion: "1"
        roleRef:
          apiGroup: rbac.authorization.k8s.io
          kind: Role
          name: r
        subjects:
        - apiGroup: rbac.authorization.k8s.io
          kind: User
          name: u
        - kind: ServiceAccount
          name: s
          namespace: n1
    "#]],
    );
    check_update_errors(
        "rolebindings",
        binding,
        &binding.replace("name: r}", "name: q}"),
        expect![[r#"
        roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"q"}: cannot change roleRef
    "#]],
    );
    check_row(
        "rolebindings",
        binding,
        expect![[r#"
        Name: "b"
        Role: "Role/r"
        Age: "<unknown>"
        Users: "u"
        Groups: ""
        ServiceAccounts: "n1/s"
    "#]],
    );
    check_errors(
        "clusterrolebindings",
        "{metadata: {name: b}, roleRef: {kind: Role}, subjects: [{kind: ServiceAccount, name: s}, {kind: Odd}]}",
        expect![[r#"
            roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"
            roleRef.name: Required value
            subjects[0].namespace: Required value
            subjects[1].name: Required value
            subjects[1].kind: Unsupported value: "Odd": supported values: "ServiceAccount", "User", "Group"
        "#]],
    );
}
