//! What carries a request to the API server: a connection, or a call inside the process.

use crate::Error;
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};

/// A streamed body; its frames arrive as the server writes them.
pub type Body = BoxBody<Bytes, Error>;

pub type Response = http::Response<Body>;

/// Carries requests. The URI of a request is path and query only; the transport adds scheme, authority, credentials.
///
/// An answer of any status is `Ok`: only a request that got no answer is an error. Dropping the future or the
/// body gives the request up.
pub trait Transport: Send + Sync + 'static {
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'static, Result<Response, Error>>;
}

/// A body known in full.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A body without content.
pub fn empty() -> Body {
    full(Bytes::new())
}
