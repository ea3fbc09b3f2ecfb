//! The runtime that pretends: what one pod has of it, and how long each piece of work takes.

use crate::args::NodesArgs;
use pods::{Container, Failure, Millis, Observed, Sandbox, State};
use rand::Rng;
use std::time::Duration;

/// Exit code of a container that was stopped in time, and of one that crashed.
const STOPPED: i32 = 0;
const CRASHED: i32 = 1;

/// What a piece of work needs to be known of its end.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// The pod's own timer, armed for this time.
    Timer(Millis),
    Sandbox {
        attempt: u32,
    },
    Start {
        container: String,
        attempt: u32,
        sandbox_id: String,
        image_id: String,
    },
    Stop {
        id: String,
    },
    StopSandbox {
        id: String,
    },
    /// A container ends by itself.
    Exit {
        id: String,
        code: i32,
    },
    /// A status could not be written, and is tried again.
    WriteAgain,
    /// A deletion could not be done, and is tried again.
    DeleteAgain,
}

/// A time around `mean`: from half of it to one and a half.
pub fn about(mean: Duration) -> Millis {
    let mean = mean.as_millis() as i64;
    if mean == 0 { 0 } else { rand::rng().random_range(mean / 2..=mean + mean / 2) }
}

/// How a start ends; decided when it is over.
pub fn start_fails(args: &NodesArgs) -> Option<Failure> {
    let fails = args.start_failures > 0.0 && rand::rng().random_range(0.0..100.0) < args.start_failures;
    fails.then(|| Failure::of("RunContainerError", "simulated failure"))
}

/// What the runtime has of one pod.
#[derive(Default)]
pub struct World {
    observed: Observed,
    made: u32,
}

impl World {
    pub fn observed(&self) -> Observed {
        self.observed.clone()
    }

    fn id(&mut self, pod: &str) -> String {
        self.made += 1;
        format!("{pod}-{}", self.made)
    }

    pub fn make_sandbox(&mut self, pod: &str, attempt: u32, address: String, now: Millis) {
        let id = self.id(pod);
        self.observed
            .sandboxes
            .insert(0, Sandbox { id, attempt, created_at: now, ready: true, ips: vec![address] });
    }

    /// Starts a container; tells its id.
    #[allow(clippy::too_many_arguments)]
    pub fn start(
        &mut self,
        pod: &str,
        name: &str,
        attempt: u32,
        sandbox_id: &str,
        image_id: &str,
        image: &str,
        now: Millis,
    ) -> String {
        let id = self.id(pod);
        let container = Container {
            id: id.clone(),
            sandbox_id: sandbox_id.into(),
            name: name.into(),
            attempt,
            // Without a hash a changed definition restarts nothing, and nothing is kept for it.
            hash: String::new(),
            state: State::Running,
            created_at: now,
            started_at: now,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: image.into(),
            image_id: image_id.into(),
        };
        self.observed.containers.insert(0, container);
        id
    }

    /// Ends a container that runs; tells whether it did.
    pub fn exit(&mut self, id: &str, code: i32, now: Millis) -> bool {
        let running = |one: &&mut Container| one.id == id && one.state == State::Running;
        let Some(container) = self.observed.containers.iter_mut().find(running) else { return false };
        container.state = State::Exited;
        container.exit_code = code;
        container.reason = if code == 0 { "Completed" } else { "Error" }.into();
        container.finished_at = now;
        true
    }

    pub fn stop(&mut self, id: &str, now: Millis) {
        self.exit(id, STOPPED, now);
    }

    /// Ends a sandbox and what runs in it.
    pub fn stop_sandbox(&mut self, id: &str, now: Millis) {
        let inside: Vec<String> = self
            .observed
            .containers
            .iter()
            .filter(|one| one.sandbox_id == id)
            .map(|one| one.id.clone())
            .collect();
        for container in inside {
            self.exit(&container, STOPPED, now);
        }
        for sandbox in self.observed.sandboxes.iter_mut().filter(|sandbox| sandbox.id == id) {
            sandbox.ready = false;
        }
    }

    pub fn collect(&mut self, id: &str) {
        self.observed.containers.retain(|one| one.id != id);
    }
}

/// When a container that has started ends by itself, and how; `init` ones do at once.
pub fn life(args: &NodesArgs, init: bool, forever: bool) -> Option<(Millis, i32)> {
    if init {
        return Some((0, 0));
    }
    if !args.crash_after.is_zero() {
        return Some((about(args.crash_after), CRASHED));
    }
    (!forever).then(|| (about(args.job_length), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_takes_its_containers_along() {
        let mut world = World::default();
        world.make_sandbox("uid", 0, "10.0.0.1".into(), 5);
        let sandbox = world.observed().sandboxes[0].id.clone();
        let id = world.start("uid", "web", 0, &sandbox, "image", "nginx", 6);
        world.stop_sandbox(&sandbox, 9);
        let observed = world.observed();
        assert!(!observed.sandboxes[0].ready);
        let seen = observed.newest("web").unwrap();
        assert_eq!(
            (seen.id.as_str(), seen.state, seen.exit_code, seen.finished_at),
            (id.as_str(), State::Exited, 0, 9)
        );
        assert!(!world.exit(&id, 1, 10), "an end is final");
        world.collect(&id);
        assert!(world.observed().containers.is_empty());
    }
}
