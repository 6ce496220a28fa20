//! Saved disks.

use super::*;

/// A disk with a read, a write that waits for it, a durable write, a discard, and one request of
/// a driver that has gone.
fn busy() -> Guest {
    let mut guest = Guest::new();
    guest.transfer(OUT, 30, 2);
    guest.ids();
    guest.start_with(256, 0);
    guest.bench.mem.store(DATA, &[3; 4096]).unwrap();
    guest.transfer(IN, 0, 2);
    guest.transfer(OUT, 1, 4);
    guest.transfer(OUT, 20, 1);
    guest.clear(DISCARD, 40, 8, 0);
    guest.clear(WRITE_ZEROES, 60, 8, 1);
    guest.offer(FLUSH, 0, &[]);
    assert_eq!(guest.ids(), [1, 2, 3, 4, 5]);
    guest
}

#[test]
fn saves() {
    let Guest {
        bench: Bench {
            device, mut mem, ..
        },
        ..
    } = busy();
    let mut ends = [1, 3, 0, 6, 2, 4, 5].into_iter().cycle();
    saves_every_bit(device, |device| {
        for id in ends.by_ref().take(7) {
            let data = if id == 1 { 1024 } else { 0 };
            device
                .complete(&mut mem, id, 0, &vec![id as u8; data])
                .unwrap();
        }
        assert!(device.device().held.is_empty());
    });
    saves_every_bit(busy().bench.device, VirtioMmio::reset);
}

#[test]
fn states_that_cannot_be_are_refused() {
    let good = busy().bench.device.save().device;
    assert!(VirtioBlk::restore(good.clone()).is_ok());
    type Change = fn(&mut BlkState);
    let changes: [(&str, Change); 19] = [
        ("too large", |s| s.config.sectors = MAX_SECTORS + 1),
        ("beyond its end", |s| s.config.sectors = 32),
        ("an id to come", |s| s.next_id = 5),
        ("an id twice", |s| s.held[1].id = Some(0)),
        ("waits for nothing", |s| s.held[1].id = None),
        ("issued too early", |s| s.held[2].id = Some(6)),
        ("no such operation", |s| s.held[1].op = 7),
        ("another operation", |s| s.held[3].op = 0),
        ("data of a read", |s| s.held[1].data = vec![0; 1024]),
        ("too little data", |s| s.held[2].data.truncate(100)),
        ("no data", |s| s.held[2].data.clear()),
        ("half a sector", |s| s.held[1].bytes = 1000),
        ("no bytes", |s| s.held[1].bytes = 0),
        ("between sectors", |s| s.held[1].offset = 3),
        ("an overflow", |s| s.held[1].offset = u64::MAX - 511),
        ("a long flush", |s| s.held[6].bytes = 512),
        ("no room", |s| {
            s.held[1].chain.as_mut().unwrap().writable.pop();
        }),
        ("a chain too long", |s| {
            s.held[1].chain.as_mut().unwrap().writable = vec![(0, 1); 257];
        }),
        ("waits for a driver that has gone", |s| {
            s.held[2].chain = None;
        }),
    ];
    for (what, change) in changes {
        let mut state = good.clone();
        change(&mut state);
        assert!(VirtioBlk::restore(state).is_err(), "{what}");
    }
    let mut many = good.clone();
    many.next_id = 1000;
    many.held = (0..257)
        .map(|id| HeldState {
            id: Some(id),
            ..good.held[6].clone()
        })
        .collect();
    assert!(VirtioBlk::restore(many.clone()).is_err(), "too many");
    many.held.pop();
    assert!(VirtioBlk::restore(many.clone()).is_ok());
    for held in &mut many.held {
        held.op = 0;
        held.bytes = MAX_REQUEST_BYTES;
        held.chain = None;
    }
    assert!(VirtioBlk::restore(many).is_err(), "too much");
}
