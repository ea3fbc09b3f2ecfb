//! The named formats of strings, and what is wrong with a string that does not have one.

use crate::network::Url;
use crate::time::Timestamp;
use base64::Engine as _;
use meta::validation;

/// The formats, with the length of the pattern that stands for the cost of each.
const FORMATS: &[(&str, u64)] = &[
    ("dns1123Label", 30),
    ("dns1123Subdomain", 60),
    ("dns1035Label", 30),
    ("qualifiedName", 60),
    ("dns1123LabelPrefix", 30),
    ("dns1123SubdomainPrefix", 60),
    ("dns1035LabelPrefix", 30),
    ("labelValue", 40),
    ("uri", 1103),
    ("uuid", 70),
    ("byte", 84),
    ("date", 71),
    ("datetime", 71),
];

/// The format's name as it lives in the program.
pub(crate) fn named(name: &str) -> Option<&'static str> {
    FORMATS.iter().find(|(known, _)| *known == name).map(|(known, _)| *known)
}

/// The length of the pattern that stands for the cost of a check.
pub(crate) fn regex_length(name: &str) -> Option<u64> {
    FORMATS.iter().find(|(known, _)| *known == name).map(|(_, length)| *length)
}

/// What is wrong with a text in a format; nothing where it is fine.
pub(crate) fn faults(name: &str, text: &str) -> Vec<String> {
    let valid = |valid: bool, message: &str| if valid { Vec::new() } else { vec![message.to_owned()] };
    match name {
        "dns1123Label" => validation::dns1123_label(text),
        "dns1123Subdomain" => validation::dns1123_subdomain(text),
        "dns1035Label" => validation::dns1035_label(text),
        "qualifiedName" => validation::qualified_name(text),
        "dns1123LabelPrefix" => validation::dns1123_label(&unfinished(text)),
        "dns1123SubdomainPrefix" => validation::dns1123_subdomain(&unfinished(text)),
        "dns1035LabelPrefix" => validation::dns1035_label(&unfinished(text)),
        "labelValue" => validation::label_value(text),
        "uri" => Url::parse(text).err().into_iter().collect(),
        "uuid" => valid(is_uuid(text), "does not match the UUID format"),
        "byte" => {
            let base64 = base64::engine::general_purpose::STANDARD.decode(text).is_ok() && !text.is_empty();
            valid(base64, "invalid base64")
        }
        "date" => {
            let whole = text.len() == 10 && Timestamp::parse(&format!("{text}T00:00:00Z")).is_some();
            valid(whole, "invalid date")
        }
        _ => valid(Timestamp::parse(text).is_some(), "invalid datetime"),
    }
}

/// A prefix may end in a dash, since more will follow it.
fn unfinished(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(before) if !before.is_empty() => format!("{before}a"),
        _ => text.to_owned(),
    }
}

fn is_uuid(text: &str) -> bool {
    let digits = text.replace('-', "");
    let dashes: Vec<usize> = text.match_indices('-').map(|(at, _)| at).collect();
    digits.len() == 32
        && digits.bytes().all(|c| c.is_ascii_hexdigit())
        && (dashes.is_empty() || dashes == [8, 13, 18, 23])
}
