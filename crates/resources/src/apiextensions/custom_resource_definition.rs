//! Custom resource definitions. What is wrong inside a schema is the `apiextensions` crate's to tell.

use crate::object_meta::immutable;
use crate::strategy::{StatusMetadata, Strategy};
use crate::{webhook_client, with_spec, with_status};
use ::apiextensions::names::{self, Approval};
use api::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceConversion, CustomResourceDefinition,
    CustomResourceDefinitionNames, CustomResourceDefinitionVersion,
};
use meta::field::{Errors, Json, Path};
use meta::validation;

pub struct CustomResourceDefinitions;

const REVIEW_VERSIONS: &str = "v1, v1beta1";
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const WARNING_MAX_BYTES: usize = 256;

impl Strategy for CustomResourceDefinitions {
    type Object = CustomResourceDefinition;
    const PLURAL: &'static str = "customresourcedefinitions";
    const UNCONDITIONAL_UPDATE: bool = false;
    const STATUS_METADATA: StatusMetadata = StatusMetadata::Keep;
    with_spec!();
    with_status!();

    fn default(definition: &mut CustomResourceDefinition) {
        let spec = &mut definition.spec;
        if spec.names.singular.is_empty() {
            spec.names.singular = spec.names.kind.to_lowercase();
        }
        if spec.names.list_kind.is_empty() && !spec.names.kind.is_empty() {
            spec.names.list_kind = format!("{}List", spec.names.kind);
        }
        let conversion = spec.conversion.get_or_insert_with(|| {
            Box::new(CustomResourceConversion { strategy: "None".into(), ..Default::default() })
        });
        let client = conversion.webhook.as_mut().and_then(|webhook| webhook.client_config.as_mut());
        if let Some(service) = client.and_then(|client| client.service.as_mut()) {
            service.port.get_or_insert(webhook_client::PORT);
        }
        if definition.status.stored_versions.is_empty() {
            add_stored_version(definition);
        }
    }

    fn prepare_for_create(new: &mut CustomResourceDefinition) {
        add_stored_version(new);
    }
    fn prepare_for_update(new: &mut CustomResourceDefinition, _old: &CustomResourceDefinition) {
        add_stored_version(new);
    }

    fn validate(new: &CustomResourceDefinition, old: Option<&CustomResourceDefinition>, errors: &mut Errors) {
        let spec = &new.spec;
        if new.metadata.name != format!("{}.{}", spec.names.plural, spec.group) {
            let name = Path::new("metadata").child("name");
            errors.invalid(&name, &new.metadata.name, r#"must be spec.names.plural+"."+spec.group"#);
        }
        validate_spec(new, old, errors);
        validate_stored_versions(new, errors);
        validate_approval(new, old, errors);
        let Some(old) = old else { return };
        let path = Path::new("spec");
        let established = |it: &&api::apiextensions::v1::CustomResourceDefinitionCondition| {
            it.r#type == "Established" && it.status == "True"
        };
        if old.status.conditions.iter().any(|it| established(&it)) {
            immutable(&spec.scope, &old.spec.scope, &path.child("scope"), errors);
            immutable(&spec.names.kind, &old.spec.names.kind, &path.child("names").child("kind"), errors);
        }
        immutable(&spec.group, &old.spec.group, &path.child("group"), errors);
        let plural = path.child("names").child("plural");
        immutable(&spec.names.plural, &old.spec.names.plural, &plural, errors);
    }

    /// A definition stays until its objects are gone: its first deletion puts the finalizer there.
    fn outlives_deletion(definition: &CustomResourceDefinition) -> bool {
        definition.metadata.deletion_timestamp.is_none()
    }
    fn begin_deletion(definition: &mut CustomResourceDefinition) {
        let finalizers = &mut definition.metadata.finalizers;
        if !finalizers.iter().any(|finalizer| finalizer == names::FINALIZER) {
            finalizers.push(names::FINALIZER.into());
        }
    }

    fn validate_status(new: &CustomResourceDefinition, _old: &CustomResourceDefinition, errors: &mut Errors) {
        validate_names(&new.status.accepted_names, &Path::new("status").child("acceptedNames"), errors);
        validate_stored_versions(new, errors);
    }
}

/// A group of Kubernetes' own is for who can say that it was approved; what was so before may stay.
fn validate_approval(
    new: &CustomResourceDefinition,
    old: Option<&CustomResourceDefinition>,
    errors: &mut Errors,
) {
    if !names::is_protected(&new.spec.group) {
        return;
    }
    let (state, why) = names::approval_state(new);
    if old.is_some_and(|old| names::approval_state(old).0 == state) {
        return;
    }
    let path = Path::new("metadata").child("annotations").key(names::APPROVED);
    match state {
        Approval::Approved | Approval::Bypassed => {}
        Approval::Missing => errors.required(&path, why),
        Approval::Invalid => {
            let text = new.metadata.annotations.get(names::APPROVED);
            errors.invalid(&path, text.map(String::as_str).unwrap_or_default(), why);
        }
    }
}

/// Whatever was the storage version once has objects in the store until someone says otherwise.
fn add_stored_version(definition: &mut CustomResourceDefinition) {
    let stored = &mut definition.status.stored_versions;
    if let Some(version) = definition.spec.versions.iter().find(|version| version.storage)
        && !stored.contains(&version.name)
    {
        stored.push(version.name.clone());
    }
}

fn validate_spec(
    definition: &CustomResourceDefinition,
    old: Option<&CustomResourceDefinition>,
    errors: &mut Errors,
) {
    let spec = &definition.spec;
    let path = Path::new("spec");
    let group = path.child("group");
    let faults = validation::dns1123_subdomain(&spec.group);
    if spec.group.is_empty() {
        errors.required(&group, "");
    } else if !faults.is_empty() {
        errors.invalid(&group, &spec.group, faults.join(","));
    } else if !spec.group.contains('.') {
        errors.invalid(&group, &spec.group, "should be a domain with at least one dot");
    }
    one_of(&spec.scope, &["Cluster", "Namespaced"], &path.child("scope"), errors);

    let versions = path.child("versions");
    for (index, version) in spec.versions.iter().enumerate() {
        if version.schema.as_ref().is_none_or(|schema| schema.open_apiv3_schema.is_none()) {
            let schema = versions.index(index).child("schema").child("openAPIV3Schema");
            errors.required(&schema, "");
        }
    }
    if spec.preserve_unknown_fields {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid(&path.child("preserveUnknownFields"), true, detail);
    }
    for (index, version) in spec.versions.iter().enumerate() {
        let path = versions.index(index);
        joined(&path.child("name"), &version.name, validation::dns1035_label(&version.name), errors);
        let before = old.and_then(|old| old.spec.versions.iter().find(|it| it.name == version.name));
        let unchanged = before.is_some_and(|before| before.schema == version.schema);
        validate_version(version, &path, unchanged, errors);
    }
    let twice = |index: usize| spec.versions[..index].iter().any(|it| it.name == spec.versions[index].name);
    if (0..spec.versions.len()).any(twice) {
        errors.invalid(&versions, Json(&spec.versions), "must contain unique version names");
    }
    if spec.versions.iter().filter(|version| version.storage).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.invalid(&versions, Json(&spec.versions), detail);
    }

    let names = path.child("names");
    for (name, value) in [
        ("plural", &spec.names.plural),
        ("singular", &spec.names.singular),
        ("kind", &spec.names.kind),
        ("listKind", &spec.names.list_kind),
    ] {
        if value.is_empty() {
            errors.required(&names.child(name), "");
        }
    }
    validate_names(&spec.names, &names, errors);
    if let Some(conversion) = &spec.conversion {
        validate_conversion(conversion, &path.child("conversion"), errors);
    }
}

/// All faults of one value as one error.
fn joined(path: &Path, value: &str, faults: Vec<String>, errors: &mut Errors) {
    if !faults.is_empty() {
        errors.invalid(path, value, faults.join(","));
    }
}

fn one_of(value: &str, allowed: &[&str], path: &Path, errors: &mut Errors) {
    if value.is_empty() {
        errors.required(path, "");
    } else if !allowed.contains(&value) {
        errors.not_supported(path, value, allowed);
    }
}

fn validate_version(
    version: &CustomResourceDefinitionVersion,
    path: &Path,
    unchanged: bool,
    errors: &mut Errors,
) {
    let warning = path.child("deprecationWarning");
    if let Some(text) = &version.deprecation_warning {
        let mut fault = |detail: &str| errors.invalid(&warning, text, detail);
        if !version.deprecated {
            fault("can only be set for deprecated versions");
        } else if text.len() > WARNING_MAX_BYTES {
            fault("must be <= 256 characters long");
        } else if text.is_empty() {
            fault("must not be an empty string");
        } else if let Some(at) = text.find(char::is_control) {
            let detail = format!(
                "must only contain printable UTF-8 characters; non-printable character found at index {at}"
            );
            fault(&detail);
        }
    }
    ::apiextensions::crd::validate(version, path, unchanged, errors);
    if let Some(scale) = version.subresources.as_ref().and_then(|it| it.scale.as_ref()) {
        let path = path.child("subresources").child("scale");
        let places = [
            ("specReplicasPath", &scale.spec_replicas_path, ".spec."),
            ("statusReplicasPath", &scale.status_replicas_path, ".status."),
        ];
        for (name, place, prefix) in places {
            if place.is_empty() {
                errors.required(&path.child(name), "");
            } else if !place.starts_with(prefix) {
                let detail = format!("should be a json path under {}", prefix.trim_end_matches('.'));
                errors.invalid(&path.child(name), place, detail);
            }
        }
        let selector = scale.label_selector_path.as_deref().unwrap_or_default();
        let inside = |prefix| selector.starts_with(prefix);
        if !selector.is_empty() && !inside(".spec.") && !inside(".status.") {
            let detail = "should be a json path under either .spec or .status";
            errors.invalid(&path.child("labelSelectorPath"), selector, detail);
        }
    }
    for (index, column) in version.additional_printer_columns.iter().enumerate() {
        validate_column(column, &path.child("additionalPrinterColumns").index(index), errors);
    }
}

fn validate_column(column: &CustomResourceColumnDefinition, path: &Path, errors: &mut Errors) {
    if column.name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    let types = format!("must be one of {}", COLUMN_TYPES.join(","));
    if column.r#type.is_empty() {
        errors.required(&path.child("type"), types);
    } else if !COLUMN_TYPES.contains(&column.r#type.as_str()) {
        errors.invalid(&path.child("type"), &column.r#type, types);
    }
    if !column.format.is_empty() && !COLUMN_FORMATS.contains(&column.format.as_str()) {
        let detail = format!("must be one of {}", COLUMN_FORMATS.join(","));
        errors.invalid(&path.child("format"), &column.format, detail);
    }
    if column.json_path.is_empty() {
        errors.required(&path.child("JSONPath"), "");
    } else if !column.json_path.starts_with('.') {
        let detail = "must be a simple json path starting with .";
        errors.invalid(&path.child("JSONPath"), &column.json_path, detail);
    }
}

fn validate_names(names: &CustomResourceDefinitionNames, path: &Path, errors: &mut Errors) {
    let label = |name: &str, value: &str, errors: &mut Errors| {
        if !value.is_empty() {
            joined(&path.child(name), value, validation::dns1035_label(value), errors);
        }
    };
    let kind = |name: &str, value: &str, errors: &mut Errors| {
        let faults = validation::dns1035_label(&value.to_lowercase());
        if !value.is_empty() && !faults.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", faults.join(","));
            errors.invalid(&path.child(name), value, detail);
        }
    };
    label("plural", &names.plural, errors);
    label("singular", &names.singular, errors);
    kind("kind", &names.kind, errors);
    kind("listKind", &names.list_kind, errors);
    for (index, name) in names.short_names.iter().enumerate() {
        joined(&path.child("shortNames").index(index), name, validation::dns1035_label(name), errors);
    }
    if !names.kind.is_empty() && names.kind == names.list_kind {
        errors.invalid(&path.child("listKind"), &names.list_kind, "kind and listKind may not be the same");
    }
    for (index, name) in names.categories.iter().enumerate() {
        joined(&path.child("categories").index(index), name, validation::dns1035_label(name), errors);
    }
}

/// Upstream tells these by the paths of its first version, where a webhook's fields lay side by side.
fn validate_conversion(conversion: &CustomResourceConversion, path: &Path, errors: &mut Errors) {
    one_of(&conversion.strategy, &["None", "Webhook"], &path.child("strategy"), errors);
    let client = conversion.webhook.as_ref().and_then(|webhook| webhook.client_config.as_ref());
    let none = Vec::new();
    let reviews = conversion.webhook.as_ref().map_or(&none, |webhook| &webhook.conversion_review_versions);
    let client_path = path.child("webhookClientConfig");
    let reviews_path = path.child("conversionReviewVersions");
    if conversion.strategy != "Webhook" {
        let detail = "should not be set when strategy is not set to Webhook";
        if client.is_some() {
            errors.forbidden(&client_path, detail);
        }
        if !reviews.is_empty() {
            errors.forbidden(&reviews_path, detail);
        }
        return;
    }
    match client {
        None => errors.required(&client_path, "required when strategy is set to Webhook"),
        Some(client) => {
            let service = client.service.as_ref().map(|service| webhook_client::Service {
                namespace: &service.namespace,
                name: &service.name,
                path: service.path.as_deref(),
                port: service.port.unwrap_or(webhook_client::PORT),
            });
            webhook_client::validate(client.url.as_deref(), service.as_ref(), &client_path, errors);
        }
    }
    if reviews.is_empty() {
        return errors.required(&reviews_path, "");
    }
    for (index, version) in reviews.iter().enumerate() {
        let path = reviews_path.index(index);
        if reviews[..index].contains(version) {
            errors.invalid(&path, version, "duplicate version");
        } else {
            errors.invalid_each(&path, version, validation::dns1035_label(version));
        }
    }
    if !reviews.iter().any(|version| version == "v1" || version == "v1beta1") {
        let detail = format!("must include at least one of {REVIEW_VERSIONS}");
        errors.invalid(&reviews_path, Json(reviews), detail);
    }
}

fn validate_stored_versions(definition: &CustomResourceDefinition, errors: &mut Errors) {
    let path = Path::new("status").child("storedVersions");
    let stored = &definition.status.stored_versions;
    if stored.is_empty() {
        return errors.invalid(&path, Json(stored), "must have at least one stored version");
    }
    let versions = &definition.spec.versions;
    for version in versions.iter().filter(|version| version.storage && !stored.contains(&version.name)) {
        errors.invalid(&path, Json(stored), format!("must have the storage version {}", version.name));
    }
    for (index, name) in stored.iter().enumerate() {
        if versions.iter().any(|version| version.name == *name) {
            continue;
        }
        let detail = format!(
            "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
             until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
        );
        errors.invalid(&path.index(index), name, detail);
    }
}

#[cfg(test)]
mod tests {
    use crate::tests_support::*;
    use expect_test::expect;

    const WIDGETS: &str = "{metadata: {name: widgets.example.com, resourceVersion: '1'}, spec: {group: example.com, scope: Namespaced, \
                           names: {plural: widgets, kind: Widget}, \
                           versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]}}";

    #[test]
    fn names_and_stored_versions_follow_from_the_rest() {
        check_default(
            "customresourcedefinitions",
            WIDGETS,
            expect![[r#"
            apiVersion: apiextensions.k8s.io/v1
            kind: CustomResourceDefinition
            metadata:
              name: widgets.example.com
              resourceVersion: "1"
            spec:
              conversion:
                strategy: None
              group: example.com
              names:
                kind: Widget
                listKind: WidgetList
                plural: widgets
                singular: widget
              scope: Namespaced
              versions:
              - name: v1
                schema:
                  openAPIV3Schema:
                    type: object
                served: true
                storage: true
            status:
              acceptedNames:
                kind: ""
                plural: ""
              conditions: null
              storedVersions:
              - v1
        "#]],
        );
        check_errors("customresourcedefinitions", WIDGETS, expect![[""]]);
    }

    #[test]
    fn bad_definitions_are_told_apart() {
        check_errors(
            "customresourcedefinitions",
            "{metadata: {name: other}, spec: {group: example, scope: World, names: {plural: Widgets, kind: A, listKind: A}, \
             versions: [{name: V1, additionalPrinterColumns: [{name: x, type: odd, jsonPath: z}]}], \
             conversion: {strategy: Webhook, webhook: {clientConfig: {url: 'http://u@h/?q#f'}, conversionReviewVersions: [v2]}}}}",
            expect![[r#"
                metadata.name: Invalid value: "other": must be spec.names.plural+"."+spec.group
                spec.group: Invalid value: "example": should be a domain with at least one dot
                spec.scope: Unsupported value: "World": supported values: "Cluster", "Namespaced"
                spec.versions[0].schema.openAPIV3Schema: Required value
                spec.versions[0].name: Invalid value: "V1": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')
                spec.versions[0].additionalPrinterColumns[0].type: Invalid value: "odd": must be one of boolean,date,integer,number,string
                spec.versions[0].additionalPrinterColumns[0].JSONPath: Invalid value: "z": must be a simple json path starting with .
                spec.versions: Invalid value: [{"name":"V1","served":false,"storage":false,"additionalPrinterColumns":[{"name":"x","type":"odd","jsonPath":"z"}]}]: must have exactly one version marked as storage version
                spec.names.plural: Invalid value: "Widgets": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')
                spec.names.listKind: Invalid value: "A": kind and listKind may not be the same
                spec.conversion.webhookClientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]
                spec.conversion.webhookClientConfig.url: Invalid value: "u": user information is not permitted in the URL
                spec.conversion.webhookClientConfig.url: Invalid value: "f": fragments are not permitted in the URL
                spec.conversion.webhookClientConfig.url: Invalid value: "q": query parameters are not permitted in the URL
                spec.conversion.conversionReviewVersions: Invalid value: ["v2"]: must include at least one of v1, v1beta1
                status.storedVersions: Invalid value: null: must have at least one stored version
            "#]],
        );
        check_update_errors(
            "customresourcedefinitions",
            &WIDGETS.replace("name: v1,", "name: v2,"),
            WIDGETS,
            expect![[r#"
                status.storedVersions[0]: Invalid value: "v2": missing from spec.versions; v2 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v2 and removes v2 from status.storedVersions
            "#]],
        );
    }
}
