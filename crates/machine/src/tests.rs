//! Tests of the whole machine with guests of a few instructions.

mod console;
mod cuts;
mod disk;
mod engine;
pub(crate) mod guest;
mod harts;
mod run;
mod sbi;
mod snapshot;
mod work;
