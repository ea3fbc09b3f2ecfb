//! What goes into a pod's machine and what comes out of it.

use crate::Millis;
use crate::probes::{Outcome, ProbeKind};
use crate::resize::Answer;
use api::core::v1::{Pod, PodStatus};
use std::sync::Arc;

/// A container's state as the runtime tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Exited,
    Unknown,
}

/// One container that the runtime has, of this pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    pub id: String,
    pub sandbox_id: String,
    pub name: String,
    /// How many came before it: the restart count.
    pub attempt: u32,
    /// The hash of the specification that it was made from; see [`crate::spec::hash`].
    pub hash: String,
    pub state: State,
    pub created_at: Millis,
    pub started_at: Millis,
    pub finished_at: Millis,
    pub exit_code: i32,
    pub reason: String,
    /// The termination message, or the runtime's words.
    pub message: String,
    pub image: String,
    pub image_id: String,
}

/// One sandbox that the runtime has, of this pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub created_at: Millis,
    pub ready: bool,
    pub ips: Vec<String>,
}

/// Everything that the runtime has of this pod, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<Container>,
}

impl Observed {
    /// Puts the newest first.
    pub fn sort(&mut self) {
        self.sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.attempt, sandbox.created_at)));
        self.containers.sort_by_key(|container| std::cmp::Reverse((container.attempt, container.created_at)));
    }
    pub fn newest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == name)
    }
}

/// A piece of work that an actor does for the machine; at most one of each is under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// Folders, mounts, files: everything that the containers will mount.
    Volumes,
    Sandbox,
    Pull(String),
    Start(String),
    Resize(String),
    /// By container id.
    Stop(String),
    /// By sandbox id.
    StopSandbox(String),
    /// Unmounts volumes, removes control groups.
    Cleanup,
    /// Removes one dead container, by id.
    Collect(String),
    /// Deletes the pod in the API.
    Delete,
}

/// Why a piece of work failed: an API reason (`ErrImagePull`, `CreateContainerConfigError`, ..) and words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    pub message: String,
}

impl Failure {
    pub fn of(reason: &str, message: impl Into<String>) -> Self {
        Failure { reason: reason.into(), message: message.into() }
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The pod as the API has it now.
    Desired(Arc<Pod>),
    /// The API has the pod no more.
    Removed,
    Observed(Observed),
    /// A piece of work ended. For a pull, `Ok` holds the image's id.
    Done {
        op: Op,
        result: Result<String, Failure>,
        observed: Option<Observed>,
    },
    Probe {
        container: String,
        container_id: String,
        kind: ProbeKind,
        outcome: Outcome,
    },
    /// The armed timer came due.
    Timer,
    /// The node ends the pod: it fails with this reason.
    Evict {
        reason: String,
        message: String,
        /// A pod that ran is disrupted, with so much grace; `None` for one that was turned away.
        grace_seconds: Option<i64>,
    },
    /// What the node says to the resources that the pod asks for.
    Resize(Answer),
    /// A referenced object changed: what failed for want of it may be tried at once.
    Retry,
}

/// How one container is to be stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    pub container: String,
    pub id: String,
    pub grace_seconds: i64,
    /// The words of the `Killing` event.
    pub message: String,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    PrepareVolumes,
    CreateSandbox {
        attempt: u32,
    },
    Pull {
        container: String,
    },
    Start {
        container: String,
        attempt: u32,
        sandbox_id: String,
        image_id: String,
    },
    /// Gives a running container the resources that are allocated to it.
    Resize {
        container: String,
        id: String,
    },
    Stop(Stop),
    StopSandbox {
        id: String,
    },
    /// Runs one probe; the result comes back as `Input::Probe`.
    Probe {
        container: String,
        container_id: String,
        kind: ProbeKind,
    },
    Collect {
        id: String,
    },
    /// The one timer of the pod, at this time; it replaces the one before.
    ArmTimer {
        at: Millis,
    },
    ReportStatus(Box<PodStatus>),
    /// An event about the pod, or about a container where one is named.
    Record {
        warning: bool,
        reason: String,
        message: String,
        container: Option<String>,
    },
    /// Unmounts volumes and removes the control groups.
    Cleanup,
    /// Deletes the API's object, grace 0: the node is done with it.
    Delete,
    /// Removes sandboxes, containers, logs and the pod's folder; then the machine is done.
    Finish,
}
