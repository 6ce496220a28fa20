use super::*;
use crate::Outbox;
use crate::testing::{
    BUFFERS, Bench, NOTIFY, avail_ring, desc_table, readable, saves_every_bit, writable,
};

fn card() -> VirtioNet {
    VirtioNet::new([0x52, 0x54, 0, 0, 0, 1])
}

fn running() -> Bench<VirtioNet> {
    Bench::running(card(), 8)
}

/// A packet that asks for nothing, its frame of `len` bytes.
fn plain(fill: u8, len: usize) -> Vec<u8> {
    [vec![0; NET_HEADER_BYTES], vec![fill; len]].concat()
}

/// Puts a packet at `pa`; gives its length.
fn put(bench: &mut Bench<VirtioNet>, pa: u64, packet: &[u8]) -> u32 {
    bench.mem.store(pa, packet).unwrap();
    packet.len() as u32
}

/// The header that the guest sees before a frame in one buffer.
const ONE_BUFFER: [u8; NET_HEADER_BYTES] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

#[test]
fn transmit_completes_in_its_notify() {
    let mut bench = running();
    let len = put(&mut bench, BUFFERS, &plain(7, 60));
    let first = bench.offer(TX, &[readable(BUFFERS, len)]);
    // Header and frame in several pieces, as drivers like it.
    let len = put(&mut bench, BUFFERS + 0x1000, &plain(8, 1514));
    let pieces = [
        readable(BUFFERS + 0x1000, 12),
        readable(BUFFERS + 0x100c, 100),
        readable(BUFFERS + 0x1070, len - 112),
    ];
    let second = bench.offer(TX, &pieces);
    assert!(bench.frames().is_empty(), "not before the notify");
    bench.notify(TX);
    assert_eq!(bench.frames(), [plain(7, 60), plain(8, 1514)]);
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
        (70_000, false),
    ] {
        let mut bench = running();
        let total = put(&mut bench, BUFFERS, &plain(1, len));
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
    let bytes: Vec<u8> = [vec![0; 12], (0..60).collect()].concat();
    put(&mut bench, BUFFERS, &bytes);
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
    bench.device.receive(&mut bench.mem, &plain(9, 60));
    assert_eq!(bench.used(RX), [(head, 72)]);
    assert_eq!(bench.interrupt(), 1);
    assert_eq!(bench.bytes(BUFFERS, 12), ONE_BUFFER);
    assert_eq!(bench.bytes(BUFFERS + 12, 60), [9; 60]);
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
    let bytes: Vec<u8> = [vec![0; 12], (0..60).collect()].concat();
    bench.device.receive(&mut bench.mem, &bytes);
    assert_eq!(bench.bytes(BUFFERS + 0x100, 10), &bytes[12..22]);
    assert_eq!(bench.bytes(BUFFERS + 0x200, 50), &bytes[22..]);
}

#[test]
fn without_buffers_frames_wait_in_order_up_to_the_bound() {
    let mut bench = running();
    for i in 0..RX_QUEUE_FRAMES {
        assert!(bench.device.rx_room());
        bench.device.receive(&mut bench.mem, &plain(i as u8, 20));
    }
    assert!(!bench.device.rx_room());
    bench.device.receive(&mut bench.mem, &plain(0xff, 30));
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
    bench.device.receive(&mut bench.mem, &plain(1, 89));
    assert!(bench.used(RX).is_empty());
    assert_eq!(bench.bytes(BUFFERS, 100), [0; 100]);
    bench.device.receive(&mut bench.mem, &plain(2, 88));
    assert_eq!(bench.used(RX), [(head, 100)]);
    assert!(!bench.needs_reset());
}

#[test]
fn a_card_that_is_off_has_no_room_and_drops() {
    let mut bench = Bench::new(card());
    assert!(!bench.device.rx_room());
    let before = bench.device.save();
    bench.device.receive(&mut bench.mem, &plain(1, 60));
    assert_eq!(bench.device.save(), before);
    bench.start(8);
    assert!(bench.device.rx_room());
    let before = bench.device.save();
    for len in [0, 13, MAX_FRAME_BYTES + 1, 100_000] {
        bench.device.receive(&mut bench.mem, &plain(1, len));
    }
    bench.device.receive(&mut bench.mem, &[0; 11]);
    assert_eq!(bench.device.save(), before, "no frames of such sizes");
}

#[test]
fn a_reset_forgets_waiting_frames() {
    let mut bench = running();
    bench.device.receive(&mut bench.mem, &plain(1, 60));
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
    bench.device.receive(&mut bench.mem, &plain(1, 60));
    bench.device.receive(&mut bench.mem, &plain(2, 61));
    bench.offer(RX, &[writable(BUFFERS, 1526)]);
    let Bench {
        device, mut mem, ..
    } = bench;
    let mut out = Outbox::default();
    saves_every_bit(device, |device| {
        device.receive(&mut mem, &plain(3, 1514));
        let notify = device.write(NOTIFY, 4, RX as u64, &mut mem, out.for_device(0));
        notify.expect("a register");
    });
    assert_eq!(mem.slice(BUFFERS + 12, 60).unwrap(), [1; 60]);
}

const MERGEABLE: u64 = FEATURE_MRG_RXBUF;
const GUEST_ALL: u64 = 1 << 1 | 1 << 7 | 1 << 8 | 1 << 9;
const HOST_ALL: u64 = 1 | 1 << 11 | 1 << 12 | 1 << 13;

fn running_with(features: u64) -> Bench<VirtioNet> {
    let mut bench = Bench::new(card());
    bench.start_with(features, 8);
    bench
}

/// A packet of several segments, its bytes all different from their neighbours.
fn large(ipv6: bool, ecn: bool, len: usize) -> Vec<u8> {
    let header = NetHeader {
        checksum: Some(PartialChecksum {
            start: 34,
            offset: 16,
        }),
        data_valid: false,
        segmentation: Some(Segmentation {
            ipv6,
            ecn,
            size: 1448,
            header_bytes: 66,
        }),
    };
    let frame = (0..len).map(|i| (i * 7 + i / 256) as u8);
    header.to_bytes().into_iter().chain(frame).collect()
}

#[test]
fn mergeable_buffers_take_a_packet_together() {
    let mut bench = running_with(MERGEABLE | GUEST_ALL);
    let heads: Vec<u16> = (0..6)
        .map(|i| bench.offer(RX, &[writable(BUFFERS + i * 0x800, 1500)]))
        .collect();
    let packet = large(false, false, 4000);
    bench.device.receive(&mut bench.mem, &packet);
    let used = bench.used(RX);
    assert_eq!(used, [(heads[0], 1500), (heads[1], 1500), (heads[2], 1012)]);
    assert_eq!(bench.interrupt(), 1, "one for all");
    let mut got = bench.bytes(BUFFERS, 1500);
    got.extend(bench.bytes(BUFFERS + 0x800, 1500));
    got.extend(bench.bytes(BUFFERS + 0x1000, 1012));
    let mut expected = packet.clone();
    expected[10] = 3;
    assert_eq!(got, expected);
    // The next begins in a buffer of its own.
    bench.device.receive(&mut bench.mem, &plain(5, 60));
    assert_eq!(bench.used(RX), [(heads[3], 72)]);
    assert_eq!(bench.bytes(BUFFERS + 0x1800, 12), ONE_BUFFER);
}

#[test]
fn a_packet_waits_for_enough_mergeable_buffers() {
    let mut bench = running_with(MERGEABLE | GUEST_ALL | crate::virtio::feature::EVENT_IDX);
    let avail_event = |bench: &Bench<VirtioNet>| {
        let at = crate::testing::used_ring(RX) + 4 + 8 * 8;
        bench.mem.load_u16(at).unwrap()
    };
    bench.offer(RX, &[writable(BUFFERS, 1500)]);
    bench.notify(RX);
    assert_eq!(
        avail_event(&bench),
        0,
        "nothing waits: no notification wanted"
    );
    bench
        .device
        .receive(&mut bench.mem, &large(false, false, 4000));
    bench.device.receive(&mut bench.mem, &plain(2, 60));
    assert!(bench.used(RX).is_empty());
    assert_eq!(avail_event(&bench), 1, "wanted for the next buffer");
    bench.offer(RX, &[writable(BUFFERS + 0x800, 1500)]);
    bench.notify(RX);
    assert!(
        bench.used(RX).is_empty(),
        "still too few, and order is kept"
    );
    assert_eq!(avail_event(&bench), 2);
    bench.offer(RX, &[writable(BUFFERS + 0x1000, 1500)]);
    bench.offer(RX, &[writable(BUFFERS + 0x1800, 1500)]);
    bench.notify(RX);
    let lengths: Vec<u32> = bench.used(RX).into_iter().map(|(_, len)| len).collect();
    assert_eq!(lengths, [1500, 1500, 1012, 72]);
    assert_eq!(avail_event(&bench), 3, "none wanted again");
}

#[test]
fn what_no_buffers_can_hold_is_dropped_and_holds_up_nothing() {
    let mut bench = running_with(MERGEABLE | GUEST_ALL);
    for i in 0..8 {
        bench.offer(RX, &[writable(BUFFERS + i * 0x200, 400)]);
    }
    bench
        .device
        .receive(&mut bench.mem, &large(false, false, 4000));
    bench.device.receive(&mut bench.mem, &plain(3, 60));
    assert_eq!(bench.used(RX), [(0, 72)]);
}

#[test]
fn a_buffer_is_looked_at_once_in_a_step() {
    let mut bench = running_with(MERGEABLE | GUEST_ALL);
    // Behind a packet that no buffers can hold come one that overwrites the descriptor of the
    // buffer after its own, and one for that buffer.
    bench
        .device
        .receive(&mut bench.mem, &large(false, false, 4000));
    bench.device.receive(&mut bench.mem, &plain(0xff, 60));
    bench.device.receive(&mut bench.mem, &plain(1, 60));
    bench.offer(RX, &[writable(desc_table(RX) + 16 - 12, 72)]);
    for i in 1..8 {
        bench.offer(RX, &[writable(BUFFERS + i * 0x200, 72)]);
    }
    bench.notify(RX);
    assert_eq!(bench.bytes(desc_table(RX) + 16, 16), [0xff; 16]);
    assert_eq!(bench.used(RX), [(0, 72), (1, 72)]);
    assert_eq!(bench.bytes(BUFFERS + 0x200 + 12, 60), [1; 60]);
    assert!(!bench.needs_reset());
    // The next step sees what is there now.
    bench.offer_head(RX, 1);
    for _ in 0..7 {
        bench.device.receive(&mut bench.mem, &plain(2, 60));
    }
    assert!(bench.needs_reset());
}

#[test]
fn what_waits_is_tried_again_when_the_guest_notifies() {
    let mut bench = running_with(MERGEABLE | GUEST_ALL);
    for i in 1..=3 {
        bench.device.receive(&mut bench.mem, &plain(i, 60));
    }
    for i in 0..4 {
        bench.offer(RX, &[writable(BUFFERS + i * 0x200, 400)]);
    }
    bench.device.receive(&mut bench.mem, &plain(4, 60));
    assert!(bench.used(RX).is_empty());
    bench.notify(RX);
    assert_eq!(bench.used(RX).len(), 4);
    for i in 0..4 {
        let frame = bench.bytes(BUFFERS + i * 0x200 + 12, 60);
        assert_eq!(frame, [i as u8 + 1; 60], "order is kept");
    }
    bench.offer(RX, &[writable(BUFFERS, 400)]);
    bench.device.receive(&mut bench.mem, &plain(5, 60));
    assert_eq!(bench.used(RX).len(), 1, "nothing waits any more");
}

#[test]
fn waiting_packets_are_bounded_in_bytes() {
    let mut bench = running_with(MERGEABLE | GUEST_ALL);
    let packet = large(false, false, MAX_FRAME_BYTES);
    let mut count = 0;
    while bench.device.rx_room() {
        bench.device.receive(&mut bench.mem, &packet);
        count += 1;
    }
    assert_eq!(count, RX_QUEUE_BYTES / MAX_PACKET_BYTES);
    let state = bench.device.save();
    bench.device.receive(&mut bench.mem, &plain(1, 60));
    assert_eq!(bench.device.save(), state, "no room");
    assert!(VirtioMmio::<VirtioNet>::restore(state.clone()).is_ok());
    let spoils: [fn(&mut NetState); 3] = [
        |s| s.waiting.push(vec![0; MAX_PACKET_BYTES]),
        |s| s.waiting[0].truncate(25),
        |s| s.waiting[0][1] = 3,
    ];
    for spoil in spoils {
        let mut state = state.clone();
        spoil(&mut state.device);
        assert!(VirtioMmio::<VirtioNet>::restore(state).is_err());
    }
}

/// Packets that ask for work, and the features of a guest that takes or sends them: in the
/// order GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, GUEST_ECN, and the same for HOST.
fn asking() -> Vec<(Vec<u8>, [bool; 4])> {
    let mut checksum = plain(1, 100);
    checksum[..NET_HEADER_BYTES].copy_from_slice(&[1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
    vec![
        (plain(1, 100), [false; 4]),
        (checksum, [true, false, false, false]),
        (large(false, false, 5000), [true, true, false, false]),
        (large(true, false, 5000), [true, false, true, false]),
        (large(false, true, 5000), [true, true, false, true]),
        (large(true, true, 5000), [true, false, true, true]),
    ]
}

#[test]
fn only_what_was_negotiated_passes() {
    for set in 0..16u64 {
        let accepted = [0, 1, 2, 3].map(|i| set >> i & 1 != 0);
        let bits = |places: [u32; 4]| {
            let places = places.into_iter().enumerate();
            places.fold(0, |sum, (i, place)| sum | (set >> i & 1) << place)
        };
        for (packet, needs) in asking() {
            let passes = needs.iter().zip(accepted).all(|(needs, has)| has || !needs);
            let mut bench = running_with(bits([1, 7, 8, 9]) | HOST_ALL);
            let head = bench.offer(RX, &[writable(BUFFERS, 60_000)]);
            bench.device.receive(&mut bench.mem, &packet);
            let mut expected = packet.clone();
            expected[10] = 1;
            if passes {
                assert_eq!(bench.used(RX), [(head, packet.len() as u32)]);
                assert_eq!(bench.bytes(BUFFERS, packet.len()), expected);
            } else {
                assert!(bench.used(RX).is_empty());
                assert!(bench.device.save().device.waiting.is_empty());
            }

            let mut bench = running_with(bits([0, 11, 12, 13]) | GUEST_ALL);
            let len = put(&mut bench, BUFFERS, &packet);
            bench.offer(TX, &[readable(BUFFERS, len)]);
            bench.notify(TX);
            assert_eq!(bench.used(TX).len(), 1);
            let expected: &[Vec<u8>] = if passes { &[packet] } else { &[] };
            assert_eq!(bench.frames(), expected);
        }
    }
}

#[test]
fn the_host_learns_what_the_guest_accepted() {
    assert_eq!(Bench::new(card()).device.offloads(), NetOffloads::default());
    let all = NetOffloads {
        checksum: true,
        tso4: true,
        tso6: true,
        ecn: true,
    };
    assert_eq!(running_with(GUEST_ALL).device.offloads(), all);
    // Segmentation and congestion bits alone count for nothing.
    let without = running_with(GUEST_ALL & !(1 << 1)).device.offloads();
    assert_eq!(without, NetOffloads::default());
    let only_ecn = running_with(1 << 1 | 1 << 9).device.offloads();
    assert_eq!(
        only_ecn,
        NetOffloads {
            checksum: true,
            ..NetOffloads::default()
        }
    );
    let mut reset = running_with(GUEST_ALL);
    reset.write(0x70, 0);
    assert_eq!(reset.device.offloads(), NetOffloads::default());
}

#[test]
fn a_sent_header_has_one_form() {
    let mut bench = running_with(HOST_ALL);
    let mut packet = plain(4, 60);
    // Data valid, an unknown flag, and fields that mean nothing without their flag.
    packet[..NET_HEADER_BYTES].copy_from_slice(&[0x86, 0, 9, 9, 9, 9, 9, 9, 9, 9, 7, 7]);
    let len = put(&mut bench, BUFFERS, &packet);
    bench.offer(TX, &[readable(BUFFERS, len)]);
    bench.notify(TX);
    assert_eq!(bench.frames(), [plain(4, 60)]);
}

#[test]
fn valid_data_is_told_to_a_guest_that_takes_checksums() {
    for (features, flags) in [(GUEST_ALL, 2), (0, 0)] {
        let mut bench = running_with(features);
        bench.offer(RX, &[writable(BUFFERS, 1526)]);
        let mut packet = plain(4, 60);
        packet[0] = 2;
        bench.device.receive(&mut bench.mem, &packet);
        assert_eq!(bench.bytes(BUFFERS, 2), [flags, 0]);
    }
}

#[test]
fn a_driver_without_version_1_has_no_num_buffers() {
    for (features, header) in [(0, 10), (1 << 5, 10), (MERGEABLE, 12), (1 << 32, 12)] {
        let mut bench = Bench::new(card());
        bench.negotiate(features);
        bench.set_up_queue(RX, 8);
        bench.set_up_queue(TX, 8);
        bench.write(0x70, 15);
        assert!(bench.device.running(), "{features:#x}");

        let frame: Vec<u8> = (1..=60).collect();
        let len = put(
            &mut bench,
            BUFFERS,
            &[vec![0; header], frame.clone()].concat(),
        );
        bench.offer(TX, &[readable(BUFFERS, len)]);
        bench.notify(TX);
        let packet = [vec![0; NET_HEADER_BYTES], frame.clone()].concat();
        assert_eq!(
            bench.frames(),
            std::slice::from_ref(&packet),
            "{features:#x}"
        );

        // A buffer of exactly this size is enough.
        let head = bench.offer(RX, &[writable(BUFFERS + 0x1000, len)]);
        bench.notify(RX);
        bench.device.receive(&mut bench.mem, &packet);
        let expected = [&ONE_BUFFER[..header], &frame].concat();
        assert_eq!(bench.used(RX), [(head, len)], "{features:#x}");
        assert_eq!(bench.bytes(BUFFERS + 0x1000, len as usize), expected);
    }
}
