//! Whether aggregated servers are there: looked at when something about them changes, and every half minute, as upstream
//! does; a failed look is repeated sooner, and then ever later.

use super::Aggregator;
use super::remote::Remote;
use crate::families::{self, Counters};
use crate::objects::{self, resource_of};
use api::Object;
use api::apiregistration::v1::{APIService, APIServiceCondition};
use api::core::v1::Service;
use api::discovery::v1::EndpointSlice;
use api::errors::ApiError;
use http::HeaderMap;
use meta::ObjectKey;
use parking_lot::Mutex;
use registry::{Registry, Request, UpdateKind};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A server that is well is looked at again after this long.
const PERIOD: Duration = Duration::from_secs(30);
/// A server that is not is looked at again after the first, then after twice as long, up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// How long one look may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Looks at once: one that succeeds is enough, as behind a Service some endpoints may be dead.
const ATTEMPTS: usize = 5;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

fn finding(status: &'static str, reason: &'static str, message: String) -> Finding {
    Finding { status, reason, message }
}

/// What the Service and its endpoints say before anybody is asked; `None` when nothing speaks against it.
pub fn without_asking(
    backend: &super::remote::Backend,
    service: Option<&Service>,
    slices: &[EndpointSlice],
) -> Option<Finding> {
    let (name, namespace, port) = (&backend.name, &backend.namespace, backend.port);
    let Some(service) = service else {
        let text = format!("service/{name} in {namespace:?} is not present");
        return Some(finding("False", "ServiceNotFound", text));
    };
    if service.spec.r#type != "ClusterIP" {
        return None;
    }
    let Some(chosen) = service.spec.ports.iter().find(|known| known.port == port) else {
        let text = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Some(finding("False", "ServicePortError", text));
    };
    let own: Vec<&EndpointSlice> = slices
        .iter()
        .filter(|slice| slice.metadata.labels.get("kubernetes.io/service-name") == Some(name))
        .collect();
    if own.is_empty() {
        let text = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Some(finding("False", "EndpointsNotFound", text));
    }
    let serves = |slice: &&EndpointSlice| {
        let ready = slice.endpoints.iter().any(|endpoint| endpoint.conditions.ready != Some(false));
        let named = slice
            .ports
            .iter()
            .any(|known| known.port.is_some() && known.name.as_deref().unwrap_or_default() == chosen.name);
        ready && named
    };
    if own.iter().any(serves) {
        return None;
    }
    let text = format!(
        "endpointslices for service/{name} in {namespace:?} have no addresses with port name {:?}",
        chosen.name
    );
    Some(finding("False", "MissingEndpoints", text))
}

/// Looks at one server for as long as it is registered.
pub async fn keep(aggregator: Arc<Aggregator>, remote: Arc<Remote>) {
    let mut failures: u32 = 0;
    loop {
        let Some(registry) = aggregator.registry.upgrade() else { return };
        let found = tokio::select! {
            found = look(&registry, &remote) => found,
            () = remote.cancel.cancelled() => return,
        };
        let well = found.status == "True";
        if let Err(error) = tell(&registry, &remote, &found, &aggregator.metrics).await {
            tracing::warn!(%error, name = remote.name, "Could not write whether an aggregated API is available");
        }
        drop(registry);
        if well {
            failures = 0;
            let changed = tokio::select! {
                changed = super::discovery::refresh(&remote) => changed,
                () = remote.cancel.cancelled() => return,
            };
            if changed {
                aggregator.changed();
            }
        } else {
            failures = failures.saturating_add(1);
            if super::discovery::mark_stale(&remote) {
                aggregator.changed();
            }
        }
        let pause = if well { PERIOD } else { (RETRY_FIRST * 2u32.pow(failures.min(12) - 1)).min(PERIOD) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = remote.look.notified() => {}
            () = remote.cancel.cancelled() => return,
        }
    }
}

async fn look(registry: &Registry, remote: &Remote) -> Finding {
    let backend = &remote.service;
    let key = ObjectKey::new(backend.namespace.clone(), backend.name.clone());
    let unknown = |error: ApiError, reason: &'static str| {
        let text =
            format!("service/{} in {:?} cannot be checked due to: {error}", backend.name, backend.namespace);
        finding("Unknown", reason, text)
    };
    let service = match objects::get::<Service>(registry, &key).await {
        Ok(service) => service,
        Err(error) => return unknown(error, "ServiceAccessError"),
    };
    let slices = match objects::list_typed::<EndpointSlice>(registry, &backend.namespace).await {
        Ok(slices) => slices,
        Err(error) => return unknown(error, "EndpointsAccessError"),
    };
    if let Some(found) = without_asking(backend, service.as_ref(), &slices) {
        return found;
    }
    match ask(remote).await {
        Ok(()) => finding("True", "Passed", "all checks passed".into()),
        Err(why) => finding("False", "FailedDiscoveryCheck", why),
    }
}

/// Asks for a document that every server of this group version has to have.
async fn ask(remote: &Remote) -> Result<(), String> {
    let (_, client) = remote.way.as_ref().map_err(Clone::clone)?;
    let url = format!("https://{}{}", remote.authority(), remote.root());
    let one = || async {
        let mut headers = HeaderMap::new();
        super::remote::identify(&mut headers, &super::remote::aggregator_user());
        let mut request = http::Request::get(&url);
        if let Some(out) = request.headers_mut() {
            *out = headers;
        }
        let request =
            request.body(crate::respond::full(bytes::Bytes::new())).map_err(|error| error.to_string())?;
        let asked = tokio::time::timeout(TIMEOUT, client.request(request)).await;
        let answer = asked.map_err(|_| {
            format!("failing or missing response from {url}: Get {url:?}: context deadline exceeded")
        })?;
        let response = answer.map_err(|error| {
            let cause = crate::outbound::pool::cause(&error);
            format!("failing or missing response from {url}: Get {url:?}: {cause}")
        })?;
        let code = response.status().as_u16();
        if (200..300).contains(&code) {
            return Ok(());
        }
        Err(format!("failing or missing response from {url}: bad status from {url}: {code}"))
    };
    let mut last = Ok(());
    for _ in 0..ATTEMPTS {
        last = one().await;
        if last.is_ok() {
            break;
        }
        // A dead endpoint answers at once; only time that runs out is not spent five times over.
        if last.as_ref().is_err_and(|why| why.ends_with("context deadline exceeded")) {
            break;
        }
    }
    last
}

/// Writes the finding into the APIService's status, if it says something new.
async fn tell(
    registry: &Registry,
    remote: &Remote,
    found: &Finding,
    metrics: &AvailabilityMetrics,
) -> Result<(), ApiError> {
    metrics.found(&remote.name, found);
    let seen = remote.seen.load_full();
    let told = seen.as_ref().is_some_and(|service| {
        service.status.conditions.iter().any(|known| {
            known.r#type == "Available"
                && known.status == found.status
                && known.reason == found.reason
                && known.message == found.message
        })
    });
    if told {
        return Ok(());
    }
    let change = |object: &mut dyn Object| {
        let Some(service) = object.downcast_mut::<APIService>() else { return Ok(()) };
        if service.spec == remote.spec {
            set_condition(service, found);
        }
        Ok(())
    };
    let resource = resource_of::<APIService>();
    let request = Request::internal("kube-apiserver");
    let written = registry.modify(&request, resource, &remote.key(), UpdateKind::Status, &change).await;
    match written {
        Ok(updated) => {
            if let Some(service) = updated.object.object()?.downcast::<APIService>() {
                remote.take_in(service);
            }
            tracing::info!(
                name = remote.name,
                status = found.status,
                reason = found.reason,
                "Looked at an aggregated API"
            );
            Ok(())
        }
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

fn set_condition(service: &mut APIService, found: &Finding) {
    let conditions = &mut service.status.conditions;
    let now = Some(crate::verbs::now());
    let condition = APIServiceCondition {
        r#type: "Available".into(),
        status: found.status.into(),
        last_transition_time: now,
        reason: found.reason.into(),
        message: found.message.clone(),
    };
    match conditions.iter_mut().find(|known| known.r#type == "Available") {
        Some(known) => {
            let since = if known.status == found.status { known.last_transition_time } else { now };
            *known = APIServiceCondition { last_transition_time: since, ..condition };
        }
        None => conditions.push(condition),
    }
}

/// Which APIServices are unavailable, under upstream's names.
#[derive(Default)]
pub struct AvailabilityMetrics {
    unavailable: Mutex<BTreeMap<String, bool>>,
    total: Counters,
}

impl AvailabilityMetrics {
    fn found(&self, name: &str, found: &Finding) {
        let gone = found.status != "True";
        let before = self.unavailable.lock().insert(name.to_string(), gone);
        if gone && before != Some(true) {
            self.total.one(&[("name", name), ("reason", found.reason)]);
        }
    }

    /// Forgets APIServices that are gone, and learns of those that this server answers itself.
    pub fn keep(&self, all: &[APIService]) {
        let mut known = self.unavailable.lock();
        known.retain(|name, _| all.iter().any(|service| service.metadata.name == *name));
        for service in all.iter().filter(|service| service.spec.service.is_none()) {
            known.insert(service.metadata.name.clone(), false);
        }
    }

    pub fn render(&self, out: &mut String) {
        let series: Vec<(String, f64)> = self
            .unavailable
            .lock()
            .iter()
            .map(|(name, gone)| (families::labels(&[("name", name)]), f64::from(u8::from(*gone))))
            .collect();
        let name = "aggregator_unavailable_apiservice";
        families::gauges(out, name, "APIServices that are unavailable.", &series);
        let name = "aggregator_unavailable_apiservice_total";
        self.total.render(out, name, "APIServices that became unavailable, by reason.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregation::remote::Backend;
    use api::codec::from_value;
    use expect_test::expect;
    use serde_json::{Value, json};

    #[test]
    fn a_service_may_speak_against_its_server() {
        let backend = Backend { namespace: "ns".into(), name: "s".into(), port: 443 };
        let service = |value: Value| -> Service { from_value(&value).unwrap() };
        let slice = |value: Value| -> EndpointSlice { from_value(&value).unwrap() };
        let good = service(json!({"spec": {"type": "ClusterIP", "ports": [{"name": "https", "port": 443}]}}));
        let other = service(json!({"spec": {"type": "ClusterIP", "ports": [{"port": 80}]}}));
        let alias = service(json!({"spec": {"type": "ExternalName"}}));
        let labels = json!({"labels": {"kubernetes.io/service-name": "s"}});
        let unready = slice(json!({"metadata": labels, "ports": [{"name": "https", "port": 8443}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}]}));
        let ready = slice(json!({"metadata": labels, "ports": [{"name": "https", "port": 8443}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}]}));
        let text = |service: Option<&Service>, slices: &[EndpointSlice]| {
            without_asking(&backend, service, slices).map_or("fine".into(), |found| {
                format!("{} {}: {}", found.status, found.reason, found.message)
            })
        };
        let all = [
            text(None, &[]),
            text(Some(&other), &[]),
            text(Some(&good), &[]),
            text(Some(&good), std::slice::from_ref(&unready)),
            text(Some(&good), &[unready, ready]),
            text(Some(&alias), &[]),
        ];
        expect![[r#"
            False ServiceNotFound: service/s in "ns" is not present
            False ServicePortError: service/s in "ns" is not listening on port 443
            False EndpointsNotFound: cannot find endpointslices for service/s in "ns"
            False MissingEndpoints: endpointslices for service/s in "ns" have no addresses with port name "https"
            fine
            fine"#]]
        .assert_eq(&all.join("\n"));
    }
}
