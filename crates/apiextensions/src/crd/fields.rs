//! Paths from a schema to a field of it: where rules report, and what selectors may name.

use crate::schema::{Schema, Type};
use api::apiextensions::v1::CustomResourceDefinitionVersion;
use meta::field::{Errors, Path};

/// One step of a path: a field, or the key of a map.
fn steps(text: &str, brackets: bool) -> Result<Vec<String>, String> {
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            if !brackets {
                return Err("array notation is not allowed".into());
            }
            let quoted = inside.strip_prefix('\'').ok_or_else(|| {
                format!(
                    "expected single quoted string but got {}",
                    inside.split(']').next().unwrap_or_default()
                )
            })?;
            let (name, after) =
                quoted.split_once("']").ok_or_else(|| "unexpected end of JSON path".to_string())?;
            steps.push(name.replace("\\'", "'"));
            rest = after;
            continue;
        }
        let after = rest
            .strip_prefix('.')
            .ok_or_else(|| format!("expected [ or . but got: {}", rest.chars().next().unwrap_or_default()))?;
        let end = after.find(['.', '[']).unwrap_or(after.len());
        if end == 0 {
            return Err("unexpected end of JSON path".into());
        }
        steps.push(after[..end].to_string());
        rest = &after[end..];
    }
    Ok(steps)
}

/// The names on a path such as `.spec.labels['a.b']`, and the schema that it leads to.
///
/// # Errors
/// Why the path leads nowhere.
pub fn resolve<'a>(
    text: &str,
    schema: &'a Schema,
    brackets: bool,
) -> Result<(Vec<String>, &'a Schema), String> {
    let steps = steps(text, brackets)?;
    let mut found = schema;
    for step in &steps {
        found = found.field(step).ok_or("does not refer to a valid field")?;
    }
    Ok((steps, found))
}

pub(super) fn selectable(
    version: &CustomResourceDefinitionVersion,
    schema: &Schema,
    path: &Path,
    errors: &mut Errors,
) {
    let mut known: Vec<Vec<String>> = Vec::new();
    for (index, field) in version.selectable_fields.iter().enumerate() {
        let at = path.index(index).child("jsonPath");
        if field.json_path.is_empty() {
            errors.required(&at, "");
            continue;
        }
        let (steps, found) = match resolve(&field.json_path, schema, false) {
            Ok(found) => found,
            Err(why) => {
                errors.invalid(&at, &field.json_path, format!("is an invalid path: {why}"));
                continue;
            }
        };
        if steps.first().is_some_and(|first| first == "metadata") {
            errors.invalid(&at, &field.json_path, "must not point to fields in metadata");
        }
        if !matches!(found.ty, Some(Type::String | Type::Boolean | Type::Integer)) {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.invalid(&at, &field.json_path, detail);
        }
        if known.contains(&steps) {
            errors.duplicate(&at, &field.json_path);
        } else {
            known.push(steps);
        }
    }
    if known.len() > super::SELECTABLE_MAX {
        errors.too_many(path, known.len(), super::SELECTABLE_MAX);
    }
}
