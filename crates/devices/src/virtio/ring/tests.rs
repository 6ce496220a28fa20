use twinvm_mem::RAM_BASE;

use super::*;
use crate::testing::{
    BUFFERS, Bench, Desc, INDIRECT, NEXT, RAM_BYTES, Random, WRITE, avail_ring, desc_table,
    put_desc, readable, saves_every_bit, used_ring, writable,
};
use crate::virtio::{VirtioDevice, VirtioNet, VirtioRng, feature};

/// Queues that every hostile test goes through: what a transmit queue (served at once), a receive
/// queue and a request queue make of them.
const TX: usize = 1;

fn net() -> Bench<VirtioNet> {
    Bench::running(VirtioNet::new([2; 6]), 8)
}

fn chain_at(bench: &mut Bench<VirtioNet>, table: &[(u16, Desc)]) {
    for (index, desc) in table {
        put_desc(&mut bench.mem, desc_table(TX), *index, *desc);
    }
}

fn with(desc: Desc, flags: u16, next: u16) -> Desc {
    Desc {
        flags: desc.flags | flags,
        next,
        ..desc
    }
}

/// A name, the head offered, and what the descriptor table holds.
type BrokenChain<'a> = (&'a str, u16, &'a [(u16, Desc)]);

#[test]
fn broken_chains_need_a_reset_and_touch_nothing() {
    let end = RAM_BASE + RAM_BYTES;
    let ok = readable(BUFFERS, 64);
    let table = |len| readable(BUFFERS, len);
    let cases: &[BrokenChain] = &[
        ("head outside the table", 8, &[]),
        ("head far outside the table", 0xffff, &[]),
        ("next outside the table", 0, &[(0, with(ok, NEXT, 8))]),
        ("self loop", 0, &[(0, with(ok, NEXT, 0))]),
        (
            "loop of two",
            0,
            &[(0, with(ok, NEXT, 1)), (1, with(ok, NEXT, 0))],
        ),
        ("buffer below RAM", 0, &[(0, readable(0x1000_0000, 64))]),
        ("buffer above RAM", 0, &[(0, readable(end, 1))]),
        ("buffer across the end", 0, &[(0, readable(end - 8, 9))]),
        ("buffer wraps", 0, &[(0, readable(u64::MAX - 3, 64))]),
        ("huge buffer", 0, &[(0, readable(BUFFERS, u32::MAX))]),
        (
            "readable after writable",
            0,
            &[(0, with(writable(BUFFERS, 8), NEXT, 1)), (1, ok)],
        ),
        ("empty table", 0, &[(0, with(table(0), INDIRECT, 0))]),
        ("odd table", 0, &[(0, with(table(24), INDIRECT, 0))]),
        ("long table", 0, &[(0, with(table(16 * 257), INDIRECT, 0))]),
        (
            "table outside RAM",
            0,
            &[(0, with(readable(end, 16), INDIRECT, 0))],
        ),
        (
            "table wraps",
            0,
            &[(0, with(readable(u64::MAX - 7, 32), INDIRECT, 0))],
        ),
        (
            "table with a successor",
            0,
            &[(0, with(table(16), INDIRECT | NEXT, 1)), (1, ok)],
        ),
        (
            "table in a table",
            0,
            // Entry 0 names entry 1 as its table, which names entry 2, a proper frame.
            &[
                (0, with(readable(desc_table(TX) + 16, 16), INDIRECT, 0)),
                (1, with(readable(desc_table(TX) + 32, 16), INDIRECT, 0)),
                (2, ok),
            ],
        ),
    ];
    for (name, head, table) in cases {
        let mut bench = net();
        chain_at(&mut bench, table);
        bench.offer_head(TX, *head);
        bench.notify(TX);
        assert!(bench.needs_reset(), "{name}");
        assert_eq!(bench.interrupt(), 2, "{name}: configuration interrupt");
        assert!(bench.used(TX).is_empty(), "{name}");
        assert!(bench.frames().is_empty(), "{name}");

        // Nothing more happens until the reset, and then all is well.
        bench.notify(TX);
        assert!(!bench.device.irq_level(), "{name}");
        bench.start(8);
        bench.offer(TX, &[ok]);
        bench.notify(TX);
        assert_eq!(bench.frames().len(), 1, "{name}: works after a reset");
        assert!(!bench.needs_reset(), "{name}");
    }
}

#[test]
fn an_available_index_that_jumps_needs_a_reset() {
    for jump in [9, 0x7fff, 0xffff] {
        let mut bench = net();
        bench.mem.store_u16(avail_ring(TX) + 2, jump).unwrap();
        bench.notify(TX);
        assert!(bench.needs_reset(), "{jump}");
    }
}

#[test]
fn indirect_tables_work_if_negotiated() {
    for negotiated in [true, false] {
        let mut bench = Bench::new(VirtioNet::new([2; 6]));
        let indirect = if negotiated {
            feature::INDIRECT_DESC
        } else {
            0
        };
        bench.negotiate(feature::VERSION_1 | indirect);
        bench.set_up_queue(TX, 8);
        bench.write(0x70, 15);
        let table = BUFFERS + 0x1000;
        put_desc(
            &mut bench.mem,
            table,
            0,
            with(readable(BUFFERS, 12), NEXT, 2),
        );
        put_desc(&mut bench.mem, table, 2, readable(BUFFERS + 100, 20));
        bench
            .mem
            .store(BUFFERS + 100, b"abcdefghijklmnopqrst")
            .unwrap();
        bench.offer(TX, &[with(readable(table, 48), INDIRECT, 0)]);
        bench.notify(TX);
        assert_eq!(bench.needs_reset(), !negotiated);
        let frames = bench.frames();
        if negotiated {
            assert_eq!(frames, [b"\0\0\0\0\0\0\0\0\0\0\0\0abcdefghijklmnopqrst"]);
            assert_eq!(bench.used(TX), [(0, 0)]);
        } else {
            assert!(frames.is_empty());
        }
    }
}

#[test]
fn the_longest_chain_passes_and_a_longer_one_does_not() {
    for (len, passes) in [(256u16, true), (257, false)] {
        let mut bench = net();
        let table = BUFFERS + 0x1000;
        // One descriptor for the table, the rest inside.
        for index in 0..len - 1 {
            let more = index + 2 < len;
            let desc = with(readable(BUFFERS, 4), if more { NEXT } else { 0 }, index + 1);
            put_desc(&mut bench.mem, table, index, desc);
        }
        let bytes = 16 * u32::from(len - 1);
        bench.offer(TX, &[with(readable(table, bytes), INDIRECT, 0)]);
        bench.notify(TX);
        assert_eq!(bench.needs_reset(), !passes);
        assert_eq!(bench.frames().len(), usize::from(passes));
    }
}

#[test]
fn zero_length_descriptors_are_harmless() {
    let mut bench = net();
    bench.offer(TX, &[readable(0, 0), readable(BUFFERS, 40), writable(0, 0)]);
    bench.notify(TX);
    assert_eq!(bench.frames().len(), 1);
    assert!(!bench.needs_reset());
}

#[test]
fn indexes_wrap() {
    let mut bench = net();
    for round in 0..70_000u32 {
        bench.offer(TX, &[readable(BUFFERS, 40)]);
        if round % 3 == 0 {
            bench.notify(TX);
            bench.used(TX);
            bench.frames();
        }
    }
    bench.notify(TX);
    bench.used(TX);
    let head = bench.offer(TX, &[readable(BUFFERS, 40)]);
    bench.notify(TX);
    assert_eq!(bench.used(TX), [(head, 0)]);
    assert!(!bench.needs_reset());
}

#[test]
fn a_queue_with_a_bad_layout_is_not_enabled() {
    type Spoil = fn(&mut Virtqueue);
    let good = Virtqueue {
        size: 8,
        desc: desc_table(0),
        driver: avail_ring(0),
        device: used_ring(0),
        ..Virtqueue::new()
    };
    let mem = crate::testing::memory();
    assert_eq!(good.clone().enable(&mem, 0), Ok(()));
    let cases: [(&str, Spoil); 11] = [
        ("size 0", |q| q.size = 0),
        ("size 3", |q| q.size = 3),
        ("size 512", |q| q.size = 512),
        ("desc alignment", |q| q.desc += 8),
        ("driver alignment", |q| q.driver += 1),
        ("device alignment", |q| q.device += 2),
        ("desc below RAM", |q| q.desc = 0),
        ("driver above RAM", |q| q.driver = RAM_BASE + RAM_BYTES),
        ("desc across the end", |q| {
            q.desc = RAM_BASE + RAM_BYTES - 112
        }),
        ("device wraps", |q| q.device = u64::MAX - 3),
        ("device across the end", |q| {
            q.device = RAM_BASE + RAM_BYTES - 64
        }),
    ];
    for (name, spoil) in cases {
        let mut queue = good;
        spoil(&mut queue);
        assert!(queue.enable(&mem, 0).is_err(), "{name}");
        assert!(!queue.ready(), "{name}");
    }
    // The event index behind the ring counts where it is used.
    let end = RAM_BASE + RAM_BYTES;
    for (driver, device) in [(end - 20, used_ring(0)), (avail_ring(0), end - 68)] {
        let queue = Virtqueue {
            driver,
            device,
            ..good
        };
        assert_eq!(queue.clone().enable(&mem, 0), Ok(()));
        assert!(queue.clone().enable(&mem, feature::EVENT_IDX).is_err());
    }
}

#[test]
fn saves() {
    let mem = crate::testing::memory();
    let queue = Virtqueue {
        desc: desc_table(0),
        driver: avail_ring(0),
        device: used_ring(0),
        ..Virtqueue::new()
    };
    saves_every_bit(queue, |queue| {
        queue.enable(&mem, feature::EVENT_IDX).unwrap();
        queue.next_avail = 65_535;
        queue.next_used = 3;
        queue.published = 2;
    });
    let mut state = queue.save();
    state.ready = true;
    state.size = 3;
    assert!(Virtqueue::restore(state).is_err());
}

/// A restored queue may point anywhere: that is an error at its use, never a panic.
#[test]
fn a_hostile_restored_queue_fails_at_use() {
    let mut mem = crate::testing::memory();
    let mut queue = Virtqueue::restore(QueueState {
        size: 256,
        desc: u64::MAX - 15,
        driver: u64::MAX - 1,
        device: u64::MAX - 3,
        ready: true,
        features: u64::MAX,
        next_avail: 65_535,
        next_used: 65_535,
        published: 0,
    })
    .unwrap();
    assert!(queue.available(&mem).is_err());
    let mut chain = Chain::default();
    assert!(queue.take(&mem, &mut chain).is_err());
    assert!(queue.give_back(&mut mem, &chain, 0).is_err());
    assert!(queue.publish(&mut mem).is_err());
    assert!(queue.watch(&mut mem).is_err());
    assert!(queue.unwatch(&mut mem).is_err());
}

#[test]
fn where_nothing_is_given_back_nothing_is_shown() {
    let mut bench = net();
    // What the guest wrote over the used index stays there.
    bench.mem.store_u16(used_ring(TX) + 2, 77).unwrap();
    for queue in 0..2 {
        bench.notify(queue);
    }
    assert_eq!(bench.mem.load_u16(used_ring(TX) + 2), Ok(77));
    assert!(!bench.device.irq_level());
}

/// A card whose rings have event indexes.
fn with_events() -> Bench<VirtioNet> {
    let mut bench = Bench::new(VirtioNet::new([2; 6]));
    bench.start_with(feature::EVENT_IDX, 8);
    bench
}

fn used_event(bench: &mut Bench<VirtioNet>, queue: usize, index: u16) {
    bench
        .mem
        .store_u16(avail_ring(queue) + 4 + 2 * 8, index)
        .unwrap();
}

fn avail_event(bench: &Bench<VirtioNet>, queue: usize) -> u16 {
    bench.mem.load_u16(used_ring(queue) + 4 + 8 * 8).unwrap()
}

#[test]
fn an_interrupt_comes_when_the_entry_waited_for_is_shown() {
    // Waited for, buffers in each notify, and which of the notifies interrupt.
    let cases: [(u16, &[usize], &[bool]); 6] = [
        (0, &[1, 1, 1], &[true, false, false]),
        (1, &[1, 1, 1], &[false, true, false]),
        (2, &[1, 2, 1], &[false, true, false]),
        (3, &[2, 2, 3], &[false, true, false]),
        (7, &[3, 3, 3], &[false, false, true]),
        (65_535, &[3, 3, 3], &[false, false, false]),
    ];
    for (event, notifies, expected) in cases {
        let mut bench = with_events();
        used_event(&mut bench, TX, event);
        // The flag counts for nothing now.
        bench.mem.store_u16(avail_ring(TX), 1).unwrap();
        let mut found = Vec::new();
        for buffers in notifies {
            for _ in 0..*buffers {
                bench.offer(TX, &[readable(BUFFERS, 40)]);
            }
            bench.notify(TX);
            assert_eq!(bench.used(TX).len(), *buffers);
            found.push(bench.interrupt() != 0);
        }
        assert_eq!(found, expected, "waiting for {event}");
    }
}

/// Interrupts by event index, against the definition: the entry waited for was shown just now.
#[test]
fn event_indexes_wrap() {
    let mut bench = with_events();
    let mut random = Random(7);
    let (mut shown, mut event) = (0u64, 0u64);
    while shown < 200_000 {
        let buffers = 1 + random.below(8);
        for _ in 0..buffers {
            bench.offer(TX, &[readable(BUFFERS, 40)]);
        }
        bench.notify(TX);
        bench.used(TX);
        bench.out.take_outputs();
        let expected = (shown..shown + buffers).contains(&event);
        assert_eq!(bench.interrupt() != 0, expected, "{shown} {event}");
        shown += buffers;
        assert_eq!(avail_event(&bench, TX), shown as u16);
        if expected || random.below(50) == 0 {
            event = shown + random.below(20);
            used_event(&mut bench, TX, event as u16);
        }
    }
}

#[test]
fn a_queue_says_when_it_wants_to_be_notified() {
    let mut bench = with_events();
    for _ in 0..3 {
        bench.offer(TX, &[readable(BUFFERS, 40)]);
    }
    bench.notify(TX);
    assert_eq!(avail_event(&bench, TX), 3, "for the next buffer");
    assert_eq!(bench.mem.load_u16(used_ring(TX)).unwrap(), 0);

    let mut mem = crate::testing::memory();
    for (features, at) in [(0, 0), (feature::EVENT_IDX, 4 + 8 * 8)] {
        let mut queue = Virtqueue {
            size: 8,
            desc: desc_table(0),
            driver: avail_ring(0),
            device: used_ring(0),
            ..Virtqueue::new()
        };
        queue.enable(&mem, features).unwrap();
        mem.store_u16(avail_ring(0) + 2, 5).unwrap();
        let mut said = |queue: &Virtqueue, watch: bool| {
            if watch {
                queue.watch(&mut mem).unwrap();
            } else {
                queue.unwatch(&mut mem).unwrap();
            }
            mem.load_u16(used_ring(0) + at).unwrap()
        };
        let expected = if features == 0 { [1, 0] } else { [4, 5] };
        assert_eq!([said(&queue, false), said(&queue, true)], expected);
    }
}

#[test]
fn a_restored_queue_must_have_its_devices_features() {
    let mut state = with_events().device.save();
    assert!(crate::virtio::VirtioMmio::<VirtioNet>::restore(state.clone()).is_ok());
    state.queues[0].features = feature::VERSION_1;
    assert!(crate::virtio::VirtioMmio::<VirtioNet>::restore(state).is_err());
}

/// Fills rings with garbage that is often nearly right, and lets the device loose on it.
fn garbage<D: VirtioDevice>(seed: u64, device: impl Fn() -> D, act: impl Fn(&mut Bench<D>, u64)) {
    let mut random = Random(seed);
    let mut resets = 0;
    let offered = device().features();
    let mut bench = Bench::running(device(), 8);
    let notifies = 50_000;
    for _ in 0..notifies {
        if bench.needs_reset() {
            resets += 1;
            let features = random.next() & (feature::EVENT_IDX | feature::INDIRECT_DESC);
            bench.start_with(features | offered, 1 << random.below(9));
        }
        for _ in 0..random.below(6) {
            let queue = random.below(D::QUEUES as u64) as usize;
            let near = |random: &mut Random| match random.below(16) {
                0 => random.next(),
                1 => RAM_BASE + RAM_BYTES - random.below(64),
                2 => desc_table(random.below(2) as usize) + random.below(0x3000),
                _ => BUFFERS + random.below(0x1000),
            };
            let desc = Desc {
                pa: near(&mut random),
                len: match random.below(16) {
                    0 => random.next() as u32,
                    1 => 16 * random.below(300) as u32,
                    _ => random.below(1600) as u32,
                },
                flags: match random.below(4) {
                    0 => random.next() as u16,
                    1 => NEXT,
                    2 => WRITE,
                    _ => 0,
                },
                next: random.below(10) as u16,
            };
            let table = match random.below(4) {
                0 => BUFFERS & !15,
                _ => desc_table(queue),
            };
            put_desc(&mut bench.mem, table, random.below(16) as u16, desc);
            match random.below(20) {
                0 => {
                    let at = avail_ring(queue) + 2 * random.below(16);
                    bench.mem.store_u16(at, random.next() as u16).unwrap();
                }
                _ => bench.offer_head(queue, random.below(9) as u16),
            }
        }
        let value = random.next();
        if random.below(8) == 0 {
            let register = random.below(0x40) * 4;
            if register != 0x70 || random.below(8) == 0 {
                bench.write(register, value as u32);
            }
        }
        act(&mut bench, value);
        let queue = random.below(D::QUEUES as u64 + 1) as usize;
        bench.notify(queue);
        bench.out.take_outputs();
        // The state that garbage leads to is one that restores.
        if random.below(64) == 0 {
            let state = bench.device.save();
            bench.device = Persist::restore(state).unwrap_or_else(|error| {
                panic!("seed {seed}: {error}; rerun: cargo test -p twinvm-devices garbage")
            });
        }
    }
    assert!(resets > 100, "seed {seed}: the garbage was too tame");
    assert!(resets < notifies / 2, "seed {seed}: it broke at once");
}

#[test]
fn garbage_never_panics_net() {
    garbage(
        1,
        || VirtioNet::new([2; 6]),
        |bench, value| {
            let mut packet = vec![value as u8; (value >> 8) as usize % 4000];
            if value & 3 != 0 {
                packet.iter_mut().take(12).for_each(|byte| *byte = 0);
            }
            bench.device.receive(&mut bench.mem, &packet);
        },
    );
}

#[test]
fn garbage_never_panics_rng() {
    garbage(2, VirtioRng::new, |bench, value| {
        let bytes = vec![value as u8; (value >> 8) as usize % 80];
        bench.device.complete(&mut bench.mem, &bytes);
        assert!(bench.device.wanted() <= 64);
    });
}
