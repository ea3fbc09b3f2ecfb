//! Controllers over fixtures, and over a model cluster whose view lags.

mod autoscaling;
mod claims;
mod credentials;
mod golden;
mod golden_cluster;
mod jobs;
mod mirrors;
mod model;
mod ranges;
mod rollouts;
mod schedules;
mod volumes;
mod workloads;

use crate::{Context, Controller, Report};
use api::codec::{self, MediaType};
use meta::{ObjectKey, Time};
use view::{ResourceId, Vertex, View};

/// What the clock of fixtures says.
const NOW: &str = "2026-01-01T00:10:00Z";

fn now() -> Time {
    Time::parse(NOW).expect("it is a time")
}

/// A view of YAML documents. Revisions count up; uids are `uid-<name>` where a document has none.
fn view_of(fixture: &str) -> View {
    let mut view = View::default();
    for (count, document) in fixture.split("\n---\n").filter(|text| !text.trim().is_empty()).enumerate() {
        let json = codec::yaml_to_json(document.as_bytes()).expect("the fixture is YAML");
        let value: serde_json::Value = serde_json::from_slice(&json).expect("it is JSON");
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_string();
        let kind = codec::find_kind(&text("apiVersion"), &text("kind")).expect("the kind is in the table");
        let mut notes = meta::json::Notes::default();
        let mut object = codec::decode_object(kind, &json, MediaType::Json, &mut notes)
            .expect("the fixture is of its kind");
        assert!(notes.0.is_empty(), "{:?}", notes.0);
        let metadata = object.metadata_mut();
        if metadata.uid.is_empty() {
            metadata.uid = format!("uid-{}", metadata.name);
        }
        if metadata.resource_version.is_empty() {
            metadata.resource_version = (count + 1).to_string();
        }
        let resource = resource(object.as_ref());
        view.graph_mut().insert(std::sync::Arc::new(Vertex::new(resource.clone(), object.metadata())));
        view.graph_mut().mark_synced(&resource);
        view.insert_object(object.into());
    }
    view
}

fn resource(object: &dyn api::Object) -> std::sync::Arc<ResourceId> {
    let gvk = object.gvk();
    crate::resource_of(gvk.group, gvk.version, gvk.kind)
}

/// The plan for one key of a fixture.
fn plan(controller: &dyn Controller, fixture: &str, key: &str) -> String {
    plan_after(controller, fixture, key, None, None)
}

fn plan_after(
    controller: &dyn Controller,
    fixture: &str,
    key: &str,
    report: Option<&Report>,
    marked: Option<(&str, &str)>,
) -> String {
    let view = view_of(fixture);
    let key = ObjectKey::parse(key);
    let marked = marked.map(|(mark, since)| (mark, Time::parse(since).expect("it is a time")));
    let context = Context { view: &view, key: &key, now: now(), report, marked };
    controller.reconcile(&context).to_string()
}
