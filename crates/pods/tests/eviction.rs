//! Who goes first, when, and with which words.

use api::core::v1::Pod;
use pods::eviction::{
    Candidate, Condition, Monitor, Observation, Observations, Signal, Use, defaults, refusal, thresholds,
};
use std::collections::BTreeMap;
use std::sync::Arc;

fn pod(name: &str, priority: i32, request: &str) -> Arc<Pod> {
    let requests = if request.is_empty() { "{}".into() } else { format!("{{memory: {request}}}") };
    let text = format!(
        "{{metadata: {{name: {name}, uid: {name}}}, spec: {{priority: {priority}, containers: [{{name: main, resources: {{requests: {requests}}}}}]}}}}"
    );
    Arc::new(api::codec::from_json(&api::codec::yaml_to_json(text.as_bytes()).unwrap()).unwrap())
}

fn uses(pod: Arc<Pod>, mib: i64) -> Candidate {
    let bytes = mib << 20;
    let containers = BTreeMap::from([("main".to_string(), bytes)]);
    Candidate { pod, used: Use { memory_bytes: bytes, containers, ..Use::default() } }
}

fn memory(available_mib: i64) -> Observations {
    Observations::from([(
        Signal::MemoryAvailable,
        Observation { available: available_mib << 20, capacity: 4 << 30 },
    )])
}

fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

#[test]
fn who_uses_more_than_asked_goes_first_then_the_less_important() {
    let all = [
        uses(pod("modest", 0, "100Mi"), 50),
        uses(pod("greedy", 10, "100Mi"), 500),
        uses(pod("dear", 100, ""), 900),
        uses(pod("critical", 2_000_000_000, ""), 1000),
    ];
    let mut monitor =
        Monitor::new(thresholds(&defaults(), &none(), &BTreeMap::new(), &none()).unwrap(), 300, 0);
    assert_eq!(monitor.look(0, &memory(200), &all, false), Default::default());
    let verdict = monitor.look(10_000, &memory(50), &all, false);
    assert_eq!(verdict.conditions, [Condition::Memory]);
    let eviction = verdict.evict.unwrap();
    assert_eq!((eviction.uid.as_str(), eviction.grace_seconds), ("greedy", 1));
    assert_eq!(
        eviction.message,
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container main was using 500Mi, request is 100Mi, has larger consumption of memory. "
    );
    // The condition outlives the pressure by the transition period.
    assert_eq!(monitor.look(200_000, &memory(200), &all, false).conditions, [Condition::Memory]);
    assert!(monitor.look(400_000, &memory(200), &all, false).conditions.is_empty());
}

#[test]
fn soft_thresholds_wait_and_reclaim_has_a_margin() {
    let soft = BTreeMap::from([("memory.available".to_string(), "1Gi".to_string())]);
    let grace = BTreeMap::from([("memory.available".to_string(), 60)]);
    let margin = BTreeMap::from([("memory.available".to_string(), "512Mi".to_string())]);
    assert!(thresholds(&none(), &soft, &BTreeMap::new(), &none()).is_err());
    let list = thresholds(&none(), &soft, &grace, &margin).unwrap();
    let mut monitor = Monitor::new(list, 0, 20);
    let all = [uses(pod("one", 0, ""), 10)];
    assert_eq!(monitor.look(0, &memory(900), &all, false).evict, None);
    let late = monitor.look(60_000, &memory(900), &all, false).evict.unwrap();
    assert_eq!(late.grace_seconds, 20);
    // Above the threshold, but not by the margin.
    assert!(monitor.look(70_000, &memory(1200), &all, false).evict.is_some());
    assert!(monitor.look(80_000, &memory(1600), &all, false).evict.is_none());
}

#[test]
fn disks_are_cleared_before_a_pod_goes() {
    let full = Observations::from([(Signal::NodefsAvailable, Observation { available: 1, capacity: 1000 })]);
    let mut monitor =
        Monitor::new(thresholds(&defaults(), &none(), &BTreeMap::new(), &none()).unwrap(), 0, 0);
    let all = [uses(pod("one", 0, ""), 10)];
    let verdict = monitor.look(0, &full, &all, false);
    assert!(verdict.reclaim_disk && verdict.evict.is_none());
    assert!(monitor.look(1000, &full, &all, true).evict.is_some());
}

#[test]
fn a_pressed_node_turns_pods_away() {
    let best = pod("best", 0, "");
    assert_eq!(refusal(&best, &[]), None);
    assert_eq!(refusal(&best, &[Condition::Memory]).unwrap(), "The node had condition: [MemoryPressure]. ");
    assert_eq!(refusal(&pod("asks", 0, "1Mi"), &[Condition::Memory]), None);
    assert!(refusal(&pod("asks", 0, "1Mi"), &[Condition::Memory, Condition::Disk]).is_some());
    assert_eq!(refusal(&pod("critical", 2_000_000_000, ""), &[Condition::Disk]), None);
}
