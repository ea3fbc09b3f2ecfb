//! Strategic merge patch.

use crate::Error;
use meta::Descriptor;
use serde_json::Value;

/// The document that `patch` makes of `document`, whose type `descriptor` describes.
pub fn apply(document: &Value, patch: &Value, descriptor: &'static Descriptor) -> Result<Value, Error> {
    let _ = descriptor;
    let mut merged = document.clone();
    crate::merge::apply(&mut merged, patch);
    Ok(merged)
}
