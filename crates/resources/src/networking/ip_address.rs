//! IP addresses: one object for each address of a service that is taken.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::names;
use crate::object_meta::{IMMUTABLE, immutable_value};
use crate::strategy::Strategy;
use api::networking::v1::{IPAddress, ParentReference};
use meta::Time;
use meta::field::{Errors, Path};
use std::net::IpAddr;

pub struct IPAddresses;

/// The name is the address, in its one canonical form.
fn name_rule(name: &str, _prefix: bool) -> Vec<String> {
    match name.parse::<IpAddr>() {
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()],
        Ok(address) if address.to_string() != name => {
            vec![format!("must be in canonical form ({:?})", address.to_string())]
        }
        Ok(_) => Vec::new(),
    }
}

impl Strategy for IPAddresses {
    type Object = IPAddress;
    const PLURAL: &'static str = "ipaddresses";
    const COLUMNS: &'static [Column] = &[NAME, Column::string("ParentRef"), AGE];
    const NAME: names::Rule = name_rule;

    fn validate(new: &IPAddress, old: Option<&IPAddress>, errors: &mut Errors) {
        let path = Path::new("spec").child("parentRef");
        let Some(parent) = &new.spec.parent_ref else { return errors.required(&path, "") };
        let checks = [
            (&parent.resource, "resource", true),
            (&parent.name, "name", true),
            (&parent.namespace, "namespace", false),
        ];
        for (value, field, required) in checks {
            if !value.is_empty() {
                errors.invalid_each(&path.child(field), value, names::path_segment(value, false));
            } else if required {
                errors.required(&path.child(field), "");
            }
        }
        if !parent.group.is_empty() {
            let faults = meta::validation::dns1123_subdomain(&parent.group);
            errors.invalid_each(&path.child("group"), &parent.group, faults);
        }
        if let Some(old) = old {
            match &old.spec.parent_ref {
                Some(before) => immutable_value(parent.as_ref(), before.as_ref(), &path, errors),
                None => errors.invalid(&path, meta::field::Json(parent.as_ref()), IMMUTABLE),
            }
        }
    }

    fn row(address: &IPAddress, now: Time) -> Vec<Cell> {
        vec![
            columns::name(&address.metadata),
            address.spec.parent_ref.as_deref().map_or_else(|| "<none>".into(), parent).into(),
            columns::age(&address.metadata, now),
        ]
    }
}

fn parent(parent: &ParentReference) -> String {
    let mut text = parent.resource.to_lowercase();
    for (separator, part) in [(".", &parent.group), ("/", &parent.namespace)] {
        if !part.is_empty() {
            text += separator;
            text += part;
        }
    }
    format!("{text}/{}", parent.name)
}
