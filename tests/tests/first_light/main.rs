//! A whole cluster, driven by stock kubectl as a user drives it: on the embedded store, then on a real etcd.
//!
//! Scenarios run one after another on one cluster, each in namespaces of its own; all are run, and all faults told.

mod bad_input;
mod crash;
mod custom_resources;
mod lifecycle;
mod node;
mod services;
mod shop;
mod verbs;
mod volumes;

use anyhow::Result;
use e2e::cluster::Cluster;
use e2e::machine::Machine;
use std::sync::Mutex;

/// The node's links, rules and ports are the machine's: one cluster at a time.
static MACHINE: Mutex<()> = Mutex::new(());

type Scenario = (&'static str, fn(&Cluster) -> Result<()>);

const SCENARIOS: &[Scenario] = &[
    ("the shop opens", shop::opens),
    ("apply merges", shop::apply_merges),
    ("kubectl reads", verbs::reads),
    ("kubectl writes", verbs::writes),
    ("kubectl streams", verbs::streams),
    ("rollouts", verbs::rollouts),
    ("services answer", services::answer),
    ("connections spread", services::spread),
    ("unready pods leave the rotation", services::unready),
    ("containers restart", lifecycle::restarts),
    ("replicas are kept", lifecycle::replicas),
    ("a rolling update drops nothing", lifecycle::rolling_update),
    ("images are pulled", node::images_are_pulled),
    ("host ports answer", node::host_ports_answer),
    ("terminals work", node::terminals_work),
    ("files follow their source", node::files_follow),
    ("work is done", node::work_is_done),
    ("volumes come and go", volumes::come_and_go),
    ("volumes keep data", volumes::keep_data),
    ("sizes change", volumes::sizes_change),
    ("custom kinds live and die", custom_resources::live_and_die),
    ("bad input is refused", bad_input::refused),
    ("crashes lose nothing", crash::loses_nothing),
];

fn run(with_etcd: bool) -> Result<()> {
    let _machine = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let before = Machine::look()?;
    let mut faults = Vec::new();
    {
        let cluster = Cluster::up(with_etcd)?;
        let only = std::env::var("SCENARIO").unwrap_or_default();
        for (name, scenario) in
            SCENARIOS.iter().filter(|(name, _)| only.split(',').any(|part| name.contains(part)))
        {
            let began = std::time::Instant::now();
            match scenario(&cluster) {
                Ok(()) => eprintln!("ok      {name} ({} ms)", began.elapsed().as_millis()),
                Err(error) => {
                    eprintln!("FAILED  {name}: {error:#}");
                    faults.push(format!("{name}: {error:#}"));
                }
            }
        }
        // A part of the scenarios makes only a part of the keys.
        if with_etcd && only.is_empty() {
            faults.extend(upstream_keys(&cluster).err().map(|error| format!("keys in etcd: {error:#}")));
        }
        if !faults.is_empty() {
            eprintln!("{}", cluster.logs());
        }
        cluster.reset()?;
    }
    let left = before.added(&Machine::look()?);
    if !left.is_empty() {
        faults.push(format!("left on the machine:\n{left}"));
    }
    anyhow::ensure!(faults.is_empty(), "{}", faults.join("\n\n"));
    Ok(())
}

/// Upstream's layout: what its own API server would find.
fn upstream_keys(cluster: &Cluster) -> Result<()> {
    let endpoint = cluster.etcd_endpoint().unwrap_or_default();
    let keys = e2e::output(std::process::Command::new("etcdctl").env("ETCDCTL_API", "3").args([
        "--endpoints",
        endpoint,
        "get",
        "--prefix",
        "/registry",
        "--keys-only",
    ]))?;
    for key in [
        "/registry/namespaces/default",
        "/registry/services/specs/default/kubernetes",
        "/registry/clusterroles/cluster-admin",
        "/registry/minions/",
        "/registry/deployments/shop/web",
    ] {
        anyhow::ensure!(keys.lines().any(|line| line.starts_with(key)), "no key {key} among\n{keys}");
    }
    Ok(())
}

#[test]
fn on_the_embedded_store() {
    run(false).unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn on_a_real_etcd() {
    run(true).unwrap_or_else(|error| panic!("{error:#}"));
}
