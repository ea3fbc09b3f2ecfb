//! The process: the queue, the configuration, what is written, and all of it against a fake API server.

mod config;
mod fake;
mod queue;
mod running;
mod writes;
