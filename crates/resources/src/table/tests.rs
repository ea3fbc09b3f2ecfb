//! The table as data: complete, unambiguous, and safe on empty objects.

use super::*;
use std::collections::BTreeSet;

#[test]
fn every_resource_of_the_api_has_exactly_one_row() {
    assert_eq!(resources().len(), api::RESOURCES.len());
    let names: BTreeSet<_> =
        resources().iter().map(|row| (row.group(), row.version(), row.plural())).collect();
    assert_eq!(names.len(), api::RESOURCES.len());
    for (row, facts) in resources().iter().zip(api::RESOURCES) {
        assert!(std::ptr::eq(row.facts(), facts), "{}", facts.plural);
        let gvk = row.descriptor().gvk.expect("resources are of typed kinds");
        assert_eq!((gvk.group, gvk.version, gvk.kind), (facts.group, facts.version, facts.kind));
    }
}

#[test]
fn short_names_are_unique_in_a_group() {
    let mut seen = BTreeSet::new();
    for row in resources().iter().filter(|row| std::ptr::eq(row.storage_gvk().kind, row.gvk().kind)) {
        for short in row.facts().short_names {
            assert!(seen.insert((row.group(), row.version(), *short)), "{short} of {}", row.plural());
        }
    }
}

#[test]
fn two_kinds_never_share_a_place_in_the_store() {
    let mut places = BTreeSet::new();
    for row in resources().iter().filter(|row| row.stored() && row.storage_gvk() == row.gvk()) {
        assert!(places.insert(row.storage_prefix().to_string()), "{}", row.storage_prefix());
    }
}

#[test]
fn an_empty_object_of_every_kind_passes_through_all_rules() {
    let now = meta::Time::from_seconds(1_700_000_000).unwrap();
    for row in resources() {
        let mut object = row.new_object();
        object.metadata_mut().name = "a".into();
        object.metadata_mut().resource_version = "1".into();
        if row.namespaced() {
            object.metadata_mut().namespace = "default".into();
        }
        row.default(object.as_mut());
        row.prepare_for_create(object.as_mut());
        row.validate_create(object.as_ref());
        let old = object.clone_object();
        row.prepare_for_update(object.as_mut(), old.as_ref());
        row.validate_update(object.as_ref(), old.as_ref());
        for subresource in row.facts().subresources {
            row.prepare_for_subresource(subresource.name, object.as_mut(), old.as_ref());
            row.validate_subresource(subresource.name, object.as_ref(), old.as_ref());
        }
        row.warnings(object.as_ref(), None);
        row.warnings(object.as_ref(), Some(old.as_ref()));
        assert_eq!(row.row(object.as_ref(), now).len(), row.columns().len(), "{}", row.plural());
        let fields = row.selectable(object.as_ref());
        assert!(
            fields.iter().any(|(field, name)| *field == "metadata.name" && name == "a"),
            "{}",
            row.plural()
        );
        let stored = row.to_storage(object.clone_object()).unwrap();
        assert_eq!(stored.gvk(), row.storage_gvk(), "{}", row.plural());
        let back = row.from_storage(stored).unwrap();
        assert_eq!(back.gvk(), row.gvk());
        assert!(row.default_twice_changes_nothing(object.as_ref()), "{}", row.plural());
    }
}

trait Twice {
    fn default_twice_changes_nothing(&self, object: &dyn api::Object) -> bool;
}

impl Twice for dyn Resource {
    fn default_twice_changes_nothing(&self, object: &dyn api::Object) -> bool {
        let mut once = object.clone_object();
        self.default(once.as_mut());
        let mut twice = once.clone_object();
        self.default(twice.as_mut());
        api::codec::to_json(once.as_dyn()) == api::codec::to_json(twice.as_dyn())
    }
}

#[test]
fn places_in_the_store_are_those_of_upstream() {
    let places: Vec<String> = resources()
        .iter()
        .filter(|row| row.stored())
        .map(|row| {
            let hub = row.storage_gvk();
            format!(
                "{} {} -> {} {}",
                row.gvk().api_version(),
                row.plural(),
                row.storage_prefix(),
                hub.api_version()
            )
        })
        .collect();
    expect_test::expect_file!["places.txt"].assert_eq(&(places.join("\n") + "\n"));
}
