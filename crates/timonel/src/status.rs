//! `timonel status`: what runs, where its state is, and whether it is well.

use crate::layout::Layout;
use crate::running::Running;
use anyhow::Result;
use client::Client;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Print JSON.
    #[arg(short, long, value_parser = ["json"])]
    pub output: Option<String>,
}

/// A server that does not answer by then is called unreachable.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Exit code 0 when a server runs and answers, 3 when none runs, as init scripts have it.
pub async fn status(layout: &Layout, args: &StatusArgs) -> Result<ExitCode> {
    let Some(running) = Running::find(layout) else {
        match args.output {
            Some(_) => println!("{}", json!({"running": false, "dataDirectory": layout.data_dir})),
            None => println!("No server runs on {}. Start one with: timonel up", layout.data_dir.display()),
        }
        return Ok(ExitCode::from(3));
    };
    let (api, node) = match Client::from_kubeconfig(&running.kubeconfig) {
        Ok(client) => (answer(&client).await, node_state(&client, running.node.as_deref()).await),
        Err(error) => (format!("unreachable: {error}"), None),
    };
    if args.output.is_some() {
        println!("{}", serde_json::to_string_pretty(&as_json(&running, &api, node.as_deref()))?);
    } else {
        println!(
            "Timonel       {} (Kubernetes {}), process {}",
            running.version,
            kube_apiserver::GIT_VERSION,
            running.pid
        );
        println!("API           {} {api}", running.server);
        if let Some(name) = &running.node {
            println!("Node          {name} {}", node.as_deref().unwrap_or("unknown"));
        }
        println!("Components    {}", running.components.join(" "));
        println!("Data          {}", running.data_dir.display());
        println!("Kubeconfig    {}", running.kubeconfig.display());
    }
    Ok(if api == "ok" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn as_json(running: &Running, api: &str, node: Option<&str>) -> Value {
    json!({
        "running": true,
        "pid": running.pid,
        "server": running.server,
        "api": api,
        "node": running.node.as_ref().map(|name| json!({"name": name, "ready": node == Some("Ready")})),
        "components": running.components,
        "dataDirectory": running.data_dir,
        "kubeconfig": running.kubeconfig,
        "versions": {"timonel": running.version, "kubernetes": kube_apiserver::GIT_VERSION},
    })
}

async fn answer(client: &Client) -> String {
    match tokio::time::timeout(ANSWER_WITHIN, client.get_text("/readyz")).await {
        Ok(Ok(_)) => "ok".into(),
        Ok(Err(error)) => format!("not ready: {error}"),
        Err(_) => "does not answer".into(),
    }
}

async fn node_state(client: &Client, name: Option<&str>) -> Option<String> {
    let key = meta::ObjectKey::cluster(name?);
    let node: api::core::v1::Node = tokio::time::timeout(ANSWER_WITHIN, client.get(&key)).await.ok()?.ok()?;
    let conditions = node.status.conditions;
    let ready = conditions.iter().find(|condition| condition.r#type == "Ready")?;
    Some(if ready.status == "True" { "Ready".into() } else { format!("NotReady: {}", ready.message) })
}
