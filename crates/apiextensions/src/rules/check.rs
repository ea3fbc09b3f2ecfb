//! Rules as a definition is written: whether they compile, and whether they cost too much.

use super::{Compiled, Rules};
use crate::schema::{Additional, ListType, Schema, Type};
use meta::field::{Errors, Path, Shown};

/// What one rule may cost at most, as often as it may have to run on one object.
const RULE_COST_MAX: u64 = 10_000_000;
/// What all rules of a version may cost together.
const TOTAL_COST_MAX: u64 = 100_000_000;
/// Rules that are named where all together cost too much.
const NAMED_MAX: usize = 4;

#[derive(Default)]
struct Total {
    cost: u64,
    most: Vec<(u64, Path)>,
}

impl Total {
    fn add(&mut self, path: Path, cost: u64) {
        self.cost = self.cost.saturating_add(cost);
        if cost >= TOTAL_COST_MAX / 100 {
            self.most.push((cost, path));
            self.most.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
            self.most.truncate(NAMED_MAX);
        }
    }
}

struct Walk<'a> {
    errors: &'a mut Errors,
    total: Total,
    /// The schema is as it was, and was accepted: what a rule costs is no fault any more.
    unchanged: bool,
}

/// All that is wrong with the rules of a schema, which stands at `path` and is valid otherwise.
pub fn check(schema: &Schema, path: &Path, unchanged: bool, errors: &mut Errors) {
    let Some(rules) = Rules::compile(schema) else { return };
    let mut walk = Walk { errors, total: Total::default(), unchanged };
    walk.node(&rules, schema, path, Some(1), None);
    let total = walk.total;
    if total.cost > TOTAL_COST_MAX {
        for (_, path) in &total.most {
            let detail =
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            errors.forbidden(path, detail);
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.forbidden(path, too_expensive(what, total.cost, TOTAL_COST_MAX));
    }
}

fn too_expensive(what: &str, cost: u64, limit: u64) -> String {
    let exceeds = cost as f64 / limit as f64;
    let factor = if exceeds > 100.0 {
        "more than 100x".into()
    } else if exceeds < 1.5 {
        format!("{exceeds:.6}x")
    } else {
        format!("{exceeds:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

/// How many of what is below there may be for each of this node; `None` where nothing bounds it.
fn spread(schema: &Schema) -> Option<u64> {
    let bound = |limit: Option<i64>| limit.map(|limit| u64::try_from(limit).unwrap_or(0));
    match (schema.ty, &schema.additional) {
        (Some(Type::Object), Some(_)) => bound(schema.checks.max_properties),
        (Some(Type::Array), _) => bound(schema.checks.max_items),
        _ => Some(1),
    }
}

impl Walk<'_> {
    /// `times`: how many values of this node one object may have. `lost`: the list from which on old and new values
    /// cannot be told to belong together.
    fn node(&mut self, rules: &Rules, schema: &Schema, path: &Path, times: Option<u64>, lost: Option<&Path>) {
        for (index, compiled) in rules.own.iter().enumerate() {
            let at = path.child("x-kubernetes-validations").index(index);
            self.rule(rules, compiled, &at, times, lost);
        }
        let below = times.and_then(|times| Some(times.saturating_mul(spread(schema)?)));
        if let (Some(inner), Some(Additional::Schema(schema))) = (&rules.additional, &schema.additional) {
            self.node(inner, schema, &path.child("additionalProperties"), below, lost);
        }
        for (name, inner) in &rules.properties {
            if let Some(schema) = schema.properties.get(name) {
                self.node(inner, schema, &path.child("properties").key(name), below, lost);
            }
        }
        if let (Some(inner), Some(items)) = (&rules.items, schema.items.as_deref()) {
            let keyed = matches!(schema.list_type, Some(ListType::Map(_)));
            let lost = lost.or(if keyed { None } else { Some(path) });
            self.node(inner, items, &path.child("items"), below, lost);
        }
    }

    fn rule(
        &mut self,
        rules: &Rules,
        compiled: &Compiled,
        at: &Path,
        times: Option<u64>,
        lost: Option<&Path>,
    ) {
        let often = times.unwrap_or_else(|| rules.decl.max_cardinality());
        let rule = shown_rule(&compiled.rule);
        match &compiled.program {
            None => {}
            Some(Err(why)) => self.errors.invalid(&at.child("rule"), &rule, why),
            Some(Ok(program)) => {
                let cost = program.cost().max.saturating_mul(often);
                self.cost(&at.child("rule"), "estimated rule cost", cost);
            }
        }
        match &compiled.message {
            None => {}
            Some(Err(why)) => self.errors.invalid(&at.child("messageExpression"), &rule, why),
            Some(Ok(program)) => {
                let cost = program.cost().max;
                self.cost(&at.child("messageExpression"), "estimated messageExpression cost", cost);
            }
        }
        if compiled.uses_old_self {
            if let Some(lost) = lost {
                let detail = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within {lost}"
                );
                self.errors.invalid(&at.child("rule"), &compiled.rule.rule, detail);
            }
        } else if let Some(optional) = compiled.rule.optional_old_self {
            let detail = "may not be set if oldSelf is not used in rule";
            self.errors.invalid(&at.child("optionalOldSelf"), optional, detail);
        }
    }

    fn cost(&mut self, at: &Path, what: &str, cost: u64) {
        if !self.unchanged && cost > RULE_COST_MAX {
            self.errors.forbidden(at, too_expensive(what, cost, RULE_COST_MAX));
        }
        self.total.add(at.clone(), cost);
    }
}

/// A rule as errors show it: under upstream's internal names, in their order.
struct ShownRule(String);

impl Shown for ShownRule {
    fn shown(&self) -> String {
        self.0.clone()
    }
}

fn shown_rule(rule: &crate::Rule) -> ShownRule {
    let text = |text: &str| text.shown();
    let optional = rule.optional_old_self.map_or_else(|| "null".into(), |value| value.to_string());
    ShownRule(format!(
        r#"{{"Rule":{},"Message":{},"MessageExpression":{},"Reason":{},"FieldPath":{},"OptionalOldSelf":{optional}}}"#,
        text(&rule.rule),
        text(&rule.message),
        text(&rule.message_expression),
        rule.reason.as_deref().map_or_else(|| "null".into(), text),
        text(&rule.field_path),
    ))
}
