//! The files of a cluster's identities: where each lies, and making what is missing.
//!
//! Invariant: opening twice changes nothing; opening after a name, an address or a date has changed replaces only
//! what that touches. The authorities and the token key are never replaced.

use crate::authority::{Authority, CertRequest, CertifiedKey};
use crate::kubeconfig::{Kubeconfig, Names};
use crate::{Error, Signer, files, token};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The name of the cluster in kubeconfigs.
pub const CLUSTER: &str = "timonel";

/// Where each file lies under a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub data: PathBuf,
    pub pki: PathBuf,
}

impl Layout {
    pub fn new(data: &Path) -> Self {
        Layout { data: data.into(), pki: data.join("pki") }
    }
    pub fn ca_cert(&self) -> PathBuf {
        self.pki.join("ca.crt")
    }
    pub fn ca_key(&self) -> PathBuf {
        self.pki.join("ca.key")
    }
    pub fn front_proxy_ca_cert(&self) -> PathBuf {
        self.pki.join("front-proxy-ca.crt")
    }
    /// The certificate of an identity in `pki`, such as `apiserver`.
    pub fn cert(&self, name: &str) -> PathBuf {
        self.pki.join(format!("{name}.crt"))
    }
    pub fn key(&self, name: &str) -> PathBuf {
        self.pki.join(format!("{name}.key"))
    }
    /// The private key that signs service account tokens.
    pub fn token_key(&self) -> PathBuf {
        self.pki.join("sa.key")
    }
    pub fn token_public_key(&self) -> PathBuf {
        self.pki.join("sa.pub")
    }
    /// A component's kubeconfig, or the administrator's: `admin`.
    pub fn kubeconfig(&self, component: &str) -> PathBuf {
        self.data.join(format!("{component}.kubeconfig"))
    }
}

/// What the identities depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub data: PathBuf,
    /// This machine's node.
    pub node_name: String,
    /// The API server's URL in kubeconfigs, such as `https://127.0.0.1:6443`.
    pub server: String,
    /// Addresses and names by which this machine is reached, beside loopback and the node's name.
    pub names: Vec<String>,
    /// The `kubernetes` Service's address.
    pub service_address: IpAddr,
    pub cluster_domain: String,
}

/// The identities of a cluster, as they lie in its data directory.
#[derive(Debug)]
pub struct Cluster {
    pub layout: Layout,
    /// Signs users, components, kubelets and the API server.
    pub authority: Authority,
    /// Signs only the API server's identity toward aggregated API servers.
    pub front_proxy: Authority,
    /// The API server's serving certificate.
    pub serving: CertifiedKey,
    /// The API server as a client of kubelets.
    pub kubelet_client: CertifiedKey,
    pub front_proxy_client: CertifiedKey,
    pub token_signer: Signer,
    server: String,
}

/// The administrator's and the components' kubeconfigs: file, user, groups.
const USERS: &[(&str, &str, &[&str])] = &[
    ("admin", "kubernetes-admin", &["system:masters"]),
    ("kube-controller-manager", "system:kube-controller-manager", &[]),
    ("kube-scheduler", "system:kube-scheduler", &[]),
    ("kube-proxy", "system:kube-proxy", &[]),
    // The DNS server is a service account upstream; here it is a process, under that account's name and groups.
    (
        "cluster-dns",
        "system:serviceaccount:kube-system:coredns",
        &["system:serviceaccounts", "system:serviceaccounts:kube-system"],
    ),
];

/// Opens a cluster's identities, making or renewing what needs it.
pub fn open_or_create(options: &Options) -> Result<Cluster, Error> {
    let layout = Layout::new(&options.data);
    files::create_folder(&layout.pki)?;
    let pki = &layout.pki;
    let authority = Authority::open_or_create(pki, "ca", "kubernetes-ca")?;
    let front_proxy = Authority::open_or_create(pki, "front-proxy-ca", "kubernetes-front-proxy-ca")?;
    let serving = authority.open_or_issue(
        pki,
        "apiserver",
        &CertRequest::server("kube-apiserver", serving_names(options)),
    )?;
    let kubelet_client = CertRequest::client("kube-apiserver-kubelet-client", &["system:masters"]);
    let kubelet_client = authority.open_or_issue(pki, "apiserver-kubelet-client", &kubelet_client)?;
    let front_proxy_client = CertRequest::client("front-proxy-client", &[]);
    let front_proxy_client = front_proxy.open_or_issue(pki, "front-proxy-client", &front_proxy_client)?;
    let token_signer = open_token_key(&layout)?;
    let server = options.server.clone();
    let cluster = Cluster {
        layout,
        authority,
        front_proxy,
        serving,
        kubelet_client,
        front_proxy_client,
        token_signer,
        server,
    };
    for (file, user, groups) in USERS {
        cluster.write_kubeconfig(&cluster.layout.kubeconfig(file), user, groups)?;
    }
    if !options.node_name.is_empty() {
        cluster.open_node(&options.node_name, &options.names)?;
    }
    Ok(cluster)
}

impl Cluster {
    /// A user's kubeconfig in a file, kept while it still serves.
    pub fn write_kubeconfig(&self, path: &Path, user: &str, groups: &[&str]) -> Result<(), Error> {
        let request = CertRequest::client(user, groups);
        if let Ok(old) = Kubeconfig::read(path) {
            let serves =
                old.client.as_ref().is_some_and(|pair| self.authority.stale(pair, &request).is_none());
            if serves && old.server == self.server && old.ca_pem.as_deref() == Some(self.authority.cert_pem())
            {
                return Ok(());
            }
        }
        self.kubeconfig(user, groups)?.write(path, &Names { cluster: CLUSTER, user })
    }

    /// A fresh kubeconfig for a user, such as another machine's node: `system:node:<name>` in `system:nodes`.
    pub fn kubeconfig(&self, user: &str, groups: &[&str]) -> Result<Kubeconfig, Error> {
        Ok(Kubeconfig {
            server: self.server.clone(),
            ca_pem: Some(self.authority.cert_pem().to_owned()),
            client: Some(self.authority.issue(&CertRequest::client(user, groups))?),
            ..Default::default()
        })
    }

    /// This machine's kubelet: its kubeconfig, and its serving certificate `kubelet` in `pki`.
    pub fn open_node(&self, name: &str, names: &[String]) -> Result<CertifiedKey, Error> {
        let user = format!("system:node:{name}");
        self.write_kubeconfig(&self.layout.kubeconfig("kubelet"), &user, &["system:nodes"])?;
        let request = CertRequest {
            organizations: vec!["system:nodes".into()],
            ..CertRequest::server(&user, node_names(name, names))
        };
        self.authority.open_or_issue(&self.layout.pki, "kubelet", &request)
    }
}

fn node_names(node: &str, names: &[String]) -> Vec<String> {
    let own = [node, "localhost", "127.0.0.1", "::1"].map(str::to_owned);
    own.into_iter().chain(names.iter().cloned()).collect()
}

/// Every name by which the API server is called: from the machine, by address, and by Service from pods.
fn serving_names(options: &Options) -> Vec<String> {
    let mut names = vec![
        "kubernetes".to_owned(),
        "kubernetes.default".into(),
        "kubernetes.default.svc".into(),
        format!("kubernetes.default.svc.{}", options.cluster_domain),
        options.service_address.to_string(),
    ];
    let node = (!options.node_name.is_empty()).then(|| options.node_name.clone());
    names.extend(node);
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    names.extend(options.names.iter().cloned());
    names
}

fn open_token_key(layout: &Layout) -> Result<Signer, Error> {
    let path = layout.token_key();
    let pem = match files::read_if_present(&path)? {
        Some(pem) => pem,
        None => {
            let pem = Signer::generate_pem()?;
            files::write(&path, pem.as_bytes(), files::PRIVATE)?;
            pem
        }
    };
    let signer = Signer::from_pem(&pem).map_err(|error| Error::file(&path, error))?;
    let public = signer.public().to_pem();
    let public_path = layout.token_public_key();
    // The public file may hold older keys too, which verify while tokens signed by them live.
    let known = files::read_if_present(&public_path)?.is_some_and(|text| {
        crate::PublicKey::from_pem(&text).is_ok_and(|keys| keys.contains(signer.public()))
    });
    if !known {
        files::write(&public_path, public.as_bytes(), files::PUBLIC)?;
    }
    Ok(signer)
}

/// A verifier for the tokens of this cluster: the keys in `sa.pub`.
pub fn token_verifier(
    layout: &Layout,
    issuer: &str,
    audiences: Vec<String>,
) -> Result<token::Verifier, Error> {
    let path = layout.token_public_key();
    let keys = crate::PublicKey::from_pem(&files::read(&path)?).map_err(|error| Error::file(&path, error))?;
    Ok(token::Verifier::new(vec![issuer.into()], keys, audiences))
}
