//! Replays of a recorded run: disturbed in every way that must not matter, and where one goes wrong
//! all the same, explained.

mod explain;
#[path = "../support/guest.rs"]
mod guest;
mod mistranslated;
mod perturb;
mod worker;
