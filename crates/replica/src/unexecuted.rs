//! How much of the log a backup has been sent and has not executed.
//!
//! It keeps all of that in its memory. While the pair is protected that is little, since lag is; a
//! joining backup may be far behind, and a guest that receives in bulk makes a log as large as what
//! it receives. So the live guest waits at a bound.

use std::collections::VecDeque;

/// Bytes of log that a backup may have to keep: two seconds of a network of 1 Gbit/s.
const MAX_BYTES: u64 = 256 << 20;
/// Records that it may have to keep; the backup itself takes twice as many.
const MAX_RECORDS: u64 = 1 << 19;
/// What is executed is known to so many bytes.
const GRAIN_BYTES: u64 = 1 << 20;

/// The log behind a session's snapshot.
#[derive(Debug)]
pub(crate) struct Unexecuted {
    /// Its end, and what the backup has executed.
    end: u64,
    executed: u64,
    /// Bytes made since the snapshot, and of those up to the last mark that was passed.
    made: u64,
    passed: u64,
    /// Ends of batches, about [`GRAIN_BYTES`] apart, with the bytes up to there.
    marks: VecDeque<(u64, u64)>,
}

impl Unexecuted {
    /// The snapshot stands at `position`.
    pub(crate) fn new(position: u64) -> Self {
        Self {
            end: position,
            executed: position,
            made: 0,
            passed: 0,
            marks: VecDeque::new(),
        }
    }

    /// A batch of so many bytes goes to the backup; the log ends at `end` with it.
    pub(crate) fn made(&mut self, end: u64, bytes: usize) {
        self.end = self.end.max(end);
        self.made += bytes as u64;
        let marked = self.marks.back().map_or(self.passed, |(_, bytes)| *bytes);
        if self.made - marked >= GRAIN_BYTES {
            self.marks.push_back((end, self.made));
        }
    }

    /// The backup has executed up to here.
    pub(crate) fn executed(&mut self, position: u64) {
        self.executed = self.executed.max(position);
        while let Some((end, bytes)) = self.marks.front().copied() {
            if end > self.executed {
                break;
            }
            self.passed = bytes;
            self.marks.pop_front();
        }
        if self.executed >= self.end {
            (self.passed, self.marks) = (self.made, VecDeque::new());
        }
    }

    /// No more is to be made before some of it is executed.
    pub(crate) fn is_full(&self) -> bool {
        self.made - self.passed > MAX_BYTES || self.end.saturating_sub(self.executed) > MAX_RECORDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_of_bytes_and_one_of_records() {
        let mut large = Unexecuted::new(100);
        let mut end = 100;
        while !large.is_full() {
            end += 1;
            large.made(end, 64 << 10);
            assert!(end < 10_000);
        }
        assert_eq!((end - 100) * (64 << 10), MAX_BYTES + (64 << 10));
        // Some executed makes room for as much.
        large.executed(100 + 64);
        assert!(!large.is_full());
        assert!(large.marks.len() < 300);
        large.executed(end);
        assert_eq!((large.passed, large.marks.len()), (large.made, 0));

        let mut many = Unexecuted::new(0);
        many.made(MAX_RECORDS, 100);
        assert!(!many.is_full());
        many.made(MAX_RECORDS + 1, 100);
        assert!(many.is_full());
        many.executed(1);
        assert!(!many.is_full());
    }
}
