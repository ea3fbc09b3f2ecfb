//! Resource claims and their templates: devices that pods ask for.

use super::selectors;
use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::object_meta::immutable_value;
use crate::strategy::{StatusMetadata, Strategy};
use crate::with_status;
use api::resource::v1::{DeviceClaim, DeviceRequest, ResourceClaim, ResourceClaimTemplate};
use meta::field::{Errors, Path};
use meta::{Time, validation};

pub struct ResourceClaims;

const EXACT: &str = "ExactCount";
const ALL: &str = "All";
const REQUESTS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;

impl Strategy for ResourceClaims {
    type Object = ResourceClaim;
    const PLURAL: &'static str = "resourceclaims";
    const COLUMNS: &'static [Column] = &[NAME, Column::string("State"), AGE];
    const STATUS_METADATA: StatusMetadata = StatusMetadata::Keep;
    with_status!();

    fn default(claim: &mut ResourceClaim) {
        default_claim(&mut claim.spec.devices);
    }

    fn validate(new: &ResourceClaim, old: Option<&ResourceClaim>, errors: &mut Errors) {
        let path = Path::new("spec");
        match old {
            None => validate_claim(&new.spec.devices, &path.child("devices"), errors),
            Some(old) => immutable_value(&new.spec, &old.spec, &path, errors),
        }
    }

    fn row(claim: &ResourceClaim, now: Time) -> Vec<Cell> {
        let mut states = Vec::new();
        let deleted = claim.metadata.deletion_timestamp.is_some();
        if deleted {
            states.push("deleted");
        }
        if claim.status.allocation.is_some() {
            states.push("allocated");
            if !claim.status.reserved_for.is_empty() {
                states.push("reserved");
            }
        } else if !deleted {
            states.push("pending");
        }
        let metadata = &claim.metadata;
        vec![columns::name(metadata), states.join(",").into(), columns::age(metadata, now)]
    }
}

pub struct ResourceClaimTemplates;

impl Strategy for ResourceClaimTemplates {
    type Object = ResourceClaimTemplate;
    const PLURAL: &'static str = "resourceclaimtemplates";
    const COLUMNS: &'static [Column] = columns::NAME_AND_AGE;

    fn default(template: &mut ResourceClaimTemplate) {
        default_claim(&mut template.spec.spec.devices);
    }

    fn validate(new: &ResourceClaimTemplate, old: Option<&ResourceClaimTemplate>, errors: &mut Errors) {
        let path = Path::new("spec");
        match old {
            None => validate_claim(&new.spec.spec.devices, &path.child("spec").child("devices"), errors),
            Some(old) => immutable_value(&new.spec, &old.spec, &path, errors),
        }
    }
}

fn default_claim(claim: &mut DeviceClaim) {
    for request in &mut claim.requests {
        if let Some(exactly) = &mut request.exactly {
            default_count(&mut exactly.allocation_mode, &mut exactly.count);
        }
        for alternative in &mut request.first_available {
            default_count(&mut alternative.allocation_mode, &mut alternative.count);
        }
    }
}

fn default_count(mode: &mut String, count: &mut i64) {
    if mode.is_empty() {
        *mode = EXACT.into();
    }
    if mode == EXACT && *count == 0 {
        *count = 1;
    }
}

fn validate_claim(claim: &DeviceClaim, path: &Path, errors: &mut Errors) {
    let requests = path.child("requests");
    if claim.requests.len() > REQUESTS_MAX {
        errors.too_many(&requests, claim.requests.len(), REQUESTS_MAX);
    }
    for (index, request) in claim.requests.iter().enumerate() {
        let path = requests.index(index);
        validate_request(request, &path, errors);
        if claim.requests[..index].iter().any(|it| it.name == request.name) {
            errors.duplicate(&path, &request.name);
        }
    }
    let check = |names: &[String], path: &Path, errors: &mut Errors| {
        for (index, name) in names.iter().enumerate() {
            if !names_request(claim, name) {
                let detail = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
                errors.invalid(&path.child("requests").index(index), name, detail);
            }
        }
    };
    for (index, constraint) in claim.constraints.iter().enumerate() {
        check(&constraint.requests, &path.child("constraints").index(index), errors);
    }
    for (index, config) in claim.config.iter().enumerate() {
        check(&config.requests, &path.child("config").index(index), errors);
    }
}

fn names_request(claim: &DeviceClaim, name: &str) -> bool {
    let (request, alternative) = name.split_once('/').map_or((name, None), |(a, b)| (a, Some(b)));
    claim.requests.iter().filter(|it| it.name == request).any(|it| {
        alternative.is_none_or(|alternative| it.first_available.iter().any(|it| it.name == alternative))
    })
}

fn validate_request(request: &DeviceRequest, path: &Path, errors: &mut Errors) {
    request_name(&request.name, &path.child("name"), errors);
    match (&request.exactly, request.first_available.as_slice()) {
        (None, []) => errors.required(path, "exactly one of `exactly` or `firstAvailable` is required"),
        (Some(_), [_, ..]) => {
            let detail =
                "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.invalid(path, None::<String>, detail);
        }
        (Some(exactly), []) => {
            let path = path.child("exactly");
            class_name(&exactly.device_class_name, &path, errors);
            selectors::validate(&exactly.selectors, &path, errors);
            allocation(&exactly.allocation_mode, exactly.count, &path, errors);
        }
        (None, alternatives) => {
            let list = path.child("firstAvailable");
            if alternatives.len() > ALTERNATIVES_MAX {
                errors.too_many(&list, alternatives.len(), ALTERNATIVES_MAX);
            }
            for (index, alternative) in alternatives.iter().enumerate() {
                let path = list.index(index);
                request_name(&alternative.name, &path.child("name"), errors);
                class_name(&alternative.device_class_name, &path, errors);
                selectors::validate(&alternative.selectors, &path, errors);
                allocation(&alternative.allocation_mode, alternative.count, &path, errors);
                if alternatives[..index].iter().any(|it| it.name == alternative.name) {
                    errors.duplicate(&path, &alternative.name);
                }
            }
        }
    }
}

fn request_name(name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    errors.invalid_each(path, name, validation::dns1123_label(name));
}

fn class_name(name: &str, path: &Path, errors: &mut Errors) {
    let path = path.child("deviceClassName");
    if name.is_empty() {
        return errors.required(&path, "");
    }
    errors.invalid_each(&path, name, validation::dns1123_subdomain(name));
}

fn allocation(mode: &str, count: i64, path: &Path, errors: &mut Errors) {
    let place = path.child("count");
    match mode {
        ALL if count != 0 => {
            let detail = format!("must not be specified when allocationMode is '{mode}'");
            errors.invalid(&place, count, detail);
        }
        EXACT if count <= 0 => errors.invalid(&place, count, "must be greater than zero"),
        ALL | EXACT => {}
        other => errors.not_supported(&path.child("allocationMode"), other, &[ALL, EXACT]),
    }
}
