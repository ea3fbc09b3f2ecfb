//! Decides whether a user may do what a request asks: RBAC, the Node authorizer, and the rule that nobody grants
//! more than they hold.
//!
//! Invariant: a decision reads nothing but its arguments. Whoever holds the [`Rbac`] index and the [`node::Graph`] keeps
//! them fed from a watch.
#![forbid(unsafe_code)]

pub mod bootstrap;
pub mod escalation;
pub mod node;
pub mod rbac;
pub mod rule;

pub use rbac::Rbac;

/// The group that may do everything: the way in when no role is left.
pub const PRIVILEGED_GROUP: &str = "system:masters";

/// Who asks. Borrowed from the request.
#[derive(Clone, Copy, Debug)]
pub struct User<'a> {
    pub name: &'a str,
    pub groups: &'a [String],
}

impl User<'_> {
    pub fn is_privileged(&self) -> bool {
        self.groups.iter().any(|group| group == PRIVILEGED_GROUP)
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub user: User<'a>,
    /// API verb (`get`, `list`, ...) of a resource request, else the HTTP method in lower case.
    pub verb: &'a str,
    /// The core group is the empty string.
    pub group: &'a str,
    /// Empty for a request that is not for a resource.
    pub resource: &'a str,
    pub subresource: &'a str,
    /// Empty for cluster scope, and for all namespaces.
    pub namespace: &'a str,
    /// Empty for a collection.
    pub name: &'a str,
    /// The URL's path; only read where `resource` is empty.
    pub path: &'a str,
    /// `field=value` demands of the request's field selector.
    pub field_selector: &'a [(String, String)],
}

impl Attributes<'_> {
    pub fn is_resource(&self) -> bool {
        !self.resource.is_empty()
    }
}

/// What an authorizer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow(String),
    Deny(String),
    /// The next authorizer is asked; a request without any opinion is refused.
    NoOpinion(String),
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allow(_))
    }
    pub fn reason(&self) -> &str {
        match self {
            Decision::Allow(reason) | Decision::Deny(reason) | Decision::NoOpinion(reason) => reason,
        }
    }
}

/// One entry of `--authorization-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    AlwaysAllow,
    AlwaysDeny,
    Node,
    Rbac,
}

impl Mode {
    pub fn parse(text: &str) -> Option<Mode> {
        match text {
            "AlwaysAllow" => Some(Mode::AlwaysAllow),
            "AlwaysDeny" => Some(Mode::AlwaysDeny),
            "Node" => Some(Mode::Node),
            "RBAC" => Some(Mode::Rbac),
            _ => None,
        }
    }
}

/// Everything a decision is made from.
#[derive(Default)]
pub struct Policy {
    pub modes: Vec<Mode>,
    pub rbac: Rbac,
    pub graph: node::Graph,
}

impl Policy {
    pub fn new(modes: Vec<Mode>) -> Self {
        Policy { modes, ..Policy::default() }
    }
}

/// Asks the authorizers in their configured order; the first opinion stands, and reasons of those without one are joined.
pub fn decide(policy: &Policy, request: &Attributes<'_>) -> Decision {
    if request.user.is_privileged() {
        return Decision::Allow(String::new());
    }
    let mut reasons = Vec::new();
    for mode in &policy.modes {
        let decision = match mode {
            Mode::AlwaysAllow => Decision::Allow(String::new()),
            Mode::AlwaysDeny => Decision::NoOpinion("Everything is forbidden.".into()),
            Mode::Node => node::decide(&policy.graph, request),
            Mode::Rbac => policy.rbac.decide(request),
        };
        match decision {
            Decision::NoOpinion(reason) => {
                if !reason.is_empty() {
                    reasons.push(reason);
                }
            }
            opinion => return opinion,
        }
    }
    Decision::NoOpinion(reasons.join("\n"))
}

#[cfg(test)]
mod tests;
