//! What every namespace has: the service account `default`, and the cluster's root certificate.

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Plan};
use api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use meta::ObjectKey;
use std::sync::Arc;
use view::View;

const DEFAULT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const ROOT_CA_KEY: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const ROOT_CA_DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

/// The namespace itself, where it takes new objects.
fn active(view: &View, name: &str) -> Option<Arc<Namespace>> {
    view.get::<Namespace>(&ObjectKey::cluster(name)).filter(|namespace| {
        namespace.metadata.deletion_timestamp.is_none() && namespace.status.phase != "Terminating"
    })
}

/// Keys are names of namespaces.
fn namespace_of(namespace: &str) -> Vec<ObjectKey> {
    vec![ObjectKey::cluster(namespace)]
}

pub struct ServiceAccounts;

impl Controller for ServiceAccounts {
    fn name(&self) -> &'static str {
        "serviceaccount-controller"
    }

    fn component(&self) -> &'static str {
        "service-account-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::own::<Namespace>(),
            Watch::new::<ServiceAccount>(|_, old, new| match (old, new) {
                (Some(account), None) if account.metadata.name == DEFAULT => {
                    namespace_of(&account.metadata.namespace)
                }
                _ => Vec::new(),
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let name = &context.key.name;
        let key = ObjectKey::new(name.clone(), DEFAULT);
        if active(context.view, name).is_some() && context.view.get::<ServiceAccount>(&key).is_none() {
            let mut account = ServiceAccount::default();
            account.metadata.namespace.clone_from(name);
            account.metadata.name = DEFAULT.into();
            plan.push(Action::Create(Box::new(account)));
        }
        plan
    }
}

/// Publishes the certificate by which pods know the API server.
pub struct RootCaPublisher {
    pub ca_pem: String,
}

impl Controller for RootCaPublisher {
    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher-controller"
    }

    fn component(&self) -> &'static str {
        "root-ca-cert-publisher"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::own::<Namespace>(),
            Watch::new::<ConfigMap>(|_, old, new| match new.or(old) {
                Some(map) if map.metadata.name == ROOT_CA => namespace_of(&map.metadata.namespace),
                _ => Vec::new(),
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let name = &context.key.name;
        if active(context.view, name).is_none() {
            return plan;
        }
        let data = [(ROOT_CA_KEY.to_string(), self.ca_pem.clone())].into();
        let described = (DESCRIPTION.to_string(), ROOT_CA_DESCRIPTION.to_string());
        match context.view.get::<ConfigMap>(&ObjectKey::new(name.clone(), ROOT_CA)) {
            None => {
                let mut map = ConfigMap { data, ..ConfigMap::default() };
                map.metadata.namespace.clone_from(name);
                map.metadata.name = ROOT_CA.into();
                map.metadata.annotations.extend([described]);
                plan.push(Action::Create(Box::new(map)));
            }
            Some(map) => {
                if map.data != data || !map.metadata.annotations.contains_key(DESCRIPTION) {
                    let mut next = ConfigMap::clone(&map);
                    next.data = data;
                    next.metadata.annotations.extend([described]);
                    plan.push(Action::Update(Box::new(next)));
                }
            }
        }
        plan
    }
}
