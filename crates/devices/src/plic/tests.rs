use super::*;
use crate::testing::{Random, saves_every_bit};

const UART: usize = 10;
const NET: usize = 2;
const S0: usize = 1;

fn enable(plic: &mut Plic, context: usize, irq: usize, priority: u8) {
    plic.write(irq as u64 * 4, 4, priority.into()).unwrap();
    let at = ENABLE_BASE + context as u64 * ENABLE_STRIDE + (irq as u64 / 32) * 4;
    let old = plic.read(at, 4).unwrap();
    plic.write(at, 4, old | 1 << (irq % 32)).unwrap();
}

fn claim_register(context: usize) -> u64 {
    CONTEXT_BASE + context as u64 * CONTEXT_STRIDE + CLAIM
}

fn claim(plic: &mut Plic, context: usize) -> u64 {
    plic.read(claim_register(context), 4).unwrap()
}

fn complete(plic: &mut Plic, context: usize, irq: usize) {
    plic.write(claim_register(context), 4, irq as u64).unwrap();
}

fn set_threshold(plic: &mut Plic, context: usize, value: u64) {
    let at = CONTEXT_BASE + context as u64 * CONTEXT_STRIDE;
    plic.write(at, 4, value).unwrap();
}

fn ready() -> Plic {
    let mut plic = Plic::new(2);
    enable(&mut plic, S0, UART, 1);
    enable(&mut plic, S0, NET, 1);
    plic
}

#[test]
fn a_level_is_claimed_once_and_comes_again_while_high() {
    let mut plic = ready();
    plic.set_level(UART, true);
    assert!(plic.context_pending(S0));
    assert!(!plic.context_pending(0), "not enabled there");
    assert_eq!(claim(&mut plic, S0), UART as u64);
    assert!(!plic.context_pending(S0));
    assert_eq!(claim(&mut plic, S0), 0, "its gateway is closed");
    complete(&mut plic, S0, UART);
    assert!(plic.context_pending(S0), "the line is still high");
    assert_eq!(claim(&mut plic, S0), UART as u64);
    plic.set_level(UART, false);
    complete(&mut plic, S0, UART);
    assert!(!plic.context_pending(S0));
}

#[test]
fn a_request_once_forwarded_stays_although_the_line_falls() {
    let mut plic = ready();
    plic.set_level(UART, true);
    plic.set_level(UART, false);
    assert_eq!(plic.read(PENDING_BASE, 4), Ok(1 << UART));
    assert_eq!(claim(&mut plic, S0), UART as u64);
    complete(&mut plic, S0, UART);
    assert!(!plic.context_pending(S0));
}

#[test]
fn a_new_edge_during_service_is_one_more_request() {
    let mut plic = ready();
    plic.set_level(UART, true);
    claim(&mut plic, S0);
    plic.set_level(UART, false);
    plic.set_level(UART, true);
    assert!(!plic.context_pending(S0));
    complete(&mut plic, S0, UART);
    assert!(plic.context_pending(S0));
}

#[test]
fn the_highest_priority_wins_then_the_lowest_number() {
    let mut plic = ready();
    plic.set_level(UART, true);
    plic.set_level(NET, true);
    assert_eq!(claim(&mut plic, S0), NET as u64);
    complete(&mut plic, S0, NET);
    enable(&mut plic, S0, UART, 2);
    assert_eq!(claim(&mut plic, S0), UART as u64);
    assert_eq!(claim(&mut plic, S0), NET as u64);
    assert_eq!(claim(&mut plic, S0), 0);
}

#[test]
fn priority_zero_never_interrupts() {
    let mut plic = ready();
    enable(&mut plic, S0, UART, 0);
    plic.set_level(UART, true);
    assert!(!plic.context_pending(S0));
    assert_eq!(claim(&mut plic, S0), 0);
}

#[test]
fn the_threshold_masks_the_signal_but_not_the_claim() {
    let mut plic = ready();
    set_threshold(&mut plic, S0, 1);
    plic.set_level(UART, true);
    assert!(!plic.context_pending(S0));
    set_threshold(&mut plic, S0, 0);
    assert!(plic.context_pending(S0));
    set_threshold(&mut plic, S0, 7);
    assert_eq!(claim(&mut plic, S0), UART as u64);
}

#[test]
fn contexts_are_apart_and_the_first_claim_takes_it() {
    let mut plic = ready();
    enable(&mut plic, 3, UART, 1);
    plic.set_level(UART, true);
    assert!(plic.context_pending(S0) && plic.context_pending(3));
    assert_eq!(claim(&mut plic, 3), UART as u64);
    assert!(!plic.context_pending(S0), "one claim takes it from all");
    assert_eq!(claim(&mut plic, S0), 0);
}

#[test]
fn completion_of_a_source_that_is_not_enabled_is_ignored() {
    let mut plic = ready();
    plic.set_level(UART, true);
    claim(&mut plic, S0);
    complete(&mut plic, 0, UART);
    assert!(!plic.context_pending(S0));
    for irq in [0, 96, 1 << 20, u32::MAX as usize] {
        complete(&mut plic, S0, irq);
    }
    complete(&mut plic, S0, UART);
    assert!(plic.context_pending(S0));
}

#[test]
fn registers_hold_what_they_can() {
    let mut plic = Plic::new(1);
    plic.write(4 * 95, 4, 0xff).unwrap();
    assert_eq!(plic.read(4 * 95, 4), Ok(7));
    plic.write(0, 4, 7).unwrap();
    assert_eq!(plic.read(0, 4), Ok(0), "source 0 does not exist");
    plic.write(4 * 96, 4, 7).unwrap();
    assert_eq!(plic.read(4 * 96, 4), Ok(0));
    plic.write(ENABLE_BASE, 4, 0xffff_ffff).unwrap();
    assert_eq!(plic.read(ENABLE_BASE, 4), Ok(0xffff_fffe));
    plic.write(ENABLE_BASE + 12, 4, 1).unwrap();
    assert_eq!(plic.read(ENABLE_BASE + 12, 4), Ok(0));
    plic.write(PENDING_BASE, 4, 0xffff_ffff).unwrap();
    assert_eq!(plic.read(PENDING_BASE, 4), Ok(0), "pending is read-only");
    plic.write(ENABLE_BASE + 2 * ENABLE_STRIDE, 4, 2).unwrap();
    assert_eq!(plic.read(ENABLE_BASE + 2 * ENABLE_STRIDE, 4), Ok(0));
    assert_eq!(plic.read(0x5f_fffc, 4), Ok(0));
    for size in [1, 2, 8] {
        assert_eq!(plic.read(0, size), Err(AccessFault));
        assert_eq!(plic.write(0, size, 0), Err(AccessFault));
    }
}

#[test]
fn saves_after_any_history() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let mut plic = Plic::new(2);
        for irq in 1..SOURCES {
            enable(
                &mut plic,
                random.below(4) as usize,
                irq,
                random.below(8) as u8,
            );
        }
        for _ in 0..100 {
            let irq = random.below(100) as usize;
            let context = random.below(4) as usize;
            match random.below(4) {
                0 | 1 => plic.set_level(irq, random.below(2) == 0),
                2 => drop(claim(&mut plic, context)),
                _ => complete(&mut plic, context, irq),
            }
        }
        saves_every_bit(plic, |plic| {
            plic.set_level(95, false);
            complete(plic, 0, 95);
            plic.set_level(95, true);
            plic.set_level(1, true);
            let old = plic.contexts[3].threshold;
            set_threshold(plic, 3, u64::from(old ^ 5));
            claim(plic, 1);
        });
    }
}

#[test]
fn refuses_states_that_contradict_themselves() {
    let good = ready().save();
    type Spoil = fn(&mut PlicState);
    let cases: [(&str, Spoil); 9] = [
        ("short priorities", |s| s.priority.truncate(95)),
        ("wide priority", |s| s.priority[3] = 8),
        ("priority of source 0", |s| s.priority[0] = 1),
        ("no contexts", |s| s.contexts.clear()),
        ("odd contexts", |s| s.contexts.truncate(3)),
        ("wide threshold", |s| s.contexts[0].threshold = 8),
        ("source 0 enabled", |s| s.contexts[0].enable[0] = 1),
        ("pending and claimed", |s| {
            (s.pending[1], s.claimed[1]) = (4, 4);
        }),
        ("high and forgotten", |s| s.level[2] = 1),
    ];
    assert!(Plic::restore(good.clone()).is_ok());
    for (name, spoil) in cases {
        let mut state = good.clone();
        spoil(&mut state);
        assert!(Plic::restore(state).is_err(), "{name}");
    }
}
