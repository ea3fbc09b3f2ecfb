//! Whether the defaults of a schema are themselves what the schema wants.

use crate::rules::Rules;
use crate::schema::Schema;
use crate::{embedded, prune, validate};
use meta::field::{Errors, Path};

pub fn validate(schema: &Schema, path: &Path, errors: &mut Errors) {
    node(schema, path, errors);
}

fn node(schema: &Schema, path: &Path, errors: &mut Errors) {
    if !schema.has_defaults {
        return;
    }
    if let Some(default) = &schema.default {
        let at = path.child("default");
        let mut pruned = default.clone();
        prune::value(&mut pruned, schema);
        if pruned != *default {
            errors.invalid(&at, default, "must not have unknown fields");
        }
        let before = errors.len();
        embedded::check(&at, default, schema, errors);
        if errors.len() == before {
            validate::value_at("", default, None, schema, &at, errors);
        }
        if errors.len() == before
            && let Some(rules) = Rules::of(schema, schema.embedded)
        {
            rules.validate_at(&at, default, Some(default), errors);
            if errors.len() == before {
                rules.validate_at(&at, default, None, errors);
            }
        }
    }
    if let Some(items) = schema.items.as_deref() {
        node(items, &path.child("items"), errors);
    }
    for (name, property) in &schema.properties {
        node(property, &path.child("properties").key(name), errors);
    }
}
