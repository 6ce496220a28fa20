//! What hostile guests, peers, files and networks send: the bodies of the fuzz targets.
//!
//! Each target is a function of bytes that panics if an invariant doesn't hold. `cargo fuzz` drives
//! them from the folder `fuzz/`, the tests of this crate with fixed seeds.

mod disks;
mod files;
mod host;
mod input;
mod nbd;
mod peer;
mod virtio;
mod wire;

pub use disks::disk_sync;
pub use files::{image_files, loader, recording, snapshot, states, vm_toml};
pub use host::{ctl, etcd, keys_files, metrics, packets, small_files};
pub use nbd::{nbd_client, nbd_server};
pub use peer::peer;
pub use virtio::virtqueues;
pub use wire::{arbiter, channel, lan};

/// Judges some bytes; panics if an invariant is broken.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 20] = [
    ("virtqueues", virtqueues),
    ("recording", recording),
    ("snapshot", snapshot),
    ("loader", loader),
    ("channel", channel),
    ("arbiter", arbiter),
    ("vm_toml", vm_toml),
    ("lan", lan),
    ("states", states),
    ("image_files", image_files),
    ("etcd", etcd),
    ("ctl", ctl),
    ("small_files", small_files),
    ("keys_files", keys_files),
    ("packets", packets),
    ("peer", peer),
    ("metrics", metrics),
    ("disk_sync", disk_sync),
    ("nbd_client", nbd_client),
    ("nbd_server", nbd_server),
];
