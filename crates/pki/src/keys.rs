//! Keys that sign and verify: read from PEM in any of the usual wrappers, and named by `kid` as upstream does.

use crate::{Error, der};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, KeyPair as _, RsaKeyPair, UnparsedPublicKey};
use rustls_pki_types::pem::{PemObject, SectionKind};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// RSA PKCS#1 v1.5 with SHA-256.
    Rs256,
}

impl Algorithm {
    /// The name in a JWT header.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Es256 => "ES256",
            Algorithm::Rs256 => "RS256",
        }
    }
}

/// The first private key of a PEM text, as PKCS#8.
pub(crate) fn private_pkcs8(pem: &str) -> Result<Vec<u8>, Error> {
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()) {
        match section.map_err(|error| Error::invalid("private key", error))? {
            (SectionKind::PrivateKey, der) => return Ok(der),
            (SectionKind::RsaPrivateKey, der) => return Ok(der::pkcs8_from_rsa(&der)),
            (SectionKind::EcPrivateKey, der) => return Ok(der::pkcs8_from_p256(&der)),
            _ => {}
        }
    }
    Err(Error::invalid("private key", "the text holds no PEM private key"))
}

enum Private {
    Ec(Box<EcdsaKeyPair>),
    Rsa(Box<RsaKeyPair>),
}

/// Signs service account tokens with one private key.
pub struct Signer {
    private: Private,
    public: PublicKey,
    random: SystemRandom,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("kid", &self.public.kid).finish_non_exhaustive()
    }
}

impl Signer {
    /// A fresh P-256 key as PKCS#8 PEM.
    pub fn generate_pem() -> Result<String, Error> {
        Ok(rcgen::KeyPair::generate()?.serialize_pem())
    }

    /// Reads a private key: P-256 signs ES256, RSA (2048 bits and more) signs RS256.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let pkcs8 = private_pkcs8(pem)?;
        let random = SystemRandom::new();
        let ec = EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random);
        if let Ok(key) = ec {
            let public = PublicKey::from_spki(&der::spki_from_p256(key.public_key().as_ref()))?;
            return Ok(Signer { private: Private::Ec(Box::new(key)), public, random });
        }
        let key = RsaKeyPair::from_pkcs8(&pkcs8).map_err(|rejected| {
            Error::invalid("private key", format!("neither a P-256 nor an RSA key: {rejected}"))
        })?;
        let public = PublicKey::from_spki(&der::spki_from_rsa(key.public().as_ref()))?;
        Ok(Signer { private: Private::Rsa(Box::new(key)), public, random })
    }

    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(crate) fn sign_bytes(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |_| Error::invalid("token", "the key refused to sign");
        match &self.private {
            Private::Ec(key) => Ok(key.sign(&self.random, message).map_err(failed)?.as_ref().to_vec()),
            Private::Rsa(key) => {
                let mut out = vec![0; key.public().modulus_len()];
                key.sign(&signature::RSA_PKCS1_SHA256, &self.random, message, &mut out).map_err(failed)?;
                Ok(out)
            }
        }
    }
}

/// A key that verifies tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: Algorithm,
    /// The bits inside the SubjectPublicKeyInfo: a point, or PKCS#1.
    bits: Vec<u8>,
    spki: Vec<u8>,
    kid: String,
}

impl PublicKey {
    /// All keys of a PEM text, as `--service-account-key-file` takes them: public keys, private keys (whose public
    /// half counts), and certificates.
    pub fn from_pem(pem: &str) -> Result<Vec<Self>, Error> {
        let mut keys = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()) {
            match section.map_err(|error| Error::invalid("public key", error))? {
                (SectionKind::PublicKey, spki) => keys.push(Self::from_spki(&spki)?),
                (SectionKind::Certificate, der) => {
                    let (_, cert) = x509_parser::parse_x509_certificate(&der)
                        .map_err(|error| Error::invalid("certificate", error))?;
                    keys.push(Self::from_spki(cert.public_key().raw)?);
                }
                _ => {}
            }
        }
        if keys.is_empty() {
            keys.push(Signer::from_pem(pem)?.public);
        }
        Ok(keys)
    }

    fn from_spki(spki: &[u8]) -> Result<Self, Error> {
        let (_, parsed) =
            SubjectPublicKeyInfo::from_der(spki).map_err(|error| Error::invalid("public key", error))?;
        let bits = parsed.subject_public_key.data.to_vec();
        let algorithm = match parsed.algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.1" => Algorithm::Rs256,
            // An uncompressed point of two 32 byte coordinates: P-256.
            "1.2.840.10045.2.1" if bits.len() == 65 && bits[0] == 4 => Algorithm::Es256,
            other => return Err(Error::invalid("public key", format!("{other} is neither P-256 nor RSA"))),
        };
        // The name upstream gives a key: the SHA-256 of its PKIX form, so that the name does not give the key away.
        let digest = ring::digest::digest(&ring::digest::SHA256, spki);
        let kid = BASE64_URL_SAFE_NO_PAD.encode(digest);
        Ok(PublicKey { algorithm, bits, spki: spki.to_vec(), kid })
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
    /// The key's name in token headers and in the JWKS.
    pub fn kid(&self) -> &str {
        &self.kid
    }
    pub fn to_pem(&self) -> String {
        let text = base64::prelude::BASE64_STANDARD.encode(&self.spki);
        let mut out = String::from("-----BEGIN PUBLIC KEY-----\n");
        for line in text.as_bytes().chunks(64) {
            out.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
            out.push('\n');
        }
        out.push_str("-----END PUBLIC KEY-----\n");
        out
    }

    pub(crate) fn verifies(&self, message: &[u8], signed: &[u8]) -> bool {
        let algorithm: &dyn signature::VerificationAlgorithm = match self.algorithm {
            Algorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        };
        UnparsedPublicKey::new(algorithm, &self.bits).verify(message, signed).is_ok()
    }

    /// The key as a JSON Web Key, members in the order upstream writes them.
    pub(crate) fn jwk(&self) -> String {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        match self.algorithm {
            Algorithm::Es256 => format!(
                r#"{{"use":"sig","kty":"EC","kid":"{}","crv":"P-256","alg":"ES256","x":"{}","y":"{}"}}"#,
                self.kid,
                encode(&self.bits[1..33]),
                encode(&self.bits[33..]),
            ),
            Algorithm::Rs256 => {
                let (modulus, exponent) = self.rsa_numbers();
                format!(
                    r#"{{"use":"sig","kty":"RSA","kid":"{}","alg":"RS256","n":"{}","e":"{}"}}"#,
                    self.kid,
                    encode(&modulus),
                    encode(&exponent),
                )
            }
        }
    }

    /// Modulus and exponent, big endian without leading zeros.
    fn rsa_numbers(&self) -> (Vec<u8>, Vec<u8>) {
        let trimmed = |bytes: &[u8]| bytes[bytes.iter().take_while(|byte| **byte == 0).count()..].to_vec();
        let parsed = SubjectPublicKeyInfo::from_der(&self.spki).ok().and_then(|(_, info)| {
            info.parsed().ok().map(|key| match key {
                x509_parser::public_key::PublicKey::RSA(key) => (trimmed(key.modulus), trimmed(key.exponent)),
                _ => Default::default(),
            })
        });
        parsed.unwrap_or_default()
    }
}
