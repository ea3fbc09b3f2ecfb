//! Servers that the API server itself calls: where they are, what they must prove, and the pooled connections to them.

pub mod pool;
pub mod services;
pub mod tls;
pub mod users;
pub mod webhook;

use tokio::io::{AsyncRead, AsyncWrite};

/// A connection, with TLS or without.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
