//! Calls of the runtime and image services: one method per call, each with a deadline of its own.

use super::messages::*;
use crate::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint, Uri};

/// Calls that only read the runtime's memory.
const READ: Duration = Duration::from_secs(30);
/// Calls that start or stop processes; upstream's runtime request timeout is two minutes, four for sandboxes.
const ACT: Duration = Duration::from_secs(240);
/// A pull may take long on a thin line; upstream bounds it by lack of progress only, in the runtime.
const PULL: Duration = Duration::from_secs(3600);
/// Answers carry lists of containers and images: 16 MiB, as upstream's client.
const MESSAGE_MAX: usize = 16 << 20;

/// A connection to one runtime. Cheap to clone; reconnects by itself.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
}

/// Opens a lazy connection to a unix socket: `/path` or `unix:///path`. The first call dials.
pub fn connect(socket: &Path) -> Client {
    let text = socket.to_string_lossy();
    let path = PathBuf::from(text.strip_prefix("unix://").unwrap_or(&text));
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
    version(VersionRequest) -> VersionResponse = "/runtime.v1.RuntimeService/Version", READ;
    status(StatusRequest) -> StatusResponse = "/runtime.v1.RuntimeService/Status", READ;
    update_runtime_config(UpdateRuntimeConfigRequest) -> Empty = "/runtime.v1.RuntimeService/UpdateRuntimeConfig", READ;
    run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse = "/runtime.v1.RuntimeService/RunPodSandbox", ACT;
    /// Kills what still runs in it and takes its network down; safe to repeat.
    stop_pod_sandbox(PodSandboxIdRequest) -> Empty = "/runtime.v1.RuntimeService/StopPodSandbox", ACT;
    remove_pod_sandbox(PodSandboxIdRequest) -> Empty = "/runtime.v1.RuntimeService/RemovePodSandbox", ACT;
    pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse = "/runtime.v1.RuntimeService/PodSandboxStatus", READ;
    list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse = "/runtime.v1.RuntimeService/ListPodSandbox", READ;
    create_container(CreateContainerRequest) -> CreateContainerResponse = "/runtime.v1.RuntimeService/CreateContainer", ACT;
    start_container(ContainerIdRequest) -> Empty = "/runtime.v1.RuntimeService/StartContainer", ACT;
    remove_container(ContainerIdRequest) -> Empty = "/runtime.v1.RuntimeService/RemoveContainer", ACT;
    list_containers(ListContainersRequest) -> ListContainersResponse = "/runtime.v1.RuntimeService/ListContainers", READ;
    container_status(ContainerStatusRequest) -> ContainerStatusResponse = "/runtime.v1.RuntimeService/ContainerStatus", READ;
    update_container_resources(UpdateContainerResourcesRequest) -> Empty = "/runtime.v1.RuntimeService/UpdateContainerResources", READ;
    reopen_container_log(ContainerIdRequest) -> Empty = "/runtime.v1.RuntimeService/ReopenContainerLog", READ;
    /// Gives a URL on the runtime's own streaming server; so do `attach` and `port_forward`.
    exec(ExecRequest) -> UrlResponse = "/runtime.v1.RuntimeService/Exec", READ;
    attach(AttachRequest) -> UrlResponse = "/runtime.v1.RuntimeService/Attach", READ;
    port_forward(PortForwardRequest) -> UrlResponse = "/runtime.v1.RuntimeService/PortForward", READ;
    list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse = "/runtime.v1.RuntimeService/ListContainerStats", READ;
    list_images(ListImagesRequest) -> ListImagesResponse = "/runtime.v1.ImageService/ListImages", READ;
    image_status(ImageStatusRequest) -> ImageStatusResponse = "/runtime.v1.ImageService/ImageStatus", READ;
    pull_image(PullImageRequest) -> PullImageResponse = "/runtime.v1.ImageService/PullImage", PULL;
    remove_image(RemoveImageRequest) -> Empty = "/runtime.v1.ImageService/RemoveImage", ACT;
    image_fs_info(Empty) -> ImageFsInfoResponse = "/runtime.v1.ImageService/ImageFsInfo", READ;
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
            grpc.ready().await.map_err(|error| Error::Unreachable(chain(&error)))?;
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

    /// Stops a container: its stop signal, then SIGKILL after `grace_seconds`. Waits for the end.
    pub async fn stop_container(&self, id: &str, grace_seconds: i64) -> Result<(), Error> {
        let request = StopContainerRequest { container_id: id.into(), timeout: grace_seconds };
        let timeout = ACT + Duration::from_secs(grace_seconds.max(0).unsigned_abs());
        self.unary::<_, Empty>("/runtime.v1.RuntimeService/StopContainer", request, timeout).await.map(drop)
    }

    /// Runs a command to its end, at most `timeout` (zero: no limit but the runtime's).
    pub async fn exec_sync(
        &self,
        id: &str,
        cmd: Vec<String>,
        timeout: Duration,
    ) -> Result<ExecSyncResponse, Error> {
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        let request = ExecSyncRequest { container_id: id.into(), cmd, timeout: seconds };
        let wait = if timeout.is_zero() { ACT } else { timeout + Duration::from_secs(5) };
        self.unary("/runtime.v1.RuntimeService/ExecSync", request, wait).await
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

/// The words of an error and of what caused it, once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}
