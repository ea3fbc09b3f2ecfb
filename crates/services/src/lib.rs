//! What services mean on one node: the rules its proxy enforces and the answers its DNS gives.
//!
//! Pure: services, endpoint slices and facts of the node go in; data that can be printed, compared and tested comes out.
#![forbid(unsafe_code)]

pub mod dns;
mod endpoints;
mod rules;
mod ruleset;

pub use endpoints::{Endpoint, SERVICE_NAME_LABEL, service_of};
pub use rules::{
    Family, Frontend, HealthCheck, NodeConfig, Pool, PortRules, Protocol, Refusal, Role, Ruleset,
    ServiceRules, Target,
};
pub use ruleset::{PROXY_NAME_LABEL, proxied, ruleset, service_rules};
