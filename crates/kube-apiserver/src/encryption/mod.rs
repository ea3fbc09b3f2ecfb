//! Encryption at rest: what of the store is kept how, in upstream's formats, so that either server reads the other's.
//!
//! Invariants: the first provider of a resource writes and all of them read; what another than the first one wrote is
//! stale and is written anew with the next write of the object, changed or not; keys of resources that no entry names
//! are not looked at.

mod cipher;
mod config;
mod kms;

use crate::families::Counters;
use crate::health::Health;
use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use cipher::{Cipher, RANDOM_MAX};
use config::Entry;
use kms::Kms;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a configuration that may change by itself is looked at; upstream's.
const RELOAD_EVERY: Duration = Duration::from_secs(60);
/// What everything encrypted begins with.
const MARK: &[u8] = b"k8s:enc:";
const ROOT: &str = "/registry/";

/// A set of named keys under one prefix.
pub struct Keys {
    prefix: String,
    /// `name:` and its cipher; the first writes.
    keys: Vec<(String, Cipher)>,
}

/// One way to keep values.
pub enum Provider {
    Identity,
    Keys(Keys),
    Kms { prefix: String, kms: Arc<Kms> },
}

impl Provider {
    /// For metrics.
    fn name(&self) -> &str {
        match self {
            Provider::Identity => "identity",
            Provider::Keys(keys) => &keys.prefix,
            Provider::Kms { prefix, .. } => prefix,
        }
    }

    fn seal(&self, random: &[u8; RANDOM_MAX], value: Bytes, bound: &[u8]) -> Result<Bytes, String> {
        match self {
            Provider::Identity => Ok(value),
            Provider::Keys(Keys { prefix, keys }) => {
                let (name, cipher) = &keys[0];
                let sealed = cipher.seal(random, &value, bound)?;
                Ok([prefix.as_bytes(), name.as_bytes(), &sealed].concat().into())
            }
            Provider::Kms { prefix, kms } => {
                let sealed = kms.seal(random, &value, bound)?;
                Ok([prefix.as_bytes(), &sealed].concat().into())
            }
        }
    }

    /// `None` where the value is another provider's.
    async fn open(&self, kept: &Bytes, bound: &[u8]) -> Option<Result<(Bytes, bool), String>> {
        match self {
            Provider::Identity => (!kept.starts_with(MARK)).then(|| Ok((kept.clone(), false))),
            Provider::Keys(Keys { prefix, keys }) => {
                let rest = kept.strip_prefix(prefix.as_bytes())?;
                let mut last = "no matching key was found for the provided AES transformer";
                for (at, (name, cipher)) in keys.iter().enumerate() {
                    let Some(sealed) = rest.strip_prefix(name.as_bytes()) else { continue };
                    match cipher.open(sealed, bound) {
                        Ok(value) => return Some(Ok((value.into(), at > 0))),
                        Err(why) => last = why,
                    }
                }
                Some(Err(last.into()))
            }
            Provider::Kms { prefix, kms } => {
                let rest = kept.strip_prefix(prefix.as_bytes())?;
                Some(kms.open(rest, bound).await.map(|(value, stale)| (value.into(), stale)))
            }
        }
    }
}

/// One state of the configuration.
struct State {
    /// Providers by the prefix of a built-in resource's keys.
    by_prefix: BTreeMap<String, Arc<Vec<Provider>>>,
    entries: Vec<Entry>,
    services: Vec<Arc<Kms>>,
    stop: CancellationToken,
}

impl Drop for State {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl State {
    fn new(entries: Vec<Entry>) -> Self {
        let mut by_prefix = BTreeMap::new();
        for resource in resources::resources().iter().filter(|resource| resource.stored()) {
            let entry = entries.iter().find(|entry| entry.names(resource.group(), resource.plural()));
            if let Some(entry) = entry {
                let prefix = format!("{}/", resource.storage_prefix());
                by_prefix.entry(prefix).or_insert_with(|| Arc::clone(&entry.providers));
            }
        }
        let services = entries
            .iter()
            .flat_map(|entry| entry.providers.iter())
            .filter_map(|provider| match provider {
                Provider::Kms { kms, .. } => Some(Arc::clone(kms)),
                _ => None,
            })
            .collect();
        State { by_prefix, entries, services, stop: CancellationToken::new() }
    }

    /// The providers of a key: by the built-in resource it belongs to, else by group and plural of a custom one.
    fn find(&self, key: &[u8]) -> Option<&Arc<Vec<Provider>>> {
        let key = std::str::from_utf8(key).ok()?;
        let rest = key.strip_prefix(ROOT)?;
        let mut slashes = rest.match_indices('/').map(|(at, _)| at);
        let first = slashes.next()?;
        if let Some(known) = self.by_prefix.get(&key[..ROOT.len() + first + 1]) {
            return Some(known);
        }
        let second = slashes.next()?;
        if let Some(known) = self.by_prefix.get(&key[..ROOT.len() + second + 1]) {
            return Some(known);
        }
        // Custom resources stand under their group, which has a dot.
        let (group, plural) = (&rest[..first], &rest[first + 1..second]);
        if !group.contains('.') {
            return None;
        }
        self.entries.iter().find(|entry| entry.names(group, plural)).map(|entry| &entry.providers)
    }

    fn start(&self) {
        for kms in &self.services {
            tokio::spawn(Arc::clone(kms).keep(self.stop.clone()));
        }
    }
}

/// The transformer of one server.
pub struct Encryption {
    path: PathBuf,
    state: ArcSwap<State>,
    pub operations: Counters,
}

impl Encryption {
    /// Reads `--encryption-provider-config`, and asks its key services once.
    pub async fn open(path: &Path) -> Result<Arc<Self>> {
        let state = load(path)?;
        for kms in &state.services {
            // A service may come up after this server: until then only what it sealed cannot be read or written.
            let _ = kms.refresh().await;
        }
        state.start();
        Ok(Arc::new(Encryption {
            path: path.to_path_buf(),
            state: ArcSwap::from_pointee(state),
            operations: Counters::default(),
        }))
    }

    /// Adds a check for each key service.
    pub fn add_checks(self: &Arc<Self>, health: &Health) {
        if self.state.load().services.is_empty() {
            return;
        }
        let encryption = Arc::clone(self);
        health.add("kms-providers", true, move || {
            let failed = encryption
                .state
                .load()
                .services
                .iter()
                .find_map(|kms| kms.failure().map(|why| format!("kms provider {:?}: {why}", kms.name())));
            failed.map_or(Ok(()), Err)
        });
    }

    /// Reads the file again whenever it has changed, until the token is cancelled. A bad file leaves all as it was.
    pub async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        let mut last = std::fs::read(&self.path).ok();
        loop {
            tokio::select! {
                () = tokio::time::sleep(RELOAD_EVERY) => {}
                () = shutdown.cancelled() => return,
            }
            let now = std::fs::read(&self.path).ok();
            if now.is_none() || now == last {
                continue;
            }
            last = now;
            match self.reload().await {
                Ok(()) => {
                    tracing::info!(file = %self.path.display(), "Reloaded the encryption configuration")
                }
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "Kept the old encryption configuration");
                }
            }
        }
    }

    async fn reload(&self) -> Result<()> {
        let state = load(&self.path)?;
        for kms in &state.services {
            kms.refresh().await.map_err(anyhow::Error::msg)?;
        }
        state.start();
        self.state.store(Arc::new(state));
        Ok(())
    }

    fn count(&self, direction: &str, provider: &str, failed: bool) {
        let status = if failed { "Internal" } else { "OK" };
        self.operations.one(&[
            ("status", status),
            ("transformation_type", direction),
            ("transformer_prefix", provider),
        ]);
    }

    pub fn render(&self, out: &mut String) {
        let name = "apiserver_storage_transformation_operations_total";
        self.operations.render(out, name, "Values turned into what is kept, and back.");
    }
}

fn load(path: &Path) -> Result<State> {
    let flag = "--encryption-provider-config";
    let text = std::fs::read(path).with_context(|| format!("{flag}: cannot read {}", path.display()))?;
    let entries = config::parse(&text).map_err(|why| anyhow::anyhow!("{flag}: {}: {why}", path.display()))?;
    Ok(State::new(entries))
}

#[async_trait]
impl store::Transformer for Encryption {
    fn covers(&self, key: &[u8]) -> bool {
        self.state.load().find(key).is_some()
    }

    async fn to_storage(&self, key: &[u8], value: Bytes) -> Result<Bytes, String> {
        let state = self.state.load_full();
        let Some(first) = state.find(key).and_then(|providers| providers.first()) else { return Ok(value) };
        let mut random = [0; RANDOM_MAX];
        rand::RngCore::fill_bytes(&mut rand::rng(), &mut random);
        let sealed = first.seal(&random, value, key);
        self.count("to_storage", first.name(), sealed.is_err());
        sealed
    }

    async fn from_storage(&self, key: &[u8], kept: Bytes) -> Result<(Bytes, bool), String> {
        let state = self.state.load_full();
        let Some(providers) = state.find(key) else { return Ok((kept, false)) };
        let mut failure = None;
        for (at, provider) in providers.iter().enumerate() {
            match provider.open(&kept, key).await {
                None => {}
                Some(Ok((value, stale))) => {
                    self.count("from_storage", provider.name(), false);
                    return Ok((value, stale || at > 0));
                }
                Some(Err(why)) => {
                    self.count("from_storage", provider.name(), true);
                    failure.get_or_insert(why);
                }
            }
        }
        Err(failure.unwrap_or_else(|| "no matching prefix found".into()))
    }
}

/// Makes a configuration that encrypts Secrets with a key of its own, where there is none yet.
pub fn ensure_default(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    use base64::Engine;
    let mut key = [0; 32];
    rand::RngCore::fill_bytes(&mut rand::rng(), &mut key);
    let secret = base64::prelude::BASE64_STANDARD.encode(key);
    let text = format!(
        "# Secrets in the store are encrypted with this key: whoever restores the store needs this file.\n\
         apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources:\n  - secrets\n  \
         providers:\n  - aescbc:\n      keys:\n      - name: key1\n        secret: {secret}\n  - identity: {{}}\n"
    );
    pki::files::write(path, text.as_bytes(), 0o600).with_context(|| format!("writing {}", path.display()))
}
