//! Whom a called server must convince, and how a refusal reads: in the words of Go's client, which people search for.

use anyhow::{Context, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// Where distributions keep the authorities that everybody trusts; the first that is there counts.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Who may vouch for a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The authorities of the machine.
    System,
    /// These, in PEM.
    Bundle(Vec<u8>),
    /// Nobody has to.
    Anyone,
}

/// The client's side of TLS. `identity` is shown to servers that ask for it.
pub fn client_config(trust: &Trust, identity: Option<&pki::CertifiedKey>) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Anyone => Arc::new(AnyCertificate(provider)),
        Trust::Bundle(pem) => Arc::new(Bundle::new(pem, provider)?),
        Trust::System => Arc::new(Bundle::new(&system_bundle(), provider)?),
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    Ok(match identity {
        Some(pair) => {
            let (chain, key) = pair.to_rustls()?;
            builder.with_client_auth_cert(chain, key)?
        }
        None => builder.with_no_client_auth(),
    })
}

fn system_bundle() -> Vec<u8> {
    SYSTEM_BUNDLES.iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_default()
}

/// Takes any server certificate; signatures are still checked.
#[derive(Debug)]
pub struct AnyCertificate(pub Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks against a bundle. As in Go, a certificate that itself stands in the bundle is believed even where it is no
/// authority: that is how servers with a self-signed certificate are registered.
#[derive(Debug)]
struct Bundle {
    /// `None` for a bundle without a usable certificate: nobody is believed.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    listed: Vec<CertificateDer<'static>>,
    any: AnyCertificate,
}

impl Bundle {
    fn new(pem: &[u8], provider: Arc<CryptoProvider>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let mut listed = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.context("the CA bundle is not PEM")?;
            // One that cannot be an authority may still be the server's own.
            let _ = roots.add(certificate.clone());
            listed.push(certificate);
        }
        let authorities = if roots.is_empty() {
            None
        } else {
            let built =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
            Some(built.context("the CA bundle cannot be used")?)
        };
        Ok(Bundle { authorities, listed, any: AnyCertificate(provider) })
    }

    fn is_listed(&self, leaf: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> bool {
        let fresh = pki::Identity::from_der(leaf)
            .is_ok_and(|identity| identity.not_after >= i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        fresh
            && self.listed.iter().any(|known| known.as_ref() == leaf.as_ref())
            && ParsedCertificate::try_from(leaf)
                .is_ok_and(|parsed| rustls::client::verify_server_name(&parsed, name).is_ok())
    }
}

impl ServerCertVerifier for Bundle {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let judged = match &self.authorities {
            Some(authorities) => authorities.verify_server_cert(leaf, rest, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        judged.or_else(|error| {
            if self.is_listed(leaf, name, now) { Ok(ServerCertVerified::assertion()) } else { Err(error) }
        })
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.any.verify_tls12_signature(message, cert, signed)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.any.verify_tls13_signature(message, cert, signed)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.any.supported_verify_schemes()
    }
}

/// Why a handshake failed, as Go's client says it.
pub fn handshake_failure(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(certificate)) = inner else {
        return format!("tls: {error}");
    };
    let why = match certificate {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "certificate signed by unknown authority".to_string()
        }
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "certificate signed by unknown authority".to_string()
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            "certificate has expired or is not yet valid".to_string()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let valid = presented.iter().map(|name| plain_name(name)).collect::<Vec<_>>().join(", ");
            format!("certificate is valid for {valid}, not {}", expected.to_str())
        }
        other => format!("{other:?}"),
    };
    format!("tls: failed to verify certificate: x509: {why}")
}

/// `DnsName("a")` as webpki prints names, without its wrapping.
fn plain_name(printed: &str) -> &str {
    let inner = printed.split_once('(').map_or(printed, |(_, rest)| rest.trim_end_matches(')'));
    inner.trim_matches('"')
}
