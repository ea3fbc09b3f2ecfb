//! Bad input gets upstream's code and reason, and the server goes on.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use e2e::cluster::Cluster;
use e2e::output;
use pki::Signer;
use pki::token::Claims;
use std::process::Command;

struct Case {
    what: &'static str,
    method: &'static str,
    path: &'static str,
    media: &'static str,
    body: Vec<u8>,
    code: u16,
    reason: &'static str,
    /// A part of the message.
    says: &'static str,
}

fn case(
    what: &'static str,
    method: &'static str,
    path: &'static str,
    body: &str,
    code: u16,
    reason: &'static str,
    says: &'static str,
) -> Case {
    Case { what, method, path, media: "application/json", body: body.into(), code, reason, says }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const STRICT: &str = "/api/v1/namespaces/default/configmaps?fieldValidation=Strict";

fn cases() -> Vec<Case> {
    let map =
        |rest: &str| format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"bad"}}{rest}}}"#);
    let mut cases = vec![
        case("malformed JSON", "POST", MAPS, "{", 400, "BadRequest", "unexpected end of JSON input"),
        case(
            "a wrong type",
            "POST",
            MAPS,
            &map(r#","data":[1]"#),
            400,
            "BadRequest",
            "cannot unmarshal array",
        ),
        case(
            "another kind",
            "POST",
            MAPS,
            r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}"#,
            400,
            "BadRequest",
            "ConfigMap",
        ),
        case(
            "an unknown field",
            "POST",
            STRICT,
            &map(r#","dta":{}"#),
            400,
            "BadRequest",
            r#"unknown field "dta""#,
        ),
        case(
            "a field twice",
            "POST",
            STRICT,
            &map(r#","data":{},"data":{}"#),
            400,
            "BadRequest",
            r#"duplicate field "data""#,
        ),
        case(
            "an unknown validation",
            "POST",
            "/api/v1/namespaces/default/configmaps?fieldValidation=Strange",
            &map(""),
            422,
            "Invalid",
            "fieldValidation",
        ),
        case(
            "a bad name",
            "POST",
            MAPS,
            &map("").replace("bad", "Bad_Name"),
            422,
            "Invalid",
            "a lowercase RFC 1123 subdomain",
        ),
        case(
            "a bad label",
            "POST",
            MAPS,
            &map("").replace(r#""name":"bad""#, r#""name":"bad","labels":{"-a":"b"}"#),
            422,
            "Invalid",
            "metadata.labels",
        ),
        case(
            "no name",
            "POST",
            MAPS,
            &map("").replace(r#""name":"bad""#, ""),
            422,
            "Invalid",
            "name or generateName is required",
        ),
        case(
            "a bad label selector",
            "GET",
            "/api/v1/pods?labelSelector=a%20b",
            "",
            400,
            "BadRequest",
            "unable to parse requirement",
        ),
        case(
            "a bad field selector",
            "GET",
            "/api/v1/pods?fieldSelector=spec.nothing%3Dx",
            "",
            400,
            "BadRequest",
            "field label not supported",
        ),
        case("an unknown resource", "GET", "/api/v1/nothings", "", 404, "", "404 page not found"),
        case(
            "an absent object",
            "GET",
            "/api/v1/namespaces/default/configmaps/absent",
            "",
            404,
            "NotFound",
            r#"configmaps "absent" not found"#,
        ),
        case(
            "an absent namespace",
            "POST",
            "/api/v1/namespaces/absent/configmaps",
            &map(""),
            404,
            "NotFound",
            r#"namespaces "absent" not found"#,
        ),
        case(
            "a bad revision",
            "GET",
            "/api/v1/pods?resourceVersion=x",
            "",
            500,
            "",
            r#"resourceVersion: Invalid value: "x""#,
        ),
        case("a method it has not", "PUT", "/api/v1/pods", "{}", 405, "", "405: Method Not Allowed"),
        case(
            "a dry run of some sort",
            "POST",
            "/api/v1/namespaces/default/configmaps?dryRun=some",
            &map(""),
            422,
            "Invalid",
            "dryRun",
        ),
        case(
            "an empty pod",
            "POST",
            "/api/v1/namespaces/default/pods",
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"spec":{"containers":[]}}"#,
            422,
            "Invalid",
            "spec.containers: Required value",
        ),
    ];
    cases.push(Case {
        media: "text/plain",
        ..case("an unknown media type", "POST", MAPS, "x", 415, "UnsupportedMediaType", "unknown format")
    });
    cases.push(Case {
        media: "application/yaml",
        ..case("malformed YAML", "POST", MAPS, "a: [", 400, "BadRequest", "YAML")
    });
    cases.push(Case {
        media: "application/vnd.kubernetes.protobuf",
        ..case("malformed protobuf", "POST", MAPS, "k8s\0\u{7}\u{7}", 400, "BadRequest", "")
    });
    let large = map(&format!(r#","data":{{"x":"{}"}}"#, "x".repeat(4 << 20)));
    cases.push(case(
        "four megabytes",
        "POST",
        MAPS,
        &large,
        413,
        "RequestEntityTooLarge",
        "Request entity too large",
    ));
    cases
}

/// The answer's code and Status, over curl with the administrator's certificate.
fn ask(cluster: &Cluster, case: &Case, credentials: &[String]) -> Result<(u16, serde_json::Value)> {
    let folder = tempfile::tempdir()?;
    let (body, answer) = (folder.path().join("body"), folder.path().join("answer"));
    std::fs::write(&body, &case.body)?;
    let server =
        cluster.kubectl(&["config", "view", "--raw", "-o=jsonpath={.clusters[0].cluster.server}"])?;
    let mut command = Command::new("curl");
    command.args([
        "-sk",
        "-X",
        case.method,
        "-H",
        &format!("Content-Type: {}", case.media),
        "-w",
        "%{http_code}",
        "-o",
    ]);
    command.arg(&answer).args(credentials);
    if case.method != "GET" {
        command.arg("--data-binary").arg(format!("@{}", body.display()));
    }
    let code = output(command.arg(format!("{server}{}", case.path)))?;
    let text = std::fs::read(&answer).unwrap_or_default();
    // A path or method that leads nowhere is answered in plain text, as upstream's is.
    let plain = || serde_json::json!({"message": String::from_utf8_lossy(&text)});
    let status = serde_json::from_slice(&text).unwrap_or_else(|_| plain());
    Ok((code.parse()?, status))
}

fn administrator(cluster: &Cluster, folder: &std::path::Path) -> Result<Vec<String>> {
    let mut credentials = Vec::new();
    for (flag, field) in [("--cert", "client-certificate-data"), ("--key", "client-key-data")] {
        let text = cluster.kubectl(&[
            "config",
            "view",
            "--raw",
            &format!("-o=jsonpath={{.users[0].user.{field}}}"),
        ])?;
        let path = folder.join(field);
        let encoded = folder.join("encoded");
        std::fs::write(&encoded, text)?;
        std::fs::write(&path, output(Command::new("base64").arg("-d").arg(&encoded))?)?;
        credentials.extend([flag.to_string(), path.display().to_string()]);
    }
    Ok(credentials)
}

fn check(case: &Case, code: u16, status: &serde_json::Value) -> Result<()> {
    let (reason, message) =
        (status["reason"].as_str().unwrap_or_default(), status["message"].as_str().unwrap_or_default());
    ensure!(
        code == case.code && reason == case.reason && message.contains(case.says),
        "{}: expected {} {} saying {:?}, got {code} {reason}: {message}",
        case.what,
        case.code,
        case.reason,
        case.says
    );
    Ok(())
}

pub fn refused(cluster: &Cluster) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let credentials = administrator(cluster, folder.path())?;
    let mut faults = Vec::new();
    for case in cases() {
        let result = ask(cluster, &case, &credentials).and_then(|(code, status)| check(&case, code, &status));
        faults.extend(result.err().map(|error| format!("{error:#}")));
    }
    faults.extend(lenient(cluster, &credentials).err().map(|error| format!("lenient validation: {error:#}")));
    faults.extend(stale(cluster).err().map(|error| format!("stale revision: {error:#}")));
    faults.extend(strangers(cluster).err().map(|error| format!("{error:#}")));
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    ensure!(cluster.kubectl(&["get", "--raw", "/readyz"])? == "ok", "the server is harmed");
    Ok(())
}

/// What a strict server refuses, a lenient one takes, with a warning or without a word.
fn lenient(cluster: &Cluster, credentials: &[String]) -> Result<()> {
    let json =
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"dta":{},"data":{},"data":{}}"#;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndta: {}\n";
    let strict = ["unknown field \"dta\"", "duplicate field \"data\""];
    for (validation, media, body, code, said) in [
        ("Warn", "application/json", json, 201, &strict[..]),
        ("Ignore", "application/json", json, 201, &[]),
        ("", "application/json", json, 201, &strict[..]),
        ("Warn", "application/yaml", yaml, 201, &strict[..1]),
        ("Ignore", "application/yaml", yaml, 201, &[]),
    ] {
        let path = format!("{MAPS}?dryRun=All&fieldValidation={validation}");
        let case = Case {
            media,
            body: body.into(),
            ..case("", "POST", Box::leak(path.into_boxed_str()), "", code, "", "")
        };
        let folder = tempfile::tempdir()?;
        let headers = folder.path().join("headers");
        let dump = ["-D".to_string(), headers.display().to_string()];
        let (answered, status) = ask(cluster, &case, &[credentials, &dump].concat())?;
        let heard: Vec<String> = std::fs::read_to_string(&headers)?
            .lines()
            .filter(|line| line.to_ascii_lowercase().starts_with("warning: "))
            .map(|line| line.replace('\\', ""))
            .collect();
        ensure!(
            answered == code && heard.len() == said.len(),
            "fieldValidation {validation:?} of {media} answered {answered} with warnings {heard:?}: {status}"
        );
        for (heard, said) in heard.iter().zip(said) {
            ensure!(
                heard.contains("299 - ") && heard.contains(said),
                "the warning {heard:?} says no {said:?}"
            );
        }
    }
    Ok(())
}

fn stale(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "configmap", "stale", "--from-literal=a=1"])?;
    let old = cluster.kubectl(&["get", "configmap", "stale", "-o", "json"])?;
    cluster.kubectl(&["label", "configmap", "stale", "x=y"])?;
    let refused =
        cluster.kubectl_with_input(&["replace", "-f", "-"], &old.replace(r#""a": "1""#, r#""a": "2""#));
    cluster.kubectl(&["delete", "configmap", "stale"])?;
    let text = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(
        text.contains("the object has been modified; please apply your changes to the latest version"),
        "got {text:?}"
    );
    Ok(())
}

/// A token's claims, changed and signed with the server's own key: the signature is then not what it fails at.
fn resigned(cluster: &Cluster, token: &str, change: impl FnOnce(&mut Claims)) -> Result<String> {
    let payload = token.split('.').nth(1).context("a token has three parts")?;
    let mut claims: Claims = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload)?)?;
    change(&mut claims);
    let key = std::fs::read_to_string(cluster.data().join("pki/sa.key"))?;
    Ok(Signer::from_pem(&key)?.sign(&claims)?)
}

/// Nobody, and tokens that are none.
fn strangers(cluster: &Cluster) -> Result<()> {
    let pods = case(
        "anonymous",
        "GET",
        "/api/v1/pods",
        "",
        403,
        "Forbidden",
        r#"pods is forbidden: User "system:anonymous" cannot list resource "pods""#,
    );
    let (code, status) = ask(cluster, &pods, &[])?;
    check(&pods, code, &status)?;
    let token = cluster.kubectl(&["create", "token", "default", "--duration=10m"])?;
    let bearer = |token: &str| vec!["-H".to_string(), format!("Authorization: Bearer {}", token.trim())];
    let own = Case {
        what: "a service account without permission",
        says: r#"User "system:serviceaccount:default:default" cannot list resource "pods""#,
        ..case("", "GET", "/api/v1/pods", "", 403, "Forbidden", "")
    };
    let (code, status) = ask(cluster, &own, &bearer(&token))?;
    check(&own, code, &status)?;
    let again = resigned(cluster, token.trim(), |_| {})?;
    let (code, status) = ask(cluster, &own, &bearer(&again))?;
    check(&own, code, &status).context("the same claims, signed by this test with the server's key")?;
    let mut forged: Vec<char> = token.trim().chars().collect();
    let last = forged.len() - 10;
    forged[last] = if forged[last] == 'A' { 'B' } else { 'A' };
    for (what, token) in [
        ("a forged token", forged.into_iter().collect::<String>()),
        ("no token at all", "nonsense".to_string()),
        (
            "an expired token",
            resigned(cluster, token.trim(), |claims| claims.exp = claims.iat.map(|at| at - 600))?,
        ),
    ] {
        let refused =
            Case { what, ..case("", "GET", "/api/v1/pods", "", 401, "Unauthorized", "Unauthorized") };
        let (code, status) = ask(cluster, &refused, &bearer(&token))?;
        check(&refused, code, &status)?;
    }
    Ok(())
}
