//! Our own containerd: its configuration, starting it or finding it again, keeping it alive, taking it away.
//!
//! It runs in a session of its own and outlives us. A live one is recognised by its pid file, its command line (which
//! names our configuration file) and an answer on its socket; it is then adopted, not restarted.

use crate::cri::messages::*;
use crate::cri::{self, Client};
use crate::{Error, cgroups, pause, unmount_under};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::io::unix::AsyncFd;

/// From start to the first answer; a cold disk and a large image store take seconds.
const START_SECONDS: u64 = 60;
/// Between looks whether a starting containerd answers.
const LOOK: Duration = Duration::from_millis(20);
/// What a containerd that dies at once is restarted with: doubled each time, forgotten after a minute of life.
const RESTART_MIN: Duration = Duration::from_millis(100);
const RESTART_MAX: Duration = Duration::from_secs(10);
/// Where shims live besides `PATH`: Debian puts runc into sbin.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a private containerd keeps its things.
#[derive(Clone, Debug)]
pub struct Config {
    /// Images and snapshots; kept over restarts of the machine.
    pub root: PathBuf,
    /// Running tasks; on a tmpfs.
    pub state: PathBuf,
    pub socket: PathBuf,
    pub pid_file: PathBuf,
    pub config_file: PathBuf,
    pub log_file: PathBuf,
    pub cni_bin: PathBuf,
    pub cni_conf: PathBuf,
    /// `hosts.toml` folders, one per registry.
    pub registry: PathBuf,
    pub binary: PathBuf,
}

impl Config {
    /// The usual places: `<data>/containerd`, `<data>/cni/{bin,conf}`, `<data>/registry`, `<run>/containerd`.
    pub fn under(data: &Path, run: &Path) -> Self {
        let run = run.join("containerd");
        Config {
            root: data.join("containerd"),
            state: run.join("state"),
            socket: run.join("containerd.sock"),
            pid_file: run.join("containerd.pid"),
            config_file: run.join("config.toml"),
            log_file: data.join("logs").join("containerd.log"),
            cni_bin: data.join("cni").join("bin"),
            cni_conf: data.join("cni").join("conf"),
            registry: data.join("registry"),
            binary: "containerd".into(),
        }
    }

    /// The configuration file's text. `snapshotter` is containerd's name of one; `restrict_oom` keeps containers from
    /// a lower oom_score_adj than containerd's, which a process without CAP_SYS_RESOURCE may not set.
    fn toml(&self, snapshotter: &str, restrict_oom: bool) -> String {
        let quote = |path: &Path| format!("{:?}", path.to_string_lossy());
        format!(
            r#"version = 2
root = {root}
state = {state}
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = {socket}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = {restrict_oom}

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {cni_bin}
    conf_dir = {cni_conf}

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = {registry}
"#,
            root = quote(&self.root),
            state = quote(&self.state),
            socket = quote(&self.socket),
            image = pause::IMAGE,
            cni_bin = quote(&self.cni_bin),
            cni_conf = quote(&self.cni_conf),
            registry = quote(&self.registry),
        )
    }
}

/// A running private containerd.
pub struct Containerd {
    config: Config,
    client: Client,
}

impl Containerd {
    /// Finds ours alive or starts it, waits until it answers, and makes sure of the sandbox image.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let client = cri::connect(&config.socket);
        let containerd = Containerd { config, client };
        containerd.ensure().await?;
        Ok(containerd)
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }
    pub fn socket(&self) -> &Path {
        &self.config.socket
    }

    async fn ensure(&self) -> Result<(), Error> {
        if live_pid(&self.config).is_none() {
            prepare(&self.config)?;
            let pid = spawn(&self.config)?;
            tracing::info!(pid, socket = %self.config.socket.display(), "Started containerd");
        }
        self.wait_ready().await?;
        let spec = ImageSpec { image: pause::IMAGE.into(), ..ImageSpec::default() };
        let request = ImageStatusRequest { image: Some(spec), verbose: false };
        if self.client.image_status(request).await?.image.is_none() {
            import(&self.config.socket, pause::IMAGE, pause::archive()).await?;
        }
        Ok(())
    }

    async fn wait_ready(&self) -> Result<(), Error> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(START_SECONDS);
        loop {
            let error = match self.client.version(VersionRequest::default()).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if live_pid(&self.config).is_none() || tokio::time::Instant::now() > deadline {
                let log = std::fs::read_to_string(&self.config.log_file).unwrap_or_default();
                let last = log
                    .lines()
                    .rev()
                    .find(|line| line.contains("level=fatal") || line.starts_with("containerd:"));
                return Err(Error::Command(format!(
                    "containerd did not start: {}; see {}",
                    last.map_or_else(|| error.to_string(), str::to_string),
                    self.config.log_file.display()
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for containerd's death and starts it again, for ever. Drop the future to stop watching; containerd stays.
    pub async fn supervise(&self) {
        let mut delay = RESTART_MIN;
        loop {
            let born = tokio::time::Instant::now();
            if let Some(pid) = live_pid(&self.config) {
                wait_for_exit(pid).await;
                tracing::warn!(pid, "Containerd ended");
            }
            if born.elapsed() > Duration::from_secs(60) {
                delay = RESTART_MIN;
            }
            if let Err(error) = self.ensure().await {
                tracing::error!(%error, delay_ms = delay.as_millis() as u64, "Failed to restart containerd");
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(RESTART_MAX);
            }
        }
    }
}

/// The pid of our containerd, if it lives.
fn live_pid(config: &Config) -> Option<i32> {
    let pid: i32 = std::fs::read_to_string(&config.pid_file).ok()?.trim().parse().ok()?;
    // Our own dead child is a zombie until someone waits for it.
    let _ =
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), Some(nix::sys::wait::WaitPidFlag::WNOHANG));
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let file = config.config_file.to_string_lossy();
    command.split(|byte| *byte == 0).any(|word| word == file.as_bytes()).then_some(pid)
}

fn prepare(config: &Config) -> Result<(), Error> {
    let parents =
        [&config.socket, &config.pid_file, &config.config_file, &config.log_file].map(|file| file.parent());
    let folders = [&config.root, &config.state, &config.cni_bin, &config.cni_conf, &config.registry]
        .map(|path| path.as_path());
    for folder in parents.into_iter().flatten().chain(folders) {
        std::fs::create_dir_all(folder)
            .map_err(|error| Error::io(format!("create {}", folder.display()), &error))?;
    }
    let snapshotter = if overlay_works(&config.root) { "overlayfs" } else { "native" };
    write_atomic(&config.config_file, config.toml(snapshotter, !may_lower_oom_score()).as_bytes())
}

/// Whether this process holds CAP_SYS_RESOURCE (24); some containers and sandboxes withhold it from root.
fn may_lower_oom_score() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    set.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_none_or(|bits| bits & (1 << 24) != 0)
}

fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let part = path.with_extension("part");
    std::fs::write(&part, bytes)
        .and_then(|()| std::fs::rename(&part, path))
        .map_err(|error| Error::io(format!("write {}", path.display()), &error))
}

/// Whether an overlay can be mounted on the file system of `root`: not on some container and network file systems.
fn overlay_works(root: &Path) -> bool {
    let Ok(dir) = tempfile::tempdir_in(root) else { return false };
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| dir.path().join(name));
    if [&lower, &upper, &work, &merged].iter().any(|path| std::fs::create_dir(path).is_err()) {
        return false;
    }
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let flags = nix::mount::MsFlags::empty();
    let mounted =
        nix::mount::mount(Some("overlay"), &merged, Some("overlay"), flags, Some(options.as_str())).is_ok();
    mounted && nix::mount::umount2(&merged, nix::mount::MntFlags::MNT_DETACH).is_ok()
}

fn spawn(config: &Config) -> Result<i32, Error> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&config.log_file)
        .map_err(|error| Error::io(format!("open {}", config.log_file.display()), &error))?;
    let errors = log.try_clone().map_err(|error| Error::io("share the log file", &error))?;
    let mut command = Command::new(&config.binary);
    let path = std::env::var("PATH").map_or(SEARCH_PATH.to_string(), |path| format!("{path}:{SEARCH_PATH}"));
    command
        .arg("--config")
        .arg(&config.config_file)
        .args(["--log-level", "warn"])
        .env("PATH", path)
        .env_remove("NOTIFY_SOCKET")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
    // SAFETY: setsid is async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(std::io::Error::from));
    }
    let child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::Command(format!(
            "{} was not found: install containerd (Debian: apt install containerd runc)",
            config.binary.display()
        )),
        _ => Error::io(format!("start {}", config.binary.display()), &error),
    })?;
    let pid = child.id() as i32;
    write_atomic(&config.pid_file, pid.to_string().as_bytes())?;
    Ok(pid)
}

/// Returns when the process has ended, be it our child or not.
async fn wait_for_exit(pid: i32) {
    // SAFETY: the call takes two integers and returns a fresh descriptor or -1.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if raw < 0 {
        return;
    }
    // SAFETY: the kernel has just given this descriptor to us alone.
    let fd = unsafe { OwnedFd::from_raw_fd(raw as i32) };
    // SAFETY: the descriptor moves into the registration, which alone closes it.
    let watched = unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) };
    if let Ok(fd) = watched {
        let _ = fd.readable().await;
    }
}

/// Imports an image archive (OCI or docker) into the runtime behind `socket`, and waits until CRI serves `name`.
pub async fn import(socket: &Path, name: &str, archive: Vec<u8>) -> Result<(), Error> {
    let mut child = tokio::process::Command::new("ctr")
        .arg("--address")
        .arg(socket)
        .args(["--namespace", "k8s.io", "images", "import", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Error::io("start ctr", &error))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(&archive).await.map_err(|error| Error::io("feed ctr", &error))?;
    }
    let output = child.wait_with_output().await.map_err(|error| Error::io("wait for ctr", &error))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Command(format!("import of image {name} failed: {}", words.trim())));
    }
    // The CRI service learns of a new image by an event: a moment later.
    let client = cri::connect(socket);
    for _ in 0..500 {
        let spec = ImageSpec { image: name.into(), ..ImageSpec::default() };
        let request = ImageStatusRequest { image: Some(spec), verbose: false };
        if client.image_status(request).await?.image.is_some() {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Error::Command(format!("image {name} was imported but the runtime does not list it")))
}

/// Mounts an image's files at a folder, to be read only.
pub async fn mount_image(socket: &Path, image: &str, target: &Path) -> Result<(), Error> {
    ctr(socket, &["images", "mount", image, &target.to_string_lossy()]).await
}

/// Takes an image's mount off again, with the snapshot behind it.
pub async fn unmount_image(socket: &Path, target: &Path) -> Result<(), Error> {
    let target = target.to_string_lossy();
    ctr(socket, &["images", "unmount", "--rm", &target]).await
}

async fn ctr(socket: &Path, words: &[&str]) -> Result<(), Error> {
    let output = tokio::process::Command::new("ctr")
        .arg("--address")
        .arg(socket)
        .args(["--namespace", "k8s.io"])
        .args(words)
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| Error::io("starting ctr", &error))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::Command(String::from_utf8_lossy(&output.stderr).trim().to_string())),
    }
}

/// Imports an archive file and gives the names of the images in it.
pub async fn import_file(socket: &Path, path: &Path) -> Result<Vec<String>, Error> {
    let bytes = std::fs::read(path).map_err(|error| Error::io(format!("read {}", path.display()), &error))?;
    let names = crate::archive::names(&bytes);
    let Some(first) = names.first() else {
        return Err(Error::Command(format!(
            "{} names no image: is it an OCI or docker archive with a tag?",
            path.display()
        )));
    };
    import(socket, first, bytes).await?;
    Ok(names)
}

/// Ends everything that runs: pods, tasks, shims, containerd itself, their mounts, the cgroup `cgroup_root` (such as
/// `/kubepods`). Images stay. Works on what is left of a dead one too, and may be repeated.
pub async fn stop(config: &Config, cgroup_root: &str) -> Result<(), Error> {
    if live_pid(config).is_some() {
        let client = cri::connect(&config.socket);
        // A runtime that hangs must not keep us: what it does not end is killed below.
        if tokio::time::timeout(Duration::from_secs(60), remove_pods(&client)).await.is_err() {
            tracing::warn!("Gave up on an orderly end of the pods");
        }
    }
    let shim_sockets = shim_sockets(config);
    if let Some(pid) = live_pid(config) {
        end_process(pid).await;
    }
    let mut group = cgroups::pids(cgroup_root);
    group.extend(shims(&config.socket));
    for pid in group {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        wait_for_exit(pid).await;
    }
    for socket in shim_sockets {
        let _ = std::fs::remove_file(socket);
    }
    unmount_under(&config.state);
    unmount_under(&config.root);
    cgroups::remove(cgroup_root);
    remove_folder(&config.state)?;
    for file in [&config.socket, &config.pid_file, &config.config_file] {
        let _ = std::fs::remove_file(file);
        let _ = std::fs::remove_file(file.with_extension("sock.ttrpc"));
    }
    if let Some(parent) = config.socket.parent() {
        let _ = std::fs::remove_dir(parent);
    }
    Ok(())
}

/// [`stop`], and images and snapshots go too.
pub async fn remove(config: &Config, cgroup_root: &str) -> Result<(), Error> {
    stop(config, cgroup_root).await?;
    remove_folder(&config.root)
}

fn remove_folder(folder: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", folder.display()), &error))
        }
        _ => Ok(()),
    }
}

async fn remove_pods(client: &Client) {
    let Ok(list) = client.list_pod_sandbox(ListPodSandboxRequest::default()).await else { return };
    for sandbox in list.items {
        let id = || PodSandboxIdRequest { pod_sandbox_id: sandbox.id.clone() };
        for result in [client.stop_pod_sandbox(id()).await, client.remove_pod_sandbox(id()).await] {
            if let Err(error) = result {
                tracing::warn!(sandbox = sandbox.id, %error, "Failed to remove a pod sandbox");
            }
        }
    }
}

async fn end_process(pid: i32) {
    let target = nix::unistd::Pid::from_raw(pid);
    for (signal, patience) in [(nix::sys::signal::SIGTERM, 10), (nix::sys::signal::SIGKILL, 10)] {
        let _ = nix::sys::signal::kill(target, signal);
        if tokio::time::timeout(Duration::from_secs(patience), wait_for_exit(pid)).await.is_ok() {
            break;
        }
    }
    let _ = nix::sys::wait::waitpid(target, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
}

/// Where the shims of this containerd listen; each task's folder holds the address.
fn shim_sockets(config: &Config) -> Vec<PathBuf> {
    let tasks = config.state.join("io.containerd.runtime.v2.task").join("k8s.io");
    let folders = std::fs::read_dir(tasks).into_iter().flatten().flatten();
    folders
        .filter_map(|folder| std::fs::read_to_string(folder.path().join("address")).ok())
        .filter_map(|address| address.trim().strip_prefix("unix://").map(PathBuf::from))
        .collect()
}

/// The pids of shims that serve this socket.
fn shims(socket: &Path) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = command.split(|byte| *byte == 0);
            let is_shim = words.next().is_some_and(|name| name.ends_with(b"containerd-shim-runc-v2"));
            is_shim && words.any(|word| word == socket.as_os_str().as_encoded_bytes())
        })
        .collect()
}
