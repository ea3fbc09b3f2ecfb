//! The Container Runtime Interface v1, as much of it as a node uses: messages and a client over a unix socket.

mod client;
pub mod messages;

pub use client::{Client, connect};
