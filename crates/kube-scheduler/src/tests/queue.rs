//! Who is tried when.

use crate::queue::{Failure, Queue, Timing};
use api::core::v1::Pod;
use scheduler::{Event, PodInfo};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

fn pod(name: &str, more: &str) -> Arc<PodInfo> {
    let text = format!("{{metadata: {{name: {name}, namespace: d, uid: {name}}}, spec: {{{more}}}}}");
    let json = api::codec::yaml_to_json(text.as_bytes()).unwrap();
    Arc::new(PodInfo::new(Arc::new(api::codec::from_json::<Pod>(&json).unwrap())))
}

fn queue(pods: &[Arc<PodInfo>], now: Instant) -> Queue {
    let mut queue = Queue::new(Timing::default());
    for pod in pods {
        queue.set(pod.clone(), now);
    }
    queue
}

fn popped(queue: &mut Queue, now: Instant) -> String {
    let mut names = Vec::new();
    while let Some(pod) = queue.pop(now) {
        names.push(pod.uid().to_owned());
    }
    names.join(" ")
}

fn fit() -> Failure {
    Failure::Unschedulable(vec!["NodeResourcesFit"])
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn higher_priority_goes_first_then_who_came_first() {
    let now = Instant::now();
    let pods = [pod("a", ""), pod("b", "priority: 5"), pod("c", ""), pod("d", "priority: 5")];
    assert_eq!(popped(&mut queue(&pods, now), now), "b d a c");
}

#[test]
fn gates_hold_a_pod_back_until_lifted() {
    let now = Instant::now();
    let mut queue = queue(&[pod("a", "schedulingGates: [{name: g}]")], now);
    assert_eq!(popped(&mut queue, now), "");
    queue.set(pod("a", ""), now);
    assert_eq!(popped(&mut queue, now), "a");
}

#[test]
fn an_unschedulable_pod_waits_for_an_event_that_concerns_it() {
    let now = Instant::now();
    let mut queue = queue(&[pod("a", "")], now);
    queue.pop(now);
    queue.failed("a", fit(), now);
    assert_eq!(popped(&mut queue, now + 60 * SECOND), "", "time alone changes nothing");
    let later = now + 60 * SECOND;
    queue.event(&Event::PodPlaced(&pod("other", "")), later);
    assert_eq!(popped(&mut queue, later), "", "a pod that comes makes no room");
    queue.event(&Event::PodRemoved(&pod("other", "")), later);
    assert_eq!(popped(&mut queue, later), "a");
}

#[test]
fn a_refused_pod_backs_off_only_behind_others() {
    let now = Instant::now();
    let mut queue = queue(&[pod("a", ""), pod("b", "")], now);
    queue.pop(now);
    queue.failed("a", fit(), now);
    queue.event(&Event::PodRemoved(&pod("other", "")), now);
    assert_eq!(queue.next_wake(), Some(now + SECOND));
    assert_eq!(popped(&mut queue, now), "b a", "nothing else is ready: the backoff is cut short");
}

#[test]
fn the_backoff_doubles_up_to_its_maximum_and_errors_wait_it_out() {
    let now = Instant::now();
    let mut queue = queue(&[pod("a", "")], now);
    let mut at = now;
    for seconds in [1, 2, 4, 8, 10, 10] {
        assert_eq!(popped(&mut queue, at), "a");
        queue.failed("a", Failure::Error, at);
        let wait = seconds * SECOND;
        assert_eq!(queue.next_wake(), Some(at + wait));
        assert_eq!(popped(&mut queue, at + wait - Duration::from_millis(1)), "");
        at += wait;
    }
}

#[test]
fn the_flush_tries_a_pod_again_that_no_event_helped() {
    let now = Instant::now();
    let mut queue = queue(&[pod("a", "")], now);
    assert_eq!(queue.next_wake(), None, "nothing to wait for while pods are ready");
    queue.pop(now);
    queue.failed("a", fit(), now);
    let due = now + Duration::from_secs(300);
    assert_eq!(queue.next_wake(), Some(due));
    assert!(queue.is_ready(due));
    assert_eq!(popped(&mut queue, due), "a");
}

#[test]
fn a_pod_that_changes_itself_is_tried_again_if_that_can_help() {
    let now = Instant::now();
    let mut queue = queue(&[pod("a", "")], now);
    queue.pop(now);
    queue.failed("a", Failure::Unschedulable(vec!["TaintToleration"]), now);
    queue.set(pod("a", ""), now);
    assert_eq!(popped(&mut queue, now), "", "nothing changed that decides");
    queue.set(pod("a", "tolerations: [{operator: Exists}]"), now);
    assert_eq!(popped(&mut queue, now), "a");
}

#[test]
fn a_removed_pod_is_nowhere() {
    let now = Instant::now();
    let mut queue = queue(&[pod("a", ""), pod("b", ""), pod("c", "")], now);
    queue.pop(now);
    queue.failed("a", fit(), now);
    for name in ["a", "b"] {
        queue.remove(name);
    }
    queue.failed("b", Failure::Error, now);
    queue.event(&Event::PodRemoved(&pod("other", "")), now);
    assert_eq!(popped(&mut queue, now), "c");
    assert_eq!(queue.next_wake(), None);
    assert_eq!(queue.depth(), Default::default());
}
