//! LimitRanger: the defaults of a namespace for containers, and its bounds for containers and pods.

use super::{Chain, forbidden};
use api::Object;
use api::core::v1::{Container, LimitRange, LimitRangeItem, Pod};
use api::errors::ApiError;
use meta::Quantity;
use registry::{Attributes, Operation};
use std::collections::BTreeMap;

type Amounts = BTreeMap<String, Quantity>;

impl Chain {
    async fn limit_items(&self, namespace: &str) -> Result<Vec<LimitRangeItem>, ApiError> {
        let ranges = self.list::<LimitRange>(namespace).await?;
        Ok(ranges.into_iter().flat_map(|range| range.spec.limits).collect())
    }

    pub(super) async fn default_limits(&self, namespace: &str, pod: &mut Pod) -> Result<(), ApiError> {
        let items = self.limit_items(namespace).await?;
        for item in items.iter().filter(|item| item.r#type == "Container") {
            for container in pod.spec.init_containers.iter_mut().chain(&mut pod.spec.containers) {
                let resources = &mut container.resources;
                for (name, amount) in &item.default {
                    resources.limits.entry(name.clone()).or_insert(*amount);
                }
                for (name, amount) in &item.default_request {
                    resources.requests.entry(name.clone()).or_insert(*amount);
                }
            }
        }
        Ok(())
    }

    pub(super) async fn check_limits(
        &self,
        attributes: &Attributes<'_>,
        object: &dyn Object,
    ) -> Result<(), ApiError> {
        let Some(pod) = object.downcast::<Pod>() else { return Ok(()) };
        if attributes.operation != Operation::Create {
            return Ok(());
        }
        let mut faults = Vec::new();
        for item in self.limit_items(attributes.namespace).await? {
            match item.r#type.as_str() {
                "Container" => {
                    for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
                        let resources = &container.resources;
                        check(&item, &resources.requests, &resources.limits, &mut faults);
                    }
                }
                "Pod" => {
                    let requests = total(pod, |container| &container.resources.requests);
                    let limits = total(pod, |container| &container.resources.limits);
                    check(&item, &requests, &limits, &mut faults);
                }
                _ => {}
            }
        }
        match faults.as_slice() {
            [] => Ok(()),
            [one] => Err(forbidden(attributes, Some(object), one)),
            many => Err(forbidden(attributes, Some(object), format!("[{}]", many.join(", ")))),
        }
    }
}

/// What a pod asks for: the sum of its containers, or of one init container where that is more.
pub(super) fn total(pod: &Pod, part: impl Fn(&Container) -> &Amounts + Copy) -> Amounts {
    let mut sum = Amounts::new();
    for (name, amount) in pod.spec.containers.iter().flat_map(part) {
        sum.entry(name.clone()).and_modify(|known| *known = known.plus(*amount)).or_insert(*amount);
    }
    for (name, amount) in pod.spec.init_containers.iter().flat_map(part) {
        sum.entry(name.clone()).and_modify(|known| *known = *amount.max(known)).or_insert(*amount);
    }
    sum
}

fn check(item: &LimitRangeItem, requests: &Amounts, limits: &Amounts, faults: &mut Vec<String>) {
    let kind = &item.r#type;
    for (name, least) in &item.min {
        match (requests.get(name), limits.get(name)) {
            (None, _) => {
                faults.push(format!("minimum {name} usage per {kind} is {least}.  No request is specified"))
            }
            (Some(request), _) if request < least => {
                faults.push(format!("minimum {name} usage per {kind} is {least}, but request is {request}"));
            }
            (_, Some(limit)) if limit < least => {
                faults.push(format!("minimum {name} usage per {kind} is {least}, but limit is {limit}"));
            }
            _ => {}
        }
    }
    for (name, most) in &item.max {
        match (requests.get(name), limits.get(name)) {
            (_, None) => {
                faults.push(format!("maximum {name} usage per {kind} is {most}.  No limit is specified"))
            }
            (_, Some(limit)) if limit > most => {
                faults.push(format!("maximum {name} usage per {kind} is {most}, but limit is {limit}"));
            }
            (Some(request), _) if request > most => {
                faults.push(format!("maximum {name} usage per {kind} is {most}, but request is {request}"));
            }
            _ => {}
        }
    }
}
