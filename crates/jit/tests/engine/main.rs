//! What the engine computes, and that nothing but the program decides it: every
//! body runs in slices of many lengths, with flushes, digests and restores
//! between, and all ways must agree after every step.

mod asm;
mod atomics;
mod bits;
mod cbo;
mod code;
mod coherence;
mod compressed;
mod control;
mod csr;
mod device;
mod float;
mod float_blocks;
mod float_cases;
mod float_forms;
mod harts;
mod integer;
mod loops;
mod memory;
mod pages;
mod paging;
mod pieces;
mod pmp;
mod privilege;
mod program;
mod random;
mod rng;
mod rom;
mod sv48;
mod tables;
mod time;
mod traps;
mod world;
