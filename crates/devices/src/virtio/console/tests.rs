use super::*;
use crate::testing::{
    BUFFERS, Bench, Desc, Random, avail_ring, desc_table, put_desc, readable, saves_every_bit,
    used_ring, writable,
};
use crate::virtio::feature;

fn running() -> Bench<VirtioConsole> {
    Bench::running(VirtioConsole::new(), 8)
}

fn push(bench: &mut Bench<VirtioConsole>, bytes: &[u8]) -> usize {
    bench.device.push_input(&mut bench.mem, bytes)
}

#[test]
fn is_a_console_without_extras() {
    let bench = running();
    assert_eq!(bench.read(0x08), 3);
    assert_eq!(bench.device.accepted_features() >> 32, 1);
    for config in [0x100, 0x104, 0x108] {
        assert_eq!(bench.read(config), 0);
    }
    assert_eq!(
        bench.read(0x10),
        feature::INDIRECT_DESC as u32 | feature::EVENT_IDX as u32
    );
}

#[test]
fn text_is_printed_in_its_notify_step() {
    let mut bench = running();
    bench.mem.store(BUFFERS, b"hello, ").unwrap();
    bench.mem.store(BUFFERS + 0x1000, b"world").unwrap();
    let a = bench.offer(1, &[readable(BUFFERS, 7)]);
    let b = bench.offer(
        1,
        &[readable(BUFFERS + 0x1000, 2), readable(BUFFERS + 0x1002, 3)],
    );
    assert!(bench.out.is_empty());
    bench.notify(1);
    assert_eq!(bench.out.take_console(), b"hello, world");
    assert_eq!(bench.used(1), [(a, 0), (b, 0)]);
    assert_eq!(bench.interrupt(), 1);
    bench.notify(1);
    assert!(bench.out.is_empty() && !bench.device.irq_level());
}

#[test]
fn a_buffer_prints_so_much_and_no_more() {
    let mut bench = running();
    let long = MAX_TEXT_BYTES as u32 / 2 + 1;
    let head = bench.offer(1, &[readable(BUFFERS, long), readable(BUFFERS, long)]);
    let only_writable = bench.offer(1, &[writable(BUFFERS, 8)]);
    bench.notify(1);
    assert_eq!(bench.out.take_console().len(), MAX_TEXT_BYTES);
    assert_eq!(bench.used(1), [(head, 0), (only_writable, 0)]);
    assert!(!bench.needs_reset());
}

#[test]
fn input_appears_with_its_interrupt() {
    let mut bench = running();
    let a = bench.offer(0, &[writable(BUFFERS, 16)]);
    let b = bench.offer(0, &[writable(BUFFERS + 0x1000, 16)]);
    bench.notify(0);
    assert!(bench.used(0).is_empty() && !bench.device.irq_level());
    assert_eq!(push(&mut bench, b"ls\r"), 3);
    assert_eq!(bench.used(0), [(a, 3)]);
    assert_eq!(bench.interrupt(), 1);
    assert_eq!(bench.bytes(BUFFERS, 4), b"ls\r\0");
    assert_eq!(push(&mut bench, b""), 0);
    assert!(!bench.device.irq_level(), "nothing came");
    assert_eq!(push(&mut bench, b"x"), 1);
    assert_eq!(bench.used(0), [(b, 1)]);
}

#[test]
fn input_waits_for_buffers_in_order_and_bounded() {
    let mut bench = running();
    assert_eq!(bench.device.input_room(), INPUT_QUEUE_BYTES);
    let text: Vec<u8> = (0..INPUT_QUEUE_BYTES + 5).map(|n| n as u8).collect();
    assert_eq!(push(&mut bench, &text), INPUT_QUEUE_BYTES);
    assert_eq!(bench.device.input_room(), 0);
    assert_eq!(push(&mut bench, b"more"), 0);
    assert!(!bench.device.irq_level());

    // Into several segments, past a buffer that can take nothing.
    let a = bench.offer(0, &[writable(BUFFERS, 3), writable(BUFFERS + 0x100, 4)]);
    let b = bench.offer(0, &[readable(BUFFERS, 8)]);
    let c = bench.offer(0, &[writable(BUFFERS + 0x200, 2)]);
    bench.notify(0);
    assert_eq!(bench.used(0), [(a, 7), (b, 0), (c, 2)]);
    assert_eq!(bench.interrupt(), 1);
    assert_eq!(bench.bytes(BUFFERS, 3), text[..3]);
    assert_eq!(bench.bytes(BUFFERS + 0x100, 4), text[3..7]);
    assert_eq!(bench.bytes(BUFFERS + 0x200, 2), text[7..9]);
    assert_eq!(bench.device.input_room(), 9);

    let all = bench.offer(0, &[writable(BUFFERS + 0x1000, 8192)]);
    bench.notify(0);
    assert_eq!(bench.used(0), [(all, 4087)]);
    assert_eq!(bench.bytes(BUFFERS + 0x1000, 4087), text[9..4096]);
    assert_eq!(bench.device.input_room(), INPUT_QUEUE_BYTES);
}

#[test]
fn there_is_no_room_before_the_driver_and_none_is_kept_over_a_reset() {
    let mut bench = Bench::new(VirtioConsole::new());
    assert_eq!(bench.device.input_room(), 0);
    assert_eq!(push(&mut bench, b"early"), 0);
    bench.start(8);
    bench.offer(0, &[writable(BUFFERS, 8)]);
    bench.notify(0);
    assert!(
        bench.used(0).is_empty(),
        "what was typed early was not taken"
    );
    bench.start(8);
    assert_eq!(push(&mut bench, b"kept"), 4);
    bench.start(8);
    assert_eq!(bench.device.input_room(), INPUT_QUEUE_BYTES);
}

/// With flags and with event indexes: the guest need not say that it has buffers while no input
/// waits.
#[test]
fn notifications_are_wanted_only_while_input_waits() {
    let mut bench = running();
    bench.notify(0);
    let flags = |bench: &Bench<VirtioConsole>| bench.mem.load_u16(used_ring(0)).unwrap();
    assert_eq!(flags(&bench), 1);
    push(&mut bench, b"x");
    assert_eq!(flags(&bench), 0);
    bench.offer(0, &[writable(BUFFERS, 8)]);
    bench.notify(0);
    assert_eq!(flags(&bench), 1);

    bench.start_with(feature::EVENT_IDX, 8);
    let event = |bench: &Bench<VirtioConsole>| bench.mem.load_u16(used_ring(0) + 4 + 64).unwrap();
    bench.offer(0, &[writable(BUFFERS, 8)]);
    bench.notify(0);
    assert_eq!(event(&bench), 0, "the index just passed");
    push(&mut bench, b"first");
    push(&mut bench, b"second");
    assert_eq!(event(&bench), 1, "the next buffer");
}

#[test]
fn broken_rings_stop_the_console() {
    let outside = Desc {
        pa: 0x1000,
        ..writable(0, 8)
    };
    let mut bench = running();
    bench.offer(0, &[outside]);
    bench.notify(0);
    assert!(!bench.needs_reset(), "rings are read when there is input");
    assert_eq!(push(&mut bench, b"x"), 1);
    assert!(bench.needs_reset());
    assert_eq!(bench.device.input_room(), 0);
    bench.start(8);
    assert_eq!(bench.device.input_room(), INPUT_QUEUE_BYTES);

    // A loop in the transmit queue.
    put_desc(
        &mut bench.mem,
        desc_table(1),
        0,
        Desc {
            flags: crate::testing::NEXT,
            ..readable(BUFFERS, 1)
        },
    );
    bench.offer_head(1, 0);
    bench.notify(1);
    assert!(bench.needs_reset());
    assert!(bench.out.is_empty());

    bench.start(8);
    bench.mem.store_u16(avail_ring(1) + 2, 9).unwrap();
    bench.notify(1);
    assert!(bench.needs_reset());
}

#[test]
fn saves() {
    let mut bench = running();
    push(&mut bench, b"waiting");
    bench.offer(0, &[writable(BUFFERS, 10)]);
    let Bench {
        device, mut mem, ..
    } = bench;
    saves_every_bit(device, |device| {
        device.push_input(&mut mem, b" input");
    });
    let waiting = vec![0; INPUT_QUEUE_BYTES + 1];
    assert!(VirtioConsole::restore(ConsoleState { waiting }).is_err());
}

/// A stream of input and buffers of random sizes comes out as it went in.
#[test]
fn any_sizes_keep_the_order() {
    let mut random = Random(5);
    for _ in 0..50 {
        let mut bench = running();
        let (mut sent, mut got, mut next) = (0u64, 0u64, 0);
        let mut offered = Vec::new();
        while sent < 20_000 {
            let bytes: Vec<u8> = (0..random.below(900)).map(|n| (sent + n) as u8).collect();
            sent += push(&mut bench, &bytes) as u64;
            while offered.len() < random.below(8) as usize {
                let len = 1 + random.below(700) as u32;
                let pa = BUFFERS + 0x1000 * next;
                next = (next + 1) % 8;
                offered.push((bench.offer(0, &[writable(pa, len)]), pa));
            }
            bench.notify(0);
            for (head, len) in bench.used(0) {
                let (index, pa) = offered.remove(0);
                assert_eq!(head, index);
                for byte in bench.bytes(pa, len as usize) {
                    assert_eq!(byte, got as u8);
                    got += 1;
                }
            }
        }
    }
}
