//! From flags to running controllers, and back to standing for election when the lease is lost.

use crate::identities::{Identities, OneForAll, PerAccount};
use crate::keys::Keys;
use crate::table::{self, Row};
use crate::{Options, resources};
use anyhow::Context as _;
use client::{Client, Config, Election, Recorder, Selection, Timing, Views};
use controller_runtime::{Employed, Metrics};
use meta::ObjectKey;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tracing::info;

const NAME: &str = "kube-controller-manager";

/// Runs until cancelled. The client is the process's own; with --use-service-account-credentials each controller
/// gets one of its account besides.
pub async fn run(options: Options, client: Client, token: CancellationToken) -> anyhow::Result<()> {
    let own = options.use_service_account_credentials;
    match options.kubeconfig.clone().filter(|_| own) {
        Some(path) => {
            let config = Config::from_kubeconfig(&path)?;
            let identities = PerAccount::new(client.clone(), config, token.clone());
            run_with(options, client, &identities, token).await
        }
        None => {
            let identities = OneForAll(client.clone());
            run_with(options, client, &identities, token).await
        }
    }
}

/// Runs until cancelled, with clients for the controllers' service accounts from elsewhere.
pub async fn run_with(
    options: Options,
    client: Client,
    identities: &dyn Identities,
    token: CancellationToken,
) -> anyhow::Result<()> {
    // Wrong flags are told before anything starts.
    let keys = Arc::new(Keys::read(&options)?);
    table::controllers(&options, &keys)?;
    let client = client.with_user_agent(NAME);
    let metrics = Arc::new(Metrics::default());
    let pages = token.child_token();
    let serving = serve(&options, &client, &metrics, &pages);
    let result = stand(&options, &keys, &metrics, &client, identities, &token).await;
    pages.cancel();
    if let Some(serving) = serving {
        serving.await.context("serving health and metrics")??;
    }
    result
}

/// Serves health and metrics until cancelled, whether or not this process leads.
fn serve(
    options: &Options,
    client: &Client,
    metrics: &Arc<Metrics>,
    token: &CancellationToken,
) -> Option<tokio::task::JoinHandle<anyhow::Result<()>>> {
    let endpoint = serving::Endpoint {
        address: SocketAddr::new(options.bind_address, options.secure_port),
        files: options.tls_cert_file.clone().zip(options.tls_private_key_file.clone()),
    };
    let (counted, lease) = (metrics.clone(), options.leader_elect_resource_name.clone());
    let text: serving::Metrics = Arc::new(move || counted.text(&lease));
    (options.secure_port != 0)
        .then(|| tokio::spawn(serving::serve(endpoint, NAME, client.clone(), text, token.clone())))
}

/// Stands for election, leads, and stands again.
async fn stand(
    options: &Options,
    keys: &Arc<Keys>,
    metrics: &Metrics,
    client: &Client,
    identities: &dyn Identities,
    token: &CancellationToken,
) -> anyhow::Result<()> {
    while !token.is_cancelled() {
        if !options.leader_elect {
            return lead(options, keys, metrics, client, identities, token.clone()).await;
        }
        let timing = Timing {
            lease_duration: options.leader_elect_lease_duration,
            renew_deadline: options.leader_elect_renew_deadline,
            retry_period: options.leader_elect_retry_period,
        };
        let lease = ObjectKey::new(
            options.leader_elect_resource_namespace.clone(),
            options.leader_elect_resource_name.clone(),
        );
        let identity = options.identity.clone().unwrap_or_else(made_up_identity);
        let election = Election::new(client.clone(), lease, identity, timing);
        let Some(leadership) = election.acquire(token).await else { return Ok(()) };
        let term = token.child_token();
        let lost = leadership.lost();
        let watch = {
            let term = term.clone();
            let lost = lost.clone();
            async move {
                lost.cancelled().await;
                term.cancel();
            }
        };
        let led = async {
            tokio::select! {
                result = lead(options, keys, metrics, client, identities, term.clone()) => result,
                () = watch => Ok(()),
            }
        };
        let result = led.await;
        term.cancel();
        leadership.release().await;
        result?;
    }
    Ok(())
}

/// Follows and controls until cancelled.
async fn lead(
    options: &Options,
    keys: &Arc<Keys>,
    metrics: &Metrics,
    client: &Client,
    identities: &dyn Identities,
    token: CancellationToken,
) -> anyhow::Result<()> {
    let rows = table::controllers(options, keys)?;
    let graph = rows.iter().any(|row| row.controller.uses_graph());
    let views = follow(client, &rows, graph, &token)?;
    if graph {
        tokio::spawn(resources::follow_all(client.clone(), views.clone(), token.clone()));
    }
    let recorder = Recorder::start(client.clone(), NAME, "", token.clone());
    let employed = rows
        .into_iter()
        .map(|Row { controller, workers }| Employed {
            client: match controller.account() {
                "" => client.with_user_agent(controller.component()),
                account => identities.client(account),
            },
            errands: keys.clone(),
            recorder: recorder.for_component(controller.component()),
            controller,
            workers,
        })
        .collect::<Vec<_>>();
    info!(controllers = employed.len(), "Started controllers");
    metrics.lead(true);
    controller_runtime::run(views, employed, metrics, token).await;
    metrics.lead(false);
    Ok(())
}

/// Follows each kind that a controller reads, once.
fn follow(
    client: &Client,
    rows: &[Row],
    graph: bool,
    token: &CancellationToken,
) -> anyhow::Result<Arc<Views>> {
    let mut builder = Views::builder(client);
    for watch in rows.iter().flat_map(|row| row.controller.watches()) {
        let gvk = watch.descriptor.gvk.context("a watched kind has a name")?;
        let kind = api::kind(gvk.group, gvk.version, gvk.kind)
            .with_context(|| format!("kind {} is not in the table", gvk.kind))?;
        builder = builder.watch_kind(kind, Selection::default())?;
    }
    if graph {
        builder = builder.graph();
    }
    Ok(builder.start(token))
}

fn made_up_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{}", host.trim(), uuid::Uuid::new_v4())
}
