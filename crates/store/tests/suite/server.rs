//! Decides how a test gets an etcd server of its own: on free loopback ports, ended with the test.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// A running etcd, killed when dropped.
pub struct Server {
    pub url: String,
    dir: TempDir,
    listen: Vec<String>,
    child: Child,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Starts etcd, which must be installed (Debian's `etcd-server`); `extra` are further flags.
    pub fn start(scheme: &str, extra: &[String]) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("{scheme}://127.0.0.1:{}", free_port());
        let peer = format!("http://127.0.0.1:{}", free_port());
        let mut listen: Vec<String> = [
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &format!("default={peer}"),
            "--log-level",
            "error",
        ]
        .map(str::to_owned)
        .to_vec();
        listen.extend_from_slice(extra);
        let child = spawn(&dir, &listen);
        Server { url, dir, listen, child }
    }

    /// Kills etcd and starts it again on the same data and ports.
    pub fn restart(&mut self) {
        self.stop();
        self.child = spawn(&self.dir, &self.listen);
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until etcd answers.
    pub async fn ready(&self, store: &dyn store::Store) {
        for _ in 0..200 {
            if store.revision().await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("etcd did not start: {:?}", store.revision().await);
    }
}

fn spawn(dir: &TempDir, flags: &[String]) -> Child {
    Command::new("etcd")
        .arg("--data-dir")
        .arg(dir.path())
        .args(flags)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd is installed (Debian's etcd-server)")
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
