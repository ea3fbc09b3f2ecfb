//! What each node says of a pod, as a table: for people, and for tests.

use crate::cycle::Cycle;
use crate::decide::scores;
use crate::node::NodeInfo;
use crate::plugins::{Reasons, Verdict};
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::snapshot::Snapshot;
use std::fmt::Write;

/// A line per node, in order of name: `node: rejected by Plugin: reasons`, or `node: total = Plugin score*weight ...`.
pub fn explain(snapshot: &Snapshot, profile: &Profile, pod: &PodInfo) -> String {
    let mut cycle = Cycle::new(snapshot, profile, pod);
    let start = cycle.start();
    if let Some(rejection) = start.rejection {
        return format!("rejected by {}: {}\n", rejection.plugins.join(", "), rejection.message);
    }
    let mut nodes: Vec<&NodeInfo> = snapshot.nodes().collect();
    nodes.sort_by_key(|node| node.name());
    let mut lines: Vec<(&str, String)> = Vec::new();
    let (mut feasible, mut reasons) = (Vec::new(), Reasons::new());
    for node in nodes {
        if let Some((_, plugins)) = start.only.as_ref().filter(|(names, _)| !names.contains(node.name())) {
            lines.push((node.name(), format!("passed over by {}", plugins.join(", "))));
            continue;
        }
        match cycle.check(&start.filters, node, &mut reasons) {
            (Verdict::Fits, _) => feasible.push(node),
            (verdict, plugin) => {
                let always = if verdict == Verdict::Unresolvable { ", for good" } else { "" };
                lines.push((node.name(), format!("rejected by {plugin}: {}{always}", reasons.join(", "))));
            }
        }
    }
    let scored = scores(&mut cycle, &feasible);
    for (at, node) in feasible.iter().enumerate() {
        let (mut total, mut parts) = (0, String::new());
        for (plugin, weight, scaled) in &scored {
            if let Some(score) = scaled.as_ref().map(|scaled| scaled[at]) {
                total += weight * score;
                // Writing into a String cannot fail.
                let _ = write!(parts, " {} {score}*{weight}", plugin.name);
            }
        }
        lines.push((node.name(), format!("{total} ={parts}")));
    }
    lines.sort();
    lines.into_iter().map(|(name, text)| format!("{name}: {text}\n")).collect()
}
