//! A private containerd runs a pod, is found again after a "crash" of its owner, and leaves nothing behind.

use container_runtime::archive::{Archive, Entry};
use container_runtime::cri::messages::*;
use container_runtime::{Client, Config, Containerd, TaskEvent, cgroups, import, remove, subscribe};
use std::collections::BTreeMap;
use std::path::Path;

const IMAGE: &str = "timonel.test/busybox:1";

fn busybox() -> Vec<u8> {
    let program = std::fs::read("/usr/bin/busybox").or_else(|_| std::fs::read("/bin/busybox")).unwrap();
    let links =
        ["sh", "sleep", "cat", "echo", "id"].map(|name| Entry::link(&format!("bin/{name}"), "busybox"));
    let mut entries = vec![Entry::folder("bin", 0o755), Entry::file("bin/busybox", 0o755, program)];
    entries.extend(links);
    entries.push(Entry::folder("tmp", 0o1777));
    Archive { name: IMAGE.into(), entries, cmd: vec!["sh".into()], ..Archive::default() }.to_tar()
}

fn sandbox_config(logs: &Path, group: &str) -> PodSandboxConfig {
    let namespaces = NamespaceOption { network: namespace_mode::NODE, ..NamespaceOption::default() };
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: "p".into(),
            uid: "u".into(),
            namespace: "n".into(),
            attempt: 0,
        }),
        log_directory: logs.to_string_lossy().into(),
        labels: BTreeMap::from([("a".into(), "b".into())]),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: format!("{group}/podu"),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn run_container(
    client: &Client,
    sandbox: &str,
    config: &PodSandboxConfig,
    name: &str,
    script: &str,
) -> String {
    let request = CreateContainerRequest {
        pod_sandbox_id: sandbox.into(),
        config: Some(ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(ImageSpec { image: IMAGE.into(), ..Default::default() }),
            command: ["sh", "-c", script].map(String::from).to_vec(),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                resources: Some(LinuxContainerResources { cpu_shares: 2, ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        sandbox_config: Some(config.clone()),
    };
    let id = client.create_container(request).await.unwrap().container_id;
    client.start_container(ContainerIdRequest { container_id: id.clone() }).await.unwrap();
    id
}

async fn status(client: &Client, id: &str) -> ContainerStatus {
    let request = ContainerStatusRequest { container_id: id.into(), verbose: false };
    client.container_status(request).await.unwrap().status.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_from_start_to_no_trace() {
    let dir = tempfile::Builder::new().prefix("tcr").tempdir().unwrap();
    let config = Config::under(&dir.path().join("data"), &dir.path().join("run"));
    let group = format!("/timonel-test-{}", std::process::id());
    let containerd = Containerd::start(config.clone()).await.unwrap();
    let client = containerd.client();
    let version = client.version(VersionRequest::default()).await.unwrap();
    assert_eq!(version.runtime_name, "containerd");
    import(&config.socket, IMAGE, busybox()).await.unwrap();
    let mut events = subscribe(&config.socket).await.unwrap();

    let logs = dir.path().join("logs");
    std::fs::create_dir_all(&logs).unwrap();
    let sandbox = sandbox_config(&logs, &group);
    let request = RunPodSandboxRequest { config: Some(sandbox.clone()), ..Default::default() };
    let sandbox_id = client.run_pod_sandbox(request).await.unwrap().pod_sandbox_id;

    let short = run_container(&client, &sandbox_id, &sandbox, "short", "echo hello; exit 3").await;
    loop {
        let event = events.recv().await.unwrap();
        if event == (TaskEvent::Exited { container_id: short.clone() }) {
            break;
        }
    }
    let mut ended = status(&client, &short).await;
    while ended.state != container_state::EXITED {
        tokio::task::yield_now().await;
        ended = status(&client, &short).await;
    }
    assert_eq!((ended.exit_code, ended.reason.as_str()), (3, "Error"));
    assert!(std::fs::read_to_string(logs.join("short.log")).unwrap().contains("stdout F hello"));

    let long = run_container(&client, &sandbox_id, &sandbox, "long", "exec sleep 1000").await;
    let answer = client
        .exec_sync(&long, vec!["echo".into(), "in".into()], std::time::Duration::from_secs(10))
        .await
        .unwrap();
    assert_eq!((answer.exit_code, answer.stdout.as_slice()), (0, &b"in\n"[..]));
    assert!(!cgroups::pids(&format!("{group}/podu")).is_empty());

    // Another owner finds the same containerd and the same container.
    let again = Containerd::start(config.clone()).await.unwrap();
    assert_eq!(status(&again.client(), &long).await.state, container_state::RUNNING);

    remove(&config, &group).await.unwrap();
    assert!(!config.root.exists() && !config.state.exists());
    assert!(cgroups::pids(&group).is_empty());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*dir.path().to_string_lossy()), "{mounts}");
}
