//! Decides that terminals and ports work end to end: real WebSocket and SPDY clients, through the bridge, to a
//! server that stands in for a kubelet.

mod fake;
mod kubectl;

use bytes::Bytes;
use fake::{Client, Front, Kind, front};
use streaming::spdy::{Connection, Headers};

const V5: &str = "v5.channel.k8s.io";

#[tokio::test]
async fn a_websocket_runs_a_command_with_input_and_exit_code() {
    let front = front(Kind::Exec).await;
    let mut client = Client::connect(&front, "/exec?stdin=true&stdout=true&stderr=true&exit=3", V5).await;
    assert_eq!(client.receive().await, (1, Bytes::new()), "the connection is announced");
    client.send(0, b"hello").await;
    assert_eq!(client.receive_all(1, 5).await, b"hello");
    client.send_raw(vec![255, 0]).await;
    // The stand-in says on its error output how its input ended, then exits.
    assert_eq!(client.receive_all(2, 12).await, b"input ended\n");
    let (channel, status) = client.receive().await;
    assert_eq!(channel, 3);
    expect_test::expect![[r#"{"details":{"causes":[{"message":"3","reason":"ExitCode"}]},"message":"command terminated with exit code 3","metadata":{},"reason":"NonZeroExitCode","status":"Failure"}"#]]
    .assert_eq(std::str::from_utf8(&status).unwrap());
    assert!(client.closed().await);
}

#[tokio::test]
async fn a_terminal_is_resized_and_has_no_error_output() {
    let front = front(Kind::Exec).await;
    let path = "/exec?stdin=true&stdout=true&stderr=true&tty=true";
    let mut client = Client::connect(&front, path, V5).await;
    client.receive().await;
    client.send(4, br#"{"Width":80,"Height":24}"#).await;
    assert_eq!(client.receive_all(1, 31).await, br#"resized {"Width":80,"Height":24}"#[..31]);
    client.send_raw(vec![255, 0]).await;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(channel, _)| *channel != 3) {
        seen.push(client.receive().await);
    }
    assert!(seen.iter().all(|(channel, _)| *channel != 2), "{seen:?}");
    assert_eq!(seen.last().unwrap().1, r#"{"metadata":{},"status":"Success"}"#);
}

#[tokio::test]
async fn much_data_goes_both_ways() {
    let front = front(Kind::Exec).await;
    let client = Client::connect(&front, "/exec?stdin=true&stdout=true", V5).await;
    let (mut sender, mut receiver) = client.split();
    let data: Vec<u8> = (0..4_000_000_u32).map(|number| (number % 251) as u8).collect();
    let writing = {
        let data = data.clone();
        tokio::spawn(async move {
            for piece in data.chunks(30_000) {
                sender.send(0, piece).await;
            }
            sender.send_raw(vec![255, 0]).await;
            sender
        })
    };
    let mut received = Vec::new();
    loop {
        match receiver.receive().await {
            (1, piece) => received.extend_from_slice(&piece),
            (3, status) => break assert_eq!(status, r#"{"metadata":{},"status":"Success"}"#),
            other => panic!("{other:?}"),
        }
    }
    assert!(received == data, "{} of {} bytes", received.len(), data.len());
    writing.await.unwrap();
}

#[tokio::test]
async fn the_text_protocol_speaks_base64() {
    let front = front(Kind::Exec).await;
    let path = "/exec?stdin=true&stdout=true";
    let mut client = Client::connect(&front, path, "v4.base64.channel.k8s.io").await;
    assert_eq!(client.receive_text().await, "1");
    client.send_text("0aGVsbG8=").await;
    assert_eq!(client.receive_text().await, "1aGVsbG8=");
}

#[tokio::test]
async fn a_refusal_behind_is_told_on_the_error_channel() {
    let front = front(Kind::Exec).await;
    let mut client = Client::connect(&front, "/refuse?stdout=true", V5).await;
    client.receive().await;
    let (channel, status) = client.receive().await;
    assert_eq!(channel, 3);
    let status = std::str::from_utf8(&status).unwrap();
    assert!(status.contains(r#""reason":"InternalError""#), "{status}");
    assert!(status.contains("unable to upgrade connection: container not found"), "{status}");
    assert!(client.closed().await);
}

#[tokio::test]
async fn an_unknown_subprotocol_is_refused() {
    let front = front(Kind::Exec).await;
    assert_eq!(Client::refused(&front, "/exec?stdout=true", "v9.channel.k8s.io").await, 403);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_command() {
    let mut front = front(Kind::Exec).await;
    let client = Client::connect(&front, "/exec?stdin=true&stdout=true", V5).await;
    let (mut sender, mut receiver) = client.split();
    receiver.receive().await;
    sender.send(0, b"x").await;
    assert_eq!(receiver.receive().await, (1, Bytes::from_static(b"x")));
    drop((sender, receiver));
    assert_eq!(front.ended().await, "lost", "the stand-in's input broke off");
}

#[tokio::test]
async fn ports_are_forwarded_through_a_websocket() {
    let front = front(Kind::PortForward).await;
    let client = Client::connect(&front, "/portforward", "SPDY/3.1+portforward.k8s.io").await;
    forward(Connection::client(client.into_stream())).await;
}

#[tokio::test]
async fn ports_are_forwarded_over_spdy() {
    let front = front(Kind::PortForward).await;
    forward(Connection::client(fake::spdy(&front, "/portforward", "portforward.k8s.io").await)).await;
}

/// Sends text through a port twice at the same time and expects it back in upper case.
async fn forward(connection: Connection) {
    let one = async |request: &str, text: &'static str| {
        let headers =
            |kind: &str| Headers::from([("streamType", kind), ("port", "80"), ("requestID", request)]);
        let error = connection.open(headers("error")).await.unwrap();
        let (mut read, mut write) = connection.open(headers("data")).await.unwrap().split();
        write.write(Bytes::from_static(text.as_bytes())).await.unwrap();
        write.finish().await.unwrap();
        let mut echoed = Vec::new();
        while let Some(data) = read.read().await.unwrap() {
            echoed.extend_from_slice(&data);
        }
        assert_eq!(echoed, text.to_uppercase().as_bytes());
        drop(error);
    };
    tokio::join!(one("0", "hello"), one("1", "world"));
}

#[tokio::test]
async fn a_command_runs_over_spdy() {
    let front = front(Kind::Exec).await;
    let io = fake::spdy(&front, "/exec?stdin=true&stdout=true", "v4.channel.k8s.io").await;
    let connection = Connection::client(io);
    let open = async |kind: &str| connection.open(Headers::from([("streamType", kind)])).await.unwrap();
    let (mut error, _) = open("error").await.split();
    let (_, mut stdin) = open("stdin").await.split();
    let (mut stdout, _) = open("stdout").await.split();
    stdin.write(Bytes::from_static(b"abc")).await.unwrap();
    assert_eq!(stdout.read().await.unwrap().unwrap(), "abc");
    stdin.finish().await.unwrap();
    assert_eq!(stdout.read().await.unwrap(), None);
    assert_eq!(error.read().await.unwrap().unwrap(), r#"{"metadata":{},"status":"Success"}"#);
}

#[tokio::test]
async fn an_answer_that_is_no_upgrade_is_passed_on() {
    let front: Front = front(Kind::PortForward).await;
    assert_eq!(Client::refused(&front, "/refuse", "SPDY/3.1+portforward.k8s.io").await, 404);
    let (status, body) = fake::spdy_refused(&front, "/refuse", "portforward.k8s.io").await;
    assert_eq!((status, body.as_str()), (404, "container not found\n"));
}
