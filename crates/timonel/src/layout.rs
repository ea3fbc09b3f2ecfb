//! Where things lie on a machine: everything that lasts under the data directory, everything that does not under the run directory.

use std::path::{Path, PathBuf};

/// The two directories of an installation. `timonel reset` leaves neither behind.
#[derive(Clone, Debug, clap::Args)]
pub struct Layout {
    /// Directory of everything that lasts: store, certificates, volumes, images, logs.
    #[arg(long, global = true, env = "TIMONEL_DATA_DIR", default_value = "/var/lib/timonel")]
    pub data_dir: PathBuf,
    /// Directory of sockets and process ids.
    #[arg(long, global = true, env = "TIMONEL_RUN_DIR", default_value = "/run/timonel")]
    pub run_dir: PathBuf,
}

impl Layout {
    pub fn logs(&self) -> PathBuf {
        self.data_dir.join("logs")
    }
    pub fn kubelet(&self) -> PathBuf {
        self.data_dir.join("kubelet")
    }
    /// Volumes of the built-in provisioner, a directory each.
    pub fn local_path(&self) -> PathBuf {
        self.data_dir.join("local-path")
    }
    pub fn cni(&self) -> PathBuf {
        self.data_dir.join("cni")
    }
    /// The administrator's credentials: what `export KUBECONFIG=` wants.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.data_dir.join("admin.kubeconfig")
    }
    /// Held while a server runs on this data directory.
    pub fn lock(&self) -> PathBuf {
        self.data_dir.join("server.lock")
    }
    /// What `status`, `down` and `reset` know of the running server.
    pub fn running(&self) -> PathBuf {
        self.run_dir.join("server.json")
    }
}

/// Creates a directory that only root may enter.
pub fn private_dir(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                ": run it as root, or name another directory with --data-dir and --run-dir"
            }
            _ => "",
        };
        anyhow::anyhow!("cannot create {}: {error}{remedy}", path.display())
    })
}
