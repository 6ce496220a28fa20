//! Whether a history of one register is linearizable: a search for an order of the operations that
//! keeps to real time and to what a register does (Wing and Gong 1993, with the memory of states
//! seen that Lowe added in 2017).

use std::collections::BTreeSet;

use crate::guest::Op;

/// States looked at before a history counts as too hard. A few hundred operations with a handful
/// at a time take a few thousand.
const MAX_STATES: usize = 200_000;

/// One operation on the register.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) op: Op,
    pub(crate) asked: u64,
    /// When the answer came, the value before, and whether it was done. Without one it may take
    /// place at any time after it was asked, or never.
    pub(crate) answered: Option<(u64, u64, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Linearizable,
    Not,
    TooHard,
}

/// Judges the history of a register that begins as 0.
pub(crate) fn check(entries: &[Entry]) -> Verdict {
    let mut search = Search {
        entries,
        seen: BTreeSet::new(),
    };
    let mut taken = vec![0; entries.len().div_ceil(64)];
    match search.go(&mut taken, 0) {
        Some(true) => Verdict::Linearizable,
        Some(false) => Verdict::Not,
        None => Verdict::TooHard,
    }
}

struct Search<'a> {
    entries: &'a [Entry],
    seen: BTreeSet<(Vec<u64>, u64)>,
}

impl Search<'_> {
    /// Whether what is not taken can follow on `value`; `None` if that takes too long to say.
    fn go(&mut self, taken: &mut Vec<u64>, value: u64) -> Option<bool> {
        let is_taken = |taken: &[u64], n: usize| taken[n / 64] >> (n % 64) & 1 == 1;
        let open = |taken: &[u64], n: &usize| !is_taken(taken, *n);
        let all = 0..self.entries.len();
        let answered = |n: usize| self.entries[n].answered.map(|(at, ..)| at);
        let first_end = all.clone().filter(|n| open(taken, n)).filter_map(answered);
        // What has no answer need not have taken place.
        let Some(first_end) = first_end.min() else {
            return Some(true);
        };
        if self.seen.len() >= MAX_STATES {
            return None;
        }
        if !self.seen.insert((taken.clone(), value)) {
            return Some(false);
        }
        for n in all {
            let entry = self.entries[n];
            if is_taken(taken, n) || entry.asked > first_end {
                continue;
            }
            let (after, done) = entry.op.apply(value);
            if entry
                .answered
                .is_some_and(|(_, before, was_done)| (before, was_done) != (value, done))
            {
                continue;
            }
            taken[n / 64] |= 1 << (n % 64);
            let fits = self.go(taken, after);
            taken[n / 64] &= !(1 << (n % 64));
            if fits != Some(false) {
                return fits;
            }
        }
        Some(false)
    }
}

#[cfg(test)]
mod tests;
