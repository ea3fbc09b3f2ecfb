//! Selectors of devices: expressions that say which ones will do.

use api::resource::v1::DeviceSelector;
use cel::devices;
use meta::field::{Errors, Path};

const SELECTORS_MAX: usize = 32;

/// Checks the selectors of a class or a request.
pub(super) fn validate(selectors: &[DeviceSelector], path: &Path, errors: &mut Errors) {
    let path = path.child("selectors");
    if selectors.len() > SELECTORS_MAX {
        errors.too_many(&path, selectors.len(), SELECTORS_MAX);
    }
    for (index, selector) in selectors.iter().enumerate() {
        let path = path.index(index).child("cel");
        let Some(selector) = &selector.cel else {
            errors.required(&path, "");
            continue;
        };
        let (path, text) = (path.child("expression"), &selector.expression);
        if text.len() > devices::MAX_BYTES {
            errors.too_long(&path, devices::MAX_BYTES);
            continue;
        }
        match devices::compile(text) {
            Ok(program) if program.cost().max > devices::MAX_COST => {
                errors.forbidden(&path, "too complex, exceeds cost limit");
            }
            Ok(_) => {}
            Err(refusal) if refusal.internal => errors.internal(&path, refusal.to_string()),
            Err(refusal) => errors.invalid(&path, text, refusal.to_string()),
        }
    }
}
