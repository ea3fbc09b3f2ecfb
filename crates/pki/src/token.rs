//! Service account tokens: JWTs with upstream's claims, signed, verified, and their public keys published.

use crate::keys::{PublicKey, Signer};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How far clocks may differ, in seconds: upstream's leeway on every time in a token.
pub const LEEWAY_SECONDS: i64 = 60;
/// A token longer than this is refused unread. A bound token has about 1 KiB.
pub const BYTES_MAX: usize = 16 * 1024;
/// Where the public keys and the issuer's description are served.
pub const JWKS_PATH: &str = "/openid/v1/jwks";
pub const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";

/// The claims of a token, in the order in which they are written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claims {
    #[serde(deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub aud: Vec<String>,
    /// Seconds since 1970; `None` never expires (only tokens of another making).
    #[serde(deserialize_with = "date", skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    #[serde(deserialize_with = "date", skip_serializing_if = "Option::is_none")]
    pub iat: Option<i64>,
    pub iss: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Kubernetes,
    #[serde(deserialize_with = "date", skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    pub sub: String,
}

/// The claims of our own: whose token this is and what it dies with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kubernetes {
    pub namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    pub serviceaccount: Reference,
    /// From when on a use of this token is worth a warning: its owner should have read the file again.
    #[serde(deserialize_with = "date", skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reference {
    pub name: String,
    pub uid: String,
}

/// What a token is bound to: it dies with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    Nothing,
    /// A pod, and the node it runs on where that is known.
    Pod(Reference, Option<Reference>),
    Secret(Reference),
    Node(Reference),
}

impl Claims {
    /// Claims for a service account, valid from `now` (seconds since 1970) for `seconds`, with a fresh `jti`.
    pub fn for_service_account(
        issuer: &str,
        namespace: &str,
        account: Reference,
        bound: Bound,
        audiences: Vec<String>,
        now: i64,
        seconds: i64,
    ) -> Self {
        let (pod, secret, node) = match bound {
            Bound::Nothing => (None, None, None),
            Bound::Pod(pod, node) => (Some(pod), None, node),
            Bound::Secret(secret) => (None, Some(secret), None),
            Bound::Node(node) => (None, None, Some(node)),
        };
        Claims {
            aud: audiences,
            exp: Some(now.saturating_add(seconds)),
            iat: Some(now),
            iss: issuer.into(),
            jti: uuid::Uuid::new_v4().to_string(),
            sub: user_name(namespace, &account.name),
            nbf: Some(now),
            kubernetes: Kubernetes {
                namespace: namespace.into(),
                node,
                pod,
                secret,
                serviceaccount: account,
                warnafter: None,
            },
        }
    }

    /// What upstream reports as `authentication.kubernetes.io/credential-id`; `None` without a `jti`.
    pub fn credential_id(&self) -> Option<String> {
        (!self.jti.is_empty()).then(|| format!("JTI={}", self.jti))
    }
}

/// The user name of a service account.
pub fn user_name(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// The namespace and name in a service account's user name.
pub fn split_user_name(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// The groups of a namespace's service accounts (beside system:authenticated).
pub fn groups(namespace: &str) -> [String; 2] {
    ["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")]
}

/// Why a token does not count, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the token is not a signed JWT")]
    Malformed,
    /// Not ours: another authenticator may know it.
    #[error("token issuer {0:?} is invalid")]
    Issuer(String),
    #[error("invalid signature, no keys found")]
    NoKey,
    /// Forged or damaged.
    #[error("invalid signature")]
    Signature,
    #[error("token audiences {token:?} is invalid for the target audiences {wanted:?}")]
    Audience { token: Vec<String>, wanted: Vec<String> },
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotValidYet,
    #[error("service account token is issued in the future")]
    IssuedInTheFuture,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Header {
    alg: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    kid: String,
}

impl Signer {
    /// The compact form of a token.
    pub fn sign(&self, claims: &Claims) -> Result<String, crate::Error> {
        self.sign_any(claims)
    }

    pub(crate) fn sign_any<T: Serialize>(&self, claims: &T) -> Result<String, crate::Error> {
        let header = Header { alg: self.public().algorithm().name().into(), kid: self.public().kid().into() };
        let encode = |part: Result<Vec<u8>, serde_json::Error>| {
            part.map(|bytes| BASE64_URL_SAFE_NO_PAD.encode(bytes))
                .map_err(|error| crate::Error::invalid("token", error))
        };
        let message =
            format!("{}.{}", encode(serde_json::to_vec(&header))?, encode(serde_json::to_vec(claims))?);
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.sign_bytes(message.as_bytes())?);
        Ok(format!("{message}.{signature}"))
    }
}

/// Verifies tokens by several keys (while one is being replaced by another) and issuers.
#[derive(Debug, Clone)]
pub struct Verifier {
    issuers: Vec<String>,
    keys: Vec<PublicKey>,
    /// The API server's own audiences: what a token without any is good for, and what is asked for by default.
    audiences: Vec<String>,
}

impl Verifier {
    /// The first issuer is the one that signs now; the others are still believed.
    pub fn new(issuers: Vec<String>, keys: Vec<PublicKey>, audiences: Vec<String>) -> Self {
        let mut unique: Vec<PublicKey> = Vec::new();
        for key in keys {
            if !unique.contains(&key) {
                unique.push(key);
            }
        }
        Verifier { issuers, keys: unique, audiences }
    }

    /// The API server's own audiences.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Checks issuer, signature, audience and times, in upstream's order. `audiences`: what the token must be good
    /// for, empty for the API server itself. `now`: seconds since 1970. Whether the account still lives is for the
    /// caller to see.
    pub fn verify(&self, token: &str, audiences: &[String], now: i64) -> Result<Claims, Error> {
        let (message, signature, header, claims) = parse::<Claims>(token).ok_or(Error::Malformed)?;
        if !self.issuers.contains(&claims.iss) {
            return Err(Error::Issuer(claims.iss));
        }
        self.check_signature(message, &signature, &header)?;
        self.check_audience(&claims, audiences)?;
        check_times(&claims, now)?;
        Ok(claims)
    }

    pub(crate) fn check_signature(
        &self,
        message: &str,
        signature: &[u8],
        header: &Header,
    ) -> Result<(), Error> {
        let candidates: Vec<&PublicKey> = match header.kid.as_str() {
            "" => self.keys.iter().collect(),
            kid => self.keys.iter().filter(|key| key.kid() == kid).collect(),
        };
        if candidates.is_empty() {
            return Err(Error::NoKey);
        }
        // The key decides on the algorithm, never the token: "none" and mixed-up families find no key.
        let genuine = candidates
            .iter()
            .any(|key| key.algorithm().name() == header.alg && key.verifies(message.as_bytes(), signature));
        if genuine { Ok(()) } else { Err(Error::Signature) }
    }

    /// Those of `wanted` (empty for the API server's own) that the token is good for.
    pub fn matching_audiences(&self, claims: &Claims, wanted: &[String]) -> Vec<String> {
        let wanted = if wanted.is_empty() { &self.audiences[..] } else { wanted };
        let has = if claims.aud.is_empty() { &self.audiences } else { &claims.aud };
        has.iter().filter(|audience| wanted.contains(audience)).cloned().collect()
    }

    fn check_audience(&self, claims: &Claims, wanted: &[String]) -> Result<(), Error> {
        if self.audiences.is_empty() || !self.matching_audiences(claims, wanted).is_empty() {
            return Ok(());
        }
        let token = if claims.aud.is_empty() { self.audiences.clone() } else { claims.aud.clone() };
        let wanted = if wanted.is_empty() { self.audiences.clone() } else { wanted.to_vec() };
        Err(Error::Audience { token, wanted })
    }

    /// The JSON Web Key Set that anyone verifies our tokens by.
    pub fn jwks(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(PublicKey::jwk).collect();
        format!(r#"{{"keys":[{}]}}"#, keys.join(","))
    }

    /// The issuer's OpenID discovery document, pointing at the JWKS.
    pub fn discovery(&self, jwks_uri: &str) -> String {
        #[derive(Serialize)]
        struct Document<'a> {
            issuer: &'a str,
            jwks_uri: &'a str,
            response_types_supported: [&'a str; 1],
            subject_types_supported: [&'a str; 1],
            id_token_signing_alg_values_supported: BTreeSet<&'a str>,
        }
        let document = Document {
            issuer: self.issuers.first().map_or("", String::as_str),
            jwks_uri,
            response_types_supported: ["id_token"],
            subject_types_supported: ["public"],
            id_token_signing_alg_values_supported: self
                .keys
                .iter()
                .map(|key| key.algorithm().name())
                .collect(),
        };
        serde_json::to_string(&document).expect("strings and lists of strings are JSON")
    }
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(token: &str) -> Option<(&str, Vec<u8>, Header, T)> {
    if token.len() > BYTES_MAX {
        return None;
    }
    let (message, signature) = token.rsplit_once('.')?;
    let (header, payload) = message.split_once('.')?;
    let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
    let header = serde_json::from_slice(&decode(header)?).ok()?;
    let claims = serde_json::from_slice(&decode(payload)?).ok()?;
    Some((message, decode(signature)?, header, claims))
}

fn check_times(claims: &Claims, now: i64) -> Result<(), Error> {
    let late = now.saturating_add(LEEWAY_SECONDS);
    if claims.nbf.is_some_and(|from| late < from) {
        return Err(Error::NotValidYet);
    }
    if claims.exp.is_some_and(|until| now.saturating_sub(LEEWAY_SECONDS) > until) {
        return Err(Error::Expired);
    }
    if claims.iat.is_some_and(|issued| late < issued) {
        return Err(Error::IssuedInTheFuture);
    }
    Ok(())
}

/// An audience is a string or a list of them.
fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Option::<OneOrMany>::deserialize(from)? {
        None => Vec::new(),
        Some(OneOrMany::One(one)) => vec![one],
        Some(OneOrMany::Many(many)) => many,
    })
}

/// A date is a number of seconds, maybe with a fraction.
fn date<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    let number = Option::<serde_json::Number>::deserialize(from)?;
    Ok(number.and_then(|number| number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds as i64))))
}
