//! Requests for certificates.

use crate::Requester;
use crate::tests_support::*;
use expect_test::expect;
use std::collections::BTreeMap;

const CSR: &str = "{metadata: {name: c, resourceVersion: '1'}, spec: {request: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KQQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K, \
                   signerName: kubernetes.io/kube-apiserver-client, usages: [client auth], username: me}}";

#[test]
fn who_asks_is_not_for_the_user_to_say() {
    let row = row_of("certificatesigningrequests");
    let mut request = object("certificatesigningrequests", CSR);
    let groups = ["system:authenticated".to_string()];
    let requester = Requester { name: "alice", uid: "1", groups: &groups, extra: &BTreeMap::new() };
    row.set_requester(request.as_mut(), &requester);
    let value = api::codec::to_value(request.as_dyn());
    assert_eq!(value["spec"]["username"], "alice");
    assert_eq!(value["spec"]["groups"][0], "system:authenticated");
    assert!(row.validate_create(request.as_ref()).is_empty());
}

#[test]
fn approval_goes_through_its_own_door() {
    let approved =
        CSR.replace("spec: {", "status: {conditions: [{type: Approved, status: 'True'}]}, spec: {");
    let row = row_of("certificatesigningrequests");
    let old = object("certificatesigningrequests", CSR);
    let mut new = object("certificatesigningrequests", &approved);
    row.prepare_for_subresource("approval", new.as_mut(), old.as_ref());
    assert!(row.validate_subresource("approval", new.as_ref(), old.as_ref()).is_empty());
    let mut new = object("certificatesigningrequests", &approved);
    row.prepare_for_subresource("status", new.as_mut(), old.as_ref());
    let errors = row.validate_subresource("status", new.as_ref(), old.as_ref());
    expect![[r#"status.conditions: Forbidden: updates may not add a condition of type "Approved""#]]
        .assert_eq(&errors.to_string());
    check_row(
        "certificatesigningrequests",
        &approved,
        expect![[r#"
        Name: "c"
        Age: "<unknown>"
        SignerName: "kubernetes.io/kube-apiserver-client"
        Requestor: "me"
        RequestedDuration: "<none>"
        Condition: "Approved"
    "#]],
    );
    check_errors(
        "certificatesigningrequests",
        "{metadata: {name: c}, spec: {request: eA==, signerName: x, usages: [odd], expirationSeconds: 5}}",
        expect![[r#"
            spec.request: Invalid value: "eA==": PEM block type must be CERTIFICATE REQUEST
            spec.usages[0]: Unsupported value: "odd": supported values: "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment", "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel", "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime", "server auth", "signing", "timestamping"
            spec.signerName: Invalid value: "x": must be a fully qualified domain and path of the form 'example.com/signer-name'
            spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 600 seconds (10 minutes)
        "#]],
    );
}
