//! A log of a few entries, small enough to be copied and compared by value.

use std::fmt;

use crate::record::Id;

/// One record of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Something from outside. It carries who wrote it down, so two nodes that go different ways
    /// from one position have different logs.
    Input(Id),
    /// An output; what it is depends on all entries before it.
    Output,
    /// The guest powered itself off.
    Halt,
}

/// Entries that fit: two bits each.
const MAX_ENTRIES: u8 = 32;
const OUTPUT: u64 = 2;
const HALT: u64 = 3;

/// A log from power-on. Two bits per entry.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Log {
    bits: u64,
    len: u8,
    /// Of a boot that a later cold start has replaced.
    pub old: bool,
}

impl Log {
    /// The position of its end.
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether nothing happened since power-on.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn code(&self, index: u8) -> u64 {
        self.bits >> (2 * index) & 3
    }

    /// Appends.
    pub fn push(&mut self, entry: Entry) {
        assert!(self.len < MAX_ENTRIES, "bounds too large for a log");
        let code = match entry {
            Entry::Input(id) => id as u64,
            Entry::Output => OUTPUT,
            Entry::Halt => HALT,
        };
        self.bits |= code << (2 * self.len);
        self.len += 1;
    }

    /// The entry that ends at `position`.
    pub fn entry(&self, position: u8) -> Entry {
        match self.code(position - 1) {
            0 => Entry::Input(Id::A),
            1 => Entry::Input(Id::B),
            OUTPUT => Entry::Output,
            _ => Entry::Halt,
        }
    }

    /// The log up to `position`.
    #[must_use]
    pub fn prefix(&self, position: u8) -> Self {
        let len = position.min(self.len);
        let mask = 1u64.checked_shl(2 * u32::from(len)).unwrap_or(0);
        Self {
            bits: self.bits & mask.wrapping_sub(1),
            len,
            old: self.old,
        }
    }

    /// Whether this log goes on from `start`.
    pub fn contains(&self, start: &Log) -> bool {
        self.len >= start.len && self.prefix(start.len) == *start
    }

    /// Positions of outputs above `after`.
    pub fn outputs(&self, after: u8) -> impl Iterator<Item = u8> + use<> {
        let log = *self;
        (after + 1..=log.len).filter(move |p| log.entry(*p) == Entry::Output)
    }

    /// Inputs that no output has followed yet: the guest may make that many more.
    pub fn due(&self) -> bool {
        let mut due = 0i32;
        for position in 1..=self.len {
            match self.entry(position) {
                Entry::Input(_) => due += 1,
                Entry::Output => due -= 1,
                Entry::Halt => {}
            }
        }
        due > 0
    }

    /// Whether the guest is off.
    pub fn halted(&self) -> bool {
        self.len > 0 && self.entry(self.len) == Entry::Halt
    }

    /// The same log with the nodes' names exchanged.
    #[must_use]
    pub fn swapped(&self) -> Self {
        let mut log = Self {
            old: self.old,
            ..Self::default()
        };
        for position in 1..=self.len {
            log.push(match self.entry(position) {
                Entry::Input(id) => Entry::Input(id.other()),
                entry => entry,
            });
        }
        log
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.old { "old:" } else { "" })?;
        for position in 1..=self.len {
            f.write_str(match self.entry(position) {
                Entry::Input(Id::A) => "a",
                Entry::Input(Id::B) => "b",
                Entry::Output => "!",
                Entry::Halt => "#",
            })?;
        }
        f.write_str(".")
    }
}
