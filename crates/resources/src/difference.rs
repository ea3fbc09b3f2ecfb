//! Two values side by side, for errors about what may not change: a unified diff of their JSON.

use meta::Message;

/// Lines of unchanged text shown around a change.
const CONTEXT: usize = 3;
/// Longer documents are not compared line by line: the error says only that they differ.
const LINES_MAX: usize = 2_000;

/// `rule`, and below it what differs.
pub(crate) fn describe(rule: &str, before: &dyn Message, after: &dyn Message) -> String {
    format!("{rule}\n{}", unified(&pretty(before), &pretty(after)))
}

/// The JSON form over lines, one space of indentation a level; fields stand in the API's order.
fn pretty(message: &dyn Message) -> Vec<String> {
    let mut text = Vec::new();
    meta::json::encode(message, &mut text);
    let text = String::from_utf8_lossy(&text);
    let (mut lines, mut line, mut depth) = (Vec::new(), String::new(), 0usize);
    let (mut quoted, mut escaped) = (false, false);
    for character in text.chars() {
        if quoted {
            line.push(character);
            quoted = escaped || character != '"';
            escaped = !escaped && character == '\\';
            continue;
        }
        match character {
            '{' | '[' => {
                depth += 1;
                line.push(character);
                lines.push(std::mem::replace(&mut line, " ".repeat(depth)));
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                // Nothing inside: the line before opened it, and closes it too.
                if line.trim().is_empty() {
                    line = lines.pop().unwrap_or_default();
                } else {
                    lines.push(std::mem::replace(&mut line, " ".repeat(depth)));
                }
                line.push(character);
            }
            ',' => {
                line.push(character);
                lines.push(std::mem::replace(&mut line, " ".repeat(depth)));
            }
            ':' => line.push_str(": "),
            _ => {
                quoted = character == '"';
                line.push(character);
            }
        }
    }
    lines.push(line);
    lines
}

#[derive(Clone, Copy, PartialEq)]
enum Line {
    Same(usize, usize),
    Gone(usize),
    New(usize),
}

/// The longest common subsequence decides which lines stay.
fn compare(before: &[String], after: &[String]) -> Vec<Line> {
    let width = after.len() + 1;
    let mut common = vec![0u32; (before.len() + 1) * width];
    for i in (0..before.len()).rev() {
        for j in (0..after.len()).rev() {
            common[i * width + j] = if before[i] == after[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < before.len() || j < after.len() {
        if i < before.len() && j < after.len() && before[i] == after[j] {
            lines.push(Line::Same(i, j));
            (i, j) = (i + 1, j + 1);
        } else if j >= after.len()
            || (i < before.len() && common[(i + 1) * width + j] >= common[i * width + j + 1])
        {
            lines.push(Line::Gone(i));
            i += 1;
        } else {
            lines.push(Line::New(j));
            j += 1;
        }
    }
    lines
}

fn unified(before: &[String], after: &[String]) -> String {
    if before.len() > LINES_MAX || after.len() > LINES_MAX {
        return String::new();
    }
    let lines = compare(before, after);
    let changed: Vec<usize> = (0..lines.len()).filter(|at| !matches!(lines[*at], Line::Same(..))).collect();
    let mut out = String::new();
    let mut next = 0;
    while next < changed.len() {
        let start = changed[next].saturating_sub(CONTEXT);
        let mut end = changed[next];
        // Changes with little between them share a hunk.
        while next < changed.len() && changed[next] <= end + 2 * CONTEXT {
            end = changed[next];
            next += 1;
        }
        hunk(&lines[start..(end + CONTEXT + 1).min(lines.len())], before, after, &mut out);
    }
    out
}

fn hunk(lines: &[Line], before: &[String], after: &[String], out: &mut String) {
    let old = lines.iter().filter_map(|line| match line {
        Line::Same(at, _) | Line::Gone(at) => Some(*at),
        Line::New(_) => None,
    });
    let new = lines.iter().filter_map(|line| match line {
        Line::Same(_, at) | Line::New(at) => Some(*at),
        Line::Gone(_) => None,
    });
    let range = |mut places: Vec<usize>| {
        let count = places.len();
        let first = places.drain(..).next().map_or(0, |at| at + 1);
        if count == 1 { first.to_string() } else { format!("{first},{count}") }
    };
    out.push_str(&format!("@@ -{} +{} @@\n", range(old.collect()), range(new.collect())));
    for line in lines {
        let (mark, text) = match line {
            Line::Same(at, _) => (' ', &before[*at]),
            Line::Gone(at) => ('-', &before[*at]),
            Line::New(at) => ('+', &after[*at]),
        };
        out.push(mark);
        out.push_str(text);
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_changed_field_is_shown_in_its_place() {
        let mut before = api::core::v1::Toleration { key: "a\"{".into(), ..Default::default() };
        before.operator = "Exists".into();
        let after = api::core::v1::Toleration { value: "x".into(), ..before.clone() };
        expect![[r#"
            may not change
            @@ -1,4 +1,5 @@
             {
              "key": "a\"{",
            - "operator": "Exists"
            + "operator": "Exists",
            + "value": "x"
             }
        "#]]
        .assert_eq(&describe("may not change", &before, &after));
    }
}
