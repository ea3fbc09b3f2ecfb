//! A real cluster on this machine, as `timonel up` makes it; there can be one at a time.

use crate::{binary, images, output};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

pub struct Cluster {
    folder: tempfile::TempDir,
    port: u16,
    etcd: Option<Etcd>,
}

impl Cluster {
    /// `timonel up` in folders of its own, with the test's images loaded. With `etcd`, on a real one.
    pub fn up(with_etcd: bool) -> Result<Cluster> {
        let folder = tempfile::Builder::new().prefix("timonel-e2e-").tempdir()?;
        let etcd = with_etcd.then(Etcd::start).transpose()?;
        let cluster = Cluster { folder, port: free_port()?, etcd };
        cluster.start()?;
        for (name, image) in [
            (images::BUSYBOX, images::busybox(images::BUSYBOX)?),
            (images::SERVER, images::server(images::SERVER)?),
            (images::SERVER_NEXT, images::server(images::SERVER_NEXT)?),
        ] {
            let path = cluster.folder.path().join("image.tar");
            std::fs::write(&path, image)?;
            cluster
                .timonel(&["import-image", &path.to_string_lossy()])
                .with_context(|| format!("importing {name}"))?;
            std::fs::remove_file(path)?;
        }
        Ok(cluster)
    }

    /// Starts the server again, on what is there.
    pub fn start(&self) -> Result<String> {
        let mut args = vec!["up".to_string(), format!("--secure-port={}", self.port)];
        // A machine that builds has a full disk, which is not what is tested: neither pods nor images are to go for it.
        for flag in ["--eviction-hard=nodefs.available<1%", "--image-gc-high-threshold=100"] {
            args.push(format!("--component-flag=kubelet:{flag}"));
        }
        args.extend(self.etcd.iter().map(|etcd| format!("--etcd-servers={}", etcd.endpoint)));
        self.timonel(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary("timonel")?);
        command
            .env("TIMONEL_DATA_DIR", self.data())
            .env("TIMONEL_RUN_DIR", self.folder.path().join("run"))
            .args(args);
        Ok(command)
    }

    /// `ctr` on the cluster's containerd, in the namespace of its images.
    pub fn ctr(&self, args: &[&str]) -> Result<String> {
        let socket = self.folder.path().join("run/containerd/containerd.sock");
        output(Command::new("ctr").arg("-a").arg(socket).args(["-n", "k8s.io"]).args(args))
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn timonel(&self, args: &[&str]) -> Result<String> {
        output(&mut self.command(args)?)
    }

    /// The server's process.
    pub fn pid(&self) -> Result<i32> {
        let text = std::fs::read(self.folder.path().join("run/server.json")).context("no server runs")?;
        let running: serde_json::Value = serde_json::from_slice(&text)?;
        running["pid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok())
            .context("server.json names no process")
    }

    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .env("KUBECONFIG", self.data().join("admin.kubeconfig"))
            .env_remove("KUBERNETES_SERVICE_HOST")
            .args(args);
        command
    }

    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        output(&mut self.kubectl_command(args))
    }

    /// `kubectl apply -f -` with these manifests.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        self.kubectl_with_input(&["apply", "-f", "-"], yaml)
    }

    pub fn kubectl_with_input(&self, args: &[&str], input: &str) -> Result<String> {
        use std::io::Write;
        let path = tempfile::NamedTempFile::new_in(self.folder.path())?;
        path.as_file().write_all(input.as_bytes())?;
        output(self.kubectl_command(args).stdin(Stdio::from(path.reopen()?)))
    }

    /// A field of an object, by kubectl's JSONPath.
    pub fn field(&self, object: &[&str], path: &str) -> Result<String> {
        let output = format!("-o=jsonpath={{{path}}}");
        let mut args = vec!["get"];
        args.extend(object);
        args.push(&output);
        self.kubectl(&args)
    }

    pub fn etcd_endpoint(&self) -> Option<&str> {
        self.etcd.as_ref().map(|etcd| etcd.endpoint.as_str())
    }

    /// The last words of every component, for a failed test.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.data().join("logs")).into_iter().flatten().flatten() {
            let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            text += &format!(
                "--- {}\n{}\n",
                entry.path().display(),
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
        text
    }

    pub fn reset(&self) -> Result<String> {
        self.timonel(&["reset"])
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.reset() {
            eprintln!("cleaning up: {error:#}");
        }
    }
}

/// Debian's etcd on loopback, ended with the value.
pub struct Etcd {
    child: Child,
    _folder: tempfile::TempDir,
    pub endpoint: String,
}

impl Etcd {
    pub fn start() -> Result<Etcd> {
        let folder = tempfile::Builder::new().prefix("timonel-etcd-").tempdir()?;
        let endpoint = format!("http://127.0.0.1:{}", free_port()?);
        let peer = format!("http://127.0.0.1:{}", free_port()?);
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(folder.path())
            .args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting etcd: is Debian's etcd-server installed?")?;
        let etcd = Etcd { child, _folder: folder, endpoint };
        let address = etcd.endpoint.trim_start_matches("http://").to_string();
        crate::eventually(20, || std::net::TcpStream::connect(&address).context("etcd does not answer"))?;
        Ok(etcd)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nothing listens on now.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
