//! Encryption at rest: what lies in the store, what reads it, and how keys change.

mod common;

use base64::Engine;
use bytes::{BufMut, Bytes, BytesMut};
use common::{Fixture, create, get, send, serve_with};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use store::RangeRequest;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PLAIN: &str = "nobody-may-read-this";

fn config(dir: &Path, providers: &str) -> PathBuf {
    let path = dir.join("encryption.yaml");
    let text = format!(
        "kind: EncryptionConfiguration\napiVersion: apiserver.config.k8s.io/v1\nresources: [{{resources: [secrets], providers: [{providers}]}}]"
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn key(kind: &str, name: &str, byte: u8) -> String {
    let secret = base64::prelude::BASE64_STANDARD.encode([byte; 32]);
    format!("{{{kind}: {{keys: [{{name: {name}, secret: {secret}}}]}}}}")
}

async fn serve_in(dir: &Path, providers: &str) -> Fixture {
    let path = config(dir, providers);
    let data = dir.to_path_buf();
    serve_with(move |options| {
        options.data_dir = data;
        options.storage_backend = "embedded".into();
        options.encryption_provider_config = Some(path);
    })
    .await
}

/// What is kept under a key, read past the server; the server is ended first.
async fn kept(fixture: Fixture, dir: &Path, key: &str) -> Bytes {
    drop(fixture);
    for _ in 0..500 {
        if let Ok(store) = store::open_embedded(dir.join("store")) {
            let answer = store.range(RangeRequest::key(key.to_string())).await.unwrap();
            return answer.kvs[0].value.clone();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the server did not let go of its store");
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// All bytes of all files below a folder.
fn all_bytes(dir: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() {
            out.extend(all_bytes(&entry.path()));
        } else {
            out.extend(std::fs::read(entry.path()).unwrap_or_default());
        }
    }
    out
}

async fn make(fixture: &Fixture) {
    let body = json!({"metadata": {"name": "s"}, "stringData": {"k": PLAIN}});
    create(&fixture.admin, SECRETS, &body.to_string()).await;
    let body = json!({"metadata": {"name": "m"}, "data": {"k": "everybody-may-read-this"}});
    create(&fixture.admin, MAPS, &body.to_string()).await;
}

async fn reads_back(fixture: &Fixture) {
    let secret = get(&fixture.admin, &format!("{SECRETS}/s")).await;
    let wanted = base64::prelude::BASE64_STANDARD.encode(PLAIN);
    assert_eq!(secret["data"]["k"], wanted.as_str());
    let list = get(&fixture.admin, SECRETS).await;
    assert_eq!(list["items"][0]["data"]["k"], wanted.as_str());
}

/// Writes the secret as it is.
async fn touch(fixture: &Fixture) {
    let (_, text) = send(&fixture.admin, "GET", &format!("{SECRETS}/s"), &[], "").await;
    let headers = [("content-type", "application/json")];
    let (code, text) = send(&fixture.admin, "PUT", &format!("{SECRETS}/s"), &headers, text).await;
    assert_eq!(code, 200, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_lie_encrypted_and_keys_can_be_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let place = "/registry/secrets/default/s";
    let first = key("aescbc", "key1", 1);
    let fixture = serve_in(dir.path(), &format!("{first}, {{identity: {{}}}}")).await;
    make(&fixture).await;
    reads_back(&fixture).await;
    let bytes = all_bytes(&dir.path().join("store"));
    assert!(contains(&bytes, "everybody-may-read-this"), "the test looks at the wrong files");
    assert!(!contains(&bytes, PLAIN));
    let value = kept(fixture, dir.path(), place).await;
    assert!(value.starts_with(b"k8s:enc:aescbc:v1:key1:"));
    // A new key writes; the old one still reads. An unchanged write moves the object to the new key.
    let second = key("secretbox", "key2", 2);
    let fixture = serve_in(dir.path(), &format!("{second}, {first}")).await;
    reads_back(&fixture).await;
    touch(&fixture).await;
    reads_back(&fixture).await;
    let value = kept(fixture, dir.path(), place).await;
    assert!(value.starts_with(b"k8s:enc:secretbox:v1:key2:"));
    // Without the key nothing is shown, and nothing else is harmed.
    let fixture = serve_in(dir.path(), &first).await;
    let (code, text) = send(&fixture.admin, "GET", &format!("{SECRETS}/s"), &[], "").await;
    assert_eq!(code, 500);
    assert!(
        text.contains(
            "unable to transform key \\\"/registry/secrets/default/s\\\": no matching prefix found"
        ),
        "{text}"
    );
    get(&fixture.admin, &format!("{MAPS}/m")).await;
    let value = kept(fixture, dir.path(), place).await;
    assert!(!contains(&value, PLAIN));
    // Away from encryption: identity writes, the key still reads.
    let fixture = serve_in(dir.path(), &format!("{{identity: {{}}}}, {second}")).await;
    touch(&fixture).await;
    reads_back(&fixture).await;
    let value = kept(fixture, dir.path(), place).await;
    assert!(contains(&value, PLAIN));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_see_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = serve_in(dir.path(), &key("aesgcm", "k", 3)).await;
    make(&fixture).await;
    let path = format!("{SECRETS}?watch=1&timeoutSeconds=1&resourceVersion=0");
    let (_, text) = send(&fixture.admin, "GET", &path, &[], "").await;
    assert!(text.contains(&base64::prelude::BASE64_STANDARD.encode(PLAIN)), "{text}");
    let (_, text) = send(&fixture.admin, "GET", "/metrics", &[], "").await;
    let wanted = "apiserver_storage_transformation_operations_total{status=\"OK\",transformation_type=\"to_storage\",transformer_prefix=\"k8s:enc:aesgcm:v1:\"}";
    assert!(text.contains(wanted), "{text}");
}

/// A key management service that seals by turning bytes around; field numbers are those of the protocol.
async fn key_service(socket: PathBuf) {
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let service =
                hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                    let path = request.uri().path().to_string();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let first = |body: &[u8]| -> Vec<u8> {
                        // The frame's head, then field 1 of the message: a tag, a length below 128, bytes.
                        let length = usize::from(body[6]);
                        body[7..7 + length].iter().rev().copied().collect()
                    };
                    let mut message = Vec::new();
                    let mut field = |tag: u8, bytes: &[u8]| {
                        message.push(tag << 3 | 2);
                        message.push(u8::try_from(bytes.len()).unwrap());
                        message.extend_from_slice(bytes);
                    };
                    match path.rsplit('/').next().unwrap() {
                        "Status" => [(1, "v2"), (2, "ok"), (3, "kek-1")]
                            .map(|(tag, text)| field(tag, text.as_bytes())),
                        "Encrypt" => [(1, first(&body)), (2, b"kek-1".to_vec()), (9, vec![])]
                            .map(|(tag, bytes)| field(tag, &bytes)),
                        _ => [(1, first(&body)), (8, vec![]), (9, vec![])]
                            .map(|(tag, bytes)| field(tag, &bytes)),
                    };
                    let mut frame = BytesMut::new();
                    frame.put_u8(0);
                    frame.put_u32(u32::try_from(message.len()).unwrap());
                    frame.extend_from_slice(&message);
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", "0".parse().unwrap());
                    let frames = [
                        Ok::<_, std::convert::Infallible>(Frame::data(frame.freeze())),
                        Ok(Frame::trailers(trailers)),
                    ];
                    let response = http::Response::builder().header("content-type", "application/grpc");
                    Ok::<_, std::convert::Infallible>(
                        response.body(StreamBody::new(futures::stream::iter(frames))).unwrap(),
                    )
                });
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_service_seals_the_seed_and_another_start_asks_it_to_open_it() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("kms.sock");
    let service = tokio::spawn(key_service(socket.clone()));
    let provider =
        format!("{{kms: {{apiVersion: v2, name: mine, endpoint: 'unix://{}'}}}}", socket.display());
    let fixture = serve_in(dir.path(), &provider).await;
    make(&fixture).await;
    reads_back(&fixture).await;
    assert_eq!(send(&fixture.admin, "GET", "/readyz/kms-providers", &[], "").await.0, 200);
    let value = kept(fixture, dir.path(), "/registry/secrets/default/s").await;
    assert!(value.starts_with(b"k8s:enc:kms:v2:mine:") && !contains(&value, PLAIN));
    let fixture = serve_in(dir.path(), &provider).await;
    reads_back(&fixture).await;
    service.abort();
}
