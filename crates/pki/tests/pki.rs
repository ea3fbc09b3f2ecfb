//! What the identities of a cluster promise, on real files in a temporary folder.

use pki::authority::{Authority, CertRequest, CsrProfile, Usage};
use pki::kubeconfig::{Kubeconfig, Names};
use pki::token::{self, Bound, Claims, Error, Reference, Verifier};
use pki::{CertifiedKey, Identity, PublicKey, Signer, bootstrap, cluster};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const RSA_KEY: &str = include_str!("data/rsa.key");
const RSA_PUBLIC: &str = include_str!("data/rsa.pub");
const EC_KEY: &str = include_str!("data/ec.key");
const NODE_CSR: &str = include_str!("data/node.csr");
const NOW: i64 = 1_800_000_000;

fn options(data: &Path) -> cluster::Options {
    cluster::Options {
        data: data.into(),
        node_name: "n1".into(),
        server: "https://127.0.0.1:6443".into(),
        names: vec!["192.0.2.7".into(), "2001:DB8:0::7".into()],
        service_address: "10.96.0.1".parse().unwrap(),
        cluster_domain: "cluster.local".into(),
    }
}

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            out.extend(contents(&entry.path()));
        } else {
            out.insert(entry.path().display().to_string(), fs::read(entry.path()).unwrap());
        }
    }
    out
}

fn changed(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let name = |path: &String| path.rsplit('/').next().unwrap().to_owned();
    after
        .iter()
        .filter(|(path, bytes)| before.get(*path) != Some(bytes))
        .map(|(path, _)| name(path))
        .collect()
}

#[test]
fn a_cluster_is_laid_out_once_and_then_only_mended() {
    let dir = tempfile::tempdir().unwrap();
    let made = cluster::open_or_create(&options(dir.path())).unwrap();
    let first = contents(dir.path());
    for (path, bytes) in &first {
        let secret = String::from_utf8_lossy(bytes).contains("PRIVATE KEY") || path.ends_with(".kubeconfig");
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if secret { 0o600 } else { 0o644 }, "{path}");
        assert!(!path.rsplit('/').next().unwrap().starts_with('.'), "a temporary file was left: {path}");
    }
    let serving = made.serving.identity().unwrap();
    let names: Vec<&str> = serving.sans.iter().map(String::as_str).collect();
    assert_eq!(
        names.join(" "),
        "10.96.0.1 127.0.0.1 192.0.2.7 2001:db8::7 ::1 kubernetes kubernetes.default kubernetes.default.svc \
         kubernetes.default.svc.cluster.local localhost n1"
    );

    cluster::open_or_create(&options(dir.path())).unwrap();
    assert_eq!(changed(&first, &contents(dir.path())), Vec::<String>::new());

    let mut moved = options(dir.path());
    moved.names = vec!["192.0.2.8".into()];
    cluster::open_or_create(&moved).unwrap();
    let second = contents(dir.path());
    assert_eq!(changed(&first, &second), ["apiserver.crt", "apiserver.key", "kubelet.crt", "kubelet.key"]);

    moved.server = "https://192.0.2.8:6443".into();
    cluster::open_or_create(&moved).unwrap();
    let third = contents(dir.path());
    assert_eq!(
        changed(&second, &third),
        [
            "admin.kubeconfig",
            "cluster-dns.kubeconfig",
            "kube-controller-manager.kubeconfig",
            "kube-proxy.kubeconfig",
            "kube-scheduler.kubeconfig",
            "kubelet.kubeconfig"
        ]
    );
}

#[test]
fn identities_name_their_users_and_groups() {
    let dir = tempfile::tempdir().unwrap();
    let made = cluster::open_or_create(&options(dir.path())).unwrap();
    let who = |file: &str| {
        let pair = Kubeconfig::read(&made.layout.kubeconfig(file)).unwrap().client.unwrap();
        let identity = pair.identity().unwrap();
        assert!(identity.client && !identity.server);
        assert!(made.authority.signed(&pair.to_rustls().unwrap().0[0]));
        assert!(!made.front_proxy.signed(&pair.to_rustls().unwrap().0[0]));
        format!("{} [{}]", identity.name, identity.groups.join(" "))
    };
    assert_eq!(who("admin"), "kubernetes-admin [system:masters]");
    assert_eq!(who("kubelet"), "system:node:n1 [system:nodes]");
    assert_eq!(who("kube-scheduler"), "system:kube-scheduler []");
    assert_eq!(
        who("cluster-dns"),
        "system:serviceaccount:kube-system:coredns [system:serviceaccounts system:serviceaccounts:kube-system]"
    );
}

#[test]
fn a_certificate_is_issued_anew_when_it_no_longer_serves() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::open_or_create(dir.path(), "ca", "test-ca").unwrap();
    let other = Authority::open_or_create(dir.path(), "other", "test-ca").unwrap();
    let request = CertRequest::server("web", ["a.example".into(), "192.0.2.1".into()]);
    let pair = ca.issue(&request).unwrap();
    assert_eq!(ca.stale(&pair, &request), None);
    assert_eq!(other.stale(&pair, &request), Some("another authority signed it"));
    let renamed = CertRequest { common_name: "app".into(), ..request.clone() };
    assert_eq!(ca.stale(&pair, &renamed), Some("it names someone else"));
    let fewer = CertRequest { sans: vec!["a.example".into()], ..request.clone() };
    assert_eq!(ca.stale(&pair, &fewer), Some("its names changed"));
    let both = CertRequest { client: true, ..request.clone() };
    assert_eq!(ca.stale(&pair, &both), Some("its usages changed"));
    let over = CertRequest { days: 0, ..request.clone() };
    let ended = ca.issue(&over).unwrap();
    assert_eq!(ca.stale(&ended, &request), Some("it is near its end"));
    let mixed = CertifiedKey { key_pem: ended.key_pem.clone(), ..pair.clone() };
    assert_eq!(ca.stale(&mixed, &request), Some("the key belongs to another certificate"));
    let torn = CertifiedKey { cert_pem: pair.cert_pem[..100].into(), ..pair };
    assert_eq!(ca.stale(&torn, &request), Some("the certificate is unreadable"));
}

#[test]
fn an_authority_survives_a_crash_between_its_files_but_not_a_lost_key() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::open_or_create(dir.path(), "ca", "test-ca").unwrap();
    let pair = ca.issue(&CertRequest::client("u", &[])).unwrap();
    fs::remove_file(dir.path().join("ca.crt")).unwrap();
    let again = Authority::open_or_create(dir.path(), "ca", "test-ca").unwrap();
    assert!(again.signed(&pair.to_rustls().unwrap().0[0]), "the same key signs on");
    fs::remove_file(dir.path().join("ca.key")).unwrap();
    let error = Authority::open_or_create(dir.path(), "ca", "test-ca").unwrap_err().to_string();
    assert!(error.contains("ca.key: is missing"), "{error}");
}

#[test]
fn a_request_is_signed_with_the_profile_and_not_with_its_wishes() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::open_or_create(dir.path(), "ca", "test-ca").unwrap();
    let profile = CsrProfile { usages: vec![Usage::DigitalSignature, Usage::ServerAuth], seconds: 3600 };
    let cert = ca.sign_csr(NODE_CSR, &profile).unwrap();
    let identity = Identity::from_pem(&cert).unwrap();
    assert_eq!(
        (identity.name.as_str(), &identity.groups[..]),
        ("system:node:n1", &["system:nodes".to_owned()][..])
    );
    assert_eq!(identity.sans.iter().map(String::as_str).collect::<Vec<_>>(), ["10.0.0.1", "n1"]);
    assert!(identity.server && !identity.client && !identity.authority);
    assert_eq!(identity.not_after - identity.not_before, 3600 + 300);
    let mut forged = NODE_CSR.to_owned();
    let at = forged.len() / 2;
    forged.replace_range(at..at + 1, if &forged[at..at + 1] == "A" { "B" } else { "A" });
    assert!(ca.sign_csr(&forged, &profile).is_err());
    assert!(ca.sign_csr("nothing", &profile).is_err());
}

#[test]
fn a_kubeconfig_reads_what_kubectl_writes() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.crt"), "CA").unwrap();
    fs::write(dir.path().join("u.crt"), "CERT").unwrap();
    let text = r#"
apiVersion: v1
kind: Config
preferences: {}
current-context: work
clusters:
- name: far
  cluster: {server: "https://far:6443", certificate-authority: ca.crt, tls-server-name: near}
- {name: loose, cluster: {server: "https://loose", insecure-skip-tls-verify: true}}
contexts:
- {name: work, context: {cluster: far, user: me, namespace: shop}}
- {name: play, context: {cluster: loose, user: bot}}
users:
- name: me
  user: {client-certificate: u.crt, client-key-data: S0VZ}
- {name: bot, user: {token: t0k, tokenFile: here/token}}
"#;
    let read = Kubeconfig::parse(text, dir.path()).unwrap();
    assert_eq!((read.server.as_str(), read.ca_pem.as_deref()), ("https://far:6443", Some("CA")));
    assert_eq!((read.tls_server_name.as_deref(), read.namespace.as_deref()), (Some("near"), Some("shop")));
    let client = read.client.clone().unwrap();
    assert_eq!((client.cert_pem.as_str(), client.key_pem.as_str()), ("CERT", "KEY"));
    let play = Kubeconfig::parse(&text.replace("current-context: work", "current-context: play"), dir.path())
        .unwrap();
    assert!(play.insecure_skip_tls_verify && play.client.is_none());
    assert_eq!(play.token_file, Some(dir.path().join("here/token")));
    assert!(!format!("{play:?}{client:?}").contains("t0k") && !format!("{client:?}").contains("KEY"));

    let path = dir.path().join("out/admin.kubeconfig");
    read.write(&path, &Names { cluster: "c", user: "me" }).unwrap();
    assert_eq!(Kubeconfig::read(&path).unwrap(), read);
}

#[test]
fn a_broken_kubeconfig_says_what_is_wrong() {
    let error = |text: &str| Kubeconfig::parse(text, Path::new("")).unwrap_err().to_string();
    assert_eq!(error("{}"), "kubeconfig: current-context is not set");
    assert_eq!(error("current-context: a"), "kubeconfig: context \"a\" does not exist");
    let contexts = "current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n";
    assert_eq!(error(contexts), "kubeconfig: cluster \"c\" does not exist");
    let clusters = format!("{contexts}clusters: [{{name: c, cluster: {{server: s}}}}]\n");
    assert_eq!(error(&clusters), "kubeconfig: user \"u\" does not exist");
    let half = format!("{clusters}users: [{{name: u, user: {{client-key-data: S0VZ}}}}]\n");
    assert_eq!(error(&half), "kubeconfig: a client certificate needs its key, and a key its certificate");
    let lost = format!("{clusters}users: [{{name: u, user: {{client-key: /nowhere/k}}}}]\n");
    assert_eq!(error(&lost), "reading /nowhere/k");
}

fn claims(issuer: &str, audience: &str) -> Claims {
    let reference = |name: &str| Reference { name: name.into(), uid: format!("{name}-uid") };
    let bound = Bound::Pod(reference("p"), Some(reference("n1")));
    let audiences = vec![audience.to_owned()];
    Claims::for_service_account(issuer, "shop", reference("robot"), bound, audiences, NOW, 3600)
}

#[test]
fn a_token_carries_upstreams_claims() {
    let signer = Signer::from_pem(EC_KEY).unwrap();
    let mut claims = claims("https://kubernetes.default.svc.cluster.local", "api");
    claims.jti = "j".into();
    claims.kubernetes.warnafter = Some(NOW + 3607);
    let token = signer.sign(&claims).unwrap();
    let payload = token.split('.').nth(1).unwrap();
    use base64::Engine;
    let payload =
        String::from_utf8(base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    assert_eq!(
        payload,
        concat!(
            r#"{"aud":["api"],"exp":1800003600,"iat":1800000000,"iss":"https://kubernetes.default.svc.cluster.local","#,
            r#""jti":"j","kubernetes.io":{"namespace":"shop","node":{"name":"n1","uid":"n1-uid"},"#,
            r#""pod":{"name":"p","uid":"p-uid"},"serviceaccount":{"name":"robot","uid":"robot-uid"},"#,
            r#""warnafter":1800003607},"nbf":1800000000,"sub":"system:serviceaccount:shop:robot"}"#
        )
    );
    assert_eq!(token::split_user_name(&claims.sub), Some(("shop", "robot")));
    assert_eq!(token::split_user_name("system:serviceaccount:shop:"), None);
}

#[test]
fn each_bad_token_has_its_own_error() {
    let (signer, rsa) = (Signer::from_pem(EC_KEY).unwrap(), Signer::from_pem(RSA_KEY).unwrap());
    let keys = vec![signer.public().clone(), PublicKey::from_pem(RSA_PUBLIC).unwrap().remove(0)];
    let verifier = Verifier::new(vec!["us".into()], keys, vec!["api".into()]);
    for key in [&signer, &rsa] {
        let good = claims("us", "api");
        let token = key.sign(&good).unwrap();
        assert_eq!(verifier.verify(&token, &[], NOW).unwrap(), good);
        assert_eq!(verifier.verify(&token, &[], NOW + 3660).unwrap(), good, "clocks may differ by a minute");
        assert_eq!(verifier.verify(&token, &[], NOW + 3661), Err(Error::Expired));
        assert_eq!(verifier.verify(&token, &[], NOW - 61), Err(Error::NotValidYet));
        let wanted = || vec!["vault".to_owned()];
        let audience = Error::Audience { token: vec!["api".into()], wanted: wanted() };
        assert_eq!(
            audience.to_string(),
            r#"token audiences ["api"] is invalid for the target audiences ["vault"]"#
        );
        assert_eq!(verifier.verify(&token, &wanted(), NOW), Err(audience));
        let foreign = key.sign(&claims("them", "api")).unwrap();
        assert_eq!(verifier.verify(&foreign, &[], NOW), Err(Error::Issuer("them".into())));
        let (head, mut tail) = (&token[..token.len() - 10], token[token.len() - 10..].to_owned());
        tail.replace_range(0..1, if tail.starts_with('A') { "B" } else { "A" });
        assert_eq!(verifier.verify(&format!("{head}{tail}"), &[], NOW), Err(Error::Signature));
        let swapped = {
            let other = key.sign(&claims("us", "vault")).unwrap();
            let payload = other.split('.').nth(1).unwrap().to_owned();
            let parts: Vec<&str> = token.split('.').collect();
            format!("{}.{payload}.{}", parts[0], parts[2])
        };
        assert_eq!(verifier.verify(&swapped, &[], NOW), Err(Error::Signature));
    }
    for text in ["", "a.b", "a.b.c", "a.b.c.d", "{}"] {
        assert_eq!(verifier.verify(text, &[], NOW), Err(Error::Malformed), "{text:?}");
    }
    let stranger = Signer::from_pem(&Signer::generate_pem().unwrap()).unwrap();
    let token = stranger.sign(&claims("us", "api")).unwrap();
    assert_eq!(verifier.verify(&token, &[], NOW), Err(Error::NoKey));
    // {"alg":"none"} with an empty signature: no key has that algorithm.
    let parts: Vec<&str> = token.split('.').collect();
    let none = format!("eyJhbGciOiJub25lIn0.{}.", parts[1]);
    assert_eq!(verifier.verify(&none, &[], NOW), Err(Error::Signature));
}

#[test]
fn published_keys_are_named_as_upstream_names_them() {
    let rsa = PublicKey::from_pem(RSA_KEY).unwrap().remove(0);
    assert_eq!(PublicKey::from_pem(RSA_PUBLIC).unwrap()[0], rsa, "a private key's public half counts");
    assert_eq!(PublicKey::from_pem(&rsa.to_pem()).unwrap()[0], rsa);
    let ec = Signer::from_pem(EC_KEY).unwrap().public().clone();
    let verifier =
        Verifier::new(vec!["https://us".into()], vec![rsa.clone(), ec.clone(), rsa.clone()], vec![]);
    let jwks: serde_json::Value = serde_json::from_str(&verifier.jwks()).unwrap();
    assert_eq!(jwks["keys"].as_array().unwrap().len(), 2);
    assert_eq!(jwks["keys"][0]["kty"], "RSA");
    assert_eq!(jwks["keys"][0]["e"], "AQAB");
    assert_eq!(jwks["keys"][0]["n"].as_str().unwrap().len(), 342);
    assert_eq!(jwks["keys"][1]["crv"], "P-256");
    assert_eq!(jwks["keys"][1]["kid"], ec.kid());
    assert_eq!(
        verifier.discovery("https://us/openid/v1/jwks"),
        concat!(
            r#"{"issuer":"https://us","jwks_uri":"https://us/openid/v1/jwks","response_types_supported":["id_token"],"#,
            r#""subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256","RS256"]}"#
        )
    );
    // `openssl rsa -pubin -outform der | sha256sum`, in unpadded base64url.
    assert_eq!(rsa.kid(), include_str!("data/rsa.kid").trim());
}

#[test]
fn bootstrap_tokens_have_their_shape() {
    let token = bootstrap::Token::generate();
    assert_eq!(bootstrap::Token::parse(&token.reveal()), Some(token.clone()));
    assert!(!format!("{token:?}").contains(&token.secret));
    assert_eq!(
        bootstrap::Token::parse("abcdef.0123456789abcdef").unwrap().secret_name(),
        "bootstrap-token-abcdef"
    );
    for bad in
        ["abcdef", "abcde.0123456789abcdef", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde", "a.b.c"]
    {
        assert_eq!(bootstrap::Token::parse(bad), None, "{bad}");
    }
}
