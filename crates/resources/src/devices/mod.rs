//! The resource.k8s.io group: devices that nodes offer and pods claim.

pub mod device_class;
pub mod resource_claim;
pub mod resource_slice;
mod selectors;

#[cfg(test)]
mod tests {
    use crate::tests_support::*;
    use expect_test::expect;

    const CLAIM: &str = "{metadata: {name: c, namespace: ns, resourceVersion: '1'}, spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: gpu}}, \
                         {name: any, firstAvailable: [{name: a, deviceClassName: gpu, allocationMode: All}, {name: b, deviceClassName: gpu}]}]}}}";

    #[test]
    fn claims_have_defaults_and_rules() {
        check_default(
            "resourceclaims",
            CLAIM,
            expect![[r#"
            apiVersion: resource.k8s.io/v1
            kind: ResourceClaim
            metadata:
              name: c
              namespace: ns
              resourceVersion: "1"
            spec:
              devices:
                requests:
                - exactly:
                    allocationMode: ExactCount
                    count: 1
                    deviceClassName: gpu
                  name: gpu
                - firstAvailable:
                  - allocationMode: All
                    deviceClassName: gpu
                    name: a
                  - allocationMode: ExactCount
                    count: 1
                    deviceClassName: gpu
                    name: b
                  name: any
            status: {}
        "#]],
        );
        check_errors("resourceclaims", CLAIM, expect![[""]]);
        check_errors(
            "resourceclaims",
            "{metadata: {name: c, namespace: ns}, spec: {devices: {requests: [{name: A}, {name: x, exactly: {count: 2, allocationMode: All}}, \
             {name: x, exactly: {deviceClassName: C, allocationMode: Some, count: -1}, firstAvailable: [{}]}, \
             {name: w, exactly: {deviceClassName: c, count: -1}}], \
             constraints: [{requests: [zzz]}]}}}",
            expect![[r#"
                spec.devices.requests[0].name: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
                spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required
                spec.devices.requests[1].exactly.deviceClassName: Required value
                spec.devices.requests[1].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'
                spec.devices.requests[2]: Invalid value: null: exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set
                spec.devices.requests[2]: Duplicate value: "x"
                spec.devices.requests[3].exactly.count: Invalid value: -1: must be greater than zero
                spec.devices.constraints[0].requests[0]: Invalid value: "zzz": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'
            "#]],
        );
        check_update_errors(
            "resourceclaims",
            CLAIM,
            &CLAIM.replace("name: gpu,", "name: cpu,"),
            expect![[r#"
                spec: Invalid value: {"devices":{"requests":[{"name":"cpu","exactly":{"deviceClassName":"gpu","allocationMode":"ExactCount","count":1}},{"name":"any","firstAvailable":[{"name":"a","deviceClassName":"gpu","allocationMode":"All"},{"name":"b","deviceClassName":"gpu","allocationMode":"ExactCount","count":1}]}]}}: field is immutable
            "#]],
        );
        check_row(
            "resourceclaims",
            CLAIM,
            expect![[r#"
            Name: "c"
            State: "pending"
            Age: "<unknown>"
        "#]],
        );
        check_row(
            "resourceclaims",
            "{metadata: {name: c}, status: {allocation: {}, reservedFor: [{resource: pods, name: p, uid: u}]}}",
            expect![[r#"
                Name: "c"
                State: "allocated,reserved"
                Age: "<unknown>"
            "#]],
        );
    }

    #[test]
    fn slices_belong_to_one_node_or_to_many() {
        let slice = "{metadata: {name: s, resourceVersion: '1'}, spec: {driver: d.example.com, nodeName: n1, pool: {name: n1, generation: 1, resourceSliceCount: 1}, devices: [{name: d0}]}}";
        check_errors("resourceslices", slice, expect![[""]]);
        check_row(
            "resourceslices",
            slice,
            expect![[r#"
            Name: "s"
            Node: "n1"
            Driver: "d.example.com"
            Pool: "n1"
            Age: "<unknown>"
        "#]],
        );
        check_errors(
            "resourceslices",
            "{metadata: {name: s}, spec: {nodeName: n1, allNodes: true, pool: {generation: -1}, devices: [{name: D}, {name: d}, {name: d}]}}",
            expect![[r#"
                spec.driver: Required value
                spec.pool.name: Required value
                spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero
                spec.pool.generation: Invalid value: -1: must be greater than or equal to zero
                spec: Invalid value: "{`nodeName`, `allNodes`}": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set
                spec.devices[0].name: Invalid value: "D": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
                spec.devices[2]: Duplicate value: "d"
            "#]],
        );
        check_update_errors(
            "resourceslices",
            slice,
            &slice.replace("nodeName: n1", "nodeName: n2"),
            expect![[r#"
                spec.nodeName: Invalid value: "n2": field is immutable
            "#]],
        );
    }
}
