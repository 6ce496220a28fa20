//! Two nodes, an arbiter and a channel under seeded faults.

pub mod check;
pub mod link;
pub mod machine;
pub mod proc;
pub mod rng;
pub mod world;

pub use world::{Plan, Tally, run};
