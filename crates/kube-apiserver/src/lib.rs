//! The API server: who may ask what, in which words, over the one read and write path of `registry`.
//!
//! A request passes [`filters`] (authentication to authorization), is dispatched by the table of kinds, and answered in
//! the negotiated form. Nothing here knows a kind by name but admission plugins, allocation and the subresources that
//! are actions.
#![forbid(unsafe_code)]

mod access;
mod admission;
mod aggregation;
mod allocation;
mod answers;
mod audit;
mod authn;
mod body;
mod bootstrap;
mod chunks;
mod conversion;
mod decode;
mod definitions;
mod discovery;
mod encryption;
mod fairness;
mod families;
mod filters;
mod follow;
mod health;
mod kinds;
mod kubelet;
mod limits;
mod metrics;
mod negotiate;
mod objects;
mod openapi;
mod options;
mod outbound;
mod parameters;
mod paths;
mod peers;
mod query;
mod request;
mod respond;
mod reviews;
mod serve;
mod start;
mod subresources;
mod table;
mod tokens;
mod transport;
mod verbs;
mod watching;

pub use encryption::ensure_default as ensure_encryption_config;
pub use options::{Backend, Options};
pub use paths::GIT_VERSION;
pub use registry::UserInfo;
pub use start::{Server, start};

use std::sync::Arc;

/// One server: all that requests share.
pub(crate) struct Api {
    pub options: Options,
    pub registry: Arc<registry::Registry>,
    pub kinds: Arc<kinds::Kinds>,
    pub access: Arc<access::Access>,
    pub authn: authn::Authenticator,
    pub limits: limits::Limits,
    pub metrics: Arc<metrics::Metrics>,
    pub health: health::Health,
    pub kubelet: kubelet::KubeletClient,
    pub webhooks: Arc<admission::Webhooks>,
    pub policies: Arc<admission::Policies>,
    pub aggregator: Arc<aggregation::Aggregator>,
    /// `None`: `limits` stands in for it.
    pub fairness: Option<Arc<fairness::Fairness>>,
    pub auditor: Option<Arc<audit::Auditor>>,
    pub encryption: Option<Arc<encryption::Encryption>>,
    /// Signs service account tokens.
    pub signer: Option<pki::Signer>,
    pub issuer: String,
    pub jwks_uri: String,
    pub shutdown: tokio_util::sync::CancellationToken,
}
