//! Which files a configMap, secret, projected or downwardAPI volume holds.

use super::atomic::{File, Files};
use crate::Context;
use api::core::v1::*;
use pods::fields;
use std::collections::BTreeMap;

const MODE: i32 = 0o644;

/// A source's entries, as bytes by key.
type Entries = BTreeMap<String, Vec<u8>>;

pub async fn files(ctx: &Context, pod: &Pod, volume: &Volume) -> Result<Files, String> {
    let source = &volume.volume_source;
    let mut files = Files::new();
    if let Some(map) = &source.config_map {
        let name = &map.local_object_reference.name;
        let entries = config_map(ctx, pod, name, map.optional == Some(true)).await?;
        select(
            &entries,
            &map.items,
            mode(map.default_mode),
            map.optional == Some(true),
            "config key",
            &mut files,
        )?;
    } else if let Some(secret) = &source.secret {
        let entries = self::secret(ctx, pod, &secret.secret_name, secret.optional == Some(true)).await?;
        let optional = secret.optional == Some(true);
        select(&entries, &secret.items, mode(secret.default_mode), optional, "secret key", &mut files)?;
    } else if let Some(downward) = &source.downward_api {
        self::downward(ctx, pod, &downward.items, mode(downward.default_mode), &mut files)?;
    } else if let Some(projected) = &source.projected {
        for part in &projected.sources {
            project(ctx, pod, part, mode(projected.default_mode), &mut files).await?;
        }
    }
    Ok(files)
}

fn mode(given: Option<i32>) -> u32 {
    u32::try_from(given.unwrap_or(MODE)).unwrap_or(0o644)
}

async fn project(
    ctx: &Context,
    pod: &Pod,
    part: &VolumeProjection,
    mode: u32,
    files: &mut Files,
) -> Result<(), String> {
    if let Some(map) = &part.config_map {
        let optional = map.optional == Some(true);
        let entries = config_map(ctx, pod, &map.local_object_reference.name, optional).await?;
        select(&entries, &map.items, mode, optional, "config key", files)?;
    }
    if let Some(secret) = &part.secret {
        let optional = secret.optional == Some(true);
        let entries = self::secret(ctx, pod, &secret.local_object_reference.name, optional).await?;
        select(&entries, &secret.items, mode, optional, "secret key", files)?;
    }
    if let Some(downward) = &part.downward_api {
        self::downward(ctx, pod, &downward.items, mode, files)?;
    }
    if let Some(token) = &part.service_account_token {
        let bytes = ctx.tokens.get(ctx, pod, token).await?.into_bytes();
        let (mode, user) = token_owner(pod, mode);
        put(files, &token.path, File { bytes, mode, user })?;
    }
    if part.cluster_trust_bundle.is_some() || part.pod_certificate.is_some() {
        return Err("projected source is not supported on this node".into());
    }
    Ok(())
}

/// A token is for the pod's one user alone; where there is none, for the pod's group, or as the volume says.
fn token_owner(pod: &Pod, mode: u32) -> (u32, Option<u32>) {
    if super::owner::fs_group(pod).is_some() {
        return (0o640, None);
    }
    let all = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let users: std::collections::BTreeSet<Option<i64>> =
        all.map(|container| crate::security::run_as_user(pod, container)).collect();
    match users.first().copied().flatten().and_then(|user| u32::try_from(user).ok()) {
        Some(user) if users.len() == 1 => (0o600, Some(user)),
        _ => (mode, None),
    }
}

async fn config_map(ctx: &Context, pod: &Pod, name: &str, optional: bool) -> Result<Entries, String> {
    match ctx.references.config_map(&pod.metadata.namespace, name).await? {
        Some(map) => {
            let text = map.data.iter().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
            Ok(text.chain(map.binary_data.clone()).collect())
        }
        None if optional => Ok(Entries::new()),
        None => Err(format!("configmap {name:?} not found")),
    }
}

async fn secret(ctx: &Context, pod: &Pod, name: &str, optional: bool) -> Result<Entries, String> {
    match ctx.references.secret(&pod.metadata.namespace, name).await? {
        Some(secret) => Ok(secret.data.clone()),
        None if optional => Ok(Entries::new()),
        None => Err(format!("secret {name:?} not found")),
    }
}

/// All entries under their keys, or the listed ones under their paths.
fn select(
    entries: &Entries,
    items: &[KeyToPath],
    mode: u32,
    optional: bool,
    what: &str,
    files: &mut Files,
) -> Result<(), String> {
    if items.is_empty() {
        for (key, bytes) in entries {
            put(files, key, File { bytes: bytes.clone(), mode, user: None })?;
        }
        return Ok(());
    }
    for item in items {
        let Some(bytes) = entries.get(&item.key) else {
            if optional {
                continue;
            }
            return Err(format!("references non-existent {what}: {}", item.key));
        };
        let mode = item.mode.map_or(mode, |own| self::mode(Some(own)));
        put(files, &item.path, File { bytes: bytes.clone(), mode, user: None })?;
    }
    Ok(())
}

fn downward(
    ctx: &Context,
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    mode: u32,
    files: &mut Files,
) -> Result<(), String> {
    for item in items {
        let mode = item.mode.map_or(mode, |own| self::mode(Some(own)));
        let text = if let Some(reference) = &item.field_ref {
            fields::field(pod, &reference.field_path)?
        } else if let Some(reference) = &item.resource_field_ref {
            let container = pods::spec::find(&pod.spec, &reference.container_name)
                .ok_or_else(|| format!("container {} not found", reference.container_name))?;
            fields::resource(reference, &container, &ctx.allocatable())?
        } else {
            continue;
        };
        put(files, &item.path, File { bytes: text.into_bytes(), mode, user: None })?;
    }
    Ok(())
}

/// Adds a file whose path stays within the volume.
fn put(files: &mut Files, path: &str, file: File) -> Result<(), String> {
    let bad = path.is_empty()
        || path.starts_with('/')
        || path.starts_with("..")
        || path.split('/').any(|part| part == ".." || part.is_empty());
    if bad {
        return Err(format!("invalid path: must be relative and stay within the volume: {path:?}"));
    }
    files.insert(path.to_string(), file);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_within_the_volume() {
        let file = || File { bytes: vec![], mode: 0, user: None };
        for bad in ["", "/a", "../a", "a/../b", "a//b", "..data"] {
            assert!(put(&mut Files::new(), bad, file()).is_err(), "{bad}");
        }
        assert!(put(&mut Files::new(), "a/b..c", file()).is_ok());
    }
}
