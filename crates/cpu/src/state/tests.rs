use super::*;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    /// All bits, few bits, all but few.
    fn word(&mut self) -> u64 {
        match self.below(5) {
            0 => self.next(),
            1 => 1 << self.below(64),
            2 => !(1 << self.below(64)),
            3 => self.next() & self.next() & self.next(),
            _ => self.below(8),
        }
    }
}

/// A hart that a program may have reached.
fn some_hart(random: &mut Random) -> Hart {
    let mut hart = Hart::new(random.below(4), random.next() & !1);
    for n in 1..32 {
        hart.set_x(n, random.next());
    }
    hart.mode = Mode::from_bits(random.next());
    for field in &FIELDS {
        *(field.slot)(&mut hart) = (field.legal)(random.word());
    }
    for n in 0..pmp::ENTRIES {
        hart.pmp.write_addr(n, random.word());
    }
    hart.pmp.write_cfg(0, random.next());
    hart.pmp.write_cfg(1, random.next());
    let base = random.below(1 << 40);
    hart.cycle.inhibit(base, hart.mcountinhibit & 1 != 0);
    hart.instret.inhibit(base, hart.mcountinhibit & 4 != 0);
    match random.below(3) {
        0 => hart.reservation = Reservation::at(random.next() & !7, 8),
        1 => hart.end_turn(base),
        _ => {}
    }
    hart
}

#[test]
fn states_that_a_hart_reaches_come_back_as_they_are() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..2000 {
        let state = some_hart(&mut random).save();
        let again = Hart::restore(&state).map(|hart| hart.save());
        assert_eq!(again, Ok(state));
    }
}

/// Any value in any place: refused, or held as it is by registers that can.
#[test]
fn hostile_states_are_refused_or_legal() {
    let mut random = Random(0x0123_4567_89ab_cdef);
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..20_000 {
        let mut state = some_hart(&mut random).save();
        for _ in 0..1 + random.below(3) {
            match random.below(8) {
                0 => state.pc = random.word(),
                1 => state.reservation = Some((random.word(), random.below(10) as u8)),
                2 => state.counters[0].held = Some(random.word()).filter(|w| w & 1 != 0),
                3 => state.counters[1].held = Some(random.word()).filter(|w| w & 1 != 0),
                4 => state.away_since = Some(random.word()).filter(|w| w & 1 != 0),
                5 => state.fcsr = random.word() as u8,
                _ => {
                    let at = random.below(CSRS as u64) as usize;
                    state.csrs[at] = random.word();
                }
            }
        }
        let Ok(hart) = Hart::restore(&state) else {
            refused += 1;
            continue;
        };
        taken += 1;
        assert_eq!(hart.save(), state);
        for field in &FIELDS {
            let value = (field.get)(&hart);
            assert_eq!((field.legal)(value), value, "{}", field.name);
        }
        // As if software had written the PMP registers.
        let mut pmp = Pmp::new();
        (0..pmp::ENTRIES).for_each(|n| pmp.write_addr(n, hart.pmp.addr(n)));
        (0..2).for_each(|half| pmp.write_cfg(half, hart.pmp.cfg(half)));
        assert_eq!(pmp, hart.pmp);
        assert_eq!(hart.cycle.held.is_some(), hart.mcountinhibit & 1 != 0);
        assert_eq!(hart.instret.held.is_some(), hart.mcountinhibit & 4 != 0);
        assert!(hart.reservation.get().is_none() || hart.has_turn());
    }
    assert!(refused > 2000 && taken > 2000, "{refused} {taken}");
}

#[test]
fn each_illegal_bit_of_each_register_is_refused_by_its_name() {
    let good = Hart::new(0, 0).save();
    let flip = |name: &str, bits: u64| {
        let mut state = good.clone();
        let at = CSR_NAMES.iter().position(|n| *n == name).expect("a name");
        state.csrs[at] ^= bits;
        Hart::restore(&state).map(|_| ())
    };
    for (name, bits) in [
        ("mstatus", 1 << 63),
        ("mstatus", 2 << 32),
        ("mstatus", 2 << 11),
        ("mstatus", 1 << 15),
        ("medeleg", 1 << 11),
        ("mideleg", 1 << 7),
        ("mie", 1),
        ("mip", 1 << 3),
        ("mtvec", 2),
        ("stvec", 3),
        ("mepc", 1),
        ("sepc", 1),
        ("mcounteren", 1 << 32),
        ("mcountinhibit", 2),
        ("menvcfg", 1 << 62),
        ("senvcfg", 2 << 4),
        ("satp", 1),
        ("satp", 10 << 60),
    ] {
        assert_eq!(flip(name, bits), Err(HartStateError(name)), "{bits:#x}");
    }
    for (name, bits) in [("pmpcfg0", 2), ("pmpcfg2", 1 << 37), ("pmpaddr15", 1 << 54)] {
        assert_eq!(flip(name, bits), Err(HartStateError("pmp")), "{name}");
    }
    assert_eq!(flip("satp", 9 << 60 | 0xffff << 44), Ok(()));
}

#[test]
fn counts_must_fit() {
    let good = Hart::new(0, 0).save();
    for cut in 0..3 {
        let mut state = good.clone();
        let list = [&mut state.x, &mut state.f, &mut state.csrs];
        for (n, list) in list.into_iter().enumerate() {
            if n == cut {
                list.pop();
            }
        }
        assert!(Hart::restore(&state).is_err());
    }
    let mut names = CSR_NAMES.to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), good.csrs.len());
}
