//! Gets and lists: revisions, pages, selectors.

mod common;

use api::errors::Reason;
use common::*;
use registry::ListOptions;

#[tokio::test]
async fn a_get_knows_revisions() {
    let server = Server::new();
    let created = server.make("a", &[]).await;
    for version in ["", "0", "1", &created.resource_version()] {
        let read = server.registry.get(maps(), &key("a"), version).await.expect("there");
        assert_eq!(read.revision(), created.revision(), "version {version:?}");
    }
    let error = server.registry.get(maps(), &key("a"), "x").await.expect_err("no revision");
    assert_eq!(
        error.to_string(),
        "resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax"
    );
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_is_not_reached_times_out() {
    let server = Server::new();
    let created = server.make("a", &[]).await;
    let future = (created.revision() + 100).to_string();
    let error = server.registry.get(maps(), &key("a"), &future).await.expect_err("too large");
    let text = format!("Timeout: Too large resource version: {future}, current: {}", created.revision());
    assert_eq!((error.code, error.reason, error.to_string()), (504, Reason::Timeout, text));
    let details = error.details.expect("details");
    assert_eq!(details.retry_after_seconds, 1);
    assert_eq!(details.causes[0].reason, "ResourceVersionTooLarge");
}

#[tokio::test]
async fn lists_are_consistent_and_ordered() {
    let server = Server::new();
    for name in ["b", "a", "c"] {
        let created = server.make(name, &[]).await;
        let list = server.list(maps(), &options()).await.expect("a list");
        assert!(list.revision >= created.revision(), "a list sees what was written before it");
        assert!(list.items.iter().any(|item| item.key().name == name));
    }
    server.create_in("other", maps(), map("z", &[], &[])).await.expect("created");
    assert_eq!(names(&server.list(maps(), &options()).await.expect("a list")), "a b c");
    let all = server.registry.list(maps(), "", &options()).await.expect("a list");
    assert_eq!(names(&all), "a b c z");
    let shared = server.get(maps(), "a").await.expect("there");
    assert_eq!(
        shared.json().expect("json").as_ptr(),
        all.items[0].json().expect("json").as_ptr(),
        "one copy"
    );
}

#[tokio::test]
async fn selectors_select() {
    let server = Server::new();
    server.make("a", &[("app", "x")]).await;
    server.make("b", &[("app", "y"), ("tier", "1")]).await;
    server.make("c", &[]).await;
    for (selector, wanted) in [("app", "a b"), ("app!=x", "b c"), ("app in (x,y),tier", "b"), ("!app", "c")] {
        assert_eq!(
            names(&server.list(maps(), &labelled(selector)).await.expect("a list")),
            wanted,
            "{selector}"
        );
    }
    for (selector, wanted) in
        [("metadata.name=b", "b"), ("metadata.name!=b", "a c"), ("metadata.namespace=other", "")]
    {
        assert_eq!(
            names(&server.list(maps(), &with_fields(selector)).await.expect("a list")),
            wanted,
            "{selector}"
        );
    }
    let error = server.list(maps(), &with_fields("data.x=1")).await.expect_err("no such field");
    assert_eq!(error.code, 400);
}

async fn pages(server: &Server, namespace: &str, first: ListOptions) -> Vec<(String, Option<i64>)> {
    let mut pages = Vec::new();
    let mut next = first;
    loop {
        let page = server.registry.list(maps(), namespace, &next).await.expect("a page");
        pages.push((names(&page), page.remaining));
        if page.continue_token.is_empty() {
            return pages;
        }
        next.continue_token = page.continue_token;
        next.resource_version.clear();
        if pages.len() == 1 {
            server.make("late", &[]).await;
        }
    }
}

#[tokio::test]
async fn pages_are_of_one_moment() {
    for (namespace, wanted_last) in [(NS, "e"), ("", "z")] {
        let server = Server::new();
        for name in ["a", "b", "c", "d", "e"] {
            server.make(name, &[("app", "x")]).await;
        }
        server.create_in("other", maps(), map("z", &[], &[])).await.expect("created");
        let pages = pages(&server, namespace, ListOptions { limit: 2, ..options() }).await;
        assert_eq!(pages[0], ("a b".into(), Some(if namespace.is_empty() { 4 } else { 3 })));
        assert_eq!(pages[1].0, "c d");
        assert!(pages[2].0.ends_with(wanted_last), "{pages:?}");
        assert!(!pages.iter().any(|(names, _)| names.contains("late")));
    }
    let server = Server::new();
    for name in ["a", "b", "c"] {
        server.make(name, &[("app", "x")]).await;
    }
    let first = ListOptions { limit: 2, ..labelled("app=x") };
    assert_eq!(pages(&server, NS, first).await, [("a b".into(), None), ("c".into(), None)]);
}

#[tokio::test]
async fn old_revisions_are_read_from_history_until_compacted() {
    let server = Server::new();
    server.make("a", &[]).await;
    let then = server.make("b", &[]).await.revision();
    server.make("c", &[]).await;
    let exact = ListOptions { resource_version_match: "Exact".into(), ..at(then) };
    let list = server.list(maps(), &exact).await.expect("a list");
    assert_eq!((names(&list).as_str(), list.revision), ("a b", then));
    let newer = ListOptions { resource_version_match: "NotOlderThan".into(), ..at(then) };
    assert_eq!(names(&server.list(maps(), &newer).await.expect("a list")), "a b c");
    // A limit without a match pages at the very revision.
    let list = server.list(maps(), &ListOptions { limit: 1, ..at(then) }).await.expect("a list");
    assert_eq!((names(&list).as_str(), list.remaining), ("a", Some(1)));
    let token = list.continue_token;

    server.make("aa", &[]).await;
    let now = server.registry.store().revision().await.expect("a revision");
    server.registry.store().compact(now).await.expect("compacted");
    let error = server.list(maps(), &exact).await.expect_err("gone");
    assert_eq!((error.code, error.reason), (410, Reason::Expired));
    let on = ListOptions { continue_token: token, limit: 9, ..options() };
    let error = server.list(maps(), &on).await.expect_err("gone");
    let fresh = error.to_status().metadata.r#continue;
    assert_eq!(error.code, 410);
    let on = ListOptions { continue_token: fresh, ..on };
    assert_eq!(names(&server.list(maps(), &on).await.expect("a list")), "aa b c");
}

#[tokio::test]
async fn options_that_do_not_fit_are_refused() {
    let server = Server::new();
    let refused =
        async |options: ListOptions| server.list(maps(), &options).await.expect_err("refused").to_string();
    let exact = |version: &str| ListOptions { resource_version_match: "Exact".into(), ..at(version) };
    assert_eq!(
        refused(exact("")).await,
        "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is \
         forbidden unless resourceVersion is provided"
    );
    assert!(
        refused(exact("0"))
            .await
            .contains("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")
    );
    let odd = ListOptions { resource_version_match: "Odd".into(), ..at(1) };
    assert!(refused(odd).await.contains("Unsupported value: \"Odd\""));
    let token = ListOptions { continue_token: "x".into(), ..options() };
    assert!(refused(token).await.starts_with("invalid continue token"));
    let initial = ListOptions { send_initial_events: Some(true), ..options() };
    assert!(refused(initial).await.contains("sendInitialEvents is forbidden for list"));
}
