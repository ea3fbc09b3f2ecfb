//! Service accounts: of the secrets they list, only names are kept.

use crate::columns::{Column, NAME_AND_AGE};
use crate::strategy::Strategy;
use api::core::v1::{ObjectReference, ServiceAccount};

pub struct ServiceAccounts;

const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";

fn keep_names(account: &mut ServiceAccount) {
    for secret in &mut account.secrets {
        *secret = ObjectReference { name: std::mem::take(&mut secret.name), ..Default::default() };
    }
}

impl Strategy for ServiceAccounts {
    type Object = ServiceAccount;
    const PLURAL: &'static str = "serviceaccounts";
    const COLUMNS: &'static [Column] = NAME_AND_AGE;

    fn prepare_for_create(account: &mut ServiceAccount) {
        keep_names(account);
    }
    fn prepare_for_update(new: &mut ServiceAccount, _old: &ServiceAccount) {
        keep_names(new);
    }
    fn warnings(new: &ServiceAccount, old: Option<&ServiceAccount>) -> Vec<String> {
        let has = |account: &ServiceAccount| account.metadata.annotations.contains_key(ENFORCE_MOUNTABLE);
        if !has(new) || old.is_some_and(has) {
            return Vec::new();
        }
        vec![format!(
            "metadata.annotations[{ENFORCE_MOUNTABLE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
        )]
    }
}
