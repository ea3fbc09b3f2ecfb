//! Which drivers this node has: plugins put a socket into a folder, are asked who they are, and told that they are in.
//!
//! The node's CSINode says the same to the cluster. A driver whose socket is gone is forgotten in both.

use crate::Context;
use crate::inotify::Inotify;
use api::core::v1::Node;
use api::meta::v1::OwnerReference;
use api::storage::v1::{CSINode, CSINodeDriver, VolumeNodeResources};
use client::{Patch, PatchOptions};
use csi::messages::{CSI_PLUGIN, Empty, NodeCapabilities, NodeInfo, RegistrationStatus};
use meta::ObjectKey;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A socket appears before its plugin listens: it is asked this often, this far apart.
const ASK_MAX: u32 = 20;
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Several notices of one change are taken together.
const SETTLE: Duration = Duration::from_millis(50);
/// On a node: how each driver knows it, as JSON.
const NODE_IDS: &str = "csi.volume.kubernetes.io/nodeid";
/// Writers of one CSINode that lose a race try again this often.
const WRITES_MAX: u32 = 5;

/// A registered driver.
pub struct Driver {
    pub client: csi::Client,
    capabilities: NodeCapabilities,
}

impl Driver {
    pub fn can(&self, kind: i32) -> bool {
        self.capabilities.has(kind)
    }
}

/// The registered drivers, by name, and the sockets they came by.
#[derive(Default)]
pub struct Drivers {
    known: Mutex<BTreeMap<String, Arc<Driver>>>,
}

impl Drivers {
    pub fn get(&self, name: &str) -> Result<Arc<Driver>, String> {
        let known = self.known.lock().get(name).cloned();
        known.ok_or_else(|| format!("driver name {name} not found in the list of registered CSI drivers"))
    }
}

/// Follows the folder of plugins until cancelled.
pub async fn keep(ctx: &Context) {
    let folder = ctx.settings.root_dir.join("plugins_registry");
    if let Err(error) = std::fs::create_dir_all(&folder) {
        tracing::warn!(folder = %folder.display(), %error, "Failed to make the folder of plugins");
        return;
    }
    let notices = match Inotify::new().and_then(|notices| notices.watch(&folder).map(|()| notices)) {
        Ok(notices) => notices,
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "Failed to follow the folder of plugins");
            return;
        }
    };
    registered(ctx).await;
    if let Err(words) = write(ctx, |_| {}).await {
        tracing::warn!(words, "Failed to make the node's CSINode");
    }
    let mut known: BTreeMap<PathBuf, String> = BTreeMap::new();
    loop {
        let sockets = sockets(&folder);
        let gone: Vec<PathBuf> = known.keys().filter(|socket| !sockets.contains(socket)).cloned().collect();
        for socket in gone {
            if let Some(name) = known.remove(&socket) {
                forget(ctx, &name).await;
            }
        }
        for socket in sockets {
            if known.contains_key(&socket) {
                continue;
            }
            match register(ctx, &socket).await {
                Ok(Some(name)) => {
                    tracing::info!(driver = name, "Registered CSI driver");
                    known.insert(socket, name);
                }
                Ok(None) => {}
                Err(words) => {
                    tracing::warn!(socket = %socket.display(), words, "Failed to register a plugin");
                }
            }
        }
        if notices.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(SETTLE).await;
    }
}

/// Waits until the API has the node: what is said of its drivers hangs on it.
async fn registered(ctx: &Context) {
    let key = ObjectKey::cluster(ctx.settings.node_name.as_str());
    let mut changes = ctx.views.subscribe();
    while ctx.views.view().get::<Node>(&key).is_none() {
        if changes.recv().await.is_none() {
            return;
        }
    }
}

fn sockets(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Takes a plugin in; gives the driver's name, or nothing for a plugin of another sort.
async fn register(ctx: &Context, socket: &Path) -> Result<Option<String>, String> {
    let asking = csi::connect(socket);
    let mut tries = 0;
    let info = loop {
        match asking.plugin_info(Empty {}).await {
            Ok(info) => break info,
            Err(error) if tries >= ASK_MAX || !socket.exists() => return Err(error.to_string()),
            Err(_) => {
                tries += 1;
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    };
    if info.kind != CSI_PLUGIN {
        return Ok(None);
    }
    let endpoint = match info.endpoint.as_str() {
        "" => socket.to_path_buf(),
        path => PathBuf::from(path),
    };
    let taken = take(ctx, &info.name, &info.supported_versions, &endpoint).await;
    let status = RegistrationStatus {
        plugin_registered: taken.is_ok(),
        error: taken.as_ref().err().cloned().unwrap_or_default(),
    };
    // A plugin that does not listen to the answer has registered all the same.
    let _ = asking.notify_registration(status).await;
    taken.map(|()| Some(info.name))
}

async fn take(ctx: &Context, name: &str, versions: &[String], endpoint: &Path) -> Result<(), String> {
    if !versions.iter().any(|version| version.trim_start_matches('v').starts_with("1.")) {
        return Err(format!("none of the CSI versions {versions:?} of driver {name} is supported"));
    }
    let client = csi::connect(endpoint);
    let info = client.node_info(Empty {}).await.map_err(|error| format!("NodeGetInfo: {error}"))?;
    let capabilities =
        client.node_capabilities(Empty {}).await.map_err(|error| format!("NodeGetCapabilities: {error}"))?;
    announce(ctx, name, &info).await?;
    ctx.drivers.known.lock().insert(name.to_string(), Arc::new(Driver { client, capabilities }));
    // Pods that wait for the driver need not sit out their backoff.
    ctx.retry_pods().await;
    Ok(())
}

/// Writes the driver into the node's labels and its CSINode.
async fn announce(ctx: &Context, name: &str, info: &NodeInfo) -> Result<(), String> {
    let segments = info.accessible_topology.clone().unwrap_or_default().segments;
    let key = ObjectKey::cluster(ctx.settings.node_name.as_str());
    let node = ctx.client.get::<Node>(&key).await.map_err(|error| error.chain())?;
    let mut ids: BTreeMap<String, String> = node
        .metadata
        .annotations
        .get(NODE_IDS)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    ids.insert(name.into(), info.node_id.clone());
    let ids = json!(ids).to_string();
    let patch = json!({"metadata": {"annotations": {NODE_IDS: ids}, "labels": segments}});
    ctx.client
        .patch::<Node>(&key, &Patch::Strategic(patch), &PatchOptions::default())
        .await
        .map_err(|error| format!("updating the node: {}", error.chain()))?;
    let driver = CSINodeDriver {
        name: name.into(),
        node_id: info.node_id.clone(),
        topology_keys: segments.into_keys().collect(),
        allocatable: (info.max_volumes_per_node > 0).then(|| {
            let count = i32::try_from(info.max_volumes_per_node).unwrap_or(i32::MAX);
            Box::new(VolumeNodeResources { count: Some(count) })
        }),
    };
    write(ctx, |drivers| {
        drivers.retain(|own| own.name != driver.name);
        drivers.push(driver.clone());
    })
    .await
}

async fn forget(ctx: &Context, name: &str) {
    ctx.drivers.known.lock().remove(name);
    tracing::info!(driver = name, "CSI driver left");
    if let Err(words) = write(ctx, |drivers| drivers.retain(|own| own.name != name)).await {
        tracing::warn!(driver = name, words, "Failed to take a driver out of the node's CSINode");
    }
}

/// Changes the node's CSINode, making it where it is missing.
async fn write(ctx: &Context, change: impl Fn(&mut Vec<CSINodeDriver>)) -> Result<(), String> {
    let key = ObjectKey::cluster(ctx.settings.node_name.as_str());
    for _ in 0..WRITES_MAX {
        let written = match ctx.client.get::<CSINode>(&key).await {
            Ok(mut object) => {
                let before = object.spec.drivers.clone();
                change(&mut object.spec.drivers);
                if object.spec.drivers == before {
                    return Ok(());
                }
                ctx.client.update(&object).await
            }
            Err(error) if error.is_not_found() => {
                let node = ctx.client.get::<Node>(&key).await.map_err(|error| error.chain())?;
                let mut object = CSINode::default();
                object.metadata.name.clone_from(&key.name);
                object.metadata.owner_references.push(OwnerReference {
                    api_version: "v1".into(),
                    kind: "Node".into(),
                    name: node.metadata.name.clone(),
                    uid: node.metadata.uid.clone(),
                    ..OwnerReference::default()
                });
                change(&mut object.spec.drivers);
                ctx.client.create(&object).await
            }
            Err(error) => Err(error),
        };
        match written {
            Ok(_) => return Ok(()),
            Err(error) if error.is_conflict() || error.is_already_exists() => {}
            Err(error) => return Err(error.chain()),
        }
    }
    Err("the CSINode changes too often".into())
}
