//! Subresources: those that are views of their object, and those that are actions on it.

use crate::filters::{self, Passed};
use crate::negotiate::Output;
use crate::paths::method_not_allowed;
use crate::respond::{self, Body};
use crate::verbs::{self, Answer, Target, now, read_body};
use crate::{Api, answers, decode, objects, parameters};
use api::autoscaling::v1::Scale;
use api::core::v1::{Binding, Pod, PodCondition};
use api::errors::{ApiError, Cause};
use api::meta::v1::Status;
use api::policy::v1::{Eviction, PodDisruptionBudget};
use api::{Object, Typed};
use http::{Response, StatusCode};
use meta::ObjectKey;
use registry::{DeleteOptions, Operation, PatchType, Propagation, UpdateKind};
use std::sync::Arc;

/// Objects of a disruption budget's map of pods on their way out.
const MAX_DISRUPTED_PODS: usize = 2000;

impl Api {
    pub(crate) async fn subresource(
        self: Arc<Self>,
        mut passed: Passed,
        target: Target,
    ) -> Result<Response<Body>, ApiError> {
        let facts = target.resource.facts();
        let Some(sub) = facts.subresources.iter().find(|sub| sub.name == passed.info.subresource) else {
            return Ok(filters::no_such_path());
        };
        let verb = passed.info.verb.clone();
        if matches!(sub.name, "log" | "exec" | "attach" | "portforward" | "proxy") {
            let answer: Answer<'static> = Box::pin(self.connect(passed, target, sub.name));
            return answer.await;
        }
        if !sub.verbs.contains(&verb.as_str()) {
            return Ok(method_not_allowed());
        }
        let whole = sub.kind == facts.kind;
        let kind = if sub.name == "status" { UpdateKind::Status } else { UpdateKind::Sub(sub.name) };
        let mut response = match (sub.name, verb.as_str()) {
            ("scale", "get") => self.get_scale(&passed, &target).await?,
            ("scale", _) => self.write_scale(&mut passed, &target).await?,
            ("binding", "create") => {
                let output = self.output(&passed, false)?;
                parameters::write(&mut passed, "CreateOptions")?;
                let body = read_body(&mut passed).await?;
                let mut binding = Binding::default();
                decode::into(&passed, &mut binding, Binding::gvk(), &body)?;
                self.admit_own(&passed, &target, Operation::Create, &mut binding, None).await?;
                self.bind(&passed, &target.key, binding, output).await?
            }
            ("eviction", "create") => self.evict(&mut passed, &target).await?,
            ("token", "create") => self.create_token(&mut passed, &target).await?,
            (_, "get") if whole => {
                let output = self.output(&passed, false)?;
                let version = passed.query.first("resourceVersion").unwrap_or_default();
                let found = self.registry.get(target.resource, &target.key, version).await?;
                let gzip = verbs::accepts_gzip(&passed);
                answers::object(StatusCode::OK, target.resource, &found, output, gzip, now())?
            }
            (_, "update") if whole => self.update(&mut passed, &target, kind).await?,
            (_, "patch") if whole => self.patch(&mut passed, &target, kind).await?,
            _ => return Ok(method_not_allowed()),
        };
        respond::warn(&mut response, &passed.request.warnings.take());
        Ok(response)
    }

    async fn get_scale(&self, passed: &Passed, target: &Target) -> Result<Response<Body>, ApiError> {
        let output = self.output(passed, false)?;
        let found = self.registry.get(target.resource, &target.key, "").await?;
        let scale = scale_of(target, &*found.object()?)?;
        Ok(respond::message(StatusCode::OK, &scale, output))
    }

    async fn write_scale(&self, passed: &mut Passed, target: &Target) -> Result<Response<Body>, ApiError> {
        let output = self.output(passed, false)?;
        let mut change = if passed.info.verb == "patch" {
            let patch = verbs::read_patch(passed).await?;
            ScaleChange::Patch(patch)
        } else {
            parameters::write(passed, "UpdateOptions")?;
            let body = read_body(passed).await?;
            let mut scale = Scale::default();
            decode::into(passed, &mut scale, Scale::gvk(), &body)?;
            ScaleChange::Replace(Box::new(scale))
        };
        if self.webhooks.any() || self.policies.any() {
            let found = self.registry.get(target.resource, &target.key, "").await?;
            let old = scale_of(target, &*found.object()?)?;
            let mut new = change.apply(&old)?;
            self.admit_own(passed, target, Operation::Update, &mut new, Some(&old)).await?;
            change = ScaleChange::Replace(Box::new(new));
        }
        let apply = |object: &mut dyn Object| {
            let old = scale_of(target, object)?;
            let new = change.apply(&old)?;
            let (metadata, name) = (&new.metadata, &target.key.name);
            if !metadata.name.is_empty() && metadata.name != *name {
                return Err(ApiError::bad_request(format!(
                    "the name of the object ({}) does not match the name on the URL ({name})",
                    metadata.name
                )));
            }
            let version = &metadata.resource_version;
            if !version.is_empty() && *version != object.metadata().resource_version {
                return Err(ApiError::modified(target.resource.group(), target.resource.plural(), name));
            }
            let errors = target.resource.validate_scale(&new);
            if !errors.is_empty() {
                return Err(ApiError::invalid("autoscaling", "Scale", name, &errors));
            }
            target.resource.set_scale(object, &new);
            Ok(())
        };
        let updated = self
            .registry
            .modify(&passed.request, target.resource, &target.key, UpdateKind::Sub("scale"), &apply)
            .await?;
        let scale = scale_of(target, &*updated.object.object()?)?;
        Ok(respond::message(StatusCode::OK, &scale, output))
    }

    /// Puts a pod on a node.
    pub(crate) async fn bind(
        &self,
        passed: &Passed,
        key: &ObjectKey,
        binding: Binding,
        output: Output,
    ) -> Result<Response<Body>, ApiError> {
        let name = &binding.metadata.name;
        if !name.is_empty() && *name != key.name {
            return Err(ApiError::bad_request(format!(
                "name in URL does not match name in Binding object: {name}"
            )));
        }
        let key = ObjectKey::new(key.namespace.clone(), key.name.clone());
        check_binding(&key, &binding)?;
        let assign = |object: &mut dyn Object| match object.downcast_mut::<Pod>() {
            Some(pod) => assign(pod, &binding),
            None => Err(ApiError::internal("a pod is not a pod")),
        };
        let pods = objects::resource_of::<Pod>();
        self.registry.modify(&passed.request, pods, &key, UpdateKind::Sub("binding"), &assign).await?;
        Ok(respond::message(StatusCode::CREATED, &success(201), output))
    }

    async fn evict(&self, passed: &mut Passed, target: &Target) -> Result<Response<Body>, ApiError> {
        let output = self.output(passed, false)?;
        parameters::write(passed, "CreateOptions")?;
        let body = read_body(passed).await?;
        let mut eviction = Eviction::default();
        decode::into(passed, &mut eviction, Eviction::gvk(), &body)?;
        self.admit_own(passed, target, Operation::Create, &mut eviction, None).await?;
        let name = &eviction.metadata.name;
        if !name.is_empty() && *name != target.key.name {
            return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
        }
        let wanted = eviction.delete_options.unwrap_or_default();
        passed.request.dry_run |= !wanted.dry_run.is_empty();
        let preconditions = wanted.preconditions.as_deref();
        let mut options = DeleteOptions {
            grace_period_seconds: wanted.grace_period_seconds,
            propagation: match wanted.propagation_policy.as_deref() {
                Some("Orphan") => Some(Propagation::Orphan),
                Some("Foreground") => Some(Propagation::Foreground),
                Some("Background") => Some(Propagation::Background),
                _ => None,
            },
            uid: preconditions.and_then(|conditions| conditions.uid.clone()),
            resource_version: preconditions.and_then(|conditions| conditions.resource_version.clone()),
        };
        let pod: Pod = self.find(&target.key).await?;
        if !may_go_at_once(&pod) {
            self.consume_budget(passed, &pod, &mut options).await?;
        }
        self.registry.delete(&passed.request, target.resource, &target.key, &options).await?;
        Ok(respond::message(StatusCode::CREATED, &success(201), output))
    }

    /// Takes one disruption out of the budget that covers the pod, or refuses.
    async fn consume_budget(
        &self,
        passed: &Passed,
        pod: &Pod,
        options: &mut DeleteOptions,
    ) -> Result<(), ApiError> {
        let namespace = &pod.metadata.namespace;
        let budgets = objects::list_typed::<PodDisruptionBudget>(&self.registry, namespace).await?;
        let mut covering = budgets.into_iter().filter(|budget| covers(budget, pod));
        let Some(budget) = covering.next() else { return Ok(()) };
        if covering.next().is_some() {
            return Err(ApiError::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
        let status = &budget.status;
        let policy = budget.spec.unhealthy_pod_eviction_policy.as_deref().unwrap_or("IfHealthyBudget");
        let spare = status.current_healthy >= status.desired_healthy && status.desired_healthy > 0;
        if !is_ready(pod) && (policy == "AlwaysAllow" || spare) {
            // The pod may have become ready in between: only this very state of it may go without the budget.
            options.resource_version.get_or_insert_with(|| pod.metadata.resource_version.clone());
            return Ok(());
        }
        let key = ObjectKey::new(namespace.clone(), budget.metadata.name.clone());
        let name = pod.metadata.name.clone();
        let take = |object: &mut dyn Object| match object.downcast_mut::<PodDisruptionBudget>() {
            Some(budget) => take_disruption(budget, &name),
            None => Err(ApiError::internal("a disruption budget is not one")),
        };
        let resource = objects::resource_of::<PodDisruptionBudget>();
        let mut request = registry::Request::internal("kube-apiserver");
        request.dry_run = passed.request.dry_run;
        self.registry.modify(&request, resource, &key, UpdateKind::Status, &take).await?;
        Ok(())
    }
}

/// A Status of success as actions answer with it.
fn success(code: i32) -> Status {
    Status { status: "Success".into(), code, ..Status::default() }
}

enum ScaleChange {
    Replace(Box<Scale>),
    Patch(registry::Patch),
}

impl ScaleChange {
    fn apply(&self, old: &Scale) -> Result<Scale, ApiError> {
        let wanted = match self {
            ScaleChange::Replace(scale) => return Ok((**scale).clone()),
            ScaleChange::Patch(wanted) => wanted,
        };
        let mut after = api::codec::to_value(old);
        match wanted.kind {
            PatchType::Json => {
                after = patch::json::apply(&after, &wanted.body)
                    .map_err(|error| ApiError::bad_request(error.to_string()))?;
            }
            // A Scale has no lists, so all the merging kinds are the same for it.
            PatchType::Merge | PatchType::StrategicMerge | PatchType::Apply => {
                let body: serde_json::Value = serde_json::from_slice(&wanted.body)
                    .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
                patch::merge::apply(&mut after, &body);
            }
        }
        api::codec::from_value(&after).map_err(|error| ApiError::bad_request(error.to_string()))
    }
}

fn scale_of(target: &Target, object: &dyn Object) -> Result<Scale, ApiError> {
    target.resource.scale(object).ok_or_else(|| {
        ApiError::not_found(
            target.resource.group(),
            &format!("{}/scale", target.resource.plural()),
            &target.key.name,
        )
    })
}

fn check_binding(key: &ObjectKey, binding: &Binding) -> Result<(), ApiError> {
    let mut errors = meta::field::Errors::default();
    let path = meta::field::Path::new("target");
    if !binding.target.kind.is_empty() && binding.target.kind != "Node" {
        errors.not_supported(&path.child("kind"), binding.target.kind.as_str(), &["Node", "<empty>"]);
    }
    if binding.target.name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("", "Binding", &key.name, &errors)) }
}

fn assign(pod: &mut Pod, binding: &Binding) -> Result<(), ApiError> {
    let name = pod.metadata.name.clone();
    let refuse = |why: String| Err(ApiError::conflict("", "pods/binding", &name, why));
    let uid = &binding.metadata.uid;
    if !uid.is_empty() && *uid != pod.metadata.uid {
        return refuse(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            pod.metadata.uid
        ));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if !pod.spec.node_name.is_empty() {
        return refuse(format!("pod {name} is already assigned to node {:?}", pod.spec.node_name));
    }
    if !pod.spec.scheduling_gates.is_empty() {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod.spec.node_name = binding.target.name.clone();
    for (key, value) in &binding.metadata.annotations {
        pod.metadata.annotations.insert(key.clone(), value.clone());
    }
    for (key, value) in &binding.metadata.labels {
        // The scheduler copies topology labels; the pod's own labels stay.
        pod.metadata.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let condition = PodCondition {
        r#type: "PodScheduled".into(),
        status: "True".into(),
        last_transition_time: Some(now()),
        ..PodCondition::default()
    };
    match pod.status.conditions.iter_mut().find(|known| known.r#type == "PodScheduled") {
        Some(known) => {
            let since = if known.status == "True" { known.last_transition_time } else { Some(now()) };
            *known = PodCondition { last_transition_time: since, ..condition };
        }
        None => pod.status.conditions.push(condition),
    }
    Ok(())
}

/// A pod that does no work yet, or no more, disrupts nobody.
fn may_go_at_once(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
        || matches!(pod.status.phase.as_str(), "Succeeded" | "Failed" | "Pending")
}

fn is_ready(pod: &Pod) -> bool {
    pod.status.conditions.iter().any(|condition| condition.r#type == "Ready" && condition.status == "True")
}

fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    // A budget without a selector covers nothing; an empty one covers its namespace.
    budget.spec.selector.as_deref().is_some_and(|selector| {
        api::selector(selector).is_ok_and(|selector| selector.matches(&pod.metadata.labels))
    })
}

fn take_disruption(budget: &mut PodDisruptionBudget, pod: &str) -> Result<(), ApiError> {
    let name = &budget.metadata.name;
    let refuse = |cause: String, retry: i32| {
        let text = "Cannot evict pod as it would violate the pod's disruption budget.";
        let mut error = ApiError::too_many_requests(text, retry);
        let cause = Cause { reason: "DisruptionBudget".into(), message: cause, field: String::new() };
        error = error.with_causes(vec![cause]);
        Err(error)
    };
    if budget.status.observed_generation < budget.metadata.generation {
        return refuse(format!("The disruption budget {name} is still being processed by the server."), 10);
    }
    if budget.status.disruptions_allowed < 0 {
        let text = "pdb disruptions allowed is negative";
        return Err(ApiError::forbidden("policy", "poddisruptionbudget", name, text));
    }
    if budget.status.disrupted_pods.len() > MAX_DISRUPTED_PODS {
        let text = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(ApiError::forbidden("policy", "poddisruptionbudget", name, text));
    }
    if budget.status.disruptions_allowed == 0 {
        let text = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            budget.status.desired_healthy, budget.status.current_healthy
        );
        return refuse(text, 0);
    }
    budget.status.disruptions_allowed -= 1;
    budget.status.disrupted_pods.insert(pod.to_string(), Some(now()));
    Ok(())
}
