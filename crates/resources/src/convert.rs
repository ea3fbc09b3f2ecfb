//! Versions of a kind other than its hub: each operation converts to the hub, runs there, and converts back.

use crate::columns::{Cell, Column};
use crate::resource::{ConvertError, Requester, Resource};
use api::autoscaling::v1::Scale;
use api::{Kind, Object, ResourceFacts};
use meta::field::Errors;
use meta::{Descriptor, Gvk, Time};

/// Turns the JSON tree of one version into the other's; field names not named here stay as they are.
pub(crate) type Reshape = fn(&mut serde_json::Value);

/// The hub's label for one of a version's field labels, or why there is none.
pub(crate) type FieldLabel = fn(&str) -> Result<String, String>;

/// How one version differs in shape from its hub.
#[derive(Clone, Copy)]
pub(crate) struct Conversion {
    pub to_hub: Reshape,
    pub from_hub: Reshape,
    pub field_label: Option<FieldLabel>,
}

/// Versions of equal shape.
pub(crate) const BY_NAME: Conversion = Conversion { to_hub: |_| {}, from_hub: |_| {}, field_label: None };

/// One line of the table for a version that is not its kind's hub.
pub(crate) struct Spoke {
    facts: &'static ResourceFacts,
    kind: &'static Kind,
    hub_kind: &'static Kind,
    hub: &'static dyn Resource,
    conversion: Conversion,
}

/// Copies `object` into an empty object of `kind`, field by field name, after `reshape`.
fn convert(object: &dyn Object, kind: &Kind, reshape: Reshape) -> Result<Box<dyn Object>, ConvertError> {
    let describe =
        |gvk: Option<Gvk>| gvk.map_or_else(String::new, |gvk| format!("{} {}", gvk.api_version(), gvk.kind));
    let fail = |why: String| ConvertError {
        from: describe(object.descriptor().gvk),
        to: describe(kind.descriptor.gvk),
        why,
    };
    let mut value = api::codec::to_value(object.as_dyn());
    reshape(&mut value);
    if let (Some(gvk), Some(map)) = (kind.descriptor.gvk, value.as_object_mut()) {
        map.insert("apiVersion".into(), gvk.api_version().into());
        map.insert("kind".into(), gvk.kind.into());
    }
    let mut target = kind.object.map(|new| new()).ok_or_else(|| fail("the kind has no metadata".into()))?;
    // Fields that the target does not know are left behind: `notes` would name them.
    let mut notes = meta::json::Notes::default();
    meta::json::decode(target.as_dyn_mut(), value.to_string().as_bytes(), &mut notes)
        .map_err(|error| fail(error.to_string()))?;
    Ok(target)
}

impl Spoke {
    pub(crate) fn new(
        facts: &'static ResourceFacts,
        kind: &'static Kind,
        hub_kind: &'static Kind,
        hub: &'static dyn Resource,
        conversion: Conversion,
    ) -> Self {
        Spoke { facts, kind, hub_kind, hub, conversion }
    }

    fn hub_object(&self, object: &dyn Object) -> Result<Box<dyn Object>, ConvertError> {
        convert(object, self.hub_kind, self.conversion.to_hub)
    }

    fn own_object(&self, object: &dyn Object) -> Result<Box<dyn Object>, ConvertError> {
        convert(object, self.kind, self.conversion.from_hub)
    }

    /// Runs `change` on the hub's form of `object`; what cannot be converted stays as it is, and validation says why.
    fn through_hub(&self, object: &mut dyn Object, change: impl FnOnce(&mut dyn Object)) {
        let Ok(mut hub) = self.hub_object(object) else { return };
        change(hub.as_mut());
        if let Ok(own) = self.own_object(hub.as_ref()) {
            object.assign(own);
        }
    }

    fn check(&self, object: &dyn Object, check: impl FnOnce(&dyn Object) -> Errors) -> Errors {
        match self.hub_object(object) {
            Ok(hub) => check(hub.as_ref()),
            Err(error) => {
                let mut errors = Errors::default();
                errors.internal(&meta::field::Path::root(), error.to_string());
                errors
            }
        }
    }
}

impl Resource for Spoke {
    fn facts(&self) -> &ResourceFacts {
        self.facts
    }
    fn descriptor(&self) -> &'static Descriptor {
        self.kind.descriptor
    }
    fn new_object(&self) -> Box<dyn Object> {
        let new = self.kind.object.expect("the table makes spokes of objects only");
        new()
    }
    fn storage_prefix(&self) -> &str {
        self.hub.storage_prefix()
    }
    fn storage_gvk(&self) -> Gvk {
        self.hub.gvk()
    }
    fn to_storage(&self, object: Box<dyn Object>) -> Result<Box<dyn Object>, ConvertError> {
        self.hub_object(object.as_ref())
    }
    fn from_storage(&self, object: Box<dyn Object>) -> Result<Box<dyn Object>, ConvertError> {
        if object.descriptor().gvk == self.kind.descriptor.gvk {
            return Ok(object);
        }
        self.own_object(object.as_ref())
    }

    fn default(&self, object: &mut dyn Object) {
        self.through_hub(object, |hub| self.hub.default(hub));
    }
    fn prepare_for_create(&self, new: &mut dyn Object) {
        self.through_hub(new, |hub| self.hub.prepare_for_create(hub));
    }
    fn set_requester(&self, new: &mut dyn Object, requester: &Requester<'_>) {
        self.through_hub(new, |hub| self.hub.set_requester(hub, requester));
    }
    fn prepare_for_update(&self, new: &mut dyn Object, old: &dyn Object) {
        let Ok(old) = self.hub_object(old) else { return };
        self.through_hub(new, |hub| self.hub.prepare_for_update(hub, old.as_ref()));
    }
    fn prepare_for_subresource(&self, subresource: &str, new: &mut dyn Object, old: &dyn Object) {
        let Ok(old) = self.hub_object(old) else { return };
        self.through_hub(new, |hub| self.hub.prepare_for_subresource(subresource, hub, old.as_ref()));
    }

    fn validate_create(&self, new: &dyn Object) -> Errors {
        self.check(new, |hub| self.hub.validate_create(hub))
    }
    fn validate_update(&self, new: &dyn Object, old: &dyn Object) -> Errors {
        self.check(old, |old| self.check(new, |new| self.hub.validate_update(new, old)))
    }
    fn validate_subresource(&self, subresource: &str, new: &dyn Object, old: &dyn Object) -> Errors {
        self.check(old, |old| self.check(new, |new| self.hub.validate_subresource(subresource, new, old)))
    }
    fn warnings(&self, new: &dyn Object, old: Option<&dyn Object>) -> Vec<String> {
        let old = old.and_then(|old| self.hub_object(old).ok());
        self.hub_object(new).map(|new| self.hub.warnings(new.as_ref(), old.as_deref())).unwrap_or_default()
    }
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        self.hub.validate_name(name, prefix)
    }

    fn columns(&self) -> &[Column] {
        self.hub.columns()
    }
    fn row(&self, object: &dyn Object, now: Time) -> Vec<Cell> {
        self.hub_object(object).map(|hub| self.hub.row(hub.as_ref(), now)).unwrap_or_default()
    }
    fn selectable(&self, object: &dyn Object) -> Vec<(&'static str, String)> {
        self.hub_object(object).map(|hub| self.hub.selectable(hub.as_ref())).unwrap_or_default()
    }
    fn field_label(&self, label: &str) -> Result<String, String> {
        match self.conversion.field_label {
            Some(convert) => convert(label),
            None => self.hub.field_label(label),
        }
    }
    fn deletion_grace_seconds(&self, object: &dyn Object, requested: Option<i64>) -> Option<i64> {
        self.hub.deletion_grace_seconds(self.hub_object(object).ok()?.as_ref(), requested)
    }
    fn allow_create_on_update(&self) -> bool {
        self.hub.allow_create_on_update()
    }
    fn allow_unconditional_update(&self) -> bool {
        self.hub.allow_unconditional_update()
    }
    fn orphans_by_default(&self) -> bool {
        self.hub.orphans_by_default()
    }
    fn reset_fields(&self, subresource: &str) -> &'static [&'static str] {
        self.hub.reset_fields(subresource)
    }
    fn scale(&self, object: &dyn Object) -> Option<Scale> {
        self.hub.scale(self.hub_object(object).ok()?.as_ref())
    }
    fn set_scale(&self, object: &mut dyn Object, scale: &Scale) {
        self.through_hub(object, |hub| self.hub.set_scale(hub, scale));
    }
}
