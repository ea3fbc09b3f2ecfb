//! The stages of a start, told line by line on standard output to whoever still listens.

use std::io::Write;
use std::time::Instant;

/// Ends the stages: the cluster answers and, where this server has a node, it is Ready.
pub const READY: &str = "ready";

/// Tells stages with the milliseconds since the start. A listener that went away is not missed.
#[derive(Clone)]
pub struct Progress {
    start: Instant,
}

impl Progress {
    pub fn begin() -> Self {
        Progress { start: Instant::now() }
    }

    /// One stage that has been reached: `API serving on https://127.0.0.1:6443`.
    pub fn stage(&self, text: &str) {
        self.line(&format!("{:>6} ms  {text}", self.start.elapsed().as_millis()));
    }

    pub fn ready(&self) {
        self.line(READY);
    }

    fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // `timonel up` stops listening once it has seen what it waits for.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}
