//! Decides how the tests' stand-ins behave: a front that serves clients with the crate, a back that stands in
//! for a kubelet, and clients.

mod back;
mod clients;

use std::convert::Infallible;
use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use streaming::{Connect, Upstream, portforward, remotecommand};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

pub use clients::{Client, spdy, spdy_refused};

/// What a front serves.
#[derive(Clone, Copy)]
pub enum Kind {
    Exec,
    PortForward,
    /// As much of an API server as kubectl needs to reach a pod named `p`.
    Api,
}

const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","namespace":"default"},"spec":{"containers":[{"name":"c","image":"i","stdin":true,"tty":false}]},"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;

/// Answers what kubectl asks for before it opens a stream.
fn api(path: &str) -> streaming::Response {
    let body = match path {
        "/api" => r#"{"kind":"APIVersions","versions":["v1"]}"#,
        "/apis" => r#"{"kind":"APIGroupList","apiVersion":"v1","groups":[]}"#,
        "/api/v1" => {
            r#"{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"pods","singularName":"pod","namespaced":true,"kind":"Pod","verbs":["get","list"]}]}"#
        }
        path if path.ends_with("/pods/p") => POD,
        _ => "{}",
    };
    let mut response = streaming::Response::new(body.into());
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

/// A running front.
pub struct Front {
    pub address: String,
    ended: mpsc::UnboundedReceiver<&'static str>,
}

impl Front {
    /// How the next command behind ended.
    pub async fn ended(&mut self) -> &'static str {
        let ended = tokio::time::timeout(std::time::Duration::from_secs(30), self.ended.recv());
        ended.await.expect("the command ends").expect("the back runs")
    }
}

/// Starts a front of its own on a free port, with a back behind it. They end with the test's runtime.
pub async fn front(kind: Kind) -> Front {
    let (ends, ended) = mpsc::unbounded_channel();
    let back = serve(move |request| {
        let ends = ends.clone();
        async move { back::answer(request, ends) }
    })
    .await;
    let back = Arc::new(back);
    let address = serve(move |request: Request<Incoming>| {
        let back = back.clone();
        async move {
            let path = request.uri().to_string();
            let connect: Connect = Box::new(move |headers| Box::pin(reach(back.to_string(), path, headers)));
            let kind = match (kind, request.uri().path()) {
                (Kind::Api, path) if path.ends_with("/exec") => Kind::Exec,
                (Kind::Api, path) if path.ends_with("/portforward") => Kind::PortForward,
                (kind, _) => kind,
            };
            match kind {
                Kind::Api => api(request.uri().path()),
                Kind::Exec => {
                    let streams =
                        remotecommand::Streams::from_query(request.uri().query().unwrap_or_default());
                    remotecommand::serve(request, streams, connect).await
                }
                Kind::PortForward => portforward::serve(request, connect).await,
            }
        }
    })
    .await;
    Front { address, ended }
}

async fn reach(back: String, path: String, headers: http::HeaderMap) -> Result<Upstream, streaming::Error> {
    let io = TcpStream::connect(&back).await.unwrap();
    let mut request = Request::post(path).header("host", back).body(http_body_util::Empty::new()).unwrap();
    request.headers_mut().extend(headers);
    streaming::request_upgrade(io, request).await
}

async fn serve<F, A>(answer: F) -> String
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = streaming::Response> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .with_upgrades();
            tokio::spawn(connection);
        }
    });
    address
}
