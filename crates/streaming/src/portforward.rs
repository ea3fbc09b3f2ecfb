//! Decides how ports are forwarded: a client's SPDY/3.1 connection is passed through, or carried as the binary
//! messages of a WebSocket.

use bytes::BytesMut;
use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::upgrade::{self, answer, spdy_headers};
use crate::{Connect, Io, PROTOCOL_HEADER, Response, Upstream, plain, proxy, websocket};

/// What stands before the name of the protocol that is spoken over SPDY inside a WebSocket.
const TUNNEL: &str = "SPDY/3.1+";
/// How much of the tunnel is read at a time.
const COPY: usize = 32 << 10;

/// Serves a request to forward ports of a pod. `connect` reaches the server behind by `POST`.
pub async fn serve<B>(request: Request<B>, connect: Connect) -> Response
where
    B: Send + 'static,
{
    if !upgrade::is_upgrade(&request, "websocket") {
        return proxy(request, connect).await;
    }
    let offered = websocket::offered(request.headers());
    let tunnelled =
        |name: &String| name.strip_prefix(TUNNEL).filter(|name| name.ends_with(".k8s.io")).map(str::to_owned);
    let protocols: Vec<String> = offered.iter().filter_map(tunnelled).collect();
    if protocols.is_empty() {
        return plain(StatusCode::BAD_REQUEST, "unable to upgrade: no tunneling spdy protocols provided");
    }
    let headers = spdy_headers(protocols.iter().map(String::as_str));
    let (head, io) = match connect(headers).await {
        Ok(Upstream::Switched { head, io }) => (head, io),
        Ok(Upstream::Answered { head, body }) => return answer(head, body),
        Err(error) => return plain(StatusCode::BAD_GATEWAY, &error.to_string()),
    };
    if !upgrade::asks_for(&head.headers, "SPDY/3.1") {
        let text = "unable to upgrade: missing upgrade headers in response";
        return plain(StatusCode::INTERNAL_SERVER_ERROR, text);
    }
    let chosen = head.headers.get(PROTOCOL_HEADER).and_then(|value| value.to_str().ok());
    let chosen = chosen.map(|protocol| format!("{TUNNEL}{}", protocol.trim()));
    // A client that did not offer what the server chose must not be told that it did.
    let chosen = chosen.filter(|protocol| offered.contains(protocol));
    let response = match websocket::accept(request.headers(), chosen.as_deref()) {
        Ok(response) => response,
        Err(refusal) => return *refusal,
    };
    tokio::spawn(async move {
        match websocket::upgraded(request).await {
            Ok((sender, receiver)) => tunnel(sender, receiver, io).await,
            Err(error) => tracing::debug!(%error, "a client did not follow its upgrade"),
        }
    });
    response
}

/// Carries bytes between messages and a connection until one side ends.
async fn tunnel(mut sender: websocket::Sender, mut receiver: websocket::Receiver, io: Box<dyn Io>) {
    let (mut read, mut write) = tokio::io::split(io);
    let up = async {
        while let Some(data) = receiver.receive().await {
            if write.write_all(&data).await.is_err() || write.flush().await.is_err() {
                break;
            }
        }
        let _ = write.shutdown().await;
    };
    let down = async {
        let mut bytes = BytesMut::with_capacity(COPY);
        while let Ok(length) = read.read_buf(&mut bytes).await {
            if length == 0 || sender.send(bytes.split().to_vec()).await.is_err() {
                break;
            }
            bytes.reserve(COPY);
        }
        sender.close().await;
    };
    // SPDY says for itself when it ends: as soon as one side has nothing more, the other cannot go on.
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_websocket_without_a_tunnel_is_refused() {
        let request = Request::builder()
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-protocol", "v4.channel.k8s.io")
            .body(())
            .unwrap();
        let connect: Connect = Box::new(|_| Box::pin(async { panic!("nothing is to be reached") }));
        assert_eq!(serve(request, connect).await.status(), StatusCode::BAD_REQUEST);
    }
}
