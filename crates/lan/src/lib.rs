//! A user-mode Ethernet switch with TCP port forwards into the guests.
//!
//! The switch runs in a process of its own, because the connections that end
//! in it have to survive the death of a node. It has three kinds of stations:
//!
//! - **ports**: connections to a Unix stream socket, one per node. Frames travel
//!   in the framing of QEMU's stream netdev (u32 big-endian length, frame).
//! - **the gateway**: a TCP/IP station inside the switch, by default 10.0.2.2. It gives guests
//!   their addresses by DHCP.
//! - **forwards**: host TCP sockets; each accepted connection becomes one TCP
//!   connection from the gateway to a guest. A forward never reconnects.
//!
//! Both nodes of a VM are connected with the same guest MAC address and only the
//! live one speaks. A node that takes over announces the MAC (RARP or gratuitous
//! ARP); the switch then sends frames for it to the new port, and the gateway at
//! once repeats every TCP segment that the guest has not acknowledged, so that
//! clients see milliseconds and not TCP's retransmission timeout.
//!
//! The way of a frame: `framing` cuts it out of the port's stream, `switch`
//! says where it goes, the event loop in `run` puts it into another port's queue
//! or hands it to the `gateway`. `wire` makes frames late, or loses them, if that is asked for.

// They panic where a line can't be written.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

mod config;
mod ethernet;
mod forward;
mod framing;
mod gateway;
mod inside;
mod listen;
mod port;
mod report;
mod run;
mod stop;
mod switch;
mod wire;

pub use config::{
    ConfigError, DhcpConfig, FixedLease, Forward, GatewayConfig, Impairment, LanConfig, MAX_DELAY,
    MAX_FORWARDS, MAX_LEASES,
};
pub use ethernet::{MacAddr, MacAddrError};
pub use framing::{MAX_FRAME_BYTES, MIN_FRAME_BYTES};
#[doc(hidden)]
pub use inside::Inside;
pub use listen::ListenError;
pub use report::{BoundAddrs, LanError, LanEvent, LanStats};
pub use run::{run, run_logged};
pub use stop::{StopSignal, Stopper, stop_pair};
