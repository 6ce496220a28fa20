//! The random moments, which follow from the seed alone.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A length of time from `low` up to `high`, to the microsecond.
    pub(crate) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span_us = (high.saturating_sub(low).as_micros() as u64).max(1);
        low + Duration::from_micros(self.next() % span_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_moments() {
        let draw = |seed| {
            let mut rng = Rng::new(seed);
            let mut next = || rng.between(Duration::from_millis(300), Duration::from_millis(2500));
            [next(), next(), next()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let moments = draw(7);
        assert_ne!(moments[0], moments[1]);
        for moment in moments {
            assert!((300..2500).contains(&moment.as_millis()), "{moment:?}");
        }
    }

    #[test]
    fn known_values() {
        let mut rng = Rng::new(1234567);
        assert_eq!(rng.next(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next(), 3_203_168_211_198_807_973);
    }
}
