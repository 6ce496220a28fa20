//! Limits, resets, and guests that break the rules.

use super::*;

#[test]
fn requests_without_header_or_status_stop_the_device() {
    for chain in [
        vec![readable(HEADERS, 15), writable(STATUSES, 1)],
        vec![readable(HEADERS, 16)],
        vec![writable(STATUSES, 1)],
        vec![readable(HEADERS, 16), writable(STATUSES, 0)],
    ] {
        let mut guest = Guest::new();
        guest.transfer(OUT, 0, 1);
        guest.bench.offer(0, &chain);
        let issued = guest.ids();
        assert!(guest.bench.needs_reset(), "{}", chain.len());
        assert_eq!(issued, [0], "what came before is carried out");
        guest.done(0, &[]);
        assert!(guest.bench.used(0).is_empty(), "but no ring is written");
        assert_eq!(guest.held(), 0);
    }
}

#[test]
fn as_many_requests_as_the_queue_has_heads() {
    let mut guest = Guest::new();
    let header = guest.header(FLUSH, 0);
    put_desc(
        &mut guest.bench.mem,
        crate::testing::desc_table(0),
        0,
        Desc {
            flags: 1,
            next: 1,
            ..readable(header, 16)
        },
    );
    let table = crate::testing::desc_table(0);
    put_desc(&mut guest.bench.mem, table, 1, writable(STATUSES, 1));
    // The same head again and again: a guest may do that, to its own harm.
    for _ in 0..200 {
        guest.bench.offer_head(0, 0);
    }
    assert_eq!(guest.notify().len(), 200);
    for _ in 0..200 {
        guest.bench.offer_head(0, 0);
    }
    assert_eq!(guest.notify().len(), 56);
    assert_eq!(guest.held(), MAX_REQUESTS);
    // One ends, one more is taken out of the ring.
    assert_eq!(guest.done(17, &[]), [256]);
    assert_eq!(guest.held(), MAX_REQUESTS);
    for id in 0..400 {
        let _ = guest.end(id, STATUS_OK, &[]);
    }
    assert_eq!(guest.held(), 0);
    assert_eq!(guest.bench.device.device().next_id(), 400);
    assert!(!guest.bench.needs_reset());
}

#[test]
fn as_many_bytes_as_may_be_held() {
    let mut guest = Guest::new();
    let whole = MAX_REQUEST_BYTES as u32;
    let fits = MAX_HELD_BYTES / MAX_REQUEST_BYTES;
    for _ in 0..fits + 2 {
        guest.offer(IN, 0, &[writable(DATA, whole)]);
    }
    // Behind a request that doesn't fit nothing is taken, not even what would.
    guest.offer(FLUSH, 0, &[]);
    assert_eq!(guest.notify().len() as u64, fits);
    assert_eq!(guest.done(3, &vec![0; whole as usize]), [fits]);
    assert_eq!(
        guest.done(fits, &vec![0; whole as usize]),
        [fits + 1, fits + 2]
    );
    // Ranges to be cleared cost no memory.
    guest.clear(DISCARD, SECTORS - 8, 8, 0);
    assert_eq!(guest.ids(), [fits + 3]);
}

#[test]
fn a_reset_forgets_what_waits_and_keeps_what_may_still_happen() {
    let mut guest = Guest::new();
    let lost = guest.transfer(OUT, 0, 4); // 0
    guest.transfer(IN, 2, 1); // waits, and is forgotten
    assert_eq!(guest.ids(), [0]);
    guest.start(8);
    assert_eq!(guest.held(), 1);
    guest.transfer(IN, 3, 1); // after the write of the driver before
    guest.transfer(IN, 9, 1); // 1
    assert_eq!(guest.ids(), [1]);
    assert_eq!(guest.done(0, &[]), [2]);
    assert_eq!(guest.byte(lost), UNTOUCHED);
    assert!(guest.bench.used(0).is_empty() && !guest.bench.device.irq_level());
    guest.done(2, &[6; 512]);
    assert_eq!(guest.byte(DATA + 3 * 512), 6);
    assert_eq!(guest.bench.used(0).len(), 1);

    // What the driver before has in flight counts, and when it ends the ring is looked at.
    let whole = MAX_REQUEST_BYTES as u32;
    let fits = MAX_HELD_BYTES / MAX_REQUEST_BYTES - 1;
    guest.done(1, &[0; 512]);
    guest.start(256);
    for _ in 0..=fits {
        guest.offer(IN, 0, &[writable(DATA, whole)]);
    }
    assert_eq!(guest.notify().len() as u64, fits + 1);
    guest.start(8);
    let read = guest.transfer(IN, 0, 1);
    assert_eq!(guest.ids(), [0; 0]);
    assert_eq!(guest.done(3, &vec![1; whole as usize]), [fits + 4]);
    assert_eq!(guest.byte(DATA), 0, "the old buffer is not written");
    guest.done(fits + 4, &[8; 512]);
    assert_eq!((guest.byte(read), guest.byte(DATA)), (0, 8));
}

#[test]
fn a_queue_that_is_gone_gets_nothing() {
    let mut guest = Guest::new();
    let status = guest.transfer(OUT, 0, 1);
    guest.ids();
    guest.bench.write(0x44, 0);
    guest.done(0, &[]);
    assert_eq!((guest.byte(status), guest.held()), (UNTOUCHED, 0));
    assert!(!guest.bench.needs_reset());
}

/// Whatever a guest does, nothing that overlaps is in flight together, the bounds hold, a saved
/// device is one that can be restored, and in the end everything has ended.
#[test]
fn random_guests_break_nothing() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut guest = Guest::with(
            DiskConfig {
                sectors: 64,
                ..config()
            },
            64,
        );
        for _ in 0..400 {
            match random.below(12) {
                0 if random.below(8) == 0 => guest.start(64),
                1 => {
                    let len = random.below(3);
                    let wild: Vec<Desc> = (0..=len)
                        .map(|_| Desc {
                            pa: BUFFERS + random.below(0x2000),
                            len: random.below(2000) as u32,
                            flags: random.below(8) as u16,
                            next: random.below(70) as u16,
                        })
                        .collect();
                    guest.bench.offer(0, &wild);
                }
                2..=5 => {
                    let flags = random.below(3) as u32;
                    let (sector, sectors) = (random.below(64), random.below(9) as u32);
                    match random.below(5) {
                        0 => guest.clear(DISCARD, sector, sectors, 0),
                        1 => guest.clear(WRITE_ZEROES, sector, sectors, flags),
                        2 => guest.offer(FLUSH, 0, &[]),
                        3 => guest.transfer(IN, sector, sectors),
                        _ => guest.transfer(OUT, sector, sectors),
                    };
                }
                6 => drop(guest.notify()),
                _ => {
                    let flying: Vec<_> = guest.bench.device.device().in_flight(3).collect();
                    if let Some(one) = flying.get(random.below(9) as usize) {
                        let data = match one.op {
                            DiskOp::Read => one.bytes as usize,
                            _ => 0,
                        };
                        guest.done(one.id, &vec![7; data]);
                    }
                }
            }
            let disk = guest.bench.device.device();
            let flying: Vec<&Held> = disk.held.iter().filter(|h| h.id.is_some()).collect();
            for (n, one) in flying.iter().enumerate() {
                assert!(!flying[..n].iter().any(|other| other.conflicts(one)));
            }
            assert!(disk.held.len() <= MAX_REQUESTS);
            let saved = guest.bench.device.save();
            let restored = VirtioMmio::<VirtioBlk>::restore(saved.clone()).expect("restores");
            assert_eq!(restored.save(), saved);
        }
        loop {
            let one = guest.bench.device.device().in_flight(3).next();
            let Some(one) = one else { break };
            guest.end(one.id, STATUS_IOERR, &[]).unwrap();
        }
        assert_eq!(guest.held(), 0, "seed {seed}");
    }
}
