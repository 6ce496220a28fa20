//! The outside of a node: files, sockets, signals, terminal and clocks.
//!
//! Each module is one thing that a node's main loop needs and cannot do without the host.
//! None of them decides anything; they turn what the host does into events on a channel,
//! and never make the thread that runs the guest wait for a disk or a peer (excepted are the
//! store, whose writes the protocol orders, and the node's lines on standard error).
//!
//! - [`store`]: the node's own folder: its lock, its id, the generation it has learnt.
//! - [`arbiter`]: where the record is kept: [`arbiter_file`], a shared folder, or a server over
//!   the network, twinvm's own or etcd; [`arbiter_worker`] is the thread that asks.
//! - [`channel`]: connections to the other node.
//! - [`tls`]: keys and certificates of a cluster, and connections whose two ends have verified each
//!   other.
//! - [`port`]: what a network card is plugged into: [`lan_port`], the connection to the user-mode
//!   switch, or [`tap`], an interface of this host; [`offload`] does the work of a card for wires
//!   that need it.
//! - [`disk`]: a disk's file and the threads that read and write it.
//! - [`nbd`]: a disk whose contents are at an NBD server; [`disk_server`], one that keeps a former
//!   live node off.
//! - [`ctl_socket`]: a person's requests to a running node.
//! - [`snapshot_file`]: a machine's snapshot as a durable file.
//! - [`sandbox`]: what a process gives up before it listens to anybody: its rights, and the system
//!   calls that it has no use for.
//! - [`node`]: the loop that joins all of them with the replica.
//! - [`journal`]: what a node says on standard error; [`hooks`], a command that hears of what
//!   matters; [`metrics`], figures for monitoring; [`notify`], the service manager.
//! - [`marks`]: when outputs pass the places on their way, for measurements.
//! - [`inside`]: parsers of what files and networks send, for those who try to break them.
//! - [`console`], [`signals`], [`time`], [`random`], [`allocator`]: terminal, signals, clocks, dice,
//!   memory of the process.

// They panic where a line can't be written.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]
// One source is compiled a second time, with a test's locks.
#![cfg_attr(test, allow(clippy::duplicate_mod))]

pub mod allocator;
pub mod arbiter;
pub mod arbiter_file;
pub mod arbiter_worker;
pub mod channel;
pub mod console;
pub mod ctl_socket;
pub mod disk_server;
pub mod fence;
mod few_clients;
pub mod hooks;
pub mod inside;
pub mod journal;
pub mod lan_port;
pub mod marks;
pub mod metrics;
pub mod nbd;
pub mod node;
pub mod notify;
pub mod offload;
pub mod port;
pub mod random;
mod reception;
pub mod sandbox;
pub mod signals;
pub mod snapshot_file;
pub mod store;
pub mod tap;
pub mod time;
pub mod tls;

pub use twinvm_disk as disk;
use twinvm_disk::durable;

#[cfg_attr(test, allow(clippy::duplicate_mod))]
mod intake;
/// The locks of [`intake`]: a test takes others.
mod sync {
    pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};
}
#[cfg(test)]
mod intake_schedules;
