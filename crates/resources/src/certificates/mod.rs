//! The certificates group: what is asked of signers, and whom they trust.

pub mod certificate_signing_request;
pub mod cluster_trust_bundle;
pub mod pod_certificate_request;
#[cfg(test)]
mod tests;

use meta::field::{Errors, Path};
use meta::validation;

const SEGMENT_MAX_BYTES: usize = 571;

/// A signer: a domain, a slash, and a path of names in it.
fn signer_name(name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    let Some((domain, rest)) = name.split_once('/') else {
        return errors.invalid(
            path,
            name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
    };
    let segment = |text: &str, errors: &mut Errors| {
        for fault in validation::dns1123_subdomain(text) {
            errors.invalid(path, text, format!("validating label {text:?}: {fault}"));
        }
    };
    if !domain.contains('.') {
        errors.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    segment(domain, errors);
    if rest.contains('/') {
        errors.invalid(
            path,
            name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
    }
    if name.len() > SEGMENT_MAX_BYTES {
        errors.too_long(path, SEGMENT_MAX_BYTES);
    }
    segment(rest, errors);
}
