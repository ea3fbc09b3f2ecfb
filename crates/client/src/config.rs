//! Where the API server is and who we are: from a kubeconfig, or from what a pod is given.

use crate::Error;
use pki::kubeconfig::Kubeconfig;
use std::path::{Path, PathBuf};

/// How the client proves who it is.
#[derive(Clone, Default)]
pub enum Auth {
    #[default]
    Anonymous,
    /// A PEM certificate chain and its PEM key.
    Certificate {
        cert_pem: String,
        key_pem: String,
    },
    Token(String),
    /// A file that is read again as the token in it is renewed.
    TokenFile(PathBuf),
    /// A token that its owner replaces from time to time.
    Renewed(RenewedToken),
}

/// A token shared between the one who renews it and the transport that sends it.
#[derive(Clone, Default)]
pub struct RenewedToken(std::sync::Arc<Shared>);

#[derive(Default)]
struct Shared {
    token: arc_swap::ArcSwap<String>,
    given: tokio::sync::Notify,
}

impl RenewedToken {
    pub fn set(&self, token: String) {
        self.0.token.store(std::sync::Arc::new(token));
        self.0.given.notify_waiters();
    }

    pub(crate) fn get(&self) -> std::sync::Arc<String> {
        self.0.token.load_full()
    }

    /// Waits until there is a token at all: a request without one would be nobody's.
    pub(crate) async fn given(&self) {
        loop {
            let given = self.0.given.notified();
            tokio::pin!(given);
            given.as_mut().enable();
            if !self.get().is_empty() {
                return;
            }
            given.await;
        }
    }
}

/// Names its sort only: credentials are never printed.
impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Auth::Anonymous => "Anonymous",
            Auth::Certificate { .. } => "Certificate",
            Auth::Token(_) => "Token",
            Auth::TokenFile(_) => "TokenFile",
            Auth::Renewed(_) => "Renewed",
        })
    }
}

/// Which HTTP a connection offers to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 where the server takes it, HTTP/1.1 otherwise.
    #[default]
    Any,
    /// HTTP/1.1 only: a connection per request under way.
    Http1,
}

/// Everything that a connection needs.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `https://host:port`, or `http://` for a local proxy.
    pub server: String,
    /// The authorities that may vouch for the server; empty where `insecure` is set.
    pub ca_pem: String,
    /// The name in the server's certificate, where it is not the host.
    pub server_name: Option<String>,
    /// Takes any certificate: for tests and for a kubeconfig that says so.
    pub insecure: bool,
    pub auth: Auth,
    pub protocol: Protocol,
}

/// Paths of the credentials that a service account's volume holds.
pub struct TlsFiles {
    pub ca: PathBuf,
    pub token: PathBuf,
}

impl Default for TlsFiles {
    fn default() -> Self {
        let folder = Path::new("/var/run/secrets/kubernetes.io/serviceaccount");
        TlsFiles { ca: folder.join("ca.crt"), token: folder.join("token") }
    }
}

impl Config {
    /// What the current context of a kubeconfig says.
    pub fn from_kubeconfig(path: &Path) -> Result<Self, Error> {
        let file = Kubeconfig::read(path).map_err(|error| {
            let cause =
                std::error::Error::source(&error).map_or_else(String::new, |source| format!(": {source}"));
            Error::Request(format!("{error}{cause}"))
        })?;
        Self::from_context(file)
    }

    /// What a context that has been read already says.
    pub fn from_context(context: Kubeconfig) -> Result<Self, Error> {
        if context.proxy_url.is_some() {
            return Err(Error::Request("the kubeconfig names a proxy-url, which is not supported".into()));
        }
        if context.username.is_some() {
            return Err(Error::Request(
                "the kubeconfig names a user and password, which is not supported".into(),
            ));
        }
        // client-go's order: a certificate proves who we are in TLS, a token in each request; a file wins over text.
        let auth = match (context.client, context.token_file, context.token) {
            (Some(pair), _, _) => Auth::Certificate { cert_pem: pair.cert_pem, key_pem: pair.key_pem },
            (None, Some(path), _) => Auth::TokenFile(path),
            (None, None, Some(token)) => Auth::Token(token),
            (None, None, None) => Auth::Anonymous,
        };
        Ok(Config {
            server: context.server,
            ca_pem: context.ca_pem.unwrap_or_default(),
            server_name: context.tls_server_name,
            insecure: context.insecure_skip_tls_verify,
            auth,
            protocol: Protocol::default(),
        })
    }

    /// What a pod's service account gives: address from the environment's values, authority and token from files.
    pub fn in_cluster(host: &str, port: &str, files: &TlsFiles) -> Result<Self, Error> {
        let ca_pem = std::fs::read_to_string(&files.ca)
            .map_err(|error| Error::Request(format!("cannot read {}: {error}", files.ca.display())))?;
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
        Ok(Config {
            server: format!("https://{host}:{port}"),
            ca_pem,
            server_name: None,
            insecure: false,
            auth: Auth::TokenFile(files.token.clone()),
            protocol: Protocol::default(),
        })
    }
}
