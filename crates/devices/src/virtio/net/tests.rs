use super::*;
use crate::testing::{BUFFERS, Bench, avail_ring, readable, saves_every_bit, writable};

fn card() -> VirtioNet {
    VirtioNet::new([0x52, 0x54, 0, 0, 0, 1])
}

fn running() -> Bench<VirtioNet> {
    Bench::running(card(), 8)
}

fn frame(fill: u8, len: usize) -> Vec<u8> {
    vec![fill; len]
}

/// Puts header and frame at `pa`; gives their length.
fn packet(bench: &mut Bench<VirtioNet>, pa: u64, frame: &[u8]) -> u32 {
    bench.mem.store(pa, &[0xee; HEADER_BYTES]).unwrap();
    bench.mem.store(pa + 12, frame).unwrap();
    (HEADER_BYTES + frame.len()) as u32
}

#[test]
fn transmit_completes_in_its_notify() {
    let mut bench = running();
    let len = packet(&mut bench, BUFFERS, &frame(7, 60));
    let first = bench.offer(TX, &[readable(BUFFERS, len)]);
    // Header and frame in several pieces, as drivers like it.
    let len = packet(&mut bench, BUFFERS + 0x1000, &frame(8, 1514));
    let pieces = [
        readable(BUFFERS + 0x1000, 12),
        readable(BUFFERS + 0x100c, 100),
        readable(BUFFERS + 0x1070, len - 112),
    ];
    let second = bench.offer(TX, &pieces);
    assert!(bench.frames().is_empty(), "not before the notify");
    bench.notify(TX);
    assert_eq!(bench.frames(), [frame(7, 60), frame(8, 1514)]);
    assert_eq!(bench.used(TX), [(first, 0), (second, 0)]);
    assert_eq!(bench.interrupt(), 1);
    bench.notify(TX);
    assert!(!bench.device.irq_level(), "nothing new, no interrupt");
}

#[test]
fn frames_of_no_frame_size_are_given_back_unsent() {
    for (len, sent) in [
        (0, false),
        (13, false),
        (14, true),
        (MAX_FRAME_BYTES, true),
        (MAX_FRAME_BYTES + 1, false),
        (60_000, false),
    ] {
        let mut bench = running();
        let total = packet(&mut bench, BUFFERS, &frame(1, len));
        let head = bench.offer(TX, &[readable(BUFFERS, total)]);
        bench.notify(TX);
        assert_eq!(bench.frames().len(), usize::from(sent), "{len}");
        assert_eq!(bench.used(TX), [(head, 0)], "{len}");
    }
    let mut bench = running();
    bench.offer(TX, &[readable(BUFFERS, 5)]);
    bench.notify(TX);
    assert!(bench.frames().is_empty(), "shorter than its header");
}

#[test]
fn the_header_may_end_inside_a_buffer() {
    let mut bench = running();
    let bytes: Vec<u8> = (0..60).collect();
    packet(&mut bench, BUFFERS, &bytes);
    let pieces = [
        readable(BUFFERS, 5),
        readable(BUFFERS + 5, 20),
        readable(BUFFERS + 25, 47),
    ];
    bench.offer(TX, &pieces);
    bench.notify(TX);
    assert_eq!(bench.frames(), [bytes]);
}

#[test]
fn the_guest_can_ask_for_no_interrupt() {
    let mut bench = running();
    bench.mem.store_u16(avail_ring(TX), 1).unwrap();
    bench.offer(TX, &[readable(BUFFERS, 72)]);
    bench.notify(TX);
    assert_eq!(bench.used(TX).len(), 1);
    assert!(!bench.device.irq_level());
}

#[test]
fn received_data_used_ring_and_interrupt_appear_together() {
    let mut bench = running();
    let head = bench.offer(RX, &[writable(BUFFERS, 1526)]);
    bench.notify(RX);
    assert!(!bench.device.irq_level());
    bench.device.receive(&mut bench.mem, &frame(9, 60));
    assert_eq!(bench.used(RX), [(head, 72)]);
    assert_eq!(bench.interrupt(), 1);
    assert_eq!(bench.bytes(BUFFERS, 12), RX_HEADER);
    assert_eq!(bench.bytes(BUFFERS + 12, 60), frame(9, 60));
    assert_eq!(bench.bytes(BUFFERS + 72, 4), [0; 4], "and no more");
}

#[test]
fn a_frame_is_spread_over_the_buffers_of_its_chain() {
    let mut bench = running();
    let pieces = [
        writable(BUFFERS, 12),
        writable(BUFFERS + 0x100, 10),
        writable(BUFFERS + 0x200, 1600),
    ];
    bench.offer(RX, &pieces);
    let bytes: Vec<u8> = (0..60).collect();
    bench.device.receive(&mut bench.mem, &bytes);
    assert_eq!(bench.bytes(BUFFERS + 0x100, 10), &bytes[..10]);
    assert_eq!(bench.bytes(BUFFERS + 0x200, 50), &bytes[10..]);
}

#[test]
fn without_buffers_frames_wait_in_order_up_to_the_bound() {
    let mut bench = running();
    for i in 0..RX_QUEUE_FRAMES {
        assert!(bench.device.rx_room());
        bench.device.receive(&mut bench.mem, &frame(i as u8, 20));
    }
    assert!(!bench.device.rx_room());
    bench.device.receive(&mut bench.mem, &frame(0xff, 30));
    assert!(!bench.device.irq_level());
    let mut got = Vec::new();
    for _ in 0..RX_QUEUE_FRAMES / 8 + 1 {
        for i in 0..8 {
            bench.offer(RX, &[writable(BUFFERS + i * 0x800, 1526)]);
        }
        bench.notify(RX);
        let used = bench.used(RX);
        for ((_, len), i) in used.into_iter().zip(0..) {
            assert_eq!(len, 32);
            got.push(bench.bytes(BUFFERS + i * 0x800 + 12, 1)[0]);
        }
        if got.len() < RX_QUEUE_FRAMES {
            assert_eq!(bench.interrupt(), 1);
        }
    }
    let expected: Vec<u8> = (0..RX_QUEUE_FRAMES).map(|i| i as u8).collect();
    assert_eq!(got, expected);
}

#[test]
fn a_frame_that_does_not_fit_its_buffer_is_dropped_and_the_buffer_stays() {
    let mut bench = running();
    let head = bench.offer(RX, &[writable(BUFFERS, 100)]);
    bench.device.receive(&mut bench.mem, &frame(1, 89));
    assert!(bench.used(RX).is_empty());
    assert_eq!(bench.bytes(BUFFERS, 100), [0; 100]);
    bench.device.receive(&mut bench.mem, &frame(2, 88));
    assert_eq!(bench.used(RX), [(head, 100)]);
    assert!(!bench.needs_reset());
}

#[test]
fn a_card_that_is_off_has_no_room_and_drops() {
    let mut bench = Bench::new(card());
    assert!(!bench.device.rx_room());
    let before = bench.device.save();
    bench.device.receive(&mut bench.mem, &frame(1, 60));
    assert_eq!(bench.device.save(), before);
    bench.start(8);
    assert!(bench.device.rx_room());
    let before = bench.device.save();
    for len in [0, 13, MAX_FRAME_BYTES + 1, 9000] {
        bench.device.receive(&mut bench.mem, &frame(1, len));
    }
    assert_eq!(bench.device.save(), before, "no frames of such sizes");
}

#[test]
fn a_reset_forgets_waiting_frames() {
    let mut bench = running();
    bench.device.receive(&mut bench.mem, &frame(1, 60));
    bench.start(8);
    bench.offer(RX, &[writable(BUFFERS, 1526)]);
    bench.notify(RX);
    assert!(bench.used(RX).is_empty());
}

#[test]
fn buffers_offered_before_the_start_count() {
    let mut bench = Bench::new(card());
    bench.negotiate(crate::virtio::feature::VERSION_1);
    bench.set_up_queue(TX, 8);
    bench.offer(TX, &[readable(BUFFERS, 72)]);
    bench.notify(TX);
    assert!(bench.frames().is_empty());
    bench.write(0x70, 15);
    assert_eq!(bench.frames().len(), 1);
}

#[test]
fn saves() {
    let mut bench = running();
    bench.device.receive(&mut bench.mem, &frame(1, 60));
    bench.device.receive(&mut bench.mem, &frame(2, 61));
    bench.offer(RX, &[writable(BUFFERS, 1526)]);
    let Bench {
        device, mut mem, ..
    } = bench;
    saves_every_bit(device, |device| {
        device.receive(&mut mem, &frame(3, 1514));
    });
    assert_eq!(mem.slice(BUFFERS + 12, 60).unwrap(), frame(1, 60));
}
