//! Static pods: read from manifests on this node, run without the API server, shown in it as mirror pods.
//!
//! A mirror only shows: it is made again when someone deletes it, and follows its manifest.

use crate::inotify::Inotify;
use crate::worker::{self, Message};
use crate::{Context, events};
use api::core::v1::{Node, Pod, Toleration};
use client::DeleteOptions;
use meta::ObjectKey;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Upstream's annotations.
pub const SOURCE: &str = "kubernetes.io/config.source";
pub const MIRROR: &str = "kubernetes.io/config.mirror";
const HASH: &str = "kubernetes.io/config.hash";
const SEEN: &str = "kubernetes.io/config.seen";
/// A manifest is at most this large; larger files are left alone.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// Writers make several notices of one change: they are taken together.
const SETTLE: Duration = Duration::from_millis(100);
/// Mirrors that could not be made are tried again so often.
const MIRROR_RETRY: Duration = Duration::from_secs(10);

/// A pod that came from a manifest, not from the API.
pub fn is_static(pod: &Pod) -> bool {
    pod.metadata.annotations.get(SOURCE).is_some_and(|source| source != "api")
}

/// A pod in the API that only shows a static one.
pub fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.contains_key(MIRROR)
}

/// The uid under which the API knows a static pod; `None` while its mirror is missing or shows another.
pub fn mirror_uid(ctx: &Context, pod: &Pod) -> Option<String> {
    let mirror = ctx.views.view().get::<Pod>(&view::key_of(pod))?;
    shows(&mirror, pod).then(|| mirror.metadata.uid.clone())
}

fn shows(mirror: &Pod, pod: &Pod) -> bool {
    let hash = pod.metadata.annotations.get(HASH);
    hash.is_some() && mirror.metadata.annotations.get(MIRROR) == hash
}

/// The pods of all manifests, by uid.
pub fn load(ctx: &Context) -> BTreeMap<String, Arc<Pod>> {
    let Some(place) = &ctx.settings.static_pods else { return BTreeMap::new() };
    let mut pods = BTreeMap::new();
    for file in manifests(place) {
        match read(ctx, &file) {
            Ok(pod) => {
                pods.insert(pod.metadata.uid.clone(), Arc::new(pod));
            }
            Err(words) => tracing::warn!(manifest = %file.display(), words, "Failed to read a static pod"),
        }
    }
    pods
}

fn manifests(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_path_buf()];
    }
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .map(|entry| entry.path())
        .filter(|path| {
            std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= MANIFEST_BYTES_MAX)
        })
        .collect();
    files.sort();
    files
}

fn read(ctx: &Context, file: &Path) -> Result<Pod, String> {
    let text = std::fs::read(file).map_err(|error| error.to_string())?;
    let json = api::codec::yaml_to_json(&text).map_err(|error| error.to_string())?;
    let mut pod: Pod = api::codec::from_json(&json).map_err(|error| error.to_string())?;
    if pod.kind != "Pod" {
        return Err(format!("expected kind Pod, not {:?}", pod.kind));
    }
    let node = &ctx.settings.node_name;
    let hash = hash(&[&text, file.as_os_str().as_encoded_bytes(), node.as_bytes()]);
    let meta = &mut pod.metadata;
    meta.name = format!("{}-{node}", meta.name);
    if meta.namespace.is_empty() {
        meta.namespace = "default".into();
    }
    if meta.uid.is_empty() {
        meta.uid = hash.clone();
    }
    meta.annotations.insert(HASH.into(), hash);
    meta.annotations.insert(SOURCE.into(), "file".into());
    meta.annotations.insert(SEEN.into(), jiff::Timestamp::now().to_string());
    pod.spec.node_name = node.clone();
    // It stays whatever befalls its node.
    let everything =
        Toleration { operator: "Exists".into(), effect: "NoExecute".into(), ..Default::default() };
    if !pod.spec.tolerations.contains(&everything) {
        pod.spec.tolerations.push(everything);
    }
    defaults(&mut pod);
    Ok(pod)
}

/// What the API server would fill in.
fn defaults(pod: &mut Pod) {
    if let Some(resource) = resources::find("", "v1", "pods") {
        resource.default(pod);
    }
}

/// Two independent runs of FNV-1a, as 32 hexadecimal digits.
fn hash(parts: &[&[u8]]) -> String {
    let run = |start: u64| {
        let bytes = parts.iter().flat_map(|part| part.iter().copied().chain([0]));
        bytes.fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
    };
    format!("{:016x}{:016x}", run(0xcbf2_9ce4_8422_2325), run(0x6c62_272e_07bb_0142))
}

/// Keeps static pods and their mirrors in step with the manifests, until cancelled.
pub async fn keep(ctx: &Arc<Context>) {
    let Some(place) = ctx.settings.static_pods.clone() else { return std::future::pending().await };
    let notices = Inotify::new().ok();
    if let Some(notices) = &notices {
        let _ = notices.watch(if place.is_file() { place.parent().unwrap_or(&place) } else { &place });
    }
    let mut subscription = ctx.views.subscribe();
    let mut running: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
    loop {
        let wanted = load(ctx);
        for (uid, _) in running.iter().filter(|(uid, _)| !wanted.contains_key(*uid)) {
            if let Some(handle) = ctx.handle(uid) {
                handle.send(Message::Removed).await;
            }
        }
        for (uid, pod) in wanted.iter().filter(|(uid, _)| !running.contains_key(*uid)) {
            let handle = worker::start(ctx, pod.clone(), None);
            ctx.adopt(uid, handle);
        }
        running = wanted;
        ctx.views.synced().await;
        let complete = mirror(ctx, &running).await;
        let changed = async {
            match &notices {
                Some(notices) => drop(notices.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => tokio::time::sleep(SETTLE).await,
            () = tokio::time::sleep(MIRROR_RETRY), if !complete => {}
            changes = subscription.recv() => {
                if changes.is_none() {
                    return;
                }
            }
        }
    }
}

/// Makes missing mirrors, removes those that show nothing; tells whether all is well.
async fn mirror(ctx: &Context, running: &BTreeMap<String, Arc<Pod>>) -> bool {
    let view = ctx.views.view();
    let mut complete = true;
    for old in view.list::<Pod>().filter(|pod| is_mirror(pod)) {
        let shown =
            running.values().any(|pod| view::key_of(&**pod) == view::key_of(&*old) && shows(&old, pod));
        if !shown || old.metadata.deletion_timestamp.is_some() {
            let options =
                DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::of_uid(old.metadata.uid.clone()) };
            let _ = ctx.client.delete::<Pod>(&view::key_of(&*old), &options).await;
        }
    }
    let node = view.get::<Node>(&ObjectKey::cluster(ctx.settings.node_name.as_str()));
    for pod in running.values() {
        if view.get::<Pod>(&view::key_of(&**pod)).is_some() {
            continue;
        }
        // A mirror belongs to its node: it goes with it.
        let Some(node) = &node else {
            complete = false;
            continue;
        };
        if let Err(error) = ctx.client.create(&mirror_of(pod, node)).await
            && !error.is_already_exists()
        {
            complete = false;
            tracing::warn!(pod = %pods::spec::describe(pod), error = %error.chain(), "Failed to create a mirror pod");
            events::record(ctx, pod, None, true, "FailedMirror", &error.chain());
        }
    }
    complete
}

fn mirror_of(pod: &Pod, node: &Node) -> Pod {
    let mut mirror = pod.clone();
    let hash = pod.metadata.annotations.get(HASH).cloned().unwrap_or_default();
    mirror.metadata.annotations.insert(MIRROR.into(), hash);
    mirror.metadata.uid.clear();
    mirror.metadata.owner_references = vec![api::meta::v1::OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.metadata.name.clone(),
        uid: node.metadata.uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    }];
    mirror
}
