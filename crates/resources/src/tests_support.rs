//! Fixtures of this crate's tests: YAML in, text out.

use crate::Resource;
use api::Object;
use expect_test::Expect;
use meta::Time;

/// Ten minutes and twenty seconds past ten, UTC, on a day in November: ages in rows count from here.
pub(crate) fn now() -> Time {
    Time::parse("2023-11-14T22:13:20Z").unwrap()
}

/// A row by its plural, in the version stored; `group/plural` where the plural alone is ambiguous.
pub(crate) fn row_of(name: &str) -> &'static dyn Resource {
    let (group, plural) = match name.split_once('/') {
        Some((group, plural)) => (Some(group), plural),
        None => (None, name),
    };
    crate::resources()
        .iter()
        .copied()
        .find(|row| {
            row.plural() == plural
                && row.storage_gvk() == row.gvk()
                && group.is_none_or(|group| row.group() == group)
        })
        .unwrap()
}

/// An object decoded and defaulted.
pub(crate) fn object(name: &str, yaml: &str) -> Box<dyn Object> {
    let row = row_of(name);
    let mut object = row.new_object();
    let json = api::codec::yaml_to_json(yaml.as_bytes()).unwrap();
    let mut notes = meta::json::Notes::default();
    meta::json::decode(object.as_dyn_mut(), &json, &mut notes).unwrap();
    assert!(notes.0.is_empty(), "{notes:?}");
    row.default(object.as_mut());
    object
}

fn yaml(object: &dyn Object) -> String {
    api::codec::to_yaml(object.as_dyn()).unwrap()
}

/// The object as defaults leave it.
pub(crate) fn check_default(name: &str, text: &str, expected: Expect) {
    expected.assert_eq(&yaml(object(name, text).as_ref()));
}

/// The object as it is first stored.
pub(crate) fn check_create(name: &str, text: &str, expected: Expect) {
    let mut object = object(name, text);
    row_of(name).prepare_for_create(object.as_mut());
    expected.assert_eq(&yaml(object.as_ref()));
}

fn lines(errors: &meta::field::Errors) -> String {
    errors.iter().map(|error| format!("{error}\n")).collect()
}

/// All faults of a new object, one a line.
pub(crate) fn check_errors(name: &str, text: &str, expected: Expect) {
    let mut object = object(name, text);
    let row = row_of(name);
    row.prepare_for_create(object.as_mut());
    expected.assert_eq(&lines(&row.validate_create(object.as_ref())));
}

/// All faults of a change.
pub(crate) fn check_update_errors(name: &str, old: &str, new: &str, expected: Expect) {
    let (mut new, mut old) = (object(name, new), object(name, old));
    let row = row_of(name);
    row.prepare_for_create(old.as_mut());
    row.prepare_for_update(new.as_mut(), old.as_ref());
    expected.assert_eq(&lines(&row.validate_update(new.as_ref(), old.as_ref())));
}

/// Columns and cells, one a line.
pub(crate) fn check_row(name: &str, text: &str, expected: Expect) {
    let (row, object) = (row_of(name), object(name, text));
    let cells = row.row(object.as_ref(), now());
    assert_eq!(cells.len(), row.columns().len());
    let shown: String =
        row.columns().iter().zip(cells).map(|(column, cell)| format!("{}: {cell}\n", column.name)).collect();
    expected.assert_eq(&shown);
}
