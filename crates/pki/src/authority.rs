//! A certificate authority: opened or made, and what it signs.

use crate::identity::{Identity, first_der};
use crate::{Error, files, keys};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::prelude::FromDer;

const DAY: u64 = 24 * 60 * 60;
/// An authority lives ten years, as kubeadm's does.
const AUTHORITY_DAYS: u64 = 3650;
/// Certificates are valid from five minutes ago: clocks of a cluster differ by that much (upstream's signer does so).
const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// What a certificate shall say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertRequest {
    /// The user's name, or the server's.
    pub common_name: String,
    /// The user's groups: at most two, which is what the encoder below can write.
    pub organizations: Vec<String>,
    /// DNS names and IP addresses of a server.
    pub sans: Vec<String>,
    pub client: bool,
    pub server: bool,
    /// Days until it expires.
    pub days: u32,
}

impl CertRequest {
    /// A year's client certificate for a user.
    pub fn client(name: &str, groups: &[&str]) -> Self {
        CertRequest {
            common_name: name.into(),
            organizations: groups.iter().map(|group| (*group).to_owned()).collect(),
            client: true,
            days: 365,
            ..Default::default()
        }
    }
    /// A year's serving certificate.
    pub fn server(name: &str, sans: impl IntoIterator<Item = String>) -> Self {
        CertRequest {
            common_name: name.into(),
            sans: sans.into_iter().collect(),
            server: true,
            days: 365,
            ..Default::default()
        }
    }
}

/// A certificate (possibly with the chain behind it) and its private key, both PEM. `Debug` leaves the key out.
#[derive(Clone, PartialEq, Eq)]
pub struct CertifiedKey {
    pub cert_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for CertifiedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertifiedKey").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

impl CertifiedKey {
    /// The pair in the form that rustls takes.
    pub fn to_rustls(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
        let chain = CertificateDer::pem_slice_iter(self.cert_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Error::invalid("certificate", error))?;
        if chain.is_empty() {
            return Err(Error::invalid("certificate", "the text holds no PEM certificate"));
        }
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|error| Error::invalid("private key", error))?;
        Ok((chain, key))
    }
    pub fn identity(&self) -> Result<Identity, Error> {
        Identity::from_pem(&self.cert_pem)
    }
    /// Reads a pair from two files.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, Error> {
        Ok(CertifiedKey { cert_pem: files::read(cert)?, key_pem: files::read(key)? })
    }
}

/// What a certificate signed from a request may be used for. The request's own wishes count for nothing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    DigitalSignature,
    ContentCommitment,
    KeyEncipherment,
    KeyAgreement,
    DataEncipherment,
    CertSign,
    CrlSign,
    EncipherOnly,
    DecipherOnly,
    Any,
    ServerAuth,
    ClientAuth,
    CodeSigning,
    EmailProtection,
    Timestamping,
    OcspSigning,
    /// Of the extended usages that only a number names, by that number.
    Numbered(&'static [u64]),
}

impl Usage {
    /// The usage of this name in `certificates.k8s.io`.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "signing" | "digital signature" => Usage::DigitalSignature,
            "content commitment" => Usage::ContentCommitment,
            "key encipherment" => Usage::KeyEncipherment,
            "key agreement" => Usage::KeyAgreement,
            "data encipherment" => Usage::DataEncipherment,
            "cert sign" => Usage::CertSign,
            "crl sign" => Usage::CrlSign,
            "encipher only" => Usage::EncipherOnly,
            "decipher only" => Usage::DecipherOnly,
            "any" => Usage::Any,
            "server auth" => Usage::ServerAuth,
            "client auth" => Usage::ClientAuth,
            "code signing" => Usage::CodeSigning,
            "email protection" | "s/mime" => Usage::EmailProtection,
            "ipsec end system" => Usage::Numbered(&[1, 3, 6, 1, 5, 5, 7, 3, 5]),
            "ipsec tunnel" => Usage::Numbered(&[1, 3, 6, 1, 5, 5, 7, 3, 6]),
            "ipsec user" => Usage::Numbered(&[1, 3, 6, 1, 5, 5, 7, 3, 7]),
            "timestamping" => Usage::Timestamping,
            "ocsp signing" => Usage::OcspSigning,
            "microsoft sgc" => Usage::Numbered(&[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
            "netscape sgc" => Usage::Numbered(&[2, 16, 840, 1, 113_730, 4, 1]),
            _ => return None,
        })
    }

    fn put(self, params: &mut CertificateParams) {
        let key = match self {
            Usage::DigitalSignature => KeyUsagePurpose::DigitalSignature,
            Usage::ContentCommitment => KeyUsagePurpose::ContentCommitment,
            Usage::KeyEncipherment => KeyUsagePurpose::KeyEncipherment,
            Usage::KeyAgreement => KeyUsagePurpose::KeyAgreement,
            Usage::DataEncipherment => KeyUsagePurpose::DataEncipherment,
            Usage::CertSign => KeyUsagePurpose::KeyCertSign,
            Usage::CrlSign => KeyUsagePurpose::CrlSign,
            Usage::EncipherOnly => KeyUsagePurpose::EncipherOnly,
            Usage::DecipherOnly => KeyUsagePurpose::DecipherOnly,
            extended => return extended.put_extended(params),
        };
        if !params.key_usages.contains(&key) {
            params.key_usages.push(key);
        }
    }

    fn put_extended(self, params: &mut CertificateParams) {
        let purpose = match self {
            Usage::ServerAuth => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::ClientAuth => ExtendedKeyUsagePurpose::ClientAuth,
            Usage::CodeSigning => ExtendedKeyUsagePurpose::CodeSigning,
            Usage::EmailProtection => ExtendedKeyUsagePurpose::EmailProtection,
            Usage::Timestamping => ExtendedKeyUsagePurpose::TimeStamping,
            Usage::OcspSigning => ExtendedKeyUsagePurpose::OcspSigning,
            Usage::Numbered(number) => ExtendedKeyUsagePurpose::Other(number.to_vec()),
            _ => ExtendedKeyUsagePurpose::Any,
        };
        if !params.extended_key_usages.contains(&purpose) {
            params.extended_key_usages.push(purpose);
        }
    }
}

/// How a request is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsrProfile {
    pub usages: Vec<Usage>,
    /// Seconds until it expires; cut to the authority's own end.
    pub seconds: u64,
}

/// A certificate authority with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert_pem: String,
    cert_der: CertificateDer<'static>,
    not_after: i64,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens `<name>.crt` and `<name>.key` in a folder, making what is missing. A certificate without its key is an
    /// error: making a new pair would strand everything the old one signed.
    pub fn open_or_create(dir: &Path, name: &str, common_name: &str) -> Result<Self, Error> {
        let (cert_path, key_path) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        let (cert, key) = (files::read_if_present(&cert_path)?, files::read_if_present(&key_path)?);
        let (cert_pem, key_pem) = match (cert, key) {
            (Some(cert), Some(key)) => (cert, key),
            (Some(_), None) => {
                let reason = format!("is missing, but {} is there: bring the key back", cert_path.display());
                return Err(Error::file(&key_path, reason));
            }
            (None, key) => {
                let key_pem = match key {
                    // A crash came between the two files.
                    Some(key) => key,
                    None => {
                        let key = KeyPair::generate()?.serialize_pem();
                        files::write(&key_path, key.as_bytes(), files::PRIVATE)?;
                        key
                    }
                };
                let cert = self_signed(common_name, &key_pem)?;
                files::write(&cert_path, cert.as_bytes(), files::PUBLIC)?;
                (cert, key_pem)
            }
        };
        Self::from_pem(&cert_pem, &key_pem).map_err(|error| Error::file(&cert_path, error))
    }

    /// A fresh authority in memory only, for certificates that nobody needs to check.
    pub fn generate(common_name: &str) -> Result<Self, Error> {
        let key_pem = KeyPair::generate()?.serialize_pem();
        Self::from_pem(&self_signed(common_name, &key_pem)?, &key_pem)
    }

    /// An authority from its certificate and key, such as kubeadm's RSA pair.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let key = key_pair(key_pem)?;
        let cert_der = first_der(cert_pem)?;
        let identity = Identity::from_der(&cert_der)?;
        if !identity.authority {
            return Err(Error::invalid("certificate", "is not an authority's"));
        }
        if identity.public_key != key.subject_public_key_info() {
            return Err(Error::invalid("private key", "does not belong to the authority's certificate"));
        }
        let issuer = Issuer::from_ca_cert_der(&cert_der, key)?;
        Ok(Authority { issuer, cert_pem: cert_pem.into(), cert_der, not_after: identity.not_after })
    }

    /// The certificate (and what follows it in its file), for trust bundles.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// A fresh key and its certificate.
    pub fn issue(&self, request: &CertRequest) -> Result<CertifiedKey, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(request.sans.clone())?;
        params.distinguished_name = subject(&request.common_name, &request.organizations)?;
        self.limit(&mut params, u64::from(request.days) * DAY);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        if request.client {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        if request.server {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(CertifiedKey { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }

    /// The pair in `<name>.crt` and `<name>.key`, issued anew where it is missing, damaged, near its end, signed by
    /// another authority, or says something other than `request`.
    pub fn open_or_issue(
        &self,
        dir: &Path,
        name: &str,
        request: &CertRequest,
    ) -> Result<CertifiedKey, Error> {
        let (cert_path, key_path) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        let (cert, key) = (files::read_if_present(&cert_path)?, files::read_if_present(&key_path)?);
        if let (Some(cert_pem), Some(key_pem)) = (cert, key) {
            let pair = CertifiedKey { cert_pem, key_pem };
            if self.stale(&pair, request).is_none() {
                return Ok(pair);
            }
        }
        let pair = self.issue(request)?;
        files::write(&key_path, pair.key_pem.as_bytes(), files::PRIVATE)?;
        files::write(&cert_path, pair.cert_pem.as_bytes(), files::PUBLIC)?;
        Ok(pair)
    }

    /// Why a pair must be issued anew for `request`; `None` while it serves.
    pub fn stale(&self, pair: &CertifiedKey, request: &CertRequest) -> Option<&'static str> {
        let Ok(der) = first_der(&pair.cert_pem) else { return Some("the certificate is unreadable") };
        let Ok(identity) = Identity::from_der(&der) else { return Some("the certificate is unreadable") };
        let Ok(key) = key_pair(&pair.key_pem) else { return Some("the key is unreadable") };
        let wanted: BTreeSet<String> = request.sans.iter().map(|name| canonical(name)).collect();
        if key.subject_public_key_info() != identity.public_key {
            Some("the key belongs to another certificate")
        } else if !self.signed(&der) {
            Some("another authority signed it")
        } else if identity.name != request.common_name || identity.groups != request.organizations {
            Some("it names someone else")
        } else if identity.sans != wanted {
            Some("its names changed")
        } else if (identity.client, identity.server) != (request.client, request.server) {
            Some("its usages changed")
        } else if now().as_secs() as i64 >= identity.renew_at() {
            Some("it is near its end")
        } else {
            None
        }
    }

    /// Whether this authority signed the certificate.
    pub fn signed(&self, der: &[u8]) -> bool {
        let (Ok((_, cert)), Ok((_, own))) =
            (x509_parser::parse_x509_certificate(der), x509_parser::parse_x509_certificate(&self.cert_der))
        else {
            return false;
        };
        cert.issuer().as_raw() == own.subject().as_raw()
            && cert.verify_signature(Some(own.public_key())).is_ok()
    }

    /// Signs a PEM certificate request: its subject, names and key, with the profile's usages and time. The request's
    /// signature is checked; whether its subject is *allowed* is for the caller to have decided.
    pub fn sign_csr(&self, csr_pem: &str, profile: &CsrProfile) -> Result<String, Error> {
        let der = CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes())
            .map_err(|error| Error::invalid("certificate request", error))?;
        let mut request = CertificateSigningRequestParams::from_der(&der)
            .map_err(|error| Error::invalid("certificate request", error))?;
        let (name, groups) = csr_subject(&der)?;
        let params = &mut request.params;
        params.distinguished_name = subject(&name, &groups)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages.clear();
        params.extended_key_usages.clear();
        for usage in &profile.usages {
            usage.put(params);
        }
        self.limit(&mut request.params, profile.seconds);
        Ok(request.signed_by(&self.issuer)?.pem())
    }

    fn limit(&self, params: &mut CertificateParams, seconds: u64) {
        let (from, until) = (now() - BACKDATE, now() + Duration::from_secs(seconds));
        let until = until.min(Duration::from_secs(self.not_after.max(0) as u64));
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + from;
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + until;
    }
}

/// A request's common name and organizations.
fn csr_subject(der: &[u8]) -> Result<(String, Vec<String>), Error> {
    let (_, csr) = x509_parser::certification_request::X509CertificationRequest::from_der(der)
        .map_err(|error| Error::invalid("certificate request", error))?;
    let subject = &csr.certification_request_info.subject;
    let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        value.as_str().map(str::to_owned).map_err(|error| Error::invalid("certificate request", error))
    };
    let name = subject.iter_common_name().last().map(text).transpose()?.unwrap_or_default();
    Ok((name, subject.iter_organization().map(text).collect::<Result<_, _>>()?))
}

fn subject(name: &str, groups: &[String]) -> Result<DistinguishedName, Error> {
    // rcgen keeps one value per attribute type. The organization's type has two spellings there (by name and by
    // number 2.5.4.10), which encode alike: hence two, and a refusal of more rather than a silent loss.
    let spellings = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
    if groups.len() > spellings.len() {
        return Err(Error::invalid("certificate subject", "more than two organizations"));
    }
    let mut out = DistinguishedName::new();
    for (group, spelling) in groups.iter().zip(spellings) {
        out.push(spelling, group.as_str());
    }
    out.push(DnType::CommonName, name);
    Ok(out)
}

fn self_signed(common_name: &str, key_pem: &str) -> Result<String, Error> {
    let key = key_pair(key_pem)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = subject(common_name, &[])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + (now() - BACKDATE);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now() + Duration::from_secs(AUTHORITY_DAYS * DAY);
    Ok(params.self_signed(&key)?.pem())
}

fn key_pair(pem: &str) -> Result<KeyPair, Error> {
    KeyPair::try_from(keys::private_pkcs8(pem)?).map_err(|error| Error::invalid("private key", error))
}

/// A name or address as a parsed certificate spells it.
fn canonical(name: &str) -> String {
    name.parse::<IpAddr>().map_or_else(|_| name.to_owned(), |address| address.to_string())
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
