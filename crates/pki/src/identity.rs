//! Reading certificates: who one names, for what it may be used, until when.

use crate::Error;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::collections::BTreeSet;
use std::net::IpAddr;
use x509_parser::extensions::{GeneralName, ParsedExtension};

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The common name: the user's name for a client certificate.
    pub name: String,
    /// The organizations: the user's groups, in the certificate's order.
    pub groups: Vec<String>,
    /// DNS names and IP addresses.
    pub sans: BTreeSet<String>,
    pub client: bool,
    pub server: bool,
    pub authority: bool,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
    /// What upstream reports as `authentication.kubernetes.io/credential-id`: "X509SHA256=" and the certificate's hash.
    pub credential_id: String,
    /// The subject's public key (SubjectPublicKeyInfo, DER).
    pub public_key: Vec<u8>,
}

impl Identity {
    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        let (_, cert) =
            x509_parser::parse_x509_certificate(der).map_err(|error| Error::invalid("certificate", error))?;
        let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            value.as_str().map(str::to_owned).map_err(|error| Error::invalid("certificate subject", error))
        };
        let usages = cert
            .extended_key_usage()
            .map_err(|error| Error::invalid("certificate", error))?
            .map(|extension| extension.value);
        let digest = ring::digest::digest(&ring::digest::SHA256, der);
        let hash: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Identity {
            name: cert.subject().iter_common_name().last().map(text).transpose()?.unwrap_or_default(),
            groups: cert.subject().iter_organization().map(text).collect::<Result<_, _>>()?,
            sans: sans(&cert),
            client: usages.is_some_and(|usages| usages.client_auth || usages.any),
            server: usages.is_some_and(|usages| usages.server_auth || usages.any),
            authority: cert.is_ca(),
            not_before: cert.validity().not_before.timestamp(),
            not_after: cert.validity().not_after.timestamp(),
            credential_id: format!("X509SHA256={hash}"),
            public_key: cert.public_key().raw.to_vec(),
        })
    }

    /// The first certificate of a PEM text.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        Self::from_der(&first_der(pem)?)
    }

    /// When this certificate should be replaced (seconds since 1970): with a fifth of its life left, well inside the
    /// 70 to 90 percent at which upstream's kubelet renews.
    pub fn renew_at(&self) -> i64 {
        self.not_after - (self.not_after - self.not_before) / 5
    }
}

pub(crate) fn first_der(pem: &str) -> Result<CertificateDer<'static>, Error> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| Error::invalid("certificate", error))
}

fn sans(cert: &x509_parser::certificate::X509Certificate<'_>) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for extension in cert.extensions() {
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(name) => {
                    out.insert((*name).to_owned());
                }
                GeneralName::IPAddress(bytes) => {
                    let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                    let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                    out.extend(address.ok().map(|address| address.to_string()));
                }
                _ => {}
            }
        }
    }
    out
}
