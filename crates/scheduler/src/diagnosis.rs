//! What is said of a pod that fits nowhere, in upstream's words and order.

use std::borrow::Cow;
use std::fmt::Write;

/// How many nodes gave each reason.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    reasons: Vec<(Cow<'static, str>, usize)>,
}

impl Histogram {
    pub(crate) fn count(&mut self, reasons: &[Cow<'static, str>]) {
        for reason in reasons {
            self.add(reason.clone(), 1);
        }
    }

    pub(crate) fn add(&mut self, reason: Cow<'static, str>, nodes: usize) {
        if nodes == 0 {
            return;
        }
        match self.reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += nodes,
            None => self.reasons.push((reason, nodes)),
        }
    }

    /// `0/3 nodes are available: 1 this, 2 that.` The reasons are ordered as text, counts included.
    pub(crate) fn message(&self, nodes: usize) -> String {
        let mut parts: Vec<String> =
            self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        parts.sort();
        let mut out = unavailable(nodes);
        if !parts.is_empty() {
            // Writing into a String cannot fail.
            let _ = write!(out, " {}.", parts.join(", "));
        }
        out
    }
}

/// The message of a plugin that ruled out all nodes at once.
pub(crate) fn ruled_out(nodes: usize, reason: &str) -> String {
    format!("{} {reason}.", unavailable(nodes))
}

fn unavailable(nodes: usize) -> String {
    format!("0/{nodes} nodes are available:")
}
