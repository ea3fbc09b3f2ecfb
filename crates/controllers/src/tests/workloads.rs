//! StatefulSets, DaemonSets and Jobs over the model cluster, in any order of things.

use super::model::Model;
use crate::daemonset::DaemonSets;
use crate::job::Jobs;
use crate::pod::is_ready;
use crate::statefulset::StatefulSets;
use api::apps::v1::{DaemonSet, StatefulSet};
use api::batch::v1::Job;
use api::core::v1::{Node, PersistentVolumeClaim, Pod};
use api::{Typed, codec};
use meta::ObjectKey;
use proptest::prelude::*;

fn object<T: Typed>(text: &str) -> T {
    codec::from_json(&codec::yaml_to_json(text.as_bytes()).expect("it is YAML")).expect("it is of its kind")
}

fn key() -> ObjectKey {
    ObjectKey::new("shop", "web")
}

fn names(model: &Model) -> String {
    model.truth.list::<Pod>().map(|pod| pod.metadata.name.clone()).collect::<Vec<_>>().join(" ")
}

const STATEFUL: &str = "
metadata: {name: web, namespace: shop}
spec:
  replicas: 3
  serviceName: web
  selector: {matchLabels: {app: web}}
  updateStrategy: {type: RollingUpdate}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'web:0'}]}
  volumeClaimTemplates: [{metadata: {name: data}}]
";

fn run(model: &mut Model, moves: &[(u8, usize)], mut check: impl FnMut(&Model)) {
    for (sort, pick) in moves {
        match sort {
            0 => drop(model.work(*pick)),
            1 => model.deliver(pick % 5 + 1),
            _ => drop(model.kubelet(*pick, |pod| !crate::pod::is_finished(pod))),
        }
        check(model);
    }
}

fn moves() -> impl Strategy<Value = Vec<(u8, usize)>> {
    proptest::collection::vec((0u8..3, any::<usize>()), 20..150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// One after another up, one at a time replaced, and never two of one name.
    #[test]
    fn stateful_pods_come_in_order_and_are_replaced_one_by_one(moves in moves(), replicas in 1i32..4) {
        let mut model = Model::new(vec![Box::new(StatefulSets)]);
        let mut set: StatefulSet = object(STATEFUL);
        set.spec.replicas = Some(replicas);
        model.create(Box::new(set));
        run(&mut model, &moves, |model| {
            // A pod is there only if all before it are ready.
            let pods: Vec<_> = model.truth.list::<Pod>().collect();
            for pod in pods.iter().rev().skip(1) {
                assert!(is_ready(pod), "{}", names(model));
            }
        });
        model.settle(|_| true);
        prop_assert_eq!(model.truth.len::<PersistentVolumeClaim>(), usize::try_from(replicas).unwrap_or(0));
        model.edit::<StatefulSet>(&key(), |set| {
            set.metadata.generation += 1;
            set.spec.template.spec.containers[0].image = "web:1".into();
        });
        let ready = |model: &Model| {
            let pods = model.truth.list::<Pod>();
            pods.filter(|pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none()).count()
        };
        run(&mut model, &moves, |model| {
            assert!(ready(model) + 1 >= usize::try_from(replicas).unwrap_or(0), "{}", names(model));
        });
        model.settle(|_| true);
        prop_assert_eq!(model.left_to_do(), "");
        prop_assert!(model.truth.list::<Pod>().all(|pod| pod.spec.containers[0].image == "web:1"));
        let set = model.truth.get::<StatefulSet>(&key()).expect("it is there");
        prop_assert_eq!(&set.status.current_revision, &set.status.update_revision);
        model.edit::<StatefulSet>(&key(), |set| set.spec.replicas = Some(1));
        model.settle(|_| true);
        prop_assert_eq!(names(&model), "web-0");
    }

    /// One on each node that fits, replaced one node at a time.
    #[test]
    fn daemons_are_one_a_node(moves in moves(), nodes in 1usize..4) {
        let mut model = Model::new(vec![Box::new(DaemonSets)]);
        for number in 0..nodes {
            model.create(Box::new(object::<Node>(&format!("metadata: {{name: n{number}, labels: {{disk: ssd}}}}"))));
        }
        model.create(Box::new(object::<Node>("metadata: {name: other}")));
        model.create(Box::new(object::<DaemonSet>("
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  updateStrategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 1}}
  template:
    metadata: {labels: {app: web}}
    spec: {nodeSelector: {disk: ssd}, containers: [{name: web, image: 'web:0'}]}
")));
        run(&mut model, &moves, |_| {});
        model.settle(|_| true);
        prop_assert_eq!(model.truth.len::<Pod>(), nodes);
        model.edit::<DaemonSet>(&key(), |set| {
            set.metadata.generation += 1;
            set.spec.template.spec.containers[0].image = "web:1".into();
        });
        run(&mut model, &moves, |model| {
            let pods = model.truth.list::<Pod>();
            let ready = pods.filter(|pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none()).count();
            assert!(ready + 1 >= nodes, "{ready} of {nodes}");
        });
        model.settle(|_| true);
        prop_assert_eq!(model.left_to_do(), "");
        prop_assert!(model.truth.list::<Pod>().all(|pod| pod.spec.containers[0].image == "web:1"));
        let status = &model.truth.get::<DaemonSet>(&key()).expect("it is there").status;
        prop_assert_eq!(usize::try_from(status.number_available).unwrap_or(0), nodes);
        prop_assert_eq!(status.number_misscheduled, 0);
    }

    /// As many successes as asked for, each counted once; no more at a time than allowed.
    #[test]
    fn jobs_count_each_pod_once(
        moves in moves(), completions in 1i32..6, parallelism in 1i32..4, indexed in any::<bool>(), fails in 0usize..3,
    ) {
        let mut model = Model::new(vec![Box::new(Jobs)]);
        let mut job: Job = object("
metadata: {name: web, namespace: shop}
spec:
  backoffLimit: 6
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {restartPolicy: Never, containers: [{name: web, image: 'web:0'}]}
");
        job.spec.completions = Some(completions);
        job.spec.parallelism = Some(parallelism);
        job.spec.completion_mode = Some(if indexed { "Indexed" } else { "NonIndexed" }.into());
        model.create(Box::new(job));
        let mut failing = fails;
        let mut finish = |model: &mut Model, pick: usize| {
            let running: Vec<_> =
                model.truth.list::<Pod>().filter(|pod| is_ready(pod) && !crate::pod::is_finished(pod)).collect();
            let Some(pod) = running.get(pick % running.len().max(1)) else { return false };
            let phase = if failing > 0 { "Failed" } else { "Succeeded" };
            failing = failing.saturating_sub(1);
            model.edit::<Pod>(&view::key_of(pod.as_ref()), |pod| {
                pod.status.phase = phase.into();
                pod.status.conditions.clear();
            });
            true
        };
        for (sort, pick) in &moves {
            run(&mut model, &[(*sort, *pick)], |model| {
                let active = model.truth.list::<Pod>().filter(|pod| crate::pod::is_active(pod)).count();
                assert!(active <= usize::try_from(parallelism).unwrap_or(0), "{active} active");
            });
            if pick % 3 == 0 {
                finish(&mut model, *pick);
            }
        }
        for _ in 0..1000 {
            model.settle(|pod| !crate::pod::is_finished(pod));
            if !finish(&mut model, 0) {
                break;
            }
        }
        prop_assert_eq!(model.left_to_do(), "");
        let status = &model.truth.get::<Job>(&key()).expect("it is there").status;
        prop_assert!(status.conditions.iter().any(|condition| condition.r#type == "Complete"), "{status:?}");
        prop_assert_eq!(status.succeeded, completions);
        prop_assert_eq!(usize::try_from(status.failed).unwrap_or(0), fails.min(fails - failing));
        prop_assert_eq!(status.active, 0);
        prop_assert!(model.truth.list::<Pod>().all(|pod| pod.metadata.finalizers.is_empty()));
        if indexed && completions > 2 {
            prop_assert_eq!(&status.completed_indexes, &format!("0-{}", completions - 1));
        }
    }
}
