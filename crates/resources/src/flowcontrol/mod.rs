//! The flowcontrol group: which requests wait for which.

pub mod flow_schema;
pub mod priority_level_configuration;

#[cfg(test)]
mod tests {
    use crate::tests_support::*;
    use expect_test::expect;

    #[test]
    fn schemas_have_defaults_and_rules() {
        let schema = "{metadata: {name: f}, spec: {priorityLevelConfiguration: {name: low}, rules: [{subjects: [{kind: User, user: {name: a}}], \
                      resourceRules: [{verbs: [get], apiGroups: ['*'], resources: ['*'], namespaces: ['*']}]}]}}";
        check_default(
            "flowschemas",
            schema,
            expect![[r#"
            apiVersion: flowcontrol.apiserver.k8s.io/v1
            kind: FlowSchema
            metadata:
              name: f
            spec:
              matchingPrecedence: 1000
              priorityLevelConfiguration:
                name: low
              rules:
              - resourceRules:
                - apiGroups:
                  - "*"
                  namespaces:
                  - "*"
                  resources:
                  - "*"
                  verbs:
                  - get
                subjects:
                - kind: User
                  user:
                    name: a
            status: {}
        "#]],
        );
        check_errors("flowschemas", schema, expect![[""]]);
        check_row(
            "flowschemas",
            schema,
            expect![[r#"
            Name: "f"
            PriorityLevel: "low"
            MatchingPrecedence: 1000
            DistinguisherMethod: "<none>"
            Age: "<unknown>"
            MissingPL: "?"
        "#]],
        );
        check_errors(
            "flowschemas",
            "{metadata: {name: f}, spec: {matchingPrecedence: 1, distinguisherMethod: {type: Odd}, rules: [{}, \
             {subjects: [{kind: Group, user: {}}], resourceRules: [{verbs: [see]}], nonResourceRules: [{verbs: ['*', get], nonResourceURLs: [x]}]}]}}",
            expect![[r#"
                spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1
                spec.distinguisherMethod.type: Unsupported value: {"type":"Odd"}: supported values: "ByNamespace", "ByUser"
                spec.priorityLevelConfiguration.name: Required value: must reference a priority level
                spec.rules[0].subjects: Required value: subjects must contain at least one value
                spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty
                spec.rules[1].subjects[0].group: Required value: group is required when subject kind is 'Group'
                spec.rules[1].subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User'
                spec.rules[1].resourceRules[0].verbs: Unsupported value: ["see"]: supported values: "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"
                spec.rules[1].resourceRules[0].apiGroups: Required value: resource rules must supply at least one api group
                spec.rules[1].resourceRules[0].resources: Required value: resource rules must supply at least one resource
                spec.rules[1].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace
                spec.rules[1].nonResourceRules[0].verbs: Invalid value: ["*","get"]: if '*' is present, must not specify other verbs
                spec.rules[1].nonResourceRules[0].nonResourceURLs[0]: Invalid value: "x": must start with slash
            "#]],
        );
    }

    #[test]
    fn levels_have_defaults_and_rules() {
        let level = "{metadata: {name: l}, spec: {type: Limited, limited: {limitResponse: {type: Queue, queuing: {}}}}}";
        check_default(
            "prioritylevelconfigurations",
            level,
            expect![[r#"
            apiVersion: flowcontrol.apiserver.k8s.io/v1
            kind: PriorityLevelConfiguration
            metadata:
              name: l
            spec:
              limited:
                lendablePercent: 0
                limitResponse:
                  queuing:
                    handSize: 8
                    queueLengthLimit: 50
                    queues: 64
                  type: Queue
                nominalConcurrencyShares: 30
              type: Limited
            status: {}
        "#]],
        );
        check_errors("prioritylevelconfigurations", level, expect![[""]]);
        check_row(
            "prioritylevelconfigurations",
            level,
            expect![[r#"
            Name: "l"
            Type: "Limited"
            NominalConcurrencyShares: 30
            Queues: 64
            HandSize: 8
            QueueLengthLimit: 50
            Age: "<unknown>"
        "#]],
        );
        check_errors(
            "prioritylevelconfigurations",
            "{metadata: {name: l}, spec: {type: Exempt, limited: {}}}",
            expect![[r#"
                spec.type: Invalid value: "Exempt": must be 'Exempt' if and only if `name` is 'exempt'
                spec.limited: Forbidden: must be nil if the type is not Limited
            "#]],
        );
        check_errors(
            "prioritylevelconfigurations",
            "{metadata: {name: l}, spec: {type: Limited, exempt: {}, limited: {nominalConcurrencyShares: -1, lendablePercent: 101, \
             limitResponse: {type: Queue, queuing: {queues: 1000, handSize: 10, queueLengthLimit: -1}}}}}",
            expect![[r#"
                spec.exempt: Forbidden: must be nil if the type is Limited
                spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer
                spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: -1: must be positive
                spec.limited.limitResponse.queuing.handSize: Invalid value: 10: required entropy bits of deckSize 1000 and handSize 10 should not be greater than 60
                spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive
            "#]],
        );
    }
}
