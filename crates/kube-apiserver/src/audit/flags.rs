//! The flags of auditing, under upstream's names.

use crate::options::duration;
use std::path::PathBuf;
use std::time::Duration;

/// When a request waits for its events to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    Batch,
    Blocking,
    BlockingStrict,
}

#[derive(clap::Args, Clone, Debug)]
pub struct AuditFlags {
    /// The audit policy; without one nothing is told.
    #[arg(long)]
    pub audit_policy_file: Option<PathBuf>,
    /// Where events are written, a line each; `-` is the standard output.
    #[arg(long)]
    pub audit_log_path: Option<PathBuf>,
    /// Days that rotated files are kept; 0 for ever.
    #[arg(long, default_value_t = 366)]
    pub audit_log_maxage: u64,
    /// Rotated files that are kept; 0 for all.
    #[arg(long, default_value_t = 100)]
    pub audit_log_maxbackup: usize,
    /// Megabytes after which the file is rotated.
    #[arg(long, default_value_t = 100)]
    pub audit_log_maxsize: u64,
    /// Only json is written.
    #[arg(long, default_value = "json", value_parser = ["json"])]
    pub audit_log_format: String,
    #[arg(long, value_enum, default_value = "blocking")]
    pub audit_log_mode: Mode,
    #[arg(long, default_value_t = 10_000)]
    pub audit_log_batch_buffer_size: usize,
    /// A kubeconfig: the server that events are sent to.
    #[arg(long)]
    pub audit_webhook_config_file: Option<PathBuf>,
    #[arg(long, value_enum, default_value = "batch")]
    pub audit_webhook_mode: Mode,
    #[arg(long, default_value_t = 10_000)]
    pub audit_webhook_batch_buffer_size: usize,
    #[arg(long, default_value_t = 400)]
    pub audit_webhook_batch_max_size: usize,
    #[arg(long, value_parser = duration, default_value = "30s")]
    pub audit_webhook_batch_max_wait: Duration,
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub audit_webhook_batch_throttle_enable: bool,
    #[arg(long, default_value_t = 10.0)]
    pub audit_webhook_batch_throttle_qps: f64,
    #[arg(long, default_value_t = 15)]
    pub audit_webhook_batch_throttle_burst: u32,
    #[arg(long, value_parser = duration, default_value = "10s")]
    pub audit_webhook_initial_backoff: Duration,
}
