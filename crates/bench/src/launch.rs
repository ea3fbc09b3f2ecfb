//! Servers that a workload starts for itself, on loopback, with an administrator's kubeconfig; they end with it.

use crate::process::Processes;
use crate::target::{Call, Encoding, Target};
use anyhow::{Context, Result, bail};
use client::{Auth, Config};
use pki::kubeconfig::{Kubeconfig, Names};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server that is not ready by then has failed.
const READY_MAX: Duration = Duration::from_secs(120);
/// Between looks whether it is.
const LOOK: Duration = Duration::from_millis(1);
const TOKEN: &str = "bench-admin";

/// A process that is killed when it goes out of scope.
pub struct Process(Child);

impl Process {
    /// Starts a program; what it says goes to a file beside its data.
    pub fn start(command: &mut Command, log: &Path, cpu: Option<usize>) -> Result<Self> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // SAFETY: between fork and exec only async-signal-safe system calls are made, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                // A client that is killed leaves no server behind.
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
                if let Some(cpu) = cpu {
                    let mut set = nix::sched::CpuSet::new();
                    set.set(cpu)?;
                    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)?;
                }
                Ok(())
            });
        }
        let child = command.spawn().with_context(|| format!("starting {:?}", command.get_program()))?;
        Ok(Process(child))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Kills it as a power cut would, and waits for its end.
    pub fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.0.try_wait().ok().flatten()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Files that a server's start needs: tokens, keys, and the administrator's kubeconfig.
pub struct Files {
    pub folder: PathBuf,
    pub port: u16,
    pub kubeconfig: PathBuf,
}

impl Files {
    /// Writes them into a folder that exists; `label` is the name of the server in tables.
    pub fn write(folder: &Path, port: u16, label: &str) -> Result<Self> {
        std::fs::write(folder.join("tokens.csv"), format!("{TOKEN},admin,1,system:masters\n"))?;
        let key = pki::Signer::generate_pem()?;
        std::fs::write(folder.join("sa.pub"), pki::Signer::from_pem(&key)?.public().to_pem())?;
        std::fs::write(folder.join("sa.key"), key)?;
        let kubeconfig = folder.join(format!("{label}.kubeconfig"));
        let file = Kubeconfig {
            server: format!("https://127.0.0.1:{port}"),
            insecure_skip_tls_verify: true,
            token: Some(TOKEN.into()),
            ..Kubeconfig::default()
        };
        file.write(&kubeconfig, &Names { cluster: label, user: "admin" })?;
        Ok(Files { folder: folder.to_path_buf(), port, kubeconfig })
    }

    /// The flags that our API server and upstream's both know.
    pub fn apiserver_flags(&self) -> Vec<String> {
        let path = |name: &str| self.folder.join(name).display().to_string();
        vec![
            format!("--secure-port={}", self.port),
            "--bind-address=127.0.0.1".into(),
            "--advertise-address=127.0.0.1".into(),
            format!("--cert-dir={}", path("certificates")),
            format!("--token-auth-file={}", path("tokens.csv")),
            format!("--service-account-signing-key-file={}", path("sa.key")),
            format!("--service-account-key-file={}", path("sa.pub")),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            "--service-cluster-ip-range=10.96.0.0/16".into(),
            "--authorization-mode=Node,RBAC".into(),
        ]
    }

    /// The server as a target.
    pub fn target(&self, label: &str, processes: Processes) -> Result<Target> {
        let config = Config {
            server: format!("https://127.0.0.1:{}", self.port),
            insecure: true,
            auth: Auth::Token(TOKEN.into()),
            ..Config::default()
        };
        Target::of(label.into(), config, processes)
    }
}

/// Our API server on its embedded store.
pub fn timonel(binary: &Path, files: &Files, cpu: Option<usize>) -> Result<Process> {
    let mut command = Command::new(binary);
    command.arg("kube-apiserver").args(files.apiserver_flags());
    command.arg(format!("--data-dir={}", files.folder.join("data").display()));
    Process::start(&mut command, &files.folder.join("kube-apiserver.log"), cpu)
}

/// Waits until a server is ready; tells how long that took from `begun`.
pub async fn until_ready(
    target: &Target,
    process: &mut Process,
    log: &Path,
    begun: Instant,
) -> Result<Duration> {
    loop {
        if let Ok((200, _)) = target.ask(Call::get("/readyz", Encoding::Json)).await {
            return Ok(begun.elapsed());
        }
        if process.ended().is_some() || begun.elapsed() > READY_MAX {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let last: Vec<&str> = text.lines().rev().take(5).collect();
            bail!("the server did not become ready; its last words, newest first: {}", last.join(" | "));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A port of loopback that nobody listens on now.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
