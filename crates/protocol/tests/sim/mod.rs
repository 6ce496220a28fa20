//! Two nodes, an arbiter and a channel under seeded faults.

pub(crate) mod check;
pub(crate) mod link;
pub(crate) mod machine;
pub(crate) mod proc;
pub(crate) mod rng;
pub(crate) mod world;

pub(crate) use world::{Plan, Tally, run};
