//! What is written about a pod that found no node.

use crate::writes::{Nomination, Refusal, cut, refusal_patch};
use api::core::v1::Pod;
use expect_test::expect;
use jiff::Timestamp;

fn pod(status: &str) -> Pod {
    let text = format!("{{metadata: {{name: p, uid: u, generation: 2}}, status: {{{status}}}}}");
    api::codec::from_json(&api::codec::yaml_to_json(text.as_bytes()).unwrap()).unwrap()
}

fn refusal(nomination: Nomination) -> Refusal {
    Refusal { reason: "Unschedulable", message: "0/1 nodes are available.".into(), nomination }
}

const SAME: &str = "conditions: [{type: PodScheduled, status: 'False', reason: Unschedulable, message: 0/1 nodes are available., lastTransitionTime: '2026-01-01T00:00:00Z'}]";

#[test]
fn the_condition_is_written_once() {
    let patch = |status: &str, nomination| {
        refusal_patch(&pod(status), &refusal(nomination), Timestamp::UNIX_EPOCH)
            .map(|patch| patch.to_string())
    };
    let expected = expect![[
        r#"{"metadata":{"uid":"u"},"status":{"conditions":[{"lastProbeTime":null,"lastTransitionTime":"1970-01-01T00:00:00Z","message":"0/1 nodes are available.","observedGeneration":2,"reason":"Unschedulable","status":"False","type":"PodScheduled"}]}}"#
    ]];
    expected.assert_eq(&patch("", Nomination::Keep).unwrap());
    assert_eq!(patch(SAME, Nomination::Keep), None);
    let reworded = patch(&SAME.replace("0/1", "0/2"), Nomination::Keep).unwrap();
    assert!(reworded.contains("2026-01-01"), "still False since then: {reworded}");
}

#[test]
fn a_nomination_is_set_and_cleared() {
    let patch = |status: &str, nomination| {
        refusal_patch(&pod(status), &refusal(nomination), Timestamp::UNIX_EPOCH)
            .map(|patch| patch["status"].to_string())
    };
    let nominated = format!("{SAME}, nominatedNodeName: n1");
    assert_eq!(patch(SAME, Nomination::Set("n1".into())).unwrap(), r#"{"nominatedNodeName":"n1"}"#);
    assert_eq!(patch(&nominated, Nomination::Set("n1".into())), None);
    assert_eq!(patch(&nominated, Nomination::Clear).unwrap(), r#"{"nominatedNodeName":null}"#);
    assert_eq!(patch(SAME, Nomination::Clear), None);
}

#[test]
fn long_texts_are_cut_for_events() {
    assert_eq!(cut("short"), "short");
    let long = cut(&"ü".repeat(600));
    assert!(long.len() <= 1024 && long.ends_with("ü ..."), "{}", long.len());
}

#[test]
fn metrics_have_upstreams_names() {
    let metrics = crate::metrics::Metrics::default();
    metrics.scheduled();
    metrics.preempted(3);
    metrics.pending(crate::queue::Depth { active: 1, backoff: 2, unschedulable: 3, gated: 4 });
    let lines: Vec<String> =
        metrics.text().lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    let expected = expect![[r#"
        scheduler_schedule_attempts_total{result="scheduled"} 1
        scheduler_schedule_attempts_total{result="unschedulable"} 0
        scheduler_schedule_attempts_total{result="error"} 0
        scheduler_pending_pods{queue="active"} 1
        scheduler_pending_pods{queue="backoff"} 2
        scheduler_pending_pods{queue="unschedulable"} 3
        scheduler_pending_pods{queue="gated"} 4
        scheduler_preemption_attempts_total 1
        scheduler_preemption_victims_total 3
        leader_election_master_status{name="kube-scheduler"} 0"#]];
    expected.assert_eq(&lines.join("\n"));
}
