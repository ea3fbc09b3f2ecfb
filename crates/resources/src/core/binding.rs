//! Bindings: the request that gives a pod its node; never stored.

use crate::strategy::Strategy;
use api::core::v1::Binding;
use meta::field::{Errors, Path};

pub struct Bindings;

impl Strategy for Bindings {
    type Object = Binding;
    const PLURAL: &'static str = "bindings";

    fn validate(binding: &Binding, _old: Option<&Binding>, errors: &mut Errors) {
        let target = Path::new("target");
        if !binding.target.kind.is_empty() && binding.target.kind != "Node" {
            errors.not_supported(&target.child("kind"), &binding.target.kind, &["Node", "<empty>"]);
        }
        if binding.target.name.is_empty() {
            errors.required(&target.child("name"), "");
        }
    }
}
