//! A snapshot changed step by step says the same as one made at once from the cluster's final state.

use crate::fixture;
use proptest::prelude::*;
use scheduler::{Profile, Snapshot, explain};
use std::collections::BTreeMap;

const NODES: [&str; 3] = ["n0 zone=a", "n1 zone=b image=app:1@300", "n2 zone=a cpu=2"];
const OTHER_NODES: [&str; 3] = ["n0 zone=b taint=x:NoSchedule", "n1 cpu=1", "n2 image=app:1@300"];
const FAR: &str = "{spec: {affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: topology.kubernetes.io/zone, labelSelector: {matchLabels: {app: web}}}]}}}}";
const NEAR: &str = "{spec: {affinity: {podAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 3, podAffinityTerm: {topologyKey: topology.kubernetes.io/zone, labelSelector: {matchLabels: {app: web}}}}]}}}}";
const GOING: &str = "{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}}";
const SPREAD: &str = "{spec: {topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}]}}";
const SERVICE: &str = "service web | {spec: {selector: {app: web}}}";

#[derive(Debug, Clone)]
enum Step {
    SetNode(usize, bool),
    RemoveNode(usize),
    SetPod(usize, usize, usize),
    RemovePod(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_usize, any::<bool>()).prop_map(|(node, other)| Step::SetNode(node, other)),
        (0..3_usize).prop_map(Step::RemoveNode),
        (0..6_usize, 0..3_usize, 0..6_usize).prop_map(|(pod, node, kind)| Step::SetPod(pod, node, kind)),
        (0..6_usize).prop_map(Step::RemovePod),
    ]
}

fn pod_line(pod: usize, node: usize, kind: usize) -> String {
    let kind = match kind {
        0 => "cpu=500m label:app=web".to_owned(),
        1 => "memory=1Gi label:app=db port=80".to_owned(),
        2 => format!("label:app=web | {GOING}"),
        3 => format!("label:app=db | {FAR}"),
        4 => format!("label:app=web | {NEAR}"),
        _ => "label:app=web port=443".to_owned(),
    };
    format!("pod p{pod} on=n{node} {kind}")
}

fn apply(snapshot: &mut Snapshot, lines: &mut BTreeMap<String, String>, step: &Step) {
    match step {
        Step::SetNode(at, other) => {
            let line = if *other { OTHER_NODES[*at] } else { NODES[*at] };
            let (made, _) = fixture::read(&format!("node {line}"));
            snapshot.set_node(made.nodes().next().unwrap().node.clone());
            lines.insert(format!("a n{at}"), format!("node {line}"));
        }
        Step::RemoveNode(at) => {
            snapshot.remove_node(&format!("n{at}"));
            lines.remove(&format!("a n{at}"));
        }
        Step::SetPod(pod, node, kind) => {
            let line = pod_line(*pod, *node, *kind);
            let (made, _) = fixture::read(&format!("node n{node}\n{line}"));
            snapshot.with(made.nodes().next().unwrap().pods[0].pod.clone());
            lines.insert(format!("b p{pod}"), line);
        }
        Step::RemovePod(pod) => {
            snapshot.remove_pod(&format!("default/p{pod}"));
            lines.remove(&format!("b p{pod}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200, ..Default::default() })]
    #[test]
    fn step_by_step_is_as_at_once(steps in prop::collection::vec(step(), 1..40)) {
        let (mut snapshot, _) = fixture::read(SERVICE);
        let mut lines = BTreeMap::new();
        for step in &steps {
            apply(&mut snapshot, &mut lines, step);
        }
        let text = lines.values().cloned().collect::<Vec<_>>().join("\n");
        let (fresh, _) = fixture::read(&format!("{SERVICE}\n{text}"));
        for probe in ["cpu=1 label:app=web port=80 image=app:1".to_owned(), format!("label:app=web | {SPREAD}"),
            format!("label:app=web | {FAR}"), format!("label:app=web | {NEAR}")] {
            let (_, pod) = fixture::read(&format!("pod probe {probe}"));
            let (pod, profile) = (pod.unwrap(), Profile::default());
            prop_assert_eq!(explain(&snapshot, &profile, &pod), explain(&fresh, &profile, &pod), "{}", text);
        }
    }
}
