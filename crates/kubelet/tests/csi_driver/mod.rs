//! A storage driver small enough for a test: it stages a folder with one file, and publishes it by bind mounts.
//!
//! gRPC is spoken by hand over HTTP/2: a message with its length before it, and the status in the trailers.

use bytes::Bytes;
use csi::messages::*;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use prost::Message;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub const NAME: &str = "csi.timonel.test";

/// What was asked of the driver, in order: the call's name, and what matters of it.
#[derive(Clone, Default)]
pub struct Calls(Arc<Mutex<Vec<String>>>);

impl Calls {
    fn note(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Serves the driver and its registration at one socket until dropped with its runtime.
pub fn start(socket: PathBuf, calls: Calls) {
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let calls = calls.clone();
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request| serve(request, calls.clone()));
                let io = hyper_util::rt::TokioIo::new(stream);
                let _ = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                    .serve_connection(io, service)
                    .await;
            });
        }
    });
}

async fn serve(
    request: Request<Incoming>,
    calls: Calls,
) -> Result<Response<StreamBody<impl futures::Stream<Item = Result<Frame<Bytes>, Infallible>>>>, Infallible> {
    let path = request.uri().path().to_string();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let message = body.slice(5.min(body.len())..);
    let answer = answer(&path, message, &calls);
    let mut frames = Vec::new();
    let mut trailers = hyper::HeaderMap::new();
    match answer {
        Ok(bytes) => {
            let mut framed = vec![0];
            framed.extend((bytes.len() as u32).to_be_bytes());
            framed.extend(bytes);
            frames.push(Ok(Frame::data(Bytes::from(framed))));
            trailers.insert("grpc-status", "0".parse().unwrap());
        }
        Err(words) => {
            trailers.insert("grpc-status", "13".parse().unwrap());
            trailers.insert("grpc-message", words.parse().unwrap());
        }
    }
    frames.push(Ok(Frame::trailers(trailers)));
    let body = StreamBody::new(futures::stream::iter(frames));
    Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
}

fn answer(path: &str, message: Bytes, calls: &Calls) -> Result<Vec<u8>, String> {
    let empty = Empty {}.encode_to_vec();
    match path {
        "/pluginregistration.Registration/GetInfo" => Ok(PluginInfo {
            kind: CSI_PLUGIN.into(),
            name: NAME.into(),
            endpoint: String::new(),
            supported_versions: vec!["1.0.0".into()],
        }
        .encode_to_vec()),
        "/pluginregistration.Registration/NotifyRegistrationStatus" => {
            let status = RegistrationStatus::decode(message).map_err(|error| error.to_string())?;
            calls.note(format!("registered {}", status.plugin_registered));
            Ok(empty)
        }
        "/csi.v1.Node/NodeGetInfo" => Ok(NodeInfo {
            node_id: "node-7".into(),
            max_volumes_per_node: 5,
            accessible_topology: Some(Topology {
                segments: [("timonel.test/rack".into(), "r1".into())].into(),
            }),
        }
        .encode_to_vec()),
        "/csi.v1.Node/NodeGetCapabilities" => {
            let rpc = Some(Rpc { kind: capability::STAGE_UNSTAGE_VOLUME });
            Ok(NodeCapabilities { capabilities: vec![NodeServiceCapability { rpc }] }.encode_to_vec())
        }
        "/csi.v1.Node/NodeStageVolume" => {
            let request = NodeStageVolumeRequest::decode(message).map_err(|error| error.to_string())?;
            calls.note(format!("stage {} {:?}", request.volume_id, request.volume_context));
            let file = Path::new(&request.staging_target_path).join("staged");
            std::fs::write(file, "from the driver\n").map_err(|error| error.to_string())?;
            Ok(empty)
        }
        "/csi.v1.Node/NodePublishVolume" => publish(message, calls).map(|()| empty),
        "/csi.v1.Node/NodeUnpublishVolume" => {
            let request = NodeUnpublishVolumeRequest::decode(message).map_err(|error| error.to_string())?;
            calls.note("unpublish".into());
            let _ = umount2(request.target_path.as_str(), MntFlags::MNT_DETACH);
            let _ = std::fs::remove_dir(&request.target_path);
            Ok(empty)
        }
        "/csi.v1.Node/NodeUnstageVolume" => {
            let request = NodeUnstageVolumeRequest::decode(message).map_err(|error| error.to_string())?;
            calls.note(format!("unstage {}", request.volume_id));
            std::fs::remove_file(Path::new(&request.staging_target_path).join("staged"))
                .map_err(|error| error.to_string())?;
            Ok(empty)
        }
        other => Err(format!("{other} is not served")),
    }
}

fn publish(message: Bytes, calls: &Calls) -> Result<(), String> {
    let request = NodePublishVolumeRequest::decode(message).map_err(|error| error.to_string())?;
    let inline = request.staging_target_path.is_empty();
    let name = |key: &str| request.volume_context.get(key).cloned().unwrap_or_default();
    calls.note(format!(
        "publish inline={inline} pod={} readonly={}",
        name("csi.storage.k8s.io/pod.name"),
        request.readonly
    ));
    std::fs::create_dir_all(&request.target_path).map_err(|error| error.to_string())?;
    let mounted = if inline {
        mount(Some("tmpfs"), request.target_path.as_str(), Some("tmpfs"), MsFlags::empty(), None::<&str>)
    } else {
        let from = request.staging_target_path.as_str();
        mount(Some(from), request.target_path.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
    };
    mounted.map_err(|error| error.to_string())
}
