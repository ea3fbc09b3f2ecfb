//! Ranges of sizes and costs, and arithmetic on them that stops at the largest number.

/// The least and the most that something costs, or that a value's size is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostRange {
    pub min: u64,
    pub max: u64,
}

/// What is not known.
pub(crate) const UNKNOWN: CostRange = CostRange { min: 0, max: u64::MAX };
pub(crate) const ZERO: CostRange = CostRange::fixed(0);
pub(crate) const ONE: CostRange = CostRange::fixed(1);

/// The cost of reading a character, and of a character of a regular expression.
pub(crate) const STRING_FACTOR: f64 = 0.1;
pub(crate) const REGEX_FACTOR: f64 = 0.25;
/// The costs of making a list, a map, an object.
pub(crate) const LIST_COST: u64 = 10;
pub(crate) const MAP_COST: u64 = 30;
pub(crate) const STRUCT_COST: u64 = 40;
/// The longest regular expression that a named format stands for, in characters.
pub(crate) const FORMAT_REGEX_LENGTH: u64 = 128;
/// The longest name of a format.
pub(crate) const FORMAT_NAME_LENGTH: u64 = 64;
/// One check by an authorizer: two fit into the budget of an expression.
pub(crate) const AUTHORIZATION_COST: u64 = 350_000;

impl CostRange {
    pub const fn fixed(value: u64) -> CostRange {
        CostRange { min: value, max: value }
    }

    pub const fn new(min: u64, max: u64) -> CostRange {
        CostRange { min, max }
    }

    pub(crate) fn plus(self, other: CostRange) -> CostRange {
        CostRange { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(crate) fn times(self, other: CostRange) -> CostRange {
        CostRange { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    /// Multiplied, and rounded up.
    pub(crate) fn scaled(self, factor: f64) -> CostRange {
        CostRange { min: scale(self.min, factor), max: scale(self.max, factor) }
    }

    pub(crate) fn union(self, other: CostRange) -> CostRange {
        CostRange { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// A size times a factor, rounded up.
pub(crate) fn scale(size: u64, factor: f64) -> u64 {
    // A float beyond the range of u64 becomes its largest number.
    (size as f64 * factor).ceil() as u64
}
