//! The policy group: how many pods may be taken away at once.

pub mod pod_disruption_budget;
