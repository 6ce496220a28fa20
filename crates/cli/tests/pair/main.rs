//! The pair as real processes on loopback: killed, stopped, cut off from its arbiter, and given
//! bad input.
//!
//! One test at a time starts processes: two nodes take the two cores that a small host has.

mod arbiter;
mod bridge;
mod client;
mod cluster;
mod cold;
mod disks;
mod failing;
mod force;
mod input;
mod operation;
mod power;
mod redis;
mod rights;
mod sandbox;
mod server;
mod shared;
mod snapshot;
mod stop;
mod tls;

#[allow(dead_code, reason = "only the client of PostgreSQL is wanted")]
#[path = "../../src/lab/mod.rs"]
mod lab;
#[path = "../support/namespace.rs"]
mod namespace;
