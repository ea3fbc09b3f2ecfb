//! Cluster trust bundles: roots that workloads may trust, some of them bound to a signer.

use super::signer_name;
use crate::columns::{self, Cell, Column, NAME, or_none};
use crate::names;
use crate::object_meta::immutable;
use crate::strategy::Strategy;
use api::certificates::v1beta1::ClusterTrustBundle;
use meta::Time;
use meta::field::{Errors, Path};

pub struct ClusterTrustBundles;

const BUNDLE_MAX_BYTES: usize = 1024 * 1024;

/// Either a plain name, or the signer's with colons for slashes and a name after it.
fn name_rule(name: &str, prefix: bool) -> Vec<String> {
    let last = name.rsplit(':').next().unwrap_or_default();
    names::dns_subdomain(last, prefix)
}

impl Strategy for ClusterTrustBundles {
    type Object = ClusterTrustBundle;
    const PLURAL: &'static str = "clustertrustbundles";
    const COLUMNS: &'static [Column] = &[NAME, Column::string("SignerName")];
    const NAME: names::Rule = name_rule;
    const SELECTABLE: &'static [&'static str] = &["metadata.name", "spec.signerName"];
    const UNCONDITIONAL_UPDATE: bool = false;

    fn validate(new: &ClusterTrustBundle, old: Option<&ClusterTrustBundle>, errors: &mut Errors) {
        let (spec, path) = (&new.spec, Path::new("spec"));
        let name = Path::new("metadata").child("name");
        if spec.signer_name.is_empty() {
            if new.metadata.name.contains(':') {
                let detail = "ClusterTrustBundle without signer name must not have \":\" in its name";
                errors.invalid(&name, &new.metadata.name, detail);
            }
        } else {
            signer_name(&spec.signer_name, &path.child("signerName"), errors);
            let wanted = format!("{}:", spec.signer_name.replace('/', ":"));
            if !new.metadata.name.starts_with(&wanted) {
                let detail = format!(
                    "ClusterTrustBundle for signerName {} must be named with prefix {wanted}",
                    spec.signer_name
                );
                errors.invalid(&name, &new.metadata.name, detail);
            }
        }
        let bundle = path.child("trustBundle");
        if spec.trust_bundle.len() > BUNDLE_MAX_BYTES {
            errors.too_long(&bundle, BUNDLE_MAX_BYTES);
        } else if !spec.trust_bundle.contains("-----BEGIN CERTIFICATE-----") {
            errors.invalid(&bundle, "<value omitted>", "at least one trust anchor must be provided");
        }
        if let Some(old) = old {
            immutable(&spec.signer_name, &old.spec.signer_name, &path.child("signerName"), errors);
        }
    }

    fn selectable(object: &ClusterTrustBundle) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", object.spec.signer_name.clone())]
    }

    fn row(object: &ClusterTrustBundle, _now: Time) -> Vec<Cell> {
        vec![columns::name(&object.metadata), or_none(&object.spec.signer_name).into()]
    }
}
