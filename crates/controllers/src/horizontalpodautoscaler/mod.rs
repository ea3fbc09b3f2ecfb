//! Horizontal pod autoscalers: as many replicas of a target as its metrics ask for.
//!
//! Each round asks for the target's scale and for the metrics, and decides from the answers; between two rounds lies the
//! sync period. The first round asks for the scale alone, since its selector says whose metrics to ask for.

mod behavior;
mod metrics;
mod replicas;

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Note, Plan, Report, Step, Target, resource_of};
use api::autoscaling::v1::Scale;
use api::autoscaling::v2::{
    ContainerResourceMetricStatus, CrossVersionObjectReference, ExternalMetricStatus,
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus, MetricSpec,
    MetricStatus, MetricTarget, MetricValueStatus, ObjectMetricStatus, PodsMetricStatus,
    ResourceMetricStatus,
};
use api::core::v1::Pod;
use behavior::Memory;
use meta::labels::Selector;
use meta::quantity::Format;
use meta::{ObjectKey, Quantity};
use metrics::Answer;
use replicas::{Pods, Tolerances};
use std::sync::Arc;
use view::ResourceId;

pub use replicas::Startup;

pub struct HorizontalPodAutoscalers {
    pub period_seconds: i64,
    /// For how long a higher recommendation holds against a scale down.
    pub downscale_seconds: i64,
    /// How far usage may be off before anything is done, as a share of the target.
    pub tolerance: f64,
    pub startup: Startup,
}

impl Controller for HorizontalPodAutoscalers {
    fn name(&self) -> &'static str {
        "horizontal-pod-autoscaler-controller"
    }

    fn component(&self) -> &'static str {
        "horizontal-pod-autoscaler"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::new::<HorizontalPodAutoscaler>(|_, old, new| {
                let Some(new) = new else { return Vec::new() };
                let concerns = old.is_none_or(|old| old.spec != new.spec);
                concerns.then(|| view::key_of(new)).into_iter().collect()
            }),
            Watch::new::<Pod>(|_, _, _| Vec::new()),
        ]
    }

    /// Kinds that are not built in are known by the graph.
    fn uses_graph(&self) -> bool {
        true
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(hpa) = context.view.get::<HorizontalPodAutoscaler>(context.key) else { return plan };
        if hpa.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        let memory = context.marked.map_or_else(Memory::default, |(mark, _)| Memory::read(mark));
        let mut round = Round { own: self, hpa: &hpa, context, memory, status: hpa.status.clone() };
        let Some(resource) = round.resource(&hpa.spec.scale_target_ref) else {
            let target = &hpa.spec.scale_target_ref;
            let why =
                format!("no matches for kind {:?} in group-version {:?}", target.kind, target.api_version);
            round.no_scale(&why, &mut plan);
            round.finish(&mut plan);
            return plan;
        };
        match context.report {
            Some(Report::Answers(answers)) => round.answered(&resource, answers, &mut plan),
            Some(Report::Failed(failure)) if failure.verb == "update" => {
                let text =
                    format!("the HPA controller was unable to update the target scale: {}", failure.message);
                round.set("AbleToScale", false, "FailedUpdateScale", text);
                round.finish(&mut plan);
            }
            _ => round.ask_in_time(&resource, &mut plan),
        }
        plan.mark = round.memory.write();
        plan
    }
}

/// One look at an autoscaler.
struct Round<'a> {
    own: &'a HorizontalPodAutoscalers,
    hpa: &'a HorizontalPodAutoscaler,
    context: &'a Context<'a>,
    memory: Memory,
    status: HorizontalPodAutoscalerStatus,
}

/// What one metric asks for.
struct Proposal {
    replicas: i32,
    name: String,
    status: MetricStatus,
}

impl Round<'_> {
    fn now(&self) -> i64 {
        self.context.now.seconds()
    }

    /// The resource that serves a kind, in whatever version is known.
    fn resource(&self, of: &CrossVersionObjectReference) -> Option<Arc<ResourceId>> {
        let (group, version) = of.api_version.split_once('/').unwrap_or(("", &of.api_version));
        let built_in = resource_of(group, version, &of.kind);
        if !built_in.plural.is_empty() {
            return Some(built_in);
        }
        self.context.view.graph().resource_of_kind(&of.api_version, &of.kind).cloned()
    }

    fn ask_in_time(&mut self, resource: &ResourceId, plan: &mut Plan) {
        let left = self.memory.asked + self.own.period_seconds - self.now();
        if left > 0 {
            plan.again_after_seconds(left);
            return;
        }
        self.ask(resource, plan);
    }

    /// Asks for the scale, and where the selector is known for each metric.
    fn ask(&mut self, resource: &ResourceId, plan: &mut Plan) {
        let namespace = &self.hpa.metadata.namespace;
        let prefix = if resource.group.is_empty() { "/api" } else { "/apis" };
        let mut paths = vec![format!(
            "{prefix}/{}/namespaces/{namespace}/{}/{}/scale",
            resource.api_version(),
            resource.plural,
            self.hpa.spec.scale_target_ref.name
        )];
        if !self.memory.selector.is_empty() {
            paths.extend(self.hpa.spec.metrics.iter().filter_map(|spec| self.path(spec).ok()));
        }
        self.memory.asked = self.now();
        plan.push(Action::Query(paths));
        plan.again_after_seconds(self.own.period_seconds);
    }

    fn path(&self, spec: &MetricSpec) -> Result<String, String> {
        let plural = |of: &CrossVersionObjectReference| Some(self.resource(of)?.group_resource());
        metrics::path(spec, &self.hpa.metadata.namespace, &self.memory.selector, &plural)
    }

    fn set(&mut self, kind: &str, holds: bool, reason: &str, message: impl Into<String>) {
        let status = if holds { "True" } else { "False" };
        let at = self.status.conditions.iter().position(|known| known.r#type == kind).unwrap_or_else(|| {
            let fresh = HorizontalPodAutoscalerCondition { r#type: kind.into(), ..Default::default() };
            self.status.conditions.push(fresh);
            self.status.conditions.len() - 1
        });
        let known = &mut self.status.conditions[at];
        if known.status != status {
            known.last_transition_time = Some(self.context.now);
        }
        (known.status, known.reason, known.message) = (status.into(), reason.into(), message.into());
    }

    fn no_scale(&mut self, why: &str, plan: &mut Plan) {
        plan.events.push(Note::warning(self.hpa, "FailedGetScale", why));
        let text = format!("the HPA controller was unable to get the target's current scale: {why}");
        self.set("AbleToScale", false, "FailedGetScale", text);
    }

    /// Writes the status where it has changed, and comes back.
    fn finish(&self, plan: &mut Plan) {
        if self.status != self.hpa.status {
            let mut next = HorizontalPodAutoscaler::clone(self.hpa);
            next.status = self.status.clone();
            let update = Action::UpdateSub { object: Box::new(next), subresource: "status" };
            plan.steps.push(Step::new(update).always());
        }
        plan.again_after_seconds(self.own.period_seconds);
    }

    fn answered(&mut self, resource: &Arc<ResourceId>, answers: &[Answer], plan: &mut Plan) {
        let scale = match answers.first() {
            Some(Ok(value)) => api::codec::from_json::<Scale>(value.to_string().as_bytes()).ok(),
            Some(Err(failure)) => {
                self.no_scale(&failure.message, plan);
                self.finish(plan);
                return;
            }
            None => None,
        };
        let Some(scale) = scale else { return self.finish(plan) };
        if scale.status.selector != self.memory.selector && !scale.status.selector.is_empty() {
            self.memory.selector.clone_from(&scale.status.selector);
            return self.ask(resource, plan);
        }
        let (current, now) = (scale.spec.replicas, self.now());
        self.set(
            "AbleToScale",
            true,
            "SucceededGetScale",
            "the HPA controller was able to get the target's current scale",
        );
        if self.memory.recommendations.is_empty() {
            self.memory.recommendations.push((now, current));
        }
        self.status.current_replicas = current;
        let Some((wanted, why)) = self.wanted(&scale, &answers[1..], plan) else { return self.finish(plan) };
        self.status.desired_replicas = wanted;
        if wanted != current {
            let text = format!("the HPA controller was able to update the target scale to {wanted}");
            self.set("AbleToScale", true, "SucceededRescale", text);
            self.status.last_scale_time = Some(self.context.now);
            behavior::remember_change(&self.hpa.spec, &mut self.memory, current, wanted, now);
            plan.steps.push(self.rescale(resource, scale, wanted, &why));
        }
        self.finish(plan);
    }

    fn rescale(&self, resource: &Arc<ResourceId>, mut scale: Scale, wanted: i32, why: &str) -> Step {
        scale.spec.replicas = wanted;
        let key =
            ObjectKey::new(self.hpa.metadata.namespace.clone(), self.hpa.spec.scale_target_ref.name.clone());
        let target = Target {
            resource: resource.clone(),
            kind: None,
            key,
            uid: scale.metadata.uid.clone(),
            resource_version: scale.metadata.resource_version.clone(),
        };
        let done = format!("New size: {wanted}; reason: {why}");
        let failed = format!("New size: {wanted}; reason: {why}; error: {{error}}");
        Step::new(Action::Rescale { target, scale: Box::new(scale) })
            .done(Note::normal(self.hpa, "SuccessfulRescale", done))
            .failed(Note::warning(self.hpa, "FailedRescale", failed))
    }

    /// The replicas there are to be, and why; `None` where nothing can be said.
    fn wanted(&mut self, scale: &Scale, answers: &[Answer], plan: &mut Plan) -> Option<(i32, String)> {
        let (spec, current) = (&self.hpa.spec, scale.spec.replicas);
        let least = spec.min_replicas.unwrap_or(1);
        if current == 0 && least != 0 {
            let text = "scaling is disabled since the replica count of the target is zero";
            self.set("ScalingActive", false, "ScalingDisabled", text);
            return Some((0, String::new()));
        }
        if current > spec.max_replicas {
            return Some((spec.max_replicas, "Current number of replicas above Spec.MaxReplicas".into()));
        }
        if current < least {
            return Some((least, "Current number of replicas below Spec.MinReplicas".into()));
        }
        let (asked, metric) = self.by_metrics(scale, answers, plan)?;
        let (now, window) = (self.now(), self.own.downscale_seconds);
        let normal = behavior::normalize(spec, &mut self.memory, current, asked, now, window);
        self.set("AbleToScale", true, normal.able.0, normal.able.1);
        self.set("ScalingLimited", normal.limited.0, normal.limited.1.0, normal.limited.1.1);
        let why = if asked > current {
            format!("{metric} above target")
        } else {
            "All metrics below target".into()
        };
        Some((normal.replicas, why))
    }

    /// The most that a metric asks for. Where one cannot be read, nothing is scaled down.
    fn by_metrics(&mut self, scale: &Scale, answers: &[Answer], plan: &mut Plan) -> Option<(i32, String)> {
        let selector = match scale.status.selector.as_str() {
            "" => Err(("SelectorRequired", "selector is required".to_string())),
            text => Selector::parse(text).map_err(|why| {
                let text =
                    format!("couldn't convert selector into a corresponding internal selector object: {why}");
                ("InvalidSelector", text)
            }),
        };
        let selector = match selector {
            Ok(selector) => selector,
            Err((reason, text)) => {
                plan.events.push(Note::warning(self.hpa, reason, text.clone()));
                let text = if reason == "SelectorRequired" {
                    "the HPA target's scale is missing a selector".into()
                } else {
                    text
                };
                self.set("ScalingActive", false, "InvalidSelector", text);
                return None;
            }
        };
        let pods: Vec<Arc<Pod>> = self
            .context
            .view
            .in_namespace::<Pod>(&self.hpa.metadata.namespace)
            .filter(|pod| selector.matches(&pod.metadata.labels))
            .collect();
        let mut answers = answers.iter();
        let mut best: Option<(i32, String)> = None;
        let (mut statuses, mut faults) = (Vec::new(), Vec::new());
        for spec in &self.hpa.spec.metrics {
            let answer = self.path(spec).map(|_| answers.next());
            let proposal = match answer {
                Ok(Some(answer)) => self.propose(spec, scale, &pods, answer),
                Ok(None) => Err((reason(spec), "the metric was not asked for yet".to_string())),
                Err(why) => Err((reason(spec), why)),
            };
            match proposal {
                Ok(proposal) => {
                    statuses.push(proposal.status);
                    if best
                        .as_ref()
                        .is_none_or(|(replicas, _)| *replicas == 0 || proposal.replicas > *replicas)
                    {
                        best = Some((proposal.replicas, proposal.name));
                    }
                }
                Err(fault) => {
                    plan.events.push(Note::warning(self.hpa, fault.0, fault.1.clone()));
                    statuses.push(MetricStatus::default());
                    faults.push(fault);
                }
            }
        }
        self.status.current_metrics = statuses;
        let down = best.as_ref().is_none_or(|(replicas, _)| *replicas < scale.spec.replicas);
        if let Some((reason, why)) = faults.first().filter(|_| down) {
            let all = self.hpa.spec.metrics.len();
            let text =
                format!("invalid metrics ({} invalid out of {all}), first error is: {why}", faults.len());
            plan.events.push(Note::warning(self.hpa, "FailedComputeMetricsReplicas", text));
            let text = format!("the HPA was unable to compute the replica count: {why}");
            self.set("ScalingActive", false, reason, text);
            return None;
        }
        let (replicas, metric) = best?;
        let text = format!("the HPA was able to successfully calculate a replica count from {metric}");
        self.set("ScalingActive", true, "ValidMetricFound", text);
        Some((replicas, metric))
    }

    fn tolerances(&self) -> Tolerances {
        let behavior = self.hpa.spec.behavior.as_deref();
        let of =
            |own: Option<Quantity>| own.map_or(self.own.tolerance, |own| own.milli_value() as f64 / 1000.0);
        Tolerances {
            down: of(behavior.and_then(|behavior| behavior.scale_down.as_deref()?.tolerance)),
            up: of(behavior.and_then(|behavior| behavior.scale_up.as_deref()?.tolerance)),
        }
    }

    fn propose(
        &self,
        spec: &MetricSpec,
        scale: &Scale,
        pods: &[Arc<Pod>],
        answer: &Answer,
    ) -> Result<Proposal, (&'static str, String)> {
        let pods = Pods {
            pods,
            now: self.context.now,
            startup: self.own.startup,
            tolerances: self.tolerances(),
            current: scale.spec.replicas,
        };
        let mut status = MetricStatus { r#type: spec.r#type.clone(), ..MetricStatus::default() };
        let found = propose(spec, &pods, scale.status.replicas, answer, &mut status);
        let (replicas, name) = found.map_err(|why| (reason(spec), why))?;
        Ok(Proposal { replicas, name, status })
    }
}

/// The event and condition that say that a metric cannot be had.
fn reason(spec: &MetricSpec) -> &'static str {
    match spec.r#type.as_str() {
        "Resource" => "FailedGetResourceMetric",
        "ContainerResource" => "FailedGetContainerResourceMetric",
        "Pods" => "FailedGetPodsMetric",
        "Object" => "FailedGetObjectMetric",
        "External" => "FailedGetExternalMetric",
        _ => "InvalidMetricSourceType",
    }
}

fn propose(
    spec: &MetricSpec,
    pods: &Pods<'_>,
    replicas_now: i32,
    answer: &Answer,
    status: &mut MetricStatus,
) -> Result<(i32, String), String> {
    let milli = |quantity: &Option<Quantity>| quantity.map(|quantity| quantity.milli_value());
    if let Some(source) = &spec.resource {
        let (replicas, name, current) = of_resource(pods, &source.name, "", &source.target, answer)?;
        status.resource = Some(Box::new(ResourceMetricStatus { name: source.name.clone(), current }));
        return Ok((replicas, name));
    }
    if let Some(source) = &spec.container_resource {
        let (replicas, name, current) =
            of_resource(pods, &source.name, &source.container, &source.target, answer)?;
        let (name_of, container) = (source.name.clone(), source.container.clone());
        status.container_resource =
            Some(Box::new(ContainerResourceMetricStatus { name: name_of, current, container }));
        return Ok((replicas, name));
    }
    if let Some(source) = &spec.pods {
        let name = &source.metric.name;
        let target = milli(&source.target.average_value)
            .ok_or("invalid pods metric source: no average value target was set")?;
        let found = metrics::of_pods(answer).map_err(|why| format!("unable to get metric {name}: {why}"))?;
        let (replicas, usage) = pods.for_average(found, target, "")?;
        let current = average_value(Quantity::from_millis(usage));
        status.pods = Some(Box::new(PodsMetricStatus { metric: source.metric.clone(), current }));
        return Ok((replicas, format!("pods metric {name}")));
    }
    if let Some(source) = &spec.object {
        let (name, object) = (&source.metric.name, &source.described_object);
        let usage =
            metrics::of_object(answer).map_err(|why| format!("unable to get metric {name}: {why}"))?;
        let (replicas, current) = of_whole(pods, usage, &source.target, replicas_now)?;
        status.object = Some(Box::new(ObjectMetricStatus {
            metric: source.metric.clone(),
            current,
            described_object: object.clone(),
        }));
        return Ok((replicas, format!("{} metric {name}", object.kind)));
    }
    let source =
        spec.external.as_ref().ok_or_else(|| format!("unknown metric source type {:?}", spec.r#type))?;
    let name = &source.metric.name;
    let usage =
        metrics::of_external(answer).map_err(|why| format!("unable to get external metric {name}: {why}"))?;
    let (replicas, current) = of_whole(pods, usage, &source.target, replicas_now)?;
    status.external = Some(Box::new(ExternalMetricStatus { metric: source.metric.clone(), current }));
    let selector = source.metric.selector.as_deref().and_then(|selector| api::selector(selector).ok());
    let selector = selector.map_or("nil".to_string(), |selector| selector.to_string());
    Ok((replicas, format!("external metric {name}({selector})")))
}

fn average_value(amount: Quantity) -> MetricValueStatus {
    MetricValueStatus { average_value: Some(amount), ..MetricValueStatus::default() }
}

/// An amount as the metrics server writes it: memory in powers of two.
fn amount(resource: &str, milli: i64) -> Quantity {
    if resource == "memory" && milli % 1000 == 0 {
        Quantity::from_units(milli / 1000, Format::BinarySi)
    } else {
        Quantity::from_millis(milli)
    }
}

fn of_resource(
    pods: &Pods<'_>,
    resource: &str,
    container: &str,
    target: &MetricTarget,
    answer: &Answer,
) -> Result<(i32, String, MetricValueStatus), String> {
    let found = metrics::of_resource(answer, resource, container);
    let found = found.map_err(|why| format!("unable to get metrics for resource {resource}: {why}"));
    if let Some(wanted) = target.average_value {
        let usage = found.and_then(|found| pods.for_average(found, wanted.milli_value(), resource));
        let (replicas, usage) = usage.map_err(|why| format!("failed to get {resource} usage: {why}"))?;
        return Ok((replicas, format!("{resource} resource"), average_value(amount(resource, usage))));
    }
    let Some(wanted) = target.average_utilization else {
        return Err("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set".into());
    };
    let usage = found.and_then(|found| {
        let requests = replicas::requests(pods.pods, resource, container)?;
        pods.for_utilization(found, wanted, resource, &requests)
    });
    let (replicas, percent, usage) =
        usage.map_err(|why| format!("failed to get {resource} utilization: {why}"))?;
    let part = if container.is_empty() { "resource" } else { "container resource" };
    let current =
        MetricValueStatus { average_utilization: Some(percent), ..average_value(amount(resource, usage)) };
    Ok((replicas, format!("{resource} {part} utilization (percentage of request)"), current))
}

/// A metric of the whole: so much of it, or so much of it for each replica.
fn of_whole(
    pods: &Pods<'_>,
    usage: i64,
    target: &MetricTarget,
    replicas_now: i32,
) -> Result<(i32, MetricValueStatus), String> {
    if let Some(wanted) = target.value.filter(|_| target.r#type != "AverageValue") {
        let current = MetricValueStatus { value: Some(Quantity::from_millis(usage)), ..Default::default() };
        return Ok((pods.for_total(usage, wanted.milli_value())?, current));
    }
    let wanted = target.average_value.ok_or("neither a value target nor an average value target was set")?;
    let (replicas, share) = pods.for_share(usage, wanted.milli_value(), replicas_now);
    Ok((replicas, average_value(Quantity::from_millis(share))))
}
