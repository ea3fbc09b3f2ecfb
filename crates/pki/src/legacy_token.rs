//! Tokens of the old sort, which stand in a Secret and live as long as it does.

use crate::keys::Signer;
use crate::token::{Error, Verifier, parse, split_user_name, user_name};
use serde::{Deserialize, Serialize};

/// Who has issued every such token.
pub const ISSUER: &str = "kubernetes/serviceaccount";

/// Whose token this is, and in which Secret it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claims {
    pub iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    pub namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    pub secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub account_uid: String,
    pub sub: String,
}

impl Claims {
    pub fn new(namespace: &str, account: &str, account_uid: &str, secret: &str) -> Self {
        Claims {
            iss: ISSUER.into(),
            namespace: namespace.into(),
            secret: secret.into(),
            account: account.into(),
            account_uid: account_uid.into(),
            sub: user_name(namespace, account),
        }
    }
}

impl Signer {
    /// The compact form of a token of the old sort.
    pub fn sign_legacy(&self, claims: &Claims) -> Result<String, crate::Error> {
        self.sign_any(claims)
    }
}

impl Verifier {
    /// Checks issuer, signature and that all claims are there and agree. Such a token never expires: whether the Secret
    /// still holds it, and the account still lives, is for the caller to see.
    pub fn verify_legacy(&self, token: &str) -> Result<Claims, Error> {
        let (message, signature, header, claims) = parse::<Claims>(token).ok_or(Error::Malformed)?;
        if claims.iss != ISSUER {
            return Err(Error::Issuer(claims.iss));
        }
        self.check_signature(message, &signature, &header)?;
        let whole = !claims.secret.is_empty() && !claims.account_uid.is_empty();
        if !whole || split_user_name(&claims.sub) != Some((&claims.namespace, &claims.account)) {
            return Err(Error::Malformed);
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_again_and_no_other_key_makes_one() {
        let signer = || Signer::from_pem(&Signer::generate_pem().unwrap()).unwrap();
        let (own, other) = (signer(), signer());
        let verifier =
            Verifier::new(vec!["https://x".into()], vec![own.public().clone()], vec!["https://x".into()]);
        let claims = Claims::new("shop", "web", "uid", "web-token");
        let token = own.sign_legacy(&claims).unwrap();
        assert_eq!(verifier.verify_legacy(&token), Ok(claims.clone()));
        // It is no token of the new sort.
        assert_eq!(verifier.verify(&token, &[], 0), Err(Error::Issuer(ISSUER.into())));
        assert!(verifier.verify_legacy(&other.sign_legacy(&claims).unwrap()).is_err());
        let torn = Claims { sub: "system:serviceaccount:shop:other".into(), ..claims };
        assert_eq!(verifier.verify_legacy(&own.sign_legacy(&torn).unwrap()), Err(Error::Malformed));
    }
}
