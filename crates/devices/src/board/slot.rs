//! What a virtio slot of the board can hold.

use serde::{Deserialize, Serialize};
use twinvm_mem::Memory;

use crate::persist::{Persist, StateError};
use crate::virtio::{BlkState, ConsoleState, DiskConfig, MmioState, NetState, RngState};
use crate::virtio::{VirtioBlk, VirtioConsole, VirtioMmio, VirtioNet, VirtioRng};
use crate::virtio::{read_empty_slot, write_empty_slot};
use crate::{AccessFault, DeviceOut};

/// What to put into a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlotConfig {
    /// Nothing.
    Empty,
    /// A network card with this address.
    Net {
        /// The card's address.
        mac: [u8; 6],
    },
    /// An entropy source.
    Rng,
    /// A disk.
    Disk(DiskConfig),
    /// A console.
    Console,
}

/// A slot of the live board.
#[derive(Debug)]
pub(super) enum Slot {
    Empty,
    Net(VirtioMmio<VirtioNet>),
    Rng(VirtioMmio<VirtioRng>),
    Disk(VirtioMmio<VirtioBlk>),
    Console(VirtioMmio<VirtioConsole>),
}

/// The saved form of a slot. Variants are numbered in their order: new ones go to the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlotState {
    /// Nothing in the slot.
    Empty,
    /// A network card.
    Net(MmioState<NetState>),
    /// An entropy source.
    Rng(MmioState<RngState>),
    /// A disk.
    Disk(MmioState<BlkState>),
    /// A console.
    Console(MmioState<ConsoleState>),
}

impl SlotState {
    /// What a slot in this state was made of.
    pub fn config(&self) -> SlotConfig {
        match self {
            Self::Empty => SlotConfig::Empty,
            Self::Net(net) => SlotConfig::Net {
                mac: net.device.mac,
            },
            Self::Rng(_) => SlotConfig::Rng,
            Self::Disk(disk) => SlotConfig::Disk(disk.device.config),
            Self::Console(_) => SlotConfig::Console,
        }
    }
}

impl Slot {
    pub(super) fn new(config: SlotConfig) -> Self {
        match config {
            SlotConfig::Empty => Self::Empty,
            SlotConfig::Net { mac } => Self::Net(VirtioMmio::new(VirtioNet::new(mac))),
            SlotConfig::Rng => Self::Rng(VirtioMmio::new(VirtioRng::new())),
            SlotConfig::Disk(disk) => Self::Disk(VirtioMmio::new(VirtioBlk::new(disk))),
            SlotConfig::Console => Self::Console(VirtioMmio::new(VirtioConsole::new())),
        }
    }

    pub(super) fn reset(&mut self) {
        match self {
            Self::Empty => {}
            Self::Net(net) => net.reset(),
            Self::Rng(rng) => rng.reset(),
            Self::Disk(disk) => disk.reset(),
            Self::Console(console) => console.reset(),
        }
    }

    #[inline]
    pub(super) fn irq_level(&self) -> bool {
        match self {
            Self::Empty => false,
            Self::Net(net) => net.irq_level(),
            Self::Rng(rng) => rng.irq_level(),
            Self::Disk(disk) => disk.irq_level(),
            Self::Console(console) => console.irq_level(),
        }
    }

    pub(super) fn read(&self, offset: u64, size: usize) -> Result<u64, AccessFault> {
        match self {
            Self::Empty => read_empty_slot(offset, size),
            Self::Net(net) => net.read(offset, size),
            Self::Rng(rng) => rng.read(offset, size),
            Self::Disk(disk) => disk.read(offset, size),
            Self::Console(console) => console.read(offset, size),
        }
    }

    pub(super) fn write(
        &mut self,
        offset: u64,
        size: usize,
        value: u64,
        mem: &mut Memory,
        out: DeviceOut<'_>,
    ) -> Result<(), AccessFault> {
        match self {
            Self::Empty => write_empty_slot(offset, size),
            Self::Net(net) => net.write(offset, size, value, mem, out),
            Self::Rng(rng) => rng.write(offset, size, value, mem, out),
            Self::Disk(disk) => disk.write(offset, size, value, mem, out),
            Self::Console(console) => console.write(offset, size, value, mem, out),
        }
    }
}

impl Persist for Slot {
    type State = SlotState;

    fn save(&self) -> SlotState {
        match self {
            Self::Empty => SlotState::Empty,
            Self::Net(net) => SlotState::Net(net.save()),
            Self::Rng(rng) => SlotState::Rng(rng.save()),
            Self::Disk(disk) => SlotState::Disk(disk.save()),
            Self::Console(console) => SlotState::Console(console.save()),
        }
    }

    fn restore(state: SlotState) -> Result<Self, StateError> {
        Ok(match state {
            SlotState::Empty => Self::Empty,
            SlotState::Net(net) => Self::Net(VirtioMmio::restore(net)?),
            SlotState::Rng(rng) => Self::Rng(VirtioMmio::restore(rng)?),
            SlotState::Disk(disk) => Self::Disk(VirtioMmio::restore(disk)?),
            SlotState::Console(console) => Self::Console(VirtioMmio::restore(console)?),
        })
    }
}
