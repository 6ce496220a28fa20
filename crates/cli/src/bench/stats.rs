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

/// A confidence interval of a median.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Interval {
    /// The probability that the median lies in it, at least 95 %.
    pub(crate) confidence: f64,
    pub(crate) from: f64,
    pub(crate) to: f64,
}

/// The narrowest interval between two samples, equally many from either end, that holds the
/// median of what they are drawn from with at least 95 % (by the binomial distribution: nothing
/// is assumed of the samples but that they are independent); `None` of fewer than six.
pub(crate) fn median_interval(samples: &[f64]) -> Option<Interval> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    // The chance that exactly `k` of the samples lie below the median, and that at most `k` do.
    let mut exactly = 0.5_f64.powi(i32::try_from(n).ok()?);
    let mut at_most = exactly;
    let mut found = None;
    for k in 0..n / 2 {
        let confidence = 1.0 - 2.0 * at_most;
        if confidence < 0.95 {
            break;
        }
        found = Some(Interval {
            confidence,
            from: sorted[k],
            to: sorted[n - 1 - k],
        });
        exactly *= (n - k) as f64 / (k + 1) as f64;
        at_most += exactly;
    }
    found
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
