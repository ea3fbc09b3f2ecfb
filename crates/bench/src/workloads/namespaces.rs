//! A namespace full of objects, from its deletion until it is gone. A controller manager must run.

use crate::args::Common;
use crate::clean;
use crate::drive::{Load, drive, histogram, record};
use crate::objects::Sort;
use crate::run::{Latency, Row};
use crate::target::{Call, Encoding, Target};
use anyhow::Result;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longer than this no namespace is waited for.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// Between looks whether it is still there.
const LOOK: Duration = Duration::from_millis(5);

#[derive(clap::Args, Clone, Debug)]
pub struct NamespaceArgs {
    /// ConfigMaps in the namespace
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "5000")]
    pub maps: Vec<u64>,
}

pub async fn run(target: &Target, common: &Common, args: &NamespaceArgs) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for maps in &args.maps {
        let target = target.with_clients(common, 32)?;
        let namespace = clean::namespace(&target, "bench-namespace").await?;
        let load = Load { clients: 32, count: *maps, length: Duration::from_secs(3600), rate: None };
        let (filled, collection): (_, Arc<str>) =
            (target.clone(), Sort::Configmap.collection(&namespace).into());
        let measured = drive(&load, &target.processes, "creating configmaps", move |number| {
            let (target, collection) = (filled.clone(), collection.clone());
            async move {
                let map = Sort::Configmap.object("", &format!("map-{number}"), 1024);
                let body = Sort::Configmap.encode(&map, Encoding::Protobuf)?;
                target.send(Call::post(&collection, Encoding::Protobuf, body)).await.map(drop)
            }
        })
        .await;
        anyhow::ensure!(measured.failed == 0, "ConfigMaps could not be created: {:?}", measured.failures);
        rows.push(delete(&target, &namespace, *maps).await?);
    }
    Ok(rows)
}

async fn delete(target: &Target, namespace: &str, maps: u64) -> Result<Row> {
    let path = format!("/api/v1/namespaces/{namespace}");
    let cpu = target.processes.cpu_micros();
    let begun = Instant::now();
    target.send(Call::delete(&path, Encoding::Json)).await?;
    while target.ask(Call::get(&path, Encoding::Json)).await?.0 != 404 {
        anyhow::ensure!(
            begun.elapsed() < WAIT_MAX,
            "{namespace} is still there after {WAIT_MAX:?}: does a controller manager run?"
        );
        tokio::time::sleep(LOOK).await;
    }
    let elapsed = begun.elapsed();
    let mut latency = histogram();
    record(&mut latency, elapsed);
    let mut row = Row {
        workload: "namespace".into(),
        case: format!("delete a namespace of {maps} configmaps"),
        server: target.label.clone(),
        count: maps,
        seconds: elapsed.as_secs_f64(),
        per_second: maps as f64 / elapsed.as_secs_f64(),
        latency: Latency::of(&latency),
        ..Row::default()
    };
    if !target.processes.is_empty() {
        row.cpu_micros = Some(target.processes.cpu_micros().saturating_sub(cpu) as f64 / maps.max(1) as f64);
    }
    Ok(row.with_memory(&target.processes))
}
