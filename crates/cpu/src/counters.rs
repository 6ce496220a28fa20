//! What an engine counts for reports. The guest never sees any of it.

use crate::op::Kind;
use crate::tier::{TierExit, TierMemory};

/// What the engine did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineCounters {
    /// Blocks that the interpreter has entered.
    pub blocks: u64,
    /// Instructions decoded.
    pub decoded: u64,
    /// Page-table walks.
    pub walks: u64,
    /// Times that translations of fetches were dropped.
    pub voids: u64,
    /// Steps made.
    pub steps: u64,
    /// What was done with translated code.
    pub translation: TranslationCounters,
    /// Memory for translated code; `None` without a second engine.
    pub memory: Option<TierMemory>,
    /// Instructions of translated blocks that the interpreter was called for, by kind,
    /// the most frequent first.
    pub by_kind: Vec<(Kind, u64)>,
}

/// What was done with translated code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TranslationCounters {
    /// Blocks translated.
    pub blocks: u64,
    /// Instructions in them.
    pub instructions: u64,
    /// Blocks forgotten, one page's at a time, because their page was written to.
    pub retired: u64,
    /// Times that all decoded and translated code was forgotten.
    pub flushes: u64,
    /// Jumps joined to their target.
    pub links: u64,
    /// Entries from the run loop.
    pub entries: u64,
    /// Steps between entry and exit, those of the interpreter among them.
    pub steps: u64,
    /// Instructions of translated blocks that the interpreter was called for.
    pub calls: u64,
    /// Why translated code was left.
    pub exits: ExitCounters,
    /// Steps of the interpreter outside translated code.
    pub outside: OutsideCounters,
}

/// Why translated code was left, how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExitCounters {
    /// [`TierExit::Tail`].
    pub tail: u64,
    /// [`TierExit::Lookup`].
    pub lookup: u64,
    /// [`TierExit::Link`].
    pub link: u64,
    /// [`TierExit::Look`], but none of the following.
    pub look: u64,
    /// An instruction traps. That step is not translated code's.
    pub trap: u64,
    /// An ECALL for the machine, which makes that step.
    pub sbi: u64,
    /// Another hart's turn begins.
    pub turn: u64,
}

impl TranslationCounters {
    /// Steps of translated code itself.
    pub fn own_steps(&self) -> u64 {
        let interpreted = self.calls - self.exits.trap - self.exits.sbi;
        self.steps - interpreted
    }
}

impl ExitCounters {
    pub(crate) fn count(&mut self, exit: TierExit) {
        match exit {
            TierExit::Tail => self.tail += 1,
            TierExit::Lookup => self.lookup += 1,
            TierExit::Link(_) => self.link += 1,
            TierExit::Look => self.look += 1,
        }
    }
}

/// Steps that the interpreter made outside translated code, by why it was there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutsideCounters {
    /// The block isn't hot yet, and those that followed it.
    pub cold: u64,
    /// The limit was nearer than the end of a translated block.
    pub tail: u64,
    /// The instruction can't be in a block: on two pages, outside RAM, at a bound of
    /// the PMP.
    pub single: u64,
}

/// How often the interpreter was called for each kind of instruction.
pub(crate) struct Kinds([(Kind, u64); KINDS]);

const KINDS: usize = Kind::Illegal as usize + 1;

impl Kinds {
    pub(crate) fn new() -> Self {
        Self([(Kind::Illegal, 0); KINDS])
    }

    #[inline(always)]
    pub(crate) fn count(&mut self, kind: Kind) {
        let (name, count) = &mut self.0[kind as usize];
        *name = kind;
        *count += 1;
    }

    /// Those that occurred, the most frequent first.
    pub(crate) fn sorted(&self) -> Vec<(Kind, u64)> {
        let mut sorted: Vec<_> = self.0.iter().filter(|(_, n)| *n > 0).copied().collect();
        sorted.sort_by_key(|(kind, n)| (u64::MAX - n, *kind as u8));
        sorted
    }
}
