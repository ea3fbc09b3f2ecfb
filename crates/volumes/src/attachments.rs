//! How attachments of volumes to nodes are named: the same names for whoever makes them and whoever waits for them.

use sha2::{Digest, Sha256};
use std::fmt::Write;

/// The VolumeAttachment of a volume on a node: one for each, so that it cannot be made twice.
pub fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    let digest = Sha256::digest(format!("{handle}{driver}{node}").as_bytes());
    let mut name = String::from("csi-");
    for byte in digest {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// How a node's status names a volume of a CSI driver.
pub fn unique_name(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}
