//! What the tests of all devices share: the save and restore body that each device goes through,
//! and a small driver that builds rings in RAM.

use std::fmt::Debug;

use twinvm_mem::{Memory, RAM_BASE};

use crate::virtio::{VirtioDevice, VirtioMmio, feature};
use crate::{DeviceOutput, Outbox, Persist};

/// Small RAM for tests.
pub(crate) const RAM_BYTES: u64 = 1 << 20;

pub(crate) fn memory() -> Memory {
    Memory::new(RAM_BYTES).expect("RAM for a test")
}

/// A state as it goes to disk and comes back.
fn through_bytes<S: serde::Serialize + serde::de::DeserializeOwned>(state: &S) -> S {
    let bytes = postcard::to_stdvec(state).expect("encodes");
    postcard::from_bytes(&bytes).expect("decodes")
}

/// The body that every device goes through: save → mutate → restore → compare.
///
/// The restored device must equal the saved one, and must go on like it: `mutate` leads both to the
/// same state. `mutate` must change something that is saved.
pub(crate) fn saves_every_bit<D: Persist + Debug>(mut device: D, mut mutate: impl FnMut(&mut D)) {
    let saved = device.save();
    let look = format!("{device:?}");
    mutate(&mut device);
    let mutated = device.save();
    assert_ne!(saved, mutated, "the mutation is not visible in the state");

    let mut restored = D::restore(through_bytes(&saved)).expect("own state restores");
    assert_eq!(restored.save(), saved);
    assert_eq!(format!("{restored:?}"), look, "a live field was not saved");
    mutate(&mut restored);
    assert_eq!(
        restored.save(),
        mutated,
        "the restored device goes on differently"
    );
    let again = D::restore(through_bytes(&mutated)).expect("own state restores");
    assert_eq!(format!("{again:?}"), format!("{restored:?}"));
}

/// A seeded pseudo-random sequence (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// One descriptor that the test driver offers.
#[derive(Clone, Copy)]
pub(crate) struct Desc {
    pub(crate) pa: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// A device-readable buffer.
pub(crate) fn readable(pa: u64, len: u32) -> Desc {
    Desc {
        pa,
        len,
        flags: 0,
        next: 0,
    }
}

/// A device-writable buffer.
pub(crate) fn writable(pa: u64, len: u32) -> Desc {
    Desc {
        flags: WRITE,
        ..readable(pa, len)
    }
}

/// Where the driver keeps queue `q`.
pub(crate) fn desc_table(queue: usize) -> u64 {
    RAM_BASE + queue as u64 * 0x4000
}
pub(crate) fn avail_ring(queue: usize) -> u64 {
    desc_table(queue) + 0x1000
}
pub(crate) fn used_ring(queue: usize) -> u64 {
    desc_table(queue) + 0x2000
}

/// Where buffers for tests begin, behind all rings.
pub(crate) const BUFFERS: u64 = RAM_BASE + 0x4_0000;

pub(crate) const STATUS: u64 = 0x70;
pub(crate) const INTERRUPT_STATUS: u64 = 0x60;
pub(crate) const NOTIFY: u64 = 0x50;

pub(crate) fn put_desc(mem: &mut Memory, table: u64, index: u16, desc: Desc) {
    let at = table + 16 * u64::from(index);
    mem.store_u64(at, desc.pa).unwrap();
    mem.store_u32(at + 8, desc.len).unwrap();
    mem.store_u16(at + 12, desc.flags).unwrap();
    mem.store_u16(at + 14, desc.next).unwrap();
}

/// A device, RAM and a driver.
pub(crate) struct Bench<D: VirtioDevice> {
    pub(crate) device: VirtioMmio<D>,
    pub(crate) mem: Memory,
    pub(crate) out: Outbox,
    size: u16,
    next_desc: Vec<u16>,
    next_avail: Vec<u16>,
    seen_used: Vec<u16>,
}

impl<D: VirtioDevice> Bench<D> {
    pub(crate) fn new(device: D) -> Self {
        Self {
            device: VirtioMmio::new(device),
            mem: memory(),
            out: Outbox::default(),
            size: 8,
            next_desc: vec![0; D::QUEUES],
            next_avail: vec![0; D::QUEUES],
            seen_used: vec![0; D::QUEUES],
        }
    }

    /// A device with a driver that runs it, all queues of `size`.
    pub(crate) fn running(device: D, size: u16) -> Self {
        let mut bench = Self::new(device);
        bench.start(size);
        bench
    }

    pub(crate) fn write(&mut self, offset: u64, value: u32) {
        let out = self.out.for_device(3);
        self.device
            .write(offset, 4, value.into(), &mut self.mem, out)
            .expect("a register");
    }

    pub(crate) fn read(&self, offset: u64) -> u32 {
        self.device.read(offset, 4).expect("a register") as u32
    }

    pub(crate) fn negotiate(&mut self, features: u64) {
        self.write(STATUS, 0);
        self.write(STATUS, 1);
        self.write(STATUS, 3);
        for half in 0..2 {
            self.write(0x24, half);
            self.write(0x20, (features >> (32 * half)) as u32);
        }
        self.write(STATUS, 11);
    }

    pub(crate) fn set_up_queue(&mut self, queue: usize, size: u16) {
        self.write(0x30, queue as u32);
        self.write(0x38, size.into());
        for (register, pa) in [
            (0x80, desc_table(queue)),
            (0x90, avail_ring(queue)),
            (0xa0, used_ring(queue)),
        ] {
            self.write(register, pa as u32);
            self.write(register + 4, (pa >> 32) as u32);
        }
        self.write(0x44, 1);
        self.size = size;
        self.next_desc[queue] = 0;
        self.next_avail[queue] = 0;
        self.seen_used[queue] = 0;
        for at in [avail_ring(queue), used_ring(queue)] {
            self.mem.store_u32(at, 0).unwrap();
        }
        let [used_event, avail_event] = [2, 8].map(|entry| 4 + entry * u64::from(size));
        let _ = self.mem.store_u16(avail_ring(queue) + used_event, 0);
        let _ = self.mem.store_u16(used_ring(queue) + avail_event, 0);
    }

    pub(crate) fn start(&mut self, size: u16) {
        self.start_with(feature::INDIRECT_DESC, size);
    }

    pub(crate) fn start_with(&mut self, features: u64, size: u16) {
        self.negotiate(feature::VERSION_1 | features);
        for queue in 0..D::QUEUES {
            self.set_up_queue(queue, size);
        }
        self.write(STATUS, 15);
    }

    /// Offers a chain of buffers without a notify; gives its head.
    pub(crate) fn offer(&mut self, queue: usize, buffers: &[Desc]) -> u16 {
        let head = self.next_desc[queue];
        for (i, buffer) in buffers.iter().enumerate() {
            let index = self.next_desc[queue];
            self.next_desc[queue] = (index + 1) % self.size;
            let mut desc = *buffer;
            if i + 1 < buffers.len() {
                desc.flags |= NEXT;
                desc.next = self.next_desc[queue];
            }
            put_desc(&mut self.mem, desc_table(queue), index, desc);
        }
        self.offer_head(queue, head);
        head
    }

    /// Offers a chain by its head alone.
    pub(crate) fn offer_head(&mut self, queue: usize, head: u16) {
        let index = self.next_avail[queue];
        let slot = u64::from(index % self.size);
        self.mem
            .store_u16(avail_ring(queue) + 4 + 2 * slot, head)
            .unwrap();
        self.next_avail[queue] = index.wrapping_add(1);
        self.mem
            .store_u16(avail_ring(queue) + 2, self.next_avail[queue])
            .unwrap();
    }

    pub(crate) fn notify(&mut self, queue: usize) {
        self.write(NOTIFY, queue as u32);
    }

    /// Buffers that came back since the last look: head and length written.
    pub(crate) fn used(&mut self, queue: usize) -> Vec<(u16, u32)> {
        let until = self.mem.load_u16(used_ring(queue) + 2).unwrap();
        let mut found = Vec::new();
        while self.seen_used[queue] != until {
            let slot = u64::from(self.seen_used[queue] % self.size);
            let at = used_ring(queue) + 4 + 8 * slot;
            found.push((
                self.mem.load_u32(at).unwrap() as u16,
                self.mem.load_u32(at + 4).unwrap(),
            ));
            self.seen_used[queue] = self.seen_used[queue].wrapping_add(1);
        }
        found
    }

    pub(crate) fn bytes(&self, pa: u64, len: usize) -> Vec<u8> {
        self.mem.slice(pa, len).unwrap().to_vec()
    }

    pub(crate) fn frames(&mut self) -> Vec<Vec<u8>> {
        self.out
            .take_outputs()
            .into_iter()
            .map(|DeviceOutput::Frame { device, bytes }| {
                assert_eq!(device, 3, "the output carries its slot");
                bytes
            })
            .collect()
    }

    pub(crate) fn interrupt(&mut self) -> u32 {
        let pending = self.read(INTERRUPT_STATUS);
        self.write(0x64, pending);
        assert!(!self.device.irq_level());
        pending
    }

    pub(crate) fn needs_reset(&self) -> bool {
        self.read(STATUS) & 64 != 0
    }
}
