//! Limit ranges: what containers of a namespace get when they ask for nothing, and how much they may ask for.

use super::resource_names as names;
use crate::columns::{Cell, Column};
use crate::strategy::Strategy;
use api::core::v1::{LimitRange, LimitRangeItem};
use meta::field::{Errors, Path};
use meta::{Quantity, Time, quantity::Format, validation};
use std::collections::{BTreeMap, BTreeSet};

pub struct LimitRanges;

impl Strategy for LimitRanges {
    type Object = LimitRange;
    const PLURAL: &'static str = "limitranges";
    const COLUMNS: &'static [Column] = crate::columns::DEFAULT;
    const CREATE_ON_UPDATE: bool = true;

    fn default(range: &mut LimitRange) {
        for item in range.spec.limits.iter_mut().filter(|item| item.r#type == "Container") {
            let LimitRangeItem { max, min, default, default_request, .. } = item;
            let copy = |from: &BTreeMap<String, Quantity>, to: &mut BTreeMap<String, Quantity>| {
                for (name, amount) in from {
                    to.entry(name.clone()).or_insert(*amount);
                }
            };
            // The limit follows the maximum; the request follows the limit, and failing that the minimum.
            copy(max, default);
            copy(default, default_request);
            copy(min, default_request);
        }
    }

    fn validate(new: &LimitRange, _old: Option<&LimitRange>, errors: &mut Errors) {
        let mut seen = BTreeSet::new();
        for (index, item) in new.spec.limits.iter().enumerate() {
            let path = Path::new("spec").child("limits").index(index);
            let kind = path.child("type");
            let before = errors.len();
            errors.invalid_each(&kind, &item.r#type, validation::qualified_name(&item.r#type));
            let known = matches!(item.r#type.as_str(), "Pod" | "Container" | "PersistentVolumeClaim");
            if errors.len() == before && !item.r#type.contains('/') && !known {
                errors.invalid(&kind, &item.r#type, "must be a standard limit type or fully qualified");
            }
            if !seen.insert(item.r#type.as_str()) {
                errors.duplicate(&kind, &item.r#type);
            }
            validate_names(item, &path, errors);
            validate_amounts(item, &path, errors);
        }
    }

    fn row(range: &LimitRange, _now: Time) -> Vec<Cell> {
        let created = range.metadata.creation_timestamp;
        vec![range.metadata.name.clone().into(), created.map_or(Cell::Null, |time| time.to_string().into())]
    }
}

fn validate_names(item: &LimitRangeItem, path: &Path, errors: &mut Errors) {
    let kind = item.r#type.as_str();
    let check = |list: &BTreeMap<String, Quantity>, field: &str, errors: &mut Errors| {
        for name in list.keys() {
            names::validate_limit(kind, name, &path.child(field).key(name), errors);
        }
    };
    check(&item.max, "max", errors);
    check(&item.min, "min", errors);
    if kind == "Pod" {
        for (list, field) in [(&item.default, "default"), (&item.default_request, "defaultRequest")] {
            if !list.is_empty() {
                errors.forbidden(&path.child(field), "may not be specified when `type` is 'Pod'");
            }
        }
    } else {
        check(&item.default, "default", errors);
        check(&item.default_request, "defaultRequest", errors);
    }
    let stated = item.min.contains_key("storage") || item.max.contains_key("storage");
    if kind == "PersistentVolumeClaim" && !stated {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errors.required(&path.child("limits"), detail);
    }
    check(&item.max_limit_request_ratio, "maxLimitRequestRatio", errors);
}

fn validate_amounts(item: &LimitRangeItem, path: &Path, errors: &mut Errors) {
    let pod = item.r#type == "Pod";
    let none = BTreeMap::new();
    let defaults = if pod { &none } else { &item.default };
    let requests = if pod { &none } else { &item.default_request };
    let lists = [&item.max, &item.min, defaults, requests, &item.max_limit_request_ratio];
    let keys: BTreeSet<&String> = lists.iter().flat_map(|list| list.keys()).collect();
    for key in keys {
        let at = |field: &str| path.child(field).key(key);
        let (min, max) = (item.min.get(key), item.max.get(key));
        let (default, request) = (defaults.get(key), requests.get(key));
        // Each pair in order: what must not exceed what, under which field, showing which value.
        let ordered = [
            (min, max, "min", min, "min value", "max value"),
            (min, request, "defaultRequest", request, "min value", "default request value"),
            (request, max, "defaultRequest", request, "default request value", "max value"),
            (request, default, "defaultRequest", request, "default request value", "default limit value"),
            (min, default, "default", min, "min value", "default value"),
            (default, max, "default", max, "default value", "max value"),
        ];
        for (small, large, field, shown, small_name, large_name) in ordered {
            if let (Some(small), Some(large), Some(shown)) = (small, large, shown)
                && small > large
            {
                let detail = format!("{small_name} {small} is greater than {large_name} {large}");
                errors.invalid(&at(field), *shown, detail);
            }
        }
        validate_ratio(item, key, &at("maxLimitRequestRatio"), errors);
        if let (Some(default), Some(request)) = (default, request)
            && !names::allows_overcommit(key)
            && default != request
        {
            let detail =
                format!("default value {default} must equal to defaultRequest value {request} in {key}");
            errors.invalid(&at("defaultRequest"), *request, detail);
        }
    }
}

fn validate_ratio(item: &LimitRangeItem, key: &str, path: &Path, errors: &mut Errors) {
    let Some(ratio) = item.max_limit_request_ratio.get(key) else { return };
    if *ratio < Quantity::from_units(1, Format::DecimalSi) {
        errors.invalid(path, *ratio, format!("ratio {ratio} is less than 1"));
    }
    if let (Some(min), Some(max)) = (item.min.get(key), item.max.get(key)) {
        let limit = max.milli_value() as f64 / min.milli_value() as f64;
        if ratio.milli_value() as f64 / 1000.0 > limit {
            errors.invalid(path, *ratio, format!("ratio {ratio} is greater than max/min = {limit:.6}"));
        }
    }
}
