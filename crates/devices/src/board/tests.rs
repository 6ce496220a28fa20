use super::*;
use crate::testing::{
    BUFFERS, Desc, avail_ring, desc_table, memory, put_desc, readable, saves_every_bit, used_ring,
    writable,
};

const NOW: Now = Now { mtime: 1000 };
const NET: u8 = 0;
const RNG: u8 = 2;

fn config() -> BoardConfig {
    BoardConfig {
        harts: 2,
        slots: vec![
            SlotConfig::Net { mac: [2; 6] },
            SlotConfig::Empty,
            SlotConfig::Rng,
        ],
        rtc_base_ns: 1_000_000,
    }
}

fn board() -> Board {
    Board::new(&config(), vec![0x13, 0x05, 0x10]).unwrap()
}

/// A board with RAM and a guest that pokes it.
struct Guest {
    board: Board,
    mem: Memory,
}

impl Guest {
    fn new() -> Self {
        Self {
            board: board(),
            mem: memory(),
        }
    }

    fn write(&mut self, pa: u64, size: usize, value: u64) {
        self.board
            .write(&mut self.mem, pa, size, value, NOW)
            .unwrap_or_else(|_| panic!("store of {size} at {pa:#x}"));
    }

    fn read(&mut self, pa: u64, size: usize) -> u64 {
        self.board
            .read(pa, size, NOW)
            .unwrap_or_else(|_| panic!("load of {size} at {pa:#x}"))
    }

    /// Enables `irq` for supervisor mode of hart 1, as Linux would.
    fn enable(&mut self, irq: u32) {
        self.write(map::PLIC_BASE + 4 * u64::from(irq), 4, 1);
        let at = map::PLIC_BASE + 0x2000 + 3 * 0x80;
        let old = self.read(at, 4);
        self.write(at, 4, old | 1 << irq);
    }

    fn claim(&mut self) -> u64 {
        self.read(map::PLIC_BASE + 0x20_0000 + 3 * 0x1000 + 4, 4)
    }

    fn complete(&mut self, irq: u64) {
        self.write(map::PLIC_BASE + 0x20_0000 + 3 * 0x1000 + 4, 4, irq);
    }

    fn seip(&self) -> bool {
        self.board.interrupt_lines(1).seip
    }

    /// Runs the driver of the device in `slot` up to DRIVER_OK.
    fn start(&mut self, slot: u8, queues: usize) {
        let base = map::virtio_base(slot.into());
        let mut set = |offset, value| self.write(base + offset, 4, value);
        set(0x70, 3);
        set(0x24, 1);
        set(0x20, 1);
        set(0x70, 11);
        for queue in 0..queues {
            let at = queue + usize::from(slot);
            set(0x30, queue as u64);
            set(0x38, 8);
            set(0x80, desc_table(at));
            set(0x90, avail_ring(at));
            set(0xa0, used_ring(at));
            set(0x44, 1);
        }
        set(0x70, 15);
    }

    /// Offers one buffer as the `n`th of this queue, and notifies.
    fn offer(&mut self, slot: u8, queue: usize, n: u16, desc: Desc) {
        let at = queue + usize::from(slot);
        put_desc(&mut self.mem, desc_table(at), n, desc);
        self.mem
            .store_u16(avail_ring(at) + 4 + 2 * u64::from(n), n)
            .unwrap();
        self.mem.store_u16(avail_ring(at) + 2, n + 1).unwrap();
        self.write(map::virtio_base(slot.into()) + 0x50, 4, queue as u64);
    }
}

#[test]
fn holes_sizes_and_alignment_fault() {
    let mut guest = Guest::new();
    let mut faults = |pa, size| {
        let Guest { board, mem } = &mut guest;
        let read = board.read(pa, size, NOW).is_err();
        let write = board.write(mem, pa, size, 0, NOW).is_err();
        assert_eq!(read, write, "loads and stores agree at {pa:#x}");
        read
    };
    let answers: &[(u64, usize)] = &[
        (0x1000, 1),
        (0x1000, 8),
        (0xfff8, 8),
        (0x10_0000, 4),
        (0x10_0000, 2),
        (0x10_1000, 4),
        (0x10_1020, 4),
        (0x200_0000, 4),
        (0x200_4000, 8),
        (0x200_bff8, 8),
        (0xc00_0000, 4),
        (0xc5f_fffc, 4),
        (0x1000_0000, 1),
        (0x1000_0007, 1),
        (0x1000_0004, 4),
        (0x1000_1000, 4),
        (0x1000_1100, 1),
        (0x1000_11ff, 1),
        (0x1000_2000, 4),
        (0x1000_8000, 4),
    ];
    for (pa, size) in answers {
        assert!(!faults(*pa, *size), "{size} bytes at {pa:#x}");
    }
    let holes: &[(u64, usize)] = &[
        (0, 1),
        (0xfff, 1),
        (0x1_0000, 1),
        (0x10_0000, 1),
        (0x10_0000, 8),
        (0x10_1000, 1),
        (0x10_1024, 4),
        (0x10_2000, 4),
        (0x200_0000, 8),
        (0x200_4000, 2),
        (0x200_c000, 4),
        (0xbff_fffc, 4),
        (0xc00_0000, 8),
        (0xc60_0000, 4),
        (0x1000_0008, 1),
        (0x1000_1000, 1),
        (0x1000_1200, 4),
        (0x1000_9000, 4),
        (0x3000_0000, 4),
        (0x2000_0000, 4),
        (0x7fff_fffc, 4),
        (0x8000_0000, 4),
        (u64::MAX, 1),
        (0x1002, 4),
        (0x200_4004, 8),
        (0x1000_1072, 4),
        (0x1000, 3),
        (0x1000, 0),
        (0x1000, 16),
    ];
    for (pa, size) in holes {
        assert!(faults(*pa, *size), "{size} bytes at {pa:#x}");
    }
}

#[test]
fn the_rom_reads_and_ignores_stores() {
    let mut guest = Guest::new();
    guest.write(0x1000, 8, u64::MAX);
    assert_eq!(guest.read(0x1000, 4), 0x10_0513);
    assert_eq!(guest.read(0x1002, 1), 0x10);
    assert_eq!(guest.read(0x1008, 8), 0, "zero behind its contents");
    assert_eq!(guest.board.rom(), [0x13, 0x05, 0x10]);
}

#[test]
fn configurations_are_checked() {
    let refused = |change: fn(&mut BoardConfig), rom| {
        let mut config = config();
        change(&mut config);
        Board::new(&config, vec![0; rom]).unwrap_err()
    };
    assert_eq!(refused(|c| c.harts = 0, 0), BoardError::Harts(0));
    assert_eq!(refused(|c| c.harts = 33, 0), BoardError::Harts(33));
    let nine = |c: &mut BoardConfig| c.slots = vec![SlotConfig::Rng; 9];
    assert_eq!(refused(nine, 0), BoardError::Slots(9));
    assert_eq!(refused(|_| {}, 0xf001), BoardError::Rom(0xf001));
}

#[test]
fn software_interrupts_and_timers_reach_their_hart() {
    let mut guest = Guest::new();
    guest.write(map::CLINT_BASE + 4, 4, 1);
    assert!(!guest.board.interrupt_lines(0).msip);
    assert!(guest.board.interrupt_lines(1).msip);
    assert_eq!(guest.board.interrupt_lines(99), Lines::default());
    guest.write(map::CLINT_BASE + 0x4008, 8, 55);
    assert_eq!(guest.board.mtimecmp(1), 55);
    assert_eq!(guest.read(map::CLINT_BASE + 0xbff8, 8), NOW.mtime);
}

#[test]
fn console_input_interrupts_and_output_comes_out() {
    let mut guest = Guest::new();
    guest.enable(map::UART_IRQ);
    guest.write(map::UART_BASE + 1, 1, 1);
    assert!(!guest.board.has_outputs());
    assert_eq!(guest.board.push_console_input(b"k"), 1);
    assert!(guest.seip());
    assert!(!guest.board.interrupt_lines(0).seip);
    assert!(!guest.board.interrupt_lines(1).meip);
    assert_eq!(guest.claim(), 10);
    assert_eq!(guest.read(map::UART_BASE, 1), u64::from(b'k'));
    guest.complete(10);
    assert!(!guest.seip());
    guest.write(map::UART_BASE, 1, u64::from(b'!'));
    assert!(guest.board.has_outputs());
    assert_eq!(guest.board.take_console(), b"!");
    assert!(!guest.board.has_outputs());
    assert_eq!(guest.board.console_room(), 4096);
}

#[test]
fn frames_go_in_and_out_with_their_interrupt() {
    let mut guest = Guest::new();
    guest.enable(map::virtio_irq(0));
    assert!(!guest.board.net_room(NET));
    guest.start(NET, 2);
    assert!(guest.board.net_room(NET));
    guest.offer(NET, 0, 0, writable(BUFFERS, 1526));
    guest.offer(NET, 1, 0, readable(BUFFERS + 0x1000, 72));
    let expected = DeviceOutput::Frame {
        device: NET,
        bytes: vec![0; 72],
    };
    assert!(guest.board.has_outputs());
    assert_eq!(guest.board.take_outputs(), [expected]);
    assert!(guest.seip());
    assert_eq!(guest.claim(), 1);
    guest.write(map::virtio_base(0) + 0x64, 4, 1);
    guest.complete(1);
    assert!(!guest.seip());

    let Guest { board, mem } = &mut guest;
    let packet = [[0; 12].as_slice(), &[6; 60]].concat();
    board.receive_frame(mem, NET, &packet).unwrap();
    assert!(guest.seip());
    assert_eq!(guest.mem.slice(BUFFERS + 12, 60).unwrap(), [6; 60]);
}

#[test]
fn entropy_is_asked_for_and_given() {
    let mut guest = Guest::new();
    guest.enable(map::virtio_irq(2));
    guest.start(RNG, 1);
    assert_eq!(guest.board.entropy_wanted(), None);
    guest.offer(RNG, 0, 0, writable(BUFFERS, 48));
    assert_eq!(guest.board.entropy_wanted(), Some((RNG, 48)));
    let Guest { board, mem } = &mut guest;
    board.complete_entropy(mem, RNG, &[9; 48]).unwrap();
    assert!(guest.seip());
    assert_eq!(guest.board.entropy_wanted(), None);
    assert_eq!(guest.mem.slice(BUFFERS, 48).unwrap(), [9; 48]);
}

#[test]
fn events_for_the_wrong_slot_are_refused() {
    let mut guest = Guest::new();
    let Guest { board, mem } = &mut guest;
    for slot in [1, RNG, 8, 255] {
        assert!(!board.net_room(slot));
        assert!(board.receive_frame(mem, slot, &[0; 60]).is_err());
    }
    for slot in [NET, 1, 8, 255] {
        assert!(board.complete_entropy(mem, slot, &[0; 8]).is_err());
    }
}

#[test]
fn the_alarm_reaches_the_interrupt_controller() {
    let mut guest = Guest::new();
    guest.enable(map::RTC_IRQ);
    guest.write(map::RTC_BASE + 0x10, 4, 1);
    guest.write(map::RTC_BASE + 0x08, 4, 1_000_000 + 100_000 + 500);
    assert_eq!(guest.board.alarm_deadline(), Some(1005));
    guest.board.update_time(Now { mtime: 1004 });
    assert!(!guest.seip());
    guest.board.update_time(Now { mtime: 1005 });
    assert!(guest.seip());
    assert_eq!(guest.claim(), 11);
}

#[test]
fn the_finisher_asks_the_machine() {
    let mut guest = Guest::new();
    guest.write(map::FINISHER_BASE, 4, 0x7777);
    assert!(guest.board.has_outputs());
    assert_eq!(
        guest.board.take_finisher_request(),
        Some(FinisherRequest::Reset)
    );
    assert!(!guest.board.has_outputs());
}

#[test]
fn a_reset_restores_power_on_state_but_keeps_the_time() {
    let mut guest = Guest::new();
    guest.enable(map::UART_IRQ);
    guest.write(map::UART_BASE + 1, 1, 1);
    guest.start(NET, 2);
    guest.write(map::CLINT_BASE, 4, 1);
    guest.board.push_console_input(b"abc");
    guest.write(map::RTC_BASE, 4, 0);
    let set = guest.board.save().rtc.offset_ns;
    assert_ne!(set, 1_000_000);
    guest.board.reset();
    let mut fresh = board().save();
    fresh.rtc.offset_ns = set;
    assert_eq!(guest.board.save(), fresh);
}

fn busy() -> Guest {
    let mut guest = Guest::new();
    guest.enable(map::UART_IRQ);
    guest.enable(map::virtio_irq(0));
    guest.write(map::UART_BASE + 1, 1, 1);
    guest.start(NET, 2);
    guest.start(RNG, 1);
    guest.offer(RNG, 0, 0, writable(BUFFERS, 48));
    guest.board.push_console_input(b"abc");
    assert!(!guest.board.take_work(), "that was little");
    guest
}

#[test]
fn saves_as_a_whole() {
    let Guest { board, mut mem } = busy();
    saves_every_bit(board, |board| {
        board.receive_frame(&mut mem, NET, &[0; 72]).unwrap();
        board.complete_entropy(&mut mem, RNG, &[2; 48]).unwrap();
        for (pa, value) in [
            (map::CLINT_BASE, 1),
            (map::RTC_BASE + 8, 7),
            (map::FINISHER_BASE, 0x5555),
            (map::PLIC_BASE + 8, 3),
        ] {
            board.write(&mut mem, pa, 4, value, NOW).unwrap();
        }
        board.read(map::UART_BASE, 1, NOW).unwrap();
    });
}

#[test]
#[should_panic(expected = "before its outputs were taken")]
fn saving_with_outputs_left_is_our_fault() {
    let mut guest = Guest::new();
    guest.write(map::UART_BASE, 1, 1);
    guest.board.save();
}

#[test]
fn refuses_states_that_contradict_themselves() {
    let good = busy().board.save();
    assert!(Board::restore(good.clone()).is_ok());
    type Spoil = fn(&mut BoardState);
    let cases: [(&str, Spoil); 6] = [
        ("rom", |s| s.rom = vec![0; 0xf001]),
        ("slots", |s| s.slots.truncate(7)),
        ("harts", |s| {
            s.clint.msip.pop();
            s.clint.mtimecmp.pop();
        }),
        ("line high in the PLIC only", |s| {
            s.plic.level[0] |= 1 << 5;
            s.plic.pending[0] |= 1 << 5;
        }),
        ("line high in the device only", |s| s.plic.level[0] = 0),
        ("line of no device", |s| {
            s.plic.level[2] |= 1;
            s.plic.pending[2] |= 1;
        }),
    ];
    for (name, spoil) in cases {
        let mut state = good.clone();
        spoil(&mut state);
        assert!(Board::restore(state).is_err(), "{name}");
    }
}

#[test]
fn the_serial_port_takes_accesses_of_any_size() {
    let mut guest = Guest::new();
    for (size, byte) in [(1, b'a'), (2, b'b'), (4, b'c'), (8, b'd')] {
        guest.write(map::UART_BASE, size, 0x100 | u64::from(byte));
        assert_eq!(guest.read(map::UART_BASE, size), 0);
    }
    assert_eq!(guest.board.take_console(), b"abcd");
}
