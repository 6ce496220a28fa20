//! Tests of the whole machine with guests of a few instructions.

mod guest;
mod harts;
mod run;
mod snapshot;
