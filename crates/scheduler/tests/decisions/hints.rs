//! Which events give a waiting pod another try.

use crate::fixture;
use scheduler::{Event, PodInfo, may_help};
use std::sync::Arc;

fn pod(line: &str) -> Arc<PodInfo> {
    fixture::read(&format!("pod {line}")).1.unwrap()
}

fn node(line: &str) -> Arc<api::core::v1::Node> {
    fixture::read(&format!("node {line}")).0.nodes().next().unwrap().node.clone()
}

#[test]
fn room_comes_from_nodes_that_suffice_and_from_pods_that_leave() {
    let waiting = pod("p cpu=2");
    let fit = |event: &Event<'_>| may_help(event, &waiting, &["NodeResourcesFit"]);
    assert!(fit(&Event::NodeAdded(&node("n cpu=2"))));
    assert!(!fit(&Event::NodeAdded(&node("n cpu=1"))));
    assert!(fit(&Event::NodeChanged { old: &node("n cpu=2"), new: &node("n cpu=3") }));
    assert!(!fit(&Event::NodeChanged { old: &node("n memory=2Gi"), new: &node("n memory=3Gi") }));
    assert!(!fit(&Event::NodeChanged { old: &node("n"), new: &node("n label:a=b") }));
    assert!(fit(&Event::PodRemoved(&pod("other"))));
    assert!(!fit(&Event::PodPlaced(&pod("other"))));
    assert!(fit(&Event::PodChanged { old: &pod("o cpu=2"), new: &pod("o cpu=1") }));
    assert!(!fit(&Event::PodChanged { old: &pod("o cpu=1"), new: &pod("o cpu=1 label:a=b") }));
}

#[test]
fn a_plugin_that_did_not_reject_has_no_say() {
    let waiting = pod("p cpu=2");
    let lifted = Event::NodeChanged { old: &node("n cordoned"), new: &node("n") };
    assert!(may_help(&lifted, &waiting, &["NodeUnschedulable"]));
    assert!(!may_help(&lifted, &waiting, &["NodeResourcesFit"]));
    assert!(may_help(&lifted, &waiting, &[]), "an unknown reason: anything may help");
}

#[test]
fn taints_affinity_and_ports() {
    let waiting = pod("p port=80 | {spec: {nodeSelector: {disk: ssd}}}");
    let cleaned = Event::NodeChanged { old: &node("n taint=a:NoSchedule"), new: &node("n") };
    assert!(may_help(&cleaned, &waiting, &["TaintToleration"]));
    let swapped =
        Event::NodeChanged { old: &node("n taint=a:NoSchedule"), new: &node("n taint=b:NoSchedule") };
    assert!(!may_help(&swapped, &waiting, &["TaintToleration"]));
    assert!(may_help(&Event::NodeAdded(&node("n label:disk=ssd")), &waiting, &["NodeAffinity"]));
    assert!(!may_help(&Event::NodeAdded(&node("n label:disk=hdd")), &waiting, &["NodeAffinity"]));
    assert!(may_help(&Event::PodRemoved(&pod("o port=80")), &waiting, &["NodePorts"]));
    assert!(!may_help(&Event::PodRemoved(&pod("o port=81")), &waiting, &["NodePorts"]));
}

#[test]
fn pods_that_come_and_go_matter_to_affinities() {
    let near = pod(
        "p | {spec: {affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, labelSelector: {matchLabels: {app: db}}}]}}}}",
    );
    let rejected = ["InterPodAffinity"];
    assert!(may_help(&Event::PodPlaced(&pod("db label:app=db")), &near, &rejected));
    assert!(!may_help(&Event::PodPlaced(&pod("web label:app=web")), &near, &rejected));
    assert!(
        !may_help(&Event::PodPlaced(&pod("else/db label:app=db")), &near, &rejected),
        "another namespace"
    );
    let far = pod(
        "p | {spec: {affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, labelSelector: {matchLabels: {app: db}}}]}}}}",
    );
    assert!(may_help(&Event::PodRemoved(&pod("db label:app=db")), &far, &rejected));
    assert!(!may_help(&Event::PodRemoved(&pod("web label:app=web")), &far, &rejected));
}
