//! Secrets that hold tokens of service accounts: filled when they are made, deleted with their account, cleaned up when
//! they were made unasked and nobody uses them.

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Errand, Plan, Report, Target};
use api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use jiff::civil::Date;
use meta::{ObjectKey, Time};
use std::sync::Arc;
use view::View;

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const DAY: i64 = 86_400;

fn is_token(secret: &Secret) -> bool {
    secret.r#type == TYPE
}

fn annotation<'a>(secret: &'a Secret, name: &str) -> &'a str {
    secret.metadata.annotations.get(name).map(String::as_str).unwrap_or_default()
}

/// The account that a secret's token is of, where it lives.
fn account_of(view: &View, secret: &Secret) -> Option<Arc<ServiceAccount>> {
    let key = ObjectKey::new(secret.metadata.namespace.clone(), annotation(secret, ACCOUNT));
    let uid = annotation(secret, ACCOUNT_UID);
    view.get::<ServiceAccount>(&key).filter(|account| uid.is_empty() || account.metadata.uid == uid)
}

/// Token secrets of an account that changed, as far as their own state does not tell which account they are of.
fn secrets_of(view: &View, account: Option<&ServiceAccount>) -> Vec<ObjectKey> {
    let Some(account) = account else { return Vec::new() };
    let of = |secret: &Secret| is_token(secret) && annotation(secret, ACCOUNT) == account.metadata.name;
    let secrets = view.in_namespace::<Secret>(&account.metadata.namespace);
    secrets.filter(|secret| of(secret)).map(|secret| view::key_of(secret.as_ref())).collect()
}

/// Gives token secrets their token, namespace and root certificate; deletes those whose account is gone.
pub struct Tokens {
    /// What token holders check the API server by; empty for nothing.
    pub ca_pem: String,
}

impl Controller for Tokens {
    fn name(&self) -> &'static str {
        "serviceaccount-token-controller"
    }

    fn component(&self) -> &'static str {
        "tokens-controller"
    }

    fn account(&self) -> &'static str {
        ""
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::new::<Secret>(|_, old, new| {
                new.or(old)
                    .filter(|secret| is_token(secret))
                    .map(|secret| view::key_of(secret))
                    .into_iter()
                    .collect()
            }),
            Watch::new::<ServiceAccount>(|view, old, new| match (old, new) {
                (Some(old), Some(new)) if old.metadata.uid == new.metadata.uid => Vec::new(),
                _ => secrets_of(view, new.or(old)),
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(secret) = context.view.get::<Secret>(context.key).filter(|secret| is_token(secret)) else {
            self.forget(context, &mut plan);
            return plan;
        };
        if annotation(&secret, ACCOUNT).is_empty() || secret.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        let Some(account) = account_of(context.view, &secret) else {
            // Revoked with its account; but the view of accounts may be behind that of secrets.
            if context.view.revision(view::kind_id::<ServiceAccount>()) >= view::revision_of(secret.as_ref())
            {
                let target = Target::of(secret.as_ref());
                plan.push(Action::Delete { target, propagation: None, grace_seconds: None });
            }
            return plan;
        };
        let mut next = Secret::clone(&secret);
        if !self.ca_pem.is_empty() {
            next.data.insert("ca.crt".into(), self.ca_pem.clone().into_bytes());
        }
        let namespace = next.data.entry("namespace".into()).or_default();
        if namespace.is_empty() {
            *namespace = secret.metadata.namespace.clone().into_bytes();
        }
        if next.data.get("token").is_none_or(Vec::is_empty) {
            let Some(Report::Made(token)) = context.report else {
                plan.push(Action::Errand(Errand::SignToken {
                    account: view::key_of(account.as_ref()),
                    account_uid: account.metadata.uid.clone(),
                    secret: secret.metadata.name.clone(),
                }));
                return plan;
            };
            next.data.insert("token".into(), token.0.clone().into_bytes());
        }
        if next.data != secret.data {
            let annotations = &mut next.metadata.annotations;
            annotations.insert(ACCOUNT.into(), account.metadata.name.clone());
            annotations.insert(ACCOUNT_UID.into(), account.metadata.uid.clone());
            plan.push(Action::Update(Box::new(next)));
        }
        plan
    }
}

impl Tokens {
    /// A secret that is gone leaves the lists of accounts that name it.
    fn forget(&self, context: &Context<'_>, plan: &mut Plan) {
        if context.view.get::<Secret>(context.key).is_some() {
            return;
        }
        let names =
            |account: &ServiceAccount| account.secrets.iter().any(|known| known.name == context.key.name);
        for account in context.view.in_namespace::<ServiceAccount>(&context.key.namespace) {
            if names(&account) {
                let mut next = ServiceAccount::clone(&account);
                next.secrets.retain(|known| known.name != context.key.name);
                plan.push(Action::Update(Box::new(next)));
            }
        }
    }
}

/// Marks as invalid, and later deletes, token secrets that were made unasked and that nobody has used for long.
pub struct LegacyTokenCleaner {
    /// How many seconds a token may be unused.
    pub unused_seconds: i64,
}

/// Since when uses of tokens have been noted, as kube-apiserver says.
const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";

fn day(seconds: i64) -> String {
    Time::from_seconds(seconds).unwrap_or_default().0.strftime("%Y-%m-%d").to_string()
}

fn is_day(text: &str) -> bool {
    text.len() == 10 && text.parse::<Date>().is_ok()
}

fn is_mounted(view: &View, secret: &Secret) -> bool {
    let name = &secret.metadata.name;
    view.in_namespace::<Pod>(&secret.metadata.namespace).any(|pod| {
        let spec = &pod.spec;
        let volumes = spec.volumes.iter().any(|volume| {
            let whole =
                volume.volume_source.secret.as_ref().is_some_and(|source| source.secret_name == *name);
            let parts = volume.volume_source.projected.iter().flat_map(|projected| &projected.sources);
            whole
                || parts.into_iter().any(|part| {
                    part.secret.as_ref().is_some_and(|part| part.local_object_reference.name == *name)
                })
        });
        let containers = spec.containers.iter().chain(&spec.init_containers).any(|container| {
            let from = container.env_from.iter().filter_map(|from| from.secret_ref.as_deref());
            let values =
                container.env.iter().filter_map(|env| env.value_from.as_deref()?.secret_key_ref.as_deref());
            from.into_iter().any(|from| from.local_object_reference.name == *name)
                || values.into_iter().any(|key| key.local_object_reference.name == *name)
        });
        volumes || containers || spec.image_pull_secrets.iter().any(|pull| pull.name == *name)
    })
}

impl Controller for LegacyTokenCleaner {
    fn name(&self) -> &'static str {
        "legacy-serviceaccount-token-cleaner-controller"
    }

    fn component(&self) -> &'static str {
        "legacy-service-account-token-cleaner"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::new::<Secret>(|_, _, new| {
                new.filter(|secret| is_token(secret)).map(|secret| view::key_of(secret)).into_iter().collect()
            }),
            Watch::new::<ServiceAccount>(|_, _, _| Vec::new()),
            Watch::new::<Pod>(|_, _, _| Vec::new()),
            Watch::new::<ConfigMap>(|_, _, _| Vec::new()),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(secret) = context.view.get::<Secret>(context.key).filter(|secret| is_token(secret)) else {
            return plan;
        };
        // Uses are noted by the day: looking once a day is enough.
        plan.again_after_seconds(DAY);
        let now = context.now.seconds();
        let line = now - self.unused_seconds;
        let created = secret.metadata.creation_timestamp.is_some_and(|created| created.seconds() < line);
        let mounted = || is_mounted(context.view, &secret);
        if !self.noted_long_enough(context) || !created || secret.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        if let Some(used) = secret.metadata.labels.get(LAST_USED)
            && (!is_day(used) || *used >= day(line))
        {
            return plan;
        }
        let listed = |account: Arc<ServiceAccount>| {
            account.secrets.iter().any(|known| known.name == secret.metadata.name)
        };
        if !account_of(context.view, &secret).is_some_and(listed) || mounted() {
            return plan;
        }
        let since = secret.metadata.labels.get(INVALID_SINCE).filter(|since| is_day(since));
        match since {
            None => plan.push(Action::Patch {
                target: Target::of(secret.as_ref()),
                subresource: "",
                strategic: false,
                body: serde_json::json!({"metadata": {
                    "uid": secret.metadata.uid, "labels": {INVALID_SINCE: day(now)},
                }}),
            }),
            Some(since) if *since < day(line) => {
                let target = Target::at_revision(secret.as_ref());
                plan.push(Action::Delete { target, propagation: None, grace_seconds: None });
            }
            Some(_) => {}
        }
        plan
    }
}

impl LegacyTokenCleaner {
    fn noted_long_enough(&self, context: &Context<'_>) -> bool {
        let map = context.view.get::<ConfigMap>(&ObjectKey::new("kube-system", TRACKING));
        let since = map.and_then(|map| map.data.get("since").and_then(|since| since.parse::<Date>().ok()));
        // From the day after the one that uses were noted from.
        let since = since.and_then(|since| since.tomorrow().ok());
        since.is_some_and(|since| day(context.now.seconds() - self.unused_seconds) >= since.to_string())
    }
}
