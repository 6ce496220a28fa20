//! The modern virtio-mmio transport (virtio 1.2 section 4.2.2), version 2.
//!
//! ```text
//! reset ──ACKNOWLEDGE, DRIVER──▶ features ──FEATURES_OK, if accepted──▶ queues ──DRIVER_OK──▶ running
//!   ▲                                                                                          │
//!   └──────────────── status 0 ◀──────────── NEEDS_RESET ◀──── the guest broke a ring ─────────┘
//! ```
//!
//! Registers below 0x100 take accesses of 4 bytes, the configuration space any size. The window is
//! 0x200 bytes, as QEMU's. Reads of write-only registers give zero, writes of read-only ones do
//! nothing.

use serde::{Deserialize, Serialize};
use twinvm_mem::Memory;

use super::{Chain, QueueState, RingError, VirtioDevice, Virtqueue, feature, ring::MAX_QUEUE_SIZE};
use crate::access::{read_le, set_high, set_low};
use crate::persist::{Persist, StateError, at_most, consistent, length};
use crate::{AccessFault, DeviceOut};

#[cfg(test)]
mod tests;

/// "virt", little-endian.
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// "QEMU", little-endian: drivers that know only QEMU's `virt` board, such as xv6's, want it.
const VENDOR_ID: u32 = 0x554d_4551;

const MAGIC_VALUE: u64 = 0x000;
const VERSION_REGISTER: u64 = 0x004;
const DEVICE_ID: u64 = 0x008;
const VENDOR_ID_REGISTER: u64 = 0x00c;
const DEVICE_FEATURES: u64 = 0x010;
const DEVICE_FEATURES_SEL: u64 = 0x014;
const DRIVER_FEATURES: u64 = 0x020;
const DRIVER_FEATURES_SEL: u64 = 0x024;
const QUEUE_SEL: u64 = 0x030;
const QUEUE_SIZE_MAX: u64 = 0x034;
const QUEUE_SIZE: u64 = 0x038;
const QUEUE_READY: u64 = 0x044;
const QUEUE_NOTIFY: u64 = 0x050;
const INTERRUPT_STATUS: u64 = 0x060;
const INTERRUPT_ACK: u64 = 0x064;
const STATUS: u64 = 0x070;
const QUEUE_DESC_LOW: u64 = 0x080;
const QUEUE_DESC_HIGH: u64 = 0x084;
const QUEUE_DRIVER_LOW: u64 = 0x090;
const QUEUE_DRIVER_HIGH: u64 = 0x094;
const QUEUE_DEVICE_LOW: u64 = 0x0a0;
const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
/// Length and base of shared memory regions read as all ones: there are none.
const SHM_FIRST: u64 = 0x0b0;
const SHM_LAST: u64 = 0x0bc;
/// The configuration never changes while the guest looks, so its generation stays zero.
const CONFIG_GENERATION: u64 = 0x0fc;
const CONFIG: u64 = 0x100;

const STATUS_DRIVER_OK: u8 = 4;
const STATUS_FEATURES_OK: u8 = 8;
const STATUS_NEEDS_RESET: u8 = 64;
/// The bits that a driver may set.
const STATUS_DRIVER_BITS: u8 = 1 | 2 | STATUS_DRIVER_OK | STATUS_FEATURES_OK | 128;

const INTERRUPT_USED_RING: u8 = 1;
const INTERRUPT_CONFIG: u8 = 2;
const INTERRUPT_MASK: u8 = INTERRUPT_USED_RING | INTERRUPT_CONFIG;

/// What an empty slot reads: a transport with device ID 0 (section 4.2.2).
pub(crate) fn read_empty_slot(offset: u64, size: usize) -> Result<u64, AccessFault> {
    if offset < CONFIG && size != 4 {
        return Err(AccessFault);
    }
    Ok(match offset {
        MAGIC_VALUE => MAGIC.into(),
        VERSION_REGISTER => VERSION.into(),
        VENDOR_ID_REGISTER => VENDOR_ID.into(),
        _ => 0,
    })
}

/// Writes to an empty slot do nothing.
pub(crate) fn write_empty_slot(offset: u64, size: usize) -> Result<(), AccessFault> {
    read_empty_slot(offset, size).map(|_| ())
}

/// A virtio device behind its MMIO registers.
#[derive(Debug)]
pub struct VirtioMmio<D> {
    device: D,
    status: u8,
    interrupt_status: u8,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    queues: Vec<Virtqueue>,
}

/// The saved form of [`VirtioMmio`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MmioState<S> {
    /// The device behind the registers.
    pub device: S,
    /// Device status.
    pub status: u8,
    /// Interrupt status.
    pub interrupt_status: u8,
    /// Which half of the device features reads show.
    pub device_features_sel: u32,
    /// Which half of the driver features writes set.
    pub driver_features_sel: u32,
    /// Features that the driver accepted.
    pub driver_features: u64,
    /// The queue that queue registers refer to.
    pub queue_sel: u32,
    /// All queues of the device.
    pub queues: Vec<QueueState>,
}

impl<D: VirtioDevice> VirtioMmio<D> {
    /// A device after power-on.
    pub fn new(device: D) -> Self {
        Self {
            device,
            status: 0,
            interrupt_status: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            queues: vec![Virtqueue::new(); D::QUEUES],
        }
    }

    /// The device behind the registers.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The device behind the registers, to end what a record ends.
    pub(super) fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// The interrupt line.
    #[inline]
    pub fn irq_level(&self) -> bool {
        self.interrupt_status != 0
    }

    /// Whether the driver runs the device and has broken no ring.
    #[inline]
    pub fn running(&self) -> bool {
        self.status & (STATUS_DRIVER_OK | STATUS_NEEDS_RESET) == STATUS_DRIVER_OK
    }

    /// The features that the driver accepted; none before FEATURES_OK.
    pub fn accepted_features(&self) -> u64 {
        if self.status & STATUS_FEATURES_OK != 0 {
            self.driver_features
        } else {
            0
        }
    }

    /// Whether `queue` is running: enabled, in a running device.
    pub fn queue_running(&self, queue: usize) -> bool {
        self.running() && self.queues.get(queue).is_some_and(Virtqueue::ready)
    }

    /// Back to the state after power-on.
    pub fn reset(&mut self) {
        self.device.reset();
        self.status = 0;
        self.interrupt_status = 0;
        self.device_features_sel = 0;
        self.driver_features_sel = 0;
        self.driver_features = 0;
        self.queue_sel = 0;
        self.queues.fill(Virtqueue::new());
    }

    /// Lets the device act on its queues, and gives the number of descriptors that it has read. Does
    /// nothing unless `queue` runs.
    pub(crate) fn act(
        &mut self,
        queue: usize,
        action: impl FnOnce(&mut D, &mut [Virtqueue]) -> Result<bool, RingError>,
    ) -> u32 {
        if !self.queue_running(queue) {
            return 0;
        }
        let result = action(&mut self.device, &mut self.queues);
        self.finish(result);
        self.queues.iter_mut().map(Virtqueue::take_read).sum()
    }

    /// Reads a register; `offset` is aligned to `size`.
    pub fn read(&self, offset: u64, size: usize) -> Result<u64, AccessFault> {
        if let Some(config) = offset.checked_sub(CONFIG) {
            return Ok(read_le(self.device.config(), config, size));
        }
        if size != 4 {
            return Err(AccessFault);
        }
        let queue = self.selected();
        let value = match offset {
            MAGIC_VALUE => MAGIC,
            VERSION_REGISTER => VERSION,
            DEVICE_ID => D::DEVICE_ID,
            VENDOR_ID_REGISTER => VENDOR_ID,
            DEVICE_FEATURES => match self.device_features_sel {
                0 => self.device_features() as u32,
                1 => (self.device_features() >> 32) as u32,
                _ => 0,
            },
            QUEUE_SIZE_MAX => queue.map_or(0, |_| MAX_QUEUE_SIZE.into()),
            QUEUE_READY => queue.is_some_and(Virtqueue::ready).into(),
            INTERRUPT_STATUS => self.interrupt_status.into(),
            STATUS => self.status.into(),
            SHM_FIRST..=SHM_LAST => u32::MAX,
            CONFIG_GENERATION => 0,
            _ => 0,
        };
        Ok(u64::from(value))
    }

    /// Writes a register; `offset` is aligned to `size`. A notify runs the device to its end. Next
    /// hop of what it sends: the outbox, which the machine empties after the access.
    pub fn write(
        &mut self,
        offset: u64,
        size: usize,
        value: u64,
        mem: &mut Memory,
        out: DeviceOut<'_>,
    ) -> Result<(), AccessFault> {
        if offset >= CONFIG {
            // No device of ours has a configuration field that a modern driver may write.
            return Ok(());
        }
        if size != 4 {
            return Err(AccessFault);
        }
        let word = value as u32;
        match offset {
            DEVICE_FEATURES_SEL => self.device_features_sel = word,
            DRIVER_FEATURES_SEL => self.driver_features_sel = word,
            DRIVER_FEATURES => self.accept_features(word),
            QUEUE_SEL => self.queue_sel = word,
            QUEUE_SIZE => {
                // A size that fits no queue becomes 0, which enabling refuses.
                let size = u16::try_from(word).unwrap_or(0);
                self.configure(|queue| queue.size = size);
            }
            QUEUE_READY => self.set_queue_ready(word & 1 != 0, mem),
            QUEUE_NOTIFY => self.notify(word as usize, mem, out),
            INTERRUPT_ACK => self.interrupt_status &= !(word as u8),
            STATUS => self.set_status(word, mem, out),
            QUEUE_DESC_LOW => self.configure(|queue| queue.desc = set_low(queue.desc, word)),
            QUEUE_DESC_HIGH => self.configure(|queue| queue.desc = set_high(queue.desc, word)),
            QUEUE_DRIVER_LOW => self.configure(|queue| queue.driver = set_low(queue.driver, word)),
            QUEUE_DRIVER_HIGH => {
                self.configure(|queue| queue.driver = set_high(queue.driver, word));
            }
            QUEUE_DEVICE_LOW => self.configure(|queue| queue.device = set_low(queue.device, word)),
            QUEUE_DEVICE_HIGH => {
                self.configure(|queue| queue.device = set_high(queue.device, word));
            }
            _ => {}
        }
        Ok(())
    }

    fn device_features(&self) -> u64 {
        self.device.features() | feature::VERSION_1 | feature::INDIRECT_DESC | feature::EVENT_IDX
    }

    fn selected(&self) -> Option<&Virtqueue> {
        self.queues.get(self.queue_sel as usize)
    }

    /// Features can be chosen until FEATURES_OK.
    fn accept_features(&mut self, word: u32) {
        if self.status & STATUS_FEATURES_OK == 0 {
            let features = self.driver_features;
            self.driver_features = match self.driver_features_sel {
                0 => set_low(features, word),
                1 => set_high(features, word),
                _ => features,
            };
        }
    }

    /// Changes the selected queue, which must not be enabled.
    fn configure(&mut self, change: impl FnOnce(&mut Virtqueue)) {
        if let Some(queue) = self.queues.get_mut(self.queue_sel as usize)
            && !queue.ready()
        {
            change(queue);
        }
    }

    fn set_queue_ready(&mut self, ready: bool, mem: &Memory) {
        let negotiated = self.status & STATUS_FEATURES_OK != 0;
        let features = self.driver_features;
        let Some(queue) = self.queues.get_mut(self.queue_sel as usize) else {
            return;
        };
        if !ready {
            queue.disable();
        } else if negotiated && !queue.ready() {
            let result = queue.enable(mem, features).map(|()| false);
            self.finish(result);
        }
    }

    fn notify(&mut self, queue: usize, mem: &mut Memory, mut out: DeviceOut<'_>) {
        let descriptors = self.act(queue, |device, queues| {
            queues[queue].watch(mem)?;
            device.notify(queue, queues, mem, out.reborrow())
        });
        out.worked(descriptors);
    }

    /// Writing 0 resets; other bits can only be added. FEATURES_OK sticks only if every accepted
    /// feature was offered. VERSION_1 need not be among them: a driver must accept it, but some
    /// never write the upper half, and a device may work without (section 6.1). With DRIVER_OK the
    /// device looks at buffers that were offered before.
    fn set_status(&mut self, word: u32, mem: &mut Memory, mut out: DeviceOut<'_>) {
        if word == 0 {
            self.reset();
            return;
        }
        let mut added = word as u8 & STATUS_DRIVER_BITS & !self.status;
        let unknown = self.driver_features & !self.device_features();
        if unknown != 0 {
            added &= !STATUS_FEATURES_OK;
        }
        if (self.status | added) & STATUS_FEATURES_OK == 0 {
            added &= !STATUS_DRIVER_OK;
        }
        self.status |= added;
        if added & STATUS_DRIVER_OK != 0 {
            for queue in 0..self.queues.len() {
                self.notify(queue, mem, out.reborrow());
            }
        }
    }

    /// Ends an operation on the rings: raises the interrupt, or stops a device whose ring the
    /// guest broke.
    fn finish(&mut self, result: Result<bool, RingError>) {
        match result {
            Ok(false) => {}
            Ok(true) => self.interrupt_status |= INTERRUPT_USED_RING,
            Err(_) => {
                self.status |= STATUS_NEEDS_RESET;
                if self.status & STATUS_DRIVER_OK != 0 {
                    self.interrupt_status |= INTERRUPT_CONFIG;
                }
            }
        }
    }
}

/// Takes every buffer that `queue` holds, lets `serve` handle it and gives it back; `serve` says
/// how many bytes it wrote. Says whether the guest wants an interrupt.
pub(super) fn serve_all(
    queue: &mut Virtqueue,
    mem: &mut Memory,
    mut serve: impl FnMut(&mut Memory, &Chain) -> Result<u32, RingError>,
) -> Result<bool, RingError> {
    let mut chain = Chain::default();
    for _ in 0..queue.available(mem)? {
        queue.take(mem, &mut chain)?;
        let written = serve(mem, &chain)?;
        queue.give_back(mem, &chain, written)?;
    }
    queue.publish(mem)
}

impl<D: VirtioDevice> Persist for VirtioMmio<D> {
    type State = MmioState<D::State>;

    fn save(&self) -> Self::State {
        MmioState {
            device: self.device.save(),
            status: self.status,
            interrupt_status: self.interrupt_status,
            device_features_sel: self.device_features_sel,
            driver_features_sel: self.driver_features_sel,
            driver_features: self.driver_features,
            queue_sel: self.queue_sel,
            queues: self.queues.iter().map(Persist::save).collect(),
        }
    }

    fn restore(state: Self::State) -> Result<Self, StateError> {
        length("virtio.queues", state.queues.len(), D::QUEUES, D::QUEUES)?;
        at_most(
            "virtio.interrupt_status",
            state.interrupt_status,
            INTERRUPT_MASK,
        )?;
        let known = STATUS_DRIVER_BITS | STATUS_NEEDS_RESET;
        consistent(
            state.status & !known == 0,
            "virtio status has a bit that does not exist",
        )?;
        let transport = Self {
            device: D::restore(state.device)?,
            status: state.status,
            interrupt_status: state.interrupt_status,
            device_features_sel: state.device_features_sel,
            driver_features_sel: state.driver_features_sel,
            driver_features: state.driver_features,
            queue_sel: state.queue_sel,
            queues: state
                .queues
                .into_iter()
                .map(Virtqueue::restore)
                .collect::<Result<_, _>>()?,
        };
        let negotiated = transport.status & STATUS_FEATURES_OK != 0;
        let unknown = transport.driver_features & !transport.device_features();
        consistent(
            !negotiated || unknown == 0,
            "virtio driver accepted a feature that was not offered",
        )?;
        consistent(
            negotiated || transport.status & STATUS_DRIVER_OK == 0,
            "virtio driver runs without negotiated features",
        )?;
        consistent(
            negotiated || !transport.queues.iter().any(Virtqueue::ready),
            "virtio queue is enabled without negotiated features",
        )?;
        let agreed = |queue: &Virtqueue| {
            let expected = if queue.ready() {
                transport.driver_features
            } else {
                0
            };
            queue.features() == expected
        };
        consistent(
            transport.queues.iter().all(agreed),
            "virtio queue has other features than its device",
        )?;
        Ok(transport)
    }
}
