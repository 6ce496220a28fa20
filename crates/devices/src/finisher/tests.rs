use super::*;
use crate::testing::saves_every_bit;

fn after(size: usize, value: u64) -> Option<FinisherRequest> {
    let mut finisher = Finisher::new();
    finisher.write(0, size, value).unwrap();
    finisher.take_request()
}

#[test]
fn requests() {
    assert_eq!(after(4, 0x5555), Some(FinisherRequest::Pass));
    assert_eq!(after(2, 0x5555), Some(FinisherRequest::Pass));
    assert_eq!(after(4, 0x002a_3333), Some(FinisherRequest::Fail(42)));
    assert_eq!(after(2, 0x3333), Some(FinisherRequest::Fail(0)));
    assert_eq!(after(4, 0x7777), Some(FinisherRequest::Reset));
    assert_eq!(after(4, 0x1234), None);
}

#[test]
fn a_request_is_taken_once_and_sizes_are_checked() {
    let mut finisher = Finisher::new();
    finisher.write(0, 4, 0x5555).unwrap();
    assert!(finisher.has_request());
    assert_eq!(finisher.take_request(), Some(FinisherRequest::Pass));
    assert_eq!(finisher.take_request(), None);
    finisher.write(4, 4, 0x5555).unwrap();
    assert!(!finisher.has_request(), "only offset 0 is the register");
    assert_eq!(finisher.write(0, 1, 0x55), Err(AccessFault));
    assert_eq!(finisher.write(0, 8, 0x5555), Err(AccessFault));
    assert_eq!(finisher.read(0, 4), Ok(0));
    assert_eq!(finisher.read(0, 8), Err(AccessFault));
}

#[test]
fn saves() {
    saves_every_bit(Finisher::new(), |finisher| {
        finisher.write(0, 4, 0x1_3333).unwrap();
    });
}
