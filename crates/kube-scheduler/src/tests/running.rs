//! The whole process against a small fake of the API server, in virtual time.

use super::fake::Fake;
use crate::Options;
use clap::{Args, FromArgMatches};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const NODE: &str = "{apiVersion: v1, kind: Node, metadata: {name: NAME, uid: NAME}, status: {allocatable: {cpu: '2', memory: 4Gi, pods: '10'}}}";
const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: NAME, namespace: d, uid: NAME}, spec: {schedulerName: default-scheduler, MORE containers: [{name: c, resources: {requests: {cpu: CPU}}}]}}";

fn node(name: &str) -> String {
    NODE.replace("NAME", name)
}

fn pod(name: &str, cpu: &str, more: &str) -> String {
    POD.replace("NAME", name).replace("CPU", cpu).replace("MORE", more)
}

/// Runs a scheduler beside the test, for at most an hour of virtual time.
async fn with_scheduler(flags: &[&str], fake: &Fake, test: impl Future<Output = ()>) {
    let command = Options::augment_args(clap::Command::new("kube-scheduler")).no_binary_name(true);
    let flags = flags.iter().copied().chain(["--secure-port=0"]);
    let options = Options::from_arg_matches(&command.try_get_matches_from(flags).unwrap()).unwrap();
    let token = CancellationToken::new();
    let running = tokio::spawn(crate::run(options, fake.client(), token.clone()));
    tokio::time::timeout(Duration::from_secs(3600), test)
        .await
        .unwrap_or_else(|_| panic!("nothing more happened: {:#?}", fake.log()));
    token.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_bound_and_told_of_once_the_scheduler_leads() {
    let fake = Fake::default();
    fake.put("nodes", &node("n1"));
    fake.put("pods", &pod("p", "1", ""));
    fake.put("pods", &pod("foreign", "1", "").replace("default-scheduler", "another"));
    with_scheduler(&[], &fake, async {
        let log = fake.until("event Normal p Scheduled").await;
        assert_eq!(
            log,
            ["lease true", "bind d/p n1", "event Normal p Scheduled: Successfully assigned d/p to n1"]
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_room_says_so_and_is_bound_when_a_node_comes() {
    let fake = Fake::default();
    fake.put("nodes", &node("n1"));
    fake.put("pods", &pod("big", "1500m", "nodeName: n1,"));
    fake.put("pods", &pod("p", "1", ""));
    with_scheduler(&["--leader-elect=false"], &fake, async {
        fake.until("condition d/p PodScheduled=False Unschedulable").await;
        fake.until("event Warning p FailedScheduling: 0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.").await;
        fake.put("nodes", &node("n2"));
        fake.until("bind d/p n2").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_binding_is_tried_again() {
    let fake = Fake::default();
    fake.put("nodes", &node("n1"));
    fake.put("pods", &pod("p", "1", ""));
    fake.refuse_bindings(2);
    with_scheduler(&["--leader-elect=false"], &fake, async {
        let log = fake.until("event Normal p Scheduled").await;
        assert_eq!(log.iter().filter(|line| *line == "refused d/p").count(), 2, "{log:#?}");
        fake.until("condition d/p PodScheduled=False SchedulerError").await;
        fake.until("running Bind plugin \"DefaultBinder\": Conflict").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn room_is_made_for_a_pod_of_higher_priority() {
    let fake = Fake::default();
    fake.put("nodes", &node("n1"));
    fake.put("pods", &pod("low", "2", "nodeName: n1,"));
    fake.put("pods", &pod("p", "1", "priority: 7,"));
    with_scheduler(&["--leader-elect=false"], &fake, async {
        fake.until("nominate d/p \"n1\"").await;
        fake.until("condition d/low DisruptionTarget=True PreemptionByScheduler").await;
        fake.until("event Normal low Preempted: Preempted by pod p on node n1").await;
        let log = fake.until("bind d/p n1").await;
        assert_eq!(log.iter().filter(|line| line.starts_with("delete")).count(), 1, "{log:#?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn many_pods_fill_the_nodes_and_no_more() {
    let fake = Fake::default();
    for number in 0..5 {
        fake.put("nodes", &node(&format!("n{number}")));
    }
    for number in 0..60 {
        fake.put("pods", &pod(&format!("p{number}"), "1m", ""));
    }
    with_scheduler(&["--leader-elect=false"], &fake, async {
        // Each node takes ten pods: ten wait, and one that goes makes room for one.
        fake.until("Too many pods").await;
        fake.until_count("FailedScheduling", 10).await;
        fake.until_count("bind ", 50).await;
        let bound = |log: &[String]| log.iter().filter(|line| line.starts_with("bind")).count();
        assert_eq!(bound(&fake.log()), 50);
        let log = fake.log();
        let one =
            log.iter().find_map(|line| line.strip_prefix("bind ")?.split(' ').next()).unwrap().to_owned();
        fake.delete("pods", &one);
        fake.until_count("bind ", 51).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(bound(&fake.log()), 51);
    })
    .await;
}
