//! The text forms that names, labels and the like must have. Each check lists what is wrong in upstream's words.

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED_NAME: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// Longest DNS label, label value, and name part of a label key, in bytes.
pub const LABEL_MAX_BYTES: usize = 63;
/// Longest DNS subdomain, in bytes.
pub const SUBDOMAIN_MAX_BYTES: usize = 253;

/// Upstream's sentence about a pattern that a value does not follow.
pub fn pattern_error(message: &str, pattern: &str, examples: &[&str]) -> String {
    let shown: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    if shown.is_empty() {
        return format!("{message} (regex used for validation is '{pattern}')");
    }
    format!("{message} (e.g. {}regex used for validation is '{pattern}')", shown.join(" or "))
}

pub fn max_length_error(bytes: usize) -> String {
    format!("must be no more than {bytes} bytes")
}

pub fn range_error(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Non-empty, `inner` throughout, `edge` at both ends.
fn shaped(text: &str, edge: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [one] => edge(*one),
        [first, middle @ .., last] => {
            edge(*first) && edge(*last) && middle.iter().all(|byte| inner(*byte) || edge(*byte))
        }
    }
}

fn is_label(text: &str) -> bool {
    shaped(text, lower_alphanumeric, |byte| byte == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn subdomain_pattern() -> String {
    format!("{LABEL}(\\.{LABEL})*")
}

/// A DNS label (RFC 1123): names of namespaces, containers, pods' hostnames.
pub fn dns1123_label(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > LABEL_MAX_BYTES {
        faults.push(max_length_error(LABEL_MAX_BYTES));
    }
    if !is_label(value) {
        faults.push(if is_subdomain(value) {
            "must not contain dots".into()
        } else {
            let rule = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
            pattern_error(rule, LABEL, &["my-name", "123-abc"])
        });
    }
    faults
}

/// A DNS subdomain (RFC 1123): most objects' names.
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > SUBDOMAIN_MAX_BYTES {
        faults.push(max_length_error(SUBDOMAIN_MAX_BYTES));
    }
    if !is_subdomain(value) {
        let rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
        faults.push(pattern_error(rule, &subdomain_pattern(), &["example.com"]));
    }
    faults
}

/// A DNS label that starts with a letter (RFC 1035): names of services before 1.36's relaxation, port names in DNS.
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > LABEL_MAX_BYTES {
        faults.push(max_length_error(LABEL_MAX_BYTES));
    }
    if !(is_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase())) {
        let rule = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
        faults.push(pattern_error(rule, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    faults
}

/// `*.` and a DNS subdomain: hosts of an Ingress.
pub fn wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > SUBDOMAIN_MAX_BYTES {
        faults.push(max_length_error(SUBDOMAIN_MAX_BYTES));
    }
    if !value.strip_prefix("*.").is_some_and(is_subdomain) {
        let rule = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
        faults.push(pattern_error(rule, &format!("\\*\\.{}", subdomain_pattern()), &["*.example.com"]));
    }
    faults
}

fn name_part(text: &str) -> bool {
    shaped(text, |byte| byte.is_ascii_alphanumeric(), |byte| matches!(byte, b'-' | b'_' | b'.'))
}

/// A label key, annotation key, or resource name: `[prefix/]name`.
pub fn qualified_name(value: &str) -> Vec<String> {
    const RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    let pattern = pattern_error(RULE, QUALIFIED_NAME, &["MyName", "my.name", "123-abc"]);
    let mut faults = Vec::new();
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                faults.push("prefix part must be non-empty".into());
            } else {
                faults.extend(
                    dns1123_subdomain(prefix).into_iter().map(|fault| format!("prefix part {fault}")),
                );
            }
            *name
        }
        _ => {
            return vec![format!(
                "a valid label key {pattern} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".into());
    } else if name.len() > LABEL_MAX_BYTES {
        faults.push(format!("name part {}", max_length_error(LABEL_MAX_BYTES)));
    }
    if !name_part(name) {
        faults.push(format!("name part {pattern}"));
    }
    faults
}

/// A label's value: empty, or as the name part of a key.
pub fn label_value(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > LABEL_MAX_BYTES {
        faults.push(max_length_error(LABEL_MAX_BYTES));
    }
    if !value.is_empty() && !name_part(value) {
        let rule = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
        faults.push(pattern_error(rule, &format!("({QUALIFIED_NAME})?"), &["MyValue", "my_value", "12345"]));
    }
    faults
}

/// A name that can stand as one segment of a URL: RBAC objects.
pub fn path_segment_name(value: &str) -> Vec<String> {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    let mut faults = Vec::new();
    for forbidden in ["/", "%"] {
        if value.contains(forbidden) {
            faults.push(format!("may not contain '{forbidden}'"));
        }
    }
    faults
}

/// A port's name: 1 to 15 of `[-a-z0-9]`, a letter among them, no hyphen at an edge nor two in a row.
pub fn port_name(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > 15 {
        faults.push(max_length_error(15));
    }
    if value.is_empty() || !value.bytes().all(|byte| lower_alphanumeric(byte) || byte == b'-') {
        faults.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !value.bytes().any(|byte| byte.is_ascii_lowercase()) {
        faults.push("must contain at least one letter (a-z)".into());
    }
    if value.contains("--") {
        faults.push("must not contain consecutive hyphens".into());
    }
    if value.starts_with('-') || value.ends_with('-') {
        faults.push("must not begin or end with a hyphen".into());
    }
    faults
}

pub fn port_number(port: i64) -> Vec<String> {
    in_range(port, 1, 65535)
}

pub fn in_range(value: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&value) { Vec::new() } else { vec![range_error(low, high)] }
}

/// A user or group id: what the kernel's 31 bits hold.
pub fn user_id(id: i64) -> Vec<String> {
    in_range(id, 0, i64::from(i32::MAX))
}

/// `25%`
pub fn percent(value: &str) -> Vec<String> {
    let digits = value.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Vec::new();
    }
    let rule = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![pattern_error(rule, "[0-9]+%", &["1%", "93%"])]
}

pub fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Vec::new();
    }
    let rule = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![pattern_error(rule, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// An environment variable's name under the relaxed rule (KEP-4369): printable ASCII but `=`.
pub fn env_name(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".into()];
    }
    if value.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') {
        return Vec::new();
    }
    vec![
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
            .into(),
    ]
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > SUBDOMAIN_MAX_BYTES {
        faults.push(max_length_error(SUBDOMAIN_MAX_BYTES));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if value.is_empty() || !value.bytes().all(plain) {
        let rule = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        faults.push(pattern_error(rule, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    if value == "." || value == ".." {
        faults.push(format!("must not be '{value}'"));
    } else if value.starts_with("..") {
        faults.push("must not start with '..'".into());
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_labels_and_names() {
        let prefix =
            "a".repeat(61) + "." + &"b".repeat(61) + "." + &"c".repeat(61) + "." + &"d".repeat(61) + ".eeeee";
        assert_eq!(prefix.len(), 253);
        assert!(qualified_name(&format!("{prefix}/x")).is_empty());
        assert_eq!(qualified_name(&format!("{prefix}e/x")), ["prefix part must be no more than 253 bytes"]);
        assert!(qualified_name(&"n".repeat(63)).is_empty());
        assert_eq!(qualified_name(&"n".repeat(64)), ["name part must be no more than 63 bytes"]);
        for bad in ["-a", "a-", "pre/", "A_b/x", "a/b/c", "", "/x"] {
            assert!(!qualified_name(bad).is_empty(), "{bad}");
        }
        assert!(label_value("").is_empty());
        assert!(!label_value("a b").is_empty());
        assert!(!label_value(&"v".repeat(64)).is_empty());
    }

    #[test]
    fn words_are_upstreams() {
        assert_eq!(
            dns1123_label("Web"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            port_name("-"),
            ["must contain at least one letter (a-z)", "must not begin or end with a hyphen"]
        );
    }
}
