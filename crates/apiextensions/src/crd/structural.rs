//! Whether a schema is structural: every field has a type outside of logic, and logic only narrows what is there.

use api::apiextensions::v1::JSONSchemaProps;
use meta::field::{Errors, Path};

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// The faults, sorted by their text as upstream sorts them.
pub fn validate(props: &JSONSchemaProps, path: &Path) -> Errors {
    let mut errors = Errors::default();
    invariants(props, Level::Root, path, &mut errors);
    complete(props, Some(props), path, path, &mut errors);
    errors.0.sort_by_cached_key(ToString::to_string);
    errors
}

fn items(props: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    props.items.as_deref().and_then(|items| items.schema.as_deref())
}

fn additional(props: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    props.additional_properties.as_deref().and_then(|additional| additional.schema.as_deref())
}

fn invariants(props: &JSONSchemaProps, level: Level, path: &Path, errors: &mut Errors) {
    if props.r#type == "array" && props.items.is_none() {
        errors.required(&path.child("items"), "must be specified");
    }
    if let Some(items) = items(props) {
        invariants(items, Level::Item, &path.child("items"), errors);
    }
    for (name, property) in &props.properties {
        invariants(property, Level::Field, &path.child("properties").key(name), errors);
    }
    if props.additional_properties.is_some() {
        let place = path.child("additionalProperties");
        if level == Level::Root {
            errors.forbidden(&place, "must not be used at the root");
        }
        if let Some(additional) = additional(props) {
            invariants(additional, Level::Field, &place, errors);
        }
    }
    extensions(props, path, errors);
    let skip = IntOrString::of(props);
    logic(props, skip == IntOrString::AnyOf, skip == IntOrString::AllOf, path, errors);
    check_type(props, level, path, errors);
    check_meta(props, level, path, errors);
}

fn extensions(props: &JSONSchemaProps, path: &Path, errors: &mut Errors) {
    if !props.x_kubernetes_int_or_string {
        return;
    }
    let detail = "must be false if x-kubernetes-int-or-string is true";
    if props.x_kubernetes_preserve_unknown_fields == Some(true) {
        errors.invalid(&path.child("x-kubernetes-preserve-unknown-fields"), true, detail);
    }
    if props.x_kubernetes_embedded_resource {
        errors.invalid(&path.child("x-kubernetes-embedded-resource"), true, detail);
    }
}

fn check_type(props: &JSONSchemaProps, level: Level, path: &Path, errors: &mut Errors) {
    let place = path.child("type");
    let ty = props.r#type.as_str();
    let untyped =
        !props.x_kubernetes_int_or_string && props.x_kubernetes_preserve_unknown_fields != Some(true);
    if props.x_kubernetes_embedded_resource && ty != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        if ty.is_empty() {
            errors.required(&place, detail);
        } else {
            errors.invalid(&place, ty, detail);
        }
    } else if ty.is_empty() && untyped {
        errors.required(
            &place,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        );
    }
    if props.x_kubernetes_embedded_resource && props.additional_properties.is_some() {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        errors.forbidden(&path.child("additionalProperties"), detail);
    }
    if level == Level::Root && !ty.is_empty() && ty != "object" {
        errors.invalid(&place, ty, "must be object at the root");
    }
}

fn check_meta(props: &JSONSchemaProps, level: Level, path: &Path, errors: &mut Errors) {
    let checked = level == Level::Root || props.x_kubernetes_embedded_resource;
    let properties = path.child("properties");
    for name in ["kind", "apiVersion"] {
        if let Some(property) = props.properties.get(name).filter(|it| checked && it.r#type != "string") {
            errors.invalid(&properties.key(name).child("type"), &property.r#type, "must be string");
        }
    }
    if let Some(metadata) = props.properties.get("metadata") {
        let place = properties.key("metadata");
        if checked && metadata.r#type != "object" {
            errors.invalid(&place.child("type"), &metadata.r#type, "must be object");
        }
        let named = |name: &String| name == "name" || name == "generateName";
        let only_names = metadata.properties.keys().all(named);
        let rest = JSONSchemaProps {
            r#type: String::new(),
            default: None,
            properties: Default::default(),
            ..metadata.clone()
        };
        // Checks of the value as a whole narrow nothing that the server does not set itself.
        let plain = rest == JSONSchemaProps { required: rest.required.clone(), ..JSONSchemaProps::default() };
        if level == Level::Root && !(only_names && plain && rest.required.is_empty()) {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.forbidden(&place, detail);
        }
    }
    let keeps = props.x_kubernetes_preserve_unknown_fields == Some(true);
    if props.x_kubernetes_embedded_resource && !keeps && props.properties.is_empty() {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.required(&properties, detail);
    }
}

/// The two forms in which a number or a text may be said to be wanted with types inside of logic.
#[derive(PartialEq)]
enum IntOrString {
    No,
    AnyOf,
    AllOf,
}

impl IntOrString {
    fn of(props: &JSONSchemaProps) -> Self {
        let of_type = |ty: &str| JSONSchemaProps { r#type: ty.into(), ..JSONSchemaProps::default() };
        let pair = |any_of: &[JSONSchemaProps]| matches!(any_of, [a, b] if *a == of_type("integer") && *b == of_type("string"));
        if pair(&props.any_of) {
            IntOrString::AnyOf
        } else if props.all_of.first().is_some_and(|first| pair(&first.any_of)) {
            IntOrString::AllOf
        } else {
            IntOrString::No
        }
    }
}

fn logic(props: &JSONSchemaProps, skip_any_of: bool, skip_first: bool, path: &Path, errors: &mut Errors) {
    if !skip_any_of {
        for (index, props) in props.any_of.iter().enumerate() {
            nested(props, false, &path.child("anyOf").index(index), errors);
        }
    }
    for (index, props) in props.all_of.iter().enumerate() {
        nested(props, skip_first && index == 0, &path.child("allOf").index(index), errors);
    }
    for (index, props) in props.one_of.iter().enumerate() {
        nested(props, false, &path.child("oneOf").index(index), errors);
    }
    if let Some(not) = props.not.as_deref() {
        nested(not, false, &path.child("not"), errors);
    }
    if !props.pattern.is_empty()
        && let Err(why) = crate::pattern::compile(&props.pattern)
    {
        let detail = format!("must be a valid regular expression, but isn't: {why}");
        errors.invalid(&path.child("pattern"), &props.pattern, detail);
    }
}

/// Inside of logic a schema may only check values.
fn nested(props: &JSONSchemaProps, skip_any_of: bool, path: &Path, errors: &mut Errors) {
    logic(props, skip_any_of, false, path, errors);
    if let Some(items) = items(props) {
        nested(items, false, &path.child("items"), errors);
    }
    for (name, property) in &props.properties {
        nested(property, false, &path.child("properties").key(name), errors);
    }
    let allowed = props.additional_properties.as_deref().is_some_and(|it| it.allows || it.schema.is_some());
    let (empty, undefined, fals) = (
        "must be empty to be structural",
        "must be undefined to be structural",
        "must be false to be structural",
    );
    let faults = [
        (!props.r#type.is_empty(), "type", empty),
        (allowed, "additionalProperties", undefined),
        (props.default.is_some(), "default", undefined),
        (!props.title.is_empty(), "title", empty),
        (!props.description.is_empty(), "description", empty),
        (props.nullable, "nullable", fals),
        (
            props.x_kubernetes_preserve_unknown_fields == Some(true),
            "x-kubernetes-preserve-unknown-fields",
            fals,
        ),
        (props.x_kubernetes_embedded_resource, "x-kubernetes-embedded-resource", fals),
        (props.x_kubernetes_int_or_string, "x-kubernetes-int-or-string", fals),
        (!props.x_kubernetes_list_map_keys.is_empty(), "x-kubernetes-list-map-keys", empty),
        (props.x_kubernetes_list_type.is_some(), "x-kubernetes-list-type", undefined),
        (props.x_kubernetes_map_type.is_some(), "x-kubernetes-map-type", undefined),
        (!props.x_kubernetes_validations.is_empty(), "x-kubernetes-validations", empty),
    ];
    for (wrong, name, detail) in faults {
        if wrong {
            errors.forbidden(&path.child(name), detail);
        }
    }
    if props.properties.contains_key("metadata") {
        let place = path.child("properties").key("metadata");
        errors.forbidden(&place, "must not be specified in a nested context");
    }
}

/// Everything that logic speaks of must be there outside of it.
fn complete(
    logic: &JSONSchemaProps,
    structure: Option<&JSONSchemaProps>,
    place: &Path,
    path: &Path,
    errors: &mut Errors,
) {
    if let Some(not) = logic.not.as_deref() {
        complete_nested(not, structure, place, &path.child("not"), errors);
    }
    for (name, all) in [("allOf", &logic.all_of), ("anyOf", &logic.any_of), ("oneOf", &logic.one_of)] {
        for (index, props) in all.iter().enumerate() {
            complete_nested(props, structure, place, &path.child(name).index(index), errors);
        }
    }
}

fn complete_nested(
    props: &JSONSchemaProps,
    structure: Option<&JSONSchemaProps>,
    place: &Path,
    path: &Path,
    errors: &mut Errors,
) {
    let Some(structure) = structure else {
        return errors.required(place, format!("because it is defined in {path}"));
    };
    complete(props, Some(structure), place, path, errors);
    if let Some(inner) = items(props) {
        complete_nested(inner, items(structure), &place.child("items"), &path.child("items"), errors);
    }
    for (name, property) in &props.properties {
        let there = structure.properties.get(name);
        let (place, path) = (place.child("properties").key(name), path.child("properties").key(name));
        complete_nested(property, there, &place, &path, errors);
    }
}
