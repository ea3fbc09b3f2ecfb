//! With which identity each controller writes: one for all, or its own service account's.

use api::authentication::v1::{TokenRequest, TokenRequestSpec};
use api::core::v1::ServiceAccount;
use client::{Auth, Client, Config, Error, RenewedToken, Wire};
use meta::ObjectKey;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::warn;

const NAMESPACE: &str = "kube-system";
/// How long a token is asked for, and after which part of that it is renewed.
const TOKEN_SECONDS: i64 = 3600;
const RENEW_AFTER: f64 = 0.8;
/// The wait after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Gives clients by the names of service accounts in kube-system.
pub trait Identities: Send + Sync {
    /// A client with the permissions of this account. It works as soon as the account's credentials are there.
    fn client(&self, account: &str) -> Client;
}

/// Every controller writes with the same client.
pub struct OneForAll(pub Client);

impl Identities for OneForAll {
    fn client(&self, account: &str) -> Client {
        self.0.with_user_agent(account)
    }
}

/// A client made for each account by a function: how a server in the same process hands them out.
impl<F: Fn(&str) -> Client + Send + Sync> Identities for F {
    fn client(&self, account: &str) -> Client {
        self(account)
    }
}

/// Each controller writes with a token of its own account, asked for and renewed with the process's client.
pub struct PerAccount {
    client: Client,
    config: Config,
    token: CancellationToken,
}

impl PerAccount {
    /// `config` says where the server is; its own credentials are not used for the accounts.
    pub fn new(client: Client, config: Config, token: CancellationToken) -> Self {
        PerAccount { client, config, token }
    }
}

impl Identities for PerAccount {
    fn client(&self, account: &str) -> Client {
        let renewed = RenewedToken::default();
        let config = Config { auth: Auth::Renewed(renewed.clone()), ..self.config.clone() };
        let wire = match Wire::new(config) {
            Ok(wire) => wire,
            Err(error) => {
                // The process's own client was made from the same address and authority.
                warn!(account, cause = error.chain(), "Failed to set up the account's own connection");
                return self.client.clone();
            }
        };
        tokio::spawn(keep_fresh(self.client.clone(), account.to_string(), renewed, self.token.clone()));
        Client::new(Arc::new(wire)).with_user_agent(account)
    }
}

async fn keep_fresh(client: Client, account: String, renewed: RenewedToken, token: CancellationToken) {
    loop {
        let wait = match mint(&client, &account).await {
            Ok(fresh) => {
                renewed.set(fresh);
                Duration::from_secs(TOKEN_SECONDS.unsigned_abs()).mul_f64(RENEW_AFTER)
            }
            Err(error) => {
                warn!(account, cause = error.chain(), "Failed to get a token");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = token.cancelled() => return,
        }
    }
}

async fn mint(client: &Client, account: &str) -> Result<String, Error> {
    let key = ObjectKey::new(NAMESPACE, account);
    if let Err(error) = client.get::<ServiceAccount>(&key).await {
        if !error.is_not_found() {
            return Err(error);
        }
        let mut object = ServiceAccount::default();
        object.metadata.namespace = NAMESPACE.into();
        object.metadata.name = account.into();
        match client.create(&object).await {
            Ok(_) => {}
            Err(error) if error.is_already_exists() => {}
            Err(error) => return Err(error),
        }
    }
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let answer: TokenRequest =
        client.create_subresource::<ServiceAccount, _, _>(&key, "token", &request).await?;
    Ok(answer.status.token)
}
