//! Disk requests leave the machine and come back as records. The driver is the test itself.

use super::guest::*;
use crate::*;
use twinvm_devices::{Now, map};
use twinvm_log::{Body, Record};

const SLOT: usize = 2;
const RING: u64 = RAM_BASE + 0x10_0000;
const HEADER: u64 = RING + 0x4000;
const DATA: u64 = RING + 0x8000;
const STATUS: u64 = DATA + 0x1000;

fn disk_config() -> MachineConfig {
    let mut config = config(counter());
    config.slots.push(SlotConfig::Disk(DiskConfig {
        sectors: 100,
        read_only: false,
        number: 0,
    }));
    config
}

fn register(m: &mut Machine, offset: u64, value: u64) {
    let at = map::virtio_base(SLOT) + offset;
    let now = Now { mtime: 0 };
    m.board.write(&mut m.mem, at, 4, value, now).unwrap();
}

/// A machine whose disk has a driver and two requests: a read of one sector, and a write of the
/// same sector, which waits for it.
pub(crate) fn busy() -> Machine {
    let mut m = Machine::new(disk_config(), POWER_ON).unwrap();
    m.run(1000);
    for (offset, value) in [
        (0x70, 3),
        (0x24, 1),
        (0x20, 1),
        (0x70, 11),
        (0x38, 8),
        (0x80, RING),
        (0x90, RING + 0x1000),
        (0xa0, RING + 0x2000),
        (0x44, 1),
        (0x70, 15),
    ] {
        register(&mut m, offset, value);
    }
    // Descriptors: address, length, flags (next 1, writable 2), next.
    let descriptors = [
        (HEADER, 16, 1, 1),
        (DATA, 512, 3, 2),
        (STATUS, 1, 2, 0),
        (HEADER + 16, 16, 1, 4),
        (DATA, 512, 1, 5),
        (STATUS + 1, 1, 2, 0),
    ];
    for (at, (pa, len, flags, next)) in (RING..).step_by(16).zip(descriptors) {
        m.mem.store_u64(at, pa).unwrap();
        m.mem.store_u32(at + 8, len).unwrap();
        m.mem.store_u16(at + 12, flags).unwrap();
        m.mem.store_u16(at + 14, next).unwrap();
    }
    m.mem.store_u32(HEADER + 16, 1).unwrap();
    m.mem
        .store_u64(RING + 0x1000, 0x0003_0000_0002_0000)
        .unwrap();
    m.mem.store(DATA, &[9; 512]).unwrap();
    register(&mut m, 0x50, 0);
    m
}

fn done(m: &Machine, id: u64, status: u8, data: &[u8]) -> Record {
    Record {
        icount: m.icount(),
        body: Body::BlockDone {
            device: SLOT as u8,
            id,
            status,
            data: data.to_vec(),
        },
    }
}

fn all(m: &Machine) -> Vec<DiskRequest> {
    m.disk_requests(&mut [0; VIRTIO_SLOTS])
}

#[test]
fn requests_are_handed_out_once_and_again_after_a_restore() {
    let mut m = busy();
    let mut since = [0; VIRTIO_SLOTS];
    let first = m.disk_requests(&mut since);
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].op, first[0].device), (DiskOp::Read, SLOT as u8));
    assert_eq!(m.disk_requests(&mut since), []);

    let mut copy = Machine::restore(&m.save(false).unwrap(), Some(disk_config())).unwrap();
    assert_eq!(all(&copy), first);
    let read = done(&m, 0, 0, &[5; 512]);
    m.inject(&read).unwrap();
    copy.inject(&read).unwrap();
    let second = m.disk_requests(&mut since);
    assert_eq!((second.len(), second[0].id), (1, 1));
    assert_eq!(
        &second[0].data[..],
        [9; 512],
        "as it was when it was asked for"
    );
    assert_eq!(all(&copy), second, "what is done doesn't go out again");
    assert_eq!(m.digest(), copy.digest());
    let write = done(&m, 1, 1, &[]);
    for m in [&mut m, &mut copy] {
        m.inject(&write).unwrap();
        assert_eq!(m.mem.slice(DATA, 512).unwrap(), [5; 512]);
        assert_eq!(m.mem.slice(STATUS, 2).unwrap(), [0, 1]);
        m.run(9000);
        assert_eq!(all(m), []);
    }
    assert_eq!(m.digest(), copy.digest());
}

#[test]
fn what_is_in_flight_is_in_the_digest() {
    let (mut a, mut b) = (busy(), busy());
    assert_eq!(a.digest(), b.digest());
    let failed = done(&a, 0, 1, &[]);
    a.inject(&failed).unwrap();
    assert_ne!(a.digest().devices, b.digest().devices);
}

#[test]
fn results_that_nobody_waits_for_are_refused() {
    let mut m = busy();
    let before = m.digest();
    let record = |m: &Machine, device, id, status, bytes| {
        let Record { icount, body } = done(m, id, status, &vec![0; bytes]);
        let Body::BlockDone { status, data, .. } = body else {
            unreachable!()
        };
        let body = Body::BlockDone {
            device,
            id,
            status,
            data,
        };
        Record { icount, body }
    };
    for (device, id, status, bytes, why) in [
        (2, 1, 0, 0, "request 1 is not in flight"),
        (2, 0, 0, 0, "0 bytes of data, expected 512"),
        (2, 0, 1, 512, "512 bytes of data, expected 0"),
        (2, 0, 2, 0, "status 2 is neither done nor failed"),
        (0, 0, 0, 512, "virtio slot 0 holds no disk"),
        (200, 0, 0, 512, "virtio slot 200 holds no disk"),
    ] {
        let error = m.inject(&record(&m, device, id, status, bytes));
        let error = error.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert_eq!(m.digest(), before);
    }
}

#[test]
fn a_disk_of_another_size_is_another_machine() {
    let mut m = busy();
    let mut other = disk_config();
    other.slots[SLOT] = SlotConfig::Disk(DiskConfig {
        sectors: 101,
        read_only: false,
        number: 0,
    });
    let error = Machine::restore(&m.save(false).unwrap(), Some(other))
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "the snapshot's virtio slot 2 is \"disk 0 of 100 sectors\", this machine's is \"disk 0 of \
         101 sectors\"; both must be equal"
    );
}

#[test]
fn a_reset_of_the_machine_keeps_what_may_still_happen() {
    let mut m = busy();
    m.board.reset();
    assert_eq!(all(&m).len(), 1);
    m.inject(&done(&m, 0, 0, &[5; 512])).unwrap();
    assert_eq!(all(&m), [], "what had waited is forgotten");
    assert_eq!(m.mem.slice(DATA, 512).unwrap(), [9; 512]);
}
