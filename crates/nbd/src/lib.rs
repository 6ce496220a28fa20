//! The Network Block Device protocol, both ends of it, without sockets, threads and files.
//!
//! What is spoken is the fixed newstyle handshake with `NBD_OPT_GO`, block size constraints,
//! `NBD_OPT_STARTTLS`, and simple replies (the specification is `doc/proto.md` of the NBD project).
//! Structured replies are never asked for: no server may insist on them.
//!
//! - [`address`]: where an export is.
//! - [`wire`]: numbers and frames, and the two options of our own, a [`wire::Claim`] and a [`wire::Reader`].
//! - [`client`]: what a client says before it reads and writes.
//! - [`transfers`]: requests under way, cut into what a server takes, and sent again over the next
//!   connection when one is lost.
//! - [`server`]: what a server answers, and which requests it carries out.
//!
//! What the other end sends is checked before it means anything, and nothing it sends makes this
//! crate keep more than the bounds in [`wire`].

pub mod address;
pub mod client;
pub mod server;
pub mod transfers;
pub mod wire;
