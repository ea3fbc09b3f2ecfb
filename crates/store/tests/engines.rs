//! Decides that every engine behaves the same: the suite of behaviours over each.

mod suite;

use suite::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    suite::run(|| async { store::memory() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    let dir = tempfile::tempdir().unwrap();
    let store = store::open_embedded(dir.path()).unwrap();
    suite::run(|| async { store.clone() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd() {
    let server = Server::start("http", &[]);
    let store = store::connect_etcd(std::slice::from_ref(&server.url), None).unwrap();
    server.ready(&*store).await;
    suite::run(|| async { store.clone() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_on_etcd_goes_on_after_etcd_was_killed() {
    let mut server = Server::start("http", &[]);
    // The first endpoint is not there: the calls go on to the second.
    let endpoints = ["http://127.0.0.1:1".to_owned(), server.url.clone()];
    let store = store::connect_etcd(&endpoints, None).unwrap();
    server.ready(&*store).await;
    let room = suite::Room { store: store.clone(), prefix: "/killed/".into() };
    let mut watch = room.watch(0).await;
    room.put("a", "1").await;
    assert_eq!(room.hear(&mut watch, 1).await, "+a=1");
    server.restart();
    server.ready(&*store).await;
    room.put("a", "2").await;
    room.delete("a").await;
    assert_eq!(room.hear(&mut watch, 2).await, "+a=2 -a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_spoken_to_over_tls_with_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::from_params(&params, &key);
    let own_key = rcgen::KeyPair::generate().unwrap();
    let mut own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    own.extended_key_usages =
        vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let own = own.signed_by(&own_key, &issuer).unwrap();
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let flags = [
        "--client-cert-auth".to_owned(),
        format!("--trusted-ca-file={}", file("ca.crt", ca.pem())),
        format!("--cert-file={}", file("own.crt", own.pem())),
        format!("--key-file={}", file("own.key", own_key.serialize_pem())),
    ];
    let server = Server::start("https", &flags);
    let mut tls = store::EtcdTls {
        ca_pem: ca.pem().into_bytes(),
        identity_pem: Some((own.pem().into_bytes(), own_key.serialize_pem().into_bytes())),
    };
    let store = store::connect_etcd(std::slice::from_ref(&server.url), Some(&tls)).unwrap();
    server.ready(&*store).await;
    let revision = store.txn(store::Txn::put("a", "1")).await.unwrap().revision;
    assert!(revision > 1);
    tls.identity_pem = None;
    let stranger = store::connect_etcd(std::slice::from_ref(&server.url), Some(&tls)).unwrap();
    assert!(stranger.revision().await.is_err(), "etcd asks for a certificate");
    assert!(store::connect_etcd(std::slice::from_ref(&server.url), None).is_err(), "no authority is known");
}
