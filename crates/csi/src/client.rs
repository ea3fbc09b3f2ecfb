//! Calls of a driver's node service, and of the registration service: one method per call, each with a deadline.

use crate::Error;
use crate::messages::*;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint, Uri};

/// Calls that only tell what the driver is; upstream's timeout for registration is ten seconds.
const READ: Duration = Duration::from_secs(10);
/// Calls that format and mount; upstream's timeout for CSI calls is two minutes.
const ACT: Duration = Duration::from_secs(120);
/// Messages are small; a driver that sends more is broken.
const MESSAGE_MAX: usize = 4 << 20;

/// A connection to one driver. Cheap to clone; reconnects by itself.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
}

/// Opens a lazy connection to a unix socket. The first call dials.
pub fn connect(socket: &Path) -> Client {
    let path = PathBuf::from(socket);
    let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(
        move |_: Uri| {
            let path = path.clone();
            async move {
                let stream = tokio::net::UnixStream::connect(path).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        },
    ));
    Client { channel }
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $response:ty = $path:literal, $timeout:expr;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                pub async fn $name(&self, request: $request) -> Result<$response, Error> {
                    self.unary($path, request, $timeout).await
                }
            )*
        }
    };
}

calls! {
    /// What plugin serves a socket in the registry.
    plugin_info(Empty) -> PluginInfo = "/pluginregistration.Registration/GetInfo", READ;
    /// Tells the plugin whether it was taken.
    notify_registration(RegistrationStatus) -> Empty = "/pluginregistration.Registration/NotifyRegistrationStatus", READ;
    node_info(Empty) -> NodeInfo = "/csi.v1.Node/NodeGetInfo", READ;
    node_capabilities(Empty) -> NodeCapabilities = "/csi.v1.Node/NodeGetCapabilities", READ;
    /// Makes a volume ready on the node, once for all pods.
    stage(NodeStageVolumeRequest) -> Empty = "/csi.v1.Node/NodeStageVolume", ACT;
    unstage(NodeUnstageVolumeRequest) -> Empty = "/csi.v1.Node/NodeUnstageVolume", ACT;
    /// Makes a volume appear for one pod.
    publish(NodePublishVolumeRequest) -> Empty = "/csi.v1.Node/NodePublishVolume", ACT;
    unpublish(NodeUnpublishVolumeRequest) -> Empty = "/csi.v1.Node/NodeUnpublishVolume", ACT;
    expand(NodeExpandVolumeRequest) -> NodeExpandVolumeResponse = "/csi.v1.Node/NodeExpandVolume", ACT;
}

impl Client {
    async fn unary<Q, A>(&self, path: &'static str, request: Q, timeout: Duration) -> Result<A, Error>
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX);
        let call = async {
            grpc.ready().await.map_err(|error| Error::Unreachable(error.to_string()))?;
            let codec = tonic_prost::ProstCodec::<Q, A>::default();
            let path = http::uri::PathAndQuery::from_static(path);
            let answer = grpc.unary(tonic::Request::new(request), path, codec).await.map_err(Error::from)?;
            Ok(answer.into_inner())
        };
        match tokio::time::timeout(timeout, call).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout { call: path, seconds: timeout.as_secs() }),
        }
    }
}
