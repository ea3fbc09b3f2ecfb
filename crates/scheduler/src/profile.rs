//! Which plugins decide, with which weights: the default profile, and what a configuration changes of it.

use crate::plugins::{FILTERS, Filter, SCORES, Score};

/// How decisions are made for the pods that name this scheduler.
#[derive(Clone)]
pub struct Profile {
    pub scheduler_name: String,
    pub filters: Vec<&'static Filter>,
    pub scores: Vec<(&'static Score, i64)>,
    /// How many percent of the nodes are looked for before the best of them is taken; 0 adapts to the cluster's size.
    pub percentage_of_nodes_to_score: u32,
    /// What an existing pod's required affinity counts for toward those it wants near, when nodes are compared.
    pub hard_pod_affinity_weight: i64,
    pub preemption: bool,
}

impl Default for Profile {
    fn default() -> Self {
        Profile {
            scheduler_name: "default-scheduler".into(),
            filters: FILTERS.iter().collect(),
            scores: SCORES.iter().map(|score| (score, score.weight)).collect(),
            percentage_of_nodes_to_score: 0,
            hard_pod_affinity_weight: 1,
            preemption: true,
        }
    }
}

impl Profile {
    /// Takes a plugin out, `*` all of them.
    pub fn disable(&mut self, name: &str) {
        let keep = |plugin: &str| name != "*" && plugin != name;
        self.filters.retain(|filter| keep(filter.name));
        self.scores.retain(|(score, _)| keep(score.name));
        self.preemption &= keep("DefaultPreemption");
    }

    /// Puts a plugin in, or changes its weight (0 means its own default). `false` where there is no such plugin.
    pub fn enable(&mut self, name: &str, weight: i64) -> bool {
        let mut known = KNOWN_ELSEWHERE.contains(&name);
        if let Some(filter) = FILTERS.iter().find(|filter| filter.name == name) {
            known = true;
            if !self.filters.iter().any(|own| own.name == name) {
                self.filters.push(filter);
            }
        }
        if let Some(score) = SCORES.iter().find(|score| score.name == name) {
            known = true;
            let weight = if weight == 0 { score.weight } else { weight };
            match self.scores.iter_mut().find(|(own, _)| own.name == name) {
                Some(own) => own.1 = weight,
                None => self.scores.push((score, weight)),
            }
        }
        self.preemption |= name == "DefaultPreemption";
        known
    }

    /// How many feasible nodes are enough, as upstream counts: all of a small cluster, and a share that shrinks from
    /// half to a twentieth as the cluster grows.
    pub(crate) fn nodes_to_find(&self, nodes: usize) -> usize {
        const FEASIBLE_MIN: usize = 100;
        const PERCENTAGE_MIN: usize = 5;
        if nodes < FEASIBLE_MIN {
            return nodes;
        }
        let percentage = match self.percentage_of_nodes_to_score as usize {
            0 => 50_usize.saturating_sub(nodes / 125).max(PERCENTAGE_MIN),
            fixed => fixed.min(100),
        };
        (nodes * percentage / 100).max(FEASIBLE_MIN)
    }
}

/// Plugins that act outside of filtering and scoring, always in force.
const KNOWN_ELSEWHERE: &[&str] = &["SchedulingGates", "PrioritySort", "DefaultPreemption", "DefaultBinder"];
