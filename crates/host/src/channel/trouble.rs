//! What is said of connections that came to nothing: a line each, but never a flood of them.

use std::time::{Duration, Instant};

/// Lines that may follow each other at once.
const BURST: u32 = 10;
/// After them, one line in this time: a stranger who tries for a day leaves some thousand.
const PACE: Duration = Duration::from_secs(10);

/// Says what may be said now.
#[derive(Debug)]
pub(crate) struct Trouble {
    left: u32,
    /// When `left` was right.
    at: Instant,
    left_out: u64,
}

impl Trouble {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            at: now,
            left_out: 0,
        }
    }

    /// The line as it is to be told, if now is its time.
    pub(crate) fn tell(&mut self, now: Instant, what: String) -> Option<String> {
        while self.left < BURST && now.duration_since(self.at) >= PACE {
            self.left += 1;
            self.at += PACE;
        }
        if self.left == BURST {
            self.at = now;
        }
        if self.left == 0 {
            self.left_out += 1;
            return None;
        }
        self.left -= 1;
        match std::mem::take(&mut self.left_out) {
            0 => Some(what),
            more => Some(format!("{what} (and {more} more that are not shown)")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_becomes_a_trickle_and_says_how_much_is_left_out() {
        let start = Instant::now();
        let mut trouble = Trouble::new(start);
        let mut tell = |at| trouble.tell(start + at, "x".to_owned());
        let told = (0..100).filter_map(|_| tell(Duration::ZERO)).count();
        assert_eq!(told, BURST as usize);
        assert_eq!(tell(PACE - Duration::from_millis(1)), None);
        let line = "x (and 91 more that are not shown)";
        assert_eq!(tell(PACE).as_deref(), Some(line));
        assert_eq!(tell(PACE), None);
        // After a long rest all is as it was, no more.
        let told = (0..100).filter_map(|_| tell(1000 * PACE)).count();
        assert_eq!(told, BURST as usize);
    }
}
