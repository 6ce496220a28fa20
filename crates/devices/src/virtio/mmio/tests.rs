use super::*;
use crate::Outbox;
use crate::testing::{Bench, NOTIFY, STATUS as STATUS_AT, memory, saves_every_bit};
use crate::virtio::{VirtioNet, VirtioRng};

fn net() -> Bench<VirtioNet> {
    Bench::new(VirtioNet::new([0x52, 0x54, 0, 1, 2, 3]))
}

#[test]
fn identity_and_features() {
    let mut bench = net();
    assert_eq!(bench.read(0x00), 0x7472_6976);
    assert_eq!(bench.read(0x04), 2);
    assert_eq!(bench.read(0x08), 1);
    assert_eq!(bench.read(0x0c), u32::from_le_bytes(*b"QEMU"));
    let features: Vec<u32> = (0..3)
        .map(|half| {
            bench.write(0x14, half);
            bench.read(0x10)
        })
        .collect();
    let offloads = 0b11 | 0b111 << 7 | 0b111 << 11;
    let card = 1 << 5 | 1 << 15 | 1 << 16;
    assert_eq!(features, [offloads | card | 1 << 28 | 1 << 29, 1, 0]);
    for (queue, max) in [(0, 256), (1, 256), (2, 0), (u32::MAX, 0)] {
        bench.write(0x30, queue);
        assert_eq!(bench.read(0x34), max);
        assert_eq!(bench.read(0x44), 0);
    }
    assert_eq!(bench.read(0xb0), u32::MAX, "no shared memory");
    assert_eq!(bench.read(0xfc), 0);
    assert_eq!(Bench::new(VirtioRng::new()).read(0x08), 4);
}

#[test]
fn configuration_takes_any_size_and_registers_take_words() {
    let bench = net();
    let read = |offset, size| bench.device.read(offset, size);
    assert_eq!(read(0x100, 1), Ok(0x52));
    assert_eq!(read(0x104, 2), Ok(0x0302));
    assert_eq!(read(0x100, 4), Ok(0x0100_5452));
    assert_eq!(read(0x100, 8), Ok(0x0001_0302_0100_5452));
    assert_eq!(read(0x1f8, 8), Ok(0));
    for size in [1, 2, 8] {
        assert_eq!(read(0x70, size), Err(AccessFault));
        assert_eq!(read_empty_slot(0, size), Err(AccessFault));
        assert_eq!(write_empty_slot(0, size), Err(AccessFault));
    }
    assert_eq!(read_empty_slot(0, 4), Ok(0x7472_6976));
    assert_eq!(read_empty_slot(4, 4), Ok(2));
    assert_eq!(read_empty_slot(8, 4), Ok(0));
    assert_eq!(read_empty_slot(0x70, 4), Ok(0));
    assert_eq!(write_empty_slot(0x70, 4), Ok(()));
}

#[test]
fn writes_need_words_too() {
    let mut device = VirtioMmio::new(VirtioRng::new());
    let (mut mem, mut out) = (memory(), Outbox::default());
    let mut write = |offset, size| device.write(offset, size, 1, &mut mem, out.for_device(0));
    assert_eq!(write(0x70, 1), Err(AccessFault));
    assert_eq!(write(0x70, 8), Err(AccessFault));
    assert_eq!(write(0x100, 1), Ok(()));
}

#[test]
fn features_must_be_offered() {
    for (features, accepted) in [
        (feature::VERSION_1, true),
        (feature::VERSION_1 | 1 << 5, true),
        (feature::VERSION_1 | feature::INDIRECT_DESC, true),
        (0, true),
        (1 << 5, true),
        (1 << 3, false),
        (feature::VERSION_1 | 1 << 3, false),
        (feature::VERSION_1 | feature::EVENT_IDX, true),
        (feature::VERSION_1 | 1 << 30, false),
        (feature::VERSION_1 | 1 << 34, false),
    ] {
        let mut bench = net();
        bench.negotiate(features);
        let status = if accepted { 11 } else { 3 };
        assert_eq!(bench.read(STATUS_AT), status, "{features:#x}");
        bench.set_up_queue(0, 8);
        assert_eq!(bench.read(0x44), u32::from(accepted), "queue enabled");
        bench.write(STATUS_AT, 15);
        assert_eq!(bench.device.running(), accepted, "{features:#x}");
    }
}

#[test]
fn features_are_fixed_once_accepted() {
    let mut bench = net();
    bench.negotiate(feature::VERSION_1);
    bench.write(0x24, 0);
    bench.write(0x20, 0xffff_ffff);
    assert_eq!(bench.device.save().driver_features, feature::VERSION_1);
}

#[test]
fn a_running_queue_cannot_be_moved() {
    let mut bench = net();
    bench.start(8);
    bench.write(0x30, 0);
    let before = bench.device.save();
    for register in [0x38, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4] {
        bench.write(register, 0x8000_4000);
    }
    assert_eq!(bench.device.save(), before);
    bench.write(0x44, 0);
    assert_eq!(bench.read(0x44), 0);
    assert!(!bench.device.queue_running(0));
    assert!(bench.device.queue_running(1));
}

#[test]
fn a_bad_queue_stops_the_device() {
    let mut bench = net();
    bench.negotiate(feature::VERSION_1);
    bench.set_up_queue(0, 3);
    assert_eq!(bench.read(0x44), 0);
    assert!(bench.needs_reset());
    assert!(!bench.device.irq_level(), "no interrupt before DRIVER_OK");
    bench.write(STATUS_AT, 15);
    assert!(!bench.device.running());
    bench.write(STATUS_AT, 0);
    assert_eq!(bench.read(STATUS_AT), 0);
}

#[test]
fn the_driver_cannot_set_or_clear_needs_reset() {
    let mut bench = net();
    bench.start(8);
    bench.write(STATUS_AT, 15 | 64);
    assert!(!bench.needs_reset());
    bench
        .mem
        .store_u16(crate::testing::avail_ring(1) + 2, 999)
        .unwrap();
    bench.notify(1);
    assert!(bench.needs_reset());
    bench.write(STATUS_AT, 15);
    assert!(bench.needs_reset());
}

#[test]
fn notifies_of_absent_queues_and_before_the_start_do_nothing() {
    let mut bench = net();
    for queue in [0, 1, 2, u32::MAX] {
        bench.write(NOTIFY, queue);
    }
    bench.start(8);
    for queue in [2, u32::MAX] {
        bench.write(NOTIFY, queue);
    }
    assert!(!bench.needs_reset() && !bench.device.irq_level());
}

#[test]
fn saves_through_the_stages() {
    saves_every_bit(net().device, |device| {
        let (mut mem, mut out) = (memory(), Outbox::default());
        for (offset, value) in [
            (0x70, 3),
            (0x14, 1),
            (0x24, 1),
            (0x20, 1),
            (0x70, 11),
            (0x30, 1),
            (0x38, 4),
            (0x80, 0x8000_0000),
            (0x94, 7),
            (0xa0, 0x8000_1000),
        ] {
            let out = out.for_device(0);
            device.write(offset, 4, value, &mut mem, out).unwrap();
        }
    });
    let mut bench = net();
    bench.start(8);
    let mut mem = memory();
    saves_every_bit(bench.device, |device| {
        // An empty ring at the place of the queues: nothing available, but an index that jumped.
        mem.store_u16(crate::testing::avail_ring(1) + 2, 100)
            .unwrap();
        let mut out = Outbox::default();
        let out = out.for_device(0);
        device.write(NOTIFY, 4, 1, &mut mem, out).unwrap();
        assert!(device.irq_level());
    });
}

#[test]
fn refuses_states_that_contradict_themselves() {
    let mut bench = net();
    bench.start(8);
    let good = bench.device.save();
    type Spoil = fn(&mut MmioState<crate::virtio::NetState>);
    let cases: [(&str, Spoil); 7] = [
        ("queues", |s| s.queues.truncate(1)),
        ("interrupt status", |s| s.interrupt_status = 4),
        ("status bit", |s| s.status |= 16),
        ("features", |s| s.driver_features |= 1 << 3),
        ("running without features", |s| {
            s.status = 4;
            s.queues[0].ready = false;
            s.queues[1].ready = false;
        }),
        ("queue without features", |s| s.status = 3),
        ("device", |s| s.device.waiting = vec![vec![0; 25]]),
    ];
    for (name, spoil) in cases {
        let mut state = good.clone();
        spoil(&mut state);
        assert!(VirtioMmio::<VirtioNet>::restore(state).is_err(), "{name}");
    }
}
