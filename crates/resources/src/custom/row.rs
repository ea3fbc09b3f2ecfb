//! The row of one version of a custom kind: every rule is read out of its definition.

use super::intern;
use super::object::{Custom, FIELDS};
use crate::columns::{Cell, Column, NAME};
use crate::resource::{ConvertError, Resource};
use crate::{columns, names, object_meta};
use api::autoscaling::v1::Scale;
use api::meta::v1::ObjectMeta;
use api::{Object, ResourceFacts};
use apiextensions::definition::{self, Conversion};
use apiextensions::{Definition, Schema, Version, defaulting, embedded, listtype, prune, shape, validate};
use arc_swap::ArcSwapOption;
use meta::field::{Errors, Path};
use meta::{Descriptor, Gvk, Time};
use serde_json::Value;
use std::sync::Arc;

/// What of a row changes with its definition.
struct State {
    definition: Arc<Definition>,
    version: Arc<Version>,
    /// The rows of all versions, in the order of the definition.
    siblings: Arc<[&'static CustomRow]>,
}

/// One version of a custom kind.
pub struct CustomRow {
    facts: &'static ResourceFacts,
    list_kind: &'static str,
    descriptor: &'static Descriptor,
    columns: Vec<Column>,
    prefix: String,
    state: ArcSwapOption<State>,
    /// Stands in until a definition is taken.
    nothing: Arc<Version>,
}

fn nothing() -> Version {
    Version {
        name: String::new(),
        served: false,
        storage: false,
        deprecation: None,
        schema: Schema { preserve_unknown: true, ..Schema::default() },
        rules: None,
        source: "{}".into(),
        status: false,
        scale: None,
        columns: Vec::new(),
        selectable: Vec::new(),
    }
}

impl CustomRow {
    pub(super) fn new(
        facts: &'static ResourceFacts,
        list_kind: &'static str,
        columns: &[(String, String, String, String, i32)],
    ) -> Self {
        let gvk = Gvk { group: facts.group, version: facts.version, kind: facts.kind };
        let descriptor = Box::leak(Box::new(Descriptor {
            name: facts.kind,
            definition: intern(&apiextensions::openapi::name(facts.group, facts.version, facts.kind)),
            gvk: Some(gvk),
            atomic: false,
            fields: FIELDS,
            // Nothing of it has a place in protobuf.
            wire_order: &[],
        }));
        let column =
            |(name, ty, format, description, priority): &(String, String, String, String, i32)| Column {
                name: intern(name),
                ty: intern(ty),
                format: intern(format),
                priority: *priority,
                description: intern(description),
            };
        CustomRow {
            facts,
            list_kind,
            descriptor,
            columns: std::iter::once(NAME).chain(columns.iter().map(column)).collect(),
            prefix: format!("{}/{}/{}", crate::table::STORAGE_ROOT, facts.group, facts.plural),
            state: ArcSwapOption::empty(),
            nothing: Arc::new(nothing()),
        }
    }

    /// From now on the row goes by this definition. A version that the definition no longer has keeps what it had.
    pub(super) fn take(&self, definition: &Arc<Definition>, siblings: &Arc<[&'static CustomRow]>) {
        let Some(at) = definition.versions.iter().position(|version| version.name == self.facts.version)
        else {
            return;
        };
        self.state.store(Some(Arc::new(State {
            definition: Arc::clone(definition),
            version: Arc::clone(&definition.versions[at]),
            siblings: Arc::clone(siblings),
        })));
    }

    fn state(&self) -> Option<Arc<State>> {
        self.state.load_full()
    }

    /// The version as its definition has it now.
    pub fn current(&self) -> Arc<Version> {
        self.state
            .load()
            .as_ref()
            .map_or_else(|| Arc::clone(&self.nothing), |state| Arc::clone(&state.version))
    }

    /// The definition that the row goes by.
    pub fn definition(&self) -> Option<Arc<Definition>> {
        self.state().map(|state| Arc::clone(&state.definition))
    }

    fn hub(&self) -> Option<&'static CustomRow> {
        let state = self.state.load();
        let state = state.as_ref()?;
        let at = state.definition.versions.iter().position(|version| version.storage)?;
        state.siblings.get(at).copied()
    }

    fn empty(&self) -> Custom {
        Custom::new(self.descriptor, self.current())
    }

    /// The object under this row's version: fields that this does not know are dropped, what it defaults is filled in.
    fn adopt(&self, from: &Custom) -> Custom {
        let mut object = self.empty();
        object.take_metadata(from.metadata().clone());
        object.content = from.content.clone();
        let version = Arc::clone(&object.version);
        let fields = object.content.fields_mut();
        prune::object(fields, &version.schema);
        defaulting::fields(fields, &version.schema);
        object
    }

    /// The object that a webhook made of `before`, in this row's version. Of the metadata it may have changed labels and
    /// annotations only.
    ///
    /// # Errors
    /// Why it is no such object.
    pub fn converted(&self, before: &Custom, after: &Value) -> Result<Custom, String> {
        let gvk = self.gvk();
        let text = |name: &str| after.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("apiVersion") != gvk.api_version() {
            return Err(format!("expected apiVersion {:?}, got {:?}", gvk.api_version(), text("apiVersion")));
        }
        if text("kind") != gvk.kind {
            return Err(format!("expected kind {:?}, got {:?}", gvk.kind, text("kind")));
        }
        let mut object = self.empty();
        let mut notes = meta::json::Notes::default();
        meta::json::decode(&mut object, after.to_string().as_bytes(), &mut notes)
            .map_err(|error| error.to_string())?;
        let (new, old) = (object.metadata(), before.metadata());
        for (name, new, old) in [
            ("name", &new.name, &old.name),
            ("namespace", &new.namespace, &old.namespace),
            ("uid", &new.uid, &old.uid),
        ] {
            if new != old {
                return Err(format!("metadata.{name} must not be changed, was {old:?}, got {new:?}"));
            }
        }
        let metadata =
            ObjectMeta { labels: new.labels.clone(), annotations: new.annotations.clone(), ..old.clone() };
        object.take_metadata(metadata);
        let version = Arc::clone(&object.version);
        defaulting::fields(object.content.fields_mut(), &version.schema);
        Ok(object)
    }

    fn convert(&self, object: Box<dyn Object>) -> Result<Box<dyn Object>, ConvertError> {
        let wrong = |why: &str| ConvertError {
            from: object.descriptor().gvk.map_or_else(String::new, |gvk| gvk.api_version()),
            to: self.gvk().api_version(),
            why: why.into(),
        };
        let Some(custom) = object.downcast::<Custom>() else { return Err(wrong("it is of another kind")) };
        if object.descriptor().gvk == self.descriptor.gvk {
            return Ok(object);
        }
        if self.converts_elsewhere() {
            return Err(wrong("its webhook has not been asked"));
        }
        Ok(Box::new(self.adopt(custom)))
    }

    fn check_scale(&self, fields: &Value, errors: &mut Errors, spec: bool) {
        let version = self.current();
        let (Some(scale), Some(fields)) = (&version.scale, fields.as_object()) else { return };
        let mut number = |path: &str| {
            let at = Path::new(path);
            match definition::get(fields, path) {
                None => {}
                Some(Value::Number(number)) if number.is_i64() => {
                    let number = number.as_i64().unwrap_or_default();
                    if number < 0 {
                        errors.invalid(&at, number, "should be a non-negative integer");
                    } else if number > i64::from(i32::MAX) {
                        let detail = format!("should be less than or equal to {}", i32::MAX);
                        errors.invalid(&at, number, detail);
                    }
                }
                Some(other) => {
                    let detail =
                        format!("{path} accessor error: {other} is of the wrong type, expected int64");
                    errors.invalid(&at, 0_i64, detail);
                }
            }
        };
        if spec {
            number(&scale.spec_path);
        }
        number(&scale.status_path);
        if let Some(path) = &scale.selector_path
            && let Some(other) = definition::get(fields, path).filter(|value| !value.is_string())
        {
            let detail = format!("{path} accessor error: {other} is of the wrong type, expected string");
            errors.invalid(&Path::new(path), "", detail);
        }
    }

    fn check_content(&self, new: &Custom, old: Option<&Custom>, errors: &mut Errors) {
        let version = self.current();
        let (schema, content) = (&version.schema, &new.content.0);
        let (Some(fields), old_content) = (content.as_object(), old.map(|old| &old.content.0)) else {
            return;
        };
        // A schema may want what every object has; kind, apiVersion and metadata are there.
        let mut whole;
        let whole = if wants_meta(schema) {
            whole = fields.clone();
            if let Value::Object(meta) = new.tree() {
                for (name, value) in meta {
                    whole.entry(name).or_insert(value);
                }
            }
            &Value::Object(whole)
        } else {
            content
        };
        validate::object(whole, old_content, schema, errors);
        self.check_scale(content, errors, true);
        embedded::validate(fields, schema, errors);
        check_lists(schema, fields, old_content, errors);
        check_rules(&version, new, old, errors);
    }
}

/// Rules run on objects that are otherwise as their schema wants them, as far as rules depend on it.
fn check_rules(version: &Version, new: &Custom, old: Option<&Custom>, errors: &mut Errors) {
    use meta::field::Kind;
    let Some(rules) = &version.rules else { return };
    let blocks = |kind: Kind| {
        matches!(
            kind,
            Kind::NotSupported | Kind::Required | Kind::TooLong | Kind::TooMany | Kind::TypeInvalid
        )
    };
    if errors.iter().any(|error| blocks(error.kind)) {
        let detail = "some validation rules were not checked because the object was invalid; correct the existing \
                      errors to complete validation";
        return errors.invalid(&Path::root(), Value::Null, detail);
    }
    let old = old.map(Custom::tree);
    rules.validate(&new.tree(), old.as_ref(), errors);
}

/// Whether a schema says anything of the fields that every object has.
fn wants_meta(schema: &Schema) -> bool {
    let named = |name: &String| prune::META_FIELDS.contains(&name.as_str());
    schema.properties.keys().any(named) || schema.checks.required.iter().any(named)
}

fn check_lists(
    schema: &Schema,
    fields: &serde_json::Map<String, Value>,
    old: Option<&Value>,
    errors: &mut Errors,
) {
    // What was wrong before may stay so.
    let mut before = Errors::default();
    if let Some(old) = old.and_then(Value::as_object) {
        listtype::validate(&Path::root(), schema, old, &mut before);
    }
    if before.is_empty() {
        listtype::validate(&Path::root(), schema, fields, errors);
    }
}

/// Finalizers that everybody knows need no domain.
const FINALIZERS: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];

fn finalizer_warnings(new: &ObjectMeta, old: Option<&ObjectMeta>) -> Vec<String> {
    let mut added: Vec<&String> =
        new.finalizers.iter().filter(|name| old.is_none_or(|old| !old.finalizers.contains(name))).collect();
    added.sort();
    let mut warnings = Vec::new();
    for name in added {
        for fault in meta::validation::qualified_name(name) {
            warnings.push(format!("metadata.finalizers: {name:?}: {fault}"));
        }
        if !name.contains('/') && !FINALIZERS.contains(&name.as_str()) {
            let path = if name.contains('.') { " including a path (/)" } else { "" };
            warnings.push(format!(
                "metadata.finalizers: {name:?}: prefer a domain-qualified finalizer name{path} to avoid accidental \
                 conflicts with other finalizer writers"
            ));
        }
    }
    warnings
}

/// One cell: the value as its column's type has it.
fn cell(column: &apiextensions::Column, value: &Value, now: Time) -> Cell {
    match (column.ty.as_str(), value) {
        (_, Value::Null) => Cell::Null,
        ("string", Value::String(text)) => text.clone().into(),
        ("string", other) => {
            let mut text = Vec::new();
            meta::json::write_value(other, &mut text);
            String::from_utf8_lossy(&text).into_owned().into()
        }
        ("integer", Value::Number(number)) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => (number.as_f64().unwrap_or_default() as i64).into(),
        },
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(text)) => match Time::parse(text) {
            Some(then) => columns::since(Some(then), now).into(),
            None => "<invalid>".into(),
        },
        _ => Cell::Null,
    }
}

impl Resource for CustomRow {
    fn facts(&self) -> &ResourceFacts {
        self.facts
    }
    fn descriptor(&self) -> &'static Descriptor {
        self.descriptor
    }
    fn new_object(&self) -> Box<dyn Object> {
        Box::new(self.empty())
    }
    fn custom(&self) -> Option<&CustomRow> {
        Some(self)
    }
    fn list_kind(&self) -> String {
        self.list_kind.into()
    }
    fn enabled_by_default(&self) -> bool {
        true
    }
    fn deprecation(&self) -> Option<String> {
        self.state.load().as_ref().and_then(|state| state.version.deprecation.clone())
    }

    fn storage_prefix(&self) -> &str {
        &self.prefix
    }
    fn storage_gvk(&self) -> Gvk {
        self.hub().map_or_else(|| self.gvk(), |hub| hub.gvk())
    }
    fn converts_elsewhere(&self) -> bool {
        let state = self.state.load();
        state.as_ref().is_some_and(|state| matches!(state.definition.conversion, Conversion::Webhook(_)))
    }
    fn version_row(&self, version: &str) -> Option<&'static dyn Resource> {
        let state = self.state.load();
        let row = state.as_ref()?.siblings.iter().find(|row| row.facts.version == version)?;
        Some(*row)
    }
    fn to_storage(&self, object: Box<dyn Object>) -> Result<Box<dyn Object>, ConvertError> {
        match self.hub() {
            Some(hub) => hub.convert(object),
            None => Ok(object),
        }
    }
    fn from_storage(&self, object: Box<dyn Object>) -> Result<Box<dyn Object>, ConvertError> {
        self.convert(object)
    }
    fn with_shape(&self, with: &mut dyn FnMut(patch::Shape<'_>)) {
        let version = self.current();
        with(patch::Shape::Node(&shape::Root(&version.schema)));
    }

    fn default(&self, object: &mut dyn Object) {
        if let Some(custom) = object.downcast_mut::<Custom>() {
            let version = self.current();
            defaulting::fields(custom.content.fields_mut(), &version.schema);
        }
    }

    fn prepare_for_create(&self, new: &mut dyn Object) {
        let Some(new) = new.downcast_mut::<Custom>() else { return };
        if self.has_status() {
            new.content.fields_mut().remove("status");
        }
        new.metadata_mut().generation = 1;
    }

    fn prepare_for_update(&self, new: &mut dyn Object, old: &dyn Object) {
        let (Some(new), Some(old)) = (new.downcast_mut::<Custom>(), old.downcast::<Custom>()) else { return };
        if self.has_status() {
            match old.content().and_then(|fields| fields.get("status")) {
                Some(status) => new.content.fields_mut().insert("status".into(), status.clone()),
                None => new.content.fields_mut().remove("status"),
            };
        }
        let same = new.content.fields() == old.content.fields()
            || (new.content.0.is_null() && old.content().is_none_or(serde_json::Map::is_empty));
        new.metadata_mut().generation = old.metadata().generation + i64::from(!same);
    }

    fn prepare_for_subresource(&self, subresource: &str, new: &mut dyn Object, old: &dyn Object) {
        if subresource != "status" {
            return self.prepare_for_update(new, old);
        }
        let (Some(new), Some(old)) = (new.downcast_mut::<Custom>(), old.downcast::<Custom>()) else { return };
        let status = new.content.fields_mut().remove("status");
        let managed = std::mem::take(&mut new.metadata_mut().managed_fields);
        let version = new.metadata().resource_version.clone();
        let mut kept = old.clone_custom();
        match status {
            Some(status) => kept.content.fields_mut().insert("status".into(), status),
            None => kept.content.fields_mut().remove("status"),
        };
        let metadata = kept.metadata_mut();
        metadata.managed_fields = managed;
        metadata.resource_version = version;
        *new = kept;
    }

    fn validate_create(&self, new: &dyn Object) -> Errors {
        let mut errors = Errors::default();
        let Some(new) = new.downcast::<Custom>() else { return errors };
        object_meta::validate(new.metadata(), self.facts.namespaced, names::dns_subdomain, &mut errors);
        self.check_content(new, None, &mut errors);
        errors
    }

    fn validate_update(&self, new: &dyn Object, old: &dyn Object) -> Errors {
        let mut errors = Errors::default();
        if let (Some(new), Some(old)) = (new.downcast::<Custom>(), old.downcast::<Custom>()) {
            object_meta::validate_update(new.metadata(), old.metadata(), &mut errors);
            self.check_content(new, Some(old), &mut errors);
        }
        errors
    }

    fn validate_subresource(&self, subresource: &str, new: &dyn Object, old: &dyn Object) -> Errors {
        if subresource != "status" {
            return self.validate_update(new, old);
        }
        let mut errors = Errors::default();
        let (Some(new), Some(old)) = (new.downcast::<Custom>(), old.downcast::<Custom>()) else {
            return errors;
        };
        object_meta::validate_update(new.metadata(), old.metadata(), &mut errors);
        let version = self.current();
        let Some(fields) = new.content() else { return errors };
        if let (Some(status), Some(schema)) = (fields.get("status"), version.schema.properties.get("status"))
        {
            let before = old.content().and_then(|fields| fields.get("status"));
            validate::value_at("", status, before, schema, &Path::new("status"), &mut errors);
        }
        self.check_scale(&new.content.0, &mut errors, false);
        embedded::validate(fields, &version.schema, &mut errors);
        check_lists(&version.schema, fields, Some(&old.content.0), &mut errors);
        check_rules(&version, new, Some(old), &mut errors);
        errors
    }

    fn warnings(&self, new: &dyn Object, old: Option<&dyn Object>) -> Vec<String> {
        finalizer_warnings(new.metadata(), old.map(|old| old.metadata()))
    }
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::dns_subdomain(name, prefix)
    }

    fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn row(&self, object: &dyn Object, now: Time) -> Vec<Cell> {
        let Some(custom) = object.downcast::<Custom>() else { return Vec::new() };
        let version = self.current();
        let mut metadata = None;
        let mut cells = vec![columns::name(custom.metadata())];
        for column in version.columns.iter().take(self.columns.len() - 1) {
            let value = match column.path.first_field() {
                Some("metadata") => {
                    let tree = metadata.get_or_insert_with(|| api::codec::to_value(custom.metadata()));
                    column.path.below_first().first(tree).cloned()
                }
                Some("kind") => Some(self.facts.kind.into()),
                Some("apiVersion") => Some(self.gvk().api_version().into()),
                _ => column.path.first(&custom.content.0).cloned(),
            };
            cells.push(value.map_or(Cell::Null, |value| cell(column, &value, now)));
        }
        cells.resize(self.columns.len(), Cell::Null);
        cells
    }

    fn selectable(&self, object: &dyn Object) -> Vec<(&'static str, String)> {
        let metadata = object.metadata();
        let mut fields = vec![("metadata.name", metadata.name.clone())];
        if self.facts.namespaced {
            fields.push(("metadata.namespace", metadata.namespace.clone()));
        }
        let Some(custom) = object.downcast::<Custom>() else { return fields };
        for (name, path) in &self.current().selectable {
            let text = match path.first(&custom.content.0) {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            };
            fields.push((intern(name), text));
        }
        fields
    }

    fn field_label(&self, label: &str) -> Result<String, String> {
        let own = || self.current().selectable.iter().any(|(name, _)| name == label);
        if matches!(label, "metadata.name" | "metadata.namespace") || own() {
            return Ok(label.into());
        }
        Err(format!("field label not supported: {label}"))
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static str] {
        match subresource {
            "" if self.has_status() => &["status"],
            "status" => &["metadata", "spec"],
            _ => &[],
        }
    }

    fn scale(&self, object: &dyn Object) -> Option<Scale> {
        let custom = object.downcast::<Custom>()?;
        let version = self.current();
        let (paths, fields) = (version.scale.as_ref()?, custom.content()?);
        let number = |path: &str| {
            let number = definition::get(fields, path).and_then(Value::as_i64);
            number.and_then(|number| i32::try_from(number).ok())
        };
        let from = custom.metadata();
        let metadata = ObjectMeta {
            name: from.name.clone(),
            namespace: from.namespace.clone(),
            uid: from.uid.clone(),
            resource_version: from.resource_version.clone(),
            creation_timestamp: from.creation_timestamp,
            ..ObjectMeta::default()
        };
        let mut scale = Scale { metadata, ..Scale::default() };
        scale.spec.replicas = number(&paths.spec_path)?;
        scale.status.replicas = number(&paths.status_path).unwrap_or(0);
        let selector = paths.selector_path.as_ref().and_then(|path| definition::get(fields, path));
        scale.status.selector = selector.and_then(Value::as_str).unwrap_or_default().into();
        Some(scale)
    }

    fn set_scale(&self, object: &mut dyn Object, scale: &Scale) {
        let version = self.current();
        if let (Some(custom), Some(paths)) = (object.downcast_mut::<Custom>(), &version.scale) {
            definition::set(custom.content.fields_mut(), &paths.spec_path, scale.spec.replicas.into());
        }
    }
}
