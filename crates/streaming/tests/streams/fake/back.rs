//! Decides what stands in for a kubelet: commands that echo, ports that shout.

use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use streaming::spdy::{Connection, Stream};
use streaming::{PROTOCOL_HEADER, Response};
use tokio::sync::mpsc;

/// Answers a request for an upgrade to SPDY and serves it in the background.
pub fn answer(request: Request<Incoming>, ends: mpsc::UnboundedSender<&'static str>) -> Response {
    assert_eq!(request.method(), "POST");
    assert!(streaming::is_upgrade(&request, "SPDY/3.1"));
    if request.uri().path() == "/refuse" {
        let mut response = Response::new(Bytes::from_static(b"container not found\n").into());
        *response.status_mut() = http::StatusCode::NOT_FOUND;
        return response;
    }
    // The first that is known, as a kubelet chooses.
    let offered = request.headers().get_all(PROTOCOL_HEADER).iter();
    let known = |value: &&http::HeaderValue| *value == "v4.channel.k8s.io" || *value == "portforward.k8s.io";
    let protocol = offered.into_iter().find(known).expect("a known protocol is offered").clone();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let exec = request.uri().path().ends_with("/exec");
    tokio::spawn(async move {
        let io = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        let connection = Connection::server(io);
        if exec { command(connection, &query, ends).await } else { ports(connection).await }
    });
    let mut response = Response::default();
    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert("connection", "Upgrade".parse().unwrap());
    headers.insert("upgrade", "SPDY/3.1".parse().unwrap());
    headers.insert(PROTOCOL_HEADER, protocol);
    response
}

/// Echoes input to output, tells on its error output that the input ended and how the terminal was resized on
/// its output, then exits with what the query says.
async fn command(connection: Connection, query: &str, ends: mpsc::UnboundedSender<&'static str>) {
    let has = |name: &str| query.contains(&format!("{name}=true"));
    let tty = has("tty");
    let wanted = 1
        + usize::from(has("stdin"))
        + usize::from(has("stdout"))
        + usize::from(has("stderr") && !tty)
        + usize::from(tty);
    let (mut error, mut stdin, mut stdout, mut stderr, mut resize) = (None, None, None, None, None);
    let mut unused = Vec::new();
    for _ in 0..wanted {
        let stream = connection.accept().await.unwrap();
        match stream.headers.get("streamType").unwrap() {
            "error" => error = Some(stream),
            "stdin" => {
                let (reader, writer) = stream.split();
                stdin = Some(reader);
                // Dropped, it would end the input.
                unused.push(writer);
            }
            "stdout" => stdout = Some(stream.split().1),
            "stderr" => stderr = Some(stream.split().1),
            "resize" => resize = Some(stream.split().0),
            other => panic!("{other}"),
        }
    }
    let mut stdout = stdout.unwrap();
    if let Some(mut resize) = resize {
        let size = resize.read().await.unwrap().unwrap();
        stdout.write([b"resized ", &size[..]].concat().into()).await.unwrap();
    }
    if let Some(mut stdin) = stdin {
        loop {
            match stdin.read().await {
                Ok(Some(data)) => stdout.write(data).await.unwrap(),
                Ok(None) => break,
                Err(_) => {
                    ends.send("lost").unwrap();
                    return;
                }
            }
        }
    }
    if let Some(mut stderr) = stderr {
        stderr.write(Bytes::from_static(b"input ended\n")).await.unwrap();
        stderr.finish().await.unwrap();
    }
    stdout.finish().await.unwrap();
    let status = if query.contains("exit=3") || query.contains("exit%3D3") {
        r#"{"metadata":{},"status":"Failure","message":"command terminated with exit code 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#
    } else {
        r#"{"metadata":{},"status":"Success"}"#
    };
    let (_, mut error) = error.unwrap().split();
    error.write(Bytes::from_static(status.as_bytes())).await.unwrap();
    error.finish().await.unwrap();
    // The client closes.
    while connection.accept().await.is_some() {}
}

async fn ports(connection: Connection) {
    while let Some(stream) = connection.accept().await {
        if stream.headers.get("streamType") == Some("data") {
            assert_eq!(stream.headers.get("port"), Some("80"));
            tokio::spawn(shout(stream));
        }
    }
}

async fn shout(stream: Stream) {
    let (mut reader, mut writer) = stream.split();
    while let Ok(Some(data)) = reader.read().await {
        writer.write(data.to_ascii_uppercase().into()).await.unwrap();
    }
    writer.finish().await.unwrap();
}
