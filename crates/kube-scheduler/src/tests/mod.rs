//! The process without a cluster: the queue, the configuration, what is written.

mod config;
mod queue;
mod writes;
