//! The devices of the QEMU `virt` board.
//!
//! A device takes bytes in and gives bytes out. It owns no descriptor, no clock, no thread and no
//! random source: time comes in as [`Now`], network frames, typed characters and entropy come in
//! through calls that the machine makes from records, and everything that leaves the machine goes
//! into an outbox that the machine empties after each access. So what the guest sees is a function
//! of the guest's own accesses and of the records alone.
//!
//! Devices write guest RAM only inside one of those two moments, and data, used ring and interrupt
//! appear together. Every bit of a device is in its [`Persist::State`]; restoring checks the state,
//! because it may come from a damaged file or a hostile peer.
//!
//! [`Board`] owns all devices and decodes the physical address map in [`map`].

mod access;
mod board;
mod clint;
mod finisher;
mod outbox;
mod persist;
mod plic;
mod rtc;
#[cfg(test)]
mod testing;
mod uart;
pub mod virtio;

pub use access::{AccessFault, Now};
pub use board::{Board, BoardConfig, BoardError, BoardState, Lines, SlotConfig, SlotState, map};
pub use clint::{Clint, ClintState};
pub use finisher::{Finisher, FinisherRequest, FinisherState};
pub use outbox::{DeviceOut, DeviceOutput, Outbox};
pub use persist::{Persist, StateError};
pub use plic::{ContextState, Plic, PlicState};
pub use rtc::{Rtc, RtcState};
pub use uart::{INPUT_QUEUE_BYTES, Uart16550, UartState};

/// Most harts that one board can have: bounds what a hostile saved state can make us allocate.
pub const MAX_HARTS: usize = 8;
