//! What is wrong with the schemas of a definition, in upstream's words.

mod defaults;
mod fields;
mod rules;
mod structural;

pub use fields::resolve;

use crate::schema::Schema;
use api::apiextensions::v1::{CustomResourceDefinitionVersion, JSONSchemaProps};
use meta::field::{Errors, Json, Path};

/// Fields that a schema may have at its root beside a status subresource, by the names that errors list.
const AT_ROOT: &str = "[Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength \
                       MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties \
                       ExternalDocs Example XPreserveUnknownFields XValidations]";
/// Selectable fields of one version.
pub const SELECTABLE_MAX: usize = 8;

/// Whether a node or one below it fulfils a condition.
pub fn any(props: &JSONSchemaProps, holds: &dyn Fn(&JSONSchemaProps) -> bool) -> bool {
    let below = |props: &JSONSchemaProps| any(props, holds);
    let items = props.items.as_deref();
    holds(props)
        || items.and_then(|it| it.schema.as_deref()).is_some_and(below)
        || items.is_some_and(|it| it.schemas.iter().any(below))
        || props.all_of.iter().chain(&props.any_of).chain(&props.one_of).any(below)
        || props.not.as_deref().is_some_and(below)
        || props.properties.values().any(below)
        || props.additional_properties.as_deref().and_then(|it| it.schema.as_deref()).is_some_and(below)
}

/// All that is wrong with the schema of a version, which stands at `path`, and with what refers to it. Without errors
/// the answer is the schema, compiled.
/// `unchanged`: the schema was accepted as it is before, so what its rules cost is no fault.
pub fn validate(
    version: &CustomResourceDefinitionVersion,
    path: &Path,
    unchanged: bool,
    errors: &mut Errors,
) -> Option<Schema> {
    let props = version.schema.as_deref()?.open_apiv3_schema.as_deref()?;
    let before = errors.len();
    let place = path.child("schema").child("openAPIV3Schema");
    let status = version.subresources.as_deref().is_some_and(|it| it.status.is_some());
    if status {
        check_root(props, &place, errors);
    }
    if props.nullable {
        errors.forbidden(&place.child("nullable"), "nullable cannot be true at the root");
    }
    let compiled = match Schema::compile(props) {
        Ok(schema) => {
            let mut faults = structural::validate(props, &place);
            if faults.is_empty() {
                defaults::validate(&schema, &place, &mut faults);
            }
            errors.append(faults);
            Ok(schema)
        }
        // A pattern that cannot be read is told of by the structural rules.
        Err(why) => {
            errors.append(structural::validate(props, &place));
            Err(why)
        }
    };
    rules::validate(props, &place, errors);
    match compiled {
        Ok(schema) => {
            // Rules over a schema with faults of its own would only repeat them.
            if errors.len() == before {
                crate::rules::check(&schema, &place, unchanged, errors);
            }
            fields::selectable(version, &schema, &path.child("selectableFields"), errors);
            (errors.len() == before).then_some(schema)
        }
        Err(why) => {
            // Most of what cannot be compiled has been told of by a rule of its own.
            if errors.len() == before {
                errors.invalid(&place, "", why);
            }
            None
        }
    }
}

/// With a status subresource the status' schema must be found under `properties`, and nowhere else.
fn check_root(props: &JSONSchemaProps, path: &Path, errors: &mut Errors) {
    if props.r#type != "object" {
        let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        errors.invalid(&path.child("type"), &props.r#type, detail);
        return;
    }
    let allowed = JSONSchemaProps {
        description: String::new(),
        r#type: String::new(),
        format: String::new(),
        title: String::new(),
        maximum: None,
        exclusive_maximum: false,
        minimum: None,
        exclusive_minimum: false,
        max_length: None,
        min_length: None,
        pattern: String::new(),
        max_items: None,
        min_items: None,
        unique_items: false,
        multiple_of: None,
        required: Vec::new(),
        items: None,
        properties: Default::default(),
        external_docs: None,
        example: None,
        x_kubernetes_preserve_unknown_fields: None,
        x_kubernetes_validations: Vec::new(),
        nullable: false,
        ..props.clone()
    };
    if allowed != JSONSchemaProps::default() {
        let detail = format!(
            "only {AT_ROOT} fields are allowed at the root of the schema if the status subresource is enabled"
        );
        errors.invalid(path, Json(props), detail);
    }
}
