//! The harts, and whose turn it is.
//!
//! All harts run on one host thread, in turn: a turn is at most [`TURN_STEPS`] steps of one hart.
//! It ends earlier when the hart waits (WFI), stops, or says that others may run (`pause`, WRS).
//! Whose turn comes next is decided before the next step and never after the last, from the
//! state alone: where a run is cut, and what a record changes there, comes first. A hart that
//! waits without a reason to wake is passed over; a hart sees what others sent it when its turn
//! starts.

use serde::{Deserialize, Serialize};
use twinvm_cpu::{Engine, Env, Hart, HartState, HartStateError};

/// The most harts of a machine.
pub const MAX_HARTS: usize = twinvm_devices::MAX_HARTS;
/// The longest turn, in steps: short enough that a hart that spins for another loses little,
/// long enough that changing harts costs nothing.
pub(crate) const TURN_STEPS: u64 = 1 << 14;

/// What a hart does, as SBI's HSM extension tells it (SBI 2.0, chapter 9).
///
/// ```text
///            hart_start                 hart_suspend
/// Stopped ──────────────▶ Started ─────────────────────▶ Suspended
///    ▲                    │     ▲                            │
///    └────────────────────┘     └────────────────────────────┘
///           hart_stop              an interrupt, at its turn
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HartStatus {
    Started,
    Stopped,
    Suspended,
}

/// All harts of a machine.
pub(crate) struct Harts {
    harts: Vec<Hart>,
    status: Vec<HartStatus>,
    /// The hart that has the turn.
    running: usize,
    /// Step count at which its turn ends. One hart alone has no end of turns.
    turn_end: u64,
}

/// Everything of [`Harts`], as it is written into snapshots and digests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HartsState {
    harts: Vec<HartState>,
    status: Vec<HartStatus>,
    running: u32,
    turn_end: u64,
}

impl HartsState {
    /// Number of harts.
    pub(crate) fn count(&self) -> usize {
        self.harts.len()
    }

    /// The hart that has the turn, and its program counter.
    pub(crate) fn place(&self) -> Option<(u32, u64)> {
        let hart = self.harts.get(self.running as usize)?;
        Some((self.running, hart.pc))
    }
}

impl Clone for Harts {
    fn clone(&self) -> Self {
        Self {
            harts: self.harts.clone(),
            status: self.status.clone(),
            running: self.running,
            turn_end: self.turn_end,
        }
    }

    /// Into memory that is there already.
    fn clone_from(&mut self, source: &Self) {
        let Self {
            harts,
            status,
            running,
            turn_end,
        } = source;
        self.harts.clone_from(harts);
        self.status.clone_from(status);
        (self.running, self.turn_end) = (*running, *turn_end);
    }
}

impl Harts {
    /// Harts at power-on: the first has the turn.
    pub(crate) fn new(mut harts: Vec<Hart>, status: Vec<HartStatus>) -> Self {
        for hart in &mut harts[1..] {
            hart.end_turn(0);
        }
        let turn_end = turn_end(harts.len(), 0);
        Self {
            harts,
            status,
            running: 0,
            turn_end,
        }
    }

    /// Harts that follow those before a reset, after step `icount`.
    pub(crate) fn follow(&mut self, before: &Self, icount: u64) {
        for (id, (hart, before)) in self.harts.iter_mut().zip(&before.harts).enumerate() {
            hart.follow(before, icount);
            if id == self.running {
                hart.begin_turn(icount);
            } else {
                hart.end_turn(icount);
            }
        }
        self.turn_end = turn_end(self.harts.len(), icount);
    }

    /// Number of harts.
    pub(crate) fn len(&self) -> usize {
        self.harts.len()
    }

    /// Whether there are turns at all.
    pub(crate) fn are_several(&self) -> bool {
        self.harts.len() > 1
    }

    /// The hart that has the turn.
    pub(crate) fn running(&self) -> &Hart {
        &self.harts[self.running]
    }

    /// The hart that has the turn.
    pub(crate) fn running_mut(&mut self) -> &mut Hart {
        &mut self.harts[self.running]
    }

    /// All harts, by id.
    pub(crate) fn all(&self) -> &[Hart] {
        &self.harts
    }

    /// Id of the hart that has the turn.
    pub(crate) fn running_id(&self) -> usize {
        self.running
    }

    /// A hart by its id.
    #[cfg(test)]
    pub(crate) fn get(&self, id: usize) -> &Hart {
        &self.harts[id]
    }

    /// A hart by its id.
    pub(crate) fn get_mut(&mut self, id: usize) -> &mut Hart {
        &mut self.harts[id]
    }

    /// Step count at which the turn ends.
    pub(crate) fn turn_end(&self) -> u64 {
        self.turn_end
    }

    /// The turn ends after step `icount`: others may run.
    pub(crate) fn yield_turn(&mut self, icount: u64) {
        if self.are_several() {
            self.turn_end = icount;
        }
    }

    /// Before the next step of several harts: the turn goes on, or the next hart that can make a
    /// step gets it. False if there is none: all wait. Then nothing has changed.
    pub(crate) fn choose(&mut self, engine: &Engine, env: &mut Env) -> bool {
        // Alarms first, as the engine does: one may be due at this very step.
        let now = env.clock.mtime(env.icount);
        if now >= env.bus.lines(0).alarm {
            env.bus.alarm(now);
        }
        let ready = |id: usize| {
            self.status[id] != HartStatus::Stopped && engine.can_step(&self.harts[id], env)
        };
        if env.icount >= self.turn_end || !ready(self.running) {
            let count = self.harts.len();
            let next = (1..=count)
                .map(|n| (self.running + n) % count)
                .find(|id| ready(*id));
            let Some(next) = next else {
                return false;
            };
            if next != self.running {
                self.harts[self.running].end_turn(env.icount);
                self.harts[next].begin_turn(env.icount);
                self.running = next;
            }
            self.turn_end = turn_end(count, env.icount);
        }
        self.status[self.running] = HartStatus::Started;
        true
    }

    /// Virtual time at which the first timer of a hart that waits is due.
    pub(crate) fn next_timer(&self, engine: &Engine, env: &Env) -> Option<u64> {
        self.harts
            .iter()
            .zip(&self.status)
            .filter(|(_, status)| **status != HartStatus::Stopped)
            .filter_map(|(hart, _)| engine.next_timer(hart, env))
            .min()
    }

    /// What the hart does; `None` if it doesn't exist.
    pub(crate) fn status(&self, id: usize) -> Option<HartStatus> {
        self.status.get(id).copied()
    }

    /// A stopped hart starts as `hart`.
    pub(crate) fn start(&mut self, mut hart: Hart, icount: u64) {
        let id = hart.id() as usize;
        hart.follow(&self.harts[id], icount);
        self.harts[id] = hart;
        self.status[id] = HartStatus::Started;
    }

    /// The running hart stops; false if it may not, because nobody could start it again.
    pub(crate) fn stop(&mut self) -> bool {
        let others = (0..self.len()).filter(|id| *id != self.running);
        let last = others
            .into_iter()
            .all(|id| self.status[id] == HartStatus::Stopped);
        if !last {
            self.status[self.running] = HartStatus::Stopped;
        }
        !last
    }

    /// The running hart waits for an interrupt, suspended.
    pub(crate) fn suspend(&mut self) {
        self.running_mut().wait();
        if self.are_several() {
            self.status[self.running] = HartStatus::Suspended;
        }
    }

    /// The whole state, for a snapshot or a digest.
    pub(crate) fn save(&self) -> HartsState {
        HartsState {
            harts: self.harts.iter().map(Hart::save).collect(),
            status: self.status.clone(),
            running: self.running as u32,
            turn_end: self.turn_end,
        }
    }

    /// Harts from a saved state after step `icount`. What `count` harts cannot be in is refused.
    pub(crate) fn restore(
        state: &HartsState,
        count: u32,
        icount: u64,
    ) -> Result<Self, HartStateError> {
        let bad = |what| Err(HartStateError(what));
        let count = count as usize;
        if state.harts.len() != count || state.status.len() != count {
            return bad("number of harts");
        }
        let running = state.running as usize;
        if running >= count {
            return bad("running hart");
        }
        let harts = state.harts.iter().map(Hart::restore);
        let harts = harts.collect::<Result<Vec<Hart>, HartStateError>>()?;
        for (id, hart) in harts.iter().enumerate() {
            if hart.id() != id as u64 {
                return bad("hart id");
            }
            if hart.has_turn() != (id == running) {
                return bad("turn");
            }
        }
        let latest = turn_end(count, icount);
        if state.turn_end > latest || (count == 1 && state.turn_end != latest) {
            return bad("end of the turn");
        }
        Ok(Self {
            harts,
            status: state.status.clone(),
            running,
            turn_end: state.turn_end,
        })
    }
}

/// When a turn that starts after step `icount` ends.
fn turn_end(harts: usize, icount: u64) -> u64 {
    if harts > 1 {
        icount.saturating_add(TURN_STEPS)
    } else {
        u64::MAX
    }
}
