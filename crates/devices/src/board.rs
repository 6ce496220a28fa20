//! The board: all devices, their address map and their interrupt lines.
//!
//! The machine calls [`Board::read`] and [`Board::write`] inside the hart's access step, and the
//! `receive_…`, `push_…`, `complete_…` and `update_time` calls for records and deadlines. After
//! each of them it takes what [`Board::has_outputs`] announces and looks at
//! [`Board::interrupt_lines`].

use serde::{Deserialize, Serialize};
use twinvm_mem::Memory;

use crate::access::read_le;
use crate::persist::{Persist, StateError, consistent, length};
use crate::virtio::{DiskDoneError, DiskRequest, NetOffloads};
use crate::{
    AccessFault, Clint, ClintState, DeviceOutput, Finisher, FinisherRequest, FinisherState,
    MAX_HARTS, Now, Outbox, Plic, PlicState, Rtc, RtcState, Uart16550, UartState,
};

pub mod map;
mod slot;
#[cfg(test)]
mod tests;

use map::Place;
use slot::Slot;
pub use slot::{SlotConfig, SlotState};

/// What the board is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardConfig {
    /// Number of harts, 1 to [`MAX_HARTS`].
    pub harts: usize,
    /// What the virtio slots hold, from the first; slots without an entry are empty. At most
    /// [`map::VIRTIO_SLOTS`].
    pub slots: Vec<SlotConfig>,
    /// Wall time at mtime 0 in nanoseconds since 1970, fixed at the cold start.
    pub rtc_base_ns: u64,
}

/// A configuration that no board can have, or a call for a device that it hasn't got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BoardError {
    /// No harts or too many.
    #[error("the board cannot have {0} harts, only 1 to {MAX_HARTS}")]
    Harts(usize),
    /// More devices than slots.
    #[error("{0} virtio devices, but the board has {slots} slots", slots = map::VIRTIO_SLOTS)]
    Slots(usize),
    /// The reset ROM's contents are larger than its window.
    #[error("reset ROM of {0} bytes is larger than its window of {window}", window = map::ROM_SIZE)]
    Rom(usize),
    /// An event is for a slot that doesn't hold such a device: the record comes from another
    /// machine.
    #[error("virtio slot {slot} holds no {expected}")]
    WrongSlot {
        /// The slot.
        slot: u8,
        /// The device that the event is for.
        expected: &'static str,
    },
    /// A result that no request of this disk waits for.
    #[error("disk in virtio slot {slot}: {source}")]
    DiskDone {
        /// The slot.
        slot: u8,
        /// What is wrong with it.
        source: DiskDoneError,
    },
}

/// External interrupt lines of one hart; the machine timer line follows from
/// [`Board::mtimecmp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lines {
    /// Machine software interrupt (mip.MSIP).
    pub msip: bool,
    /// Machine external interrupt (mip.MEIP).
    pub meip: bool,
    /// Supervisor external interrupt (mip.SEIP, the line, not the writable bit).
    pub seip: bool,
}

/// All devices of the machine.
#[derive(Debug)]
pub struct Board {
    rom: Vec<u8>,
    clint: Clint,
    plic: Plic,
    uart: Uart16550,
    rtc: Rtc,
    finisher: Finisher,
    slots: [Slot; map::VIRTIO_SLOTS],
    outbox: Outbox,
}

/// The saved form of [`Board`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardState {
    /// Contents of the reset ROM.
    pub rom: Vec<u8>,
    /// Core-local interruptor.
    pub clint: ClintState,
    /// Interrupt controller.
    pub plic: PlicState,
    /// Serial port.
    pub uart: UartState,
    /// Real-time clock.
    pub rtc: RtcState,
    /// Finisher.
    pub finisher: FinisherState,
    /// All virtio slots.
    pub slots: Vec<SlotState>,
}

impl Board {
    /// A board after power-on, with this reset ROM.
    pub fn new(config: &BoardConfig, rom: Vec<u8>) -> Result<Self, BoardError> {
        if !(1..=MAX_HARTS).contains(&config.harts) {
            return Err(BoardError::Harts(config.harts));
        }
        if config.slots.len() > map::VIRTIO_SLOTS {
            return Err(BoardError::Slots(config.slots.len()));
        }
        if rom.len() as u64 > map::ROM_SIZE {
            return Err(BoardError::Rom(rom.len()));
        }
        let slots = std::array::from_fn(|slot| {
            Slot::new(config.slots.get(slot).copied().unwrap_or(SlotConfig::Empty))
        });
        Ok(Self {
            rom,
            clint: Clint::new(config.harts),
            plic: Plic::new(config.harts),
            uart: Uart16550::new(),
            rtc: Rtc::new(config.rtc_base_ns),
            finisher: Finisher::new(),
            slots,
            outbox: Outbox::default(),
        })
    }

    /// Power-on state of all devices; the ROM, the configuration and the time of day stay. Part of
    /// the reset step of the machine, which first takes all outputs.
    pub fn reset(&mut self) {
        self.clint.reset();
        self.plic.reset();
        self.uart.reset();
        self.rtc.reset();
        self.finisher = Finisher::new();
        for slot in &mut self.slots {
            slot.reset();
        }
        self.drive_lines();
    }

    /// Contents of the reset ROM, from [`map::ROM_BASE`]; the rest of its window is zero. Harts
    /// fetch from here.
    pub fn rom(&self) -> &[u8] {
        &self.rom
    }

    /// A hart loads `size` bytes (1, 2, 4 or 8) from a device. May change device state: a claim,
    /// a received byte.
    ///
    /// # Errors
    /// A hole, a misaligned address or a size that the register doesn't take, as in QEMU.
    pub fn read(&mut self, pa: u64, size: usize, now: Now) -> Result<u64, AccessFault> {
        let value = match map::place(pa, size).ok_or(AccessFault)? {
            Place::Rom(offset) => return Ok(read_le(&self.rom, offset, size)),
            Place::Clint(offset) => return self.clint.read(offset, size, now),
            Place::Finisher(offset) => return self.finisher.read(offset, size),
            Place::Virtio(slot, offset) => return self.slots[slot].read(offset, size),
            Place::Plic(offset) => return self.plic.read(offset, size),
            Place::Rtc(offset) => self.rtc.read(offset, size, now)?,
            Place::Uart(offset) => self.uart.read(offset),
        };
        self.drive_lines();
        Ok(value)
    }

    /// A hart stores the low `size` bytes (1, 2, 4 or 8) of `value` to a device. A virtio notify
    /// runs its device to the end. Next hop of what devices send: [`Board::take_outputs`].
    ///
    /// # Errors
    /// A hole, a misaligned address or a size that the register doesn't take, as in QEMU. Stores
    /// to the ROM do nothing.
    pub fn write(
        &mut self,
        mem: &mut Memory,
        pa: u64,
        size: usize,
        value: u64,
        now: Now,
    ) -> Result<(), AccessFault> {
        match map::place(pa, size).ok_or(AccessFault)? {
            Place::Rom(_) => return Ok(()),
            Place::Clint(offset) => return self.clint.write(offset, size, value),
            Place::Finisher(offset) => return self.finisher.write(offset, size, value),
            Place::Plic(offset) => return self.plic.write(offset, size, value),
            Place::Rtc(offset) => self.rtc.write(offset, size, value, now)?,
            Place::Uart(offset) => self.uart.write(offset, value, &mut self.outbox),
            Place::Virtio(slot, offset) => {
                let out = self.outbox.for_device(slot as u8);
                self.slots[slot].write(offset, size, value, mem, out)?;
            }
        }
        self.drive_lines();
        Ok(())
    }

    /// Gives the PLIC the interrupt lines of all devices as they are now.
    fn drive_lines(&mut self) {
        for (irq, high) in self.device_lines() {
            self.plic.set_level(irq as usize, high);
        }
    }

    /// The interrupt of each device and its line as it is now.
    fn device_lines(&self) -> [(u32, bool); map::VIRTIO_SLOTS + 2] {
        std::array::from_fn(|i| match self.slots.get(i) {
            Some(device) => (map::virtio_irq(i), device.irq_level()),
            None if i == map::VIRTIO_SLOTS => (map::UART_IRQ, self.uart.irq_level()),
            None => (map::RTC_IRQ, self.rtc.irq_level()),
        })
    }

    /// Interrupt lines of `hart`; all low for a hart that doesn't exist.
    #[inline]
    pub fn interrupt_lines(&self, hart: usize) -> Lines {
        let context = Plic::machine_context(hart);
        Lines {
            msip: self.clint.msip(hart),
            meip: self.plic.context_pending(context),
            seip: self.plic.context_pending(context + 1),
        }
    }

    /// The timer compare value of `hart` in ticks of mtime: mip.MTIP is set while mtime is at or
    /// above it.
    #[inline]
    pub fn mtimecmp(&self, hart: usize) -> u64 {
        self.clint.mtimecmp(hart)
    }

    /// The mtime at which the clock's alarm fires; the machine stops there like at a timer and
    /// calls [`Board::update_time`].
    #[inline]
    pub fn alarm_deadline(&self) -> Option<u64> {
        self.rtc.alarm_deadline()
    }

    /// Fires the clock's alarm if mtime has reached it.
    pub fn update_time(&mut self, now: Now) {
        self.rtc.update(now.mtime);
        self.drive_lines();
    }

    /// Whether an output, console bytes, a finisher request or [`take_work`](Self::take_work) wait
    /// to be taken.
    #[inline]
    pub fn has_outputs(&self) -> bool {
        !self.outbox.is_empty() || self.finisher.has_request()
    }

    /// Takes what devices sent, oldest first. Next hop: the machine logs the hash of each as an
    /// output record and hands it to the output gate.
    pub fn take_outputs(&mut self) -> Vec<DeviceOutput> {
        self.outbox.take_outputs()
    }

    /// Whether devices have done much since this was asked last: as much as thousands of steps.
    pub fn take_work(&mut self) -> bool {
        self.outbox.take_work()
    }

    /// Takes what the guest sent on its consoles, oldest first.
    pub fn take_console(&mut self) -> Vec<u8> {
        self.outbox.take_console()
    }

    /// Takes the guest's request to end or to start again.
    pub fn take_finisher_request(&mut self) -> Option<FinisherRequest> {
        self.finisher.take_request()
    }

    /// Bytes of input that the serial console would take now. The host looks before it logs input.
    pub fn console_room(&self) -> usize {
        self.uart.input_room()
    }

    /// Input for the serial console, in the step of its record. Gives the number of bytes taken;
    /// those beyond [`console_room`](Self::console_room) are dropped, the same on every node.
    pub fn push_console_input(&mut self, bytes: &[u8]) -> usize {
        let taken = self.uart.push_input(bytes);
        self.drive_lines();
        taken
    }

    /// Bytes of input that the virtio console in `slot` would take now; none for another slot.
    pub fn port_room(&self, slot: u8) -> usize {
        match self.slots.get(usize::from(slot)) {
            Some(Slot::Console(console)) => console.input_room(),
            _ => 0,
        }
    }

    /// Input for the virtio console in `slot`, in the step of its record. Gives the number of
    /// bytes taken; those beyond [`port_room`](Self::port_room) are dropped, the same on every
    /// node.
    pub fn push_port_input(
        &mut self,
        mem: &mut Memory,
        slot: u8,
        bytes: &[u8],
    ) -> Result<usize, BoardError> {
        let Some(Slot::Console(console)) = self.slot_mut(slot) else {
            return Err(wrong_slot(slot, "console"));
        };
        let taken = console.push_input(mem, bytes);
        self.drive_lines();
        Ok(taken)
    }

    /// Whether a packet for the card in `slot` would reach the guest. If not, the host keeps or
    /// drops it before it is logged. False for a slot without a card.
    pub fn net_room(&self, slot: u8) -> bool {
        matches!(self.slots.get(usize::from(slot)), Some(Slot::Net(net)) if net.rx_room())
    }

    /// What the guest does by itself with frames from the card in `slot`, so that packets for it
    /// may ask for that. Nothing for a slot without a card.
    pub fn net_offloads(&self, slot: u8) -> NetOffloads {
        match self.slots.get(usize::from(slot)) {
            Some(Slot::Net(net)) => net.offloads(),
            _ => NetOffloads::default(),
        }
    }

    /// A packet (header and frame) arrives at the card in `slot`, in the step of its record. Next
    /// hop: the guest's receive queue, which the guest sees together with the interrupt.
    pub fn receive_frame(
        &mut self,
        mem: &mut Memory,
        slot: u8,
        packet: &[u8],
    ) -> Result<(), BoardError> {
        let Some(Slot::Net(net)) = self.slot_mut(slot) else {
            return Err(wrong_slot(slot, "network card"));
        };
        net.receive(mem, packet);
        self.drive_lines();
        Ok(())
    }

    /// The first slot whose entropy source has an open request, and the bytes it wants. The live
    /// node looks at slice ends and answers with an entropy record.
    pub fn entropy_wanted(&self) -> Option<(u8, usize)> {
        (0..).zip(&self.slots).find_map(|(slot, device)| {
            let Slot::Rng(rng) = device else {
                return None;
            };
            Some((slot, rng.wanted())).filter(|(_, wanted)| *wanted > 0)
        })
    }

    /// Entropy for the source in `slot`, in the step of its record.
    pub fn complete_entropy(
        &mut self,
        mem: &mut Memory,
        slot: u8,
        bytes: &[u8],
    ) -> Result<(), BoardError> {
        let Some(Slot::Rng(rng)) = self.slot_mut(slot) else {
            return Err(wrong_slot(slot, "entropy source"));
        };
        rng.complete(mem, bytes);
        self.drive_lines();
        Ok(())
    }

    /// The disk requests that are issued and not done, slot by slot, oldest first, from the number
    /// `since[slot]` on; then `since` is such that the same call gives only newer ones.
    ///
    /// Next hop: the host's disks.
    pub fn disk_requests(&self, since: &mut [u64; map::VIRTIO_SLOTS]) -> Vec<DiskRequest> {
        let mut found = Vec::new();
        for ((slot, device), since) in (0..).zip(&self.slots).zip(since) {
            let Slot::Disk(disk) = device else {
                continue;
            };
            let disk = disk.device();
            if *since < disk.next_id() {
                found.extend(disk.in_flight(slot).filter(|request| request.id >= *since));
                *since = disk.next_id();
            }
        }
        found
    }

    /// The result of a request of the disk in `slot`, in the step of its record: 0 done, 1 failed,
    /// and the data of a read that was done.
    pub fn complete_disk(
        &mut self,
        mem: &mut Memory,
        slot: u8,
        id: u64,
        status: u8,
        data: &[u8],
    ) -> Result<(), BoardError> {
        let Some(Slot::Disk(disk)) = self.slot_mut(slot) else {
            return Err(wrong_slot(slot, "disk"));
        };
        disk.complete(mem, id, status, data)
            .map_err(|source| BoardError::DiskDone { slot, source })?;
        self.drive_lines();
        Ok(())
    }

    /// What the slot of this number holds, as events name it.
    fn slot_mut(&mut self, slot: u8) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(slot))
    }
}

fn wrong_slot(slot: u8, expected: &'static str) -> BoardError {
    BoardError::WrongSlot { slot, expected }
}

impl Persist for Board {
    type State = BoardState;

    /// # Panics
    /// If outputs have not been taken: they would be lost, which is a fault of the machine.
    fn save(&self) -> BoardState {
        assert!(
            self.outbox.is_empty(),
            "board saved before its outputs were taken"
        );
        BoardState {
            rom: self.rom.clone(),
            clint: self.clint.save(),
            plic: self.plic.save(),
            uart: self.uart.save(),
            rtc: self.rtc.save(),
            finisher: self.finisher.save(),
            slots: self.slots.iter().map(Persist::save).collect(),
        }
    }

    fn restore(state: BoardState) -> Result<Self, StateError> {
        length("board.rom", state.rom.len(), 0, map::ROM_SIZE as usize)?;
        let found = state.slots.len();
        length("board.slots", found, map::VIRTIO_SLOTS, map::VIRTIO_SLOTS)?;
        consistent(
            state.plic.contexts.len() == 2 * state.clint.msip.len(),
            "plic and clint differ in their number of harts",
        )?;
        let mut slots = [const { Slot::Empty }; map::VIRTIO_SLOTS];
        for (slot, state) in slots.iter_mut().zip(state.slots) {
            *slot = Slot::restore(state)?;
        }
        let driven = state.plic.level;
        let board = Self {
            rom: state.rom,
            clint: Clint::restore(state.clint)?,
            plic: Plic::restore(state.plic)?,
            uart: Uart16550::restore(state.uart)?,
            rtc: Rtc::restore(state.rtc)?,
            finisher: Finisher::restore(state.finisher)?,
            slots,
            outbox: Outbox::default(),
        };
        let mut expected = [0; 3];
        for (irq, high) in board.device_lines() {
            expected[irq as usize / 32] |= u32::from(high) << (irq % 32);
        }
        consistent(
            driven == expected,
            "plic lines differ from those that the devices drive",
        )?;
        Ok(board)
    }
}
