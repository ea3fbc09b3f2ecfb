//! Where drivers' volumes lie on the node, upstream's layout, and the notes beside them that say whose they are.

use crate::Settings;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The name of a published volume's own path, below the folder of its note.
pub const MOUNT: &str = "mount";
const NOTE: &str = "vol_data.json";

/// Whose a volume is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Note {
    pub driver_name: String,
    pub volume_handle: String,
    /// `Persistent` or `Ephemeral`.
    pub volume_lifecycle_mode: String,
}

impl Note {
    pub fn of(driver: &str, handle: &str, mode: &str) -> Self {
        Note { driver_name: driver.into(), volume_handle: handle.into(), volume_lifecycle_mode: mode.into() }
    }

    /// Writes the note, making its folder.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let text = serde_json::to_vec(self).map_err(std::io::Error::other)?;
        std::fs::write(folder.join(NOTE), text)
    }

    fn read(folder: &Path) -> Option<Note> {
        serde_json::from_slice(&std::fs::read(folder.join(NOTE)).ok()?).ok()
    }
}

fn hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where a volume is staged, once for all pods.
pub fn staging(settings: &Settings, driver: &str, handle: &str) -> PathBuf {
    settings.root_dir.join("plugins/kubernetes.io/csi").join(driver).join(hex(handle)).join("globalmount")
}

/// Where a volume is published for a pod. `name`: the persistent volume's, or that of the pod's own volume.
pub fn target(settings: &Settings, uid: &str, name: &str) -> PathBuf {
    settings.pod_dir(uid).join("volumes/kubernetes.io~csi").join(name).join(MOUNT)
}

/// The handle of a volume that a pod states by itself: one for each, whoever asks and how often.
pub fn inline_handle(uid: &str, volume: &str) -> String {
    format!("csi-{}", hex(&format!("{uid}{volume}")))
}

/// The published volumes of a pod: the folder and its note.
pub fn published(settings: &Settings, uid: &str) -> Vec<(PathBuf, Note)> {
    noted(&settings.pod_dir(uid).join("volumes/kubernetes.io~csi"))
}

fn noted(folder: &Path) -> Vec<(PathBuf, Note)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), Note::read(&entry.path())?))).collect()
}

/// Whether any pod has the volume published.
pub fn is_published(settings: &Settings, note: &Note) -> bool {
    let pods = std::fs::read_dir(settings.root_dir.join("pods")).into_iter().flatten().flatten();
    pods.filter_map(|entry| entry.file_name().into_string().ok())
        .flat_map(|uid| published(settings, &uid))
        .any(|(_, other)| other.driver_name == note.driver_name && other.volume_handle == note.volume_handle)
}

/// The volumes that are staged or published, as a node's status names them: after a restart the disk knows.
pub fn in_use(settings: &Settings) -> Vec<String> {
    let drivers = std::fs::read_dir(settings.root_dir.join("plugins/kubernetes.io/csi")).into_iter();
    let staged = drivers.flatten().flatten().flat_map(|driver| noted(&driver.path()));
    let pods = std::fs::read_dir(settings.root_dir.join("pods")).into_iter().flatten().flatten();
    let published = pods
        .filter_map(|entry| entry.file_name().into_string().ok())
        .flat_map(|uid| published(settings, &uid));
    staged
        .chain(published)
        .filter(|(_, note)| note.volume_lifecycle_mode == "Persistent")
        .map(|(_, note)| volumes::attachments::unique_name(&note.driver_name, &note.volume_handle))
        .collect()
}

/// Removes a folder of ours after its mount is gone: only empty places and our own note go, never data.
pub fn remove(folder: &Path) -> std::io::Result<()> {
    let gone = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    for name in [MOUNT, "globalmount"] {
        let place = folder.join(name);
        match std::fs::symlink_metadata(&place) {
            Ok(meta) if meta.is_dir() => gone(std::fs::remove_dir(&place))?,
            Ok(_) => gone(std::fs::remove_file(&place))?,
            Err(_) => {}
        }
    }
    gone(std::fs::remove_file(folder.join(NOTE)))?;
    gone(std::fs::remove_dir(folder))
}
