//! Kubeconfig files: what the current context says, and files that stock kubectl reads.

use crate::authority::CertifiedKey;
use crate::{Error, files};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The current context of a kubeconfig, file references read. `Debug` leaves secrets out.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Kubeconfig {
    /// The API server's URL.
    pub server: String,
    /// The authorities that may vouch for the server, PEM; `None` means the system's.
    pub ca_pem: Option<String>,
    pub insecure_skip_tls_verify: bool,
    /// The name to expect in the server's certificate instead of the URL's host.
    pub tls_server_name: Option<String>,
    pub proxy_url: Option<String>,
    pub client: Option<CertifiedKey>,
    pub token: Option<String>,
    /// A file with the token, to be read again as it is replaced; wins over `token`, as in client-go.
    pub token_file: Option<PathBuf>,
    pub username: Option<String>,
    pub password: Option<String>,
    /// The namespace of the context.
    pub namespace: Option<String>,
}

impl std::fmt::Debug for Kubeconfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubeconfig")
            .field("server", &self.server)
            .field("client", &self.client.is_some())
            .field("token", &self.token.is_some())
            .finish_non_exhaustive()
    }
}

/// How the entries of a written file are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names<'a> {
    pub cluster: &'a str,
    pub user: &'a str,
}

impl Kubeconfig {
    /// Reads a file's current context. Relative file references count from the file's folder.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&files::read(path)?, folder).map_err(|error| match error {
            Error::Invalid { reason, .. } => Error::file(path, reason),
            other => other,
        })
    }

    /// The current context of a text (YAML or JSON); `folder` is where relative file references count from.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Error> {
        let invalid = |reason: String| Error::Invalid { what: "kubeconfig", reason };
        // A file may be empty or lack any part; each has its own complaint.
        let file: File = serde_saphyr::from_str(text).map_err(|error| invalid(error.to_string()))?;
        if file.current_context.is_empty() {
            return Err(invalid("current-context is not set".into()));
        }
        let context = find(&file.contexts, &file.current_context)
            .ok_or_else(|| invalid(format!("context {:?} does not exist", file.current_context)))?;
        let context = &context.context;
        let cluster = find(&file.clusters, &context.cluster)
            .ok_or_else(|| invalid(format!("cluster {:?} does not exist", context.cluster)))?;
        let cluster = &cluster.cluster;
        if cluster.server.is_empty() {
            return Err(invalid(format!("cluster {:?} names no server", context.cluster)));
        }
        let user = match context.user.as_str() {
            "" => &UserBody::default(),
            name => {
                &find(&file.users, name).ok_or_else(|| invalid(format!("user {name:?} does not exist")))?.user
            }
        };
        if user.exec.is_some() || user.auth_provider.is_some() {
            return Err(invalid(format!(
                "user {:?} wants a credential plugin, which is not supported",
                context.user
            )));
        }
        let ca_pem =
            data_or_file(&cluster.certificate_authority_data, &cluster.certificate_authority, folder)?;
        if cluster.insecure_skip_tls_verify && ca_pem.is_some() {
            return Err(invalid(
                "insecure-skip-tls-verify and a certificate authority exclude each other".into(),
            ));
        }
        let cert = data_or_file(&user.client_certificate_data, &user.client_certificate, folder)?;
        let key = data_or_file(&user.client_key_data, &user.client_key, folder)?;
        let client = match (cert, key) {
            (Some(cert_pem), Some(key_pem)) => Some(CertifiedKey { cert_pem, key_pem }),
            (None, None) => None,
            _ => return Err(invalid("a client certificate needs its key, and a key its certificate".into())),
        };
        Ok(Kubeconfig {
            server: cluster.server.clone(),
            ca_pem,
            insecure_skip_tls_verify: cluster.insecure_skip_tls_verify,
            tls_server_name: given(&cluster.tls_server_name),
            proxy_url: given(&cluster.proxy_url),
            client,
            token: given(&user.token),
            token_file: given(&user.token_file).map(|file| folder.join(file)),
            username: given(&user.username),
            password: given(&user.password),
            namespace: given(&context.namespace),
        })
    }

    /// The text of a file whose only context, `<user>@<cluster>`, says this. References become data.
    pub fn to_yaml(&self, names: &Names<'_>) -> Result<String, Error> {
        let encode = |text: &str| BASE64_STANDARD.encode(text);
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let context = format!("{}@{}", names.user, names.cluster);
        let file = File {
            api_version: "v1".into(),
            kind: "Config".into(),
            clusters: vec![NamedCluster {
                name: names.cluster.into(),
                cluster: ClusterBody {
                    server: self.server.clone(),
                    certificate_authority_data: self.ca_pem.as_deref().map(encode).unwrap_or_default(),
                    insecure_skip_tls_verify: self.insecure_skip_tls_verify,
                    tls_server_name: text(&self.tls_server_name),
                    proxy_url: text(&self.proxy_url),
                    ..Default::default()
                },
            }],
            users: vec![NamedUser {
                name: names.user.into(),
                user: UserBody {
                    client_certificate_data: self
                        .client
                        .as_ref()
                        .map(|pair| encode(&pair.cert_pem))
                        .unwrap_or_default(),
                    client_key_data: self
                        .client
                        .as_ref()
                        .map(|pair| encode(&pair.key_pem))
                        .unwrap_or_default(),
                    token: text(&self.token),
                    token_file: self
                        .token_file
                        .as_ref()
                        .map(|file| file.display().to_string())
                        .unwrap_or_default(),
                    username: text(&self.username),
                    password: text(&self.password),
                    ..Default::default()
                },
            }],
            contexts: vec![NamedContext {
                name: context.clone(),
                context: ContextBody {
                    cluster: names.cluster.into(),
                    user: names.user.into(),
                    namespace: text(&self.namespace),
                },
            }],
            current_context: context,
        };
        serde_saphyr::to_string(&file).map_err(|error| Error::invalid("kubeconfig", error))
    }

    /// Writes [`Self::to_yaml`] to a file that only its owner reads.
    pub fn write(&self, path: &Path, names: &Names<'_>) -> Result<(), Error> {
        files::write(path, self.to_yaml(names)?.as_bytes(), files::PRIVATE)
    }
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Inline data wins over a file, as in client-go.
fn data_or_file(data: &str, file: &str, folder: &Path) -> Result<Option<String>, Error> {
    if !data.is_empty() {
        let bytes = BASE64_STANDARD
            .decode(data)
            .map_err(|error| Error::invalid("kubeconfig", format!("base64: {error}")))?;
        return String::from_utf8(bytes).map(Some).map_err(|error| Error::invalid("kubeconfig", error));
    }
    given(file).map(|file| files::read(&folder.join(file))).transpose()
}

trait Named {
    fn name(&self) -> &str;
}

fn find<'a, T: Named>(entries: &'a [T], name: &str) -> Option<&'a T> {
    entries.iter().find(|entry| entry.name() == name)
}

fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct File {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    #[serde(deserialize_with = "or_empty")]
    clusters: Vec<NamedCluster>,
    #[serde(deserialize_with = "or_empty")]
    contexts: Vec<NamedContext>,
    #[serde(rename = "current-context")]
    current_context: String,
    #[serde(deserialize_with = "or_empty")]
    users: Vec<NamedUser>,
}

/// kubectl writes `clusters: null` when it removes the last.
fn or_empty<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(from)?.unwrap_or_default())
}

macro_rules! named {
    ($name:ident, $field:ident: $body:ident) => {
        #[derive(Serialize, Deserialize, Default)]
        #[serde(default)]
        struct $name {
            name: String,
            $field: $body,
        }
        impl Named for $name {
            fn name(&self) -> &str {
                &self.name
            }
        }
    };
}
named!(NamedCluster, cluster: ClusterBody);
named!(NamedContext, context: ContextBody);
named!(NamedUser, user: UserBody);

#[derive(Serialize, Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct ClusterBody {
    server: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    certificate_authority: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    certificate_authority_data: String,
    #[serde(skip_serializing_if = "is_false")]
    insecure_skip_tls_verify: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    tls_server_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    proxy_url: String,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct ContextBody {
    cluster: String,
    user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct UserBody {
    #[serde(skip_serializing_if = "String::is_empty")]
    client_certificate: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    client_certificate_data: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    client_key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    client_key_data: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    token: String,
    #[serde(rename = "tokenFile", skip_serializing_if = "String::is_empty")]
    token_file: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    password: String,
    #[serde(skip_serializing)]
    exec: Option<serde_json::Value>,
    #[serde(skip_serializing)]
    auth_provider: Option<serde_json::Value>,
}
