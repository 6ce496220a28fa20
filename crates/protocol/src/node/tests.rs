//! Each rule on one node, event by event.

mod backup;
mod cold;
mod forced;
mod handshake;
mod harness;
mod marks;
mod pairing;
mod stop;
