//! Writes core/v1 Events about objects, in the background: a component never waits for one.

use crate::correlator::{Correlator, Verdict};
use crate::{Client, Error, Patch, PatchOptions};
use api::Object;
use api::core::v1::{Event, EventSource, ObjectReference};
use jiff::Timestamp;
use meta::{ObjectKey, Time};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Events that wait to be written; beyond that they are dropped, as upstream does.
const QUEUE: usize = 1000;
/// How often one write is tried, and the wait between tries.
const TRIES_MAX: u32 = 12;
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// The longest message that the API takes.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Whether an event tells of something that should be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// Takes events and writes them as they come. Cloning shares the queue.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Event>,
    source: EventSource,
}

impl Recorder {
    /// Starts a recorder that speaks as this component, on this host ("" where that says nothing).
    pub fn start(client: Client, component: &str, host: &str, token: CancellationToken) -> Self {
        let (queue, events) = mpsc::channel(QUEUE);
        tokio::spawn(write(client, events, token));
        Recorder { queue, source: EventSource { component: component.into(), host: host.into() } }
    }

    /// The same queue under another component's name.
    pub fn for_component(&self, component: &str) -> Self {
        Recorder {
            queue: self.queue.clone(),
            source: EventSource { component: component.into(), host: self.source.host.clone() },
        }
    }

    /// Records an event about an object.
    pub fn event(&self, about: &dyn Object, kind: EventType, reason: &str, message: &str) {
        self.event_about(reference(about), kind, reason, message);
    }

    /// Records an event about what a reference names, such as one container of a pod.
    pub fn event_about(&self, about: ObjectReference, kind: EventType, reason: &str, message: &str) {
        let now = Timestamp::now();
        let time = Time::truncated(now);
        let mut event = Event {
            reason: reason.into(),
            message: cut(message).into(),
            source: self.source.clone(),
            first_timestamp: time,
            last_timestamp: time,
            count: 1,
            r#type: kind.as_str().into(),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            ..Event::default()
        };
        event.metadata.namespace =
            if about.namespace.is_empty() { "default".into() } else { about.namespace.clone() };
        event.metadata.name = format!("{}.{:x}", about.name, now.as_nanosecond());
        event.involved_object = about;
        if self.queue.try_send(event).is_err() {
            warn!(reason, "Dropped an event: the queue is full");
        }
    }
}

/// The reference that an event about an object carries.
pub fn reference(about: &dyn Object) -> ObjectReference {
    let (gvk, metadata) = (about.gvk(), about.metadata());
    ObjectReference {
        kind: gvk.kind.into(),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        api_version: gvk.api_version(),
        resource_version: metadata.resource_version.clone(),
        field_path: String::new(),
    }
}

fn cut(message: &str) -> &str {
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

async fn write(client: Client, mut events: mpsc::Receiver<Event>, token: CancellationToken) {
    let mut correlator = Correlator::default();
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = token.cancelled() => return,
        };
        let Some(event) = event else { return };
        let now = Time::truncated(Timestamp::now()).unwrap_or_default();
        let verdict = correlator.judge(event, now);
        tokio::select! {
            () = carry_out(&client, &mut correlator, verdict) => {}
            () = token.cancelled() => return,
        }
    }
}

async fn carry_out(client: &Client, correlator: &mut Correlator, verdict: Verdict) {
    let (mut event, mut repeat) = match verdict {
        Verdict::Create(event) => (event, false),
        Verdict::Count(event) => (event, true),
        Verdict::Drop => return,
    };
    for attempt in 1..=TRIES_MAX {
        let written =
            if repeat { count(client, &event).await } else { client.create(&*event).await.map(drop) };
        match written {
            Ok(()) => return,
            Err(error) if repeat && error.is_not_found() => {
                // The server let the earlier event expire: begin a new one.
                correlator.forget(&event.metadata.name);
                event.metadata.name =
                    format!("{}.{:x}", event.involved_object.name, Timestamp::now().as_nanosecond());
                repeat = false;
            }
            Err(error) if error.retryable() && attempt < TRIES_MAX => tokio::time::sleep(RETRY_AFTER).await,
            Err(error) => {
                debug!(reason = event.reason, cause = error.chain(), "Gave up an event");
                return;
            }
        }
    }
}

async fn count(client: &Client, event: &Event) -> Result<(), Error> {
    let patch = Patch::Merge(serde_json::json!({
        "count": event.count,
        "message": event.message,
        "lastTimestamp": event.last_timestamp.map(|time| time.to_string()),
    }));
    let key = ObjectKey::new(event.metadata.namespace.clone(), event.metadata.name.clone());
    client.patch::<Event>(&key, &patch, &PatchOptions::default()).await.map(drop)
}
