//! A replay of a recording that is read as it is needed.

use super::{Executed, ExplainError, TOLD_INSTRUCTIONS};
use crate::replay::{Divergence, Replay, ReplayExit};
use twinvm_log::Record;
use twinvm_machine::{EngineKind, Machine, disassemble};

/// Records held ahead of a replay: 16 MiB at most, of a guest that reads its disk. Where they run
/// out a slice ends, so whoever repeats a disturbed replay must hold as many.
pub const AHEAD: usize = 128;

/// The records of a recording, from the first.
pub type Records<E> = Box<dyn Iterator<Item = Result<Record, E>>>;

/// A recording from its beginning.
pub struct Opened<E> {
    /// The machine that it starts from.
    pub machine: Machine,
    /// Position of the first record.
    pub position: u64,
    /// The log.
    pub records: Records<E>,
}

/// A recording that can be replayed again and again.
pub trait Recorded {
    /// Why it can't be read.
    type Error;

    /// Opens it from the beginning. The machine's engine is that of the replay that diverged.
    fn open(&mut self) -> Result<Opened<Self::Error>, Self::Error>;
}

/// Tells the step that a search has come to.
pub(super) type Tell<'a> = &'a mut dyn FnMut(super::Searching);

/// Steps between two looks at whoever waits.
const CHUNK_STEPS: u64 = 30_000_000;

pub(super) struct Side<E> {
    pub(super) replay: Replay,
    records: Records<E>,
    dry: bool,
}

/// How a side stopped.
pub(super) enum Stop<E> {
    Diverged(Divergence),
    Error(E),
}

impl<E> From<Divergence> for Stop<E> {
    fn from(divergence: Divergence) -> Self {
        Self::Diverged(divergence)
    }
}

impl<E> Stop<E> {
    /// Of a replay that nothing disturbs.
    pub(super) fn of_plain(self) -> ExplainError<E> {
        match self {
            Self::Diverged(divergence) => ExplainError::PlainDiverged(divergence),
            Self::Error(error) => ExplainError::Recording(error),
        }
    }
}

impl<E> Side<E> {
    pub(super) fn open(recorded: &mut dyn Recorded<Error = E>) -> Result<Self, ExplainError<E>> {
        let opened = recorded.open().map_err(ExplainError::Recording)?;
        Ok(Self {
            replay: Replay::new(opened.machine, opened.position),
            records: opened.records,
            dry: false,
        })
    }

    /// The interpreter executes the rest.
    pub(super) fn interpret(&mut self) {
        if let Err(error) = self.replay.machine_mut().set_engine(EngineKind::Interp) {
            unreachable!("the interpreter is always there: {error}");
        }
    }

    /// Step and position.
    pub(super) fn at(&self) -> (u64, u64) {
        (self.replay.machine().icount(), self.replay.position())
    }

    pub(super) fn is_dry(&self) -> bool {
        self.dry
    }

    /// Holds as many records ahead as it should.
    pub(super) fn feed(&mut self) -> Result<(), E> {
        while !self.dry && self.replay.backlog() < AHEAD {
            match self.records.next() {
                Some(record) => self.replay.push([record?]),
                None => self.dry = true,
            }
        }
        Ok(())
    }

    /// Goes on until it stands where the other side does.
    pub(super) fn catch_up(&mut self, to: (u64, u64)) -> Result<(), Stop<E>> {
        loop {
            self.feed().map_err(Stop::Error)?;
            let before = self.at();
            if before >= to {
                return Ok(());
            }
            self.replay.run(to.0 - before.0)?;
            self.replay.machine_mut().take_console();
            // The log has ended, or the position can't be reached at this step.
            if self.at() == before {
                return Ok(());
            }
        }
    }

    /// Goes to this step; what is due there is not applied yet.
    pub(super) fn up_to(&mut self, icount: u64, tell: Tell<'_>) -> Result<(), Stop<E>> {
        loop {
            self.feed().map_err(Stop::Error)?;
            let before = self.at();
            if before.0 >= icount {
                return Ok(());
            }
            self.replay
                .run_up_to(icount.min(before.0.saturating_add(CHUNK_STEPS)))?;
            self.replay.machine_mut().take_console();
            tell(super::Searching::At(self.replay.machine().icount()));
            if self.at() == before {
                return Ok(());
            }
        }
    }

    /// The same, one step after the other at the end: what was executed there.
    pub(super) fn trace_up_to(
        &mut self,
        icount: u64,
        tell: Tell<'_>,
    ) -> Result<Vec<Executed>, Stop<E>> {
        self.up_to(icount.saturating_sub(TOLD_INSTRUCTIONS), tell)?;
        let mut executed = Vec::new();
        loop {
            let from = self.replay.machine().icount();
            if from >= icount {
                return Ok(executed);
            }
            let upcoming = self.replay.machine_mut().upcoming();
            self.feed().map_err(Stop::Error)?;
            let result: Result<ReplayExit, Divergence> = self.replay.run_up_to(from + 1);
            let machine = self.replay.machine_mut();
            if machine.icount() > from {
                let hart = machine.running_hart();
                let traps = machine.upcoming().get(hart).map(|now| now.traps);
                if let Some(was) = upcoming.get(hart) {
                    executed.push(Executed {
                        icount: from + 1,
                        hart,
                        pc: was.pc,
                        raw: was.raw,
                        text: match was.raw {
                            Some(raw) => disassemble(raw, was.pc),
                            None => "(nothing to fetch)".to_owned(),
                        },
                        trap: traps.is_some_and(|traps| traps != was.traps),
                    });
                }
            }
            if result.is_err() || machine.icount() == from {
                return Ok(executed);
            }
        }
    }
}
