use super::request::STATUS_UNSUPP;
use super::*;
use crate::testing::{
    BUFFERS, Bench, Desc, INDIRECT, Random, put_desc, readable, saves_every_bit, writable,
};
use crate::virtio::feature;

mod bounds;
mod state;

const SECTORS: u64 = 4096;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const HEADERS: u64 = BUFFERS;
const STATUSES: u64 = BUFFERS + 0x8000;
/// Where the data of tests begins, a sector for each request.
const DATA: u64 = BUFFERS + 0x1_0000;
/// What stands in a status byte that nobody has written.
const UNTOUCHED: u8 = 0xee;

fn config() -> DiskConfig {
    DiskConfig {
        sectors: SECTORS,
        read_only: false,
        number: 2,
    }
}

/// A disk, its driver, and the requests that have left.
struct Guest {
    bench: Bench<VirtioBlk>,
    /// Requests offered so far: each has a header, a status byte and a sector of data of its own.
    count: u64,
    since: u64,
}

impl Guest {
    fn new() -> Self {
        Self::with(config(), 256)
    }

    fn with(config: DiskConfig, size: u16) -> Self {
        let mut guest = Self {
            bench: Bench::new(VirtioBlk::new(config)),
            count: 0,
            since: 0,
        };
        guest.start(size);
        guest
    }

    /// A driver that flushes, as all do that know how.
    fn start(&mut self, size: u16) {
        self.start_with(size, FEATURE_FLUSH);
    }

    fn start_with(&mut self, size: u16, features: u64) {
        self.bench
            .start_with(feature::INDIRECT_DESC | features, size);
    }

    fn header(&mut self, kind: u32, sector: u64) -> u64 {
        let at = HEADERS + 16 * (self.count % 512);
        let mem = &mut self.bench.mem;
        mem.store_u32(at, kind).unwrap();
        mem.store_u32(at + 4, 0xffff_ffff).unwrap();
        mem.store_u64(at + 8, sector).unwrap();
        at
    }

    /// Offers a request with these data buffers; its status byte.
    fn offer(&mut self, kind: u32, sector: u64, data: &[Desc]) -> u64 {
        let header = self.header(kind, sector);
        let status = STATUSES + self.count % 512;
        self.count += 1;
        self.bench.mem.store(status, &[UNTOUCHED]).unwrap();
        let chain = [&[readable(header, 16)], data, &[writable(status, 1)]].concat();
        self.bench.offer(0, &chain);
        status
    }

    /// Reads into, or writes from, the guest's sector of the same number.
    fn transfer(&mut self, kind: u32, sector: u64, sectors: u32) -> u64 {
        let at = DATA + sector * SECTOR_BYTES;
        let data = match kind {
            IN => writable(at, sectors * 512),
            _ => readable(at, sectors * 512),
        };
        self.offer(kind, sector, &[data])
    }

    fn clear(&mut self, kind: u32, sector: u64, sectors: u32, flags: u32) -> u64 {
        let at = DATA + 16 * (self.count % 512);
        let mem = &mut self.bench.mem;
        mem.store_u64(at, sector).unwrap();
        mem.store_u32(at + 8, sectors).unwrap();
        mem.store_u32(at + 12, flags).unwrap();
        self.offer(kind, 0, &[readable(at, 16)])
    }

    /// Notifies; the requests that leave.
    fn notify(&mut self) -> Vec<DiskRequest> {
        self.bench.notify(0);
        self.issued()
    }

    /// The requests that have left since the last look.
    fn issued(&mut self) -> Vec<DiskRequest> {
        let since = self.since;
        self.since = self.bench.device.device().next_id();
        let mut found: Vec<_> = self.bench.device.device().in_flight(3).collect();
        found.retain(|request| request.id >= since);
        found
    }

    fn ids(&mut self) -> Vec<u64> {
        self.notify().iter().map(|request| request.id).collect()
    }

    /// A request ends well; the requests that leave because of it.
    fn done(&mut self, id: u64, data: &[u8]) -> Vec<u64> {
        self.end(id, STATUS_OK, data).unwrap()
    }

    fn end(&mut self, id: u64, status: u8, data: &[u8]) -> Result<Vec<u64>, DiskDoneError> {
        let Bench { device, mem, .. } = &mut self.bench;
        device.complete(mem, id, status, data)?;
        Ok(self.issued().iter().map(|request| request.id).collect())
    }

    fn byte(&self, pa: u64) -> u8 {
        self.bench.bytes(pa, 1)[0]
    }

    /// Asserts that everything offered has come back.
    fn held(&self) -> usize {
        self.bench.device.device().held.len()
    }
}

#[test]
fn it_says_what_it_is() {
    let guest = Guest::new();
    let word = |offset: u64| guest.bench.read(0x100 + offset);
    assert_eq!(guest.bench.read(0x008), 2, "a block device");
    assert_eq!((word(0), word(4)), (SECTORS as u32, 0));
    assert_eq!((word(8), word(12)), (4096, 32), "size_max, seg_max");
    assert_eq!(word(20), 512, "blk_size");
    assert_eq!(guest.bench.device.read(0x100 + 32, 1).unwrap(), 1);
    assert_eq!(guest.bench.device.read(0x100 + 34, 2).unwrap(), 1);
    assert_eq!((word(36), word(40), word(44)), (1 << 18, 1, 8), "discard");
    assert_eq!((word(48), word(52), word(56)), (1 << 18, 1, 1), "zeroes");
    assert_eq!((word(60), word(64), word(68)), (0, 0, 0), "no secure erase");
    let features = |bench: &mut Bench<VirtioBlk>| {
        bench.write(0x14, 0);
        u64::from(bench.read(0x10))
    };
    let mut guest = guest;
    let own = (1 << 1) | (1 << 2) | (1 << 6) | (1 << 9);
    let ring = feature::INDIRECT_DESC | feature::EVENT_IDX;
    let clears = (1 << 13) | (1 << 14);
    assert_eq!(features(&mut guest.bench), own | ring | clears);
    let mut guest = Guest::with(
        DiskConfig {
            read_only: true,
            ..config()
        },
        8,
    );
    assert_eq!(features(&mut guest.bench), own | ring | (1 << 5));
    assert_eq!(guest.bench.read(0x100 + 36), 0, "nothing to discard");
}

#[test]
fn a_read_appears_all_at_once() {
    let mut guest = Guest::new();
    let status = guest.transfer(IN, 7, 2);
    let issued = guest.notify();
    assert_eq!(
        issued,
        [DiskRequest {
            device: 3,
            id: 0,
            op: DiskOp::Read,
            offset: 7 * 512,
            bytes: 1024,
            data: Arc::default(),
        }]
    );
    assert!(guest.bench.used(0).is_empty() && !guest.bench.device.irq_level());
    assert_eq!(guest.byte(status), UNTOUCHED);
    guest.done(0, &[5; 1024]);
    assert_eq!(guest.bench.used(0), [(0, 1025)]);
    assert_eq!(guest.bench.interrupt(), 1);
    assert_eq!(guest.byte(status), 0);
    let data = guest.bench.bytes(DATA + 7 * 512, 1025);
    assert_eq!(data, [&[5; 1024][..], &[0]].concat());
}

#[test]
fn a_write_takes_what_stands_there_when_it_is_made() {
    let mut guest = Guest::new();
    guest.bench.mem.store(DATA, &[1; 512]).unwrap();
    let status = guest.transfer(OUT, 0, 1);
    let issued = guest.notify();
    guest.bench.mem.store(DATA, &[2; 512]).unwrap();
    assert_eq!(issued[0].op, DiskOp::Write { durable: false });
    assert_eq!(&issued[0].data[..], [1; 512]);
    let again: Vec<_> = guest.bench.device.device().in_flight(3).collect();
    assert_eq!(again, issued, "what is in flight can be carried out again");
    guest.done(0, &[]);
    assert_eq!((guest.bench.used(0), guest.byte(status)), (vec![(0, 1)], 0));
}

#[test]
fn buffers_may_be_cut_in_any_way() {
    let mut guest = Guest::new();
    let header = guest.header(IN, 1);
    // A header in three pieces, and the status behind the data in one buffer.
    let chain = [
        readable(header, 4),
        readable(header + 4, 11),
        readable(header + 15, 1),
        writable(DATA, 1),
        writable(DATA + 0x1000, 510),
        writable(DATA + 0x2000, 2),
    ];
    guest.bench.offer(0, &chain);
    assert_eq!(guest.ids(), [0]);
    let data: Vec<u8> = (0..512).map(|i| i as u8).collect();
    guest.done(0, &data);
    assert_eq!(guest.byte(DATA), data[0]);
    assert_eq!(guest.bench.bytes(DATA + 0x1000, 510), data[1..511]);
    assert_eq!(guest.bench.bytes(DATA + 0x2000, 2), [data[511], 0]);

    // The same through a table of descriptors.
    let header = guest.header(OUT, 1);
    let table = DATA + 0x4000;
    let next = |desc: Desc, next| Desc {
        flags: desc.flags | 1,
        next,
        ..desc
    };
    put_desc(
        &mut guest.bench.mem,
        table,
        0,
        next(readable(header, 16), 2),
    );
    put_desc(&mut guest.bench.mem, table, 1, writable(STATUSES, 1));
    put_desc(&mut guest.bench.mem, table, 2, next(readable(DATA, 512), 1));
    let indirect = Desc {
        flags: INDIRECT,
        ..readable(table, 48)
    };
    guest.bench.offer(0, &[indirect]);
    assert_eq!(guest.notify()[0].bytes, 512);
}

#[test]
fn what_cannot_be_is_answered_at_once() {
    let mut guest = Guest::new();
    let far = u64::MAX / 512;
    let cases = [
        (IN, SECTORS, 512, STATUS_IOERR),
        (IN, SECTORS - 1, 1024, STATUS_IOERR),
        (IN, u64::MAX, 512, STATUS_IOERR),
        (IN, far, 512, STATUS_IOERR),
        (IN, 0, 511, STATUS_IOERR),
        (IN, 0, 0, STATUS_OK),
        (IN, SECTORS + 1, 0, STATUS_IOERR),
        (OUT, SECTORS, 512, STATUS_IOERR),
        (OUT, 0, 700, STATUS_IOERR),
        (OUT, 0, MAX_REQUEST_BYTES as u32 + 512, STATUS_IOERR),
        (2, 0, 512, STATUS_UNSUPP),
        (10, 0, 512, STATUS_UNSUPP),
        (14, 0, 16, STATUS_UNSUPP),
        (u32::MAX, 0, 512, STATUS_UNSUPP),
    ];
    for (kind, sector, bytes, expected) in cases {
        let data = match kind {
            IN => writable(DATA, bytes),
            _ => readable(DATA, bytes),
        };
        let status = guest.offer(kind, sector, &[data]);
        assert_eq!(guest.ids(), [0; 0], "{kind} {sector} {bytes}");
        assert_eq!(guest.byte(status), expected, "{kind} {sector} {bytes}");
        assert_eq!(guest.bench.used(0).len(), 1);
        assert_eq!(guest.bench.interrupt(), 1);
    }
    assert_eq!(guest.held(), 0);
    // The last sectors are within.
    guest.transfer(OUT, SECTORS - 2, 0);
    guest.offer(IN, SECTORS - 2, &[writable(DATA, 1024)]);
    assert_eq!(guest.ids(), [0]);
}

#[test]
fn clearing_ranges() {
    let mut guest = Guest::new();
    let most = MAX_DISCARD_SECTORS;
    let cases = [
        (DISCARD, 0, 8, 1, STATUS_UNSUPP),
        (DISCARD, 0, 8, 2, STATUS_UNSUPP),
        (WRITE_ZEROES, 0, 8, 2, STATUS_UNSUPP),
        (DISCARD, SECTORS - 1, 2, 0, STATUS_IOERR),
        (WRITE_ZEROES, u64::MAX, 1, 0, STATUS_IOERR),
        (DISCARD, 0, most + 1, 0, STATUS_IOERR),
        (DISCARD, 9, 0, 0, STATUS_OK),
    ];
    for (kind, sector, sectors, flags, expected) in cases {
        let status = guest.clear(kind, sector, sectors, flags);
        assert_eq!(guest.ids(), [0; 0]);
        assert_eq!(guest.byte(status), expected, "{kind} {sector} {sectors}");
    }
    for bytes in [0, 15, 32] {
        let status = guest.offer(DISCARD, 0, &[readable(DATA, bytes)]);
        assert_eq!(guest.ids(), [0; 0]);
        assert_eq!(guest.byte(status), STATUS_IOERR, "{bytes} bytes of ranges");
    }
    for (kind, flags, op) in [
        (DISCARD, 0, DiskOp::Discard),
        (WRITE_ZEROES, 0, DiskOp::WriteZeroes { unmap: false }),
        (WRITE_ZEROES, 1, DiskOp::WriteZeroes { unmap: true }),
    ] {
        let status = guest.clear(kind, 100, 50, flags);
        let issued = guest.notify();
        assert_eq!((issued.len(), issued[0].op), (1, op));
        assert_eq!((issued[0].offset, issued[0].bytes), (100 * 512, 50 * 512));
        guest.done(issued[0].id, &[]);
        assert_eq!(guest.byte(status), 0);
    }
}

#[test]
fn a_read_only_disk_stays_as_it_is() {
    let mut guest = Guest::with(
        DiskConfig {
            read_only: true,
            ..config()
        },
        8,
    );
    let write = guest.transfer(OUT, 0, 1);
    let zeroes = guest.clear(WRITE_ZEROES, 0, 8, 0);
    assert_eq!(guest.ids(), [0; 0]);
    assert_eq!(guest.byte(write), STATUS_IOERR);
    assert_eq!(guest.byte(zeroes), STATUS_UNSUPP);
    guest.transfer(IN, 0, 1);
    guest.offer(FLUSH, 0, &[]);
    assert_eq!(guest.ids(), [0, 1]);
}

#[test]
fn its_name() {
    let mut guest = Guest::new();
    let status = guest.offer(GET_ID, 0, &[writable(DATA, 20)]);
    assert_eq!(guest.ids(), [0; 0]);
    assert_eq!(guest.byte(status), 0);
    assert_eq!(guest.bench.bytes(DATA, 20), *b"twinvm-disk-2\0\0\0\0\0\0\0");
    assert_eq!(guest.bench.used(0), [(0, 21)]);
    // A buffer that is shorter or longer than a name gets what fits.
    guest.bench.mem.store(DATA, &[9; 64]).unwrap();
    guest.offer(GET_ID, 0, &[writable(DATA, 6)]);
    guest.offer(GET_ID, 0, &[writable(DATA + 6, 30)]);
    guest.notify();
    assert_eq!(guest.bench.bytes(DATA, 12), *b"twinvmtwinvm");
    assert_eq!(guest.byte(DATA + 26), 9);
}

#[test]
fn a_driver_that_cannot_flush_writes_durably() {
    let mut guest = Guest::new();
    guest.transfer(OUT, 0, 1);
    assert_eq!(guest.notify()[0].op, DiskOp::Write { durable: false });
    guest.done(0, &[]);
    guest.start_with(8, 0);
    guest.transfer(OUT, 0, 1);
    assert_eq!(guest.notify()[0].op, DiskOp::Write { durable: true });
}

#[test]
fn failures_are_told() {
    let mut guest = Guest::new();
    guest.bench.mem.store(DATA, &[9; 512]).unwrap();
    let read = guest.transfer(IN, 0, 1);
    let write = guest.transfer(OUT, 9, 1);
    assert_eq!(guest.ids(), [0, 1]);
    guest.end(0, STATUS_IOERR, &[]).unwrap();
    guest.end(1, STATUS_IOERR, &[]).unwrap();
    assert_eq!((guest.byte(read), guest.byte(write)), (1, 1));
    assert_eq!(guest.bench.used(0), [(0, 0), (3, 1)]);
    assert_eq!(guest.bench.bytes(DATA, 512), [9; 512], "no data was read");
}

#[test]
fn a_result_must_fit_its_request() {
    let mut guest = Guest::new();
    guest.transfer(IN, 0, 1);
    guest.transfer(OUT, 0, 1); // waits
    guest.transfer(OUT, 9, 1);
    assert_eq!(guest.ids(), [0, 1]);
    let before = guest.bench.device.save();
    let length = |found, expected| DiskDoneError::Length { found, expected };
    for (id, status, bytes, error) in [
        (2, 0, 0, DiskDoneError::NotInFlight(2)),
        (u64::MAX, 0, 0, DiskDoneError::NotInFlight(u64::MAX)),
        (0, 0, 511, length(511, 512)),
        (0, 0, 513, length(513, 512)),
        (0, 1, 512, length(512, 0)),
        (1, 0, 512, length(512, 0)),
        (0, 2, 0, DiskDoneError::Status(2)),
        (1, 255, 0, DiskDoneError::Status(255)),
    ] {
        assert_eq!(guest.end(id, status, &vec![0; bytes]), Err(error));
        assert_eq!(guest.bench.device.save(), before);
    }
    guest.done(0, &[0; 512]);
    let twice = guest.end(0, STATUS_OK, &[0; 512]);
    assert_eq!(twice, Err(DiskDoneError::NotInFlight(0)));
}

#[test]
fn what_overlaps_waits_in_order() {
    let mut guest = Guest::new();
    guest.transfer(OUT, 10, 4); // 0
    guest.transfer(IN, 12, 4); // after 0
    guest.transfer(OUT, 14, 1); // after the read, though 0 doesn't touch it
    guest.transfer(IN, 20, 1); // 1: touches nothing
    guest.transfer(IN, 16, 4); // 2: only beside the read
    guest.transfer(OUT, 20, 1); // after 1
    assert_eq!(guest.ids(), [0, 1, 2]);
    assert_eq!(guest.done(1, &[0; 512]), [3], "the write of sector 20");
    assert_eq!(guest.done(0, &[]), [4], "the read from 12 on");
    assert_eq!(guest.done(4, &[0; 2048]), [5], "the write of sector 14");
    for (id, bytes) in [(5, 0), (3, 0), (2, 2048)] {
        assert_eq!(guest.done(id, &vec![0; bytes]), [0; 0]);
    }
    assert_eq!(guest.held(), 0);
}

#[test]
fn reads_and_flushes_wait_for_nothing_they_need_not() {
    let mut guest = Guest::new();
    guest.transfer(IN, 0, 4);
    guest.transfer(IN, 2, 4);
    guest.offer(FLUSH, 0, &[]);
    assert_eq!(guest.ids(), [0, 1, 2]);
    // A flush covers what was done before it, and holds nothing up.
    guest.transfer(OUT, 2, 1);
    guest.offer(FLUSH, 77, &[]);
    guest.transfer(OUT, 50, 1);
    assert_eq!(guest.ids(), [3, 4]);
    assert_eq!(guest.done(1, &[0; 2048]), [0; 0]);
    assert_eq!(guest.done(0, &[0; 2048]), [5]);
}

#[test]
fn discards_keep_their_place_among_reads_and_writes() {
    let mut guest = Guest::new();
    guest.transfer(OUT, 8, 8);
    guest.clear(DISCARD, 0, 12, 0);
    guest.transfer(IN, 4, 1);
    guest.clear(WRITE_ZEROES, 4, 1, 0);
    guest.transfer(OUT, 4, 1);
    assert_eq!(guest.ids(), [0]);
    assert_eq!(guest.done(0, &[]), [1]);
    assert_eq!(guest.done(1, &[]), [2]);
    assert_eq!(guest.done(2, &[0; 512]), [3]);
    assert_eq!(guest.done(3, &[]), [4]);
}
