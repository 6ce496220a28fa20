//! Which engine executes the guest. The guest can't tell, and nothing of it is in
//! snapshots, logs or digests.

use crate::machine::Machine;
use twinvm_cpu::Engine;
use twinvm_jit::{HOT_AT, NoCodeMemory};
use twinvm_mem::Memory;

/// What executes the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// The interpreter alone.
    Interp,
    /// The interpreter, and translated code for what runs often.
    Jit,
}

/// The asked engine can't be had.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is no backend for the host's processor.
    #[error("engine jit: not on this kind of processor yet; take engine interp")]
    NoBackend,
    /// The host gives no memory to execute.
    #[error(transparent)]
    Memory(#[from] NoCodeMemory),
}

/// The engine of a new machine: with translation, if the host can.
pub(crate) fn fastest(mem: &mut Memory) -> (Engine, EngineKind) {
    let mut engine = Engine::new();
    match twinvm_jit::tier() {
        Ok(Some(tier)) => {
            engine.set_tier(mem, Some(tier), HOT_AT);
            (engine, EngineKind::Jit)
        }
        Ok(None) | Err(_) => (engine, EngineKind::Interp),
    }
}

impl Machine {
    /// What executes the guest: [`EngineKind::Jit`] from the beginning, where the host
    /// can.
    pub fn engine_kind(&self) -> EngineKind {
        self.engine_kind
    }

    /// Chooses what executes the guest from now on.
    pub fn set_engine(&mut self, kind: EngineKind) -> Result<(), EngineError> {
        if kind == self.engine_kind {
            return Ok(());
        }
        let tier = match kind {
            EngineKind::Interp => None,
            EngineKind::Jit => Some(twinvm_jit::tier()?.ok_or(EngineError::NoBackend)?),
        };
        self.engine.set_tier(&mut self.mem, tier, HOT_AT);
        self.engine_kind = kind;
        Ok(())
    }

    /// From now on each instruction is translated by itself, at once, so that single steps
    /// run translated code too: for finding the instruction whose translation is wrong. Does
    /// nothing where there is no translation.
    pub fn translate_singly(&mut self) {
        if self.engine_kind == EngineKind::Jit {
            self.engine.set_single_blocks(&mut self.mem);
            self.engine.set_hot_at(Some(0));
        }
    }

    /// From now on blocks are translated when they have been entered this often;
    /// `None`: no more, the interpreter takes over. Does nothing where there is no
    /// translation.
    pub fn set_translation(&mut self, hot_at: Option<u8>) {
        if self.engine_kind == EngineKind::Jit {
            self.engine.set_hot_at(hot_at);
        }
    }
}
