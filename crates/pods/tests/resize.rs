//! Whether a node can give a pod other resources, and what it says where it cannot.

use api::core::v1::Pod;
use meta::Quantity;
use pods::resize::{Answer, differs, given, judge, wanted, with};
use std::collections::BTreeMap;
use std::sync::Arc;

fn pod(name: &str, cpu: &str) -> Pod {
    let text = format!(
        "{{metadata: {{name: {name}, uid: {name}}}, spec: {{containers: [{{name: c, resources: {{requests: {{cpu: {cpu}}}}}}}]}}}}"
    );
    api::codec::from_json(&api::codec::yaml_to_json(text.as_bytes()).unwrap()).unwrap()
}

#[test]
fn a_wish_is_taken_put_off_or_refused() {
    let node = BTreeMap::from([("cpu".to_string(), Quantity::parse("2").unwrap())]);
    let others = [Arc::new(pod("other", "1500m")), Arc::new(pod("own", "100m"))];
    assert_eq!(judge(&pod("own", "500m"), &node, &others), Answer::Accepted);
    assert_eq!(
        judge(&pod("own", "600m"), &node, &others),
        Answer::Deferred(
            "Node didn't have enough resource: cpu, requested: 600, used: 1500, capacity: 2000".into()
        )
    );
    assert_eq!(
        judge(&pod("own", "3"), &node, &others),
        Answer::Infeasible("Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000".into())
    );
}

#[test]
fn what_was_given_is_told_by_the_status() {
    let mut own = pod("own", "200m");
    assert!(!differs(&given(&own), &wanted(&own)));
    let status = r#"{"containerStatuses": [{"name": "c", "state": {"running": {}}, "resources": {"requests": {"cpu": "100m"}}}]}"#;
    own.status = api::codec::from_json(status.as_bytes()).unwrap();
    let before = given(&own);
    assert!(differs(&before, &wanted(&own)));
    assert_eq!(with(&own, &before).spec.containers[0].resources.requests["cpu"].to_string(), "100m");
}
