//! Decides how exec and attach are served: a client's SPDY/3.1 connection is passed through; a WebSocket with
//! channels is translated to SPDY streams, with the command's end as a Status on the error channel.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::OptionFuture;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::channels::{self, ERROR, Heard, Protocol, RESIZE, STDERR, STDIN, STDOUT, Said};
use crate::spdy::{Connection, Headers, Stream, StreamReader, StreamWriter};
use crate::upgrade::{self, spdy_headers};
use crate::{Connect, Error, PROTOCOL_HEADER, Response, Upstream, plain, proxy, websocket};

/// What is spoken with the server behind: its error stream carries a Status.
const UPSTREAM_PROTOCOL: &str = "v4.channel.k8s.io";
/// The most bytes taken from the error stream.
const MAX_STATUS: usize = 64 << 10;
/// A connection on which nothing was said for this long is ended: upstream's limit.
const IDLE: Duration = Duration::from_secs(4 * 60 * 60);

/// Which streams a command has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// The client's input goes to the command.
    pub stdin: bool,
    /// The command's output goes to the client.
    pub stdout: bool,
    /// The command's error output goes to the client; with a terminal it is part of the output.
    pub stderr: bool,
    /// The command runs in a terminal, which can be resized.
    pub tty: bool,
}

impl Streams {
    /// Reads the parameters of `PodExecOptions` and `PodAttachOptions` from a query.
    #[must_use]
    pub fn from_query(query: &str) -> Streams {
        let set = |name: &str| {
            let value =
                query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
            value.is_some_and(|(_, value)| matches!(value, "true" | "1"))
        };
        Streams { stdin: set("stdin"), stdout: set("stdout"), stderr: set("stderr"), tty: set("tty") }
    }
}

/// Serves a request to run a command in a container or to attach to it. `connect` reaches the server behind by
/// `POST`; for a WebSocket it is called after the client has been answered, and a failure is told as a Status on
/// the error channel, as upstream does.
pub async fn serve<B>(request: Request<B>, streams: Streams, connect: Connect) -> Response
where
    B: Send + 'static,
{
    if !upgrade::is_upgrade(&request, "websocket") {
        return proxy(request, connect).await;
    }
    let Some(protocol) = channels::choose(&websocket::offered(request.headers())) else {
        return plain(StatusCode::FORBIDDEN, "the requested WebSocket subprotocols are not supported");
    };
    let response = match websocket::accept(request.headers(), Some(protocol.name)) {
        Ok(response) => response,
        Err(refusal) => return *refusal,
    };
    tokio::spawn(async move {
        match websocket::upgraded(request).await {
            Ok((sender, receiver)) => bridge(sender, receiver, protocol, streams, connect).await,
            Err(error) => tracing::debug!(%error, "a client did not follow its upgrade"),
        }
    });
    response
}

/// The client's side, shared by the streams that write to it.
struct Client {
    sender: Mutex<websocket::Sender>,
    protocol: Protocol,
    /// Something was said since the last look.
    active: AtomicBool,
}

impl Client {
    async fn say(&self, channel: u8, data: &[u8]) -> Result<(), Error> {
        self.active.store(true, Ordering::Relaxed);
        let mut sender = self.sender.lock().await;
        match self.protocol.say(channel, data) {
            Said::Binary(message) => sender.send(message).await,
            Said::Text(text) => sender.send_text(text).await,
        }
    }

    /// Ends when nothing has been said for long.
    async fn idle(&self) {
        while self.active.swap(false, Ordering::Relaxed) {
            tokio::time::sleep(IDLE).await;
        }
    }
}

async fn bridge(
    sender: websocket::Sender,
    receiver: websocket::Receiver,
    protocol: Protocol,
    streams: Streams,
    connect: Connect,
) {
    let client = Client { sender: Mutex::new(sender), protocol, active: AtomicBool::new(true) };
    // An empty message tells the client that the connection stands.
    let first = match streams {
        Streams { stdout: true, .. } => STDOUT,
        Streams { stderr: true, .. } => STDERR,
        _ => ERROR,
    };
    if client.say(first, b"").await.is_err() {
        return;
    }
    let status = tokio::select! {
        status = run(&client, receiver, streams, connect) => status,
        () = client.idle() => Some(internal_error("the connection was idle for too long")),
    };
    if let Some(status) = status {
        let text = match (protocol.status, status["status"] == "Success") {
            (true, _) => Some(status.to_string()),
            (false, false) => Some(status["message"].as_str().unwrap_or_default().to_owned()),
            (false, true) => None,
        };
        if let Some(text) = text {
            let _ = client.say(ERROR, text.as_bytes()).await;
        }
    }
    client.sender.lock().await.close().await;
}

/// Runs the command; answers the Status to end with, or nothing if the client is gone.
async fn run(
    client: &Client,
    receiver: websocket::Receiver,
    streams: Streams,
    connect: Connect,
) -> Option<Value> {
    let remote = match Remote::open(streams, connect).await {
        Ok(remote) => remote,
        Err(error) => return Some(internal_error(&error.to_string())),
    };
    let Remote { connection, error, stdin, stdout, stderr, resize } = remote;
    let (closed, stdin) = stdin.map(Stream::split).unzip();
    let (_ignored, resize) = resize.map(Stream::split).unzip();
    let output = async {
        let stdout = OptionFuture::from(stdout.map(|stream| copy(client, STDOUT, stream)));
        let stderr = OptionFuture::from(stderr.map(|stream| copy(client, STDERR, stream)));
        let (stdout, stderr) = tokio::join!(stdout, stderr);
        if stdout.or(stderr).is_some_and(|copied| copied.is_err()) {
            return None;
        }
        Some(read_status(error).await)
    };
    let status = tokio::select! {
        status = output => status,
        () = listen(client, receiver, closed, stdin, resize) => None,
    };
    drop(connection);
    status
}

/// Waits for the server to end the input; without input, for ever.
async fn ended(stdin: Option<StreamReader>) {
    let Some(mut stdin) = stdin else { return std::future::pending().await };
    while let Ok(Some(_)) = stdin.read().await {}
}

/// Copies a stream to a channel until it ends.
async fn copy(client: &Client, channel: u8, stream: Stream) -> Result<(), Error> {
    let (mut reader, _writer) = stream.split();
    // A lost connection shows on the error stream too, which says what to tell the client.
    while let Ok(Some(data)) = reader.read().await {
        client.say(channel, &data).await?;
    }
    Ok(())
}

/// Passes on what the client says until it is gone. Input that the server has ended goes nowhere.
async fn listen(
    client: &Client,
    mut receiver: websocket::Receiver,
    closed: Option<StreamReader>,
    mut stdin: Option<StreamWriter>,
    mut resize: Option<StreamWriter>,
) {
    let mut closed = std::pin::pin!(ended(closed));
    loop {
        let message = tokio::select! {
            message = receiver.receive() => message,
            () = &mut closed, if stdin.is_some() => {
                close(&mut stdin).await;
                continue;
            }
        };
        let Some(message) = message else { return };
        client.active.store(true, Ordering::Relaxed);
        let heard = match client.protocol.hear(message) {
            Ok(heard) => heard,
            Err(error) => {
                tracing::debug!(error, "a client broke the channel protocol");
                return;
            }
        };
        match heard {
            Heard::Data(STDIN, data) => pass(&mut stdin, data).await,
            Heard::Data(RESIZE, data) => pass(&mut resize, data).await,
            Heard::Close(STDIN) => close(&mut stdin).await,
            Heard::Close(RESIZE) => close(&mut resize).await,
            Heard::Data(..) | Heard::Close(_) | Heard::Nothing => {}
        }
    }
}

async fn pass(writer: &mut Option<StreamWriter>, data: Bytes) {
    if let Some(open) = writer
        && open.write(data).await.is_err()
    {
        *writer = None;
    }
}

async fn close(writer: &mut Option<StreamWriter>) {
    if let Some(open) = writer.take() {
        let _ = open.finish().await;
    }
}

/// The streams to the server behind.
struct Remote {
    connection: Connection,
    error: Stream,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

impl Remote {
    async fn open(streams: Streams, connect: Connect) -> Result<Remote, Error> {
        let io = match connect(spdy_headers([UPSTREAM_PROTOCOL])).await? {
            Upstream::Switched { head, io } => {
                let chosen = head.headers.get(PROTOCOL_HEADER).and_then(|value| value.to_str().ok());
                if chosen.map(str::trim) != Some(UPSTREAM_PROTOCOL) {
                    let chosen = chosen.unwrap_or("none");
                    return Err(Error::Refused(format!("the server chose the stream protocol {chosen}")));
                }
                io
            }
            Upstream::Answered { body, .. } => return Err(Error::Refused(refusal(&body))),
        };
        let connection = Connection::client(io);
        // Upstream's order; the server waits for all before it starts the command.
        let open = |wanted: bool, kind: &'static str| {
            let opening = wanted.then(|| connection.open(Headers::from([("streamType", kind)])));
            async move { OptionFuture::from(opening).await.transpose() }
        };
        let error = connection.open(Headers::from([("streamType", "error")])).await?;
        let stdin = open(streams.stdin, "stdin").await?;
        let stdout = open(streams.stdout, "stdout").await?;
        let stderr = open(streams.stderr && !streams.tty, "stderr").await?;
        let resize = open(streams.tty, "resize").await?;
        Ok(Remote { connection, error, stdin, stdout, stderr, resize })
    }
}

/// What a server said instead of switching protocols: the message of a Status, or plain text.
fn refusal(body: &[u8]) -> String {
    if let Ok(status) = serde_json::from_slice::<Value>(body)
        && status["kind"] == "Status"
        && let Some(message) = status["message"].as_str()
    {
        return message.to_owned();
    }
    format!("unable to upgrade connection: {}", String::from_utf8_lossy(body).trim())
}

/// Reads the error stream to its end: the Status of the command.
async fn read_status(stream: Stream) -> Value {
    let (mut reader, _writer) = stream.split();
    let mut text = BytesMut::new();
    loop {
        match reader.read().await {
            Ok(Some(data)) if text.len() + data.len() <= MAX_STATUS => text.extend_from_slice(&data),
            Ok(Some(_)) => return internal_error("the command's status is too large"),
            Ok(None) => return status(&text),
            // The server closes the connection right after the status.
            Err(_) if !text.is_empty() => return status(&text),
            Err(error) => return internal_error(&error.to_string()),
        }
    }
}

/// The Status to tell the client: success and exit codes as they came, all else as an internal error, which is
/// what upstream's API server makes of it.
fn status(text: &[u8]) -> Value {
    if text.is_empty() {
        return json!({"metadata": {}, "status": "Success"});
    }
    let Ok(status) = serde_json::from_slice::<Value>(text) else {
        let text = String::from_utf8_lossy(text);
        return internal_error(&format!("error stream protocol error: unexpected status {text:?}"));
    };
    match (status["status"].as_str(), status["reason"].as_str()) {
        (Some("Success"), _) => json!({"metadata": {}, "status": "Success"}),
        (Some("Failure"), Some("NonZeroExitCode")) => status,
        (Some("Failure"), _) => internal_error(status["message"].as_str().unwrap_or_default()),
        _ => internal_error("error stream protocol error: unknown error"),
    }
}

fn internal_error(message: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {message}"),
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_command_is_told_as_upstream_does() {
        let told = |text: &str| status(text.as_bytes()).to_string();
        expect_test::expect![[r#"
            {"metadata":{},"status":"Success"}
            {"metadata":{},"status":"Success"}
            {"code":500,"details":{"causes":[{"message":"no such file"}]},"message":"Internal error occurred: no such file","metadata":{},"reason":"InternalError","status":"Failure"}
            {"code":500,"details":{"causes":[{"message":"error stream protocol error: unexpected status \"oops\""}]},"message":"Internal error occurred: error stream protocol error: unexpected status \"oops\"","metadata":{},"reason":"InternalError","status":"Failure"}"#]]
        .assert_eq(
            &[
                told(""),
                told(r#"{"metadata":{},"status":"Success"}"#),
                told(r#"{"status":"Failure","message":"no such file"}"#),
                told("oops"),
            ]
            .join("\n"),
        );
        let exit = r#"{"details":{"causes":[{"message":"3","reason":"ExitCode"}]},"message":"m","reason":"NonZeroExitCode","status":"Failure"}"#;
        assert_eq!(told(exit), exit);
    }

    #[test]
    fn a_refusal_is_told_in_the_server_s_words() {
        assert_eq!(
            refusal(b"container not found (\"a\")\n"),
            "unable to upgrade connection: container not found (\"a\")"
        );
        let status = br#"{"kind":"Status","message":"pods \"a\" not found","code":404}"#;
        assert_eq!(refusal(status), "pods \"a\" not found");
    }

    #[test]
    fn streams_are_read_from_a_query() {
        let streams = Streams::from_query("command=sh&stdin=true&stdout=1&tty=false&stderr=");
        assert_eq!(streams, Streams { stdin: true, stdout: true, stderr: false, tty: false });
    }
}
