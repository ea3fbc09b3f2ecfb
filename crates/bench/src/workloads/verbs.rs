//! Single objects: create, get, update, patch, status, delete, each as fast as so many clients can.

use crate::args::Common;
use crate::clean;
use crate::drive::{Load, drive};
use crate::objects::{self, Sort};
use crate::run::Row;
use crate::target::{Call, Encoding, Target};
use anyhow::{Context, Result};
use bytes::Bytes;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Mutex;

/// What is done to objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Verb {
    Create,
    Get,
    Update,
    Patch,
    /// A patch of the status, as a kubelet writes it; pods only.
    Status,
    Delete,
}

#[derive(clap::Args, Clone, Debug)]
pub struct VerbsArgs {
    /// What is written and read
    #[arg(long, value_enum, value_delimiter = ',', default_value = "configmap")]
    pub objects: Vec<Sort>,
    /// Bytes in a ConfigMap
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "1024")]
    pub size: Vec<usize>,
    /// What is done, in this order; creating comes first by itself
    #[arg(long, value_enum, value_delimiter = ',', default_value = "create,get,update,patch,status,delete")]
    pub verbs: Vec<Verb>,
    /// Clients at a time
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,32")]
    pub clients: Vec<usize>,
    /// How objects travel
    #[arg(long, value_enum, value_delimiter = ',', default_value = "json")]
    pub encoding: Vec<Encoding>,
    /// No more operations than these in a case
    #[arg(long, value_name = "N", default_value_t = u64::MAX)]
    pub count: u64,
    /// Operations a second, on a schedule; by default as many as can be
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
}

pub async fn run(target: &Target, common: &Common, args: &VerbsArgs) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for encoding in &args.encoding {
        for clients in &args.clients {
            for sort in &args.objects {
                let sizes: &[usize] = if *sort == Sort::Configmap { &args.size } else { &[0] };
                for size in sizes {
                    let target = target.with_clients(common, *clients)?;
                    let case =
                        Case { target, sort: *sort, size: *size, encoding: *encoding, clients: *clients };
                    rows.extend(case.run(common, args).await?);
                }
            }
        }
    }
    Ok(rows)
}

struct Case {
    target: Target,
    sort: Sort,
    size: usize,
    encoding: Encoding,
    clients: usize,
}

impl Case {
    async fn run(&self, common: &Common, args: &VerbsArgs) -> Result<Vec<Row>> {
        let namespace = clean::namespace(&self.target, "bench-verbs").await?;
        let prefix = clean::unique("o");
        let rows = self.phases(common, args, &namespace, &prefix).await;
        if self.sort == Sort::Node {
            clean::remove_nodes(&self.target, "bench%3Dnode").await?;
        }
        clean::remove(&self.target, &namespace).await?;
        rows
    }

    async fn phases(
        &self,
        common: &Common,
        args: &VerbsArgs,
        namespace: &str,
        prefix: &str,
    ) -> Result<Vec<Row>> {
        let load = |count| Load { clients: self.clients, count, length: common.length(), rate: args.rate };
        let before = self.target.count(&self.sort.collection(namespace)).await?;
        let mut rows = vec![self.create(&load(args.count), namespace, prefix).await?];
        let made = rows[0].count;
        let count = self.target.count(&self.sort.collection(namespace)).await?;
        rows[0].check("objects listed after creation", count - before, made);
        for verb in &args.verbs {
            let row = match verb {
                Verb::Create => continue,
                Verb::Get => self.get(&load(args.count), namespace, prefix, made).await,
                Verb::Update
                    if self.sort == Sort::Pod || self.sort == Sort::Node || self.sort == Sort::Service =>
                {
                    continue;
                }
                Verb::Update => self.update(&load(args.count), namespace, prefix, made).await?,
                Verb::Patch => self.patch(&load(args.count), namespace, prefix, made).await,
                Verb::Status if self.sort != Sort::Pod => continue,
                Verb::Status => self.status(&load(args.count), namespace, prefix, made).await,
                Verb::Delete => {
                    let mut row = self.delete(&load(args.count.min(made)), namespace, prefix).await;
                    let left = self.target.count(&self.sort.collection(namespace)).await? - before;
                    row.check("objects listed after deletion", left, made - row.count);
                    row
                }
            };
            rows.push(row);
        }
        if !args.verbs.contains(&Verb::Create) {
            rows.remove(0);
        }
        Ok(rows)
    }

    fn name(&self, verb: &str) -> String {
        let size = if self.size > 0 { format!(" {} B", self.size) } else { String::new() };
        format!("{verb} {}{size}, {}, x{}", self.sort.name(), self.encoding.name(), self.clients)
    }

    fn row(&self, verb: &str, measured: &crate::drive::Measured) -> Row {
        Row::of("verbs", self.name(verb), &self.target, measured)
    }

    async fn create(&self, load: &Load, namespace: &str, prefix: &str) -> Result<Row> {
        let (target, sort, size, encoding) = (self.target.clone(), self.sort, self.size, self.encoding);
        let (namespace, prefix): (Arc<str>, Arc<str>) = (namespace.into(), prefix.into());
        let collection: Arc<str> = sort.collection(&namespace).into();
        self.target.processes.forget_peak();
        let measured = drive(load, &self.target.processes, &self.name("create"), move |number| {
            let (target, namespace, prefix) = (target.clone(), namespace.clone(), prefix.clone());
            let collection = collection.clone();
            async move {
                let object = sort.object(&namespace, &format!("{prefix}-{number}"), size);
                let body = sort.encode(&object, encoding)?;
                target.send(Call::post(&collection, encoding, body)).await.map(drop)
            }
        })
        .await;
        let row = self.row("create", &measured);
        anyhow::ensure!(row.count > 0, "nothing could be created: {:?}", measured.failures);
        Ok(row)
    }

    /// Reads objects in an order that no cache of the last ones helps.
    async fn get(&self, load: &Load, namespace: &str, prefix: &str, made: u64) -> Row {
        let (target, encoding) = (self.target.clone(), self.encoding);
        let path: Arc<str> = format!("{}/{prefix}-", self.sort.collection(namespace)).into();
        let needle: Arc<str> = prefix.into();
        let measured = drive(load, &self.target.processes, &self.name("get"), move |number| {
            let (target, path, needle) = (target.clone(), path.clone(), needle.clone());
            async move {
                let name = number.wrapping_mul(2_654_435_761) % made;
                let body = target.send(Call::get(&format!("{path}{name}"), encoding)).await?;
                let found = memchr::memmem::find(&body, needle.as_bytes()).is_some();
                anyhow::ensure!(found, "another object was answered");
                Ok(())
            }
        })
        .await;
        self.row("get", &measured)
    }

    /// Replaces objects; a lease on its revision, as nodes do, a ConfigMap whatever it was.
    async fn update(&self, load: &Load, namespace: &str, prefix: &str, made: u64) -> Result<Row> {
        let (target, sort, size, encoding) = (self.target.clone(), self.sort, self.size, self.encoding);
        let (namespace, prefix): (Arc<str>, Arc<str>) = (namespace.into(), prefix.into());
        let collection: Arc<str> = sort.collection(&namespace).into();
        let held: usize = usize::try_from(made).unwrap_or(usize::MAX).min(self.clients * 8);
        let revisions: Vec<Mutex<String>> = (0..held).map(|_| Mutex::default()).collect();
        if sort == Sort::Lease {
            for (number, revision) in revisions.iter().enumerate() {
                let path = format!("{collection}/{prefix}-{number}");
                let body = target.send(Call::get(&path, Encoding::Json)).await?;
                *revision.lock().await = json_revision(&body)?;
            }
        }
        let revisions = Arc::new(revisions);
        let measured = drive(load, &self.target.processes, &self.name("update"), move |number| {
            let (target, namespace, prefix) = (target.clone(), namespace.clone(), prefix.clone());
            let (collection, revisions) = (collection.clone(), revisions.clone());
            async move {
                if sort != Sort::Lease {
                    let name = format!("{prefix}-{}", number % made);
                    let mut object = sort.object(&namespace, &name, size);
                    object["data"]["number"] = number.to_string().into();
                    let body = sort.encode(&object, encoding)?;
                    return target
                        .send(Call::put(&format!("{collection}/{name}"), encoding, body))
                        .await
                        .map(drop);
                }
                let which = usize::try_from(number)? % revisions.len();
                let mut revision = revisions[which].lock().await;
                let name = format!("{prefix}-{which}");
                let body = sort.encode(&objects::lease(&namespace, &name, &revision), encoding)?;
                let body = target.send(Call::put(&format!("{collection}/{name}"), encoding, body)).await?;
                *revision = match encoding {
                    Encoding::Json => json_revision(&body)?,
                    Encoding::Protobuf => {
                        api::codec::from_protobuf::<api::coordination::v1::Lease>(&body)?
                            .metadata
                            .resource_version
                    }
                };
                Ok(())
            }
        })
        .await;
        Ok(self.row("update", &measured))
    }

    async fn patch(&self, load: &Load, namespace: &str, prefix: &str, made: u64) -> Row {
        let (target, encoding) = (self.target.clone(), self.encoding);
        let path: Arc<str> = format!("{}/{prefix}-", self.sort.collection(namespace)).into();
        let measured = drive(load, &self.target.processes, &self.name("patch"), move |number| {
            let (target, path) = (target.clone(), path.clone());
            async move {
                let patch = json!({"metadata": {"annotations": {"example.com/number": number.to_string()}}});
                let path = format!("{path}{}", number % made);
                target
                    .send(Call::patch(&path, encoding, "merge", Bytes::from(patch.to_string())))
                    .await
                    .map(drop)
            }
        })
        .await;
        self.row("patch", &measured)
    }

    async fn status(&self, load: &Load, namespace: &str, prefix: &str, made: u64) -> Row {
        let (target, encoding) = (self.target.clone(), self.encoding);
        let path: Arc<str> = format!("{}/{prefix}-", self.sort.collection(namespace)).into();
        let measured = drive(load, &self.target.processes, &self.name("status"), move |number| {
            let (target, path) = (target.clone(), path.clone());
            async move {
                let patch = Bytes::from(objects::pod_status(number).to_string());
                let path = format!("{path}{}/status", number % made);
                target.send(Call::patch(&path, encoding, "strategic-merge", patch)).await.map(drop)
            }
        })
        .await;
        self.row("patch status of", &measured)
    }

    async fn delete(&self, load: &Load, namespace: &str, prefix: &str) -> Row {
        let (target, encoding) = (self.target.clone(), self.encoding);
        let path: Arc<str> = format!("{}/{prefix}-", self.sort.collection(namespace)).into();
        let grace = if self.sort == Sort::Pod { "?gracePeriodSeconds=0" } else { "" };
        let measured =
            drive(load, &self.target.processes, &self.name("delete"), move |number| {
                let (target, path) = (target.clone(), path.clone());
                async move {
                    target.send(Call::delete(&format!("{path}{number}{grace}"), encoding)).await.map(drop)
                }
            })
            .await;
        self.row("delete", &measured)
    }
}

/// The revision of an object that was answered as JSON.
pub(super) fn json_revision(body: &[u8]) -> Result<String> {
    #[derive(serde::Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        resource_version: String,
    }
    let object: Object = serde_json::from_slice(body).context("an object without a revision")?;
    Ok(object.metadata.resource_version)
}
