//! Two production replicas in one process, with a guest of a few instructions between them.

mod guest;
mod takeover;
mod world;
