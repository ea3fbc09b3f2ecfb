//! Rules in CEL: when a definition is written, and when objects are.

use api::apiextensions::v1::{CustomResourceDefinitionVersion, JSONSchemaProps};
use apiextensions::{Rules, Schema, crd};
use expect_test::{Expect, expect};
use meta::field::{Errors, Path};
use serde_json::Value;

fn yaml(text: &str) -> Value {
    serde_json::from_slice(&api::codec::yaml_to_json(text.as_bytes()).unwrap()).unwrap()
}

fn props(text: &str) -> JSONSchemaProps {
    api::codec::from_value(&yaml(text)).unwrap()
}

fn check(of: &str, new: &str, old: Option<&str>, expected: Expect) {
    let schema = Schema::compile(&props(of)).unwrap();
    let rules = Rules::compile(&schema).expect("there are rules");
    let mut errors = Errors::default();
    rules.validate(&yaml(new), old.map(yaml).as_ref(), &mut errors);
    let lines: String = errors.iter().map(|error| format!("{error}\n")).collect();
    expected.assert_eq(&lines);
}

fn check_definition(of: &str, expected: Expect) {
    let mut version = CustomResourceDefinitionVersion { name: "v1".into(), ..Default::default() };
    version.schema.get_or_insert_default().open_apiv3_schema = Some(Box::new(props(of)));
    let mut errors = Errors::default();
    crd::validate(&version, &Path::root(), false, &mut errors);
    let lines: String =
        errors.iter().map(|error| format!("{error}\n").replace("schema.openAPIV3Schema", "..")).collect();
    expected.assert_eq(&lines);
}

const SPEC: &str = "{type: object, properties: {spec: {type: object, properties: {\
  least: {type: integer}, most: {type: integer}, name: {type: string}, fixed: {type: string, x-kubernetes-validations: [{rule: 'self == oldSelf', message: is fixed}]}, \
  list: {type: array, items: {type: object, properties: {n: {type: integer, x-kubernetes-validations: [{rule: 'self > 0'}]}}}}, \
  keyed: {type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [id], items: {type: object, required: [id], \
    properties: {id: {type: string}, v: {type: integer, x-kubernetes-validations: [{rule: 'self >= oldSelf', message: may only grow}]}}}}}, \
  x-kubernetes-validations: [\
    {rule: 'self.least <= self.most', messageExpression: '\"least \" + string(self.least) + \" is above \" + string(self.most)', fieldPath: .least, reason: FieldValueForbidden}, \
    {rule: '!has(self.name) || self.name.startsWith(\"a\")', message: must start with a}, \
    {rule: 'oldSelf.hasValue() || !has(self.name) || self.name != \"afterwards\"', optionalOldSelf: true, message: not at first}]}}}";

#[test]
fn rules_run_on_every_value_they_stand_for() {
    check(
        SPEC,
        "{spec: {least: 3, most: 2, name: b, list: [{n: 1}, {n: 0}], fixed: x}}",
        None,
        expect![[r#"
            spec.least: Forbidden: least 3 is above 2
            spec: Invalid value: must start with a
            spec.list[1].n: Invalid value: 0: failed rule: self > 0
        "#]],
    );
    check(
        SPEC,
        "{spec: {least: 1, most: 2, name: afterwards}}",
        None,
        expect![[r#"
        spec: Invalid value: not at first
    "#]],
    );
}

#[test]
fn transitions_look_at_what_was() {
    check(
        SPEC,
        "{spec: {least: 1, most: 2, fixed: new, keyed: [{id: b, v: 1}, {id: a, v: 1}, {id: c, v: 0}]}}",
        Some("{spec: {least: 1, most: 2, fixed: old, keyed: [{id: a, v: 1}, {id: b, v: 2}]}}"),
        expect![[r#"
            spec.fixed: Invalid value: "new": is fixed
            spec.keyed[0].v: Invalid value: 1: may only grow
        "#]],
    );
}

#[test]
fn what_did_not_change_is_let_through() {
    check(
        SPEC,
        "{metadata: {name: x}, spec: {least: 3, most: 2, list: [{n: 0}]}}",
        Some("{spec: {least: 3, most: 2, list: [{n: 0}]}}"),
        expect![[""]],
    );
    check(
        SPEC,
        "{spec: {least: 3, most: 1, list: [{n: 0}]}}",
        Some("{spec: {least: 3, most: 2, list: [{n: 0}]}}"),
        expect![[r#"
            spec.least: Forbidden: least 3 is above 1
        "#]],
    );
}

#[test]
fn a_resource_shows_its_name() {
    check(
        "{type: object, x-kubernetes-validations: [{rule: 'self.metadata.name.size() < 4 && self.kind == \"K\"', message: short names}]}",
        "{apiVersion: a/v1, kind: K, metadata: {name: longer, labels: {a: b}}}",
        None,
        expect![[r#"
            <nil>: Invalid value: short names
        "#]],
    );
}

#[test]
fn definitions_are_told_what_is_wrong_with_their_rules() {
    check_definition(
        "{type: object, properties: {spec: {type: object, properties: {n: {type: integer}, \
          list: {type: array, items: {type: string, x-kubernetes-validations: [{rule: 'self == oldSelf'}]}}}, \
          x-kubernetes-validations: [{rule: 'self.m > 1'}, {rule: 'self.n'}, {rule: 'self.n > 0', messageExpression: 'self.n'}, \
            {rule: 'self.n > 1', optionalOldSelf: true}, \
            {rule: 'self.list.all(x, self.list.all(y, self.list.all(z, x == y || y == z)))'}]}}}",
        expect![[r#"
            ...properties[spec].x-kubernetes-validations[0].rule: Invalid value: {"Rule":"self.m > 1","Message":"","MessageExpression":"","Reason":null,"FieldPath":"","OptionalOldSelf":null}: compilation failed: ERROR: <input>:1:5: undefined field 'm'
             | self.m > 1
             | ....^
            ...properties[spec].x-kubernetes-validations[1].rule: Invalid value: {"Rule":"self.n","Message":"","MessageExpression":"","Reason":null,"FieldPath":"","OptionalOldSelf":null}: cel expression must evaluate to a bool
            ...properties[spec].x-kubernetes-validations[2].messageExpression: Invalid value: {"Rule":"self.n > 0","Message":"","MessageExpression":"self.n","Reason":null,"FieldPath":"","OptionalOldSelf":null}: messageExpression must evaluate to a string
            ...properties[spec].x-kubernetes-validations[3].optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule
            ...properties[spec].x-kubernetes-validations[4].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)
            ...properties[spec].properties[list].items.x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)
            ...properties[spec].properties[list].items.x-kubernetes-validations[0].rule: Invalid value: "self == oldSelf": oldSelf cannot be used on the uncorrelatable portion of the schema within ...properties[spec].properties[list]
            ...properties[spec].x-kubernetes-validations[4].rule: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema
            ...properties[spec].properties[list].items.x-kubernetes-validations[0].rule: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema
            ..: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)
        "#]],
    );
}

#[test]
fn defaults_keep_the_rules() {
    check_definition(
        "{type: object, properties: {n: {type: integer, default: 0, x-kubernetes-validations: [{rule: 'self > 0'}]}}}",
        expect![[r#"
            ...properties[n].default: Invalid value: 0: failed rule: self > 0
        "#]],
    );
}
