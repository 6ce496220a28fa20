//! Sets of blocks: bitmaps that take memory only where a block is in them.

use std::ops::Range;

/// Words of a piece of the map.
const WORDS: usize = 512;
/// Blocks of a piece: 128 MiB of a disk in 4 KiB of memory.
const PIECE: u64 = WORDS as u64 * 64;

/// A set of numbers below a limit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Blocks {
    pieces: Vec<Option<Box<[u64; WORDS]>>>,
    limit: u64,
    count: u64,
}

impl Blocks {
    /// An empty set of numbers below `limit`.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            pieces: vec![None; limit.div_ceil(PIECE) as usize],
            limit,
            count: 0,
        }
    }

    /// How many are in it.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn contains(&self, block: u64) -> bool {
        let (piece, word, bit) = place(block);
        matches!(self.pieces.get(piece), Some(Some(words)) if words[word] & bit != 0)
    }

    /// Puts all of `range` that are below the limit into the set.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        self.change(range, true);
    }

    pub(crate) fn remove(&mut self, range: Range<u64>) {
        self.change(range, false);
    }

    fn change(&mut self, range: Range<u64>, set: bool) {
        let end = range.end.min(self.limit);
        let mut at = range.start;
        while at < end {
            let (piece, word, _) = place(at);
            let first = at % 64;
            let len = (64 - first).min(end - at);
            let mask = if len == 64 {
                u64::MAX
            } else {
                ((1 << len) - 1) << first
            };
            let slot = &mut self.pieces[piece];
            match slot {
                None if !set => {
                    at = (at / PIECE + 1) * PIECE;
                    continue;
                }
                _ => {}
            }
            let words = slot.get_or_insert_with(|| Box::new([0; WORDS]));
            let before = words[word];
            let after = if set { before | mask } else { before & !mask };
            words[word] = after;
            self.count += u64::from(after.count_ones());
            self.count -= u64::from(before.count_ones());
            at += len;
        }
    }

    /// The first run at or after `from`, of at most `most` blocks.
    pub(crate) fn next_run(&self, from: u64, most: u64) -> Option<Range<u64>> {
        let start = self.seek(from, true)?;
        let stop = start.saturating_add(most).min(self.limit);
        let end = self.seek(start, false).unwrap_or(self.limit).min(stop);
        Some(start..end)
    }

    /// The first number at or after `from` that is (or isn't) in the set.
    fn seek(&self, from: u64, wanted: bool) -> Option<u64> {
        let mut at = from;
        while at < self.limit {
            let (piece, word, _) = place(at);
            let Some(words) = &self.pieces[piece] else {
                if !wanted {
                    return Some(at);
                }
                at = (at / PIECE + 1) * PIECE;
                continue;
            };
            let bits = if wanted { words[word] } else { !words[word] };
            let rest = bits >> (at % 64);
            if rest != 0 {
                let found = at + u64::from(rest.trailing_zeros());
                return (found < self.limit).then_some(found);
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    /// All runs.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Range<u64>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let run = self.next_run(at, u64::MAX)?;
            at = run.end;
            Some(run)
        })
    }
}

fn place(block: u64) -> (usize, usize, u64) {
    (
        (block / PIECE) as usize,
        (block % PIECE / 64) as usize,
        1 << (block % 64),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(
            limit in 1u64..70_000,
            changes in prop::collection::vec((any::<bool>(), 0u64..70_000, 0u64..3_000), 0..20),
            from in 0u64..70_000,
            most in 1u64..200,
        ) {
            let mut blocks = Blocks::new(limit);
            let mut model = BTreeSet::new();
            for (set, start, len) in changes {
                let range = start..start + len;
                if set {
                    blocks.insert(range.clone());
                    model.extend(range.filter(|n| *n < limit));
                } else {
                    blocks.remove(range.clone());
                    model.retain(|n| !range.contains(n));
                }
            }
            prop_assert_eq!(blocks.count(), model.len() as u64);
            let listed: BTreeSet<u64> = blocks.runs().flatten().collect();
            prop_assert_eq!(&listed, &model);
            let expected = model.range(from..).next().map(|start| {
                let end = (*start..start + most).find(|n| !model.contains(n));
                *start..end.unwrap_or(start + most)
            });
            prop_assert_eq!(blocks.next_run(from, most), expected);
            prop_assert_eq!(blocks.contains(from), model.contains(&from));
        }
    }
}
