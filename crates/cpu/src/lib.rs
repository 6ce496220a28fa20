//! One RISC-V hart (RV64GC with M, S and U modes, PMP, Sv39 and Sv48) and the
//! engine that runs it: an interpreter of decoded basic blocks, with a seam for a second
//! engine that runs translated ones ([`tier`]).
//!
//! The engine's contract is [`Engine::run`]: it goes exactly to the asked step
//! count and tells why it stopped. What a guest sees after step N depends on
//! [`Hart`], RAM, the devices and the clock's anchor only; everything inside
//! [`Engine`] (translations, decoded blocks) is derived, never saved, and may be
//! thrown away at any step boundary without the guest noticing.
//!
//! A **step** is an instruction retired or a trap taken. The step counter of the
//! machine (`icount`) is passed in and out; see `docs/DETERMINISM.md`.

mod block;
mod bus;
mod clock;
mod codes;
mod counters;
mod csr;
mod decode;
mod disasm;
mod engine;
mod exec;
mod exec_cbo;
mod exec_fp;
mod exec_mem;
mod exec_system;
mod extensions;
mod hart;
mod interrupts;
mod leaf_tables;
mod live;
mod mmu;
mod op;
mod page_map;
mod peek;
mod pmp;
mod rvc;
mod space;
mod state;
pub mod tier;
mod trap;
mod walk;
mod write_tags;

pub use bus::{AccessFault, Bus, Lines};
pub use clock::{Clock, TICKS_PER_SECOND};
pub use counters::{EngineCounters, ExitCounters, OutsideCounters, TranslationCounters};
pub use disasm::{disassemble, register_name};
pub use engine::{Engine, Env, Exit};
pub use extensions::{CACHE_BLOCK_BYTES, EXTENSIONS};
pub use hart::{Hart, Mode};
pub use peek::{Peeked, peek_data, peek_instruction};
pub use state::{CSR_NAMES, HartState, HartStateError};
pub use trap::Exception;

#[cfg(test)]
mod tests;
