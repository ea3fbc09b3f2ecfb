//! Webhooks that validate and webhooks that change, which differ in little more than whether they may be asked again.

use super::{
    default_rule, failure_policy, match_conditions, match_policy, one_of, rule_with_operations, selectors,
};
use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::strategy::Strategy;
use crate::webhook_client;
use api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, ValidatingWebhook, ValidatingWebhookConfiguration,
};
use meta::field::{Errors, Path};
use meta::{Time, validation};

const TIMEOUT_SECONDS: i32 = 10;
const TIMEOUT_MAX_SECONDS: i32 = 30;
const DOMAIN_MIN_SEGMENTS: usize = 3;
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// What both kinds of webhook share; their types are two.
trait Webhook {
    fn default(&mut self);
    fn name(&self) -> &str;
    fn validate(&self, path: &Path, errors: &mut Errors);
}

macro_rules! webhook {
    ($type:ty) => {
        impl Webhook for $type {
            fn default(&mut self) {
                self.failure_policy.get_or_insert_with(|| "Fail".into());
                self.match_policy.get_or_insert_with(|| "Equivalent".into());
                self.namespace_selector.get_or_insert_default();
                self.object_selector.get_or_insert_default();
                self.timeout_seconds.get_or_insert(TIMEOUT_SECONDS);
                for rule in &mut self.rules {
                    default_rule(&mut rule.rule);
                }
                if let Some(service) = &mut self.client_config.service {
                    service.port.get_or_insert(webhook_client::PORT);
                }
            }
            fn name(&self) -> &str {
                &self.name
            }
            fn validate(&self, path: &Path, errors: &mut Errors) {
                fully_qualified(&self.name, &path.child("name"), errors);
                for (index, rule) in self.rules.iter().enumerate() {
                    rule_with_operations(rule, &path.child("rules").index(index), errors);
                }
                failure_policy(self.failure_policy.as_ref(), path, errors);
                match_policy(self.match_policy.as_ref(), path, errors);
                side_effects(self.side_effects.as_ref(), &path.child("sideEffects"), errors);
                if let Some(seconds) =
                    self.timeout_seconds.filter(|it| !(1..=TIMEOUT_MAX_SECONDS).contains(it))
                {
                    let detail = "the timeout value must be between 1 and 30 seconds";
                    errors.invalid(&path.child("timeoutSeconds"), seconds, detail);
                }
                selectors(self.namespace_selector.as_deref(), self.object_selector.as_deref(), path, errors);
                let client = &self.client_config;
                let service = client.service.as_ref().map(|service| webhook_client::Service {
                    namespace: &service.namespace,
                    name: &service.name,
                    path: service.path.as_deref(),
                    port: service.port.unwrap_or(webhook_client::PORT),
                });
                let place = path.child("clientConfig");
                webhook_client::validate(client.url.as_deref(), service.as_ref(), &place, errors);
                match_conditions(&self.match_conditions, false, path, errors);
                review_versions(
                    &self.admission_review_versions,
                    &path.child("admissionReviewVersions"),
                    errors,
                );
            }
        }
    };
}
webhook!(MutatingWebhook);
webhook!(ValidatingWebhook);

fn fully_qualified(name: &str, path: &Path, errors: &mut Errors) {
    let faults = validation::dns1123_subdomain(name);
    if name.is_empty() {
        errors.required(path, "");
    } else if !faults.is_empty() {
        errors.invalid(path, name, faults.join(","));
    } else if name.split('.').count() < DOMAIN_MIN_SEGMENTS {
        let detail = "should be a domain with at least three segments separated by dots";
        errors.invalid(path, name, detail);
    }
}

fn side_effects(value: Option<&String>, path: &Path, errors: &mut Errors) {
    let allowed = ["None", "NoneOnDryRun"];
    if value.is_none() {
        errors.required(path, format!("must specify one of {}", allowed.join(", ")));
    }
    one_of(value, &allowed, path, errors);
}

fn review_versions(versions: &Vec<String>, path: &Path, errors: &mut Errors) {
    if versions.is_empty() {
        let detail = format!("must specify one of {}", REVIEW_VERSIONS.join(", "));
        return errors.required(path, detail);
    }
    for (index, version) in versions.iter().enumerate() {
        let path = path.index(index);
        if versions[..index].contains(version) {
            errors.invalid(&path, version, "duplicate version");
        } else {
            errors.invalid_each(&path, version, validation::dns1035_label(version));
        }
    }
    if !versions.iter().any(|version| REVIEW_VERSIONS.contains(&version.as_str())) {
        let detail = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.invalid(path, meta::field::Json(versions), detail);
    }
}

fn validate_all<W: Webhook>(webhooks: &[W], errors: &mut Errors) {
    for (index, webhook) in webhooks.iter().enumerate() {
        let path = Path::new("webhooks").index(index);
        webhook.validate(&path, errors);
        let name = webhook.name();
        if !name.is_empty() && webhooks[..index].iter().any(|other| other.name() == name) {
            errors.duplicate(&path.child("name"), name);
        }
    }
}

macro_rules! configurations {
    ($name:ident, $type:ty, $plural:literal, |$webhook:ident| $more:expr, |$checked:ident, $errors:ident| $check:expr) => {
        pub struct $name;
        impl Strategy for $name {
            type Object = $type;
            const PLURAL: &'static str = $plural;
            const COLUMNS: &'static [Column] = &[NAME, Column::integer("Webhooks"), AGE];
            const GENERATION: bool = true;
            const UNCONDITIONAL_UPDATE: bool = false;

            fn spec_changed(new: &$type, old: &$type) -> bool {
                new.webhooks != old.webhooks
            }
            fn default(configuration: &mut $type) {
                for $webhook in &mut configuration.webhooks {
                    Webhook::default($webhook);
                    $more
                }
            }
            fn validate($checked: &$type, _old: Option<&$type>, $errors: &mut Errors) {
                validate_all(&$checked.webhooks, $errors);
                $check
            }
            fn row(object: &$type, now: Time) -> Vec<Cell> {
                let metadata = &object.metadata;
                vec![columns::name(metadata), object.webhooks.len().into(), columns::age(metadata, now)]
            }
        }
    };
}
configurations!(
    ValidatingWebhookConfigurations,
    ValidatingWebhookConfiguration,
    "validatingwebhookconfigurations",
    |webhook| (),
    |configuration, errors| ()
);
configurations!(
    MutatingWebhookConfigurations,
    MutatingWebhookConfiguration,
    "mutatingwebhookconfigurations",
    |webhook| {
        webhook.reinvocation_policy.get_or_insert_with(|| "Never".into());
    },
    |configuration, errors| for (index, webhook) in configuration.webhooks.iter().enumerate() {
        let path = Path::new("webhooks").index(index).child("reinvocationPolicy");
        one_of(webhook.reinvocation_policy.as_ref(), &["IfNeeded", "Never"], &path, errors);
    }
);
