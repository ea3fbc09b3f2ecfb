//! How many seats a level could have used over a span of time, and what of that is expected next.

use crate::Nanos;

/// How slowly the expectation follows demand that falls; upstream's.
const SMOOTHING: f64 = 0.977;

/// Sums a number that changes in steps over time.
#[derive(Clone, Debug)]
pub struct Integrator {
    at: Nanos,
    value: f64,
    duration: f64,
    sum: f64,
    squares: f64,
    max: f64,
}

impl Integrator {
    pub fn new(now: Nanos) -> Self {
        Integrator { at: now, value: 0.0, duration: 0.0, sum: 0.0, squares: 0.0, max: 0.0 }
    }

    fn advance(&mut self, now: Nanos) {
        let span = now.saturating_sub(self.at) as f64;
        self.at = now;
        self.duration += span;
        self.sum += span * self.value;
        self.squares += span * self.value * self.value;
    }

    pub fn set(&mut self, now: Nanos, value: f64) {
        self.advance(now);
        self.value = value;
        self.max = self.max.max(value);
    }

    /// Average, standard deviation and maximum since the last time; begins anew.
    fn take(&mut self, now: Nanos) -> (f64, f64, f64) {
        self.advance(now);
        let out = if self.duration <= 0.0 {
            (self.value, 0.0, self.max)
        } else {
            let average = self.sum / self.duration;
            let variance = (self.squares / self.duration - average * average).max(0.0);
            (average, variance.sqrt(), self.max)
        };
        *self = Integrator { at: now, value: self.value, max: self.value, ..Integrator::new(now) };
        out
    }
}

/// What is known of a level's demand.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    pub average: f64,
    pub deviation: f64,
    pub high_watermark: f64,
    pub smoothed: f64,
}

impl Demand {
    /// Takes in one period. Rising demand counts at once, falling demand slowly.
    pub fn update(&mut self, integrator: &mut Integrator, now: Nanos) {
        let (average, deviation, max) = integrator.take(now);
        let envelope = average + deviation;
        let smoothed = if envelope > self.smoothed {
            envelope
        } else {
            SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope
        };
        *self = Demand { average, deviation, high_watermark: max.round(), smoothed };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demand_rises_at_once_and_falls_slowly() {
        let second = 1_000_000_000;
        let mut integrator = Integrator::new(0);
        integrator.set(0, 10.0);
        integrator.set(5 * second, 0.0);
        let mut demand = Demand::default();
        demand.update(&mut integrator, 10 * second);
        assert_eq!(
            (demand.average, demand.deviation, demand.high_watermark, demand.smoothed),
            (5.0, 5.0, 10.0, 10.0)
        );
        demand.update(&mut integrator, 20 * second);
        assert_eq!((demand.average, demand.high_watermark), (0.0, 0.0));
        assert!((demand.smoothed - 9.77).abs() < 1e-9);
    }
}
