//! The ConfigMaps and Secrets that pods of this node refer to: each followed by a watch of its own while a pod needs it.
//!
//! A node may read only what its pods refer to, so each object is watched by name. The first question for an object
//! begins the watch; it ends when no pod that asked is left.

use crate::worker::Message;
use api::core::v1::{ConfigMap, Pod, Secret};
use api::{Object, Typed};
use client::{Client, Selection, Views};
use meta::ObjectKey;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a question waits for the API server's first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    ConfigMap,
    Secret,
}

type Key = (Kind, ObjectKey);

struct Followed {
    views: Arc<Views>,
    token: CancellationToken,
    _guard: tokio_util::sync::DropGuard,
}

pub struct References {
    client: Client,
    token: CancellationToken,
    followed: Mutex<BTreeMap<Key, Arc<Followed>>>,
    changed: tokio::sync::mpsc::Sender<(ObjectKey, bool)>,
}

/// Changes not yet handed to the pods; a full queue is no loss: pods look again when the next comes.
const CHANGES_MAX: usize = 256;

impl References {
    /// Also gives the stream of changed objects: the key, and whether it is a Secret.
    pub fn start(
        client: Client,
        token: CancellationToken,
    ) -> (Self, tokio::sync::mpsc::Receiver<(ObjectKey, bool)>) {
        let (changed, changes) = tokio::sync::mpsc::channel(CHANGES_MAX);
        (References { client, token, followed: Mutex::default(), changed }, changes)
    }

    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, String> {
        self.get(Kind::ConfigMap, namespace, name).await
    }
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, String> {
        self.get(Kind::Secret, namespace, name).await
    }

    async fn get<T: Typed + Object>(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<T>>, String> {
        let key = ObjectKey::new(namespace, name);
        let followed = self.follow::<T>(kind, &key)?;
        match tokio::time::timeout(FIRST_ANSWER, followed.views.synced()).await {
            Ok(true) => Ok(followed.views.view().get::<T>(&key)),
            _ => Err("failed to sync the object's cache: timed out waiting for the condition".into()),
        }
    }

    fn follow<T: Typed + Object>(&self, kind: Kind, key: &ObjectKey) -> Result<Arc<Followed>, String> {
        let mut all = self.followed.lock();
        if let Some(known) = all.get(&(kind, key.clone())) {
            return Ok(known.clone());
        }
        let token = self.token.child_token();
        let selection = Selection {
            namespace: key.namespace.clone(),
            labels: String::new(),
            fields: format!("metadata.name={}", key.name),
        };
        let views = Views::builder(&self.client)
            .watch_selected::<T>(selection)
            .map_err(|error| error.chain())?
            .start(&token);
        let followed = Arc::new(Followed {
            views: views.clone(),
            token: token.clone(),
            _guard: token.clone().drop_guard(),
        });
        all.insert((kind, key.clone()), followed.clone());
        let mut subscription = views.subscribe();
        let (changed, key) = (self.changed.clone(), key.clone());
        tokio::spawn(async move {
            while let Some(changes) = subscription.recv().await {
                if !changes.objects.is_empty()
                    && changed.send((key.clone(), kind == Kind::Secret)).await.is_err()
                {
                    return;
                }
            }
        });
        Ok(followed)
    }

    /// Ends the watches that none of these pods needs.
    pub fn retain(&self, pods: &[Arc<Pod>]) {
        let needed: BTreeSet<Key> = pods.iter().flat_map(|pod| of_pod(pod)).collect();
        self.followed.lock().retain(|key, followed| {
            let keep = needed.contains(key);
            if !keep {
                followed.token.cancel();
            }
            keep
        });
    }
}

/// Whether a pod refers to this object.
pub fn refers(pod: &Pod, key: &ObjectKey, secret: bool) -> bool {
    let kind = if secret { Kind::Secret } else { Kind::ConfigMap };
    of_pod(pod).contains(&(kind, key.clone()))
}

/// Tells a worker that something its pod refers to changed.
pub fn message() -> Message {
    Message::ReferencesChanged
}

/// Everything that a pod refers to.
fn of_pod(pod: &Pod) -> BTreeSet<Key> {
    let mut names: BTreeSet<(Kind, String)> = BTreeSet::new();
    let spec = &pod.spec;
    for secret in &spec.image_pull_secrets {
        names.insert((Kind::Secret, secret.name.clone()));
    }
    let ephemeral = spec.ephemeral_containers.iter().map(|one| &one.ephemeral_container_common);
    let plain = spec.init_containers.iter().chain(&spec.containers);
    let lists =
        plain.map(|one| (&one.env, &one.env_from)).chain(ephemeral.map(|one| (&one.env, &one.env_from)));
    for (variables, sources) in lists {
        for source in variables.iter().filter_map(|one| one.value_from.as_ref()) {
            names.extend(
                source
                    .config_map_key_ref
                    .iter()
                    .map(|one| (Kind::ConfigMap, one.local_object_reference.name.clone())),
            );
            names.extend(
                source
                    .secret_key_ref
                    .iter()
                    .map(|one| (Kind::Secret, one.local_object_reference.name.clone())),
            );
        }
        for source in sources {
            names.extend(
                source
                    .config_map_ref
                    .iter()
                    .map(|one| (Kind::ConfigMap, one.local_object_reference.name.clone())),
            );
            names.extend(
                source.secret_ref.iter().map(|one| (Kind::Secret, one.local_object_reference.name.clone())),
            );
        }
    }
    for volume in &spec.volumes {
        let source = &volume.volume_source;
        names.extend(
            source.config_map.iter().map(|one| (Kind::ConfigMap, one.local_object_reference.name.clone())),
        );
        names.extend(source.secret.iter().map(|one| (Kind::Secret, one.secret_name.clone())));
        for part in source.projected.iter().flat_map(|one| &one.sources) {
            names.extend(
                part.config_map.iter().map(|one| (Kind::ConfigMap, one.local_object_reference.name.clone())),
            );
            names.extend(
                part.secret.iter().map(|one| (Kind::Secret, one.local_object_reference.name.clone())),
            );
        }
    }
    let namespace = &pod.metadata.namespace;
    names.into_iter().map(|(kind, name)| (kind, ObjectKey::new(namespace.as_str(), name.as_str()))).collect()
}
