//! Bootstrap tokens: what they sign, so that whoever holds one knows the cluster by it, and when they go.

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Plan, Target};
use api::core::v1::{ConfigMap, Secret};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use meta::{ObjectKey, Time};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const PREFIX: &str = "bootstrap-token-";
const SIGNATURE: &str = "jws-kubeconfig-";

fn text<'a>(secret: &'a Secret, key: &str) -> &'a str {
    secret.data.get(key).and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default()
}

fn is_token(secret: &Secret) -> bool {
    secret.r#type == TYPE && secret.metadata.namespace == NAMESPACE
}

/// The seconds that a token has left: none once it has expired, or where its time cannot be read; `None` where it
/// does not expire.
fn seconds_left(secret: &Secret, now: Time) -> Option<i64> {
    let expiration = text(secret, "expiration");
    if expiration.is_empty() {
        return None;
    }
    Some(Time::parse(expiration).map_or(0, |until| (until.seconds() - now.seconds()).max(0)))
}

/// A detached JWS (RFC 7515, appendix F) over the content by HS256.
fn signature(content: &str, id: &str, key: &str) -> String {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let header = encode(format!(r#"{{"alg":"HS256","kid":{}}}"#, serde_json::Value::from(id)).as_bytes());
    let signed = hmac_sha256(key.as_bytes(), format!("{header}.{}", encode(content.as_bytes())).as_bytes());
    format!("{header}..{}", encode(&signed))
}

/// RFC 2104 with SHA-256.
fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}

/// Signs the ConfigMap `cluster-info` with each token that may sign.
pub struct BootstrapSigner;

const INFO: &str = "cluster-info";
const INFO_NAMESPACE: &str = "kube-public";

impl Controller for BootstrapSigner {
    fn name(&self) -> &'static str {
        "bootstrap-signer-controller"
    }

    fn component(&self) -> &'static str {
        "bootstrap-signer"
    }

    fn watches(&self) -> Vec<Watch> {
        let info = || vec![ObjectKey::new(INFO_NAMESPACE, INFO)];
        vec![
            Watch::new::<ConfigMap>(move |_, old, new| match new.or(old) {
                Some(map) if map.metadata.name == INFO && map.metadata.namespace == INFO_NAMESPACE => info(),
                _ => Vec::new(),
            }),
            Watch::new::<Secret>(move |_, old, new| {
                let concerns = [old, new].into_iter().flatten().any(is_token);
                if concerns { info() } else { Vec::new() }
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(map) = context.view.get::<ConfigMap>(context.key) else { return plan };
        let Some(content) = map.data.get("kubeconfig") else { return plan };
        let mut signatures: BTreeMap<String, String> = BTreeMap::new();
        for secret in context.view.in_namespace::<Secret>(NAMESPACE).filter(|secret| is_token(secret)) {
            let (id, key) = (text(&secret, "token-id"), text(&secret, "token-secret"));
            let named = secret.metadata.name.strip_prefix(PREFIX) == Some(id) && !id.is_empty();
            let left = seconds_left(&secret, context.now);
            if !named
                || key.is_empty()
                || left == Some(0)
                || text(&secret, "usage-bootstrap-signing") != "true"
            {
                continue;
            }
            if let Some(left) = left {
                plan.again_after_seconds(left);
            }
            signatures.insert(format!("{SIGNATURE}{id}"), signature(content, id, key));
        }
        let mut next = ConfigMap::clone(&map);
        next.data.retain(|key, _| !key.starts_with(SIGNATURE));
        next.data.extend(signatures);
        if next.data != map.data {
            plan.push(Action::Update(Box::new(next)));
        }
        plan
    }
}

/// Deletes tokens that have expired.
pub struct TokenCleaner;

impl Controller for TokenCleaner {
    fn name(&self) -> &'static str {
        "token-cleaner-controller"
    }

    fn component(&self) -> &'static str {
        "token-cleaner"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::new::<Secret>(|_, _, new| {
            new.filter(|secret| is_token(secret)).map(|secret| view::key_of(secret)).into_iter().collect()
        })]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(secret) = context.view.get::<Secret>(context.key) else { return plan };
        match seconds_left(&secret, context.now) {
            Some(0) if is_token(&secret) => {
                let target = Target::of(secret.as_ref());
                plan.push(Action::Delete { target, propagation: None, grace_seconds: None });
            }
            Some(left) => plan.again_after_seconds(left),
            None => {}
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_standards() {
        // RFC 4231, test case 2.
        let hex: String = hmac_sha256(b"Jefe", b"what do ya want for nothing?")
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let long = hmac_sha256(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(long[..4], [0x60, 0xe4, 0x31, 0x59]);
        // What kubeadm's tests expect of the same content and token.
        assert_eq!(
            signature(
                "Hello from the other side. I must have called a thousand times.",
                "joshua",
                "my voice is my passcode"
            ),
            "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"
        );
    }
}
