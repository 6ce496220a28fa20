//! What hostile guests, peers, files and networks send: the bodies of the fuzz targets.
//!
//! Each target is a function of bytes that panics if an invariant doesn't hold. `cargo fuzz` drives
//! them from the folder `fuzz/`, the tests of this crate with fixed seeds.

mod files;
mod input;
mod virtio;
mod wire;

pub use files::{loader, recording, snapshot, vm_toml};
pub use virtio::virtqueues;
pub use wire::{arbiter, channel, lan};

/// Judges some bytes; panics if an invariant is broken.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 8] = [
    ("virtqueues", virtqueues),
    ("recording", recording),
    ("snapshot", snapshot),
    ("loader", loader),
    ("channel", channel),
    ("arbiter", arbiter),
    ("vm_toml", vm_toml),
    ("lan", lan),
];
