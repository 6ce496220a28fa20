//! Which engine executes the guest. The guest can't tell, and nothing of it is in
//! snapshots, logs or digests.

use crate::machine::Machine;
use twinvm_cpu::Engine;
use twinvm_cpu::tier::{CodeListener, Tier};
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
    /// This build has no second engine.
    #[cfg(not(feature = "jit"))]
    #[error(
        "engine jit: this build has none (it was made without the feature jit); take engine interp"
    )]
    NotBuilt,
    /// There is no backend for the host's processor.
    #[cfg(feature = "jit")]
    #[error("engine jit: not on this kind of processor yet; take engine interp")]
    NoBackend,
    /// The host gives no memory to execute.
    #[cfg(feature = "jit")]
    #[error(transparent)]
    Memory(#[from] twinvm_jit::NoCodeMemory),
}

/// Plugs translation in.
#[cfg(feature = "jit")]
fn add_translation(engine: &mut Engine, mem: &mut Memory) -> Result<(), EngineError> {
    let tier = twinvm_jit::tier(mem.ram_bytes())?.ok_or(EngineError::NoBackend)?;
    engine.set_tier(mem, Some(tier), twinvm_jit::HOT_AT);
    Ok(())
}

#[cfg(not(feature = "jit"))]
fn add_translation(_: &mut Engine, _: &mut Memory) -> Result<(), EngineError> {
    Err(EngineError::NotBuilt)
}

/// The engine of a new machine: with translation, if the host can.
pub(crate) fn fastest(mem: &mut Memory) -> (Engine, EngineKind) {
    let mut engine = Engine::new();
    let kind = match add_translation(&mut engine, mem) {
        Ok(()) => EngineKind::Jit,
        Err(_) => EngineKind::Interp,
    };
    (engine, kind)
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
        match kind {
            EngineKind::Interp => self.engine.set_tier(&mut self.mem, None, 0),
            EngineKind::Jit => add_translation(&mut self.engine, &mut self.mem)?,
        }
        self.engine_kind = kind;
        Ok(())
    }

    /// Tells of all translated code from now on, until the engine is chosen anew: for
    /// profilers. Does nothing where there is no translation.
    pub fn listen_to_translation(&mut self, listener: CodeListener) {
        self.engine.listen(&mut self.mem, listener);
    }

    /// Puts another tier around the one that translates, until the engine is chosen anew: so a
    /// test can make a translation wrong, to see that it is found. Does nothing where there
    /// is no translation.
    pub fn wrap_translation(&mut self, wrap: impl FnOnce(Box<dyn Tier>) -> Box<dyn Tier>) {
        self.engine.wrap_tier(&mut self.mem, wrap);
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
