//! Reflectors: the streaming list, resuming, listing again, and what subscribers are told.

use super::{json, scripted, status};
use crate::{Change, Error, Views};
use api::core::v1::ConfigMap;
use meta::ObjectKey;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

fn event(kind: &str, name: &str, revision: u64, value: &str) -> String {
    let object = serde_json::json!({
        "kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "resourceVersion": revision.to_string()},
        "data": {"value": value},
    });
    serde_json::json!({"type": kind, "object": object}).to_string() + "\n"
}

fn bookmark(revision: u64, end: bool) -> String {
    let annotations =
        if end { serde_json::json!({"k8s.io/initial-events-end": "true"}) } else { serde_json::json!({}) };
    let metadata = serde_json::json!({"resourceVersion": revision.to_string(), "annotations": annotations});
    let object = serde_json::json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata});
    serde_json::json!({"type": "BOOKMARK", "object": object}).to_string() + "\n"
}

fn told(change: &Change) -> String {
    let (old, new) = change.of::<ConfigMap>().expect("only config maps are followed");
    let value = |map: Option<&ConfigMap>| map.map_or("-".to_string(), |map| map.data["value"].clone());
    format!("{} {}>{}", change.key.name, value(old), value(new))
}

/// Each watch is answered by the next script; then by one that never ends.
async fn run(scripts: Vec<Result<String, u16>>) -> (Vec<String>, Vec<String>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let scripts = Mutex::new(VecDeque::from(scripts));
    let done = Arc::new(tokio::sync::Notify::new());
    let finished = done.clone();
    let client = scripted(move |request| {
        let query = request.uri().query().unwrap_or_default();
        let part = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)).unwrap_or_default().to_string()
        };
        match scripts.lock().pop_front() {
            Some(script) => {
                log.lock().push(format!(
                    "watch={} initial={} from={}",
                    part("watch="),
                    part("sendInitialEvents="),
                    part("resourceVersion=")
                ));
                Ok(match script {
                    Ok(body) => json(200, body),
                    Err(code) => status(code, "Expired", "scripted"),
                })
            }
            None => {
                finished.notify_one();
                Err(Error::Transport { context: "the script is over".into(), source: None })
            }
        }
    });
    let token = CancellationToken::new();
    let views = Views::builder(&client).watch::<ConfigMap>().expect("it is served").start(&token);
    let mut subscription = views.subscribe();
    done.notified().await;
    let mut seen: Vec<String> =
        subscription.recv().await.expect("something changed").objects.iter().map(told).collect();
    seen.sort();
    let view = views.view();
    seen.extend(view.list::<ConfigMap>().map(|map| format!("has {}", map.metadata.name)));
    seen.push(format!("at {}", view.revision(view::kind_id::<ConfigMap>())));
    assert!(views.synced().await);
    assert!(view.get::<ConfigMap>(&ObjectKey::new("shop", "nobody")).is_none());
    token.cancel();
    let asked = asked.lock().clone();
    (asked, seen)
}

#[tokio::test(start_paused = true)]
async fn a_streaming_list_is_followed_and_resumed() {
    let first = event("ADDED", "a", 1, "1")
        + &event("ADDED", "b", 2, "1")
        + &bookmark(5, true)
        + &event("MODIFIED", "a", 6, "2");
    let second = event("DELETED", "b", 7, "1") + &event("ADDED", "c", 8, "1") + &bookmark(9, false);
    let (asked, seen) = run(vec![Ok(first), Ok(second)]).await;
    assert_eq!(asked, ["watch=true initial=true from=", "watch=true initial= from=6"]);
    // b came and went before the subscriber looked: both ends are absent, yet it is told of.
    assert_eq!(seen, ["a ->2", "b ->-", "c ->1", "has a", "has c", "at 9"]);
}

#[tokio::test(start_paused = true)]
async fn a_compacted_revision_is_listed_again() {
    let first = event("ADDED", "a", 1, "1") + &bookmark(5, true);
    let again = event("ADDED", "b", 20, "1") + &bookmark(21, true);
    let (asked, seen) = run(vec![Ok(first), Err(410), Ok(again)]).await;
    assert_eq!(
        asked,
        ["watch=true initial=true from=", "watch=true initial= from=5", "watch=true initial=true from="]
    );
    assert_eq!(seen, ["a ->-", "b ->1", "has b", "at 21"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_without_streaming_lists_is_listed_by_pages() {
    let page = |name: &str, token: &str| {
        serde_json::json!({
            "kind": "ConfigMapList", "apiVersion": "v1",
            "metadata": {"resourceVersion": "5", "continue": token},
            "items": [{"metadata": {"name": name, "namespace": "shop", "uid": name, "resourceVersion": "3"}, "data": {"value": "1"}}],
        })
        .to_string()
    };
    let (asked, seen) =
        run(vec![Err(422), Ok(page("a", "more")), Ok(page("b", "")), Ok(bookmark(6, false))]).await;
    assert_eq!(
        asked,
        [
            "watch=true initial=true from=",
            "watch= initial= from=",
            "watch= initial= from=",
            "watch=true initial= from=5"
        ]
    );
    assert_eq!(seen, ["a ->1", "b ->1", "has a", "has b", "at 6"]);
}
