//! Repeated measurements of one thing. Pure.

use serde::Serialize;

/// The middle of some measurements, their ends, and how many they are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Summary {
    /// The middle one, or the mean of the two in the middle.
    pub(super) median: f64,
    /// The smallest.
    pub(super) min: f64,
    /// The largest.
    pub(super) max: f64,
    /// How many.
    pub(super) n: usize,
}

impl Summary {
    /// `None` if there are none.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let median = f64::midpoint(sorted[(n - 1) / 2], sorted[n / 2]);
        Some(Self { median, min, max, n })
    }

    /// This median as a part of another; `None` where that is nothing.
    pub(super) fn ratio_to(self, other: Self) -> Option<f64> {
        (other.median > 0.0).then(|| self.median / other.median)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_the_mean_of_two() {
        let odd = Summary::of([3.0, 1.0, 2.0]).expect("a summary");
        assert_eq!(odd, Summary { median: 2.0, min: 1.0, max: 3.0, n: 3 });
        let even = Summary::of([4.0, 1.0, 2.0, 8.0]).expect("a summary");
        assert_eq!(even, Summary { median: 3.0, min: 1.0, max: 8.0, n: 4 });
    }

    #[test]
    fn nothing_has_no_median() {
        assert_eq!(Summary::of([]), None);
    }

    #[test]
    fn a_ratio_is_of_medians() {
        let of = |value: f64| Summary::of([value]).expect("a summary");
        assert_eq!(of(1.0).ratio_to(of(4.0)), Some(0.25));
        assert_eq!(of(1.0).ratio_to(of(0.0)), None);
    }
}
