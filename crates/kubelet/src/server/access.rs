//! Who calls the kubelet, and whether they may: client certificates, tokens by TokenReview, SubjectAccessReview.

use super::text;
use crate::Context;
use api::authentication::v1::TokenReview;
use api::authorization::v1::{ResourceAttributes, SubjectAccessReview};
use client::Body;
use http::{HeaderMap, Method, Response, StatusCode, header};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the API server's word is trusted; upstream's times.
const ALLOWED: Duration = Duration::from_secs(300);
const DENIED: Duration = Duration::from_secs(30);
const TOKENS: Duration = Duration::from_secs(120);
/// Answers kept; beyond it all are forgotten, which costs one question each.
const KEPT_MAX: usize = 4096;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct User {
    name: String,
    groups: Vec<String>,
}

type Question = (User, String, String);

pub struct Access {
    ctx: Arc<Context>,
    users: Mutex<HashMap<String, (Instant, User)>>,
    answers: Mutex<HashMap<Question, (Instant, bool)>>,
}

impl Access {
    pub fn new(ctx: Arc<Context>) -> Self {
        Access { ctx, users: Mutex::default(), answers: Mutex::default() }
    }

    /// `Err` is the answer to one who may not.
    pub async fn check(
        &self,
        peer: Option<&pki::Identity>,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(), Response<Body>> {
        let Some(user) = self.user(peer, headers).await else {
            return Err(text(StatusCode::UNAUTHORIZED, "Unauthorized"));
        };
        if self.ctx.settings.always_allow {
            return Ok(());
        }
        let verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "get",
        };
        let asked = subresources(path);
        for subresource in &asked {
            match self.may(&user, verb, subresource).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    let words = format!(
                        "Authorization error (user={}, verb={verb}, resource=nodes, subresource={asked:?}): {error}",
                        user.name
                    );
                    return Err(text(StatusCode::INTERNAL_SERVER_ERROR, &words));
                }
            }
        }
        let words = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n",
            user.name,
            asked.join(" ")
        );
        Err(text(StatusCode::FORBIDDEN, &words))
    }

    async fn user(&self, peer: Option<&pki::Identity>, headers: &HeaderMap) -> Option<User> {
        let with = |name: &str, mut groups: Vec<String>| {
            groups.push("system:authenticated".into());
            User { name: name.into(), groups }
        };
        // The handshake has checked the chain; a certificate for servers proves no user.
        if let Some(peer) = peer.filter(|peer| peer.client && !peer.name.is_empty()) {
            return Some(with(&peer.name, peer.groups.clone()));
        }
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Some(token) = value.and_then(|value| value.strip_prefix("Bearer ")) {
            return self.token_user(token.trim()).await;
        }
        let anonymous =
            User { name: "system:anonymous".into(), groups: vec!["system:unauthenticated".into()] };
        self.ctx.settings.anonymous.then_some(anonymous)
    }

    async fn token_user(&self, token: &str) -> Option<User> {
        if let Some((since, user)) = self.users.lock().get(token)
            && since.elapsed() < TOKENS
        {
            return Some(user.clone());
        }
        let mut review = TokenReview::default();
        review.spec.token = token.into();
        let answer: TokenReview = match self.ctx.client.create(&review).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(error = %error.chain(), "Failed to review a caller's token");
                return None;
            }
        };
        if !answer.status.authenticated {
            return None;
        }
        let user = User { name: answer.status.user.username, groups: answer.status.user.groups };
        let mut users = self.users.lock();
        if users.len() >= KEPT_MAX {
            users.clear();
        }
        users.insert(token.into(), (Instant::now(), user.clone()));
        Some(user)
    }

    async fn may(&self, user: &User, verb: &str, subresource: &str) -> Result<bool, String> {
        // Upstream's API servers carry this group; it may do everything, everywhere.
        if user.groups.iter().any(|group| group == "system:masters") {
            return Ok(true);
        }
        let question = (user.clone(), verb.to_string(), subresource.to_string());
        if let Some((since, allowed)) = self.answers.lock().get(&question)
            && since.elapsed() < if *allowed { ALLOWED } else { DENIED }
        {
            return Ok(*allowed);
        }
        let mut review = SubjectAccessReview::default();
        review.spec.user = user.name.clone();
        review.spec.groups = user.groups.clone();
        review.spec.resource_attributes = Some(Box::new(ResourceAttributes {
            verb: verb.into(),
            version: "v1".into(),
            resource: "nodes".into(),
            subresource: subresource.into(),
            name: self.ctx.settings.node_name.clone(),
            ..Default::default()
        }));
        let answer: SubjectAccessReview =
            self.ctx.client.create(&review).await.map_err(|error| error.chain())?;
        let mut answers = self.answers.lock();
        if answers.len() >= KEPT_MAX {
            answers.clear();
        }
        answers.insert(question, (Instant::now(), answer.status.allowed));
        Ok(answer.status.allowed)
    }
}

/// The node's subresources of which any one opens a path.
fn subresources(path: &str) -> Vec<&'static str> {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "stats" => vec!["stats"],
        "metrics" => vec!["metrics"],
        "logs" => vec!["log"],
        "pods" | "runningpods" => vec!["pods", "proxy"],
        "healthz" => vec!["healthz", "proxy"],
        "configz" => vec!["configz", "proxy"],
        _ => vec!["proxy"],
    }
}
