//! Text goes out of a virtio console and input comes in by records. The driver is the test itself.

use super::guest::*;
use crate::*;
use twinvm_devices::{Now, map};
use twinvm_log::{Body, Record};

const SLOT: usize = 2;
const RINGS: [u64; 2] = [RAM_BASE + 0x10_0000, RAM_BASE + 0x11_0000];
const INPUT: u64 = RAM_BASE + 0x12_0000;
const TEXT: u64 = INPUT + 0x1000;

fn console_config() -> MachineConfig {
    let mut config = config(counter());
    config.slots.push(SlotConfig::Console);
    config
}

fn register(m: &mut Machine, offset: u64, value: u64) {
    let at = map::virtio_base(SLOT) + offset;
    let now = Now { mtime: 0 };
    m.board.write(&mut m.mem, at, 4, value, now).unwrap();
}

/// A machine whose console has a driver, a buffer of 4 bytes for input and one with text.
fn running() -> Machine {
    let mut m = Machine::new(console_config(), POWER_ON).unwrap();
    m.run(1000);
    for (offset, value) in [(0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11)] {
        register(&mut m, offset, value);
    }
    for ((queue, ring), (pa, flags)) in (0..).zip(RINGS).zip([(INPUT, 2), (TEXT, 0)]) {
        for (offset, value) in [
            (0x30, queue),
            (0x38, 8),
            (0x80, ring),
            (0x90, ring + 0x1000),
            (0xa0, ring + 0x2000),
            (0x44, 1),
        ] {
            register(&mut m, offset, value);
        }
        m.mem.store_u64(ring, pa).unwrap();
        m.mem.store_u32(ring + 8, 4).unwrap();
        m.mem.store_u16(ring + 12, flags).unwrap();
        m.mem.store_u32(ring + 0x1000, 1 << 16).unwrap();
    }
    m.mem.store(TEXT, b"ping").unwrap();
    register(&mut m, 0x70, 15);
    m
}

fn typed(m: &Machine, device: u8, bytes: &[u8]) -> Record {
    Record {
        icount: m.icount(),
        body: Body::PortRx {
            device,
            bytes: bytes.to_vec(),
        },
    }
}

#[test]
fn text_out_and_input_in() {
    let mut m = running();
    assert_eq!(m.config().console_slot(), Some(SLOT as u8));
    assert_eq!(m.take_console(), b"ping");
    assert_eq!(m.port_room(SLOT as u8), 4096);
    m.inject(&typed(&m, SLOT as u8, b"pong!")).unwrap();
    assert_eq!(m.ram(INPUT, 5), Some(&b"pong\0"[..]));
    assert_eq!(m.port_room(SLOT as u8), 4095);

    // The byte that waits is part of the machine.
    let bytes = m.save(false).unwrap();
    let mut copy = Machine::restore(&bytes, Some(console_config())).unwrap();
    assert_eq!(copy.digest(), m.digest());
    assert_eq!(copy.port_room(SLOT as u8), 4095);
}

#[test]
fn input_that_is_not_for_it_is_refused() {
    let mut m = running();
    m.take_console();
    let refused = |m: &mut Machine, device, len| {
        let before = m.digest();
        let error = m.inject(&typed(m, device, &vec![b'x'; len])).unwrap_err();
        assert_eq!(
            error,
            InjectError::Device {
                device,
                what: "console input",
                icount: 1000
            }
        );
        assert_eq!(m.digest(), before);
    };
    for device in [0, 1, 3, 200] {
        refused(&mut m, device, 1);
        refused(&mut m, device, 0);
    }
    refused(&mut m, SLOT as u8, 4097);
    register(&mut m, 0x70, 0);
    assert_eq!(m.port_room(SLOT as u8), 0);
    refused(&mut m, SLOT as u8, 1);
}

#[test]
fn much_text_ends_a_run_and_nothing_else_changes() {
    // 4096 bytes of RAM at a time through the SBI, for ever.
    let guest = || {
        Asm::default()
            .address(A1, 0x8040_0000)
            .li32(A0, 4096)
            .li(12, 0)
            .sbi(0x4442_434e, 0)
            .loop_back(40)
    };
    let end = 20_000;
    let mut m = machine(guest());
    let (mut runs, mut text) = (0, 0);
    while m.run(end) == Exit::Console {
        let piece = m.take_console().len();
        assert!((1 << 20..=(1 << 20) + 4096).contains(&piece), "{piece}");
        (runs, text) = (runs + 1, text + piece);
    }
    text += m.take_console().len();
    assert_eq!(m.icount(), end);
    assert!(runs > 5 && text > 5 << 20, "{runs} runs, {text} bytes");
    // Nor does it matter if nobody takes it.
    let mut other = machine(guest());
    while other.run(end) == Exit::Console {}
    assert_eq!(other.take_console().len(), text);
    assert_eq!(other.digest(), m.digest());
}
