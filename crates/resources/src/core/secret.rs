//! Secrets: bytes under keys, of a type that says which keys must be there. What they hold is never shown.

use super::config_map::{DATA_MAX_BYTES, FROZEN, validate_bytes};
use super::pod::defaults::fill;
use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::object_meta::immutable;
use crate::strategy::Strategy;
use api::core::v1::Secret;
use meta::Time;
use meta::field::{Errors, Path};

pub struct Secrets;

impl Strategy for Secrets {
    type Object = Secret;
    const PLURAL: &'static str = "secrets";
    const COLUMNS: &'static [Column] = &[NAME, Column::string("Type"), Column::string("Data"), AGE];
    const SELECTABLE: &'static [&'static str] = &["type", "metadata.namespace", "metadata.name"];

    fn default(secret: &mut Secret) {
        fill(&mut secret.r#type, "Opaque");
        // What is written as text is kept as bytes, and read back as such.
        for (key, value) in std::mem::take(&mut secret.string_data) {
            secret.data.insert(key, value.into_bytes());
        }
    }

    fn validate(new: &Secret, old: Option<&Secret>, errors: &mut Errors) {
        if let Some(old) = old {
            immutable(&new.r#type, &old.r#type, &Path::new("type"), errors);
            if old.immutable == Some(true) {
                if new.immutable != Some(true) {
                    errors.forbidden(&Path::new("immutable"), FROZEN);
                }
                if new.data != old.data {
                    errors.forbidden(&Path::new("data"), FROZEN);
                }
            }
        }
        let data = Path::new("data");
        if validate_bytes(&new.data, &data, errors) > DATA_MAX_BYTES {
            errors.too_long(&data, DATA_MAX_BYTES);
        }
        validate_type(new, &data, errors);
    }

    fn selectable(secret: &Secret) -> Vec<(&'static str, String)> {
        vec![("type", secret.r#type.clone())]
    }

    fn row(secret: &Secret, now: Time) -> Vec<Cell> {
        vec![
            columns::name(&secret.metadata),
            secret.r#type.clone().into(),
            secret.data.len().into(),
            columns::age(&secret.metadata, now),
        ]
    }
}

fn validate_type(secret: &Secret, data: &Path, errors: &mut Errors) {
    let mut need = |key: &str| {
        let there = secret.data.contains_key(key);
        if !there {
            errors.required(&data.key(key), "");
        }
        there
    };
    let json_key = match secret.r#type.as_str() {
        "kubernetes.io/service-account-token" => {
            const ACCOUNT: &str = "kubernetes.io/service-account.name";
            if secret.metadata.annotations.get(ACCOUNT).is_none_or(String::is_empty) {
                errors.required(&Path::new("metadata").child("annotations").key(ACCOUNT), "");
            }
            return;
        }
        "kubernetes.io/basic-auth" => {
            // Either alone will do.
            if !secret.data.contains_key("username") && !secret.data.contains_key("password") {
                need("username");
                need("password");
            }
            return;
        }
        "kubernetes.io/ssh-auth" => {
            if secret.data.get("ssh-privatekey").is_none_or(Vec::is_empty) {
                errors.required(&data.key("ssh-privatekey"), "");
            }
            return;
        }
        "kubernetes.io/tls" => {
            need("tls.crt");
            need("tls.key");
            return;
        }
        "kubernetes.io/dockercfg" => ".dockercfg",
        "kubernetes.io/dockerconfigjson" => ".dockerconfigjson",
        _ => return,
    };
    if !need(json_key) {
        return;
    }
    let content = &secret.data[json_key];
    if let Err(error) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(content) {
        errors.invalid(&data.key(json_key), "<secret contents redacted>", error.to_string());
    }
}
