//! The server that end-to-end tests put into containers: HTTP and UDP echo on one port, and ways to misbehave.
//!
//! `/` names the pod, `/healthz` follows the file /tmp/unhealthy, `/unhealthy` and `/healthy` make and remove it,
//! `/slow?ms=N` answers late, `/exit?code=N` ends the process, `/env?NAME` tells a variable, `/get?HOST:PORT/PATH`
//! asks another server. SIGTERM: requests under way are answered, then the process ends with 0.
//! One port higher is gRPC's health service: "" serves always, "life" follows the file, others are unknown.

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

const UNHEALTHY: &str = "/tmp/unhealthy";
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_term(_: libc::c_int) {
    // Only what is safe in a signal handler: wait for what is under way, then end.
    for _ in 0..500 {
        if UNDER_WAY.load(Ordering::SeqCst) == 0 {
            break;
        }
        // SAFETY: usleep and _exit are async-signal-safe.
        unsafe { libc::usleep(10_000) };
    }
    unsafe { libc::_exit(0) };
}

fn main() {
    let port: u16 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(8080);
    let handler = on_term as extern "C" fn(libc::c_int);
    // SAFETY: the handler does only what a signal handler may.
    unsafe { libc::signal(libc::SIGTERM, handler as usize as libc::sighandler_t) };
    std::thread::spawn(move || udp(port));
    std::thread::spawn(move || grpc(port + 1));
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("the port is free in this pod");
    println!("listening on {port}");
    for stream in listener.incoming().flatten() {
        UNDER_WAY.fetch_add(1, Ordering::SeqCst);
        std::thread::spawn(move || {
            // A client that goes away is its own affair.
            let _ = serve(stream);
            UNDER_WAY.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn udp(port: u16) {
    let socket = UdpSocket::bind(("0.0.0.0", port)).expect("the port is free in this pod");
    let mut buffer = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let _ = socket.send_to(&buffer[..length], from);
    }
}

struct Life;

type Watched = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

#[tonic::async_trait]
impl Health for Life {
    type WatchStream = Watched;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = match request.into_inner().service.as_str() {
            "life" if std::path::Path::new(UNHEALTHY).exists() => ServingStatus::NotServing,
            "" | "life" => ServingStatus::Serving,
            _ => return Err(Status::not_found("unknown service")),
        };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Watched>, Status> {
        Err(Status::unimplemented("this server's health is only asked for"))
    }
}

fn grpc(port: u16) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let serve = async {
        let listener = tokio::net::TcpListener::bind(("0.0.0.0", port)).await?;
        loop {
            let connection = TokioIo::new(listener.accept().await?.0);
            let service = TowerToHyperService::new(HealthServer::new(Life));
            tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(connection, service));
        }
    };
    let served: std::io::Result<()> = runtime.expect("a pod may have a thread more").block_on(serve);
    served.expect("the port is free in this pod");
}

fn serve(stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let target = line.split(' ').nth(1).unwrap_or("/").to_string();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (code, body) = answer(path, query);
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {code} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())?;
    stream.flush()
}

fn answer(path: &str, query: &str) -> (u16, String) {
    match path {
        "/healthz" if std::path::Path::new(UNHEALTHY).exists() => (503, "unhealthy\n".into()),
        "/healthz" => (200, "ok\n".into()),
        "/unhealthy" => (200, format!("{:?}\n", std::fs::write(UNHEALTHY, b""))),
        "/healthy" => (200, format!("{:?}\n", std::fs::remove_file(UNHEALTHY))),
        "/slow" => {
            let ms = query.strip_prefix("ms=").and_then(|text| text.parse().ok()).unwrap_or(100);
            std::thread::sleep(Duration::from_millis(ms));
            (200, "late\n".into())
        }
        "/exit" => {
            std::process::exit(query.strip_prefix("code=").and_then(|text| text.parse().ok()).unwrap_or(1))
        }
        "/env" => (200, std::env::var(query).unwrap_or_default() + "\n"),
        "/get" => get(query).map_or_else(|error| (502, format!("{error}\n")), |body| (200, body)),
        "/" => (200, std::fs::read_to_string("/etc/hostname").unwrap_or_default()),
        _ => (404, "no such path\n".into()),
    }
}

/// The answer of another server, with its headers.
fn get(url: &str) -> std::io::Result<String> {
    let (host, path) = url.split_once('/').unwrap_or((url, ""));
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.split_once("\r\n\r\n").map_or(text.clone(), |(_, body)| body.to_string()))
}
