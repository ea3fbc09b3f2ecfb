//! API services: a group version, and the service that answers for it when this server does not.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::strategy::{StatusMetadata, Strategy};
use crate::{names, webhook_client, with_status};
use api::apiregistration::v1::{APIService, APIServiceCondition};
use meta::field::{Errors, Path};
use meta::{Time, validation};

pub struct APIServices;

const GROUP_PRIORITY_MAX: i32 = 20_000;
const VERSION_PRIORITY_MAX: i32 = 1_000;

impl Strategy for APIServices {
    type Object = APIService;
    const PLURAL: &'static str = "apiservices";
    const NAME: names::Rule = names::path_segment;
    const COLUMNS: &'static [Column] = &[NAME, Column::string("Service"), Column::string("Available"), AGE];
    const UNCONDITIONAL_UPDATE: bool = false;
    const STATUS_METADATA: StatusMetadata = StatusMetadata::Keep;
    with_status!();

    fn default(service: &mut APIService) {
        if let Some(reference) = &mut service.spec.service {
            reference.port.get_or_insert(webhook_client::PORT);
        }
    }

    /// What this server answers itself is there from the start.
    fn prepare_for_create(new: &mut APIService) {
        if new.spec.service.is_none() {
            new.status.conditions = vec![APIServiceCondition {
                r#type: "Available".into(),
                status: "True".into(),
                last_transition_time: new.metadata.creation_timestamp,
                reason: "Local".into(),
                message: "Local APIServices are always available".into(),
            }];
        }
    }

    fn validate(new: &APIService, _old: Option<&APIService>, errors: &mut Errors) {
        let spec = &new.spec;
        let path = Path::new("spec");
        let required = format!("{}.{}", spec.version, spec.group);
        if new.metadata.name != required {
            let detail = format!("must be `spec.version+\".\"+spec.group`: {required:?}");
            errors.invalid(&Path::new("metadata").child("name"), &new.metadata.name, detail);
        }
        let group = path.child("group");
        if spec.group.is_empty() {
            if spec.version != "v1" {
                errors.required(&group, "only v1 may have an empty group and it better be legacy kube");
            }
        } else {
            errors.invalid_each(&group, &spec.group, validation::dns1123_subdomain(&spec.group));
        }
        errors.invalid_each(&path.child("version"), &spec.version, validation::dns1035_label(&spec.version));
        for (name, value, max) in [
            ("groupPriorityMinimum", spec.group_priority_minimum, GROUP_PRIORITY_MAX),
            ("versionPriority", spec.version_priority, VERSION_PRIORITY_MAX),
        ] {
            if value <= 0 || value > max {
                errors.invalid(&path.child(name), value, format!("must be positive and less than {max}"));
            }
        }
        let insecure = path.child("insecureSkipTLSVerify");
        let Some(service) = &spec.service else {
            if !spec.ca_bundle.is_empty() {
                let value = format!("{} bytes", spec.ca_bundle.len());
                errors.invalid(&path.child("caBundle"), value, "local APIServices may not have a caBundle");
            }
            if spec.insecure_skip_tls_verify {
                errors.invalid(&insecure, true, "local APIServices may not have insecureSkipTLSVerify");
            }
            return;
        };
        let path = path.child("service");
        if service.namespace.is_empty() {
            errors.required(&path.child("namespace"), "");
        }
        if service.name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        let port = service.port.unwrap_or(webhook_client::PORT);
        let faults = validation::port_number(port.into());
        if !faults.is_empty() {
            let detail = format!("port is not valid: {}", faults.join(", "));
            errors.invalid(&path.child("port"), port, detail);
        }
        if spec.insecure_skip_tls_verify && !spec.ca_bundle.is_empty() {
            errors.invalid(&insecure, true, "may not be true if caBundle is present");
        }
    }

    fn validate_status(new: &APIService, _old: &APIService, errors: &mut Errors) {
        let path = Path::new("status").child("conditions");
        for (index, condition) in new.status.conditions.iter().enumerate() {
            let allowed = ["True", "False", "Unknown"];
            if !allowed.contains(&condition.status.as_str()) {
                errors.not_supported(&path.index(index).child("status"), &condition.status, &allowed);
            }
        }
    }

    fn row(service: &APIService, now: Time) -> Vec<Cell> {
        let place = service.spec.service.as_ref();
        let place = place.map_or_else(|| "Local".into(), |it| format!("{}/{}", it.namespace, it.name));
        let available = service.status.conditions.iter().find(|it| it.r#type == "Available");
        let available = match available {
            None => "Unknown".into(),
            Some(it) if it.status == "True" || it.reason.is_empty() => it.status.clone(),
            Some(it) => format!("{} ({})", it.status, it.reason),
        };
        let metadata = &service.metadata;
        vec![columns::name(metadata), place.into(), available.into(), columns::age(metadata, now)]
    }
}

#[cfg(test)]
mod tests {
    use crate::tests_support::*;
    use expect_test::expect;

    #[test]
    fn local_services_are_available_at_once() {
        let local = "{metadata: {name: v1.apps}, spec: {group: apps, version: v1, groupPriorityMinimum: 1, versionPriority: 1}}";
        check_create(
            "apiservices",
            local,
            expect![[r#"
            apiVersion: apiregistration.k8s.io/v1
            kind: APIService
            metadata:
              name: v1.apps
            spec:
              group: apps
              groupPriorityMinimum: 1
              version: v1
              versionPriority: 1
            status:
              conditions:
              - message: Local APIServices are always available
                reason: Local
                status: "True"
                type: Available
        "#]],
        );
        check_errors("apiservices", local, expect![[""]]);
        check_errors(
            "apiservices",
            "{metadata: {name: x}, spec: {group: '', version: V2, insecureSkipTLSVerify: true, caBundle: eA==, service: {port: 0}}}",
            expect![[r#"
                metadata.name: Invalid value: "x": must be `spec.version+"."+spec.group`: "V2."
                spec.group: Required value: only v1 may have an empty group and it better be legacy kube
                spec.version: Invalid value: "V2": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')
                spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000
                spec.versionPriority: Invalid value: 0: must be positive and less than 1000
                spec.service.namespace: Required value
                spec.service.name: Required value
                spec.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive
                spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present
            "#]],
        );
        check_row(
            "apiservices",
            "{metadata: {name: v1.x}, spec: {service: {namespace: ns, name: s}}, status: {conditions: [{type: Available, status: 'False', reason: Gone}]}}",
            expect![[r#"
                Name: "v1.x"
                Service: "ns/s"
                Available: "False (Gone)"
                Age: "<unknown>"
            "#]],
        );
    }
}
