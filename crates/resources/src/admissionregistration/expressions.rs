//! Expressions of policies and match conditions, as far as they are refused when they are written.

use api::admissionregistration::v1::{AuditAnnotation, Mutation, Validation, Variable};
use cel::Type;
use cel::admission::{Compiler, Gives, Names, is_identifier};
use meta::field::{Errors, Path};
use meta::validation;

/// The longest expression of an audit annotation, in bytes.
const AUDIT_ANNOTATION_MAX_BYTES: usize = 5 * 1024;
const AUDIT_ANNOTATIONS_MAX: usize = 20;
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];

/// The expressions of one policy: variables first, since the others may name them.
pub(super) struct Expressions {
    compiler: Compiler,
    names: Names,
}

impl Expressions {
    pub fn new(params: bool, composed: bool) -> Self {
        let compiler = if composed { Compiler::with_variables() } else { Compiler::new() };
        Expressions { compiler, names: Names { params, authorizer: true, patches: false } }
    }

    fn compile(
        &self,
        text: &str,
        names: Names,
        gives: Gives,
        path: &Path,
        errors: &mut Errors,
    ) -> Option<Type> {
        match self.compiler.compile(text, names, gives) {
            Ok(program) => Some(program.output_type().clone()),
            Err(refusal) if refusal.internal => {
                errors.internal(path, refusal.to_string());
                None
            }
            Err(refusal) => {
                errors.invalid(path, text, refusal.to_string());
                None
            }
        }
    }

    pub fn variables(&mut self, variables: &[Variable], path: &Path, errors: &mut Errors) {
        for (index, variable) in variables.iter().enumerate() {
            let path = path.child("variables").index(index);
            let name = path.child("name");
            if variable.name.trim().is_empty() {
                errors.required(&name, "name is not specified");
            } else if !is_identifier(&variable.name) {
                errors.invalid(&name, &variable.name, "must be a valid CEL identifier");
            }
            let expression = path.child("expression");
            if variable.expression.trim().is_empty() {
                errors.required(&expression, "expression is not specified");
                continue;
            }
            let of = self.compile(&variable.expression, self.names, Gives::Anything, &expression, errors);
            self.compiler.declare(&variable.name, of);
        }
    }

    pub fn validations(&self, validations: &[Validation], path: &Path, errors: &mut Errors) {
        for (index, rule) in validations.iter().enumerate() {
            let path = path.child("validations").index(index);
            let expression = path.child("expression");
            if rule.expression.trim().is_empty() {
                errors.required(&expression, "expression is not specified");
            } else {
                self.compile(&rule.expression, self.names, Gives::Bool, &expression, errors);
            }
            let message = path.child("messageExpression");
            if !rule.message_expression.is_empty() {
                if rule.message_expression.trim().is_empty() {
                    errors.invalid(&message, &rule.message_expression, "must be non-empty if specified");
                } else {
                    let names = Names { authorizer: false, ..self.names };
                    self.compile(&rule.message_expression, names, Gives::String, &message, errors);
                }
            }
            let trimmed = rule.message.trim();
            if !rule.message.is_empty() && trimmed.is_empty() {
                errors.invalid(&path.child("message"), &rule.message, "must be non-empty if specified");
            } else if trimmed.contains(['\n', '\r']) {
                errors.invalid(&path.child("message"), &rule.message, "must not contain line breaks");
            }
            if let Some(reason) = rule.reason.as_ref().filter(|reason| !REASONS.contains(&reason.as_str())) {
                errors.not_supported(&path.child("reason"), reason, &REASONS);
            }
        }
    }

    pub fn audit_annotations(&self, policy: &str, all: &[AuditAnnotation], path: &Path, errors: &mut Errors) {
        let path = path.child("auditAnnotations");
        if all.len() > AUDIT_ANNOTATIONS_MAX {
            let detail = format!("must not have more than {AUDIT_ANNOTATIONS_MAX} auditAnnotations");
            errors.invalid(&path, "", detail);
        }
        for (index, annotation) in all.iter().enumerate() {
            let (key, value) = (path.index(index).child("key"), path.index(index).child("valueExpression"));
            if policy.is_empty() {
                errors.invalid(&key, &annotation.key, "requires metadata.name be non-empty");
            } else {
                let name = format!("{policy}/{}", annotation.key);
                errors.invalid_each(&key, &name, validation::qualified_name(&name));
            }
            let text = annotation.value_expression.trim();
            if text.is_empty() {
                errors.required(&value, "valueExpression is not specified");
            } else if text.len() > AUDIT_ANNOTATION_MAX_BYTES {
                errors.required(
                    &value,
                    format!("must not exceed {AUDIT_ANNOTATION_MAX_BYTES} bytes in length"),
                );
            } else {
                self.compile(text, self.names, Gives::StringOrNull, &value, errors);
            }
            if all[..index].iter().any(|other| other.key == annotation.key) {
                errors.duplicate(&key, &annotation.key);
            }
        }
    }

    pub fn mutations(&self, mutations: &[Mutation], path: &Path, errors: &mut Errors) {
        for (index, mutation) in mutations.iter().enumerate() {
            let path = path.child("mutations").index(index);
            let (json, apply) = (path.child("jsonPatch"), path.child("applyConfiguration"));
            let json_text = mutation.json_patch.as_ref().map(|patch| patch.expression.as_str());
            let apply_text = mutation.apply_configuration.as_ref().map(|patch| patch.expression.as_str());
            match mutation.patch_type.as_str() {
                "" => errors.required(&path.child("patchType"), ""),
                "JSONPatch" => {
                    self.mutation(json_text, "JSONPatch", Gives::JsonPatches, &json, errors);
                    if apply_text.is_some() {
                        let detail = "must not be specified when patchType is JSONPatch";
                        errors.invalid(&apply, "{applyConfiguration}", detail);
                    }
                }
                "ApplyConfiguration" => {
                    self.mutation(apply_text, "ApplyConfiguration", Gives::Object, &apply, errors);
                    if json_text.is_some() {
                        let detail = "must not be specified when patchType is ApplyConfiguration";
                        errors.invalid(&json, "{jsonPatch}", detail);
                    }
                }
                other => errors.not_supported(
                    &path.child("patchType"),
                    other,
                    &["ApplyConfiguration", "JSONPatch"],
                ),
            }
        }
    }

    fn mutation(&self, text: Option<&str>, kind: &str, gives: Gives, path: &Path, errors: &mut Errors) {
        match text.map(str::trim) {
            None => errors.required(path, format!("must be specified when patchType is {kind}")),
            Some("") => errors.required(&path.child("expression"), ""),
            Some(text) => {
                let names = Names { patches: true, ..self.names };
                self.compile(text, names, gives, &path.child("expression"), errors);
            }
        }
    }
}

/// A match condition's expression; `params` says whether it may name them.
pub(super) fn condition(text: &str, params: bool, path: &Path, errors: &mut Errors) {
    let expressions = Expressions::new(params, false);
    expressions.compile(text.trim(), expressions.names, Gives::Bool, path, errors);
}
