//! Schemas as definitions write them, objects as users write them: text in, text out.

use api::apiextensions::v1::JSONSchemaProps;
use apiextensions::{Schema, defaulting, listtype, prune, validate};
use expect_test::{Expect, expect};
use meta::field::{Errors, Path};
use serde_json::{Map, Value};

fn yaml(text: &str) -> Value {
    serde_json::from_slice(&api::codec::yaml_to_json(text.as_bytes()).unwrap()).unwrap()
}

fn schema(text: &str) -> Schema {
    let props: JSONSchemaProps = api::codec::from_value(&yaml(text)).unwrap();
    Schema::compile(&props).unwrap()
}

fn fields(text: &str) -> Map<String, Value> {
    yaml(text).as_object().unwrap().clone()
}

/// Prunes and defaults: what is left, and what was dropped.
fn check_reading(of: &str, object: &str, expected: Expect) {
    let schema = schema(of);
    let mut fields = fields(object);
    let dropped = prune::object(&mut fields, &schema);
    defaulting::drop_nulls(&mut fields, &schema);
    defaulting::fields(&mut fields, &schema);
    expected.assert_eq(&format!("{}\n{}\n", Value::Object(fields), dropped.join("\n")));
}

fn check_errors(of: &str, new: &str, old: Option<&str>, expected: Expect) {
    let schema = schema(of);
    let (new, old) = (yaml(new), old.map(yaml));
    let mut errors = Errors::default();
    validate::object(&new, old.as_ref(), &schema, &mut errors);
    listtype::validate(&Path::root(), &schema, new.as_object().unwrap(), &mut errors);
    let lines: String = errors.iter().map(|error| format!("{error}\n")).collect();
    expected.assert_eq(&lines);
}

#[test]
fn what_no_schema_knows_is_dropped() {
    check_reading(
        "{type: object, properties: {a: {type: object, properties: {b: {type: string}}}, \
          list: {type: array, items: {type: object, properties: {x: {type: integer}}}}, \
          map: {type: object, additionalProperties: {type: object, properties: {k: {type: string}}}}, \
          any: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {known: {type: object}}}, \
          raw: {x-kubernetes-preserve-unknown-fields: true}}}",
        "{a: {b: x, c: y}, list: [{x: 1, y: 2}], map: {m: {k: v, l: w}}, any: {more: {deep: 1}, known: {lost: 1}}, raw: [{z: 1}], z: 1}",
        expect![[r#"
            {"a":{"b":"x"},"any":{"known":{},"more":{"deep":1}},"list":[{"x":1}],"map":{"m":{"k":"v"}},"raw":[{"z":1}]}
            .a.c
            .any.known.lost
            .list[0].y
            .map.m.l
            .z
        "#]],
    );
}

#[test]
fn what_is_left_out_is_filled_in() {
    check_reading(
        "{type: object, properties: {spec: {type: object, default: {}, properties: {\
          a: {type: integer, default: 5}, b: {type: string, nullable: true, default: x}, c: {type: string}, \
          list: {type: array, items: {type: object, properties: {n: {type: string, default: m}}}}, \
          map: {type: object, additionalProperties: {type: object, properties: {n: {type: string, default: m}}}}}}}}",
        "{spec: {a: null, b: null, c: null, list: [{}, {n: k}], map: {x: {}}}}",
        expect![[r#"
            {"spec":{"a":5,"b":null,"list":[{"n":"m"},{"n":"k"}],"map":{"x":{"n":"m"}}}}

        "#]],
    );
    check_reading(
        "{type: object, properties: {spec: {type: object, default: {}, properties: {a: {type: integer, default: 5}}}}}",
        "{}",
        expect![[r#"
            {"spec":{"a":5}}

        "#]],
    );
}

#[test]
fn values_are_checked_in_upstreams_words() {
    check_errors(
        "{type: object, required: [must], properties: {\
          i: {type: integer, minimum: 1, maximum: 3, exclusiveMaximum: true}, m: {type: integer, multipleOf: 5}, \
          f: {type: number, minimum: 0.5}, s: {type: string, minLength: 2, maxLength: 3}, \
          l: {type: array, minItems: 1, maxItems: 1, items: {type: boolean}}, e: {type: array, minItems: 1, items: {type: string}}, \
          o: {type: object, maxProperties: 1, additionalProperties: {type: string}}, \
          w: {type: integer, format: int32}, n: {type: string}, d: {type: string, format: date-time}, \
          v: {type: string, enum: [a, b]}}}",
        "{i: 3, m: 7, f: 0.25, s: a, l: [1, true], e: [], o: {a: b, c: d}, w: 3000000000, n: null, d: soon, v: c}",
        None,
        expect![[r#"
            d: Invalid value: "soon": d in body must be of type datetime: "soon"
            e: Invalid value: 0: e in body should have at least 1 items
            f: Invalid value: 0.25: f in body should be greater than or equal to 0.5
            i: Invalid value: 3: i in body should be less than 3
            l[0]: Invalid value: "integer": l[0] in body must be of type boolean: "integer"
            l: Too many: 2: must have at most 1 item
            m: Invalid value: 7: m in body should be a multiple of 5
            n: Invalid value: "null": n in body must be of type string: "null"
            o: Too many: 2: must have at most 1 item
            s: Invalid value: "a": s in body should be at least 2 chars long
            v: Unsupported value: "c": supported values: "a", "b"
            <nil>: Invalid value: "": Checked value must be of type integer with format int32 in w
            must: Required value
        "#]],
    );
    check_errors(
        "{type: object, properties: {s: {type: string, maxLength: 3}, p: {type: object, properties: {}, additionalProperties: false}}}",
        "{s: abcd}",
        None,
        expect![[r#"
            s: Too long: may not be more than 3 bytes
        "#]],
    );
}

#[test]
fn alternatives_tell_how_many_held() {
    let of = "{type: object, properties: {a: {type: string}, b: {type: string}, c: {type: integer}}, \
              oneOf: [{required: [a]}, {required: [b]}], anyOf: [{required: [c]}], not: {required: [x]}, \
              allOf: [{properties: {c: {minimum: 5}}}]}";
    check_errors(
        of,
        "{}",
        None,
        expect![[r#"
            <nil>: Invalid value: "": "" must validate at least one schema (anyOf)
            c: Required value
            <nil>: Invalid value: "": "" must validate one and only one schema (oneOf). Found none valid
            a: Required value
        "#]],
    );
    check_errors(
        of,
        "{a: x, b: w, c: 1, x: z}",
        None,
        expect![[r#"
            <nil>: Invalid value: "": "" must validate one and only one schema (oneOf). Found 2 valid alternatives
            c: Invalid value: 1: c in body should be greater than or equal to 5
            <nil>: Invalid value: "": "" must validate all the schemas (allOf). None validated
            <nil>: Invalid value: "": "" must not validate the schema (not)
        "#]],
    );
}

#[test]
fn what_did_not_change_may_stay_wrong() {
    let of = "{type: object, properties: {a: {type: string, maxLength: 1}, b: {type: string, maxLength: 1}, \
              keyed: {type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [id], \
                items: {type: object, properties: {id: {type: string}, v: {type: integer, maximum: 1}}}}, \
              plain: {type: array, items: {type: integer, maximum: 1}}}}";
    check_errors(
        of,
        "{a: long, b: changed, keyed: [{id: b, v: 6}, {id: a, v: 5}], plain: [5, 1]}",
        Some("{a: long, b: long, keyed: [{id: a, v: 5}, {id: b, v: 5}], plain: [5]}"),
        expect![[r#"
            b: Too long: may not be more than 1 byte
            keyed[0].v: Invalid value: 6: keyed[0].v in body should be less than or equal to 1
            plain[0]: Invalid value: 5: plain[0] in body should be less than or equal to 1
        "#]],
    );
}
