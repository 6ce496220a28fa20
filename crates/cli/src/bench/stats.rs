//! Medians and spreads.

use serde::{Deserialize, Serialize};

/// What is told of a series of samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Number of samples.
    pub(crate) n: usize,
    /// The middle one, or the mean of the middle two.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Summary {
    /// `None` of no samples.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let upper = sorted[n / 2];
        let median = match n % 2 {
            0 => (sorted[n / 2 - 1] + upper) / 2.0,
            _ => upper,
        };
        Some(Self {
            n,
            median,
            min,
            max,
        })
    }
}

/// The smallest sample that at least `percent` of all samples don't exceed (nearest rank);
/// `None` of no samples. `sorted` is in ascending order.
pub(crate) fn percentile(sorted: &[u32], percent: usize) -> Option<u32> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// A number with three digits that count, and no more decimals than three.
pub(crate) fn digits(value: f64) -> String {
    // Compared as rounded: 9.996 is 10.0 and not 10.00.
    let decimals = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests;
