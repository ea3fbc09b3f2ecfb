//! Functions of lists, those on sets among them.

use super::{Implementation, equal, no_overload, numbers, order};
use crate::error::EvalError;
use crate::eval::Evaluated;
use crate::time::Duration;
use crate::value::{List, Value};
use std::cmp::Ordering;

/// The most numbers that `lists.range` gives: more would not fit the cost of anything.
const MAX_RANGE: i64 = 1_000_000;

/// The function of this name, where it is one of lists.
pub(super) fn function(name: &str) -> Option<Implementation> {
    Some(match name {
        "isSorted" => |args, _| with_list(&args, is_sorted),
        "sum" => |args, _| with_list(&args, sum),
        "min" => |args, _| with_list(&args, |list| extreme(list, "min", Ordering::Less)),
        "max" => |args, _| with_list(&args, |list| extreme(list, "max", Ordering::Greater)),
        "distinct" => |args, _| with_list(&args, distinct),
        "reverse" => |args, _| {
            with_list(&args, |list| {
                let mut all = list.to_vec()?;
                all.reverse();
                Ok(Value::list(all))
            })
        },
        "sort" => |args, _| with_list(&args, |list| sort_by(list, list)),
        "@sortByAssociatedKeys" => |args, _| match args.as_slice() {
            [Value::List(list), Value::List(keys)] => sort_by(list, keys),
            _ => no_overload(),
        },
        "flatten" => |args, _| flatten(&args),
        "slice" => |args, _| slice(&args),
        "first" => |args, _| with_list(&args, |list| end(list, list.get(0))),
        "last" => |args, _| {
            with_list(&args, |list| end(list, list.len().checked_sub(1).and_then(|at| list.get(at))))
        },
        "lists.range" => |args, _| range(&args),
        "sets.contains" => |args, _| two(&args, |a, b| within(b, a).map(Value::Bool)),
        "sets.equivalent" => |args, _| two(&args, |a, b| Ok(Value::Bool(within(b, a)? && within(a, b)?))),
        "sets.intersects" => |args, _| two(&args, intersects),
        _ => return None,
    })
}

fn with_list<'a>(args: &[Value<'a>], of: impl FnOnce(&List<'a>) -> Evaluated<'a>) -> Evaluated<'a> {
    match args {
        [Value::List(list)] => of(list),
        _ => no_overload(),
    }
}

fn two<'a>(args: &[Value<'a>], of: impl FnOnce(&List<'a>, &List<'a>) -> Evaluated<'a>) -> Evaluated<'a> {
    match args {
        [Value::List(a), Value::List(b)] => of(a, b),
        _ => no_overload(),
    }
}

pub(super) fn index_of<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::List(list), wanted] = args else { return no_overload() };
    for (at, item) in list.iter().enumerate() {
        if equal(&item?, wanted)? {
            return Ok(Value::Int(at as i64));
        }
    }
    Ok(Value::Int(-1))
}

pub(super) fn last_index_of<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::List(list), wanted] = args else { return no_overload() };
    let mut found = -1;
    for (at, item) in list.iter().enumerate() {
        if equal(&item?, wanted)? {
            found = at as i64;
        }
    }
    Ok(Value::Int(found))
}

fn is_sorted<'a>(list: &List<'a>) -> Evaluated<'a> {
    let all = list.to_vec()?;
    if let Some(first) = all.first() {
        order(first, first)?;
    }
    for pair in all.windows(2) {
        if order(&pair[0], &pair[1])?.is_gt() {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(list: &List<'a>) -> Evaluated<'a> {
    let mut total: Option<Value<'a>> = None;
    for item in list.iter() {
        let item = item?;
        total = Some(match total {
            Some(total) => numbers::add(vec![total, item])?,
            None if matches!(
                item,
                Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Duration(_)
            ) =>
            {
                item
            }
            None => return no_overload(),
        });
    }
    Ok(total.unwrap_or(Value::Int(0)))
}

/// The sum of an empty list, by the overload's type.
pub(crate) fn empty_sum(overload: &str) -> Option<Value<'static>> {
    Some(match overload {
        "list_uint_sum_uint" => Value::Uint(0),
        "list_double_sum_double" => Value::Double(0.0),
        "list_duration_sum_duration" => Value::Duration(Duration { nanos: 0 }),
        _ => return None,
    })
}

fn extreme<'a>(list: &List<'a>, name: &str, wanted: Ordering) -> Evaluated<'a> {
    let mut found: Option<Value<'a>> = None;
    for item in list.iter() {
        let item = item?;
        found = Some(match found {
            Some(found) if order(&item, &found)? == wanted => item,
            Some(found) => found,
            None => item,
        });
    }
    found.ok_or_else(|| EvalError::new(format!("{name} called on empty list")))
}

fn distinct<'a>(list: &List<'a>) -> Evaluated<'a> {
    let mut out: Vec<Value<'a>> = Vec::new();
    let mut keys = std::collections::HashSet::new();
    for item in list.iter() {
        let item = item?;
        if let Some(key) = crate::value::Key::of(&item) {
            if keys.insert(key) {
                out.push(item);
            }
            continue;
        }
        let mut known = false;
        for other in &out {
            known |= equal(other, &item)?;
        }
        if !known {
            out.push(item);
        }
    }
    Ok(Value::list(out))
}

fn sort_by<'a>(list: &List<'a>, keys: &List<'a>) -> Evaluated<'a> {
    if list.len() != keys.len() {
        return Err(EvalError::new(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} elements respectively",
            list.len(),
            keys.len()
        )));
    }
    let mut all: Vec<(Value<'a>, Value<'a>)> = keys.to_vec()?.into_iter().zip(list.to_vec()?).collect();
    if let Some((first, _)) = all.first() {
        let of = first.type_of();
        if order(first, first).is_err() {
            return Err(EvalError::new("list elements must be comparable"));
        }
        if all.iter().any(|(key, _)| key.type_of() != of) {
            return Err(EvalError::new("list elements must have the same type"));
        }
    }
    all.sort_by(|(a, _), (b, _)| order(a, b).unwrap_or(Ordering::Equal));
    Ok(Value::list(all.into_iter().map(|(_, item)| item).collect()))
}

fn flatten<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let (list, depth) = match args {
        [Value::List(list)] => (list, 1),
        [Value::List(list), Value::Int(depth)] => (list, *depth),
        _ => return no_overload(),
    };
    if depth < 0 {
        return Err(EvalError::new("level must be non-negative"));
    }
    let mut out = Vec::new();
    flatten_into(&mut out, list, depth)?;
    Ok(Value::list(out))
}

fn flatten_into<'a>(out: &mut Vec<Value<'a>>, list: &List<'a>, depth: i64) -> Result<(), EvalError> {
    for item in list.iter() {
        match item? {
            Value::List(inner) if depth > 0 => flatten_into(out, &inner, depth - 1)?,
            other => out.push(other),
        }
    }
    Ok(())
}

fn slice<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::List(list), Value::Int(from), Value::Int(to)] = args else { return no_overload() };
    let refuse = |why: String| Err(EvalError::new(format!("cannot slice({from}, {to}), {why}")));
    let (Ok(start), Ok(end)) = (usize::try_from(*from), usize::try_from(*to)) else {
        return refuse("negative indexes not supported".into());
    };
    if start > end {
        return refuse("start index must be less than or equal to end index".into());
    }
    if end > list.len() {
        return refuse(format!("list is length {}", list.len()));
    }
    let all: Result<Vec<_>, _> = list.iter().skip(start).take(end - start).collect();
    Ok(Value::list(all?))
}

fn end<'a>(_: &List<'a>, item: Option<Evaluated<'a>>) -> Evaluated<'a> {
    match item {
        Some(item) => Ok(Value::some(item?)),
        None => Ok(Value::Optional(None)),
    }
}

fn range<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Int(count)] if *count > MAX_RANGE => {
            Err(EvalError::new(format!("lists.range: {count} exceeds the limit of {MAX_RANGE}")))
        }
        [Value::Int(count)] => Ok(Value::list((0..*count).map(Value::Int).collect())),
        _ => no_overload(),
    }
}

/// Whether all elements of the first list are in the second.
fn within(a: &List<'_>, b: &List<'_>) -> Result<bool, EvalError> {
    let known = b.to_vec()?;
    for item in a.iter() {
        let item = item?;
        let mut found = false;
        for other in &known {
            found |= equal(&item, other)?;
        }
        if !found {
            return Ok(false);
        }
    }
    Ok(true)
}

fn intersects<'a>(a: &List<'a>, b: &List<'a>) -> Evaluated<'a> {
    let known = b.to_vec()?;
    for item in a.iter() {
        let item = item?;
        for other in &known {
            if equal(&item, other)? {
                return Ok(Value::Bool(true));
            }
        }
    }
    Ok(Value::Bool(false))
}
