//! Two production replicas in one process, with a guest of a few instructions between them.

mod broken;
mod diverged;
mod guest;
mod hops;
mod soak;
mod speaks;
mod takeover;
mod world;
