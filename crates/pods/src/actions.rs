//! Level-driven: from a pod and what the runtime has of it, which containers are to start and which to stop now.
//!
//! The order of initialization: init containers one after the other, a sidecar counting as done once it is started; then
//! all others at once. A pod that was initialized in this sandbox stays so.

use crate::input::{Container as Seen, Observed, Sandbox, State};
use crate::probes::ProbeKind;
use crate::spec;
use api::core::v1::{Container, Pod};

/// What one look decides.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Actions {
    pub start: Vec<String>,
    pub stop: Vec<Ending>,
}

/// A running container that has to end, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct Ending {
    pub container: String,
    pub id: String,
    pub message: String,
    /// The probe whose own grace period counts.
    pub probe: Option<ProbeKind>,
}

/// What probes have settled about running containers.
pub trait Health {
    /// Whether its startup probe (if any) has succeeded.
    fn started(&self, container: &Container, seen: &Seen) -> bool;
    /// The probe that has condemned it.
    fn failed(&self, container: &Container, seen: &Seen) -> Option<ProbeKind>;
}

/// The sandbox in which containers can start: the newest, ready, with an address unless it uses the node's.
pub fn usable_sandbox<'a>(pod: &Pod, observed: &'a Observed) -> Option<&'a Sandbox> {
    let newest = observed.sandboxes.first()?;
    let addressed = pod.spec.host_network || !newest.ips.is_empty();
    (newest.ready && addressed).then_some(newest)
}

pub fn compute(pod: &Pod, observed: &Observed, health: &dyn Health) -> Actions {
    let mut actions = Actions::default();
    let sandbox = usable_sandbox(pod, observed).map(|sandbox| sandbox.id.as_str());
    if sandbox.is_some() {
        for ephemeral in &pod.spec.ephemeral_containers {
            let name = &ephemeral.ephemeral_container_common.name;
            if observed.newest(name).is_none() {
                actions.start.push(name.clone());
            }
        }
    }
    let look = Look { pod, observed, health, sandbox };
    if !finished(pod, observed) && look.initialize(&mut actions) {
        look.regular(&mut actions);
    }
    actions
}

/// Whether no regular container runs or will run again. What still runs then are sidecars, which have nothing to serve.
pub fn finished(pod: &Pod, observed: &Observed) -> bool {
    !pod.spec.containers.iter().any(|container| is_unfinished(pod, observed, container))
}

fn is_unfinished(pod: &Pod, observed: &Observed, container: &Container) -> bool {
    match observed.newest(&container.name) {
        Some(seen) if seen.state == State::Exited => spec::restarts(&pod.spec, container, seen.exit_code),
        _ => true,
    }
}

struct Look<'a> {
    pod: &'a Pod,
    observed: &'a Observed,
    health: &'a dyn Health,
    sandbox: Option<&'a str>,
}

impl Look<'_> {
    fn in_sandbox(&self, name: &str) -> Option<&Seen> {
        self.observed.newest(name).filter(|seen| self.sandbox == Some(seen.sandbox_id.as_str()))
    }

    /// Brings initialization forward; tells whether the regular containers may run.
    fn initialize(&self, actions: &mut Actions) -> bool {
        let begun =
            self.pod.spec.containers.iter().any(|container| self.in_sandbox(&container.name).is_some());
        let inits = &self.pod.spec.init_containers;
        for (index, container) in inits.iter().enumerate() {
            let passed =
                begun || inits[index + 1..].iter().any(|later| self.in_sandbox(&later.name).is_some());
            let done = if spec::is_sidecar(container) {
                self.sidecar(container, actions)
            } else {
                passed || self.init(container, actions)
            };
            if !done && !passed {
                return false;
            }
        }
        true
    }

    fn sidecar(&self, container: &Container, actions: &mut Actions) -> bool {
        match self.in_sandbox(&container.name) {
            Some(seen) if seen.state == State::Running => {
                let condemned = self.condemned(container, seen, "Init container");
                let healthy = condemned.is_none();
                actions.stop.extend(condemned);
                healthy && self.health.started(container, seen)
            }
            _ => {
                actions.start.push(container.name.clone());
                false
            }
        }
    }

    fn init(&self, container: &Container, actions: &mut Actions) -> bool {
        match self.in_sandbox(&container.name) {
            Some(seen) if seen.state == State::Running => false,
            Some(seen) if seen.state == State::Exited => {
                if seen.exit_code == 0 {
                    return true;
                }
                if spec::restarts(&self.pod.spec, container, seen.exit_code) {
                    actions.start.push(container.name.clone());
                }
                false
            }
            _ => {
                actions.start.push(container.name.clone());
                false
            }
        }
    }

    fn regular(&self, actions: &mut Actions) {
        for container in &self.pod.spec.containers {
            match self.observed.newest(&container.name) {
                Some(seen)
                    if seen.state == State::Running && self.sandbox == Some(seen.sandbox_id.as_str()) =>
                {
                    actions.stop.extend(self.condemned(container, seen, "Container"));
                }
                // It ran in a sandbox that is being replaced: its end comes with that sandbox's.
                Some(seen) if seen.state == State::Running && self.sandbox.is_none() => {
                    actions.start.push(container.name.clone());
                }
                Some(seen) if seen.state == State::Exited => {
                    if spec::restarts(&self.pod.spec, container, seen.exit_code) {
                        actions.start.push(container.name.clone());
                    }
                }
                _ => actions.start.push(container.name.clone()),
            }
        }
    }

    fn condemned(&self, container: &Container, seen: &Seen, title: &str) -> Option<Ending> {
        let name = &container.name;
        let failed = self.health.failed(container, seen);
        let why = if !seen.hash.is_empty() && seen.hash != spec::hash(container) {
            format!("{title} {name} definition changed")
        } else {
            let probe = failed?.to_string().to_lowercase();
            format!("{title} {name} failed {probe} probe")
        };
        // An exit by signal has a code other than 0: only policy Never leaves it dead.
        let again = spec::restarts(&self.pod.spec, container, 137);
        let message = if again && title == "Container" { format!("{why}, will be restarted") } else { why };
        Some(Ending { container: name.clone(), id: seen.id.clone(), message, probe: failed })
    }
}
