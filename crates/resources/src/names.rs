//! What objects may be called. Each rule takes the name and whether it is only the beginning of one (`generateName`).

use meta::validation;
use std::borrow::Cow;

/// The rule of one kind: complaints about the name, none when it is good.
pub type Rule = fn(name: &str, prefix: bool) -> Vec<String>;

/// A generated name goes on after the prefix, so a dash at the prefix's end is no fault.
fn masked(name: &str, prefix: bool) -> Cow<'_, str> {
    if prefix && name.len() > 1 && name.ends_with('-') {
        let kept: String = name.chars().take(name.chars().count() - 2).collect();
        return Cow::Owned(kept + "a");
    }
    Cow::Borrowed(name)
}

pub fn dns_subdomain(name: &str, prefix: bool) -> Vec<String> {
    validation::dns1123_subdomain(&masked(name, prefix))
}

pub fn dns_label(name: &str, prefix: bool) -> Vec<String> {
    validation::dns1123_label(&masked(name, prefix))
}

pub fn dns1035_label(name: &str, prefix: bool) -> Vec<String> {
    validation::dns1035_label(&masked(name, prefix))
}

/// Anything that can stand in a URL's path: the names of RBAC objects.
pub fn path_segment(name: &str, prefix: bool) -> Vec<String> {
    let mut faults = Vec::new();
    if !prefix && (name == "." || name == "..") {
        return vec![format!("may not be '{name}'")];
    }
    for illegal in ["/", "%"] {
        if name.contains(illegal) {
            faults.push(format!("may not contain '{illegal}'"));
        }
    }
    faults
}

/// No rule beyond being non-empty.
pub fn any(_name: &str, _prefix: bool) -> Vec<String> {
    Vec::new()
}
