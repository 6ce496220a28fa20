use super::*;
use crate::testing::{BUFFERS, Bench, readable, saves_every_bit, writable};

fn running() -> Bench<VirtioRng> {
    Bench::running(VirtioRng::new(), 8)
}

#[test]
fn a_request_waits_for_its_record() {
    let mut bench = running();
    assert_eq!(bench.device.wanted(), 0);
    let head = bench.offer(0, &[writable(BUFFERS, 32)]);
    bench.notify(0);
    assert_eq!(bench.device.wanted(), 32);
    assert!(bench.used(0).is_empty() && !bench.device.irq_level());
    bench.device.complete(&mut bench.mem, &[5; 32]);
    assert_eq!(bench.used(0), [(head, 32)]);
    assert_eq!(bench.interrupt(), 1);
    assert_eq!(bench.bytes(BUFFERS, 33), [&[5; 32][..], &[0]].concat());
    assert_eq!(bench.device.wanted(), 0);
}

#[test]
fn requests_are_served_in_order_and_bounded() {
    let mut bench = running();
    let a = bench.offer(0, &[writable(BUFFERS, 4000)]);
    let b = bench.offer(
        0,
        &[writable(BUFFERS + 0x1000, 3), writable(BUFFERS + 0x2000, 4)],
    );
    bench.notify(0);
    assert_eq!(bench.device.wanted(), MAX_REQUEST_BYTES);
    bench.device.complete(&mut bench.mem, &[1; 1000]);
    assert_eq!(bench.used(0), [(a, 64)]);
    assert_eq!(bench.device.wanted(), 7);
    bench
        .device
        .complete(&mut bench.mem, &[1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(bench.used(0), [(b, 7)]);
    assert_eq!(bench.bytes(BUFFERS + 0x2000, 5), [4, 5, 6, 7, 0]);
    assert_eq!(bench.device.wanted(), 0);
}

#[test]
fn a_request_without_room_is_given_back_at_once() {
    let mut bench = running();
    let a = bench.offer(0, &[readable(BUFFERS, 8)]);
    bench.offer(0, &[writable(BUFFERS, 8)]);
    bench.notify(0);
    assert_eq!(bench.used(0), [(a, 0)]);
    assert_eq!(bench.interrupt(), 1);
    assert_eq!(bench.device.wanted(), 8);
}

#[test]
fn entropy_without_a_request_is_dropped() {
    let mut bench = running();
    bench.device.complete(&mut bench.mem, &[1; 8]);
    assert!(bench.used(0).is_empty() && !bench.needs_reset());
    bench.offer(0, &[writable(BUFFERS, 8)]);
    bench.notify(0);
    bench.start(8);
    assert_eq!(bench.device.wanted(), 0, "a reset forgets the request");
    bench.device.complete(&mut bench.mem, &[1; 8]);
    assert_eq!(bench.bytes(BUFFERS, 8), [0; 8]);
}

#[test]
fn saves() {
    let mut bench = running();
    bench.offer(0, &[writable(BUFFERS, 10)]);
    bench.offer(0, &[writable(BUFFERS + 16, 12)]);
    bench.notify(0);
    let Bench {
        device, mut mem, ..
    } = bench;
    saves_every_bit(device, |device| device.complete(&mut mem, &[3; 10]));
    assert!(
        VirtioRng::restore(RngState { wanted: 65 }).is_err(),
        "more than a request can want"
    );
}
