//! From the replicas that metrics ask for to those that are set: bounds, rates, and the memory of what was asked before.
//!
//! The memory travels in the plan's mark, as text: the decision stays a function of what it is given.

use api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerSpec};

/// Without rules of its own, a target at most doubles at once, or gets up to four.
const UP_FACTOR: f64 = 2.0;
const UP_LEAST: f64 = 4.0;

/// Numbers with the second they are from.
pub(super) type Series = Vec<(i64, i32)>;

/// What is remembered of an autoscaler between two looks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Memory {
    /// When metrics were last asked for, in seconds since 1970.
    pub asked: i64,
    /// The selector of the target's pods, as its scale told it.
    pub selector: String,
    pub recommendations: Series,
    pub ups: Series,
    pub downs: Series,
}

impl Memory {
    pub(super) fn read(mark: &str) -> Self {
        let Ok(value) = serde_json::from_str::<serde_json::Value>(mark) else { return Memory::default() };
        let series = |name: &str| -> Series {
            let parts = value[name].as_array().into_iter().flatten();
            parts
                .filter_map(|part| Some((part[0].as_i64()?, i32::try_from(part[1].as_i64()?).ok()?)))
                .collect()
        };
        Memory {
            asked: value["asked"].as_i64().unwrap_or(0),
            selector: value["selector"].as_str().unwrap_or_default().into(),
            recommendations: series("recommendations"),
            ups: series("ups"),
            downs: series("downs"),
        }
    }

    pub(super) fn write(&self) -> String {
        serde_json::json!({
            "asked": self.asked, "selector": self.selector,
            "recommendations": self.recommendations, "ups": self.ups, "downs": self.downs,
        })
        .to_string()
    }
}

/// A condition's reason with its message.
pub(super) type Told = (&'static str, &'static str);

/// What is decided.
#[derive(Debug, PartialEq)]
pub(super) struct Normal {
    pub replicas: i32,
    /// Of `AbleToScale`.
    pub able: Told,
    /// Of `ScalingLimited`, and whether it is.
    pub limited: (bool, Told),
}

const READY: Told = ("ReadyForNewScale", "recommended size matches current size");
const WITHIN: Told = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_MANY: Told =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: Told = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const UP_LIMIT: Told =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: Told =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const UP_STABLE: Told = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const DOWN_STABLE: Told = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);

/// Bounds what is asked for; remembers it. `window_seconds`: for how long a higher recommendation holds, where the
/// autoscaler does not say.
pub(super) fn normalize(
    spec: &HorizontalPodAutoscalerSpec,
    memory: &mut Memory,
    current: i32,
    asked: i32,
    now: i64,
    window_seconds: i64,
) -> Normal {
    let rules = spec
        .behavior
        .as_deref()
        .map(|behavior| (behavior.scale_up.as_deref(), behavior.scale_down.as_deref()));
    let (up, down) = rules.unwrap_or_default();
    let window = |rules: Option<&HPAScalingRules>, default: i64| {
        rules.and_then(|rules| rules.stabilization_window_seconds).map_or(default, i64::from)
    };
    let (up_seconds, down_seconds) = (window(up, 0), window(down, window_seconds));
    let since = |seconds: i64| {
        let times = memory.recommendations.iter().filter(move |(at, _)| *at > now - seconds);
        times.map(|(_, replicas)| *replicas)
    };
    let lowest = since(up_seconds).fold(asked, i32::min);
    let highest = since(down_seconds).fold(asked, i32::max);
    let stable = match spec.behavior {
        // Only a way down is stabilized.
        None => highest,
        Some(_) => current.max(lowest).min(highest),
    };
    memory.recommendations.retain(|(at, _)| *at > now - up_seconds.max(down_seconds));
    memory.recommendations.push((now, asked));
    let able = match stable == asked {
        true => READY,
        false if asked >= current && spec.behavior.is_some() => UP_STABLE,
        false => DOWN_STABLE,
    };
    let (replicas, told) = match spec.behavior {
        None => bound(spec, current, stable),
        Some(_) => rate(spec, memory, current, stable, now, (up, down)),
    };
    Normal { replicas, able, limited: (replicas != stable, told) }
}

fn least(spec: &HorizontalPodAutoscalerSpec) -> i32 {
    spec.min_replicas.unwrap_or(1)
}

fn bound(spec: &HorizontalPodAutoscalerSpec, current: i32, wanted: i32) -> (i32, Told) {
    let fastest = (UP_FACTOR * f64::from(current)).max(UP_LEAST) as i32;
    let (most, told) =
        if spec.max_replicas > fastest { (fastest, UP_LIMIT) } else { (spec.max_replicas, TOO_MANY) };
    if wanted < least(spec) {
        (least(spec), TOO_FEW)
    } else if wanted > most {
        (most, told)
    } else {
        (wanted, WITHIN)
    }
}

type Rules<'a> = (Option<&'a HPAScalingRules>, Option<&'a HPAScalingRules>);

fn rate(
    spec: &HorizontalPodAutoscalerSpec,
    memory: &Memory,
    current: i32,
    wanted: i32,
    now: i64,
    (up, down): Rules<'_>,
) -> (i32, Told) {
    if wanted > current {
        let fastest = up.map_or(i32::MAX, |rules| limit(rules, memory, current, now, Way::Up)).max(current);
        let (most, told) =
            if spec.max_replicas > fastest { (fastest, UP_LIMIT) } else { (spec.max_replicas, TOO_MANY) };
        if wanted > most {
            return (most, told);
        }
    } else if wanted < current {
        let fastest = down.map_or(0, |rules| limit(rules, memory, current, now, Way::Down)).min(current);
        let (fewest, told) =
            if least(spec) < fastest { (fastest, DOWN_LIMIT) } else { (least(spec), TOO_FEW) };
        if wanted < fewest {
            return (fewest, told);
        }
    }
    (wanted, WITHIN)
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Up,
    Down,
}

/// How far the rules let the replicas go now, from where they were at the start of each policy's period.
fn limit(rules: &HPAScalingRules, memory: &Memory, current: i32, now: i64, way: Way) -> i32 {
    let select = rules.select_policy.as_deref().unwrap_or("Max");
    if select == "Disabled" {
        return current;
    }
    let changed = |series: &Series, seconds: i32| -> i32 {
        series.iter().filter(|(at, _)| *at > now - i64::from(seconds)).map(|(_, change)| *change).sum()
    };
    let proposals = rules.policies.iter().map(|policy| {
        let seconds = policy.period_seconds;
        let start = current - changed(&memory.ups, seconds) + changed(&memory.downs, seconds);
        let share = f64::from(policy.value) / 100.0;
        match (way, policy.r#type.as_str()) {
            (Way::Up, "Percent") => (f64::from(start) * (1.0 + share)).ceil() as i32,
            (Way::Up, _) => start.saturating_add(policy.value),
            (Way::Down, "Percent") => (f64::from(start) * (1.0 - share)) as i32,
            (Way::Down, _) => start.saturating_sub(policy.value),
        }
    });
    let furthest = (way == Way::Up) == (select != "Min");
    let found = if furthest { proposals.max() } else { proposals.min() };
    found.unwrap_or(current)
}

/// Remembers a change, for as long as the longest period asks.
pub(super) fn remember_change(
    spec: &HorizontalPodAutoscalerSpec,
    memory: &mut Memory,
    from: i32,
    to: i32,
    now: i64,
) {
    let Some(behavior) = spec.behavior.as_deref() else { return };
    let (rules, series) = if to > from {
        (behavior.scale_up.as_deref(), &mut memory.ups)
    } else {
        (behavior.scale_down.as_deref(), &mut memory.downs)
    };
    let policies = rules.into_iter().flat_map(|rules| &rules.policies);
    let longest = policies.map(|policy| i64::from(policy.period_seconds)).max().unwrap_or(0);
    series.retain(|(at, _)| *at > now - longest);
    series.push((now, (to - from).abs()));
}
