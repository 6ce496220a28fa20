//! A host's clock: its own start, its own speed, and jumps forward.

/// Millionths, the unit of a clock's drift.
const MILLION: i128 = 1_000_000;

/// How a host's monotonic clock follows the world's time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What it shows at the world's beginning, and all it has jumped since, nanoseconds.
    pub(crate) ahead_ns: u64,
    /// How much too fast it is (or too slow), millionths.
    pub(crate) drift_ppm: i64,
}

impl Clock {
    /// What it shows at the world's time `at`.
    pub(crate) fn shows(&self, at: u64) -> u64 {
        let drift = i128::from(at) * i128::from(self.drift_ppm) / MILLION;
        (i128::from(self.ahead_ns) + i128::from(at) + drift) as u64
    }

    /// The world's time, not before `now`, at which it shows `local`; within some nanoseconds.
    pub(crate) fn when(&self, local: u64, now: u64) -> u64 {
        let missing = local.saturating_sub(self.shows(now));
        let fast = MILLION + i128::from(self.drift_ppm);
        let wait = i128::from(missing) * MILLION / fast;
        now.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))
            .saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_drifts_is_found_at_its_time() {
        for drift_ppm in [-400, 0, 250] {
            let clock = Clock {
                ahead_ns: 5_000_000_000,
                drift_ppm,
            };
            let local = clock.shows(7_000_000_000) + 300_000_000;
            let at = clock.when(local, 7_000_000_000);
            assert!(clock.shows(at) >= local.saturating_sub(2));
            assert!(clock.shows(at) < local + 10, "{drift_ppm}");
        }
    }
}
