//! A guest that makes its devices work hard.

use super::guest::*;
use crate::*;
use twinvm_devices::{Now, map};
use twinvm_log::{Body, Record};

const RING: u64 = RAM_BASE + 0x40_0000;
const AVAIL: u64 = RING + 0x1000;
const USED: u64 = RING + 0x2000;
const TABLE: u64 = RING + 0x3000;
/// Descriptors of each buffer, beside the one that leads to them.
const EACH: u64 = 17;

/// A guest that notifies its card for ever. A packet waits, for which the card looks at 255
/// mergeable buffers again each time, and finds too little room.
fn notifier() -> Machine {
    let notify = map::virtio_base(0) + 0x50;
    let guest = Asm::default()
        .address(T0, notify as u32)
        // sw x0, 0(t0)
        .op(0x0002_a023)
        .loop_back(4);
    let mut m = machine(guest);
    m.mem.store_u64(RING, TABLE).unwrap();
    m.mem.store_u64(RING + 8, (4 << 32) | (16 * EACH)).unwrap();
    for i in 0..EACH {
        let (next, flags) = if i + 1 < EACH { (i + 1, 3) } else { (0, 2) };
        m.mem.store_u64(TABLE + 16 * i, TABLE).unwrap();
        m.mem
            .store_u64(TABLE + 16 * i + 8, next << 48 | flags << 32)
            .unwrap();
    }
    m.mem.store_u32(AVAIL, 255 << 16).unwrap();
    let now = Now { mtime: 0 };
    for (offset, value) in [
        (0x70, 3),
        (0x24, 0),
        (0x20, 1 << 15 | 1 << 28),
        (0x24, 1),
        (0x20, 1),
        (0x70, 11),
        (0x38, 256),
        (0x80, RING),
        (0x90, AVAIL),
        (0xa0, USED),
        (0x44, 1),
        (0x70, 15),
    ] {
        let at = map::virtio_base(0) + offset;
        m.board.write(&mut m.mem, at, 4, value, now).unwrap();
    }
    let frame = vec![0; 72];
    let body = Body::NetRx { device: 0, frame };
    m.inject(&Record { icount: 0, body }).unwrap();
    m
}

#[test]
fn much_work_of_devices_ends_a_run_and_nothing_else_changes() {
    let end = 1000;
    let mut m = notifier();
    let mut runs = 0;
    let mut before = m.icount();
    while m.run(end) == Exit::Devices {
        runs += 1;
        assert!(m.icount() - before <= 8, "from {before} to {}", m.icount());
        before = m.icount();
    }
    assert_eq!(m.icount(), end);
    assert!(runs > 400, "{runs}");
    // However it is cut.
    let mut other = notifier();
    for until in 1..=end {
        while other.run(until) == Exit::Devices {}
    }
    assert_eq!(other.digest(), m.digest());
}
