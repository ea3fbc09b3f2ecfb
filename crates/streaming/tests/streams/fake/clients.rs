//! Decides how the tests' clients speak: WebSockets with channels, tunnels, SPDY.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use hyper::Request;
use streaming::{PROTOCOL_HEADER, Upstream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};

use super::Front;

type Socket = WebSocketStream<TcpStream>;

/// A WebSocket client.
pub struct Client {
    sender: ClientSender,
    receiver: ClientReceiver,
}

pub struct ClientSender(SplitSink<Socket, Message>);
pub struct ClientReceiver(SplitStream<Socket>);

async fn handshake(front: &Front, path: &str, protocol: &str) -> Result<Socket, tungstenite::Error> {
    let mut request = format!("ws://{}{path}", front.address).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    let socket = TcpStream::connect(&front.address).await.unwrap();
    let (socket, response) = tokio_tungstenite::client_async(request, socket).await?;
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    Ok(socket)
}

impl Client {
    pub async fn connect(front: &Front, path: &str, protocol: &str) -> Client {
        let (sink, stream) = handshake(front, path, protocol).await.unwrap().split();
        Client { sender: ClientSender(sink), receiver: ClientReceiver(stream) }
    }

    /// The status of the answer to a handshake that is not accepted.
    pub async fn refused(front: &Front, path: &str, protocol: &str) -> u16 {
        match handshake(front, path, protocol).await {
            Err(tungstenite::Error::Http(response)) => response.status().as_u16(),
            other => panic!("{other:?}"),
        }
    }

    pub fn split(self) -> (ClientSender, ClientReceiver) {
        (self.sender, self.receiver)
    }

    pub async fn send(&mut self, channel: u8, data: &[u8]) {
        self.sender.send(channel, data).await;
    }

    pub async fn send_raw(&mut self, message: Vec<u8>) {
        self.sender.send_raw(message).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.sender.0.send(Message::Text(text.into())).await.unwrap();
    }

    pub async fn receive(&mut self) -> (u8, Bytes) {
        self.receiver.receive().await
    }

    pub async fn receive_text(&mut self) -> String {
        self.receiver.0.next().await.unwrap().unwrap().into_text().unwrap().as_str().to_owned()
    }

    /// Receives `length` bytes on one channel.
    pub async fn receive_all(&mut self, channel: u8, length: usize) -> Vec<u8> {
        let mut received = Vec::new();
        while received.len() < length {
            let (from, data) = self.receive().await;
            assert_eq!(from, channel, "{data:?}");
            received.extend_from_slice(&data);
        }
        received.truncate(length);
        received
    }

    /// Whether the server ends the WebSocket in good order.
    pub async fn closed(&mut self) -> bool {
        matches!(self.receiver.0.next().await, Some(Ok(Message::Close(_))))
    }

    /// The bytes in the binary messages of a tunnel.
    pub fn into_stream(self) -> Tunnel {
        let socket = self.sender.0.reunite(self.receiver.0).unwrap();
        Tunnel { socket, rest: Bytes::new() }
    }
}

impl ClientSender {
    pub async fn send(&mut self, channel: u8, data: &[u8]) {
        self.send_raw([&[channel], data].concat()).await;
    }

    pub async fn send_raw(&mut self, message: Vec<u8>) {
        self.0.send(Message::Binary(message.into())).await.unwrap();
    }
}

impl ClientReceiver {
    pub async fn receive(&mut self) -> (u8, Bytes) {
        let message = self.0.next().await.expect("the connection stands").unwrap();
        let Message::Binary(mut data) = message else { panic!("{message:?}") };
        let rest = data.split_off(1);
        (data[0], rest)
    }
}

/// A tunnel as a stream of bytes.
pub struct Tunnel {
    socket: Socket,
    rest: Bytes,
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        while self.rest.is_empty() {
            match std::task::ready!(self.socket.poll_next_unpin(cx)) {
                Some(Ok(Message::Binary(data))) => self.rest = data,
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(std::io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let other = std::io::Error::other;
        std::task::ready!(self.socket.poll_ready_unpin(cx)).map_err(other)?;
        let message = Message::Binary(Bytes::copy_from_slice(data));
        self.socket.start_send_unpin(message).map_err(other)?;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.socket.poll_flush_unpin(cx).map_err(std::io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.socket.poll_close_unpin(cx).map_err(std::io::Error::other)
    }
}

async fn ask(front: &Front, path: &str, protocol: &str) -> Upstream {
    let io = TcpStream::connect(&front.address).await.unwrap();
    let request = Request::post(path)
        .header("host", &front.address)
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .header(PROTOCOL_HEADER, protocol)
        .body(http_body_util::Empty::new())
        .unwrap();
    streaming::request_upgrade(io, request).await.unwrap()
}

/// A client's SPDY connection.
pub async fn spdy(front: &Front, path: &str, protocol: &str) -> Box<dyn streaming::Io> {
    match ask(front, path, protocol).await {
        Upstream::Switched { head, io } => {
            assert_eq!(head.headers[PROTOCOL_HEADER], protocol);
            io
        }
        Upstream::Answered { head, body } => panic!("{head:?} {body:?}"),
    }
}

/// The status and body of an answer that is no upgrade.
pub async fn spdy_refused(front: &Front, path: &str, protocol: &str) -> (u16, String) {
    match ask(front, path, protocol).await {
        Upstream::Switched { .. } => panic!("it was accepted"),
        Upstream::Answered { head, body } => {
            (head.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
        }
    }
}
