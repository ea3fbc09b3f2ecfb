//! From the API's `LabelSelector` to requirements that match labels.

use crate::generated::meta::v1::LabelSelector;
use meta::labels::{Operator, Requirement, Selector};

/// An empty selector selects everything. Errors name the faulty requirement in upstream's words.
pub fn selector(from: &LabelSelector) -> Result<Selector, String> {
    let mut requirements = Vec::with_capacity(from.match_labels.len() + from.match_expressions.len());
    for (key, value) in &from.match_labels {
        requirements.push(Requirement::new(key, Operator::In, vec![value.clone()])?);
    }
    for expression in &from.match_expressions {
        let operator = match expression.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            other => return Err(format!("{other:?} is not a valid label selector operator")),
        };
        requirements.push(Requirement::new(&expression.key, operator, expression.values.clone())?);
    }
    for requirement in &mut requirements {
        // `app in (web)` is printed as `app=web`, as scale's status.selector does.
        if requirement.operator == Operator::In && requirement.values.len() == 1 {
            requirement.operator = Operator::Equals;
        }
    }
    Ok(Selector::new(requirements))
}

/// An absent selector selects nothing, unlike an empty one.
pub fn optional_selector(from: Option<&LabelSelector>) -> Result<Selector, String> {
    from.map_or_else(|| Ok(Selector::nothing()), selector)
}
