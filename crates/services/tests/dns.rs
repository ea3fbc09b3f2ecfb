//! DNS answers, as text. Queries are written and answers read by hickory-proto: another mind's reading of the standard.

use api::core::v1::Service;
use api::discovery::v1::EndpointSlice;
use expect_test::{Expect, expect};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use services::dns::{Config, Index, Outcome, Transport};
use std::str::FromStr;

fn parse<T: meta::Message + Default>(yaml: &str) -> T {
    api::codec::from_json(&api::codec::yaml_to_json(yaml.as_bytes()).unwrap()).unwrap()
}

/// A shop: a service with an address, a headless one with a named and an unnamed pod, and aliases.
fn index() -> Index {
    let mut index = Index::new(Config {
        domain: "cluster.local".into(),
        ttl_seconds: 5,
        server_addresses: vec!["10.96.0.10".parse().unwrap()],
        reverse_ranges: vec!["10.96.0.0/16".parse().unwrap(), "10.244.0.0/16".parse().unwrap()],
    })
    .unwrap();
    index.insert_namespace("shop");
    let web: Service = parse(
        "{metadata: {name: web, namespace: shop},
          spec: {clusterIP: 10.96.0.20, ports: [{name: http, port: 80}, {port: 81}, {name: dns, port: 53, protocol: UDP}]}}",
    );
    index.insert_service(&web, &[]);
    let dual: Service = parse(
        "{metadata: {name: dual, namespace: shop},
          spec: {clusterIP: 10.96.0.21, clusterIPs: [10.96.0.21, 'fd00::21'], ports: [{name: http, port: 80}]}}",
    );
    index.insert_service(&dual, &[]);
    let db: Service = parse(
        "{metadata: {name: db, namespace: shop}, spec: {clusterIP: None, ports: [{name: sql, port: 5432}]}}",
    );
    let slice: EndpointSlice = parse(
        "{metadata: {name: db-1, namespace: shop}, addressType: IPv4,
          ports: [{name: sql, port: 5432, protocol: TCP}],
          endpoints: [{addresses: [10.244.0.5], hostname: db-0}, {addresses: [10.244.0.6]},
                      {addresses: [10.244.0.7], conditions: {ready: false}}]}",
    );
    index.insert_service(&db, &[&slice]);
    let empty: Service = parse("{metadata: {name: empty, namespace: shop}, spec: {clusterIP: None}}");
    index.insert_service(&empty, &[]);
    for (name, target) in [
        ("out", "www.example.com"),
        ("in", "web.shop.svc.cluster.local"),
        ("ring", "ring.shop.svc.cluster.local"),
    ] {
        let alias = format!(
            "{{metadata: {{name: {name}, namespace: shop}}, spec: {{type: ExternalName, externalName: {target}}}}}"
        );
        index.insert_service(&parse(&alias), &[]);
    }
    index
}

fn question(name: &str, kind: &str, edns: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_str(name).unwrap(), RecordType::from_str(kind).unwrap()));
    if let Some(bytes) = edns {
        let mut options = Edns::new();
        options.set_max_payload(bytes);
        message.edns = Some(options);
    }
    message.to_vec().unwrap()
}

/// The answer as text: code, then the records of each section.
fn text(outcome: &Outcome, bytes: &[u8]) -> String {
    let mut text = String::new();
    match outcome {
        Outcome::Answered => {}
        Outcome::Chase(target) => text += &format!("chase {}\n", services::dns::wire::name_text(target)),
        other => return format!("{other:?}\n"),
    }
    let message = Message::from_vec(bytes).unwrap();
    let truncated = if message.metadata.truncation { " truncated" } else { "" };
    text += &format!("{}{truncated}\n", message.metadata.response_code);
    assert!(message.metadata.authoritative && message.metadata.recursion_available);
    for (section, records) in
        [("", &message.answers), ("authority ", &message.authorities), ("additional ", &message.additionals)]
    {
        for record in records {
            text += &format!(
                "{section}{} {} {} {}\n",
                record.name,
                record.ttl,
                record.record_type(),
                record.data
            );
        }
    }
    text
}

fn ask(index: &Index, name: &str, kind: &str) -> String {
    let mut out = Vec::new();
    let outcome = index.respond(&question(name, kind, None), Transport::Udp, &mut out);
    text(&outcome, &out)
}

fn check(name: &str, kind: &str, expected: Expect) {
    expected.assert_eq(&ask(&index(), name, kind));
}

#[test]
fn services_have_addresses_ports_and_reverse_names() {
    check(
        "web.shop.svc.cluster.local.",
        "A",
        expect![[r#"
        No Error
        web.shop.svc.cluster.local. 5 A 10.96.0.20
    "#]],
    );
    check(
        "dual.shop.svc.cluster.local.",
        "AAAA",
        expect![[r#"
        No Error
        dual.shop.svc.cluster.local. 5 AAAA fd00::21
    "#]],
    );
    check(
        "_http._tcp.dual.shop.svc.cluster.local.",
        "SRV",
        expect![[r#"
        No Error
        _http._tcp.dual.shop.svc.cluster.local. 5 SRV 0 100 80 dual.shop.svc.cluster.local.
        additional dual.shop.svc.cluster.local. 5 A 10.96.0.21
        additional dual.shop.svc.cluster.local. 5 AAAA fd00::21
    "#]],
    );
    check(
        "_dns._udp.web.shop.svc.cluster.local.",
        "SRV",
        expect![[r#"
        No Error
        _dns._udp.web.shop.svc.cluster.local. 5 SRV 0 100 53 web.shop.svc.cluster.local.
        additional web.shop.svc.cluster.local. 5 A 10.96.0.20
    "#]],
    );
    check(
        "20.0.96.10.in-addr.arpa.",
        "PTR",
        expect![[r#"
        No Error
        20.0.96.10.in-addr.arpa. 5 PTR web.shop.svc.cluster.local.
    "#]],
    );
    check(
        "1.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.",
        "PTR",
        expect![[r#"
            No Error
            1.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. 5 PTR dual.shop.svc.cluster.local.
        "#]],
    );
}

#[test]
fn headless_services_have_their_ready_pods() {
    check(
        "db.shop.svc.cluster.local.",
        "A",
        expect![[r#"
        No Error
        db.shop.svc.cluster.local. 5 A 10.244.0.5
        db.shop.svc.cluster.local. 5 A 10.244.0.6
    "#]],
    );
    check(
        "db-0.db.shop.svc.cluster.local.",
        "A",
        expect![[r#"
        No Error
        db-0.db.shop.svc.cluster.local. 5 A 10.244.0.5
    "#]],
    );
    check(
        "_sql._tcp.db.shop.svc.cluster.local.",
        "SRV",
        expect![[r#"
        No Error
        _sql._tcp.db.shop.svc.cluster.local. 5 SRV 0 50 5432 10-244-0-6.db.shop.svc.cluster.local.
        _sql._tcp.db.shop.svc.cluster.local. 5 SRV 0 50 5432 db-0.db.shop.svc.cluster.local.
        additional 10-244-0-6.db.shop.svc.cluster.local. 5 A 10.244.0.6
        additional db-0.db.shop.svc.cluster.local. 5 A 10.244.0.5
    "#]],
    );
    check(
        "5.0.244.10.in-addr.arpa.",
        "PTR",
        expect![[r#"
        No Error
        5.0.244.10.in-addr.arpa. 5 PTR db-0.db.shop.svc.cluster.local.
    "#]],
    );
}

const NO_DATA: &str = "No Error
authority cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
";
const NO_NAME: &str = "Non-Existent Domain
authority cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
";

#[test]
fn what_exists_without_the_type_is_told_from_what_does_not_exist() {
    let index = index();
    for (name, kind) in [
        ("web.shop.svc.cluster.local.", "AAAA"),
        ("web.shop.svc.cluster.local.", "MX"),
        ("empty.shop.svc.cluster.local.", "A"),
        ("_tcp.web.shop.svc.cluster.local.", "A"),
        ("_http._tcp.web.shop.svc.cluster.local.", "A"),
        ("shop.svc.cluster.local.", "A"),
        ("shop.pod.cluster.local.", "A"),
        ("svc.cluster.local.", "A"),
        ("cluster.local.", "A"),
    ] {
        assert_eq!(ask(&index, name, kind), NO_DATA, "{name} {kind}");
    }
    for (name, kind) in [
        ("nothing.shop.svc.cluster.local.", "A"),
        ("web.nowhere.svc.cluster.local.", "A"),
        ("nowhere.svc.cluster.local.", "A"),
        ("db-9.db.shop.svc.cluster.local.", "A"),
        ("10-244-0-7.db.shop.svc.cluster.local.", "A"),
        ("_ftp._tcp.web.shop.svc.cluster.local.", "SRV"),
        ("a.b.c.web.shop.svc.cluster.local.", "A"),
        ("www.example.com.svc.cluster.local.", "A"),
        ("1-2-3.shop.pod.cluster.local.", "A"),
        ("1-2-3-4.nowhere.pod.cluster.local.", "A"),
        ("elsewhere.cluster.local.", "A"),
    ] {
        assert_eq!(ask(&index, name, kind), NO_NAME, "{name} {kind}");
    }
    check(
        "99.0.244.10.in-addr.arpa.",
        "PTR",
        expect![[r#"
        Non-Existent Domain
        authority in-addr.arpa. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
    "#]],
    );
}

#[test]
fn the_domain_speaks_of_itself_and_pods_have_names_by_address() {
    check(
        "dns-version.cluster.local.",
        "TXT",
        expect![[r#"
        No Error
        dns-version.cluster.local. 5 TXT 1.1.0
    "#]],
    );
    check(
        "cluster.local.",
        "NS",
        expect![[r#"
        No Error
        cluster.local. 5 NS ns.dns.cluster.local.
    "#]],
    );
    check(
        "ns.dns.cluster.local.",
        "A",
        expect![[r#"
        No Error
        ns.dns.cluster.local. 5 A 10.96.0.10
    "#]],
    );
    check(
        "10-244-0-5.shop.pod.cluster.local.",
        "A",
        expect![[r#"
        No Error
        10-244-0-5.shop.pod.cluster.local. 5 A 10.244.0.5
    "#]],
    );
}

#[test]
fn aliases_are_followed_inside_and_handed_out() {
    check(
        "in.shop.svc.cluster.local.",
        "A",
        expect![[r#"
        No Error
        in.shop.svc.cluster.local. 5 CNAME web.shop.svc.cluster.local.
        web.shop.svc.cluster.local. 5 A 10.96.0.20
    "#]],
    );
    check(
        "out.shop.svc.cluster.local.",
        "A",
        expect![[r#"
        chase www.example.com.
        No Error
        out.shop.svc.cluster.local. 5 CNAME www.example.com.
    "#]],
    );
    check(
        "out.shop.svc.cluster.local.",
        "CNAME",
        expect![[r#"
        No Error
        out.shop.svc.cluster.local. 5 CNAME www.example.com.
    "#]],
    );
    assert!(ask(&index(), "ring.shop.svc.cluster.local.", "A").starts_with("No Error"));
}

#[test]
fn other_names_are_forwarded() {
    for name in ["www.example.com.", "local.", ".", "4.3.2.1.in-addr.arpa.", "notcluster.local."] {
        assert_eq!(ask(&index(), name, "A"), "Forward\n", "{name}");
    }
}

#[test]
fn what_does_not_fit_is_cut_to_whole_records_and_whole_over_tcp() {
    let mut index = index();
    let endpoints: Vec<String> =
        (1..=100).map(|number| format!("{{addresses: [10.244.1.{number}]}}")).collect();
    let slice: EndpointSlice = parse(&format!("{{addressType: IPv4, endpoints: [{}]}}", endpoints.join(",")));
    let many: Service = parse("{metadata: {name: many, namespace: shop}, spec: {clusterIP: None}}");
    index.insert_service(&many, &[&slice]);
    let mut out = Vec::new();
    let name = "many.shop.svc.cluster.local.";
    for (edns, transport, limit, count) in [
        (None, Transport::Udp, 512, 29),
        (Some(4096), Transport::Udp, 1232, 73),
        (None, Transport::Tcp, 65535, 100),
    ] {
        index.respond(&question(name, "A", edns), transport, &mut out);
        let message = Message::from_vec(&out).unwrap();
        assert!(out.len() <= limit);
        assert_eq!((message.answers.len(), message.metadata.truncation), (count, count < 100));
        assert_eq!(message.edns.is_some(), edns.is_some());
    }
}

#[test]
fn case_is_ignored_and_given_back() {
    let mut query = question("web.shop.svc.cluster.local.", "A", None);
    query[13..16].copy_from_slice(b"WeB");
    let mut out = Vec::new();
    index().respond(&query, Transport::Udp, &mut out);
    assert_eq!((&out[13..16], &out[out.len() - 4..]), (&b"WeB"[..], &[10, 96, 0, 20][..]));
}

#[test]
fn answers_begin_with_another_endpoint_for_another_query() {
    let index = index();
    let first = |id: u8| {
        let mut query = question("db.shop.svc.cluster.local.", "A", None);
        query[1] = id;
        let mut out = Vec::new();
        index.respond(&query, Transport::Udp, &mut out);
        Message::from_vec(&out).unwrap().answers[0].data.to_string()
    };
    assert_eq!([first(0), first(1), first(2)], ["10.244.0.5", "10.244.0.6", "10.244.0.5"]);
}

#[test]
fn a_service_that_goes_takes_its_names_along() {
    let mut index = index();
    index.remove_service("shop", "web");
    index.remove_service("shop", "web");
    assert_eq!(ask(&index, "web.shop.svc.cluster.local.", "A"), NO_NAME);
    assert!(ask(&index, "20.0.96.10.in-addr.arpa.", "PTR").starts_with("Non-Existent"));
    for name in ["db", "dual", "empty", "in", "out", "ring"] {
        index.remove_service("shop", name);
    }
    assert_eq!(ask(&index, "shop.svc.cluster.local.", "A"), NO_DATA);
    index.remove_namespace("shop");
    assert_eq!(ask(&index, "shop.svc.cluster.local.", "A"), NO_NAME);
    assert!(index.is_empty());
}

#[test]
fn bytes_that_are_no_query_do_no_harm() {
    let index = index();
    let query = question("web.shop.svc.cluster.local.", "A", Some(1232));
    let mut out = Vec::new();
    for length in 0..query.len() {
        index.respond(&query[..length], Transport::Udp, &mut out);
    }
    // Every byte changed in turn, to values that mean something in a message.
    for at in 0..query.len() {
        for value in [0, 1, 0x3f, 0x40, 0x80, 0xc0, 0xff] {
            let mut changed = query.clone();
            changed[at] = value;
            index.respond(&changed, Transport::Udp, &mut out);
        }
    }
    let mut response = query.clone();
    response[2] |= 0x80;
    assert_eq!(index.respond(&response, Transport::Udp, &mut out), Outcome::Drop);
    let mut update = query;
    update[2] = 5 << 3;
    assert_eq!(index.respond(&update, Transport::Udp, &mut out), Outcome::Answered);
    assert_eq!(out[3] & 0xf, 4, "NOTIMP");
}
