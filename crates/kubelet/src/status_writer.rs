//! Writes a pod's newest status to the API: one write at a time, the newest wins, failures are tried again.

use crate::{Context, static_pods};
use api::core::v1::{Pod, PodStatus};
use client::{Patch, PatchOptions};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Waits after a failed write: doubled from the first to the last.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How long the end of a pod waits for its last status.
const FLUSH_MAX: Duration = Duration::from_secs(10);

pub struct StatusWriter {
    newest: watch::Sender<(u64, Option<PodStatus>)>,
    written: watch::Receiver<u64>,
}

impl StatusWriter {
    pub fn start(ctx: &Arc<Context>, pod: &Arc<Pod>) -> Self {
        let (newest, receiver) = watch::channel((0, None));
        let (done, written) = watch::channel(0);
        let (ctx, pod) = (ctx.clone(), pod.clone());
        tokio::spawn(async move {
            let token = ctx.token.clone();
            tokio::select! {
                () = token.cancelled() => {}
                () = write_all(&ctx, &pod, receiver, done) => {}
            }
        });
        StatusWriter { newest, written }
    }

    pub fn write(&self, status: PodStatus) {
        self.newest.send_modify(|(number, newest)| {
            *number += 1;
            *newest = Some(status);
        });
    }

    /// Ready once everything handed over so far is written, or after a limit.
    pub fn flushed(&self) -> impl Future<Output = ()> + Send + 'static {
        let number = self.newest.borrow().0;
        let mut written = self.written.clone();
        async move {
            let wait = written.wait_for(|written| *written >= number);
            let _ = tokio::time::timeout(FLUSH_MAX, wait).await;
        }
    }

    /// No more is to be written.
    pub fn close(&self) {
        self.newest.send_modify(|(number, newest)| {
            *number += 1;
            *newest = None;
        });
    }
}

async fn write_all(
    ctx: &Context,
    pod: &Pod,
    mut newest: watch::Receiver<(u64, Option<PodStatus>)>,
    written: watch::Sender<u64>,
) {
    let mut delay = RETRY_MIN;
    while newest.changed().await.is_ok() {
        loop {
            let (number, status) = newest.borrow_and_update().clone();
            let Some(status) = status else { return };
            match write(ctx, pod, &status).await {
                Ok(()) => {
                    delay = RETRY_MIN;
                    let _ = written.send(number);
                    break;
                }
                Err(error)
                    if (error.is_not_found() || error.is_conflict()) && !static_pods::is_static(pod) =>
                {
                    let _ = written.send(u64::MAX);
                    return;
                }
                Err(error) => {
                    tracing::warn!(pod = %pods::spec::describe(pod), error = %error.chain(), "Failed to write a pod's status");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(RETRY_MAX);
                }
            }
        }
    }
}

async fn write(ctx: &Context, pod: &Pod, status: &PodStatus) -> Result<(), client::Error> {
    let key = view::key_of(pod);
    let uid = if static_pods::is_static(pod) {
        let missing = || client::Error::Request("its mirror pod is not there yet".into());
        static_pods::mirror_uid(ctx, pod).ok_or_else(missing)?
    } else {
        pod.metadata.uid.clone()
    };
    let patch = json!({ "metadata": { "uid": uid }, "status": document(status) });
    ctx.client.patch_status::<Pod>(&key, &Patch::Strategic(patch), &PatchOptions::default()).await.map(drop)
}

/// The status as a patch: what it no longer says is taken back by null.
fn document(status: &PodStatus) -> Value {
    let mut value = api::codec::to_value(status);
    for condition in value["conditions"].as_array_mut().into_iter().flatten() {
        for field in ["reason", "message"] {
            if condition.get(field).is_none() {
                condition[field] = Value::Null;
            }
        }
        condition.as_object_mut().map(|fields| fields.entry("lastProbeTime").or_insert(Value::Null));
    }
    // Conditions are merged by their type: those of ours that come and go have to be taken back.
    if let Some(list) = value["conditions"].as_array_mut() {
        for kind in ["PodResizePending", "PodResizeInProgress"] {
            if !list.iter().any(|one| one["type"] == kind) {
                list.push(json!({ "$patch": "delete", "type": kind }));
            }
        }
    }
    // Addresses are merged by their text: the lists are replaced as a whole instead.
    for list in ["podIPs", "hostIPs"] {
        if let Some(items) = value.get_mut(list).and_then(Value::as_array_mut) {
            items.insert(0, json!({ "$patch": "replace" }));
        }
    }
    value
}
