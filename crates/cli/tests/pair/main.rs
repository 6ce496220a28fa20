//! The pair as real processes on loopback: killed, stopped, cut off from its arbiter, and given
//! bad input.
//!
//! One test at a time starts processes: two nodes take the two cores that a small host has.

mod arbiter;
mod bad_disks;
mod bridge;
mod client;
mod cluster;
mod cold;
mod disks;
mod failing;
mod force;
mod input;
mod marks;
mod operation;
mod power;
mod redis;
mod rights;
mod sandbox;
mod server;
mod shared;
mod snapshot;
mod stop;
mod storage;
mod tls;

#[path = "../support/executable.rs"]
mod executable;
#[path = "../support/namespace.rs"]
mod namespace;
#[path = "../../src/lab/patience.rs"]
mod patience;
#[path = "../../src/lab/pg/mod.rs"]
mod pg;
