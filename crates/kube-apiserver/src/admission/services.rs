//! A service's addresses and ports are handed out as it is written.

use super::Chain;
use api::Object;
use api::core::v1::{Service, ServiceSpec};
use api::errors::ApiError;
use meta::ObjectKey;
use meta::field::{Errors, Path};
use rand::Rng;
use registry::Attributes;
use std::net::IpAddr;

const NONE: &str = "None";
const NAME_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

impl Chain {
    /// Fills in cluster IPs, families and node ports of a new or changed service, and takes them.
    pub(super) async fn allocate(
        &self,
        attributes: &Attributes<'_>,
        object: &mut dyn Object,
    ) -> Result<(), ApiError> {
        let old = attributes.old.and_then(|old| old.downcast::<Service>());
        if let Some(old) = attributes.old {
            // What the update leaves out is taken over from before; only what is new has to be handed out.
            attributes.resource.prepare_for_update(object, old);
        }
        let Some(service) = object.downcast_mut::<Service>() else { return Ok(()) };
        if service.metadata.name.is_empty() && !service.metadata.generate_name.is_empty() {
            // An address is taken in the name of its service, so the name is made now.
            service.metadata.name = generated(&service.metadata.generate_name);
        }
        let mut errors = Errors::default();
        self.addresses(attributes, service, old, &mut errors).await?;
        if errors.is_empty() {
            self.ports(attributes, service, old, &mut errors).await;
            if !errors.is_empty() && !attributes.request.dry_run {
                self.give_back(service, old).await;
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid("", "Service", &service.metadata.name, &errors))
    }

    async fn addresses(
        &self,
        attributes: &Attributes<'_>,
        service: &mut Service,
        old: Option<&Service>,
        errors: &mut Errors,
    ) -> Result<(), ApiError> {
        let owner = ObjectKey::new(attributes.namespace, service.metadata.name.clone());
        let spec = &mut service.spec;
        if spec.r#type == "ExternalName" {
            return Ok(());
        }
        if spec.cluster_ips.is_empty() && !spec.cluster_ip.is_empty() {
            spec.cluster_ips = vec![spec.cluster_ip.clone()];
        }
        let family = self.allocator.family();
        let path = Path::new("spec");
        default_families(spec, family, &path, errors);
        if !errors.is_empty() || spec.cluster_ips.first().is_some_and(|address| address == NONE) {
            if spec.cluster_ip.is_empty() && errors.is_empty() {
                spec.cluster_ip = NONE.into();
            }
            return Ok(());
        }
        let held = old.map(|old| old.spec.cluster_ips.clone()).unwrap_or_default();
        let dry_run = attributes.request.dry_run;
        match spec.cluster_ips.first().cloned().filter(|address| !address.is_empty()) {
            Some(address) if held.contains(&address) => {}
            Some(address) => {
                if address.parse::<IpAddr>().is_err() {
                    // Validation says so in its own words.
                    return Ok(());
                }
                if let Err(why) = self.allocator.take_address(&address, &owner, dry_run).await {
                    let why = format!("failed to allocate IP {address}: {why}");
                    errors.invalid(&path.child("clusterIPs"), meta::field::Json(&spec.cluster_ips), why);
                }
            }
            None => match self.allocator.next_address(&owner, dry_run).await {
                Ok(address) => {
                    spec.cluster_ip = address.to_string();
                    spec.cluster_ips = vec![address.to_string()];
                }
                Err(why) => {
                    return Err(ApiError::internal(format!("failed to allocate a serviceIP: {why}")));
                }
            },
        }
        if spec.cluster_ip.is_empty() {
            spec.cluster_ip = spec.cluster_ips.first().cloned().unwrap_or_default();
        }
        Ok(())
    }

    /// A service that is refused leaves the address that was taken for it.
    async fn give_back(&self, service: &Service, old: Option<&Service>) {
        for address in service.spec.cluster_ips.iter().filter_map(|text| text.parse::<IpAddr>().ok()) {
            let kept = old.is_some_and(|old| old.spec.cluster_ips.contains(&address.to_string()));
            if !kept && let Err(error) = self.allocator.release(address).await {
                tracing::warn!(%error, %address, "Could not give a cluster IP back");
            }
        }
    }

    async fn ports(
        &self,
        attributes: &Attributes<'_>,
        service: &mut Service,
        old: Option<&Service>,
        errors: &mut Errors,
    ) {
        let spec = &mut service.spec;
        let wants = spec.r#type == "NodePort"
            || (spec.r#type == "LoadBalancer" && spec.allocate_load_balancer_node_ports != Some(false));
        let health = spec.r#type == "LoadBalancer" && spec.external_traffic_policy == "Local";
        let held: Vec<i32> =
            old.map(|old| old.spec.ports.iter().map(|port| port.node_port).collect()).unwrap_or_default();
        // Ports of one number and different protocols share their node port; each number is taken once.
        let mut slots: Vec<(usize, u16)> = Vec::new();
        for (at, port) in spec.ports.iter().enumerate() {
            let given = u16::try_from(port.node_port).unwrap_or(0);
            let kept = port.node_port > 0 && held.contains(&port.node_port);
            let twice = given > 0 && slots.iter().any(|(_, known)| *known == given);
            if kept || twice || (given == 0 && !wants) || (given > 0 && spec.r#type == "ClusterIP") {
                continue;
            }
            let sibling = given == 0
                && spec.ports[..at]
                    .iter()
                    .any(|before| before.port == port.port && before.protocol != port.protocol);
            if !sibling {
                slots.push((at, given));
            }
        }
        let needs_health = health && spec.health_check_node_port == 0;
        let mut wanted: Vec<u16> = slots.iter().map(|(_, port)| *port).collect();
        if needs_health {
            wanted.push(0);
        }
        if wanted.is_empty() {
            share(spec, wants);
            return;
        }
        match self.allocator.take_ports(&wanted, attributes.request.dry_run).await {
            Ok(chosen) => {
                for ((at, _), port) in slots.iter().zip(&chosen) {
                    spec.ports[*at].node_port = i32::from(*port);
                }
                if needs_health {
                    spec.health_check_node_port = chosen.last().map_or(0, |port| i32::from(*port));
                }
                share(spec, wants);
            }
            Err((place, why)) => {
                let at = slots.get(place).map_or(0, |(at, _)| *at);
                let path = Path::new("spec").child("ports").index(at).child("nodePort");
                errors.invalid(&path, i64::from(wanted[place]), why);
            }
        }
    }
}

/// Gives a port without a node port that of its sibling of another protocol.
fn share(spec: &mut ServiceSpec, wants: bool) {
    if !wants {
        return;
    }
    for at in 0..spec.ports.len() {
        if spec.ports[at].node_port == 0 {
            let number = spec.ports[at].port;
            let sibling = spec.ports.iter().find(|port| port.port == number && port.node_port > 0);
            spec.ports[at].node_port = sibling.map_or(0, |port| port.node_port);
        }
    }
}

/// The cluster has one family, so a service has that one; wanting two is satisfied only as far as it is a preference.
fn default_families(spec: &mut ServiceSpec, family: &str, path: &Path, errors: &mut Errors) {
    if spec.ip_families.iter().any(|wanted| matches!(wanted.as_str(), "IPv4" | "IPv6") && wanted != family) {
        let index = spec.ip_families.iter().position(|wanted| wanted != family).unwrap_or(0);
        let wanted = spec.ip_families[index].clone();
        errors.invalid(
            &path.child("ipFamilies").index(index),
            wanted.as_str(),
            "not configured on this cluster",
        );
        return;
    }
    let headless_anywhere =
        spec.cluster_ips.first().is_some_and(|address| address == NONE) && spec.selector.is_empty();
    if spec.ip_family_policy.as_deref() == Some("RequireDualStack") && !headless_anywhere {
        errors.invalid(
            &path.child("ipFamilyPolicy"),
            "RequireDualStack",
            "this cluster is not configured for dual-stack services",
        );
        return;
    }
    spec.ip_family_policy.get_or_insert_with(|| "SingleStack".into());
    if spec.ip_families.is_empty() {
        spec.ip_families = vec![family.into()];
    }
}

fn generated(prefix: &str) -> String {
    let mut rng = rand::rng();
    let tail: String =
        (0..5).map(|_| char::from(NAME_LETTERS[rng.random_range(0..NAME_LETTERS.len())])).collect();
    format!("{prefix}{tail}")
}
