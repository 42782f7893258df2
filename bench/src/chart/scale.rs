//! Where a value is between the two ends of an axis.

/// How values are spread over an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Evenly, from zero on.
    Linear,
    /// Each power of ten as far from the next.
    Log,
    /// Percentiles: each nine of 90, 99, 99.9 as far from the next.
    Nines,
}

/// An axis from `low` to `high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    kind: Kind,
    low: f64,
    high: f64,
}

/// How many ticks there are, about.
const TICKS: f64 = 5.0;
/// The percentiles that are told.
const NINES: [f64; 7] = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999];

impl Scale {
    /// From the least to the greatest of the values.
    pub(super) fn exact(kind: Kind, values: impl Iterator<Item = f64>) -> Scale {
        let (low, high) = ends(kind, values);
        match kind {
            Kind::Linear | Kind::Nines => Scale {
                kind,
                low: 0.0,
                high,
            },
            // One value is in the middle.
            Kind::Log if low == high => Scale {
                kind,
                low: low / 2.0,
                high: high * 2.0,
            },
            Kind::Log => Scale { kind, low, high },
        }
    }

    /// The same, up and down to the next round numbers.
    pub(super) fn rounded(kind: Kind, values: impl Iterator<Item = f64>) -> Scale {
        let Scale { low, high, .. } = Scale::exact(kind, values);
        match kind {
            Kind::Linear => {
                let step = step(high);
                let high = (high / step - 1e-9).ceil() * step;
                Scale { kind, low, high }
            }
            Kind::Log => {
                let low = round_numbers(low).rfind(|round| *round <= low * 1.0001);
                let above = round_numbers(high).find(|round| *round >= high * 0.9999);
                Scale {
                    kind,
                    low: low.unwrap_or(1.0),
                    high: above.unwrap_or(high),
                }
            }
            Kind::Nines => Scale { kind, low, high },
        }
    }

    /// Where the value is: 0 at the low end, 1 at the high end. What is beyond an end is there.
    pub(super) fn place(&self, value: f64) -> f64 {
        let (low, high) = (self.even(self.low), self.even(self.high));
        let share = (self.even(value) - low) / (high - low);
        // What is no number at all, and any value of an axis without a length, is at the low end.
        if share.is_nan() {
            0.0
        } else {
            share.clamp(0.0, 1.0)
        }
    }

    /// The round numbers on the axis, ascending.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let on_axis = |tick: &f64| {
            let place = self.even(*tick);
            self.even(self.low) - 1e-9 <= place && place <= self.even(self.high) + 1e-9
        };
        match self.kind {
            Kind::Linear => {
                let step = step(self.high);
                let count = (self.high / step + 1e-9).floor() as u32;
                (0..=count).map(|tick| f64::from(tick) * step).collect()
            }
            Kind::Log => {
                let powers = |tick: &f64| (tick.log10() - tick.log10().round()).abs() < 1e-9;
                let all: Vec<f64> = decades(self.low, self.high).filter(on_axis).collect();
                let tens: Vec<f64> = all.iter().copied().filter(powers).collect();
                if tens.len() < 3 { all } else { tens }
            }
            Kind::Nines => NINES.into_iter().filter(on_axis).collect(),
        }
    }

    /// A value as a number whose distances are those on the axis.
    fn even(&self, value: f64) -> f64 {
        match self.kind {
            Kind::Linear => value,
            Kind::Log => value.log10(),
            Kind::Nines => -(1.0 - value / 100.0).log10(),
        }
    }
}

/// The least and the greatest value that have a place on such an axis.
fn ends(kind: Kind, values: impl Iterator<Item = f64>) -> (f64, f64) {
    let has_a_place = |value: &f64| match kind {
        Kind::Linear => value.is_finite() && *value > 0.0,
        Kind::Log => value.is_normal() && *value > 0.0,
        Kind::Nines => (0.0..100.0).contains(value),
    };
    let values: Vec<f64> = values.filter(has_a_place).collect();
    let least = values.iter().copied().reduce(f64::min);
    let greatest = values.iter().copied().reduce(f64::max);
    least.zip(greatest).unwrap_or((1.0, 1.0))
}

/// The distance of ticks from zero to `high`: 1, 2 or 5 times a power of ten.
fn step(high: f64) -> f64 {
    let about = high / TICKS;
    let power = 10_f64.powf(about.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|factor| factor * power >= about * 0.999);
    factor.unwrap_or(10.0) * power
}

/// 1, 2 and 5 times the powers of ten around a value.
fn round_numbers(value: f64) -> impl DoubleEndedIterator<Item = f64> {
    decades(value, value)
}

/// 1, 2 and 5 times the powers of ten, from the one below `low` to the one above `high`.
fn decades(low: f64, high: f64) -> impl DoubleEndedIterator<Item = f64> {
    let powers = low.log10().floor() as i32 - 1..=high.log10().ceil() as i32 + 1;
    powers.flat_map(|power| [1.0, 2.0, 5.0].map(|factor| factor * 10_f64.powi(power)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(kind: Kind, values: &[f64]) -> Scale {
        Scale::rounded(kind, values.iter().copied())
    }

    /// The same but for rounding.
    fn same(found: &[f64], wanted: &[f64]) {
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= b.abs() * 1e-9;
        let all = found.len() == wanted.len() && found.iter().zip(wanted).all(near);
        assert!(all, "{found:?} is not {wanted:?}");
    }

    #[test]
    fn a_linear_axis_goes_from_zero_to_a_round_number() {
        let scale = rounded(Kind::Linear, &[3e6, 24e6]);
        same(&scale.ticks(), &[0.0, 5e6, 10e6, 15e6, 20e6, 25e6]);
        same(
            &[0.0, 12.5e6, 25e6, 1e9, -1.0].map(|v| scale.place(v)),
            &[0.0, 0.5, 1.0, 1.0, 0.0],
        );
        // A value on a round number needs no room above.
        same(
            rounded(Kind::Linear, &[0.3])
                .ticks()
                .last_chunk::<1>()
                .expect("a tick"),
            &[0.3],
        );
    }

    #[test]
    fn powers_of_ten_are_evenly_spaced_on_a_log_axis() {
        let scale = rounded(Kind::Log, &[120.0, 90_000.0]);
        same(
            &[100.0, 1e3, 1e4, 1e5].map(|v| scale.place(v)),
            &[0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0],
        );
        same(&scale.ticks(), &[100.0, 1e3, 1e4, 1e5]);
        let narrow = rounded(Kind::Log, &[120.0, 900.0]);
        same(&narrow.ticks(), &[100.0, 200.0, 500.0, 1000.0]);
    }

    #[test]
    fn one_value_is_in_the_middle_of_a_log_axis() {
        let scale = Scale::exact(Kind::Log, [32.0].into_iter());
        same(&[scale.place(32.0)], &[0.5]);
        let scale = rounded(Kind::Log, &[100.0, 100.0]);
        assert!(
            scale.place(100.0) > 0.0 && scale.place(100.0) < 1.0,
            "{scale:?}"
        );
    }

    #[test]
    fn zero_is_at_the_low_end_of_a_log_axis_and_does_not_stretch_it() {
        let scale = rounded(Kind::Log, &[0.0, 100.0, 1000.0]);
        assert_eq!(scale, rounded(Kind::Log, &[100.0, 1000.0]));
        same(
            &[0.0, -5.0, f64::NAN].map(|v| scale.place(v)),
            &[0.0, 0.0, 0.0],
        );
    }

    #[test]
    fn nothing_and_nonsense_still_make_an_axis() {
        for kind in [Kind::Linear, Kind::Log, Kind::Nines] {
            for values in [
                &[][..],
                &[0.0],
                &[f64::NAN, f64::INFINITY],
                &[-3.0],
                &[1e-310],
            ] {
                let scale = rounded(kind, values);
                let ticks = scale.ticks();
                assert!(
                    ticks.len() < 50 && ticks.iter().all(|tick| tick.is_finite()),
                    "{ticks:?}"
                );
                assert!((0.0..=1.0).contains(&scale.place(1.0)), "{scale:?}");
            }
        }
    }

    #[test]
    fn each_nine_is_as_far_from_the_next() {
        let scale = rounded(Kind::Nines, &[50.0, 99.999]);
        let places = [0.0, 90.0, 99.0, 99.9, 99.99, 99.999].map(|v| scale.place(v));
        for (nines, place) in places.into_iter().enumerate() {
            assert!(
                (place - nines as f64 / 5.0).abs() < 1e-9,
                "{nines}: {place}"
            );
        }
        same(&scale.ticks(), &NINES);
        // All of the commands are beyond any number of nines.
        same(&[scale.place(100.0)], &[1.0]);
        for last in [99.9, 99.99] {
            assert_eq!(
                rounded(Kind::Nines, &[1.0, last]).ticks().last(),
                Some(&last)
            );
        }
    }
}
