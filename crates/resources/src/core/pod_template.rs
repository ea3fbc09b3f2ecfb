//! Pod templates: on their own, and inside everything that makes pods.

use super::pod::{defaults, validation};
use crate::columns::{self, Cell, Column, NAME};
use crate::object_meta;
use crate::strategy::Strategy;
use api::core::v1::{PodTemplate, PodTemplateSpec};
use meta::Time;
use meta::field::{Errors, Path};

pub struct PodTemplates;

impl Strategy for PodTemplates {
    type Object = PodTemplate;
    const PLURAL: &'static str = "podtemplates";
    const COLUMNS: &'static [Column] =
        &[NAME, Column::string("Containers"), Column::string("Images"), Column::string("Pod Labels")];
    const GENERATION: bool = true;

    fn default(template: &mut PodTemplate) {
        default_spec(&mut template.template);
    }
    fn spec_changed(new: &PodTemplate, old: &PodTemplate) -> bool {
        new.template != old.template
    }
    fn validate(new: &PodTemplate, _old: Option<&PodTemplate>, errors: &mut Errors) {
        validate_spec(&new.template, &Path::new("template"), errors);
    }
    fn warnings(new: &PodTemplate, _old: Option<&PodTemplate>) -> Vec<String> {
        warnings(&new.template, &Path::new("template"))
    }
    fn row(object: &PodTemplate, _now: Time) -> Vec<Cell> {
        let (names, images) = columns::containers(&object.template);
        let labels = columns::labels(&object.template.metadata.labels);
        vec![columns::name(&object.metadata), names.into(), images.into(), labels.into()]
    }
}

/// Defaults inside a template.
pub(crate) fn default_spec(template: &mut PodTemplateSpec) {
    defaults::pod_spec(&mut template.spec);
}

/// All that is wrong with a template, wherever it stands.
pub(crate) fn validate_spec(template: &PodTemplateSpec, path: &Path, errors: &mut Errors) {
    object_meta::validate_labels(&template.metadata.labels, &path.child("labels"), errors);
    object_meta::validate_annotations(&template.metadata.annotations, &path.child("annotations"), errors);
    validation::annotations(
        &template.metadata.annotations,
        &template.spec,
        &path.child("annotations"),
        errors,
    );
    validation::pod_spec(&template.spec, Some(&template.metadata), &path.child("spec"), errors);
    if !template.spec.ephemeral_containers.is_empty() {
        let field = path.child("spec").child("ephemeralContainers");
        errors.forbidden(&field, "ephemeral containers not allowed in pod template");
    }
}

/// What users should hear about a template.
pub(crate) fn warnings(template: &PodTemplateSpec, path: &Path) -> Vec<String> {
    super::pod::warnings::template(&template.spec, &template.metadata, &path.child("spec"))
}
