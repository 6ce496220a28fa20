//! Two production replicas in one process, with a guest of a few instructions between them.

mod beside;
mod broken;
mod disks;
mod diverged;
mod guest;
mod handover;
mod hops;
mod shared;
#[path = "../support/guest.rs"]
mod small;
mod soak;
mod speaks;
mod takeover;
mod toy;
mod world;
