//! Which address a Service of the cluster is reached at, as upstream's resolvers decide it.

use crate::objects;
use api::core::v1::Service;
use api::discovery::v1::EndpointSlice;
use api::errors::ApiError;
use meta::ObjectKey;
use rand::Rng;
use registry::Registry;
use std::sync::{Arc, Weak};

/// The way to a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// By its cluster address: whatever proxies Services on this machine picks an endpoint.
    ClusterIp,
    /// Straight to one of its endpoints: upstream's `--enable-aggregator-routing`.
    Endpoints,
}

/// Resolves Services by what the registry knows.
pub struct Services {
    registry: Weak<Registry>,
    routing: Routing,
    /// The port of the server itself, which is what `default/kubernetes` means.
    own_port: u16,
}

impl Services {
    pub fn new(registry: &Arc<Registry>, routing: Routing, own_port: u16) -> Arc<Self> {
        Arc::new(Services { registry: Arc::downgrade(registry), routing, own_port })
    }

    /// Host and port of a Service. Errors are those that callers of upstream's resolvers see.
    pub async fn resolve(&self, namespace: &str, name: &str, port: i32) -> Result<(String, u16), ApiError> {
        if (namespace, name) == ("default", "kubernetes") && port == 443 {
            return Ok(("127.0.0.1".into(), self.own_port));
        }
        let registry = self.registry.upgrade();
        let registry =
            registry.ok_or_else(|| ApiError::service_unavailable("the server is shutting down"))?;
        let key = ObjectKey::new(namespace, name);
        let service = objects::get::<Service>(&registry, &key)
            .await?
            .ok_or_else(|| ApiError::not_found("", "service", name))?;
        match self.routing {
            Routing::ClusterIp => by_cluster_ip(&service, port),
            Routing::Endpoints => {
                let slices = objects::list_typed::<EndpointSlice>(&registry, namespace).await?;
                let start = rand::rng().random_range(0..usize::MAX);
                by_endpoints(&service, &slices, port, start)
            }
        }
    }
}

fn number(port: i32) -> Result<u16, ApiError> {
    u16::try_from(port).map_err(|_| ApiError::internal(format!("{port} is not a port")))
}

fn has_port(service: &Service, port: i32) -> Result<&api::core::v1::ServicePort, ApiError> {
    service.spec.ports.iter().find(|known| known.port == port).ok_or_else(|| {
        ApiError::service_unavailable(format!(
            "no service port {port} found for service {:?}",
            service.metadata.name
        ))
    })
}

/// The cluster address, or for an alias what it stands for.
pub fn by_cluster_ip(service: &Service, port: i32) -> Result<(String, u16), ApiError> {
    let spec = &service.spec;
    match spec.r#type.as_str() {
        "ClusterIP" if spec.cluster_ip == "None" => {
            Err(ApiError::internal("cannot route to service with ClusterIP \"None\""))
        }
        "ClusterIP" | "LoadBalancer" | "NodePort" | "" => {
            has_port(service, port)?;
            Ok((spec.cluster_ip.clone(), number(port)?))
        }
        "ExternalName" => Ok((spec.external_name.clone(), number(port)?)),
        other => Err(ApiError::internal(format!("unsupported service type {other:?}"))),
    }
}

/// A ready endpoint; `start` says where in the lists the search begins, so that callers spread.
pub fn by_endpoints(
    service: &Service,
    slices: &[EndpointSlice],
    port: i32,
    start: usize,
) -> Result<(String, u16), ApiError> {
    let name = &service.metadata.name;
    let kind = service.spec.r#type.as_str();
    if kind == "ExternalName" {
        return Err(ApiError::internal(format!("unsupported service type {kind:?}")));
    }
    let wanted = &has_port(service, port)?.name;
    let mut own: Vec<&EndpointSlice> = slices
        .iter()
        .filter(|slice| slice.metadata.labels.get("kubernetes.io/service-name") == Some(name))
        .collect();
    let family = service.spec.ip_families.first();
    // The primary family first; the sort keeps the order of the rest.
    own.sort_by_key(|slice| family.is_some_and(|family| *family != slice.address_type));
    for slice in own {
        let number = slice
            .ports
            .iter()
            .find(|known| known.name.as_deref().unwrap_or_default() == wanted)
            .and_then(|known| known.port);
        let count = slice.endpoints.len();
        let Some(number_of_port) = number.filter(|_| count > 0) else { continue };
        let ready = (0..count)
            .map(|at| &slice.endpoints[(start + at % count) % count])
            .find(|endpoint| endpoint.conditions.ready != Some(false) && !endpoint.addresses.is_empty());
        if let Some(endpoint) = ready {
            return Ok((endpoint.addresses[0].clone(), self::number(number_of_port)?));
        }
    }
    Err(ApiError::service_unavailable(format!("no endpoints available for service {name:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::codec::from_value;
    use serde_json::json;

    fn service(spec: serde_json::Value) -> Service {
        from_value(&json!({"metadata": {"name": "hook", "namespace": "x"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_service_is_its_cluster_address_its_alias_or_a_ready_endpoint() {
        let plain = service(
            json!({"type": "ClusterIP", "clusterIP": "10.0.0.9", "ports": [{"name": "s", "port": 443}]}),
        );
        let text = |result: Result<(String, u16), ApiError>| match result {
            Ok((host, port)) => format!("{host}:{port}"),
            Err(error) => error.message,
        };
        assert_eq!(text(by_cluster_ip(&plain, 443)), "10.0.0.9:443");
        assert_eq!(text(by_cluster_ip(&plain, 80)), "no service port 80 found for service \"hook\"");
        let alias = service(json!({"type": "ExternalName", "externalName": "far.example"}));
        assert_eq!(text(by_cluster_ip(&alias, 8443)), "far.example:8443");
        let slice = |endpoints: serde_json::Value| -> EndpointSlice {
            from_value(
                &json!({"metadata": {"labels": {"kubernetes.io/service-name": "hook"}}, "addressType": "IPv4",
                "ports": [{"name": "s", "port": 8443}], "endpoints": endpoints}),
            )
            .unwrap()
        };
        let none = text(by_endpoints(&plain, &[], 443, 7));
        assert_eq!(none, "no endpoints available for service \"hook\"");
        let slices = [slice(json!([
            {"addresses": ["10.1.0.1"], "conditions": {"ready": false}},
            {"addresses": ["10.1.0.2"], "conditions": {}}
        ]))];
        assert_eq!(text(by_endpoints(&plain, &slices, 443, usize::MAX)), "10.1.0.2:8443");
        assert_eq!(text(by_endpoints(&plain, &slices, 443, 0)), "10.1.0.2:8443");
    }
}
