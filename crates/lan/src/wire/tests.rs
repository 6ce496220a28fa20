use super::*;

const WAY: Way = Way::To(PortId(7));

fn wires(delay_ms: u64, loss_ppm: u32) -> Wires {
    let delay = Duration::from_millis(delay_ms);
    Wires::new(Impairment { delay, loss_ppm }, 1)
}

#[test]
fn a_good_wire_is_none_at_all() {
    let mut wires = wires(0, 0);
    let now = Instant::now();
    for _ in 0..1000 {
        assert_eq!(wires.put(now, WAY, b"frame"), Put::Through);
    }
    assert_eq!((wires.next(), wires.arrived(now)), (None, None));
}

#[test]
fn frames_arrive_in_order_when_their_time_has_come() {
    let mut wires = wires(5, 0);
    let now = Instant::now();
    let at = |ms| now + Duration::from_millis(ms);
    assert_eq!(wires.put(now, WAY, b"one"), Put::UnderWay);
    assert_eq!(
        wires.put(at(1), Way::From(PortId(9)), b"two"),
        Put::UnderWay
    );
    assert_eq!(wires.next(), Some(at(5)));
    assert_eq!(wires.arrived(at(4)), None);
    assert_eq!(wires.arrived(at(5)), Some((WAY, b"one".to_vec())));
    assert_eq!(wires.arrived(at(5)), None);
    assert_eq!(
        wires.arrived(at(9)),
        Some((Way::From(PortId(9)), b"two".to_vec()))
    );
    assert_eq!((wires.next(), wires.bytes), (None, 0));
}

#[test]
fn so_many_are_lost_as_was_asked_for() {
    let now = Instant::now();
    let lost = |ppm| {
        let mut wires = wires(0, ppm);
        (0..100_000)
            .filter(|_| wires.put(now, WAY, b"frame") == Put::Lost)
            .count()
    };
    assert_eq!(lost(0), 0);
    assert_eq!(lost(1_000_000), 100_000);
    let third = lost(300_000);
    assert!((29_000..31_000).contains(&third), "{third}");
}

#[test]
fn what_is_under_way_is_bounded() {
    let mut wires = wires(10_000, 0);
    let now = Instant::now();
    let frame = [0; 64 << 10];
    let sent = (0..4096)
        .filter(|_| wires.put(now, WAY, &frame) == Put::UnderWay)
        .count();
    assert_eq!(sent, MAX_BYTES / (frame.len() + FRAME_OVERHEAD));
}
