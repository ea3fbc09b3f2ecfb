//! Who asks: by client certificate, by token, or nobody in particular.
//!
//! Invariant: credentials that are presented and do not hold refuse the request; only a request without any is anonymous.

use crate::objects;
use anyhow::{Context, Result};
use api::core::v1::{Node, Pod, Secret, ServiceAccount};
use api::errors::ApiError;
use futures::future::BoxFuture;
use http::HeaderMap;
use meta::ObjectKey;
use pki::legacy_token;
use pki::token::{self, Claims, Verifier};
use registry::{Registry, UserInfo};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";
const LEGACY_LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const LEGACY_INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
/// Longest token file, in lines.
const MAX_STATIC_TOKENS: usize = 10_000;

/// What the TLS handshake found out about the peer.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The certificate, if one was shown and holds; or why it does not.
    pub certificate: Option<Result<Arc<pki::Identity>, String>>,
    /// The certificate was signed by the CA of the front proxy, and may speak for others.
    pub front_proxy: Option<Arc<pki::Identity>>,
    /// Where the connection came from.
    pub address: Option<std::net::IpAddr>,
}

/// Names in which a front proxy tells for whom it speaks.
#[derive(Clone, Debug, Default)]
pub struct RequestHeader {
    pub allowed_names: Vec<String>,
    pub username: Vec<String>,
    pub uid: Vec<String>,
    pub group: Vec<String>,
    pub extra_prefix: Vec<String>,
}

/// All authenticators of one server.
pub struct Authenticator {
    pub registry: Arc<Registry>,
    pub verifier: Option<Verifier>,
    pub static_tokens: HashMap<String, UserInfo>,
    pub anonymous: bool,
    pub bootstrap_tokens: bool,
    pub request_header: Option<RequestHeader>,
}

pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

fn unauthorized() -> ApiError {
    ApiError::unauthorized("Unauthorized")
}

impl Authenticator {
    /// The user behind a request.
    pub fn authenticate<'a>(
        &'a self,
        peer: &'a Peer,
        headers: &'a HeaderMap,
    ) -> BoxFuture<'a, Result<UserInfo, ApiError>> {
        Box::pin(self.judge(peer, headers))
    }

    async fn judge(&self, peer: &Peer, headers: &HeaderMap) -> Result<UserInfo, ApiError> {
        if let Some(user) = self.by_front_proxy(peer, headers) {
            return Ok(authenticated(user));
        }
        let mut failed = false;
        match &peer.certificate {
            Some(Ok(identity)) if !identity.name.is_empty() => {
                let fresh = identity.not_after >= now();
                if fresh && identity.client {
                    return Ok(authenticated(by_certificate(identity)));
                }
                failed = true;
            }
            Some(Err(reason)) => {
                tracing::debug!(reason, "Refused a client certificate");
                failed = true;
            }
            _ => {}
        }
        if let Some(token) = bearer(headers) {
            let (user, _) = self.by_token(token, &[]).await.map_err(|reason| {
                tracing::debug!(reason, "Refused a token");
                unauthorized()
            })?;
            return Ok(user);
        }
        if failed || !self.anonymous {
            return Err(unauthorized());
        }
        Ok(UserInfo { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..UserInfo::default() })
    }

    fn by_front_proxy(&self, peer: &Peer, headers: &HeaderMap) -> Option<UserInfo> {
        let (rules, identity) = (self.request_header.as_ref()?, peer.front_proxy.as_ref()?);
        if !rules.allowed_names.is_empty() && !rules.allowed_names.contains(&identity.name) {
            return None;
        }
        let text = |name: &String| headers.get(name).and_then(|value| value.to_str().ok());
        let name = rules.username.iter().find_map(text).filter(|name| !name.is_empty())?;
        let groups = rules.group.iter().flat_map(|name| headers.get_all(name));
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (header, value) in headers {
            let prefix = rules
                .extra_prefix
                .iter()
                .find_map(|prefix| header.as_str().strip_prefix(prefix.to_ascii_lowercase().as_str()));
            if let (Some(key), Ok(value)) = (prefix, value.to_str()) {
                let key = crate::query::percent_decode(key, false).unwrap_or_else(|| key.into());
                extra.entry(key).or_default().push(value.into());
            }
        }
        Some(UserInfo {
            name: name.into(),
            groups: groups.filter_map(|value| value.to_str().ok()).map(str::to_string).collect(),
            extra,
            uid: rules.uid.iter().find_map(text).unwrap_or_default().into(),
        })
    }

    /// The user of a token and the audiences it is good for, or why it does not count. No audiences: the server's own.
    pub async fn by_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<(UserInfo, Vec<String>), String> {
        if let Some(user) = self.static_tokens.get(token) {
            return Ok((authenticated(user.clone()), audiences.to_vec()));
        }
        if self.bootstrap_tokens
            && let Some(parsed) = pki::bootstrap::Token::parse(token)
        {
            return Ok((authenticated(self.by_bootstrap_token(&parsed).await?), audiences.to_vec()));
        }
        let verifier = self.verifier.as_ref().ok_or("no authenticator knows this token")?;
        let claims = match verifier.verify(token, audiences, now()) {
            // A token of the old sort is good for this server only.
            Err(token::Error::Issuer(issuer)) if issuer == legacy_token::ISSUER => {
                let own = verifier.audiences();
                if !audiences.is_empty() && !audiences.iter().any(|audience| own.contains(audience)) {
                    return Err("the token is not for these audiences".into());
                }
                let claims = verifier.verify_legacy(token).map_err(|error| error.to_string())?;
                let good_for = own.iter().filter(|own| audiences.contains(own)).cloned().collect();
                return Ok((authenticated(self.by_legacy_claims(token, &claims).await?), good_for));
            }
            verified => verified.map_err(|error| error.to_string())?,
        };
        let good_for = verifier.matching_audiences(&claims, audiences);
        Ok((authenticated(self.by_claims(&claims).await?), good_for))
    }

    /// A service account's token counts while the account, and what the token is bound to, live.
    async fn by_claims(&self, claims: &Claims) -> Result<UserInfo, String> {
        let (namespace, account) = (&claims.kubernetes.namespace, &claims.kubernetes.serviceaccount);
        let live = self.live::<ServiceAccount>(namespace, &account.name, "service account").await?;
        if live.metadata.uid != account.uid {
            return Err(format!(
                "service account UID ({}) does not match claim ({})",
                live.metadata.uid, account.uid
            ));
        }
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut note = |key: &str, value: &str| {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_string()]);
        };
        if let Some(reference) = &claims.kubernetes.secret {
            let secret = self.live::<Secret>(namespace, &reference.name, "secret").await?;
            if secret.metadata.uid != reference.uid {
                return Err("secret UID does not match the token's".into());
            }
        }
        if let Some(reference) = &claims.kubernetes.pod {
            let pod = self.live::<Pod>(namespace, &reference.name, "pod").await?;
            let gone = pod.metadata.deletion_timestamp.is_some_and(|at| at.seconds() + 60 < now());
            if pod.metadata.uid != reference.uid || gone {
                return Err("the token's pod is no more".into());
            }
            note("pod-name", &reference.name);
            note("pod-uid", &reference.uid);
        }
        if let Some(reference) = &claims.kubernetes.node {
            // Bound to the node alone, the token dies with it; beside a pod it only tells where the pod runs.
            if claims.kubernetes.pod.is_none() {
                let node = self.live::<Node>("", &reference.name, "node").await?;
                if node.metadata.uid != reference.uid {
                    return Err("the token's node is no more".into());
                }
            }
            note("node-name", &reference.name);
            if !reference.uid.is_empty() {
                note("node-uid", &reference.uid);
            }
        }
        if let Some(id) = claims.credential_id() {
            note("credential-id", &id);
        }
        Ok(UserInfo {
            name: token::user_name(namespace, &account.name),
            uid: account.uid.clone(),
            groups: token::groups(namespace).to_vec(),
            extra,
        })
    }

    /// A token of the old sort counts while its Secret holds it, nothing has invalidated it, and its account lives.
    async fn by_legacy_claims(&self, token: &str, claims: &legacy_token::Claims) -> Result<UserInfo, String> {
        let namespace = &claims.namespace;
        let secret = self.live::<Secret>(namespace, &claims.secret, "secret").await?;
        if secret.metadata.deletion_timestamp.is_some() {
            return Err("Token has been invalidated".into());
        }
        let held = secret.data.get("token").map(|held| String::from_utf8_lossy(held).into_owned());
        if !held.is_some_and(|held| constant_time_equal(&held, token)) {
            return Err("Token does not match server's copy".into());
        }
        let account = self.live::<ServiceAccount>(namespace, &claims.account, "service account").await?;
        if account.metadata.deletion_timestamp.is_some() || account.metadata.uid != claims.account_uid {
            return Err(format!(
                "ServiceAccount UID ({}) does not match claim ({})",
                account.metadata.uid, claims.account_uid
            ));
        }
        if secret.metadata.labels.contains_key(LEGACY_INVALID_SINCE) {
            return Err(format!("the token in secret {namespace}/{} has been marked invalid", claims.secret));
        }
        self.note_use(&secret).await;
        Ok(UserInfo {
            name: token::user_name(namespace, &claims.account),
            uid: claims.account_uid.clone(),
            groups: token::groups(namespace).to_vec(),
            extra: BTreeMap::new(),
        })
    }

    /// Notes on the Secret, once a day, that its token is in use: what is not used is cleaned up some day.
    async fn note_use(&self, secret: &Secret) {
        let today = crate::verbs::now().0.strftime("%Y-%m-%d").to_string();
        if secret.metadata.labels.get(LEGACY_LAST_USED) == Some(&today) {
            return;
        }
        let key = ObjectKey::new(secret.metadata.namespace.clone(), secret.metadata.name.clone());
        let note = |stored: &mut dyn api::Object| {
            stored.metadata_mut().labels.insert(LEGACY_LAST_USED.into(), today.clone());
            Ok(())
        };
        let request = registry::Request::internal("kube-apiserver");
        let resource = objects::resource_of::<Secret>();
        let kind = registry::UpdateKind::Spec;
        if let Err(error) = self.registry.modify(&request, resource, &key, kind, &note).await {
            tracing::debug!(secret = %key, cause = %error, "Failed to note the use of a token");
        }
    }

    async fn by_bootstrap_token(&self, token: &pki::bootstrap::Token) -> Result<UserInfo, String> {
        let secret =
            self.live::<Secret>(pki::bootstrap::SECRET_NAMESPACE, &token.secret_name(), "secret").await?;
        let text = |key: &str| secret.data.get(key).map(|value| String::from_utf8_lossy(value).into_owned());
        let same = text("token-secret").is_some_and(|known| constant_time_equal(&known, &token.secret))
            && text("token-id").is_some_and(|known| known == token.id)
            && secret.r#type == pki::bootstrap::SECRET_TYPE
            && secret.metadata.deletion_timestamp.is_none();
        let expired = text("expiration")
            .and_then(|text| meta::Time::parse(&text))
            .is_some_and(|until| until.seconds() < now());
        if !same || expired || text("usage-bootstrap-authentication").as_deref() != Some("true") {
            return Err("the bootstrap token does not hold".into());
        }
        let mut groups = vec![pki::bootstrap::GROUP.to_string()];
        groups.extend(
            text("auth-extra-groups")
                .unwrap_or_default()
                .split(',')
                .filter(|group| group.starts_with("system:bootstrappers:"))
                .map(str::to_string),
        );
        Ok(UserInfo {
            name: format!("{}{}", pki::bootstrap::USER_PREFIX, token.id),
            groups,
            ..UserInfo::default()
        })
    }

    async fn live<T: api::Object + api::Typed + Clone>(
        &self,
        namespace: &str,
        name: &str,
        what: &str,
    ) -> Result<T, String> {
        let key = ObjectKey::new(namespace, name);
        match objects::get::<T>(&self.registry, &key).await {
            Ok(Some(object)) => Ok(object),
            Ok(None) => Err(format!("{what} {key} not found")),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Compares without telling by its duration where two secrets differ.
fn constant_time_equal(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

fn authenticated(mut user: UserInfo) -> UserInfo {
    if user.name != ANONYMOUS && !user.groups.iter().any(|group| group == AUTHENTICATED) {
        user.groups.push(AUTHENTICATED.into());
    }
    user
}

fn by_certificate(identity: &pki::Identity) -> UserInfo {
    UserInfo {
        name: identity.name.clone(),
        groups: identity.groups.clone(),
        extra: BTreeMap::from([(CREDENTIAL_ID.into(), vec![identity.credential_id.clone()])]),
        ..UserInfo::default()
    }
}

/// The token of an Authorization header, or of the subprotocol by which browsers send one with a WebSocket.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Reads `--token-auth-file`: `token,user,uid,"group1,group2"` a line.
pub fn read_static_tokens(path: &Path) -> Result<HashMap<String, UserInfo>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("--token-auth-file: cannot read {}", path.display()))?;
    let mut out = HashMap::new();
    for (at, line) in text.lines().enumerate().take(MAX_STATIC_TOKENS) {
        if line.trim().is_empty() {
            continue;
        }
        let columns = csv(line);
        if columns.len() < 3 || columns[0].is_empty() || columns[1].is_empty() {
            anyhow::bail!(
                "--token-auth-file: {} line {} must have at least 3 columns (token, user name, user uid)",
                path.display(),
                at + 1
            );
        }
        let groups = columns.get(3).map(String::as_str).unwrap_or_default();
        out.insert(
            columns[0].clone(),
            UserInfo {
                name: columns[1].clone(),
                uid: columns[2].clone(),
                groups: groups.split(',').filter(|group| !group.is_empty()).map(str::to_string).collect(),
                ..UserInfo::default()
            },
        );
    }
    Ok(out)
}

fn csv(line: &str) -> Vec<String> {
    let (mut out, mut quoted) = (vec![String::new()], false);
    for character in line.trim().chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(String::new()),
            _ => out.last_mut().expect("there is always a column").push(character),
        }
    }
    out.into_iter().map(|column| column.trim().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_files_are_read_with_their_quotes() {
        assert_eq!(csv(r#"t0k,jane,7,"dev,ops""#), ["t0k", "jane", "7", "dev,ops"]);
        assert!(constant_time_equal("abc", "abc") && !constant_time_equal("abc", "abd"));
    }
}
