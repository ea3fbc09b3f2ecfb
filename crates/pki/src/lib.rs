//! Who is who in a cluster: authorities and certificates, kubeconfigs, service account and bootstrap tokens.
//!
//! Files with a private key are born with mode 0600 and replaced whole, so a crash leaves the old one or the new.
//! Private keys and tokens never appear in `Debug` or in an error.
#![forbid(unsafe_code)]

pub mod authority;
pub mod bootstrap;
pub mod cluster;
mod der;
pub mod files;
pub mod identity;
mod keys;
pub mod kubeconfig;
pub mod legacy_token;
pub mod token;

pub use authority::{Authority, CertRequest, CertifiedKey, CsrProfile, Usage};
pub use identity::Identity;
pub use keys::{Algorithm, PublicKey, Signer};
pub use kubeconfig::Kubeconfig;

use std::path::{Path, PathBuf};

/// What goes wrong with keys, certificates and their files. Tokens have their own: [`token::Error`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("{what}: {reason}")]
    Invalid { what: &'static str, reason: String },
    #[error("signing a certificate: {0}")]
    Sign(#[from] rcgen::Error),
}

impl Error {
    pub(crate) fn invalid(what: &'static str, reason: impl std::fmt::Display) -> Self {
        Error::Invalid { what, reason: reason.to_string() }
    }
    pub(crate) fn file(path: &Path, reason: impl std::fmt::Display) -> Self {
        Error::File { path: path.into(), reason: reason.to_string() }
    }
}
