//! EncryptionConfiguration: which resources are kept how, and what is wrong with a file that says so.

use super::cipher::Cipher;
use super::kms::Kms;
use super::{Keys, Provider};
use api::errors::qualified;
use base64::Engine;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

const CBC: &str = "k8s:enc:aescbc:v1:";
const GCM: &str = "k8s:enc:aesgcm:v1:";
const SECRETBOX: &str = "k8s:enc:secretbox:v1:";
const KMS: &str = "k8s:enc:kms:v2:";
const KMS_TIMEOUT: Duration = Duration::from_secs(3);

/// One entry: the resources it is for, and its providers, the first of which writes.
pub struct Entry {
    /// `secrets`, `deployments.apps`, `*.apps`, `*.`, `*.*`.
    pub resources: Vec<String>,
    pub providers: Arc<Vec<Provider>>,
}

impl Entry {
    /// Whether the entry is for a resource, by how narrowly it names it.
    pub fn names(&self, group: &str, plural: &str) -> bool {
        let own = qualified(group, plural);
        let in_group = format!("*.{group}");
        self.resources.iter().any(|name| *name == own || *name == in_group || name == "*.*")
    }
}

/// Reads a configuration. Errors name the field.
pub fn parse(text: &[u8]) -> Result<Vec<Entry>, String> {
    let text = api::codec::yaml_to_json(text).map_err(|error| error.to_string())?;
    let file: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let versions = ["apiserver.config.k8s.io/v1", "v1"];
    if file["kind"] != "EncryptionConfiguration" || !versions.iter().any(|known| file["apiVersion"] == *known)
    {
        return Err("the file holds no EncryptionConfiguration of apiserver.config.k8s.io/v1".into());
    }
    let resources = file["resources"].as_array().filter(|list| !list.is_empty());
    let resources = resources.ok_or("resources: Required value: at least one resource must be specified")?;
    let mut entries = Vec::new();
    for (at, entry) in resources.iter().enumerate() {
        entries.push(read_entry(entry).map_err(|why| format!("resources[{at}]{why}"))?);
    }
    Ok(entries)
}

fn read_entry(entry: &Value) -> Result<Entry, String> {
    let names: Vec<String> = entry["resources"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_string))
        .collect();
    if names.is_empty() {
        return Err(".resources: Required value: at least one resource must be specified".into());
    }
    for name in &names {
        if name == "*" || name.contains('/') || (name.contains('*') && !name.starts_with("*.")) {
            return Err(format!(".resources: Invalid value: {name:?}: use '*.<group>' or '*.*'"));
        }
    }
    let providers = entry["providers"].as_array().filter(|list| !list.is_empty());
    let providers = providers.ok_or(".providers: Required value: at least one provider must be specified")?;
    let mut out = Vec::new();
    for (at, provider) in providers.iter().enumerate() {
        out.push(read_provider(provider).map_err(|why| format!(".providers[{at}].{why}"))?);
    }
    Ok(Entry { resources: names, providers: Arc::new(out) })
}

fn read_provider(provider: &Value) -> Result<Provider, String> {
    let kinds: Vec<(&String, &Value)> = provider.as_object().into_iter().flatten().collect();
    let [(kind, body)] = kinds.as_slice() else {
        return Err("provider must contain exactly one of aescbc, aesgcm, secretbox, kms, identity".into());
    };
    let keys = |prefix: &'static str, sizes: &[usize], make: fn(&[u8]) -> Option<Cipher>| {
        read_keys(body, prefix, sizes, make).map_err(|why| format!("{kind}.{why}"))
    };
    match kind.as_str() {
        "identity" => Ok(Provider::Identity),
        "aescbc" => keys(CBC, &[32], Cipher::aes_cbc),
        "aesgcm" => keys(GCM, &[16, 24, 32], Cipher::aes_gcm),
        "secretbox" => keys(SECRETBOX, &[32], Cipher::secretbox),
        "kms" => read_kms(body).map_err(|why| format!("kms.{why}")),
        other => Err(format!("{other}: unknown provider")),
    }
}

fn read_keys(
    body: &Value,
    prefix: &'static str,
    sizes: &[usize],
    make: fn(&[u8]) -> Option<Cipher>,
) -> Result<Provider, String> {
    let list = body["keys"].as_array().filter(|list| !list.is_empty());
    let list = list.ok_or("keys: Required value: at least one key must be specified")?;
    let mut keys = Vec::new();
    for (at, key) in list.iter().enumerate() {
        let name = key["name"].as_str().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| format!("keys[{at}].name: Required value"))?;
        let secret = key["secret"].as_str().filter(|secret| !secret.is_empty());
        let secret = secret.ok_or_else(|| format!("keys[{at}].secret: Required value"))?;
        let secret = base64::prelude::BASE64_STANDARD.decode(secret).map_err(|_| {
            format!("keys[{at}].secret: Invalid value: \"REDACTED\": secrets must be base64 encoded")
        })?;
        let cipher =
            Some(&secret).filter(|secret| sizes.contains(&secret.len())).and_then(|secret| make(secret));
        let cipher = cipher.ok_or_else(|| {
            format!(
                "keys[{at}].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got {}, expected one of {sizes:?}",
                secret.len()
            )
        })?;
        keys.push((format!("{name}:"), cipher));
    }
    Ok(Provider::Keys(Keys { prefix: prefix.into(), keys }))
}

fn read_kms(body: &Value) -> Result<Provider, String> {
    if body["apiVersion"] != "v2" {
        return Err("apiVersion: Unsupported value: only v2 is supported".into());
    }
    let name = body["name"].as_str().filter(|name| !name.is_empty() && !name.contains(':'));
    let name = name.ok_or("name: Required value: a name without ':' must be specified")?;
    let endpoint = body["endpoint"].as_str().unwrap_or_default();
    let socket = endpoint.strip_prefix("unix://").filter(|path| path.starts_with(['/', '@']));
    let socket = socket.ok_or("endpoint: Invalid value: must be unix:///path/of/socket")?;
    let timeout = match body["timeout"].as_str() {
        None => KMS_TIMEOUT,
        Some(text) => crate::options::duration(text).map_err(|error| format!("timeout: {error}"))?,
    };
    Ok(Provider::Kms { prefix: format!("{KMS}{name}:"), kms: Kms::new(name, socket, timeout) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn check(text: &str) -> String {
        match parse(text.as_bytes()) {
            Ok(entries) => format!("{} entries", entries.len()),
            Err(why) => why,
        }
    }

    #[test]
    fn faults_are_named() {
        let of = |providers: &str| {
            check(&format!(
                "{{kind: EncryptionConfiguration, apiVersion: apiserver.config.k8s.io/v1, resources: [{{resources: [secrets], providers: [{providers}]}}]}}"
            ))
        };
        let key = "A".repeat(43) + "=";
        let all = [
            check("{kind: Pod}"),
            of(""),
            of("{identity: {}}"),
            of("{aescbc: {keys: []}}"),
            of("{aescbc: {keys: [{name: a, secret: YQ==}]}}"),
            of("{aescbc: {keys: [{name: a, secret: '?'}]}}"),
            of(&format!("{{secretbox: {{keys: [{{name: a, secret: {key}}}]}}}}, {{identity: {{}}}}")),
            of("{kms: {apiVersion: v1, name: a}}"),
        ];
        expect![[r#"
            the file holds no EncryptionConfiguration of apiserver.config.k8s.io/v1
            resources[0].providers: Required value: at least one provider must be specified
            1 entries
            resources[0].providers[0].aescbc.keys: Required value: at least one key must be specified
            resources[0].providers[0].aescbc.keys[0].secret: Invalid value: "REDACTED": secret is not of the expected length, got 1, expected one of [32]
            resources[0].providers[0].aescbc.keys[0].secret: Invalid value: "REDACTED": secrets must be base64 encoded
            1 entries
            resources[0].providers[0].kms.apiVersion: Unsupported value: only v2 is supported"#]]
        .assert_eq(&all.join("\n"));
    }

    #[test]
    fn wildcards_name_groups() {
        let entry = |names: &[&str]| Entry {
            resources: names.iter().map(|name| name.to_string()).collect(),
            providers: Arc::new(Vec::new()),
        };
        assert!(entry(&["secrets"]).names("", "secrets") && !entry(&["secrets"]).names("x", "secrets"));
        assert!(entry(&["*.apps"]).names("apps", "deployments") && !entry(&["*.apps"]).names("", "pods"));
        assert!(entry(&["*."]).names("", "pods") && !entry(&["*."]).names("apps", "deployments"));
        assert!(entry(&["*.*"]).names("any", "thing"));
    }
}
