//! How long kubelets may keep what they read of Secrets and ConfigMaps: the longer, the more nodes there are.

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Plan, Target};
use api::core::v1::Node;

const TTL: &str = "node.alpha.kubernetes.io/ttl";

/// From and to how many nodes a time holds. The ranges overlap, so that a cluster at an edge does not waver.
const STEPS: [(usize, usize, i64); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

pub struct Ttl;

/// The seconds for so many nodes, from those that held before.
fn seconds_for(nodes: usize, before: Option<i64>) -> i64 {
    let mut step = before.and_then(|before| STEPS.iter().position(|step| step.2 == before)).unwrap_or(0);
    while nodes > STEPS[step].1 {
        step += 1;
    }
    while nodes < STEPS[step].0 {
        step -= 1;
    }
    STEPS[step].2
}

impl Controller for Ttl {
    fn name(&self) -> &'static str {
        "ttl-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::own::<Node>()]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(node) = context.view.get::<Node>(context.key) else { return plan };
        let before = node.metadata.annotations.get(TTL).and_then(|text| text.parse().ok());
        let wanted = seconds_for(context.view.len::<Node>(), before);
        if before != Some(wanted) {
            plan.push(Action::Patch {
                target: Target::of(node.as_ref()),
                subresource: "",
                strategic: true,
                body: serde_json::json!({"metadata": {"annotations": {TTL: wanted.to_string()}}}),
            });
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::seconds_for;

    #[test]
    fn steps_overlap() {
        assert_eq!(seconds_for(100, None), 0);
        assert_eq!(seconds_for(101, Some(0)), 15);
        assert_eq!(seconds_for(95, Some(15)), 15);
        assert_eq!(seconds_for(89, Some(15)), 0);
        assert_eq!(seconds_for(5000, None), 300);
    }
}
