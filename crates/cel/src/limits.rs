//! Upstream's limits of what evaluations may cost.

/// One evaluation of one expression.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// All evaluations for one custom resource, or for one binding of a policy.
pub const RUNTIME_BUDGET: u64 = 10_000_000;
/// All match conditions of one webhook, or of one binding of a policy.
pub const MATCH_CONDITIONS_BUDGET: u64 = 2_500_000;
/// The longest message, in bytes, that an expression may make.
pub const MAX_MESSAGE_BYTES: usize = 5 * 1024;
