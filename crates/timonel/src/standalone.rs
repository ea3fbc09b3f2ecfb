//! One component alone, as its upstream namesake runs: a kubeconfig, upstream's flags, logs on standard error.

use anyhow::{Context, Result};
use client::Client;
use std::future::Future;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// A component's own flags.
#[derive(clap::Args)]
pub struct With<Options: clap::Args> {
    #[command(flatten)]
    pub options: Options,
}

/// What says where its kubeconfig is: every component but the API server has the flag.
pub trait HasKubeconfig {
    fn kubeconfig(&self) -> Option<&Path>;
}

macro_rules! has_kubeconfig {
    ($($component:ident),*) => {$(
        impl HasKubeconfig for $component::Options {
            fn kubeconfig(&self) -> Option<&Path> {
                self.kubeconfig.as_deref().map(AsRef::as_ref)
            }
        }
    )*};
}
has_kubeconfig!(kube_controller_manager, kube_scheduler, kubelet, kube_proxy, cluster_dns);

pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the async runtime")?
        .block_on(work)
}

/// Returns on SIGTERM or SIGINT.
pub async fn signalled() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

/// Cancelled by SIGTERM or SIGINT.
fn until_signalled() -> CancellationToken {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        if let Err(error) = signalled().await {
            tracing::error!(%error, "Could not listen for signals");
        }
        cancelled.cancel();
    });
    token
}

pub fn run<Options, Running>(
    with: With<Options>,
    component: impl FnOnce(Options, Client, CancellationToken) -> Running,
) -> Result<()>
where
    Options: clap::Args + HasKubeconfig,
    Running: Future<Output = Result<()>>,
{
    crate::logging::to_stderr();
    block_on(async {
        let kubeconfig =
            with.options.kubeconfig().context("no credentials: name a file with --kubeconfig")?;
        let client = crate::components::client_from(kubeconfig)?;
        component(with.options, client, until_signalled()).await
    })
}

pub fn apiserver(options: kube_apiserver::Options) -> Result<()> {
    crate::logging::to_stderr();
    block_on(async {
        let token = until_signalled();
        let server = kube_apiserver::start(options, token.clone()).await?;
        tracing::info!(address = %server.addr, "API is served");
        token.cancelled().await;
        server.wait().await;
        Ok(())
    })
}

pub fn simulate(args: sim::NodesArgs) -> Result<()> {
    crate::logging::to_stderr();
    block_on(async { sim::run(args, until_signalled()).await })
}
