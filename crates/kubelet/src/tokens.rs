//! Service account tokens for pods: asked of the API server, bound to the pod, renewed before they end.

use crate::Context;
use api::authentication::v1::{BoundObjectReference, TokenRequest};
use api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use meta::ObjectKey;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;

/// What upstream asks for where the volume does not say.
const DEFAULT_SECONDS: i64 = 3600;
/// A token is renewed after four fifths of its life, and at the latest after a day.
const RENEW_AFTER_MAX_SECONDS: i64 = 24 * 3600;
/// No token is renewed more often than this.
const RENEW_MIN: Duration = Duration::from_secs(30);

/// Whose token, for whom, for how long.
type Key = (String, String, i64);

struct Held {
    token: String,
    issued: i64,
    expires: i64,
}

/// Tokens in use, by pod.
#[derive(Default)]
pub struct Tokens {
    held: Mutex<BTreeMap<Key, Held>>,
}

/// How long after its issue a token of this life is renewed.
fn renew_after(life_seconds: i64) -> i64 {
    (life_seconds * 4 / 5).min(RENEW_AFTER_MAX_SECONDS)
}

fn seconds(projection: &ServiceAccountTokenProjection) -> i64 {
    projection.expiration_seconds.unwrap_or(DEFAULT_SECONDS)
}

/// When the tokens of a pod are due again; `None` for a pod without tokens.
pub fn refresh_after(pod: &Pod) -> Option<Duration> {
    let projections = pod
        .spec
        .volumes
        .iter()
        .flat_map(|volume| &volume.volume_source.projected)
        .flat_map(|one| &one.sources);
    let shortest = projections.filter_map(|part| part.service_account_token.as_deref()).map(seconds).min()?;
    Some(Duration::from_secs(renew_after(shortest).unsigned_abs()).max(RENEW_MIN))
}

impl Tokens {
    pub fn forget(&self, uid: &str) {
        self.held.lock().retain(|(owner, ..), _| owner != uid);
    }

    /// A valid token for this projection of this pod.
    pub async fn get(
        &self,
        ctx: &Context,
        pod: &Pod,
        projection: &ServiceAccountTokenProjection,
    ) -> Result<String, String> {
        let life = seconds(projection);
        let key = (pod.metadata.uid.clone(), projection.audience.clone(), life);
        let now = jiff::Timestamp::now().as_second();
        if let Some(held) = self.held.lock().get(&key)
            && now - held.issued < renew_after(held.expires - held.issued)
        {
            return Ok(held.token.clone());
        }
        let mut request = TokenRequest::default();
        if !projection.audience.is_empty() {
            request.spec.audiences = vec![projection.audience.clone()];
        }
        request.spec.expiration_seconds = Some(life);
        request.spec.bound_object_ref = Some(Box::new(BoundObjectReference {
            kind: "Pod".into(),
            api_version: "v1".into(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        }));
        let account =
            if pod.spec.service_account_name.is_empty() { "default" } else { &pod.spec.service_account_name };
        let account = ObjectKey::new(pod.metadata.namespace.as_str(), account);
        let answer: TokenRequest = ctx
            .client
            .create_subresource::<ServiceAccount, _, _>(&account, "token", &request)
            .await
            .map_err(|error| format!("failed to fetch token: {}", error.chain()))?;
        let expires = answer.status.expiration_timestamp.map_or(now + life, |time| time.seconds());
        let held = Held { token: answer.status.token.clone(), issued: now, expires };
        self.held.lock().insert(key, held);
        Ok(answer.status.token)
    }
}
