//! Ranges of service addresses: ready while they are there, and kept while an address would be left without a range.

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Plan, Target};
use api::meta::v1::Condition;
use api::networking::v1::{IPAddress, ServiceCIDR};
use std::net::IpAddr;
use std::sync::Arc;
use view::View;

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";
/// Allocators may not have heard yet that a range is going away.
const GRACE_SECONDS: i64 = 10;

pub struct ServiceCidrs;

/// An address with the length of a prefix.
#[derive(Clone, Copy, PartialEq)]
struct Prefix {
    address: IpAddr,
    bits: u8,
}

fn number(address: IpAddr) -> u128 {
    match address {
        // In the upper bits, so that prefixes of both families are compared alike.
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Prefix {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        Some(Prefix { address: address.parse().ok()?, bits: bits.parse().ok()? })
    }

    fn contains(&self, other: Prefix) -> bool {
        let shift = 128 - u32::from(self.bits).min(128);
        let head = |address: IpAddr| number(address).checked_shr(shift).unwrap_or(0);
        self.address.is_ipv4() == other.address.is_ipv4()
            && self.bits <= other.bits
            && head(self.address) == head(other.address)
    }
}

fn prefixes(range: &ServiceCIDR) -> impl Iterator<Item = Prefix> {
    range.spec.cidrs.iter().filter_map(|text| Prefix::parse(text))
}

/// The ranges that are not going away and have all of a prefix; of those that are, this one does not count.
fn others_with<'a>(view: &'a View, range: &'a ServiceCIDR, prefix: Prefix) -> bool {
    view.list::<ServiceCIDR>().any(|other| {
        other.metadata.name != range.metadata.name
            && other.metadata.deletion_timestamp.is_none()
            && prefixes(&other).any(|known| known.contains(prefix))
    })
}

/// Whether no address would be left without a range.
fn can_go(view: &View, range: &ServiceCIDR) -> bool {
    let whole = |address: IpAddr| Prefix { address, bits: if address.is_ipv4() { 32 } else { 128 } };
    if prefixes(range).all(|prefix| others_with(view, range, prefix)) {
        return true;
    }
    let ours = |address: &Arc<IPAddress>| {
        address.metadata.labels.get(MANAGED_BY).is_some_and(|manager| manager == ALLOCATOR)
    };
    !view.list::<IPAddress>().filter(ours).filter_map(|address| address.metadata.name.parse().ok()).any(
        |address: IpAddr| {
            prefixes(range).any(|prefix| prefix.contains(whole(address)))
                && !others_with(view, range, whole(address))
        },
    )
}

impl Controller for ServiceCidrs {
    fn name(&self) -> &'static str {
        "service-cidr-controller"
    }

    fn component(&self) -> &'static str {
        "service-cidrs-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let all = |view: &View| {
            view.list::<ServiceCIDR>().map(|range| view::key_of(range.as_ref())).collect::<Vec<_>>()
        };
        vec![
            Watch::new::<ServiceCIDR>(move |view, old, new| match (old, new) {
                // What one range no longer holds, another may have to.
                (_, None) => all(view),
                (_, Some(range)) if range.metadata.deletion_timestamp.is_some() => all(view),
                (None, Some(_)) => all(view),
                (_, Some(range)) => vec![view::key_of(range)],
            }),
            Watch::new::<IPAddress>(move |view, _, new| {
                let going = |range: &Arc<ServiceCIDR>| range.metadata.deletion_timestamp.is_some();
                match new {
                    // An address that has gone may have been the last.
                    None => view
                        .list::<ServiceCIDR>()
                        .filter(going)
                        .map(|range| view::key_of(range.as_ref()))
                        .collect(),
                    Some(_) => Vec::new(),
                }
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(range) = context.view.get::<ServiceCIDR>(context.key) else { return plan };
        let held = range.metadata.finalizers.iter().any(|finalizer| finalizer == FINALIZER);
        let patch = |finalizers: serde_json::Value| Action::Patch {
            target: Target::of(range.as_ref()),
            subresource: "",
            strategic: true,
            body: serde_json::json!({"metadata": finalizers}),
        };
        let Some(deleted) = range.metadata.deletion_timestamp else {
            if !held {
                plan.push(patch(serde_json::json!({"finalizers": [FINALIZER]})));
                return plan;
            }
            tell(&range, context, "True", "", "Kubernetes Service CIDR is ready", &mut plan);
            return plan;
        };
        if !can_go(context.view, &range) {
            let text = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
            tell(&range, context, "False", "Terminating", text, &mut plan);
            return plan;
        }
        let left = deleted.seconds() + GRACE_SECONDS - context.now.seconds();
        if left > 0 {
            plan.again_after_seconds(left);
        } else if held {
            plan.push(patch(serde_json::json!({"$deleteFromPrimitiveList/finalizers": [FINALIZER]})));
        }
        plan
    }
}

/// Sets the condition `Ready`.
fn tell(
    range: &ServiceCIDR,
    context: &Context<'_>,
    status: &str,
    reason: &str,
    message: &str,
    plan: &mut Plan,
) {
    let known = range.status.conditions.iter().find(|known| known.r#type == "Ready");
    if known.is_some_and(|known| known.status == status && known.reason == reason && known.message == message)
    {
        return;
    }
    let since = known.filter(|known| known.status == status).map(|known| known.last_transition_time);
    let mut next = ServiceCIDR::clone(range);
    next.status.conditions.retain(|known| known.r#type != "Ready");
    next.status.conditions.push(Condition {
        r#type: "Ready".into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: since.unwrap_or(context.now.into()),
        ..Condition::default()
    });
    plan.push(Action::UpdateSub { object: Box::new(next), subresource: "status" });
}
