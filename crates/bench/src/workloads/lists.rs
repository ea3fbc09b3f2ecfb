//! Lists of many pods: whole, in pages, by label, by node, as a table; every answer is counted item by item.

use crate::args::Common;
use crate::clean;
use crate::drive::{Load, drive};
use crate::objects::{self, Sort};
use crate::run::Row;
use crate::target::{Call, Encoding, Target};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Method;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Pods are spread over so many nodes; a list by node holds the hundredth part.
const NODES: u64 = 100;
/// Clients that fill the server.
const FILLERS: usize = 64;
/// Objects a page.
const PAGE: u64 = 500;

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Full,
    /// In pages of 500 of one snapshot.
    Paged,
    /// By a label that one in a hundred has.
    Label,
    /// By spec.nodeName: one in a hundred.
    Node,
    /// As kubectl asks for it.
    Table,
}

#[derive(clap::Args, Clone, Debug)]
pub struct ListsArgs {
    /// How many pods there are
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1000,10000")]
    pub pods: Vec<u64>,
    /// What is listed
    #[arg(long, value_enum, value_delimiter = ',', default_value = "full,paged,label,node,table")]
    pub lists: Vec<Kind>,
    /// Clients at a time
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,10")]
    pub clients: Vec<usize>,
    /// How objects travel
    #[arg(long, value_enum, value_delimiter = ',', default_value = "json,protobuf")]
    pub encoding: Vec<Encoding>,
    /// No more lists than these in a case
    #[arg(long, value_name = "N", default_value_t = u64::MAX)]
    pub count: u64,
}

pub async fn run(target: &Target, common: &Common, args: &ListsArgs) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for pods in &args.pods {
        let namespace = clean::namespace(target, "bench-lists").await?;
        let result = filled(target, common, args, &namespace, *pods).await;
        clean::remove(target, &namespace).await?;
        rows.extend(result?);
    }
    Ok(rows)
}

async fn filled(
    target: &Target,
    common: &Common,
    args: &ListsArgs,
    namespace: &str,
    pods: u64,
) -> Result<Vec<Row>> {
    fill(&target.with_clients(common, FILLERS)?, namespace, pods).await?;
    let mut rows = Vec::new();
    for clients in &args.clients {
        let target = target.with_clients(common, *clients)?;
        for kind in &args.lists {
            for encoding in &args.encoding {
                // Tables are JSON.
                if *kind == Kind::Table && *encoding == Encoding::Protobuf {
                    continue;
                }
                let load = Load { clients: *clients, count: args.count, length: common.length(), rate: None };
                rows.push(one(&target, &load, namespace, pods, *kind, *encoding).await);
            }
        }
    }
    Ok(rows)
}

/// Creates pods that run on 100 nodes; one in a hundred is labelled.
pub async fn fill(target: &Target, namespace: &str, pods: u64) -> Result<()> {
    let load =
        Load { clients: FILLERS, count: pods, length: std::time::Duration::from_secs(3600), rate: None };
    let (filled, namespace_name): (_, Arc<str>) = (target.clone(), namespace.into());
    let collection: Arc<str> = Sort::Pod.collection(namespace).into();
    let measured = drive(&load, &target.processes, "creating pods", move |number| {
        let (target, namespace, collection) = (filled.clone(), namespace_name.clone(), collection.clone());
        async move {
            let node = format!("bench-node-{}", number % NODES);
            let mut pod = objects::pod(&namespace, &format!("pod-{number}"), &node);
            if number % 100 == 7 {
                pod["metadata"]["labels"]["chosen"] = "yes".into();
            }
            let body = Sort::Pod.encode(&pod, Encoding::Protobuf)?;
            target.send(Call::post(&collection, Encoding::Protobuf, body)).await.map(drop)
        }
    })
    .await;
    anyhow::ensure!(measured.failed == 0, "pods could not be created: {:?}", measured.failures);
    Ok(())
}

async fn one(
    target: &Target,
    load: &Load,
    namespace: &str,
    pods: u64,
    kind: Kind,
    encoding: Encoding,
) -> Row {
    let query = match kind {
        Kind::Full | Kind::Table => String::new(),
        Kind::Paged => format!("?limit={PAGE}"),
        Kind::Label => "?labelSelector=chosen%3Dyes".into(),
        Kind::Node => "?fieldSelector=spec.nodeName%3Dbench-node-7".into(),
    };
    // Numbers that end in 07, as often as they occur below `pods`.
    let selected = (pods + 92) / 100;
    let must = if matches!(kind, Kind::Label | Kind::Node) { selected } else { pods };
    let accept = match (kind, encoding) {
        (Kind::Table, _) => "application/json;as=Table;v=v1;g=meta.k8s.io",
        _ => encoding.media_type(),
    };
    let name = format!("{kind:?} list of {pods} pods, {}, x{}", encoding.name(), load.clients).to_lowercase();
    let path: Arc<str> = format!("{}{query}", Sort::Pod.collection(namespace)).into();
    let bytes = Arc::new(AtomicU64::new(0));
    target.processes.forget_peak();
    let before = target.processes.memory().resident_mib;
    let (asked, gathered) = (target.clone(), bytes.clone());
    let measured = drive(load, &target.processes, &name, move |_| {
        let (target, path, bytes) = (asked.clone(), path.clone(), gathered.clone());
        async move {
            let mut items = 0;
            let mut token = String::new();
            loop {
                let page =
                    if token.is_empty() { path.to_string() } else { format!("{path}&continue={token}") };
                let call = Call { method: Method::GET, path: &page, accept, body: None };
                let body = target.send(call).await?;
                bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
                let list = count(&body, kind, encoding)?;
                items += list.0;
                token = list.1;
                if token.is_empty() {
                    break;
                }
            }
            anyhow::ensure!(items == must, "{items} items instead of {must}");
            Ok(())
        }
    })
    .await;
    let mut row = Row::of("lists", name, target, &measured);
    let bytes = bytes.load(Ordering::Relaxed) as f64;
    row.facts.insert("mb_per_second".into(), bytes / 1e6 / row.seconds);
    row.facts.insert("list_mb".into(), bytes / 1e6 / row.count.max(1) as f64);
    if let Some(cpu) = row.cpu_micros {
        row.facts.insert("cpu_us_per_mb".into(), cpu * row.count as f64 / (bytes / 1e6).max(1e-9));
    }
    if let Some(peak) = row.peak_mib {
        row.facts.insert("peak_growth_mib".into(), peak - before);
    }
    row
}

/// The number of items and the token of the next page.
fn count(body: &Bytes, kind: Kind, encoding: Encoding) -> Result<(u64, String)> {
    if encoding == Encoding::Protobuf {
        let envelope = api::codec::open(body)?;
        let (mut items, mut token) = (0, String::new());
        meta::proto::fields(envelope.raw, |tag, wire| {
            match tag {
                1 => meta::proto::fields(wire.bytes()?, |tag, wire| {
                    if tag == 3 {
                        token = wire.string()?;
                    }
                    Ok(())
                })?,
                2 => items += 1,
                _ => {}
            }
            Ok(())
        })?;
        return Ok((items, token));
    }
    #[derive(serde::Deserialize)]
    struct List {
        metadata: Metadata,
        #[serde(default)]
        items: Vec<serde::de::IgnoredAny>,
        #[serde(default)]
        rows: Vec<serde::de::IgnoredAny>,
    }
    #[derive(serde::Deserialize)]
    struct Metadata {
        #[serde(default, rename = "continue")]
        token: String,
    }
    let list: List = serde_json::from_slice(body).context("the list is cut short")?;
    match (kind, list.items.len(), list.rows.len()) {
        (Kind::Table, 0, rows) => Ok((rows as u64, list.metadata.token)),
        (Kind::Table, _, _) => bail!("a list was answered instead of a table"),
        (_, items, _) => Ok((items as u64, list.metadata.token)),
    }
}
