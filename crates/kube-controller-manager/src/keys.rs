//! The private keys of the flags: what signs certificates, and what signs tokens.

use crate::Options;
use anyhow::{Context as _, bail};
use controller_runtime::Errands;
use controllers::Errand;
use controllers::certificates::Signer as CertificateSigner;
use pki::legacy_token::Claims;
use pki::{Authority, CsrProfile, Signer, Usage};
use std::collections::HashMap;
use std::path::PathBuf;

/// Never shown: the keys' own types hide what they hold.
#[derive(Default)]
pub(crate) struct Keys {
    signers: HashMap<&'static str, Authority>,
    token: Option<Signer>,
}

type Files<'a> = (&'a Option<PathBuf>, &'a Option<PathBuf>);

impl Keys {
    /// Reads what the flags name.
    ///
    /// # Errors
    /// A file that cannot be read, a certificate without its key, general and special signers together.
    pub(crate) fn read(options: &Options) -> anyhow::Result<Self> {
        let special: [Files<'_>; 4] = [
            (
                &options.cluster_signing_kubelet_serving_cert_file,
                &options.cluster_signing_kubelet_serving_key_file,
            ),
            (
                &options.cluster_signing_kubelet_client_cert_file,
                &options.cluster_signing_kubelet_client_key_file,
            ),
            (
                &options.cluster_signing_kube_apiserver_client_cert_file,
                &options.cluster_signing_kube_apiserver_client_key_file,
            ),
            (
                &options.cluster_signing_legacy_unknown_cert_file,
                &options.cluster_signing_legacy_unknown_key_file,
            ),
        ];
        let general = (&options.cluster_signing_cert_file, &options.cluster_signing_key_file);
        let any_special = special.iter().any(|(cert, key)| cert.is_some() || key.is_some());
        if any_special && general.0.is_some() && general.1.is_some() {
            bail!("cannot specify default and per controller certs at the same time");
        }
        let mut signers = HashMap::new();
        for (name, own) in CertificateSigner::NAMES.into_iter().zip(special) {
            let (cert, key) = if any_special { own } else { general };
            if let (Some(cert), Some(key)) = (cert, key) {
                signers.insert(name, authority(cert, key)?);
            } else if any_special && (cert.is_some() || key.is_some()) {
                bail!("signer {name} needs both a certificate and a key file");
            }
        }
        let token = match &options.service_account_private_key_file {
            None => None,
            Some(path) => {
                let pem = std::fs::read_to_string(path).with_context(|| {
                    format!("cannot read --service-account-private-key-file {}", path.display())
                })?;
                let signer = Signer::from_pem(&pem);
                Some(
                    signer
                        .with_context(|| format!("--service-account-private-key-file {}", path.display()))?,
                )
            }
        };
        Ok(Keys { signers, token })
    }

    pub(crate) fn signers(&self) -> Vec<&'static str> {
        CertificateSigner::NAMES.into_iter().filter(|name| self.signers.contains_key(name)).collect()
    }

    pub(crate) fn signs_tokens(&self) -> bool {
        self.token.is_some()
    }
}

fn authority(cert: &PathBuf, key: &PathBuf) -> anyhow::Result<Authority> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read signing file {}", path.display()))
    };
    Authority::from_pem(&read(cert)?, &read(key)?)
        .with_context(|| format!("signing files {}", cert.display()))
}

impl Errands for Keys {
    fn run(&self, errand: &Errand) -> Result<String, String> {
        match errand {
            Errand::SignCertificate { signer, request, usages, seconds } => {
                let authority = self.signers.get(signer).ok_or("this process does not sign for it")?;
                let usage =
                    |name: &String| Usage::from_name(name).ok_or(format!("unrecognized usage {name:?}"));
                let profile = CsrProfile {
                    usages: usages.iter().map(usage).collect::<Result<_, _>>()?,
                    seconds: seconds.unsigned_abs(),
                };
                let request = std::str::from_utf8(request).map_err(|error| error.to_string())?;
                authority.sign_csr(request, &profile).map_err(|error| error.to_string())
            }
            Errand::SignToken { account, account_uid, secret } => {
                let signer = self.token.as_ref().ok_or("this process does not sign tokens")?;
                let claims = Claims::new(&account.namespace, &account.name, account_uid, secret);
                signer.sign_legacy(&claims).map_err(|error| error.to_string())
            }
        }
    }
}
