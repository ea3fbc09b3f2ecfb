//! What containerd says of tasks as it happens: starts, exits, kills by the memory limit. With it a node need not poll.

use crate::cri::Client;
use crate::{Error, cri};
use std::path::Path;
use tokio::sync::mpsc;

/// Events not yet read; one above this is dropped with the stream, and the reader relists.
const BUFFER: usize = 1024;

/// One thing that happened to a container or sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskEvent {
    Started { container_id: String },
    Exited { container_id: String },
    OutOfMemory { container_id: String },
    ImagesChanged,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SubscribeRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Envelope {
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(string, tag = "3")]
    topic: String,
    #[prost(message, optional, tag = "4")]
    event: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// The common head of TaskStart, TaskExit and TaskOOM; `id` is the exec's id where TaskExit speaks of an exec.
#[derive(Clone, PartialEq, prost::Message)]
struct TaskHead {
    #[prost(string, tag = "1")]
    container_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TaskExit {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    id: String,
}

/// Subscribes to the events of CRI containers. The stream ends when containerd does; the caller subscribes again and
/// lists once, for what it missed.
pub async fn subscribe(socket: &Path) -> Result<mpsc::Receiver<TaskEvent>, Error> {
    let client: Client = cri::connect(socket);
    let mut grpc = tonic::client::Grpc::new(client.channel());
    grpc.ready().await.map_err(|error| Error::Unreachable(error.to_string()))?;
    let filters = ["/tasks/start", "/tasks/exit", "/tasks/oom", "/images/create", "/images/delete"]
        .map(|topic| format!("namespace==k8s.io,topic==\"{topic}\""))
        .to_vec();
    let codec = tonic_prost::ProstCodec::<SubscribeRequest, Envelope>::default();
    let path = http::uri::PathAndQuery::from_static("/containerd.services.events.v1.Events/Subscribe");
    let (sender, receiver) = mpsc::channel(BUFFER);
    // The server answers with its first event: the answer is awaited apart, and a call of ours behind the subscription
    // on the same connection tells that the server has it.
    tokio::spawn(async move {
        let request = tonic::Request::new(SubscribeRequest { filters });
        let mut stream = match grpc.server_streaming(request, path, codec).await {
            Ok(answer) => answer.into_inner(),
            Err(error) => return tracing::warn!(%error, "Failed to subscribe to containerd's events"),
        };
        while let Ok(Some(envelope)) = stream.message().await {
            let Some(event) = decode(&envelope) else { continue };
            if sender.try_send(event).is_err() {
                return;
            }
        }
    });
    tokio::task::yield_now().await;
    client.version(cri::messages::VersionRequest::default()).await?;
    Ok(receiver)
}

fn decode(envelope: &Envelope) -> Option<TaskEvent> {
    use prost::Message;
    let bytes = envelope.event.as_ref().map(|any| any.value.as_slice()).unwrap_or_default();
    match envelope.topic.as_str() {
        "/tasks/start" => {
            let head = TaskHead::decode(bytes).ok()?;
            Some(TaskEvent::Started { container_id: head.container_id })
        }
        "/tasks/exit" => {
            let exit = TaskExit::decode(bytes).ok()?;
            // An exec that ended changes nothing about its container.
            (exit.id == exit.container_id).then_some(TaskEvent::Exited { container_id: exit.container_id })
        }
        "/tasks/oom" => {
            let head = TaskHead::decode(bytes).ok()?;
            Some(TaskEvent::OutOfMemory { container_id: head.container_id })
        }
        _ => Some(TaskEvent::ImagesChanged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn an_execs_end_is_not_its_containers_end() {
        let envelope = |id: &str| Envelope {
            namespace: "k8s.io".into(),
            topic: "/tasks/exit".into(),
            event: Some(Any {
                type_url: "containerd.events.TaskExit".into(),
                value: TaskExit { container_id: "c".into(), id: id.into() }.encode_to_vec(),
            }),
        };
        assert_eq!(decode(&envelope("probe")), None);
        assert_eq!(decode(&envelope("c")), Some(TaskEvent::Exited { container_id: "c".into() }));
    }
}
