//! A model of the protocol between two nodes and their arbiter, small enough to look at every state
//! that it can reach.
//!
//! The rules are those of `twinvm_protocol::node`, written down a second time and without what
//! does not decide anything (frames, timers, names, bytes). docs/PROTOCOL.md says what is modelled
//! and what is left out, which properties hold in how many states, and which broken rules are found.
//!
//! - [`state`]: the world; [`record`], [`log`]: its parts.
//! - [`disk`]: marks, and what copies of disks hold.
//! - [`action`]: what may happen; [`scope`]: how much of it; [`model`]: when; `step` does it.
//! - [`check`]: what must never be seen. [`canon`]: states that cannot be told apart are one.
//! - [`explore`]: the whole graph, for safety and for the way back to a protected pair.
//! - [`rules`]: rules broken on purpose.
//!
//! No part of the product depends on this crate.

pub mod action;
pub mod canon;
pub mod check;
pub mod disk;
pub mod explore;
pub mod log;
pub mod model;
pub mod record;
pub mod rules;
pub mod scope;
pub mod state;
mod step;
