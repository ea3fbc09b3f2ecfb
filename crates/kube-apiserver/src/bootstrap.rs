//! The objects every cluster starts with: namespaces, roles, priority classes, flow control, and the server's own service.
//!
//! Invariant: a start only adds or repairs; what an administrator has changed and marked as theirs is left alone.

use crate::objects::{self, resource_of};
use crate::{Api, start::Material};
use api::core::v1::{ConfigMap, Endpoints, Namespace, Service};
use api::discovery::v1::EndpointSlice;
use api::errors::ApiError;
use api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use api::networking::v1::ServiceCIDR;
use api::scheduling::v1::PriorityClass;
use api::{Object, Typed};
use authz::bootstrap;
use meta::ObjectKey;
use registry::{Registry, Request, UpdateKind};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

const MANAGER: &str = "kube-apiserver";
const FLOW_AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// What the server's own service points to.
pub struct Published {
    pub service_ip: IpAddr,
    pub address: IpAddr,
    pub port: u16,
    pub service_range: String,
    /// No other server is on the same store; else the endpoints of all are kept together.
    pub alone: bool,
}

fn request() -> Request {
    Request::internal(MANAGER)
}

fn read<T: Typed>(value: Value) -> T {
    api::codec::from_value(&value).expect("the bootstrap objects are written in this file")
}

/// Creates an object that is not there. What is there stays.
async fn ensure<T: Typed + Object + Clone>(registry: &Registry, mut object: T) -> Result<(), ApiError> {
    let resource = resource_of::<T>();
    let key = ObjectKey::new(object.metadata().namespace.clone(), object.metadata().name.clone());
    if objects::get::<T>(registry, &key).await?.is_some() {
        return Ok(());
    }
    resource.default(&mut object);
    match registry.create(&request(), resource, &key.namespace, Box::new(object)).await {
        Err(error) if error.is_already_exists() => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Creates an object, or brings the stored one up to it by `reconcile`.
async fn reconcile<T: Typed + Object + Clone>(
    registry: &Registry,
    wanted: T,
    reconcile: fn(&T, &T) -> Option<T>,
) -> Result<(), ApiError> {
    let resource = resource_of::<T>();
    let key = ObjectKey::new(wanted.metadata().namespace.clone(), wanted.metadata().name.clone());
    let Some(stored) = objects::get::<T>(registry, &key).await? else {
        return ensure(registry, wanted).await;
    };
    if let Some(next) = reconcile(&stored, &wanted) {
        registry.update(&request(), resource, &key, UpdateKind::Spec, Box::new(next)).await?;
    }
    Ok(())
}

impl Api {
    /// All of it, in the order in which one needs the other.
    pub(crate) async fn bootstrap(
        self: &Arc<Self>,
        published: &Published,
        material: &Material,
    ) -> Result<(), ApiError> {
        let registry = &self.registry;
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let namespace = json!({"metadata": {"name": name}});
            ensure(registry, read::<Namespace>(namespace)).await?;
        }
        // Since when uses of tokens in Secrets are noted: those that cleaners may judge by.
        let since = crate::verbs::now().0.strftime("%Y-%m-%d").to_string();
        let tracking = json!({
            "metadata": {"name": "kube-apiserver-legacy-service-account-token-tracking", "namespace": "kube-system"},
            "data": {"since": since},
        });
        ensure(registry, read::<ConfigMap>(tracking)).await?;
        self.health.hook_done("start-system-namespaces-controller");
        roles(registry).await?;
        self.health.hook_done("rbac/bootstrap-roles");
        for class in priority_classes() {
            ensure(registry, read::<PriorityClass>(class)).await?;
        }
        self.health.hook_done("scheduling/bootstrap-system-priority-classes");
        flow_control(registry).await?;
        self.health.hook_done("priority-and-fairness-config-producer");
        let cidr = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [published.service_range]}});
        ensure(registry, read::<ServiceCIDR>(cidr)).await?;
        publish(registry, published).await?;
        self.health.hook_done("bootstrap-controller");
        authentication(registry, material).await?;
        self.health.hook_done("start-cluster-authentication-info-controller");
        Ok(())
    }
}

async fn roles(registry: &Registry) -> Result<(), ApiError> {
    let policy = bootstrap::policy();
    for role in policy.cluster_roles {
        reconcile(registry, role, bootstrap::reconcile_cluster_role).await?;
    }
    for binding in policy.cluster_role_bindings {
        reconcile(registry, binding, bootstrap::reconcile_cluster_role_binding).await?;
    }
    for role in policy.roles {
        reconcile(registry, role, bootstrap::reconcile_role).await?;
    }
    for binding in policy.role_bindings {
        reconcile(registry, binding, bootstrap::reconcile_role_binding).await?;
    }
    aggregate(registry).await
}

/// Gives aggregating roles the rules of what they select, so that they serve before any controller runs; the
/// aggregation controller keeps them from then on.
async fn aggregate(registry: &Registry) -> Result<(), ApiError> {
    use api::rbac::v1::{ClusterRole, PolicyRule};
    // Twice, because an aggregated role may itself be aggregated: edit into admin.
    for _ in 0..2 {
        let all = objects::list_typed::<ClusterRole>(registry, "").await?;
        for role in all.iter().filter(|role| role.aggregation_rule.is_some()) {
            let selectors = role.aggregation_rule.iter().flat_map(|rule| &rule.cluster_role_selectors);
            let mut rules: Vec<PolicyRule> = Vec::new();
            for selector in selectors {
                let selector = api::selector(selector).map_err(ApiError::internal)?;
                let mut selected: Vec<&ClusterRole> = all
                    .iter()
                    .filter(|other| other.metadata.name != role.metadata.name)
                    .filter(|other| selector.matches(&other.metadata.labels))
                    .collect();
                selected.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
                for rule in selected.iter().flat_map(|other| &other.rules) {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
            if rules != role.rules {
                let next = ClusterRole { rules, ..role.clone() };
                let key = ObjectKey::cluster(role.metadata.name.clone());
                let resource = resource_of::<ClusterRole>();
                match registry.update(&request(), resource, &key, UpdateKind::Spec, Box::new(next)).await {
                    // The controller was quicker.
                    Err(error) if error.is_conflict() => {}
                    other => other.map(|_| ())?,
                }
            }
        }
    }
    Ok(())
}

fn priority_classes() -> [Value; 2] {
    let class = |name: &str, value: i32, description: &str| {
        json!({"metadata": {"name": name}, "value": value, "description": description,
               "preemptionPolicy": "PreemptLowerPriority"})
    };
    [
        class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ]
}

/// Name, nominal shares, lendable percent, and of a queueing level its queues and hand size.
type Level = (&'static str, i32, i32, Option<(i32, i32)>);

const LEVELS: [Level; 7] = [
    ("catch-all", 5, 0, None),
    ("system", 30, 33, Some((64, 6))),
    ("node-high", 40, 25, Some((64, 6))),
    ("leader-election", 10, 0, Some((16, 4))),
    ("workload-high", 40, 50, Some((128, 6))),
    ("workload-low", 100, 90, Some((128, 6))),
    ("global-default", 20, 50, Some((128, 6))),
];
const QUEUE_LENGTH: i32 = 50;

/// The objects of flow control: made where they are missing, and brought up to date where nobody has taken them over.
pub async fn flow_control(registry: &Registry) -> Result<(), ApiError> {
    let annotations = json!({ FLOW_AUTOUPDATE: "true" });
    let exempt = json!({"metadata": {"name": "exempt", "annotations": annotations},
        "spec": {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}});
    let mut levels = vec![exempt];
    for (name, shares, lendable, queues) in LEVELS {
        let response = match queues {
            None => json!({"type": "Reject"}),
            Some((queues, hand)) => json!({"type": "Queue", "queuing":
                {"queues": queues, "handSize": hand, "queueLengthLimit": QUEUE_LENGTH}}),
        };
        levels.push(json!({"metadata": {"name": name, "annotations": annotations},
            "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": shares,
                "lendablePercent": lendable, "limitResponse": response}}}));
    }
    for level in levels {
        keep(registry, read::<PriorityLevelConfiguration>(level), |stored, wanted| {
            // How much the exempt level counts and lends is the administrator's to say.
            let same = stored.spec == wanted.spec || wanted.spec.exempt.is_some();
            (!same).then(|| PriorityLevelConfiguration { spec: wanted.spec.clone(), ..stored.clone() })
        })
        .await?;
    }
    for schema in flow_schemas() {
        keep(registry, read::<FlowSchema>(schema), |stored, wanted| {
            let same = stored.spec == wanted.spec;
            (!same).then(|| FlowSchema { spec: wanted.spec.clone(), ..stored.clone() })
        })
        .await?;
    }
    Ok(())
}

/// What no server can do without; everything else is only suggested.
const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

/// Creates an object, or updates it if it is mandatory, or says that it may be.
async fn keep<T: Typed + Object + Clone>(
    registry: &Registry,
    mut wanted: T,
    change: fn(&T, &T) -> Option<T>,
) -> Result<(), ApiError> {
    let resource = resource_of::<T>();
    resource.default(&mut wanted);
    let key = ObjectKey::cluster(wanted.metadata().name.clone());
    let Some(stored) = objects::get::<T>(registry, &key).await? else {
        return ensure(registry, wanted).await;
    };
    let metadata = stored.metadata();
    let ours = MANDATORY.contains(&key.name.as_str())
        || metadata.annotations.get(FLOW_AUTOUPDATE).map_or(metadata.generation == 1, |text| text == "true");
    let Some(next) = change(&stored, &wanted).filter(|_| ours) else { return Ok(()) };
    match registry.update(&request(), resource, &key, UpdateKind::Spec, Box::new(next)).await {
        Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
        other => other.map(|_| ()),
    }
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
}

fn system_accounts() -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}})
}

fn resource_rule(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = json!(true);
    }
    rule
}

/// A schema whose subjects may do everything.
fn wide(name: &str, level: &str, precedence: i32, by: &str, subjects: Vec<Value>) -> Value {
    let rules = json!([{"subjects": subjects,
        "resourceRules": [resource_rule(&["*"], "*", &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]);
    schema(name, level, precedence, by, rules)
}

fn schema(name: &str, level: &str, precedence: i32, by: &str, rules: Value) -> Value {
    let mut spec = json!({"priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence, "rules": rules});
    if !by.is_empty() {
        spec["distinguisherMethod"] = json!({ "type": by });
    }
    json!({"metadata": {"name": name, "annotations": {FLOW_AUTOUPDATE: "true"}}, "spec": spec})
}

fn flow_schemas() -> Vec<Value> {
    let everyone = ["system:unauthenticated", "system:authenticated"];
    let mut leaders = users(&["system:kube-controller-manager", "system:kube-scheduler"]);
    leaders.push(system_accounts());
    let leases = resource_rule(&["get", "create", "update"], "coordination.k8s.io", &["leases"], false);
    let node_rules = json!([{"subjects": groups(&["system:nodes"]), "resourceRules": [
        resource_rule(&["*"], "", &["nodes", "nodes/status"], true),
        resource_rule(&["*"], "coordination.k8s.io", &["leases"], false)]}]);
    let probes = json!([{"subjects": groups(&everyone), "nonResourceRules":
        [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]}]);
    let (user, namespace) = ("ByUser", "ByNamespace");
    vec![
        wide("exempt", "exempt", 1, "", groups(&["system:masters"])),
        wide("catch-all", "catch-all", 10_000, user, groups(&everyone)),
        schema("probes", "exempt", 2, "", probes),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            user,
            json!([{"subjects": leaders, "resourceRules": [leases]}]),
        ),
        schema("system-node-high", "node-high", 400, user, node_rules),
        wide("system-nodes", "system", 500, user, groups(&["system:nodes"])),
        wide(
            "kube-controller-manager",
            "workload-high",
            800,
            namespace,
            users(&["system:kube-controller-manager"]),
        ),
        wide("kube-scheduler", "workload-high", 800, namespace, users(&["system:kube-scheduler"])),
        wide("kube-system-service-accounts", "workload-high", 900, namespace, vec![system_accounts()]),
        wide("service-accounts", "workload-low", 9000, user, groups(&["system:serviceaccounts"])),
        wide("global-default", "global-default", 9900, user, groups(&everyone)),
    ]
}

/// The `kubernetes` Service and the endpoints behind it.
async fn publish(registry: &Registry, published: &Published) -> Result<(), ApiError> {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let ip = published.service_ip.to_string();
    let service = json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": published.port}]},
    });
    ensure(registry, read::<Service>(service)).await?;
    if published.address.is_loopback() {
        // No pod could use it, and the API refuses such endpoints.
        tracing::warn!("Found no address by which pods reach this server: set --advertise-address");
        return Ok(());
    }
    if published.alone {
        publish_endpoints(registry, &[published.address], published.port).await?;
    }
    Ok(())
}

/// The addresses behind the `kubernetes` Service.
pub async fn publish_endpoints(registry: &Registry, addresses: &[IpAddr], port: u16) -> Result<(), ApiError> {
    let Some(first) = addresses.first() else { return Ok(()) };
    let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let ips: Vec<Value> = addresses.iter().map(|address| json!({"ip": address.to_string()})).collect();
    let endpoints = json!({
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": ips, "ports": ports}],
    });
    replace(registry, read::<Endpoints>(endpoints), |stored, wanted| stored.subsets == wanted.subsets)
        .await?;
    let family = if first.is_ipv4() { "IPv4" } else { "IPv6" };
    let each = |address: &IpAddr| json!({"addresses": [address.to_string()], "conditions": {"ready": true}});
    let slice = json!({
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family,
        "endpoints": addresses.iter().map(each).collect::<Vec<Value>>(),
        "ports": ports,
    });
    replace(registry, read::<EndpointSlice>(slice), |stored, wanted| {
        stored.endpoints == wanted.endpoints && stored.ports == wanted.ports
    })
    .await
}

/// Creates an object, or overwrites one that is not the same.
async fn replace<T: Typed + Object + Clone>(
    registry: &Registry,
    wanted: T,
    same: fn(&T, &T) -> bool,
) -> Result<(), ApiError> {
    let resource = resource_of::<T>();
    let mut wanted = wanted;
    resource.default(&mut wanted);
    let key = ObjectKey::new(wanted.metadata().namespace.clone(), wanted.metadata().name.clone());
    match objects::get::<T>(registry, &key).await? {
        None => ensure(registry, wanted).await,
        Some(stored) if same(&stored, &wanted) => Ok(()),
        Some(_) => {
            registry.update(&request(), resource, &key, UpdateKind::Spec, Box::new(wanted)).await.map(|_| ())
        }
    }
}

/// What extension API servers authenticate clients by.
async fn authentication(registry: &Registry, material: &Material) -> Result<(), ApiError> {
    let mut data: BTreeMap<String, String> = BTreeMap::new();
    if let Some(ca) = &material.client_ca {
        data.insert("client-ca-file".into(), ca.clone());
    }
    if let (Some(ca), Some(rules)) = (&material.front_proxy_ca, &material.request_header) {
        let list = |items: &[String]| json!(items).to_string();
        data.insert("requestheader-client-ca-file".into(), ca.clone());
        data.insert("requestheader-allowed-names".into(), list(&rules.allowed_names));
        data.insert("requestheader-username-headers".into(), list(&rules.username));
        if !rules.uid.is_empty() {
            data.insert("requestheader-uid-headers".into(), list(&rules.uid));
        }
        data.insert("requestheader-group-headers".into(), list(&rules.group));
        data.insert("requestheader-extra-headers-prefix".into(), list(&rules.extra_prefix));
    }
    let mut map = ConfigMap { data, ..ConfigMap::default() };
    map.metadata.name = "extension-apiserver-authentication".into();
    map.metadata.namespace = "kube-system".into();
    replace(registry, map, |stored, wanted| stored.data == wanted.data).await
}
