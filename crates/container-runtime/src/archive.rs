//! Container images built in memory: a one-layer OCI archive, for our own sandbox image and for tests.

use serde_json::json;
use sha2::{Digest, Sha256};

/// One member of a layer.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Relative, without a leading slash.
    pub path: String,
    pub mode: u32,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub enum Content {
    File(Vec<u8>),
    Folder,
    Link(String),
}

impl Entry {
    pub fn file(path: &str, mode: u32, bytes: Vec<u8>) -> Self {
        Entry { path: path.into(), mode, content: Content::File(bytes) }
    }
    pub fn folder(path: &str, mode: u32) -> Self {
        Entry { path: path.into(), mode, content: Content::Folder }
    }
    /// A symbolic link.
    pub fn link(path: &str, target: &str) -> Self {
        Entry { path: path.into(), mode: 0o777, content: Content::Link(target.into()) }
    }
}

/// An image to be.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    /// With registry and tag, such as `timonel.dev/pause:1`.
    pub name: String,
    pub entries: Vec<Entry>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    /// `uid:gid` or a user's name; empty is root.
    pub user: String,
    pub working_dir: String,
    /// A signal's name, such as `SIGQUIT`; empty is SIGTERM.
    pub stop_signal: String,
}

impl Archive {
    /// The archive, reproducible: no times, no owners.
    pub fn to_tar(&self) -> Vec<u8> {
        let layer = tar(&self.entries);
        let layer_digest = sha256(&layer);
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let mut run = json!({ "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] });
        if !self.env.is_empty() {
            run["Env"] = json!(self.env);
        }
        for (key, list) in [("Entrypoint", &self.entrypoint), ("Cmd", &self.cmd)] {
            if !list.is_empty() {
                run[key] = json!(list);
            }
        }
        for (key, text) in
            [("User", &self.user), ("WorkingDir", &self.working_dir), ("StopSignal", &self.stop_signal)]
        {
            if !text.is_empty() {
                run[key] = json!(text);
            }
        }
        let config = json!({
            "architecture": architecture, "os": "linux", "config": run,
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
        })
        .to_string()
        .into_bytes();
        let config_digest = sha256(&config);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": format!("sha256:{config_digest}"), "size": config.len() },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": format!("sha256:{layer_digest}"), "size": layer.len() }],
        })
        .to_string()
        .into_bytes();
        let manifest_digest = sha256(&manifest);
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{ "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": format!("sha256:{manifest_digest}"), "size": manifest.len(),
                "annotations": { "io.containerd.image.name": self.name } }],
        });
        let blob = |digest: &str, bytes| Entry::file(&format!("blobs/sha256/{digest}"), 0o644, bytes);
        tar(&[
            Entry::file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            Entry::file("index.json", 0o644, index.to_string().into_bytes()),
            blob(&manifest_digest, manifest),
            blob(&config_digest, config),
            blob(&layer_digest, layer),
        ])
    }
}

/// The images that an OCI or docker archive names. A broken archive names none.
pub fn names(archive: &[u8]) -> Vec<String> {
    let read = |name: &str| {
        member(archive, name).and_then(|bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok())
    };
    let mut names = Vec::new();
    for manifest in read("index.json").iter().flat_map(|index| index["manifests"].as_array()).flatten() {
        names.extend(manifest["annotations"]["io.containerd.image.name"].as_str().map(str::to_owned));
    }
    for image in read("manifest.json").iter().flat_map(serde_json::Value::as_array).flatten() {
        let tags = image["RepoTags"].as_array().into_iter().flatten();
        names.extend(tags.filter_map(|tag| tag.as_str()).map(str::to_owned));
    }
    names.sort();
    names.dedup();
    names
}

/// A regular file of a tar archive, by its whole name.
fn member<'a>(archive: &'a [u8], name: &str) -> Option<&'a [u8]> {
    const BLOCK: usize = 512;
    let mut rest = archive;
    while rest.len() > BLOCK {
        let (header, body) = rest.split_at(BLOCK);
        let text = |from: usize, to: usize| {
            let field = &header[from..to];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            std::str::from_utf8(&field[..end]).unwrap_or_default().trim()
        };
        let length = usize::from_str_radix(text(124, 136), 8).unwrap_or(0);
        if text(0, 100).trim_start_matches("./") == name {
            return body.get(..length);
        }
        rest = body.get(length.div_ceil(BLOCK).checked_mul(BLOCK)?..)?;
    }
    None
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A POSIX (ustar) archive. Names are at most 100 bytes long: ours are.
fn tar(entries: &[Entry]) -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut out = vec![];
    for entry in entries {
        let (kind, body, link): (u8, &[u8], &str) = match &entry.content {
            Content::File(bytes) => (b'0', bytes, ""),
            Content::Folder => (b'5', &[], ""),
            Content::Link(target) => (b'2', &[], target),
        };
        assert!(
            entry.path.len() <= 100 && link.len() <= 100,
            "tar names are at most 100 bytes: {}",
            entry.path
        );
        let mut header = [0u8; BLOCK];
        header[..entry.path.len()].copy_from_slice(entry.path.as_bytes());
        header[100..108].copy_from_slice(format!("{:07o}\0", entry.mode).as_bytes());
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", body.len()).as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[148..156].copy_from_slice(b"        ");
        header[156] = kind;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(body);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_tells_its_names() {
        let archive = Archive { name: "example.com/a:1".into(), ..Archive::default() };
        assert_eq!(names(&archive.to_tar()), ["example.com/a:1"]);
        let docker = br#"[{"RepoTags":["b:2","c:3"]}]"#.to_vec();
        assert_eq!(names(&tar(&[Entry::file("manifest.json", 0o644, docker)])), ["b:2", "c:3"]);
        assert!(names(b"no archive").is_empty());
    }

    #[test]
    fn an_archive_is_the_same_each_time() {
        let image = Archive {
            name: "example.com/a:1".into(),
            entries: vec![Entry::folder("bin", 0o755), Entry::file("bin/a", 0o755, b"x".to_vec())],
            ..Archive::default()
        };
        assert_eq!(image.to_tar(), image.to_tar());
        assert_eq!(&image.to_tar()[257..262], b"ustar");
    }
}
