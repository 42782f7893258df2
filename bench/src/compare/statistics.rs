//! What several measurements of one thing say together.

use crate::workload::Rng;

/// How often the bootstrap draws.
const DRAWS: usize = 2000;
/// Its seed: the same measurements give the same interval.
const SEED: u64 = 1;

/// The middle of a list, or between the two middle ones.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which a share of the list lies, between its neighbours where it falls between.
pub(super) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let at = share * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// Between which bounds the ratio of the medians of `ours` and `theirs` lies with 95 %: both are
/// drawn anew with replacement, many times, and the middle 95 % of the ratios are kept (percentile
/// bootstrap).
pub(super) fn ratio_interval(ours: &[f64], theirs: &[f64]) -> (f64, f64) {
    let mut rng = Rng::new(SEED);
    let mut draw = |values: &[f64]| {
        let drawn: Vec<f64> = values
            .iter()
            .map(|_| values[rng.below(values.len() as u64) as usize])
            .collect();
        median(&drawn)
    };
    let ratios: Vec<f64> = (0..DRAWS).map(|_| draw(ours) / draw(theirs)).collect();
    (quantile(&ratios, 0.025), quantile(&ratios, 0.975))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(median(&values), 2.5);
        assert_eq!(quantile(&values, 0.0), 1.0);
        assert_eq!(quantile(&values, 0.25), 1.75);
        assert_eq!(quantile(&values, 1.0), 4.0);
        assert_eq!(median(&[7.0]), 7.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn an_interval_holds_the_ratio_and_narrows_with_the_spread() {
        let (low, high) = ratio_interval(&[20.0; 9], &[10.0; 9]);
        assert_eq!((low, high), (2.0, 2.0));
        let wide: Vec<f64> = (0..15).map(|n| 15.0 + f64::from(n)).collect();
        let narrow: Vec<f64> = (0..15).map(|n| 21.3 + f64::from(n) / 10.0).collect();
        let width = |ours: &[f64]| {
            let (low, high) = ratio_interval(ours, &[11.0; 5]);
            assert!(low <= 2.0 && 2.0 <= high, "{low} {high}");
            high - low
        };
        assert!(width(&wide) > 5.0 * width(&narrow));
    }
}
