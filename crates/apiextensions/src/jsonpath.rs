//! JSONPath as printer columns and selectable fields use it: `.a.b`, `['a']`, `[0]`, `[1:3]`, `[*]`, `..a`,
//! `[?(@.type=="Ready")]`.

use serde_json::Value;

/// Values that one path may find; more are passed over.
const RESULTS_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// From, to, by.
    Slice(Option<i64>, Option<i64>, i64),
    Index(i64),
    All,
    /// This field, wherever it stands below.
    Below(String),
    /// Several of the above.
    Union(Vec<Step>),
    Filter(Operand, Comparison, Operand),
    /// Elements in which something is found.
    Exists(JsonPath),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(JsonPath),
    Literal(Value),
}

/// A compiled path.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JsonPath(Vec<Step>);

impl JsonPath {
    /// Compiles a path that starts with a dot, or with nothing but a field.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let text = text.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(text);
        let text = text.strip_prefix(['$', '@']).unwrap_or(text);
        let mut parser = Parser { rest: text, whole: text };
        let steps = parser.steps()?;
        Ok(JsonPath(steps))
    }

    /// The first field, where the path begins with one.
    pub fn first_field(&self) -> Option<&str> {
        match self.0.first() {
            Some(Step::Field(name)) => Some(name),
            _ => None,
        }
    }

    /// The path below its first step.
    pub fn below_first(&self) -> JsonPath {
        JsonPath(self.0.get(1..).unwrap_or_default().to_vec())
    }

    /// All values that the path leads to; keys that are missing lead nowhere.
    pub fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![root];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in found {
                step.walk(value, &mut next);
            }
            next.truncate(RESULTS_MAX);
            found = next;
        }
        found
    }

    /// The first of them.
    pub fn first<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        self.find(root).into_iter().next()
    }
}

impl Step {
    fn walk<'a>(&self, value: &'a Value, out: &mut Vec<&'a Value>) {
        match self {
            Step::Field(name) => out.extend(value.get(name)),
            Step::Index(index) => {
                if let Some(items) = value.as_array() {
                    out.extend(place(*index, items.len()).and_then(|at| items.get(at)));
                }
            }
            Step::Slice(from, to, by) => {
                let Some(items) = value.as_array() else { return };
                let size = i64::try_from(items.len()).unwrap_or(i64::MAX);
                let bound = |at: i64| if at < 0 { at + size } else { at }.clamp(0, size);
                let (mut at, end) = (bound(from.unwrap_or(0)), bound(to.unwrap_or(size)));
                while at < end {
                    out.extend(usize::try_from(at).ok().and_then(|at| items.get(at)));
                    at += by.max(&1);
                }
            }
            Step::All => match value {
                Value::Array(items) => out.extend(items),
                Value::Object(fields) => out.extend(fields.values()),
                _ => {}
            },
            Step::Below(name) => below(value, name, out),
            Step::Union(steps) => steps.iter().for_each(|step| step.walk(value, out)),
            Step::Filter(left, comparison, right) => {
                let items = value.as_array().into_iter().flatten();
                out.extend(items.filter(|item| comparison.holds(left.of(item), right.of(item))));
            }
            Step::Exists(path) => {
                out.extend(value.as_array().into_iter().flatten().filter(|item| !path.find(item).is_empty()));
            }
        }
    }
}

fn place(index: i64, size: usize) -> Option<usize> {
    let size = i64::try_from(size).ok()?;
    usize::try_from(if index < 0 { index + size } else { index }).ok()
}

fn below<'a>(value: &'a Value, name: &str, out: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            out.extend(fields.get(name));
            fields.values().for_each(|value| below(value, name, out));
        }
        Value::Array(items) => items.iter().for_each(|value| below(value, name, out)),
        _ => {}
    }
}

impl Operand {
    fn of<'a>(&'a self, item: &'a Value) -> Option<&'a Value> {
        match self {
            Operand::Path(path) => path.first(item),
            Operand::Literal(value) => Some(value),
        }
    }
}

impl Comparison {
    fn holds(self, left: Option<&Value>, right: Option<&Value>) -> bool {
        let (Some(left), Some(right)) = (left, right) else { return false };
        let order = match (left, right) {
            (Value::String(left), Value::String(right)) => left.cmp(right),
            (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
            _ => match (left.as_f64(), right.as_f64()) {
                (Some(left), Some(right)) => left.total_cmp(&right),
                _ => return self == Comparison::Unequal && left != right,
            },
        };
        match self {
            Comparison::Equal => order.is_eq(),
            Comparison::Unequal => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    whole: &'a str,
}

impl<'a> Parser<'a> {
    fn wrong<T>(&self) -> Result<T, String> {
        Err(format!("unrecognized character in path: {:?}", self.whole))
    }

    fn steps(&mut self) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        while !self.rest.is_empty() {
            if let Some(rest) = self.rest.strip_prefix("..") {
                self.rest = rest;
                let name = self.name();
                if name.is_empty() {
                    return self.wrong();
                }
                steps.push(if name == "*" { Step::All } else { Step::Below(name) });
            } else if let Some(rest) = self.rest.strip_prefix('.') {
                self.rest = rest;
                if self.rest.starts_with('[') || self.rest.is_empty() {
                    continue;
                }
                steps.push(self.field()?);
            } else if self.rest.starts_with('[') {
                steps.push(self.bracket()?);
            } else if steps.is_empty() {
                steps.push(self.field()?);
            } else {
                return self.wrong();
            }
        }
        Ok(steps)
    }

    fn field(&mut self) -> Result<Step, String> {
        let name = self.name();
        match name.as_str() {
            "" => self.wrong(),
            "*" => Ok(Step::All),
            _ => Ok(Step::Field(name)),
        }
    }

    /// A name up to the next dot or bracket; a backslash takes the sting out of one.
    fn name(&mut self) -> String {
        let mut name = String::new();
        let mut characters = self.rest.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => name.extend(characters.next().map(|(_, escaped)| escaped)),
                '.' | '[' => {
                    self.rest = &self.rest[at..];
                    return name;
                }
                _ => name.push(character),
            }
        }
        self.rest = "";
        name
    }

    /// What stands in brackets, quotes and inner brackets respected.
    fn bracketed(&mut self) -> Result<&'a str, String> {
        let (mut depth, mut quote) = (0, None);
        for (at, character) in self.rest.char_indices() {
            match (quote, character) {
                (Some(open), _) if open == character => quote = None,
                (Some(_), _) => {}
                (None, '\'' | '"') => quote = Some(character),
                (None, '[' | '(') => depth += 1,
                (None, ']' | ')') => {
                    depth -= 1;
                    if depth == 0 {
                        let inside = &self.rest[1..at];
                        self.rest = &self.rest[at + 1..];
                        return Ok(inside);
                    }
                }
                _ => {}
            }
        }
        Err(format!("unterminated array in path: {:?}", self.whole))
    }

    fn bracket(&mut self) -> Result<Step, String> {
        let inside = self.bracketed()?.trim();
        if let Some(filter) = inside.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
            return filter_step(filter);
        }
        let parts = outside_quotes(inside, ",");
        let mut steps = Vec::with_capacity(parts.len());
        for part in parts {
            steps.push(self.element(part.trim())?);
        }
        if let [_] = steps.as_slice() { Ok(steps.remove(0)) } else { Ok(Step::Union(steps)) }
    }

    fn element(&self, text: &str) -> Result<Step, String> {
        if text == "*" {
            return Ok(Step::All);
        }
        for quote in ['\'', '"'] {
            if let Some(inner) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
                return Ok(Step::Field(inner.replace("\\", "")));
            }
        }
        if let Ok(index) = text.parse() {
            return Ok(Step::Index(index));
        }
        let parts: Vec<&str> = text.split(':').collect();
        if !(2..=3).contains(&parts.len()) {
            return Err(format!("invalid array index {text}"));
        }
        let number = |part: &str| match part {
            "" => Ok(None),
            part => part.parse().map(Some).map_err(|_| format!("invalid array index {text}")),
        };
        let by = parts.get(2).map_or(Ok(None), |part| number(part))?;
        Ok(Step::Slice(number(parts[0])?, number(parts[1])?, by.unwrap_or(1)))
    }
}

/// Splits where a separator stands outside of quotes.
fn outside_quotes<'t>(text: &'t str, separator: &str) -> Vec<&'t str> {
    let (mut quote, mut start, mut parts) = (None, 0, Vec::new());
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, _) if at >= start && text[at..].starts_with(separator) => {
                parts.push(&text[start..at]);
                start = at + separator.len();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn filter_step(text: &str) -> Result<Step, String> {
    let operators = [
        ("==", Comparison::Equal),
        ("!=", Comparison::Unequal),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    for (operator, comparison) in operators {
        if let [left, right] = outside_quotes(text, operator).as_slice() {
            return Ok(Step::Filter(operand(left)?, comparison, operand(right)?));
        }
    }
    Ok(Step::Exists(JsonPath::parse(text)?))
}

fn operand(text: &str) -> Result<Operand, String> {
    let text = text.trim();
    for quote in ['\'', '"'] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return Ok(Operand::Literal(inner.into()));
        }
    }
    if text.starts_with(['@', '.', '$']) {
        return JsonPath::parse(text).map(Operand::Path);
    }
    serde_json::from_str(text).map(Operand::Literal).map_err(|_| format!("unrecognized identifier {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_what_they_name() {
        let object = json!({
            "spec": {"replicas": 3, "a.b": "dotted", "list": [1, 2, 3], "hosts": [{"n": "x"}, {"n": "y"}]},
            "status": {"conditions": [
                {"type": "Synced", "status": "False"}, {"type": "Ready", "status": "True", "weight": 2}
            ]},
        });
        for (path, wanted) in [
            (".spec.replicas", json!([3])),
            (".spec.nothing.here", json!([])),
            (".spec.a\\.b", json!(["dotted"])),
            (".spec['a.b']", json!(["dotted"])),
            (".spec.list[0]", json!([1])),
            (".spec.list[-1]", json!([3])),
            (".spec.list[0:2]", json!([1, 2])),
            (".spec.list[0,2]", json!([1, 3])),
            (".spec.list[*]", json!([1, 2, 3])),
            (".spec.hosts[*].n", json!(["x", "y"])),
            ("..n", json!(["x", "y"])),
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
            (".status.conditions[?(@.type=='Ready')].status", json!(["True"])),
            (".status.conditions[?(@.weight>1)].type", json!(["Ready"])),
            (".status.conditions[?(@.weight)].type", json!(["Ready"])),
            (".status.conditions[?(@.type!=\"Ready\")].type", json!(["Synced"])),
        ] {
            let found = JsonPath::parse(path).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!(json!(found.find(&object)), wanted, "{path}");
        }
        assert!(JsonPath::parse(".a[").is_err());
    }
}
