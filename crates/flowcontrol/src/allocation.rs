//! How many seats each level has: nominally by its shares, at a time by what it and the others could use.

/// A level's part, as its object states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub shares: u64,
    pub lendable_percent: u64,
    /// `None`: as much as there is.
    pub borrowing_percent: Option<u64>,
}

/// Limits of a level, in seats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    pub nominal: u64,
    pub min: u64,
    pub max: u64,
}

fn percent(of: u64, percent: u64) -> u64 {
    (of as f64 * percent as f64 / 100.0).round() as u64
}

/// The limits of all levels out of the server's seats.
pub fn limits(server_seats: u64, shares: &[Share]) -> Vec<Bounds> {
    let sum: u64 = shares.iter().map(|share| share.shares).sum();
    shares
        .iter()
        .map(|share| {
            let nominal = if sum == 0 { 0 } else { (server_seats * share.shares).div_ceil(sum) };
            let lendable = percent(nominal, share.lendable_percent).min(nominal);
            let borrowed = share.borrowing_percent.map_or(server_seats, |limit| percent(nominal, limit));
            Bounds { nominal, min: nominal - lendable, max: nominal + borrowed }
        })
        .collect()
}

/// One level that seats are given to: bounds, and what it wants (at least the lower bound).
#[derive(Clone, Copy, Debug)]
struct Item {
    low: f64,
    high: f64,
    target: f64,
}

/// The least that a target counts as, so that proportions are defined.
const TARGET_MIN: f64 = 0.001;

/// Gives out seats now: to each level the same proportion of what it wants, within its bounds. `demands` are each
/// level's high watermark and smoothed demand. Returns the seats, and the proportion (0 where the lower bounds decide).
pub fn allocate(bounds: &[Bounds], demands: &[(f64, f64)], available: u64) -> (Vec<u64>, f64) {
    let current_min =
        |bounds: &Bounds, watermark: f64| (bounds.min as f64).max((bounds.nominal as f64).min(watermark));
    let min_sum: u64 = bounds.iter().map(|bounds| bounds.min).sum();
    let current: Vec<f64> =
        bounds.iter().zip(demands).map(|(bounds, (watermark, _))| current_min(bounds, *watermark)).collect();
    let current_sum: f64 = current.iter().sum();
    if available <= min_sum {
        return (bounds.iter().map(|bounds| bounds.min).collect(), 0.0);
    }
    if available as f64 <= current_sum {
        let part = (available - min_sum) as f64 / (current_sum - min_sum as f64);
        let each = bounds
            .iter()
            .zip(&current)
            .map(|(bounds, current)| bounds.min + ((current - bounds.min as f64) * part).round() as u64);
        return (each.collect(), 0.0);
    }
    let items: Vec<Item> = bounds
        .iter()
        .zip(&current)
        .zip(demands)
        .map(|((bounds, low), (_, smoothed))| Item {
            low: *low,
            high: (bounds.max as f64).max(*low),
            target: smoothed.max(*low).max(TARGET_MIN),
        })
        .collect();
    let fair = proportion(&items, available as f64);
    let each = items.iter().map(|item| (fair * item.target).clamp(item.low, item.high).round() as u64);
    (each.collect(), fair)
}

/// The proportion at which the bounded parts add up to `sum`: the sum grows with it in straight pieces between the
/// proportions at which some level leaves its lower bound or reaches its upper one.
fn proportion(items: &[Item], sum: f64) -> f64 {
    let at =
        |fair: f64| -> f64 { items.iter().map(|item| (fair * item.target).clamp(item.low, item.high)).sum() };
    let mut bends: Vec<f64> =
        items.iter().flat_map(|item| [item.low / item.target, item.high / item.target]).collect();
    bends.sort_by(f64::total_cmp);
    let mut from = 0.0;
    for bend in &bends {
        let there = at(*bend);
        if there >= sum {
            let here = at(from);
            let part = if there > here { (sum - here) / (there - here) } else { 0.0 };
            return from + (bend - from) * part.clamp(0.0, 1.0);
        }
        from = *bend;
    }
    from
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    /// Upstream's suggested levels and 600 seats: exempt, catch-all, system, node-high, leader-election, workload-high,
    /// workload-low, global-default.
    fn suggested() -> Vec<Bounds> {
        let of = |shares, lendable_percent| Share { shares, lendable_percent, borrowing_percent: None };
        limits(
            600,
            &[of(0, 0), of(5, 0), of(30, 33), of(40, 25), of(10, 0), of(40, 50), of(100, 90), of(20, 50)],
        )
    }

    #[test]
    fn nominal_limits_follow_shares() {
        let text: Vec<String> =
            suggested().iter().map(|b| format!("{} {} {}", b.nominal, b.min, b.max)).collect();
        // workload-low is 245, 24, 845 in a server of upstream's with the same flags.
        expect!["0 0 600; 13 13 613; 74 50 674; 98 73 698; 25 25 625; 98 49 698; 245 24 845; 49 24 649"]
            .assert_eq(&text.join("; "));
    }

    #[test]
    fn idle_levels_lend_and_busy_ones_borrow() {
        let bounds = suggested();
        let bounds = &bounds[1..];
        let idle = vec![(0.0, 0.0); 7];
        let sum: u64 = bounds.iter().map(|b| b.nominal).sum();
        let (seats, _) = allocate(bounds, &idle, sum);
        assert_eq!(seats.iter().sum::<u64>() / 10, sum / 10);
        let mut busy = idle.clone();
        busy[5] = (2000.0, 2000.0);
        let (seats, _) = allocate(bounds, &busy, sum);
        // workload-low takes what others lend, never what they keep.
        assert!(seats[5] > 245 && seats[5] <= 845, "{seats:?}");
        assert!(seats.iter().zip(bounds).all(|(seats, bounds)| *seats >= bounds.min), "{seats:?}");
        let all = vec![(2000.0, 2000.0); 7];
        let (seats, _) = allocate(bounds, &all, sum);
        let nominal: Vec<u64> = bounds.iter().map(|b| b.nominal).collect();
        assert_eq!(seats, nominal);
        let (seats, fair) = allocate(bounds, &all, 10);
        assert_eq!((seats, fair), (bounds.iter().map(|b| b.min).collect(), 0.0));
    }
}
