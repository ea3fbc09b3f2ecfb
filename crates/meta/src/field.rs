//! Errors of validation: which field, what is wrong, in upstream's words (`spec.ports[0].port: Invalid value: 0: ...`).

use std::fmt;

/// Where a field stands in an object; printed as `spec.containers[0].env[NAME]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    pub fn new(name: &str) -> Self {
        Path(name.to_string())
    }

    /// The place before any field, for errors of the whole object.
    pub fn root() -> Self {
        Path::default()
    }

    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Path::new(name) } else { Path(format!("{}.{name}", self.0)) }
    }

    pub fn index(&self, index: usize) -> Self {
        Path(format!("{}[{index}]", self.0))
    }

    pub fn key(&self, key: &str) -> Self {
        Path(format!("{}[{key}]", self.0))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    TooFew,
    Internal,
    TypeInvalid,
}

impl Kind {
    /// The `reason` of a cause in a Status.
    pub fn reason(self) -> &'static str {
        match self {
            Kind::NotFound => "FieldValueNotFound",
            Kind::Required => "FieldValueRequired",
            Kind::Duplicate => "FieldValueDuplicate",
            Kind::Invalid => "FieldValueInvalid",
            Kind::NotSupported => "FieldValueNotSupported",
            Kind::Forbidden => "FieldValueForbidden",
            Kind::TooLong => "FieldValueTooLong",
            Kind::TooMany => "FieldValueTooMany",
            Kind::TooFew => "FieldValueTooFew",
            Kind::Internal => "InternalError",
            Kind::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Kind::NotFound => "Not found",
            Kind::Required => "Required value",
            Kind::Duplicate => "Duplicate value",
            Kind::Invalid | Kind::TypeInvalid => "Invalid value",
            Kind::NotSupported => "Unsupported value",
            Kind::Forbidden => "Forbidden",
            Kind::TooLong => "Too long",
            Kind::TooMany => "Too many",
            Kind::TooFew => "Too few",
            Kind::Internal => "Internal error",
        }
    }
}

/// A value as an error shows it: text quoted, numbers bare, anything else as JSON.
pub trait Shown {
    fn shown(&self) -> String;
}

impl Shown for str {
    fn shown(&self) -> String {
        let mut out = Vec::new();
        crate::json::write_string(self, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        self.as_str().shown()
    }
}

macro_rules! shown_plainly {
    ($($type:ty),*) => {$(
        impl Shown for $type {
            fn shown(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
shown_plainly!(i32, i64, u32, usize, bool, f64);

impl Shown for crate::Quantity {
    fn shown(&self) -> String {
        self.to_string().shown()
    }
}

impl Shown for crate::IntOrString {
    fn shown(&self) -> String {
        let mut out = Vec::new();
        crate::Value::write_json(self, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

impl Shown for serde_json::Value {
    fn shown(&self) -> String {
        let mut out = Vec::new();
        crate::json::write_value(self, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

impl<T: Shown + ?Sized> Shown for &T {
    fn shown(&self) -> String {
        (**self).shown()
    }
}

impl<T: Shown> Shown for Option<T> {
    fn shown(&self) -> String {
        self.as_ref().map_or_else(|| "null".into(), Shown::shown)
    }
}

/// Any message or list of it, as JSON: `Json(&pod.spec)`.
pub struct Json<'a>(pub &'a dyn crate::Value);

impl Shown for Json<'_> {
    fn shown(&self) -> String {
        let mut out = Vec::new();
        self.0.write_json(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// One fault of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub kind: Kind,
    pub field: String,
    /// The offending value as it is printed; `None` where the kind prints none.
    pub value: Option<String>,
    pub detail: String,
}

impl Error {
    /// The text without the field, which a Status cause carries on its own.
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_string();
        if let Some(value) = &self.value {
            text.push_str(": ");
            text.push_str(value);
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// All faults of an object: validation collects, it does not stop at the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errors(pub Vec<Error>);

impl Errors {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Error> {
        self.0.iter()
    }

    fn push(&mut self, kind: Kind, path: &Path, value: Option<String>, detail: impl Into<String>) {
        self.0.push(Error { kind, field: path.to_string(), value, detail: detail.into() });
    }

    pub fn required(&mut self, path: &Path, detail: impl Into<String>) {
        self.push(Kind::Required, path, None, detail);
    }

    pub fn invalid(&mut self, path: &Path, value: impl Shown, detail: impl Into<String>) {
        self.push(Kind::Invalid, path, Some(value.shown()), detail);
    }

    pub fn type_invalid(&mut self, path: &Path, value: impl Shown, detail: impl Into<String>) {
        self.push(Kind::TypeInvalid, path, Some(value.shown()), detail);
    }

    /// One `invalid` for each message of a check in [`crate::validation`].
    pub fn invalid_each(&mut self, path: &Path, value: impl Shown, faults: Vec<String>) {
        for fault in faults {
            self.push(Kind::Invalid, path, Some(value.shown()), fault);
        }
    }

    pub fn not_supported(&mut self, path: &Path, value: impl Shown, allowed: &[&str]) {
        let quoted: Vec<String> = allowed.iter().map(|value| value.shown()).collect();
        let detail = if quoted.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", quoted.join(", "))
        };
        self.push(Kind::NotSupported, path, Some(value.shown()), detail);
    }

    pub fn forbidden(&mut self, path: &Path, detail: impl Into<String>) {
        self.push(Kind::Forbidden, path, None, detail);
    }

    pub fn duplicate(&mut self, path: &Path, value: impl Shown) {
        self.push(Kind::Duplicate, path, Some(value.shown()), "");
    }

    pub fn not_found(&mut self, path: &Path, value: impl Shown) {
        self.push(Kind::NotFound, path, Some(value.shown()), "");
    }

    /// `limit` in bytes.
    pub fn too_long(&mut self, path: &Path, limit: usize) {
        let unit = if limit == 1 { "byte" } else { "bytes" };
        self.push(Kind::TooLong, path, None, format!("may not be more than {limit} {unit}"));
    }

    pub fn too_many(&mut self, path: &Path, actual: usize, limit: usize) {
        let unit = if limit == 1 { "item" } else { "items" };
        self.push(Kind::TooMany, path, Some(actual.to_string()), format!("must have at most {limit} {unit}"));
    }

    /// The same errors, other than those, added at the end.
    pub fn append(&mut self, other: Errors) {
        self.0.extend(other.0);
    }

    pub fn internal(&mut self, path: &Path, detail: impl Into<String>) {
        self.push(Kind::Internal, path, None, detail);
    }
}

/// Upstream's aggregate: one error bare, several in brackets, each text once.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut texts: Vec<String> = Vec::new();
        for error in &self.0 {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        match texts.as_slice() {
            [one] => f.write_str(one),
            all => write!(f, "[{}]", all.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_upstream_does() {
        let mut errors = Errors::default();
        let ports = Path::new("spec").child("ports");
        errors.invalid(&ports.index(0).child("port"), 0, "must be between 1 and 65535, inclusive");
        assert_eq!(
            errors.to_string(),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"
        );
        errors.required(&Path::new("metadata").child("name"), "name or generateName is required");
        errors.not_supported(&Path::new("spec").child("type"), "X", &["ClusterIP", "NodePort"]);
        assert_eq!(
            errors.to_string(),
            "[spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive, metadata.name: Required value: \
             name or generateName is required, spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"NodePort\"]"
        );
    }
}
