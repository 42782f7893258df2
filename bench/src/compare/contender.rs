//! A target, or the machine, and which of its windows count.

use serde::Serialize;

use super::distance::{Distance, UsualDistance};
use crate::core_time::Lost;
use crate::limits;
use crate::workload::Outcome;

/// Which share of a window a job, or a busy thread of the target, may wait for its core: threads of
/// the kernel run for a moment on any core.
const OFF_CORE_MAX: f64 = 0.02;

/// A target, or the machine, and what came of its windows.
#[derive(Debug)]
pub(super) struct Contender {
    pub(super) name: String,
    pub(super) windows: Vec<Window>,
    pub(super) thrown_away: ThrownAway,
}

/// A window that counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) iops: f64,
    pub(super) p50_ns: Option<f64>,
    pub(super) p99_ns: Option<f64>,
    /// Of a cache line, around the window.
    pub(super) round_trip_ns: Option<f64>,
}

/// Windows that do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct ThrownAway {
    /// A job or a busy thread of the target waited for its core.
    pub(super) waited: u32,
    /// A hypervisor took a core.
    pub(super) stolen: u32,
    /// The cores were nearer or farther than in most windows, or that changed.
    pub(super) moved: u32,
}

impl ThrownAway {
    pub(super) fn all(self) -> u32 {
        self.waited + self.stolen + self.moved
    }

    /// Takes in a window if it is to be thrown away.
    fn takes(&mut self, lost: Lost, distance: Distance) -> bool {
        let count = match (lost, distance) {
            (Lost { waited, .. }, _) if waited > OFF_CORE_MAX => &mut self.waited,
            (Lost { stolen: true, .. }, _) => &mut self.stolen,
            (_, Distance::Changed) => &mut self.moved,
            _ => return false,
        };
        *count += 1;
        true
    }
}

impl Contender {
    pub(super) fn new(name: String) -> Contender {
        Contender {
            name,
            windows: Vec::new(),
            thrown_away: ThrownAway::default(),
        }
    }

    pub(super) fn iops(&self) -> Vec<f64> {
        self.windows.iter().map(|window| window.iops).collect()
    }

    pub(super) fn add(&mut self, outcome: &Outcome, distance: Distance) {
        let all = outcome.tally.all();
        let off_core = outcome.off_core.as_secs_f64() / outcome.elapsed.as_secs_f64();
        let waited = match off_core.is_nan() {
            true => 1.0,
            false => off_core.max(outcome.lost.waited),
        };
        let lost = Lost {
            waited,
            ..outcome.lost
        };
        let quantile = |share| Some(all.value_at_quantile(share) as f64);
        let iops = all.len() as f64 / outcome.elapsed.as_secs_f64();
        self.add_window(lost, distance, iops, [quantile(0.5), quantile(0.99)]);
    }

    /// Bare commands have no latencies.
    pub(super) fn add_bare(&mut self, window: limits::Window, distance: Distance) {
        self.add_window(window.lost, distance, window.rate, [None; 2]);
    }

    fn add_window(
        &mut self,
        lost: Lost,
        distance: Distance,
        iops: f64,
        [p50_ns, p99_ns]: [Option<f64>; 2],
    ) {
        if self.thrown_away.takes(lost, distance) {
            return;
        }
        let round_trip_ns = match distance {
            Distance::Steady(round_trip) => Some(round_trip),
            Distance::Unknown | Distance::Changed => None,
        };
        self.windows.push(Window {
            iops,
            p50_ns,
            p99_ns,
            round_trip_ns,
        });
    }
}

/// Throws the windows away in which the cores were not as far apart as in most of all.
pub(super) fn keep_those_of_one_distance(contenders: &mut [Contender]) {
    let windows = contenders.iter().flat_map(|contender| &contender.windows);
    let round_trips: Vec<f64> = windows.filter_map(|window| window.round_trip_ns).collect();
    let usual = UsualDistance::of(&round_trips);
    for contender in contenders {
        let moved = usual.keep(&mut contender.windows, |window| window.round_trip_ns);
        contender.thrown_away.moved += moved as u32;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::workload::{self, Action};

    fn kept(waited: f64, stolen: bool, distance: Distance) -> Contender {
        let mut machine = Contender::new(String::new());
        let lost = Lost { waited, stolen };
        machine.add_bare(limits::Window { rate: 5.0, lost }, distance);
        machine
    }

    #[test]
    fn a_window_without_its_core_does_not_count() {
        let (_, mut outcome) = workload::example();
        outcome.elapsed = Duration::from_secs(2);
        for _ in 0..1000 {
            outcome.tally.record(Action::Read, 100);
            outcome.tally.record(Action::Write, 300);
        }
        outcome.tally.settle();
        let mut target = Contender::new(String::new());
        for off_core in [0, 2, 1] {
            outcome.off_core = outcome.elapsed * off_core / 80;
            target.add(&outcome, Distance::Steady(9.0));
        }
        assert_eq!((target.windows.len(), target.thrown_away.waited), (2, 1));
        for (waited, stolen) in [(0.03, false), (0.0, true), (0.01, false)] {
            outcome.lost = Lost { waited, stolen };
            target.add(&outcome, Distance::Unknown);
        }
        outcome.elapsed = Duration::ZERO;
        outcome.off_core = Duration::ZERO;
        target.add(&outcome, Distance::Unknown);
        let expected = ThrownAway {
            waited: 3,
            stolen: 1,
            moved: 0,
        };
        assert_eq!((target.windows.len(), target.thrown_away), (3, expected));
        assert_eq!(target.windows[0].iops, 1000.0);
        let Window { p50_ns, p99_ns, .. } = target.windows[0];
        assert_eq!((p50_ns, p99_ns), (Some(100.0), Some(300.0)));
        let round_trips = target.windows.iter().map(|window| window.round_trip_ns);
        assert_eq!(
            round_trips.collect::<Vec<_>>(),
            [Some(9.0), Some(9.0), None]
        );
    }

    #[test]
    fn a_window_of_the_machine_counts_if_its_cores_were_there_and_stayed() {
        let steady = Distance::Steady(9.0);
        assert_eq!(kept(0.01, false, steady).iops(), [5.0]);
        assert_eq!(kept(0.01, false, Distance::Unknown).iops(), [5.0]);
        let thrown_away = |window: Contender| {
            assert!(window.windows.is_empty());
            let ThrownAway {
                waited,
                stolen,
                moved,
            } = window.thrown_away;
            [waited, stolen, moved]
        };
        assert_eq!(thrown_away(kept(0.03, true, steady)), [1, 0, 0]);
        assert_eq!(thrown_away(kept(0.01, true, steady)), [0, 1, 0]);
        assert_eq!(thrown_away(kept(0.01, false, Distance::Changed)), [0, 0, 1]);
    }

    #[test]
    fn only_windows_at_the_usual_distance_are_kept() {
        let of = |round_trips: &[f64]| {
            let mut contender = Contender::new(String::new());
            for &ns in round_trips {
                let window = limits::Window {
                    rate: ns,
                    lost: Lost::default(),
                };
                contender.add_bare(window, Distance::Steady(ns));
            }
            contender
        };
        let mut all = [of(&[80.0, 330.0, 75.0]), of(&[320.0, 84.0]), of(&[90.0])];
        keep_those_of_one_distance(&mut all);
        let left = all.each_ref().map(Contender::iops);
        assert_eq!(left, [vec![80.0, 75.0], vec![84.0], vec![90.0]]);
        assert_eq!(all.map(|contender| contender.thrown_away.moved), [1, 1, 0]);
        let mut unknown = [kept(0.0, false, Distance::Unknown)];
        keep_those_of_one_distance(&mut unknown);
        assert_eq!(unknown[0].windows.len(), 1);
    }
}
