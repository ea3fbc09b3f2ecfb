//! The controllers there are: each with its workers, made from the flags.

use crate::Options;
use crate::keys::Keys;
use anyhow::Context as _;
use controllers::Controller;
use controllers::attachdetach::AttachDetach;
use controllers::bootstrap::{BootstrapSigner, TokenCleaner};
use controllers::certificates::{Approver, Cleaner, Signer};
use controllers::clusterroles::ClusterRoleAggregation;
use controllers::cronjob::CronJobs;
use controllers::daemonset::DaemonSets;
use controllers::deployment::Deployments;
use controllers::disruption::Disruption;
use controllers::endpoints::EndpointsController;
use controllers::endpointslice::EndpointSlices;
use controllers::endpointslicemirroring::EndpointSliceMirroring;
use controllers::ephemeral::EphemeralVolumes;
use controllers::expander::VolumeExpander;
use controllers::garbagecollector::GarbageCollector;
use controllers::horizontalpodautoscaler::{HorizontalPodAutoscalers, Startup};
use controllers::job::Jobs;
use controllers::localpath::LocalPathProvisioner;
use controllers::namespace::Namespaces;
use controllers::nodeipam::NodeIpam;
use controllers::nodelifecycle::{EvictionRate, NodeLifecycle};
use controllers::persistentvolume::VolumeBinder;
use controllers::podgc::PodGc;
use controllers::protection::{AttributesProtection, ClaimProtection, VolumeProtection};
use controllers::replicaset::ReplicaSets;
use controllers::replicationcontroller::ReplicationControllers;
use controllers::resourceclaim::{ClaimReservations, PodClaims};
use controllers::resourcequota::ResourceQuotas;
use controllers::serviceaccount::{RootCaPublisher, ServiceAccounts};
use controllers::serviceaccounttoken::{LegacyTokenCleaner, Tokens};
use controllers::servicecidr::ServiceCidrs;
use controllers::statefulset::StatefulSets;
use controllers::tainteviction::TaintEviction;
use controllers::ttl::Ttl;
use controllers::ttlafterfinished::TtlAfterFinished;
use std::sync::Arc;
use std::time::Duration;

/// Controllers that run only where they are named.
const ON_DEMAND: [&str; 2] = ["bootstrap-signer-controller", "token-cleaner-controller"];

/// One enabled controller.
pub(crate) struct Row {
    pub controller: Arc<dyn Controller>,
    pub workers: usize,
}

/// Cron jobs in the zone of this process: by `TZ`, or of the machine.
fn cron_jobs() -> CronJobs {
    match std::env::var("TZ") {
        Ok(name) => CronJobs::in_named_zone(name.trim_start_matches(':')),
        Err(_) => std::fs::read("/etc/localtime")
            .map_or_else(|_| CronJobs::default(), |data| CronJobs::in_zone(&data)),
    }
}

/// The controllers that the flags ask for.
pub(crate) fn controllers(options: &Options, keys: &Keys) -> anyhow::Result<Vec<Row>> {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let mut rows: Vec<(Arc<dyn Controller>, usize)> = vec![
        (Arc::new(Deployments), options.concurrent_deployment_syncs),
        (Arc::new(ReplicaSets), options.concurrent_replicaset_syncs),
        (Arc::new(ReplicationControllers), options.concurrent_rc_syncs),
        (Arc::new(StatefulSets), options.concurrent_statefulset_syncs),
        (Arc::new(DaemonSets), options.concurrent_daemonset_syncs),
        (Arc::new(Jobs), options.concurrent_job_syncs),
        (Arc::new(cron_jobs()), options.concurrent_cron_job_syncs),
        (
            Arc::new(ResourceQuotas { resync_seconds: seconds(options.resource_quota_sync_period) }),
            options.concurrent_resource_quota_syncs,
        ),
        (Arc::new(TtlAfterFinished), options.concurrent_ttl_after_finished_syncs),
        (Arc::new(Disruption), 1),
        (Arc::new(ClusterRoleAggregation), 5),
        (Arc::new(EndpointsController), options.concurrent_endpoint_syncs),
        (
            Arc::new(EndpointSlices {
                max_endpoints: usize::try_from(options.max_endpoints_per_slice).unwrap_or(100),
            }),
            options.concurrent_service_endpoint_syncs,
        ),
        (
            Arc::new(EndpointSliceMirroring {
                max_endpoints: usize::try_from(options.mirroring_max_endpoints_per_subset).unwrap_or(1000),
            }),
            options.mirroring_concurrent_service_endpoint_syncs,
        ),
        (Arc::new(Ttl), 1),
        (Arc::new(ServiceCidrs), 5),
        (Arc::new(PodClaims), options.concurrent_resource_claim_syncs),
        (Arc::new(ClaimReservations), options.concurrent_resource_claim_syncs),
        (
            Arc::new(HorizontalPodAutoscalers {
                period_seconds: seconds(options.horizontal_pod_autoscaler_sync_period).max(1),
                downscale_seconds: seconds(options.horizontal_pod_autoscaler_downscale_stabilization),
                tolerance: options.horizontal_pod_autoscaler_tolerance,
                startup: Startup {
                    cpu_seconds: seconds(options.horizontal_pod_autoscaler_cpu_initialization_period),
                    readiness_seconds: seconds(options.horizontal_pod_autoscaler_initial_readiness_delay),
                },
            }),
            options.concurrent_horizontal_pod_autoscaler_syncs,
        ),
        (Arc::new(Namespaces), options.concurrent_namespace_syncs),
        (Arc::new(ServiceAccounts), 1),
        (
            Arc::new(NodeLifecycle {
                grace_seconds: seconds(options.node_monitor_grace_period),
                startup_grace_seconds: seconds(options.node_startup_grace_period),
                eviction: EvictionRate {
                    normal: options.node_eviction_rate,
                    secondary: options.secondary_node_eviction_rate,
                    large_zone: options.large_cluster_size_threshold,
                    unhealthy: options.unhealthy_zone_threshold,
                },
            }),
            8,
        ),
        (Arc::new(TaintEviction), 8),
        (Arc::new(VolumeBinder), 5),
        (Arc::new(AttachDetach { force_on_timeout: !options.disable_force_detach_on_timeout }), 5),
        (Arc::new(ClaimProtection), 5),
        (Arc::new(VolumeProtection), 5),
        (Arc::new(AttributesProtection), 5),
        (Arc::new(EphemeralVolumes), options.concurrent_ephemeralvolume_syncs),
        (Arc::new(VolumeExpander), 5),
        (Arc::new(LocalPathProvisioner), 5),
        (Arc::new(PodGc { terminated_threshold: options.terminated_pod_gc_threshold }), 1),
        (Arc::new(Approver), 5),
        (Arc::new(Cleaner), 1),
        (Arc::new(BootstrapSigner), 1),
        (Arc::new(TokenCleaner), 1),
        (
            Arc::new(LegacyTokenCleaner {
                unused_seconds: seconds(options.legacy_service_account_token_clean_up_period),
            }),
            1,
        ),
    ];
    let signers = keys.signers();
    if !signers.is_empty() {
        let seconds_max = seconds(options.cluster_signing_duration);
        rows.push((Arc::new(Signer { signers, seconds_max }), 5));
    }
    let ca_pem = match &options.root_ca_file {
        None => String::new(),
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("cannot read --root-ca-file {}", path.display()))?,
    };
    if keys.signs_tokens() {
        let workers = options.concurrent_serviceaccount_token_syncs;
        rows.push((Arc::new(Tokens { ca_pem: ca_pem.clone() }), workers));
    }
    if options.enable_garbage_collector {
        rows.push((Arc::new(GarbageCollector), options.concurrent_gc_syncs));
    }
    if !ca_pem.is_empty() {
        rows.push((Arc::new(RootCaPublisher { ca_pem }), 1));
    }
    if options.allocate_node_cidrs {
        let range = options.cluster_cidr.as_deref().context("--allocate-node-cidrs needs --cluster-cidr")?;
        let ipam = NodeIpam::new(range, options.node_cidr_mask_size).map_err(anyhow::Error::msg)?;
        rows.push((Arc::new(ipam), 1));
    }
    Ok(rows
        .into_iter()
        .filter(|(controller, _)| options.enables(controller.name(), !ON_DEMAND.contains(&controller.name())))
        .map(|(controller, workers)| Row { controller, workers })
        .collect())
}
