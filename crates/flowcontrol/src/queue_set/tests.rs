//! Timelines of fair queues on virtual time, and what they must never do.

use super::*;
use expect_test::{Expect, expect};

const MS: Nanos = 1_000_000;

/// Runs flows against a set. A script has a line for each step: `at 5 a x3` has three requests of flow `a` arrive at
/// 5 ms, `a x3 w4` four seats wide; a request runs for 10 ms unless `tN` says otherwise; `cancel ID`.
fn run(mut set: QueueSet, script: &str, until: Nanos, expected: Expect) {
    let mut lines = Vec::new();
    let mut arrivals: Vec<(Nanos, String, Work, Nanos)> = Vec::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |prefix: char, default: u64| {
            words.iter().find_map(|word| word.strip_prefix(prefix)?.parse().ok()).unwrap_or(default)
        };
        let at: Nanos = words[1].parse().unwrap();
        let work =
            Work { initial_seats: number('w', 1), final_seats: number('f', 0), lingers: number('l', 0) * MS };
        for _ in 0..number('x', 1) {
            arrivals.push((at * MS, words[2].to_string(), work, number('t', 10) * MS));
        }
    }
    let mut names: BTreeMap<RequestId, (String, Nanos)> = BTreeMap::new();
    // What happens: arrivals (kind 2) after ends (0) and releases (1) of the same moment.
    let mut events: std::collections::BTreeSet<(Nanos, u8, RequestId)> = std::collections::BTreeSet::new();
    for (id, (at, name, _, takes)) in arrivals.iter().enumerate() {
        names.insert(id as u64, (format!("{name}{id}"), *takes));
        events.insert((*at, 2, id as u64));
    }
    let mut starts: Vec<String> = Vec::new();
    while let Some((now, kind, id)) = events.pop_first() {
        if now > until {
            break;
        }
        let mut dispatched = Vec::new();
        match kind {
            0 => {
                let finished = set.finish(id, now);
                if let Some(lingers) = finished.lingers {
                    events.insert((now + lingers, 1, id));
                }
                dispatched = finished.dispatched;
            }
            1 => dispatched = set.release(id, now),
            _ => {
                let (_, name, work, _) = &arrivals[id as usize];
                match set.arrive(id, *work, crate::flow_hash("s", name), now) {
                    Arrival::Runs => dispatched.push(id),
                    Arrival::Waits => {}
                    Arrival::Refused(why) => starts.push(format!("{}!{}", names[&id].0, why.reason())),
                }
            }
        }
        for id in dispatched {
            starts.push(names[&id].0.clone());
            events.insert((now + names[&id].1, 0, id));
        }
        assert!(set.seats_in_use() <= set.limit() || set.executing() <= 1, "too many seats in use");
        if !starts.is_empty() && events.first().is_none_or(|(next, ..)| *next > now) {
            lines.push(format!("{} ms: {}", now / MS, starts.join(" ")));
            starts.clear();
        }
    }
    expected.assert_eq(&lines.join("\n"));
}

fn queues(limit: u64) -> QueueSet {
    QueueSet::new(Queuing { queues: 64, hand_size: 4, queue_length_limit: 4 }, limit, 0)
}

#[test]
fn without_contention_everything_runs_at_once() {
    run(
        queues(4),
        "at 0 a x2\nat 1 b x2\nat 20 a x4",
        100 * MS,
        expect![[r#"
            0 ms: a0 a1
            1 ms: b2 b3
            20 ms: a4 a5 a6 a7"#]],
    );
}

#[test]
fn a_flow_with_many_requests_does_not_keep_a_small_one_waiting() {
    run(
        queues(1),
        "at 0 a x9\nat 1 b x2",
        200 * MS,
        expect![[r#"
            0 ms: a0
            10 ms: a1
            20 ms: a3
            30 ms: a2
            40 ms: b9
            50 ms: b10
            60 ms: a6
            70 ms: a4
            80 ms: a5
            90 ms: a7
            100 ms: a8"#]],
    );
}

#[test]
fn queues_have_an_end() {
    let set = QueueSet::new(Queuing { queues: 1, hand_size: 1, queue_length_limit: 2 }, 1, 0);
    run(
        set,
        "at 0 a x4\nat 1 b",
        15 * MS,
        expect![[r#"
            0 ms: a0 a3!queue-full
            1 ms: b4!queue-full
            10 ms: a1"#]],
    );
}

#[test]
fn without_queues_what_does_not_fit_is_refused() {
    let set = QueueSet::new(Queuing { queues: 0, hand_size: 0, queue_length_limit: 0 }, 2, 0);
    run(
        set,
        "at 0 a x3\nat 12 a",
        100 * MS,
        expect![[r#"
            0 ms: a0 a1 a2!concurrency-limit
            12 ms: a3"#]],
    );
}

#[test]
fn wide_requests_wait_for_all_their_seats_and_are_not_overtaken_for_ever() {
    run(
        queues(4),
        "at 0 a x3 t10\nat 1 b w4 t10\nat 2 c x2 t10",
        100 * MS,
        expect![[r#"
            0 ms: a0 a1 a2
            2 ms: c4
            10 ms: c5
            20 ms: b3"#]],
    );
}

#[test]
fn a_request_wider_than_its_level_runs_alone() {
    run(
        queues(2),
        "at 0 a w9 t10\nat 1 b t10",
        100 * MS,
        expect![[r#"
            0 ms: a0
            10 ms: b1"#]],
    );
}

#[test]
fn seats_stay_taken_while_watchers_are_told() {
    run(
        queues(2),
        "at 0 a w1 f2 l5 t10\nat 1 b t10",
        100 * MS,
        expect![[r#"
            0 ms: a0
            15 ms: b1"#]],
    );
}

#[test]
fn who_gives_up_is_forgotten() {
    let mut set = queues(1);
    assert_eq!(set.arrive(1, Work::ONE, 1, 0), Arrival::Runs);
    assert_eq!(set.arrive(2, Work::ONE, 1, 0), Arrival::Waits);
    assert_eq!((set.waiting(), set.demand()), (1, 2));
    assert!(set.cancel(2, MS) && !set.cancel(1, MS) && !set.cancel(7, MS));
    assert_eq!((set.waiting(), set.demand()), (0, 1));
    assert_eq!(set.finish(1, 2 * MS), Finished::default());
    assert_eq!((set.executing(), set.seats_in_use()), (0, 0));
}

#[test]
fn more_seats_let_those_who_wait_run_and_fewer_queues_drain() {
    let mut set = queues(1);
    for id in 0..4 {
        set.arrive(id, Work::ONE, id, 0);
    }
    let queuing = Queuing { queues: 2, hand_size: 1, queue_length_limit: 4 };
    assert_eq!(set.configure(queuing, 3, MS).len(), 2);
    for id in 0..4 {
        set.finish(id, 5 * MS);
    }
    for id in 0..4 {
        set.finish(id, 6 * MS);
    }
    assert_eq!((set.executing(), set.waiting(), set.seats_in_use()), (0, 0, 0));
    assert_eq!(set.dump().len(), 2);
}

/// Two flows that always have work get the same, whatever their requests take.
#[test]
fn seats_are_shared_by_time_not_by_number() {
    let mut set = QueueSet::new(Queuing { queues: 64, hand_size: 1, queue_length_limit: 50 }, 1, 0);
    let (mut had, mut next) = ([0u64; 2], 0u64);
    let mut flow_of: BTreeMap<RequestId, usize> = BTreeMap::new();
    let mut running = None;
    let mut now = 0;
    let takes = [20 * MS, 5 * MS];
    while now < 10_000 * MS {
        for flow in 0..2 {
            while flow_of.values().filter(|known| **known == flow).count() < 3 {
                flow_of.insert(next, flow);
                if set.arrive(next, Work::ONE, crate::flow_hash("s", &flow.to_string()), now) == Arrival::Runs
                {
                    running = Some(next);
                }
                next += 1;
            }
        }
        let id: RequestId = running.take().expect("something runs while work waits");
        let flow = flow_of.remove(&id).expect("what runs was sent");
        now += takes[flow];
        had[flow] += takes[flow];
        running = set.finish(id, now).dispatched.first().copied();
    }
    let ratio = had[0] as f64 / had[1] as f64;
    assert!((0.9..1.1).contains(&ratio), "{had:?}");
}
