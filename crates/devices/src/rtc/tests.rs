use super::*;
use crate::testing::saves_every_bit;

const BASE: u64 = 1_700_000_000_000_000_000;

fn at(mtime: u64) -> Now {
    Now { mtime }
}

fn time(rtc: &mut Rtc, mtime: u64) -> u64 {
    let low = rtc.read(TIME_LOW, 4, at(mtime)).unwrap();
    rtc.read(TIME_HIGH, 4, at(mtime)).unwrap() << 32 | low
}

fn set_alarm(rtc: &mut Rtc, ns: u64, mtime: u64) {
    // Linux's order: high, low, enable.
    rtc.write(ALARM_HIGH, 4, ns >> 32, at(mtime)).unwrap();
    rtc.write(ALARM_LOW, 4, ns, at(mtime)).unwrap();
    rtc.write(IRQ_ENABLED, 4, 1, at(mtime)).unwrap();
}

#[test]
fn time_is_base_plus_virtual_time() {
    let mut rtc = Rtc::new(BASE);
    assert_eq!(time(&mut rtc, 0), BASE);
    assert_eq!(time(&mut rtc, 12_345), BASE + 1_234_500);
}

#[test]
fn reading_the_low_half_latches_the_high_half() {
    let mut rtc = Rtc::new(0xffff_ffff);
    assert_eq!(rtc.read(TIME_LOW, 4, at(0)), Ok(0xffff_ffff));
    assert_eq!(rtc.read(TIME_HIGH, 4, at(1)), Ok(0), "as of the low read");
    assert_eq!(rtc.read(TIME_LOW, 4, at(1)), Ok(99));
    assert_eq!(rtc.read(TIME_HIGH, 4, at(1)), Ok(1));
}

#[test]
fn the_guest_sets_the_time_and_a_reset_keeps_it() {
    let mut rtc = Rtc::new(BASE);
    let wanted = BASE + 5_000_000_000_000;
    rtc.write(TIME_HIGH, 4, wanted >> 32, at(1000)).unwrap();
    rtc.write(TIME_LOW, 4, wanted & 0xffff_ffff, at(1000))
        .unwrap();
    assert_eq!(time(&mut rtc, 1000), wanted);
    rtc.reset();
    assert_eq!(time(&mut rtc, 1010), wanted + 1000);
}

#[test]
fn the_alarm_fires_at_its_deadline() {
    let mut rtc = Rtc::new(BASE);
    // 1001 ns after mtime 100: the first tick at or after it is 11 later.
    set_alarm(&mut rtc, BASE + 10_000 + 1001, 100);
    assert_eq!(rtc.alarm_deadline(), Some(111));
    assert_eq!(rtc.read(ALARM_STATUS, 4, at(100)), Ok(1));
    rtc.update(110);
    assert!(!rtc.irq_level());
    rtc.update(111);
    assert!(rtc.irq_level());
    assert_eq!(rtc.alarm_deadline(), None);
    assert_eq!(rtc.read(ALARM_STATUS, 4, at(111)), Ok(0));
    rtc.write(CLEAR_INTERRUPT, 4, 1, at(111)).unwrap();
    assert!(!rtc.irq_level());
}

#[test]
fn an_alarm_in_the_past_fires_at_once_and_a_cleared_one_never() {
    let mut rtc = Rtc::new(BASE);
    set_alarm(&mut rtc, BASE - 1, 0);
    assert!(rtc.irq_level());
    rtc.write(IRQ_ENABLED, 4, 0, at(0)).unwrap();
    assert!(!rtc.irq_level(), "masked");
    rtc.write(CLEAR_INTERRUPT, 4, 0, at(0)).unwrap();
    set_alarm(&mut rtc, BASE + 1000, 0);
    rtc.write(CLEAR_ALARM, 4, 0, at(0)).unwrap();
    rtc.update(1_000_000);
    assert!(!rtc.irq_level());
}

#[test]
fn an_armed_alarm_stays_at_its_wall_time_when_the_clock_is_set() {
    let mut rtc = Rtc::new(0);
    set_alarm(&mut rtc, 10_000, 0);
    assert_eq!(rtc.alarm_deadline(), Some(100));
    rtc.write(TIME_LOW, 4, 4_000, at(0)).unwrap();
    assert_eq!(rtc.alarm_deadline(), Some(60));
    rtc.write(TIME_LOW, 4, 20_000, at(0)).unwrap();
    assert!(rtc.irq_level(), "set past the alarm");
}

#[test]
fn extreme_times_do_not_break_it() {
    let mut rtc = Rtc::new(u64::MAX);
    time(&mut rtc, u64::MAX);
    set_alarm(&mut rtc, u64::MAX, u64::MAX - 1);
    rtc.update(u64::MAX);
    rtc.write(TIME_HIGH, 4, u64::MAX, at(u64::MAX)).unwrap();
}

#[test]
fn registers_are_words() {
    let mut rtc = Rtc::new(BASE);
    for size in [1, 2, 8] {
        assert_eq!(rtc.read(TIME_LOW, size, at(0)), Err(AccessFault));
        assert_eq!(rtc.write(TIME_LOW, size, 0, at(0)), Err(AccessFault));
    }
    assert_eq!(rtc.read(0x20, 4, at(0)), Ok(0));
}

#[test]
fn saves() {
    let mut rtc = Rtc::new(BASE);
    time(&mut rtc, 5);
    set_alarm(&mut rtc, BASE + 10_000, 5);
    saves_every_bit(rtc, |rtc| rtc.update(200));
    saves_every_bit(Rtc::new(BASE), |rtc| {
        rtc.write(TIME_LOW, 4, 1, at(9)).unwrap();
        time(rtc, 10);
        set_alarm(rtc, u64::MAX / 2, 10);
    });
}
