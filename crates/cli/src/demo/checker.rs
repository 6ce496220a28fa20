//! Judges the answers to INCR: each must be the number after the last.

/// Ranges of skipped numbers that are remembered; with more, the run is lost anyway and late
/// numbers count as duplicates.
const MAX_HOLES: usize = 1024;

/// How many answers there were, and what was wrong with them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Answers that were new, whether in order or not.
    pub(crate) answers: u64,
    /// Numbers that were skipped and never came.
    pub(crate) lost: u64,
    /// Numbers that came again.
    pub(crate) duplicated: u64,
    /// Numbers that came after a higher one.
    pub(crate) out_of_order: u64,
    /// Answers that are no answer to INCR at all.
    pub(crate) wrong: u64,
}

impl Tally {
    /// Every answer was the right one.
    pub(crate) fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.out_of_order == 0 && self.wrong == 0
    }
}

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The number after the last one.
    Next,
    /// A higher number: that many were skipped.
    Skipped(u64),
    /// A number that had been skipped.
    Late,
    /// A number that came before.
    Duplicate,
    /// No number that INCR can give.
    Wrong,
}

impl Verdict {
    /// The request that is waited for is answered.
    pub(crate) fn answers_request(self) -> bool {
        matches!(self, Self::Next | Self::Skipped(_))
    }
}

/// Judges the answers in the order in which they come.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    last: u64,
    /// Skipped numbers as ranges (first, last).
    holes: Vec<(u64, u64)>,
    tally: Tally,
}

impl Checker {
    /// The highest number so far; 0 before the first.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// Takes the next answer.
    pub(crate) fn take(&mut self, number: i64) -> Verdict {
        let number = match u64::try_from(number) {
            Ok(number) if number > 0 => number,
            _ => return self.take_wrong(),
        };
        if number > self.last {
            let skipped = number - self.last - 1;
            if skipped > 0 && self.holes.len() < MAX_HOLES {
                self.holes.push((self.last + 1, number - 1));
            }
            self.last = number;
            self.tally.answers += 1;
            self.tally.lost += skipped;
            return match skipped {
                0 => Verdict::Next,
                skipped => Verdict::Skipped(skipped),
            };
        }
        let hole = |&(first, last): &(u64, u64)| (first..=last).contains(&number);
        let Some(at) = self.holes.iter().position(hole) else {
            self.tally.duplicated += 1;
            return Verdict::Duplicate;
        };
        let (first, last) = self.holes.swap_remove(at);
        if first < number {
            self.holes.push((first, number - 1));
        }
        if number < last {
            self.holes.push((number + 1, last));
        }
        self.tally.answers += 1;
        self.tally.lost -= 1;
        self.tally.out_of_order += 1;
        Verdict::Late
    }

    /// Takes something that is no number.
    pub(crate) fn take_wrong(&mut self) -> Verdict {
        self.tally.wrong += 1;
        Verdict::Wrong
    }

    /// The connection has ended while a request was unanswered.
    pub(crate) fn never_answered(&mut self) {
        self.tally.lost += 1;
    }
}

#[cfg(test)]
mod tests;
