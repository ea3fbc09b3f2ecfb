//! The objects that a cluster has because its DNS and its nodes are built in.

use crate::server::ServerArgs;
use anyhow::{Context, Result};
use bytes::Bytes;
use client::Client;

/// Name, in upstream's words, of the objects' field manager.
const MANAGER: &str = "timonel";

/// Each object's path below the API server's root, and its YAML.
fn objects(args: &ServerArgs) -> Vec<(&'static str, String)> {
    let dns =
        include_str!("../manifests/kube-dns.yaml").replace("CLUSTER_DNS", &args.cluster_dns.to_string());
    vec![
        (
            "/api/v1/namespaces/kube-system/serviceaccounts/coredns",
            include_str!("../manifests/coredns-account.yaml").into(),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:coredns",
            include_str!("../manifests/coredns-role.yaml").into(),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:coredns",
            include_str!("../manifests/coredns-binding.yaml").into(),
        ),
        ("/api/v1/namespaces/kube-system/services/kube-dns", dns),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/timonel:local-path",
            include_str!("../manifests/local-path-role.yaml").into(),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/timonel:local-path",
            include_str!("../manifests/local-path-binding.yaml").into(),
        ),
    ]
}

/// The class of volumes that nodes keep as directories. It is made once and then the administrator's, who may want
/// another default.
async fn ensure_local_path(admin: &Client) -> Result<()> {
    let path = "/apis/storage.k8s.io/v1/storageclasses";
    let request = http::Request::post(format!("{path}?fieldManager={MANAGER}"))
        .header(http::header::CONTENT_TYPE, "application/yaml")
        .header(http::header::ACCEPT, "application/json")
        .body(Bytes::from_static(include_bytes!("../manifests/local-path-class.yaml")))
        .context("building a request")?;
    let answer = admin.raw(request).await.context("creating the class local-path")?;
    let code = answer.status();
    if code.is_success() || code == http::StatusCode::CONFLICT {
        return Ok(());
    }
    let body = http_body_util::BodyExt::collect(answer.into_body()).await?.to_bytes();
    anyhow::bail!("creating the class local-path: {code}: {}", String::from_utf8_lossy(&body));
}

/// Applies them, taking back what was changed by hand: they belong to this program.
pub async fn apply(admin: &Client, args: &ServerArgs) -> Result<()> {
    for (path, yaml) in objects(args) {
        let request = http::Request::patch(format!("{path}?fieldManager={MANAGER}&force=true"))
            .header(http::header::CONTENT_TYPE, "application/apply-patch+yaml")
            .header(http::header::ACCEPT, "application/json")
            .body(Bytes::from(yaml))
            .context("building a request")?;
        let answer = admin.raw(request).await.with_context(|| format!("applying {path}"))?;
        let code = answer.status();
        if !code.is_success() {
            let body = http_body_util::BodyExt::collect(answer.into_body()).await?.to_bytes();
            anyhow::bail!("applying {path}: {code}: {}", String::from_utf8_lossy(&body));
        }
    }
    ensure_local_path(admin).await
}
