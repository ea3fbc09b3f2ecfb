//! Decides that stock kubectl gets along with terminals and ports as they are served here, by WebSocket and by
//! SPDY. Skipped, and said so, where no kubectl is installed.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::fake::{Front, Kind, front};

/// Starts kubectl against a front, by WebSocket or by SPDY.
fn kubectl(front: &Front, websockets: bool, arguments: &[&str]) -> Option<Child> {
    let words = if websockets { "true" } else { "false" };
    let child = Command::new("kubectl")
        .args(["--kubeconfig", "/dev/null", "--server", &format!("http://{}", front.address)])
        .args(arguments)
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", words)
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    match child {
        Ok(child) => Some(child),
        Err(error) => {
            println!("skipped: kubectl could not be started: {error}");
            None
        }
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("kubectl comes to an end")
}

async fn exec(websockets: bool) {
    let front = front(Kind::Api).await;
    let Some(mut child) = kubectl(&front, websockets, &["exec", "p", "-i", "--", "exit=3"]) else { return };
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"hello").await.unwrap();
    drop(stdin);
    let output = within(child.wait_with_output()).await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello", "{errors}");
    assert_eq!(errors, "input ended\ncommand terminated with exit code 3\n");
    assert_eq!(output.status.code(), Some(3), "{errors}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_exec_by_websocket() {
    exec(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_exec_by_spdy() {
    exec(false).await;
}

async fn port_forward(websockets: bool) {
    let front = front(Kind::Api).await;
    let Some(mut child) = kubectl(&front, websockets, &["port-forward", "pod/p", ":80"]) else { return };
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    within(output.read_line(&mut line)).await.unwrap();
    let port = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next());
    let port: u16 = port.unwrap_or_else(|| panic!("{line}")).parse().unwrap();
    for text in ["hello", "again"] {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        socket.write_all(text.as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut echoed = String::new();
        within(socket.read_to_string(&mut echoed)).await.unwrap();
        assert_eq!(echoed, text.to_uppercase());
    }
    child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_port_forward_by_websocket() {
    port_forward(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_port_forward_by_spdy() {
    port_forward(false).await;
}
