//! A hostile guest at the virtio devices of a board.
//!
//! The guest sets queues up by the book, then writes any register, ring and descriptor at any time,
//! while frames, entropy, disk results and keys arrive. What must hold: nothing panics; what
//! devices keep is bounded; a device is never saved to something else than it is, so that one run
//! with restores in between ends like one without; pages that the guest gave to nobody don't
//! change.

use std::cell::RefCell;

use twinvm_devices::virtio::{
    MAX_HELD_BYTES, MAX_PACKET_BYTES, MAX_REQUESTS, MAX_TEXT_BYTES, RX_QUEUE_BYTES, RX_QUEUE_FRAMES,
};
use twinvm_devices::{
    Board, BoardConfig, BoardState, DeviceOutput, INPUT_QUEUE_BYTES, Now, Persist, SlotConfig,
    SlotState, map,
};
use twinvm_machine::{DiskConfig, DiskOp};
use twinvm_mem::{Memory, RAM_BASE};

use crate::input::Input;

const RAM_BYTES: u64 = 160 << 10;
/// From here on no address is given to a device, unless the guest is a wild one.
const CANARY: u64 = RAM_BASE + (144 << 10);
const CANARY_BYTE: u8 = 0xc5;
/// Rings of a queue: descriptors, available and used ring.
const QUEUE_BYTES: u64 = 0x1000;
const AVAIL: u64 = 0x800;
const USED: u64 = 0xc00;
/// Slots with a device, and one without.
const SLOTS: u8 = 5;
const DISK: u8 = 1;
const RNG: u8 = 2;
const CONSOLE: u8 = 3;
/// Entries of queues that are set up by the book.
const SIZE: u16 = 32;
/// Operations of one run: its time is bounded. Two shorter runs find more than one long one.
const MAX_OPERATIONS: usize = 200;
const NOW: Now = Now { mtime: 7 };

/// Frames are rarely longer than this: what holds them is copied often.
const SHORT_FRAME: usize = 2047;

thread_local! {
    /// RAM is used again: the kernel takes longer to give and take it than a run does.
    static RAM: RefCell<Memory> = RefCell::new(Memory::new(RAM_BYTES).expect("a little RAM"));
}

struct World<'a> {
    board: Board,
    mem: &'a mut Memory,
    /// The guest has made addresses that this harness doesn't know of.
    wild: bool,
    damaged: bool,
    restores: u32,
    /// Available indexes as the guest counts them.
    avail: [[u16; 2]; SLOTS as usize],
}

/// Any accesses, rings and events, with saves and restores in between.
pub fn virtqueues(data: &[u8]) {
    RAM.with_borrow_mut(|ram| {
        let restored = run(data, true, ram);
        // After a restore of a damaged state nothing is to be compared.
        if restored.damaged || restored.restores == 0 {
            return;
        }
        let straight = run(data, false, ram);
        assert!(
            (restored.state, restored.ram) == (straight.state, straight.ram),
            "a restore has changed the run"
        );
    });
}

/// How a run ended.
struct End {
    /// Something was restored from a state that was changed by hand.
    damaged: bool,
    /// How many other restores there were.
    restores: u32,
    state: BoardState,
    ram: Vec<u8>,
}

fn run(data: &[u8], restores: bool, ram: &mut Memory) -> End {
    let mut input = Input::new(data);
    let mut world = World::new(ram);
    for _ in 0..MAX_OPERATIONS {
        if input.is_empty() {
            break;
        }
        world.operation(&mut input, restores);
        world.take_outputs();
    }
    let ram = world.mem.slice(RAM_BASE, RAM_BYTES as usize);
    let ram = ram.expect("all of it").to_vec();
    if !world.wild {
        let canary = &ram[(CANARY - RAM_BASE) as usize..];
        assert!(
            canary == [CANARY_BYTE; (RAM_BASE + RAM_BYTES - CANARY) as usize],
            "a device has written where the guest let nobody write"
        );
    }
    let state = world.board.save();
    check_bounds(&state);
    through_bytes(&state);
    End {
        damaged: world.damaged,
        restores: world.restores,
        state,
        ram,
    }
}

impl<'a> World<'a> {
    fn new(mem: &'a mut Memory) -> Self {
        let config = BoardConfig {
            harts: 1,
            slots: vec![
                SlotConfig::Net { mac: [2; 6] },
                SlotConfig::Disk(DiskConfig {
                    sectors: 256,
                    read_only: false,
                    number: 0,
                }),
                SlotConfig::Rng,
                SlotConfig::Console,
            ],
            rtc_base_ns: 1,
        };
        let canary = [CANARY_BYTE; (RAM_BASE + RAM_BYTES - CANARY) as usize];
        let zeros = [0; (CANARY - RAM_BASE) as usize];
        mem.store(RAM_BASE, &zeros).expect("in RAM");
        mem.store(CANARY, &canary).expect("in RAM");
        Self {
            board: Board::new(&config, Vec::new()).expect("a board"),
            mem,
            wild: false,
            damaged: false,
            restores: 0,
            avail: [[0; 2]; SLOTS as usize],
        }
    }

    fn operation(&mut self, input: &mut Input<'_>, restores: bool) {
        let choice = input.byte();
        let slot = (choice >> 4) % SLOTS;
        let queue = u64::from(choice >> 7);
        match choice % 16 {
            0 => {
                let offset = u64::from(input.word() % 0x200);
                let size = 1 << (input.byte() % 4);
                let _ = self.board.read(register(slot, offset), size, NOW);
            }
            1 => {
                let offset = u64::from(input.byte()) * 4 % 0x200;
                let value = match offset {
                    0x80..0xb0 => (ring_address(input) >> ((offset & 4) * 8)) as u32,
                    _ => input.long() & 0x7fff,
                };
                self.write(slot, offset, value);
            }
            2 => self.set_up(slot, input),
            3 | 4 => {
                let table = ring(slot, queue);
                let index = u64::from(input.byte()) % u64::from(SIZE);
                self.descriptor(table + 16 * index, input);
            }
            5 | 6 => {
                let head = input.word() & 0x3f;
                self.offer(slot, queue, head);
                if choice & 1 == 0 {
                    self.write(slot, 0x50, queue as u32);
                }
            }
            7 => self.write(slot, 0x50, queue as u32),
            8 => {
                // Indexes, flags and event indexes anywhere in the rings.
                let at = ring(slot, queue) + AVAIL + u64::from(input.word()) % 0x800 / 2 * 2;
                self.store(at, &(input.word() & 0x7fff).to_le_bytes());
            }
            9 => self.request(slot, queue, input),
            10 => self.event(input),
            11 => self.finish_request(input),
            12 => {
                if restores {
                    self.restore();
                }
            }
            13 => {
                self.wild = true;
                let at = RAM_BASE + u64::from(input.long()) % (RAM_BYTES - 256);
                let len = input.byte().into();
                self.store(at, input.bytes(len));
            }
            14 => match input.byte() {
                0..4 => self.board.reset(),
                4..8 => {
                    self.wild = true;
                    self.damaged = true;
                    self.damage(input);
                }
                byte => self.write(slot, 0x64, byte.into()),
            },
            _ => self.write(slot, 0x70, input.byte().into()),
        }
    }

    fn write(&mut self, slot: u8, offset: u64, value: u32) {
        self.board
            .write(self.mem, register(slot, offset), 4, value.into(), NOW)
            .expect("a register of 4 bytes");
    }

    fn store(&mut self, at: u64, bytes: &[u8]) {
        let _ = self.mem.store(at, bytes);
    }

    /// Brings a device up by the book, with some of its features.
    fn set_up(&mut self, slot: u8, input: &mut Input<'_>) {
        let (low, size) = (input.long(), input.byte());
        let size = if size < 200 { SIZE } else { size.into() };
        self.write(slot, 0x70, 0);
        self.write(slot, 0x70, 3);
        self.write(slot, 0x14, 0);
        let at = register(slot, 0x10);
        let offered = self.board.read(at, 4, NOW);
        let offered = offered.expect("a register") as u32;
        for (half, features) in [(0, low & offered), (1, 1)] {
            self.write(slot, 0x24, half);
            self.write(slot, 0x20, features);
        }
        self.write(slot, 0x70, 11);
        for queue in 0..2 {
            self.write(slot, 0x30, queue as u32);
            self.write(slot, 0x38, size.into());
            let base = ring(slot, queue);
            for (offset, pa) in [(0x80, base), (0x90, base + AVAIL), (0xa0, base + USED)] {
                self.write(slot, offset, pa as u32);
                self.write(slot, offset + 4, (pa >> 32) as u32);
            }
            self.store(base + AVAIL, &[0; 4]);
            self.avail[usize::from(slot)][queue as usize] = 0;
            self.write(slot, 0x44, 1);
        }
        self.write(slot, 0x70, 15);
    }

    /// Any descriptor; its buffer or table ends before the canary, or behind RAM.
    fn descriptor(&mut self, at: u64, input: &mut Input<'_>) {
        let pa = address(input);
        let (kind, flags) = (input.word(), input.byte());
        let len = match kind & 7 {
            0 => u32::MAX - u32::from(kind),
            1 => 0,
            2 => 16 * u32::from(kind >> 8),
            3 => 512 * u32::from(kind >> 11),
            _ => u32::from(kind >> 3),
        };
        let (pa, len) = if pa < CANARY && pa + u64::from(len) > CANARY && len < 0x10_0000 {
            (pa, (CANARY - pa) as u32)
        } else {
            (pa, len)
        };
        let mut bytes = pa.to_le_bytes().to_vec();
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&u16::from(flags & 7).to_le_bytes());
        bytes.extend_from_slice(&u16::from(flags >> 3).to_le_bytes());
        self.store(at, &bytes);
    }

    fn offer(&mut self, slot: u8, queue: u64, head: u16) {
        let index = &mut self.avail[usize::from(slot)][queue as usize];
        let at = ring(slot, queue) + AVAIL;
        let entry = at + 4 + 2 * u64::from(*index % SIZE);
        *index = (*index + 1) & 0x7fff;
        let index = *index;
        self.store(entry, &head.to_le_bytes());
        self.store(at + 2, &index.to_le_bytes());
    }

    /// A disk's request by the book (virtio 1.2 section 5.2.6), or buffers for the others.
    fn request(&mut self, slot: u8, queue: u64, input: &mut Input<'_>) {
        let choice = input.byte();
        let (base, first) = (ring(slot, queue), u64::from(choice % 8) * 3);
        let buffers = RAM_BASE + 0x1_8000 + first * 0x800;
        let (kind, sector) = (u32::from(input.byte() % 16), u64::from(input.byte()));
        let sectors = u32::from(choice >> 5) + 1;
        self.store(buffers, &kind.to_le_bytes());
        self.store(buffers + 8, &sector.to_le_bytes());
        let readable = kind != 0 && kind != 8;
        for (n, (pa, len, flags)) in (first..).zip([
            (buffers, 16, 1),
            (buffers + 0x100, sectors * 512, if readable { 1 } else { 3 }),
            (buffers + 0x40, 1 + 19 * u32::from(choice & 16), 2),
        ]) {
            let mut bytes = pa.to_le_bytes().to_vec();
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(&u16::to_le_bytes(flags));
            bytes.extend_from_slice(&((n + 1) as u16).to_le_bytes());
            self.store(base + 16 * n, &bytes);
        }
        self.offer(slot, queue, first as u16);
        self.write(slot, 0x50, queue as u32);
    }

    /// Something comes from outside. What it carries can't be taken for an address in RAM.
    fn event(&mut self, input: &mut Input<'_>) {
        let choice = input.byte();
        let len = usize::from(input.word());
        let slot = if choice >= 240 {
            choice
        } else {
            choice % SLOTS
        };
        match choice >> 4 & 3 {
            0 => {
                let len = if choice >= 192 {
                    len
                } else {
                    len & SHORT_FRAME
                };
                let mut packet = vec![0x5a; 12 + len];
                packet[..12].copy_from_slice(&[0; 12]);
                let header = input.bytes(10);
                packet[..header.len()].copy_from_slice(header);
                packet.truncate(MAX_PACKET_BYTES + 1);
                let _ = self.board.receive_frame(self.mem, slot, &packet);
            }
            1 => {
                let bytes = vec![0x5b; len % 200];
                let _ = self.board.complete_entropy(self.mem, slot, &bytes);
            }
            2 => {
                let bytes = vec![0x5c; len % 6000];
                let room = self.board.port_room(slot);
                if let Ok(taken) = self.board.push_port_input(self.mem, slot, &bytes) {
                    // A damaged state may have devices elsewhere.
                    assert!(slot == CONSOLE || self.damaged);
                    assert_eq!(taken, bytes.len().min(room));
                }
            }
            _ => {
                self.board.push_console_input(&vec![0x5d; len % 6000]);
            }
        }
        if let Some((slot, wanted)) = self.board.entropy_wanted() {
            assert!((RNG, true) == (slot, wanted <= 64) || self.wild);
        }
    }

    /// A disk's result: of a request that is under way, right or not, or of none.
    fn finish_request(&mut self, input: &mut Input<'_>) {
        let (choice, which) = (input.byte(), usize::from(input.byte()));
        let pending = self.board.disk_requests(&mut [0; map::VIRTIO_SLOTS]);
        assert!(pending.len() <= MAX_REQUESTS);
        let Some(request) = pending.get(which % pending.len().max(1)) else {
            let _ = self
                .board
                .complete_disk(self.mem, choice % SLOTS, input.quad(), 0, &[]);
            return;
        };
        let bytes = match request.op {
            DiskOp::Read => request.bytes as usize,
            _ => 0,
        };
        let (id, status) = (request.id, choice & 3);
        let bytes = if status != 0 { 0 } else { bytes };
        let right = choice < 200;
        let data = vec![0x5e; if right { bytes } else { bytes + 1 }];
        let result = self.board.complete_disk(self.mem, DISK, id, status, &data);
        let fits = right && status < 2;
        assert!(result.is_ok() == fits || self.damaged, "{result:?}");
    }

    fn take_outputs(&mut self) {
        for DeviceOutput::Frame { device, bytes } in self.board.take_outputs() {
            assert!(device < SLOTS && bytes.len() <= MAX_PACKET_BYTES);
        }
        let text = self.board.take_console();
        assert!(text.len() <= MAX_TEXT_BYTES * 256);
        self.board.take_finisher_request();
        self.board.take_work();
        assert!(!self.board.has_outputs());
    }

    fn restore(&mut self) {
        let state = self.board.save();
        check_bounds(&state);
        self.board = Board::restore(state.clone()).expect("own state restores");
        assert!(self.board.save() == state);
        self.restores += 1;
    }

    /// Restores a state that somebody has changed, if it is one.
    fn damage(&mut self, input: &mut Input<'_>) {
        let mut bytes = postcard::to_stdvec(&self.board.save()).expect("encodes");
        for _ in 0..=input.byte() % 4 {
            let at = input.word() as usize % bytes.len();
            bytes[at] = input.byte();
        }
        if let Ok(state) = postcard::from_bytes::<BoardState>(&bytes)
            && state.slots.len() == map::VIRTIO_SLOTS
            && let Ok(board) = Board::restore(state)
        {
            self.board = board;
            check_bounds(&self.board.save());
        }
    }
}

fn register(slot: u8, offset: u64) -> u64 {
    map::virtio_base(slot.into()) + offset
}

/// Where the rings of a queue are by the book.
fn ring(slot: u8, queue: u64) -> u64 {
    RAM_BASE + (2 * u64::from(slot) + queue) * QUEUE_BYTES
}

/// An address of a device's choosing: before the canary, at the end of RAM and behind it, or
/// nowhere.
fn address(input: &mut Input<'_>) -> u64 {
    let (kind, offset) = (input.byte(), u64::from(input.word()));
    match kind {
        0 => RAM_BASE + RAM_BYTES + offset,
        1 => u64::MAX - offset,
        2 => offset,
        3 => RAM_BASE - offset,
        _ => RAM_BASE + (offset + u64::from(kind % 3) * 0xa000),
    }
}

/// The same for a ring, which ends before the canary too.
fn ring_address(input: &mut Input<'_>) -> u64 {
    let pa = address(input);
    let last = CANARY - QUEUE_BYTES;
    if (last..CANARY).contains(&pa) {
        last
    } else {
        pa
    }
}

/// A state as it goes to a disk and comes back.
fn through_bytes(state: &BoardState) {
    let bytes = postcard::to_stdvec(state).expect("encodes");
    let again: BoardState = postcard::from_bytes(&bytes).expect("own encoding");
    assert!(again == *state, "the encoding is not one to one");
}

/// What devices may keep.
fn check_bounds(state: &BoardState) {
    for slot in &state.slots {
        match slot {
            SlotState::Net(net) => {
                let waiting = &net.device.waiting;
                assert!(waiting.len() <= RX_QUEUE_FRAMES);
                assert!(waiting.iter().map(Vec::len).sum::<usize>() <= RX_QUEUE_BYTES);
            }
            SlotState::Disk(disk) => {
                assert!(disk.device.held.len() <= MAX_REQUESTS);
                let held: usize = disk.device.held.iter().map(|held| held.data.len()).sum();
                assert!(held as u64 <= MAX_HELD_BYTES);
            }
            SlotState::Console(console) => {
                assert!(console.device.waiting.len() <= INPUT_QUEUE_BYTES);
            }
            SlotState::Rng(_) | SlotState::Empty => {}
        }
    }
}
