//! Deployments over the model: whatever the order of things, they settle, and keep their promises on the way.

use super::model::Model;
use crate::deployment::Deployments;
use crate::replicaset::ReplicaSets;
use api::apps::v1::{Deployment, ReplicaSet, RollingUpdateDeployment};
use api::core::v1::{Container, Pod};
use api::meta::v1::LabelSelector;
use meta::{IntOrString, ObjectKey};
use proptest::prelude::*;

fn key() -> ObjectKey {
    ObjectKey::new("shop", "web")
}

fn deployment(replicas: i32, surge: i32, unavailable: i32, recreate: bool) -> Deployment {
    let mut deployment = Deployment::default();
    deployment.metadata.namespace = "shop".into();
    deployment.metadata.name = "web".into();
    deployment.spec.replicas = Some(replicas);
    deployment.spec.progress_deadline_seconds = Some(600);
    deployment.spec.revision_history_limit = Some(2);
    let labels = [("app".to_string(), "web".to_string())].into();
    deployment.spec.selector =
        Some(Box::new(LabelSelector { match_labels: labels, ..LabelSelector::default() }));
    deployment.spec.template.metadata.labels.insert("app".into(), "web".into());
    set_image(&mut deployment, 0);
    if recreate {
        deployment.spec.strategy.r#type = "Recreate".into();
    } else {
        deployment.spec.strategy.r#type = "RollingUpdate".into();
        deployment.spec.strategy.rolling_update = Some(Box::new(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(surge)),
            max_unavailable: Some(IntOrString::Int(unavailable)),
        }));
    }
    deployment
}

fn set_image(deployment: &mut Deployment, version: usize) {
    let image = format!("web:{version}");
    deployment.spec.template.spec.containers = vec![Container { image, ..Container::default() }];
}

fn image(pod: &Pod) -> &str {
    &pod.spec.containers[0].image
}

/// `web:9` never becomes ready.
fn healthy(pod: &Pod) -> bool {
    image(pod) != "web:9"
}

fn alive(model: &Model) -> i32 {
    let alive = model.truth.list::<Pod>().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    i32::try_from(alive.count()).expect("there are few")
}

/// The pods that all sets together are asked for.
fn wanted(model: &Model) -> i32 {
    model.truth.list::<ReplicaSet>().filter_map(|set| set.spec.replicas).sum()
}

fn available(model: &Model) -> i32 {
    let pods = model.truth.list::<Pod>();
    let ready = pods.filter(|pod| pod.metadata.deletion_timestamp.is_none() && crate::pod::is_ready(pod));
    i32::try_from(ready.count()).expect("there are few")
}

fn model(deployment: Deployment) -> Model {
    let mut model = Model::new(vec![Box::new(Deployments), Box::new(ReplicaSets)]);
    model.create(Box::new(deployment));
    model
}

fn settled(model: &Model, replicas: i32, version: usize) {
    assert_eq!(model.left_to_do(), "");
    assert_eq!(alive(model), replicas);
    for pod in model.truth.list::<Pod>() {
        assert_eq!(image(&pod), format!("web:{version}"));
    }
    let deployment = model.truth.get::<Deployment>(&key()).expect("it is there");
    let status = &deployment.status;
    assert_eq!(
        (status.replicas, status.updated_replicas, status.available_replicas, status.unavailable_replicas),
        (replicas, replicas, replicas, 0)
    );
    assert_eq!(status.observed_generation, deployment.metadata.generation);
    let progress = status.conditions.iter().find(|condition| condition.r#type == "Progressing");
    assert_eq!(progress.map(|condition| condition.reason.as_str()), Some("NewReplicaSetAvailable"));
    let new = model.truth.list::<ReplicaSet>().find(|set| set.spec.replicas == Some(replicas));
    if replicas > 0 {
        let revision = "deployment.kubernetes.io/revision";
        let new = new.expect("one set has all");
        assert_eq!(deployment.metadata.annotations.get(revision), new.metadata.annotations.get(revision));
    }
    // The new one, and as many old ones as the history keeps.
    assert!(model.truth.len::<ReplicaSet>() <= 3);
}

fn edit(model: &mut Model, change: impl FnOnce(&mut Deployment)) {
    model.edit::<Deployment>(&key(), |deployment| {
        change(deployment);
        deployment.metadata.generation += 1;
    });
}

/// What happens next: which of the controllers' keys, how much of the watch, which pod.
#[derive(Clone, Debug)]
enum Move {
    Work(usize),
    Deliver(usize),
    Kubelet(usize),
    Pass,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => any::<usize>().prop_map(Move::Work),
        4 => (1usize..6).prop_map(Move::Deliver),
        3 => any::<usize>().prop_map(Move::Kubelet),
        1 => Just(Move::Pass),
    ];
    proptest::collection::vec(one, 50..300)
}

fn make(model: &mut Model, step: &Move) {
    match step {
        Move::Work(pick) => drop(model.work(*pick)),
        Move::Deliver(count) => model.deliver(*count),
        Move::Kubelet(pick) => drop(model.kubelet(*pick, healthy)),
        Move::Pass => model.pass(1),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// No more than `replicas + surge` pods are asked for, and no fewer than `replicas - unavailable` are available,
    /// at any moment of a rollout, however far the view lags, as long as pods do not die by themselves.
    #[test]
    fn a_rolling_update_keeps_within_its_bounds(
        replicas in 1i32..6, surge in 0i32..4, unavailable in 0i32..4, moves in moves(), bad in any::<bool>(),
    ) {
        let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
        let mut model = model(deployment(replicas, surge, unavailable, false));
        model.settle(healthy);
        settled(&model, replicas, 0);
        let most = replicas + surge;
        let least = replicas - unavailable.min(replicas);
        edit(&mut model, |deployment| set_image(deployment, if bad { 9 } else { 1 }));
        for (count, step) in moves.iter().enumerate() {
            // Amid the rollout, another template takes over.
            if count == moves.len() / 2 {
                edit(&mut model, |deployment| set_image(deployment, 2));
            }
            make(&mut model, step);
            prop_assert!(wanted(&model) <= most, "{} of at most {most} pods", wanted(&model));
            prop_assert!(
                available(&model) >= least,
                "{} of at least {least} available of {}",
                available(&model),
                model.told()
            );
        }
        model.settle(healthy);
        settled(&model, replicas, 2);
    }

    /// Recreate never runs two templates at once.
    #[test]
    fn a_recreate_never_mixes(replicas in 1i32..5, moves in moves()) {
        let mut model = model(deployment(replicas, 0, 0, true));
        model.settle(healthy);
        edit(&mut model, |deployment| set_image(deployment, 1));
        for step in &moves {
            make(&mut model, step);
            let mut images: Vec<String> =
                model.truth.list::<Pod>().map(|pod| image(&pod).to_string()).collect();
            images.dedup();
            images.sort();
            images.dedup();
            prop_assert!(images.len() <= 1, "{images:?}");
        }
        model.settle(healthy);
        settled(&model, replicas, 1);
    }

    /// Scaling, templates, pauses and dying pods in any order: what the user said last is what there is.
    #[test]
    fn anything_settles(
        replicas in 0i32..5,
        edits in proptest::collection::vec((0usize..4, 0i32..6), 1..6),
        moves in moves(),
    ) {
        let mut model = model(deployment(replicas, 1, 1, false));
        let (mut size, mut version) = (replicas, 0);
        let every = moves.len() / edits.len();
        for (count, step) in moves.iter().enumerate() {
            make(&mut model, step);
            if count % every != 0 {
                continue;
            }
            match edits.get(count / every) {
                Some((0, replicas)) => {
                    size = *replicas;
                    edit(&mut model, |deployment| deployment.spec.replicas = Some(size));
                }
                Some((1, next)) => {
                    version = usize::try_from(*next).expect("it is small");
                    edit(&mut model, |deployment| set_image(deployment, version));
                }
                Some((2, _)) => edit(&mut model, |deployment| deployment.spec.paused ^= true),
                _ => {
                    let victim = model.truth.list::<Pod>().next().map(|pod| view::key_of(pod.as_ref()));
                    if let Some(victim) = victim {
                        model.remove_pod(&victim);
                    }
                }
            }
        }
        edit(&mut model, |deployment| deployment.spec.paused = false);
        model.settle(healthy);
        settled(&model, size, version);
    }
}

#[test]
fn a_thousand_pods_take_few_writes() {
    let mut model = model(deployment(1000, 1, 1, false));
    for _ in 0..40 {
        model.deliver(usize::MAX);
        while model.work(0) {}
    }
    assert_eq!(model.truth.len::<Pod>(), 1000);
    // A thousand pods, one set, and a handful of status updates.
    assert!(model.writes < 1030, "{} writes", model.writes);
}

#[test]
fn relabelled_pods_are_let_go_and_replaced() {
    let mut model = model(deployment(2, 1, 1, false));
    model.settle(healthy);
    let pod = model.truth.list::<Pod>().next().expect("there are two");
    let key = view::key_of(pod.as_ref());
    model.edit::<Pod>(&key, |pod| {
        pod.metadata.labels.insert("app".into(), "other".into());
    });
    model.settle(healthy);
    assert_eq!(alive(&model), 3);
    let freed = model.truth.get::<Pod>(&key).expect("it lives on");
    assert!(freed.metadata.owner_references.is_empty());
    // Given its label back, it is one too many, and adopted again: one of the three goes.
    model.edit::<Pod>(&key, |pod| {
        pod.metadata.labels.insert("app".into(), "web".into());
    });
    model.settle(healthy);
    assert_eq!(alive(&model), 2);
    settled(&model, 2, 0);
}
