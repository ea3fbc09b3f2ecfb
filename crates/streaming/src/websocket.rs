//! Decides how a WebSocket is accepted from a client: the handshake, the subprotocol, the limits.

use std::time::Duration;

use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL};
use http::header::{SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::{Error, Response, plain};

/// The largest message taken from a client. Clients send pieces of 32 KiB.
const MAX_MESSAGE: usize = 1 << 20;
/// How long the last words to a client may take: upstream's limit.
const FAREWELL: Duration = Duration::from_secs(10);

/// The subprotocols that a request offers, in its order.
pub(crate) fn offered(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter().filter_map(|value| value.to_str().ok());
    let words = values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

/// The answer that accepts a handshake, with the subprotocol chosen.
pub(crate) fn accept(headers: &HeaderMap, protocol: Option<&str>) -> Result<Response, Box<Response>> {
    let bad = |text: &str| Box::new(plain(StatusCode::BAD_REQUEST, text));
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| bad("the Sec-WebSocket-Key header is missing"))?;
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(bad("only version 13 of the WebSocket protocol is supported"));
    }
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| bad("the Sec-WebSocket-Key header is malformed"))?;
    let own = response.headers_mut();
    own.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    own.insert(UPGRADE, HeaderValue::from_static("websocket"));
    own.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol.filter(|protocol| !protocol.is_empty()) {
        let value = HeaderValue::from_str(protocol).map_err(|_| bad("the subprotocol is malformed"))?;
        own.insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
    Ok(response)
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// Waits until the client's connection is a WebSocket, after the answer has been sent.
pub(crate) async fn upgraded<B>(mut request: Request<B>) -> Result<(Sender, Receiver), Error> {
    let upgrade = hyper::upgrade::on(&mut request);
    drop(request);
    let upgraded = upgrade.await.map_err(|error| Error::Unreachable(error.to_string()))?;
    let config = WebSocketConfig::default()
        .read_buffer_size(32 << 10)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_MESSAGE)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let socket = Socket::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let (sink, stream) = socket.split();
    Ok((Sender { sink: Box::pin(sink) }, Receiver { stream: Box::pin(stream) }))
}

/// The direction toward the client.
pub(crate) struct Sender {
    sink: std::pin::Pin<Box<dyn Sink<Message, Error = tungstenite::Error> + Send>>,
}

impl Sender {
    pub(crate) async fn send(&mut self, data: Vec<u8>) -> Result<(), Error> {
        self.message(Message::Binary(data.into())).await
    }

    pub(crate) async fn send_text(&mut self, text: String) -> Result<(), Error> {
        self.message(Message::Text(text.into())).await
    }

    async fn message(&mut self, message: Message) -> Result<(), Error> {
        self.sink.send(message).await.map_err(|error| {
            tracing::debug!(%error, "a WebSocket could not be written to");
            Error::Closed
        })
    }

    /// Says goodbye and waits a little for what is on its way.
    pub(crate) async fn close(&mut self) {
        let close = async {
            // Without the code for a normal end, clients take the end for an error.
            let end = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            let _ = self.sink.send(Message::Close(Some(end))).await;
            let _ = self.sink.close().await;
        };
        let _ = tokio::time::timeout(FAREWELL, close).await;
    }
}

/// The direction from the client.
pub(crate) struct Receiver {
    stream: std::pin::Pin<Box<dyn Stream<Item = Result<Message, tungstenite::Error>> + Send>>,
}

impl Receiver {
    /// The next message with data; `None` when the client has closed or is lost. Pings are answered here.
    pub(crate) async fn receive(&mut self) -> Option<Bytes> {
        loop {
            match self.stream.next().await? {
                Ok(Message::Binary(data)) => return Some(data),
                Ok(Message::Text(text)) => return Some(text.into()),
                Ok(Message::Close(_)) => return None,
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Err(error) => {
                    tracing::debug!(%error, "a WebSocket was lost");
                    return None;
                }
            }
        }
    }
}
