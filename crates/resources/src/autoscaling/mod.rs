//! The autoscaling group: how many replicas a workload should have.

mod convert;
pub mod horizontal_pod_autoscaler;
#[cfg(test)]
mod tests;

pub(crate) use convert::{from_hub, to_hub};
