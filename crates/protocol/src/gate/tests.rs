use super::*;

#[test]
fn leaves_in_order_up_to_the_permit() {
    let mut gate = Gate::new(Position(3));
    for (position, item) in [(5, 'a'), (5, 'b'), (7, 'c')] {
        gate.push(Position(position), 10, item).unwrap();
    }
    assert_eq!((gate.len(), gate.bytes()), (3, 30));
    assert_eq!(gate.pop(Permit::Nothing), None);
    assert_eq!(gate.pop(Permit::UpTo(Position(4))), None);
    assert_eq!(
        gate.pop(Permit::UpTo(Position(6))),
        Some((Position(5), 'a'))
    );
    assert_eq!(
        gate.pop(Permit::UpTo(Position(6))),
        Some((Position(5), 'b'))
    );
    assert_eq!(gate.pop(Permit::UpTo(Position(6))), None);
    assert_eq!(
        (gate.released(), gate.first()),
        (Position(5), Some(Position(7)))
    );
    assert_eq!(gate.pop(Permit::Everything), Some((Position(7), 'c')));
    assert!(gate.is_empty() && gate.bytes() == 0);
}

#[test]
fn positions_never_go_back() {
    let mut gate = Gate::default();
    gate.push(Position(5), 1, ()).unwrap();
    assert!(gate.push(Position(4), 1, ()).is_err());
    assert_eq!(gate.len(), 1);
}

#[test]
fn full_by_count_or_by_bytes_but_it_takes_what_still_comes() {
    let mut gate = Gate::default();
    gate.push(Position(1), GATE_MAX_BYTES - 1, ()).unwrap();
    assert!(!gate.full());
    gate.push(Position(1), 1, ()).unwrap();
    assert!(gate.full());
    gate.push(Position(1), 1, ()).unwrap();
    assert_eq!(gate.len(), 3);
    let mut gate = Gate::default();
    for _ in 0..GATE_MAX_ITEMS {
        assert!(!gate.full());
        gate.push(Position(1), 0, ()).unwrap();
    }
    assert!(gate.full());
}
