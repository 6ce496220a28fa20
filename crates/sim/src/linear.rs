//! One register's history, to be judged by `twinvm_linear`.

use crate::guest::Op;
use twinvm_linear::Call;

/// One operation on the register.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) op: Op,
    pub(crate) asked: u64,
    /// When the answer came, the value before, and whether it was done. Without one it may take
    /// place at any time after it was asked, or never.
    pub(crate) answered: Option<(u64, u64, bool)>,
}

impl Call for Entry {
    type Value = u64;

    fn asked(&self) -> u64 {
        self.asked
    }

    fn answered(&self) -> Option<u64> {
        self.answered.map(|(at, ..)| at)
    }

    fn happens(&self, value: u64) -> Option<u64> {
        let (after, done) = self.op.apply(value);
        let right = |(_, before, was_done)| (before, was_done) == (value, done);
        self.answered.is_none_or(right).then_some(after)
    }
}

#[cfg(test)]
mod tests;
