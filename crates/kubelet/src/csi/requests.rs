//! What a driver is told of a volume: how it is accessed, by whom, and what the pod is. Pure.

use api::core::v1::{CSIPersistentVolumeSource, PersistentVolume, Pod, Volume};
use api::storage::v1::CSIDriver;
use csi::messages::*;
use std::collections::BTreeMap;

/// A file system, accessed in one way.
pub fn mount(fs_type: &str, mode: i32) -> VolumeCapability {
    VolumeCapability {
        mount: Some(MountVolume { fs_type: fs_type.into(), ..MountVolume::default() }),
        access_mode: Some(AccessMode { mode }),
        ..VolumeCapability::default()
    }
}

/// How a persistent volume is accessed.
pub fn capability(
    persistent: &PersistentVolume,
    source: &CSIPersistentVolumeSource,
    group: Option<u32>,
    tells_writers_apart: bool,
) -> VolumeCapability {
    let mode = access_mode(&persistent.spec.access_modes, tells_writers_apart);
    if persistent.spec.volume_mode.as_deref() == Some("Block") {
        return VolumeCapability {
            block: Some(Empty {}),
            access_mode: Some(AccessMode { mode }),
            ..VolumeCapability::default()
        };
    }
    let mut wanted = mount(&source.fs_type, mode);
    if let Some(mount) = &mut wanted.mount {
        mount.mount_flags.clone_from(&persistent.spec.mount_options);
        mount.volume_mount_group = group.map(|group| group.to_string()).unwrap_or_default();
    }
    wanted
}

/// The widest of a volume's ways of access, in CSI's words.
fn access_mode(modes: &[String], tells_writers_apart: bool) -> i32 {
    let has = |mode: &str| modes.iter().any(|own| own == mode);
    if has("ReadWriteMany") {
        access::MULTI_NODE_MULTI_WRITER
    } else if has("ReadOnlyMany") && has("ReadWriteOnce") {
        // CSI has no word for both.
        access::SINGLE_NODE_WRITER
    } else if has("ReadOnlyMany") {
        access::MULTI_NODE_READER_ONLY
    } else if has("ReadWriteOncePod") {
        if tells_writers_apart { access::SINGLE_NODE_SINGLE_WRITER } else { access::SINGLE_NODE_WRITER }
    } else if tells_writers_apart {
        access::SINGLE_NODE_MULTI_WRITER
    } else {
        access::SINGLE_NODE_WRITER
    }
}

/// Whether the pod's own volume says that it only reads.
pub fn only_read(pod: &Pod, volume: &Volume) -> bool {
    volumes::claims_of(pod).any(|own| own.volume == volume.name && own.read_only)
}

/// The volume's attributes, and the pod's names where the driver wants them.
pub fn context(
    about: Option<&CSIDriver>,
    pod: &Pod,
    attributes: &BTreeMap<String, String>,
    inline: bool,
) -> BTreeMap<String, String> {
    let mut context = attributes.clone();
    if about.is_some_and(|about| about.spec.pod_info_on_mount == Some(true)) {
        let account = match pod.spec.service_account_name.as_str() {
            "" => "default",
            name => name,
        };
        let own = [
            ("csi.storage.k8s.io/pod.name", pod.metadata.name.as_str()),
            ("csi.storage.k8s.io/pod.namespace", &pod.metadata.namespace),
            ("csi.storage.k8s.io/pod.uid", &pod.metadata.uid),
            ("csi.storage.k8s.io/serviceAccount.name", account),
            ("csi.storage.k8s.io/ephemeral", if inline { "true" } else { "false" }),
        ];
        context.extend(own.map(|(name, value)| (name.to_string(), value.to_string())));
    }
    context
}

/// Whether a driver's volume is given to the pod's group by the node.
pub fn takes_group(about: Option<&CSIDriver>, fs_type: &str, modes: &[String]) -> bool {
    match about.and_then(|about| about.spec.fs_group_policy.as_deref()) {
        Some("None") => false,
        Some("File") => true,
        _ => {
            !fs_type.is_empty()
                && modes.iter().any(|mode| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_is_told_in_csis_words() {
        let modes = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        assert_eq!(access_mode(&modes(&["ReadWriteOnce"]), false), access::SINGLE_NODE_WRITER);
        assert_eq!(access_mode(&modes(&["ReadWriteOnce"]), true), access::SINGLE_NODE_MULTI_WRITER);
        assert_eq!(access_mode(&modes(&["ReadWriteOncePod"]), true), access::SINGLE_NODE_SINGLE_WRITER);
        assert_eq!(
            access_mode(&modes(&["ReadWriteMany", "ReadWriteOnce"]), true),
            access::MULTI_NODE_MULTI_WRITER
        );
        assert_eq!(access_mode(&modes(&["ReadOnlyMany"]), true), access::MULTI_NODE_READER_ONLY);
    }

    #[test]
    fn groups_are_given_where_the_driver_lets_them() {
        let once = ["ReadWriteOnce".to_string()];
        assert!(takes_group(None, "ext4", &once));
        assert!(!takes_group(None, "", &once));
        assert!(!takes_group(None, "ext4", &["ReadWriteMany".to_string()]));
        let mut about = CSIDriver::default();
        about.spec.fs_group_policy = Some("File".into());
        assert!(takes_group(Some(&about), "", &[]));
    }
}
