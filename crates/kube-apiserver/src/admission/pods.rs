//! What a pod gets on its way in: priority, tolerations of a failing node, its runtime's overhead, default limits.

use super::{Chain, forbidden};
use api::Object;
use api::core::v1::{Pod, Toleration};
use api::errors::ApiError;
use api::node::v1::RuntimeClass;
use api::scheduling::v1::PriorityClass;
use registry::{Attributes, Operation};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NO_EXECUTE: &str = "NoExecute";
const PREEMPT: &str = "PreemptLowerPriority";

impl Chain {
    pub(super) async fn admit_pod(
        &self,
        attributes: &Attributes<'_>,
        object: &mut dyn Object,
    ) -> Result<(), ApiError> {
        let Some(pod) = object.downcast_mut::<Pod>() else { return Ok(()) };
        if self.has("LimitRanger") && attributes.operation == Operation::Create {
            self.default_limits(attributes.namespace, pod).await?;
        }
        if self.has("ServiceAccount") {
            self.admit_service_account(attributes, pod).await?;
        }
        if self.has("Priority") {
            self.admit_priority(attributes, pod).await?;
        }
        if self.has("DefaultTolerationSeconds") {
            self.tolerate(pod);
        }
        if self.has("RuntimeClass") && attributes.operation == Operation::Create {
            self.admit_runtime_class(attributes, pod).await?;
        }
        Ok(())
    }

    async fn admit_priority(&self, attributes: &Attributes<'_>, pod: &mut Pod) -> Result<(), ApiError> {
        if let Some(old) = attributes.old.and_then(|old| old.downcast::<Pod>()) {
            // Neither may change; an update that leaves them out keeps them.
            if pod.spec.priority.is_none() {
                pod.spec.priority = old.spec.priority;
            }
            if pod.spec.preemption_policy.is_none() {
                pod.spec.preemption_policy = old.spec.preemption_policy.clone();
            }
            return Ok(());
        }
        let (value, policy) = if pod.spec.priority_class_name.is_empty() {
            let classes = self.list::<PriorityClass>("").await?;
            // Of several defaults, which only a race can make, the least counts.
            match classes.into_iter().filter(|class| class.global_default).min_by_key(|class| class.value) {
                Some(class) => {
                    pod.spec.priority_class_name = class.metadata.name.clone();
                    (class.value, class.preemption_policy)
                }
                None => (0, None),
            }
        } else {
            let name = &pod.spec.priority_class_name;
            match self.get::<PriorityClass>("", name).await? {
                Some(class) => (class.value, class.preemption_policy),
                None => {
                    let text = format!("no PriorityClass with name {name} was found");
                    return Err(forbidden(attributes, Some(pod), text));
                }
            }
        };
        if let Some(given) = pod.spec.priority.filter(|given| *given != value) {
            let text = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
            );
            return Err(forbidden(attributes, Some(pod), text));
        }
        pod.spec.priority = Some(value);
        let policy = policy.unwrap_or_else(|| PREEMPT.into());
        match &pod.spec.preemption_policy {
            Some(given) if *given != policy => {
                let text = format!(
                    "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
                );
                Err(forbidden(attributes, Some(pod), text))
            }
            _ => {
                pod.spec.preemption_policy = Some(policy);
                Ok(())
            }
        }
    }

    /// Only one class may be everybody's default.
    pub(super) async fn check_priority_class(
        &self,
        attributes: &Attributes<'_>,
        object: &dyn Object,
    ) -> Result<(), ApiError> {
        let Some(class) = object.downcast::<PriorityClass>() else { return Ok(()) };
        if !class.global_default || !self.has("Priority") {
            return Ok(());
        }
        let others = self.list::<PriorityClass>("").await?;
        let other =
            others.iter().find(|other| other.global_default && other.metadata.name != class.metadata.name);
        match other {
            Some(other) => {
                let text = format!(
                    "PriorityClass {} is already marked as globalDefault. Only one default can exist",
                    other.metadata.name
                );
                Err(forbidden(attributes, Some(object), text))
            }
            None => Ok(()),
        }
    }

    fn tolerate(&self, pod: &mut Pod) {
        for (taint, seconds) in [(NOT_READY, self.not_ready_seconds), (UNREACHABLE, self.unreachable_seconds)]
        {
            let tolerated = pod.spec.tolerations.iter().any(|toleration| {
                (toleration.key == taint || toleration.key.is_empty())
                    && (toleration.effect == NO_EXECUTE || toleration.effect.is_empty())
            });
            if !tolerated {
                pod.spec.tolerations.push(Toleration {
                    key: taint.into(),
                    operator: "Exists".into(),
                    effect: NO_EXECUTE.into(),
                    toleration_seconds: Some(seconds),
                    ..Toleration::default()
                });
            }
        }
    }

    async fn admit_runtime_class(&self, attributes: &Attributes<'_>, pod: &mut Pod) -> Result<(), ApiError> {
        let Some(name) = pod.spec.runtime_class_name.clone().filter(|name| !name.is_empty()) else {
            if !pod.spec.overhead.is_empty() {
                let text =
                    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
                return Err(forbidden(attributes, Some(pod), text));
            }
            return Ok(());
        };
        let Some(class) = self.get::<RuntimeClass>("", &name).await? else {
            let text = format!("pod rejected: RuntimeClass {name:?} not found");
            return Err(forbidden(attributes, Some(pod), text));
        };
        if let Some(overhead) = class.overhead.as_deref() {
            if !pod.spec.overhead.is_empty() && pod.spec.overhead != overhead.pod_fixed {
                let text = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
                return Err(forbidden(attributes, Some(pod), text));
            }
            pod.spec.overhead = overhead.pod_fixed.clone();
        }
        let Some(scheduling) = class.scheduling.as_deref() else { return Ok(()) };
        for (key, value) in &scheduling.node_selector {
            if pod.spec.node_selector.get(key).is_some_and(|known| known != value) {
                let text = format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {}",
                    pod.spec.node_selector[key]
                );
                return Err(forbidden(attributes, Some(pod), text));
            }
            pod.spec.node_selector.insert(key.clone(), value.clone());
        }
        for toleration in &scheduling.tolerations {
            if !pod.spec.tolerations.contains(toleration) {
                pod.spec.tolerations.push(toleration.clone());
            }
        }
        Ok(())
    }
}
