//! Arithmetic over the times of the answers.

/// Time without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The answer before it, in microseconds since the client's start.
    pub(crate) start_us: u64,
    /// The answer after it.
    pub(crate) end_us: u64,
}

impl Gap {
    /// Its length in milliseconds.
    pub(crate) fn ms(&self) -> f64 {
        (self.end_us - self.start_us) as f64 / 1000.0
    }
}

/// The longest gap between two answers of which some part lies between `from_us` and `to_us`.
/// `times_us` never decreases.
pub(crate) fn longest_gap(times_us: &[u64], from_us: u64, to_us: u64) -> Option<Gap> {
    // The answer before the window, and the one after it, bound gaps that reach into it.
    let first = times_us.partition_point(|&at| at <= from_us);
    let last = times_us.partition_point(|&at| at < to_us);
    let window = times_us.get(first.saturating_sub(1)..times_us.len().min(last + 1))?;
    window
        .windows(2)
        .map(|pair| Gap {
            start_us: pair[0],
            end_us: pair[1],
        })
        // The first of equals.
        .rev()
        .max_by_key(|gap| gap.end_us - gap.start_us)
}

/// Answers per bin of `bin_us` from `from_us` up to `to_us`.
pub(crate) fn bins(times_us: &[u64], from_us: u64, to_us: u64, bin_us: u64) -> Vec<u32> {
    let count = to_us.saturating_sub(from_us).div_ceil(bin_us) as usize;
    let mut bins = vec![0; count];
    let first = times_us.partition_point(|&at| at < from_us);
    for &at in &times_us[first..] {
        match bins.get_mut(((at - from_us) / bin_us) as usize) {
            Some(bin) => *bin += 1,
            None => break,
        }
    }
    bins
}

/// The value that `percent` of all values don't exceed (nearest rank); `None` of no values.
pub(crate) fn percentile(values: &[f64], percent: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests;
