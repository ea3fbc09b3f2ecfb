//! Priority levels: how many requests run at once, and how the others wait.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::strategy::Strategy;
use crate::{with_spec, with_status};
use api::flowcontrol::v1::{
    LimitResponse, LimitedPriorityLevelConfiguration, PriorityLevelConfiguration, QueuingConfiguration,
};
use meta::Time;
use meta::field::{Errors, Path};

pub struct PriorityLevelConfigurations;

const SHARES: i32 = 30;
const HAND_SIZE: i32 = 8;
const QUEUES: i32 = 64;
const QUEUE_LENGTH: i32 = 50;
const QUEUES_MAX: i32 = 10_000_000;
const HASH_BITS_MAX: u32 = 60;
const EXEMPT: &str = "exempt";

impl Strategy for PriorityLevelConfigurations {
    type Object = PriorityLevelConfiguration;
    const PLURAL: &'static str = "prioritylevelconfigurations";
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::string("Type"),
        Column::string("NominalConcurrencyShares"),
        Column::string("Queues"),
        Column::string("HandSize"),
        Column::string("QueueLengthLimit"),
        AGE,
    ];
    with_spec!();
    with_status!();

    fn default(level: &mut PriorityLevelConfiguration) {
        if let Some(exempt) = &mut level.spec.exempt {
            exempt.nominal_concurrency_shares.get_or_insert(0);
            exempt.lendable_percent.get_or_insert(0);
        }
        let Some(limited) = &mut level.spec.limited else { return };
        limited.nominal_concurrency_shares.get_or_insert(SHARES);
        limited.lendable_percent.get_or_insert(0);
        if let Some(queuing) = &mut limited.limit_response.queuing {
            for (value, default) in [
                (&mut queuing.hand_size, HAND_SIZE),
                (&mut queuing.queues, QUEUES),
                (&mut queuing.queue_length_limit, QUEUE_LENGTH),
            ] {
                if *value == 0 {
                    *value = default;
                }
            }
        }
    }

    fn validate(
        new: &PriorityLevelConfiguration,
        _old: Option<&PriorityLevelConfiguration>,
        errors: &mut Errors,
    ) {
        let spec = &new.spec;
        let path = Path::new("spec");
        if (new.metadata.name == EXEMPT) != (spec.r#type == "Exempt") {
            let detail = "must be 'Exempt' if and only if `name` is 'exempt'";
            errors.invalid(&path.child("type"), &spec.r#type, detail);
        }
        match spec.r#type.as_str() {
            "Exempt" => {
                if spec.limited.is_some() {
                    errors.forbidden(&path.child("limited"), "must be nil if the type is not Limited");
                }
                if let Some(exempt) = &spec.exempt {
                    let path = path.child("exempt");
                    shares(exempt.nominal_concurrency_shares, &path, errors);
                    lendable(exempt.lendable_percent, &path, errors);
                }
            }
            "Limited" => {
                if spec.exempt.is_some() {
                    errors.forbidden(&path.child("exempt"), "must be nil if the type is Limited");
                }
                let path = path.child("limited");
                match &spec.limited {
                    None => errors.required(&path, "must not be empty when type is Limited"),
                    Some(limited) => validate_limited(limited, &path, errors),
                }
            }
            other => errors.not_supported(&path.child("type"), other, &["Exempt", "Limited"]),
        }
    }

    fn row(level: &PriorityLevelConfiguration, now: Time) -> Vec<Cell> {
        let none = || Cell::from("<none>");
        let limited = level.spec.limited.as_ref();
        let queuing = limited.and_then(|limited| limited.limit_response.queuing.as_ref());
        let shares = limited.map_or_else(none, |it| it.nominal_concurrency_shares.unwrap_or_default().into());
        vec![
            columns::name(&level.metadata),
            level.spec.r#type.clone().into(),
            shares,
            queuing.map_or_else(none, |it| it.queues.into()),
            queuing.map_or_else(none, |it| it.hand_size.into()),
            queuing.map_or_else(none, |it| it.queue_length_limit.into()),
            columns::age(&level.metadata, now),
        ]
    }
}

fn shares(value: Option<i32>, path: &Path, errors: &mut Errors) {
    if let Some(value) = value.filter(|value| *value < 0) {
        errors.invalid(&path.child("nominalConcurrencyShares"), value, "must be a non-negative integer");
    }
}

fn lendable(value: Option<i32>, path: &Path, errors: &mut Errors) {
    if let Some(value) = value.filter(|value| !(0..=100).contains(value)) {
        errors.invalid(&path.child("lendablePercent"), value, "must be between 0 and 100, inclusive");
    }
}

fn validate_limited(limited: &LimitedPriorityLevelConfiguration, path: &Path, errors: &mut Errors) {
    shares(limited.nominal_concurrency_shares, path, errors);
    validate_response(&limited.limit_response, &path.child("limitResponse"), errors);
    lendable(limited.lendable_percent, path, errors);
    if let Some(value) = limited.borrowing_limit_percent.filter(|value| *value < 0) {
        let detail = "if specified, must be a non-negative integer";
        errors.invalid(&path.child("borrowingLimitPercent"), value, detail);
    }
}

fn validate_response(response: &LimitResponse, path: &Path, errors: &mut Errors) {
    let queuing = path.child("queuing");
    match (response.r#type.as_str(), &response.queuing) {
        ("Reject", None) => {}
        ("Reject", Some(_)) => {
            errors.forbidden(&queuing, "must be nil if limited.limitResponse.type is not Limited");
        }
        ("Queue", None) => {
            errors.required(&queuing, "must not be empty if limited.limitResponse.type is Limited");
        }
        ("Queue", Some(value)) => validate_queuing(value, &queuing, errors),
        (other, _) => errors.not_supported(&path.child("type"), other, &["Queue", "Reject"]),
    }
}

fn validate_queuing(queuing: &QueuingConfiguration, path: &Path, errors: &mut Errors) {
    if queuing.queue_length_limit <= 0 {
        errors.invalid(&path.child("queueLengthLimit"), queuing.queue_length_limit, "must be positive");
    }
    let queues = queuing.queues;
    if queues <= 0 {
        errors.invalid(&path.child("queues"), queues, "must be positive");
    } else if queues > QUEUES_MAX {
        errors.invalid(&path.child("queues"), queues, format!("must not be greater than {QUEUES_MAX}"));
    }
    let hand = path.child("handSize");
    if queuing.hand_size <= 0 {
        errors.invalid(&hand, queuing.hand_size, "must be positive");
    } else if queuing.hand_size > queues {
        errors.invalid(&hand, queuing.hand_size, format!("should not be greater than queues ({queues})"));
    } else {
        let bits = entropy_bits(queues, queuing.hand_size);
        if bits > HASH_BITS_MAX {
            let detail = format!(
                "required entropy bits of deckSize {queues} and handSize {} should not be greater than {HASH_BITS_MAX}",
                queuing.hand_size
            );
            errors.invalid(&hand, queuing.hand_size, detail);
        }
    }
}

/// Bits of a hash that dealing a hand from a deck may use up.
fn entropy_bits(deck: i32, hand: i32) -> u32 {
    (f64::from(deck).log2() * f64::from(hand)).ceil() as u32
}
