//! Printed columns: what `kubectl get` shows, computed by the server, and the text forms that many kinds share.

use api::core::v1::PodTemplateSpec;
use meta::Time;
use std::collections::BTreeMap;

/// One value of a row: a string, an integer, a boolean, or null, as its column says.
pub type Cell = serde_json::Value;

/// One column of a Table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer` or `boolean`.
    pub ty: &'static str,
    /// `name` marks the column that identifies the row.
    pub format: &'static str,
    /// 0 is always shown, 1 in wide output only.
    pub priority: i32,
    pub description: &'static str,
}

impl Column {
    pub const fn string(name: &'static str) -> Self {
        Column { name, ty: "string", format: "", priority: 0, description: "" }
    }
    pub const fn integer(name: &'static str) -> Self {
        Column { ty: "integer", ..Column::string(name) }
    }
    pub const fn boolean(name: &'static str) -> Self {
        Column { ty: "boolean", ..Column::string(name) }
    }
    pub const fn wide(self) -> Self {
        Column { priority: 1, ..self }
    }
    pub const fn named(self) -> Self {
        Column { format: "name", ..self }
    }
}

pub const NAME: Column = Column {
    name: "Name",
    ty: "string",
    format: "name",
    priority: 0,
    description: "The name, unique among objects of this kind in a namespace.",
};
pub const AGE: Column = Column {
    name: "Age",
    ty: "string",
    format: "",
    priority: 0,
    description: "How long ago the object was created.",
};
pub const CONTAINERS: Column = Column::string("Containers").wide();
pub const IMAGES: Column = Column::string("Images").wide();
pub const SELECTOR: Column = Column::string("Selector").wide();

/// What kinds without columns of their own show.
pub const DEFAULT: &[Column] = &[
    NAME,
    Column {
        name: "Created At",
        ty: "date",
        format: "",
        priority: 0,
        description: "When the object was created.",
    },
];

/// Name and age, for kinds that show no more.
pub const NAME_AND_AGE: &[Column] = &[NAME, AGE];

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// A span as people read it: two units at most, and the finer one only while it matters (`5m30s`, `36h`, `8d`, `2y40d`).
pub fn human_duration(seconds: i64) -> String {
    let two = |whole: i64, unit: &str, rest: i64, small: &str| {
        if rest == 0 { format!("{whole}{unit}") } else { format!("{whole}{unit}{rest}{small}") }
    };
    match seconds {
        // Clocks of two machines may differ a little; more than that is shown as nonsense.
        ..-1 => "<invalid>".into(),
        -1..0 => "0s".into(),
        _ if seconds < 2 * MINUTE => format!("{seconds}s"),
        _ if seconds < 10 * MINUTE => two(seconds / MINUTE, "m", seconds % MINUTE, "s"),
        _ if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        _ if seconds < 8 * HOUR => two(seconds / HOUR, "h", seconds / MINUTE % 60, "m"),
        _ if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        _ if seconds < 8 * DAY => two(seconds / DAY, "d", seconds / HOUR % 24, "h"),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => two(seconds / YEAR, "y", seconds / DAY % 365, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

/// Time since `then`, or `<unknown>`.
pub fn since(then: Option<Time>, now: Time) -> String {
    then.map_or_else(|| "<unknown>".into(), |then| human_duration(now.seconds() - then.seconds()))
}

/// Time since the object was created.
pub fn age(metadata: &api::meta::v1::ObjectMeta, now: Time) -> Cell {
    since(metadata.creation_timestamp, now).into()
}

/// The object's name.
pub fn name(metadata: &api::meta::v1::ObjectMeta) -> Cell {
    metadata.name.clone().into()
}

/// The text, or `<none>`.
pub fn or_none(text: &str) -> String {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

/// Labels as a selector: `a=b,c=d`, or `<none>`.
pub fn labels(labels: &BTreeMap<String, String>) -> String {
    if labels.is_empty() {
        return "<none>".into();
    }
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Upstream's text form of a label selector; `<none>` when it selects everything or nothing.
pub fn selector(selector: Option<&api::meta::v1::LabelSelector>) -> String {
    let Some(selector) = selector else { return "<none>".into() };
    let mut terms: Vec<String> =
        selector.match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    for term in &selector.match_expressions {
        let mut values = term.values.clone();
        values.sort();
        terms.push(match term.operator.as_str() {
            "In" => format!("{} in ({})", term.key, values.join(",")),
            "NotIn" => format!("{} notin ({})", term.key, values.join(",")),
            "Exists" => term.key.clone(),
            "DoesNotExist" => format!("!{}", term.key),
            other => return format!("{other:?} is not a valid label selector operator"),
        });
    }
    if terms.is_empty() { "<none>".into() } else { terms.join(",") }
}

/// Names and images of a template's containers, each joined by commas.
pub fn containers(template: &PodTemplateSpec) -> (String, String) {
    let containers = &template.spec.containers;
    let join = |part: fn(&api::core::v1::Container) -> &str| {
        containers.iter().map(part).collect::<Vec<_>>().join(",")
    };
    (join(|container| &container.name), join(|container| &container.image))
}

/// A pointer to a number, or `<unset>`.
pub fn or_unset<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "<unset>".into(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::human_duration;

    #[test]
    fn spans_read_as_upstream_prints_them() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (10 * 60, "10m"),
            (179 * 60, "179m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 61, "3h1m"),
            (8 * 3600, "8h"),
            (47 * 3600, "47h"),
            (48 * 3600, "2d"),
            (49 * 3600, "2d1h"),
            (8 * 86400, "8d"),
            (729 * 86400, "729d"),
            (730 * 86400, "2y"),
            (731 * 86400, "2y1d"),
            (8 * 365 * 86400, "8y"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
