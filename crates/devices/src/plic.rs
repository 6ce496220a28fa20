//! The platform-level interrupt controller (`sifive,plic-1.0.0`): sources 1 to 95, two contexts per
//! hart (machine, then supervisor).
//!
//! Behaviour is that of the RISC-V PLIC specification with level-triggered gateways: a gateway
//! forwards one request while its line is high, keeps it pending even if the line falls, and
//! forwards no other until a context that has the source enabled completes the claimed one; if the
//! line is then still high, it is pending again. The source of highest priority wins, the lowest
//! number among equals; priority 0 never interrupts. The threshold masks the interrupt signal, not
//! the claim. All accesses are of 4 bytes; reserved registers read as zero and ignore writes.

use serde::{Deserialize, Serialize};

use crate::persist::{Persist, StateError, at_most, consistent, length};
use crate::{AccessFault, MAX_HARTS};

#[cfg(test)]
mod tests;

/// Interrupt sources, with source 0, which doesn't exist.
const SOURCES: usize = 96;
/// Words of a bit per source.
const WORDS: usize = SOURCES / 32;
/// Priorities and thresholds are 3 bits wide.
const MAX_PRIORITY: u8 = 7;
/// Machine and supervisor.
const CONTEXTS_PER_HART: usize = 2;

const PENDING_BASE: u64 = 0x1000;
const ENABLE_BASE: u64 = 0x2000;
const ENABLE_STRIDE: u64 = 0x80;
const CONTEXT_BASE: u64 = 0x20_0000;
const CONTEXT_STRIDE: u64 = 0x1000;
const THRESHOLD: u64 = 0;
const CLAIM: u64 = 4;

/// One bit per source.
type Bits = [u32; WORDS];

/// The interrupt controller.
#[derive(Debug)]
pub struct Plic {
    priority: [u8; SOURCES],
    /// The lines as the devices drive them.
    level: Bits,
    /// Requests that a gateway forwarded and nobody claimed yet.
    pending: Bits,
    /// Claimed and not completed: their gateways are closed.
    claimed: Bits,
    contexts: Vec<Context>,
}

/// A hart's mode as a target of interrupts.
#[derive(Debug, Clone, Copy, Default)]
struct Context {
    enable: Bits,
    threshold: u8,
    /// The interrupt signal, derived from the rest and not saved.
    signal: bool,
}

/// The saved form of one context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextState {
    /// Enabled sources, a bit each.
    pub enable: [u32; WORDS],
    /// Priority threshold.
    pub threshold: u8,
}

/// The saved form of [`Plic`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlicState {
    /// Priority of each source.
    pub priority: Vec<u8>,
    /// Interrupt lines, a bit for each source.
    pub level: [u32; WORDS],
    /// Pending sources.
    pub pending: [u32; WORDS],
    /// Sources claimed and not completed.
    pub claimed: [u32; WORDS],
    /// Contexts in order: hart 0 M, hart 0 S, hart 1 M, …
    pub contexts: Vec<ContextState>,
}

/// What an address names.
enum Register {
    Priority(usize),
    Pending(usize),
    Enable { context: usize, word: usize },
    Threshold(usize),
    Claim(usize),
    Reserved,
}

impl Plic {
    /// A controller for `harts` harts, all sources low and disabled.
    pub fn new(harts: usize) -> Self {
        Self {
            priority: [0; SOURCES],
            level: [0; WORDS],
            pending: [0; WORDS],
            claimed: [0; WORDS],
            contexts: vec![Context::default(); harts * CONTEXTS_PER_HART],
        }
    }

    /// Back to the state of [`Plic::new`], lines included: the devices drive them again.
    pub fn reset(&mut self) {
        *self = Self::new(self.contexts.len() / CONTEXTS_PER_HART);
    }

    /// The context of `hart` in machine mode; the next one is that of supervisor mode.
    #[inline]
    pub fn machine_context(hart: usize) -> usize {
        hart * CONTEXTS_PER_HART
    }

    /// Drives the line of source `irq`. Sources that don't exist are ignored.
    pub fn set_level(&mut self, irq: usize, high: bool) {
        if irq == 0 || irq >= SOURCES || bit(&self.level, irq) == high {
            return;
        }
        put(&mut self.level, irq, high);
        self.open_gateway(irq);
        self.update_signals();
    }

    /// Whether the external interrupt of this context is signalled.
    #[inline]
    pub fn context_pending(&self, context: usize) -> bool {
        self.contexts.get(context).is_some_and(|c| c.signal)
    }

    /// Reads a register (a claim changes state); `offset` is aligned to `size`.
    pub fn read(&mut self, offset: u64, size: usize) -> Result<u64, AccessFault> {
        if size != 4 {
            return Err(AccessFault);
        }
        let value = match self.register(offset) {
            Register::Priority(irq) => u32::from(self.priority[irq]),
            Register::Pending(word) => self.pending[word],
            Register::Enable { context, word } => self.contexts[context].enable[word],
            Register::Threshold(context) => u32::from(self.contexts[context].threshold),
            Register::Claim(context) => self.claim(context),
            Register::Reserved => 0,
        };
        Ok(u64::from(value))
    }

    /// Writes a register; `offset` is aligned to `size`.
    pub fn write(&mut self, offset: u64, size: usize, value: u64) -> Result<(), AccessFault> {
        if size != 4 {
            return Err(AccessFault);
        }
        let value = value as u32;
        match self.register(offset) {
            Register::Priority(0) | Register::Pending(_) | Register::Reserved => {}
            Register::Priority(irq) => self.priority[irq] = value as u8 & MAX_PRIORITY,
            Register::Enable { context, word } => {
                let source_zero = u32::from(word == 0);
                self.contexts[context].enable[word] = value & !source_zero;
            }
            Register::Threshold(context) => {
                self.contexts[context].threshold = value as u8 & MAX_PRIORITY;
            }
            Register::Claim(context) => self.complete(context, value as usize),
        }
        self.update_signals();
        Ok(())
    }

    fn register(&self, offset: u64) -> Register {
        let index = (offset / 4) as usize;
        match offset {
            0..PENDING_BASE if index < SOURCES => Register::Priority(index),
            PENDING_BASE..ENABLE_BASE => match (offset - PENDING_BASE) as usize / 4 {
                word if word < WORDS => Register::Pending(word),
                _ => Register::Reserved,
            },
            ENABLE_BASE..CONTEXT_BASE => {
                let relative = offset - ENABLE_BASE;
                let context = (relative / ENABLE_STRIDE) as usize;
                let word = (relative % ENABLE_STRIDE) as usize / 4;
                if context < self.contexts.len() && word < WORDS {
                    Register::Enable { context, word }
                } else {
                    Register::Reserved
                }
            }
            CONTEXT_BASE.. => {
                let relative = offset - CONTEXT_BASE;
                let context = (relative / CONTEXT_STRIDE) as usize;
                match relative % CONTEXT_STRIDE {
                    _ if context >= self.contexts.len() => Register::Reserved,
                    THRESHOLD => Register::Threshold(context),
                    CLAIM => Register::Claim(context),
                    _ => Register::Reserved,
                }
            }
            _ => Register::Reserved,
        }
    }

    /// Takes the best pending source of this context, or 0.
    fn claim(&mut self, context: usize) -> u32 {
        let (irq, _) = self.best(context);
        if irq != 0 {
            put(&mut self.pending, irq, false);
            put(&mut self.claimed, irq, true);
            self.update_signals();
        }
        irq as u32
    }

    /// Ends the service of a source; ignored for one that this context has not enabled.
    fn complete(&mut self, context: usize, irq: usize) {
        if irq < SOURCES && bit(&self.contexts[context].enable, irq) {
            put(&mut self.claimed, irq, false);
            self.open_gateway(irq);
        }
    }

    /// Forwards a request if the line is high and no earlier one is in service.
    fn open_gateway(&mut self, irq: usize) {
        if bit(&self.level, irq) && !bit(&self.claimed, irq) {
            put(&mut self.pending, irq, true);
        }
    }

    /// The source that a claim by this context would take and its priority, or zeros.
    fn best(&self, context: usize) -> (usize, u8) {
        let mut best = (0, 0);
        for word in 0..WORDS {
            let mut candidates = self.pending[word] & self.contexts[context].enable[word];
            while candidates != 0 {
                let irq = word * 32 + candidates.trailing_zeros() as usize;
                candidates &= candidates - 1;
                if self.priority[irq] > best.1 {
                    best = (irq, self.priority[irq]);
                }
            }
        }
        best
    }

    fn update_signals(&mut self) {
        for context in 0..self.contexts.len() {
            let (_, priority) = self.best(context);
            let context = &mut self.contexts[context];
            context.signal = priority > context.threshold;
        }
    }
}

fn bit(bits: &Bits, irq: usize) -> bool {
    bits[irq / 32] >> (irq % 32) & 1 != 0
}

fn put(bits: &mut Bits, irq: usize, value: bool) {
    let mask = 1 << (irq % 32);
    if value {
        bits[irq / 32] |= mask;
    } else {
        bits[irq / 32] &= !mask;
    }
}

impl Persist for Plic {
    type State = PlicState;

    fn save(&self) -> PlicState {
        PlicState {
            priority: self.priority.to_vec(),
            level: self.level,
            pending: self.pending,
            claimed: self.claimed,
            contexts: self
                .contexts
                .iter()
                .map(|context| ContextState {
                    enable: context.enable,
                    threshold: context.threshold,
                })
                .collect(),
        }
    }

    fn restore(state: PlicState) -> Result<Self, StateError> {
        let found = state.priority.len();
        let priority: [u8; SOURCES] =
            state
                .priority
                .try_into()
                .map_err(|_| StateError::BadLength {
                    field: "plic.priority",
                    found,
                    min: SOURCES,
                    max: SOURCES,
                })?;
        for value in priority {
            at_most("plic.priority", value, MAX_PRIORITY)?;
        }
        consistent(priority[0] == 0, "plic source 0 has a priority")?;
        let contexts = state.contexts.len();
        let most = MAX_HARTS * CONTEXTS_PER_HART;
        length("plic.contexts", contexts, CONTEXTS_PER_HART, most)?;
        consistent(
            contexts.is_multiple_of(CONTEXTS_PER_HART),
            "plic contexts are not two per hart",
        )?;
        for context in &state.contexts {
            at_most("plic.threshold", context.threshold, MAX_PRIORITY)?;
            consistent(context.enable[0] & 1 == 0, "plic source 0 is enabled")?;
        }
        for word in 0..WORDS {
            let (level, pending) = (state.level[word], state.pending[word]);
            let claimed = state.claimed[word];
            consistent(
                pending & claimed == 0,
                "plic source is both pending and claimed",
            )?;
            consistent(
                level & !(pending | claimed) == 0,
                "plic line is high but its source neither pending nor claimed",
            )?;
        }
        consistent(
            (state.level[0] | state.pending[0] | state.claimed[0]) & 1 == 0,
            "plic source 0 is in use",
        )?;
        let mut plic = Self {
            priority,
            level: state.level,
            pending: state.pending,
            claimed: state.claimed,
            contexts: state
                .contexts
                .iter()
                .map(|context| Context {
                    enable: context.enable,
                    threshold: context.threshold,
                    signal: false,
                })
                .collect(),
        };
        plic.update_signals();
        Ok(plic)
    }
}
