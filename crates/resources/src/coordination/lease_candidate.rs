//! Lease candidates: who could lead, and in which version.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::names;
use crate::object_meta::immutable;
use crate::strategy::Strategy;
use api::coordination::v1beta1::LeaseCandidate;
use meta::field::{Errors, Path};
use meta::{Time, validation};

pub struct LeaseCandidates;

const OLDEST: &str = "OldestEmulationVersion";

fn name_rule(name: &str, _prefix: bool) -> Vec<String> {
    validation::config_map_key(name)
}

/// A known strategy, or one of someone else's under a prefix.
pub(super) fn validate_strategy(strategy: &str, path: &Path, errors: &mut Errors) {
    match strategy.split_once('/') {
        Some((domain, _)) => {
            errors.invalid_each(path, strategy, validation::qualified_name(strategy));
            if domain.ends_with("kubernetes.io") || domain.ends_with("k8s.io") {
                errors.not_supported(path, strategy, &[OLDEST]);
            }
        }
        None if strategy != OLDEST => errors.not_supported(path, strategy, &[OLDEST]),
        None => {}
    }
}

/// Major, minor and patch; `None` for other text.
fn version(text: &str) -> Option<(u64, u64, u64)> {
    let plain = text.split(['-', '+']).next()?;
    let mut parts = plain.split('.').map(|part| part.parse().ok());
    let version = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(version)
}

impl Strategy for LeaseCandidates {
    type Object = LeaseCandidate;
    const PLURAL: &'static str = "leasecandidates";
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::string("LeaseName"),
        Column::string("BinaryVersion"),
        Column::string("EmulationVersion"),
        AGE,
    ];
    const NAME: names::Rule = name_rule;
    const CREATE_ON_UPDATE: bool = true;
    const UNCONDITIONAL_UPDATE: bool = false;

    fn validate(new: &LeaseCandidate, old: Option<&LeaseCandidate>, errors: &mut Errors) {
        let (spec, path) = (&new.spec, Path::new("spec"));
        if spec.lease_name.is_empty() {
            errors.required(&path.child("leaseName"), "");
        }
        let (binary, emulation) = (path.child("binaryVersion"), path.child("emulationVersion"));
        let (runs, acts) = (version(&spec.binary_version), version(&spec.emulation_version));
        if !spec.emulation_version.is_empty() && acts.is_none() {
            errors.invalid(&emulation, &spec.emulation_version, "must be a valid semantic version");
        }
        if spec.binary_version.is_empty() {
            errors.required(&binary, "");
        } else if runs.is_none() {
            errors.invalid(&binary, &spec.binary_version, "must be a valid semantic version");
        }
        if runs.zip(acts).is_some_and(|(runs, acts)| runs < acts) {
            let detail = "must be greater than or equal to `emulationVersion`";
            errors.invalid(&binary, &spec.binary_version, detail);
        }
        let strategy = path.child("strategy");
        if spec.strategy.is_empty() {
            errors.required(&strategy, "");
        } else {
            if spec.strategy == OLDEST && acts.is_none() {
                let detail = "must be specified when `strategy` is 'OldestEmulationVersion'";
                errors.required(&emulation, detail);
            }
            validate_strategy(&spec.strategy, &strategy, errors);
        }
        if let Some(old) = old {
            immutable(&spec.lease_name, &old.spec.lease_name, &path.child("leaseName"), errors);
        }
    }

    fn row(object: &LeaseCandidate, now: Time) -> Vec<Cell> {
        let spec = &object.spec;
        vec![
            columns::name(&object.metadata),
            spec.lease_name.clone().into(),
            spec.binary_version.clone().into(),
            spec.emulation_version.clone().into(),
            columns::age(&object.metadata, now),
        ]
    }
}
