use super::*;

/// The definition, byte by byte: the entry that decides.
fn decides(pmp: &Pmp, pa: u64) -> Option<usize> {
    (0..ENTRIES).find(|n| {
        let addr = pmp.addr(*n);
        match pmp.cfg[*n] >> 3 & 3 {
            1 => {
                let bottom = if *n == 0 { 0 } else { pmp.addr(n - 1) };
                bottom <= pa >> 2 && pa >> 2 < addr
            }
            2 => pa >> 2 == addr,
            3 => {
                let low = addr ^ (addr + 1);
                (pa >> 2) & !low == addr & !low
            }
            _ => false,
        }
    })
}

fn right(pmp: &Pmp, entry: Option<usize>, machine: bool) -> u8 {
    match entry {
        Some(n) if machine && pmp.cfg[n] & 0x80 == 0 => 7,
        Some(n) => pmp.cfg[n] & 7,
        None if machine => 7,
        None => 0,
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }
}

#[test]
fn maps_agree_with_the_definition_byte_by_byte() {
    let mut random = Random(0x1234_5678_9abc_def1);
    for round in 0..400 {
        let mut pmp = Pmp::new();
        let active = 1 + random.next(ENTRIES as u64) as usize;
        for n in 0..active {
            let addr = match random.next(3) {
                0 => random.next(32),
                1 => random.next(32) | 7,
                _ => 0x3f_ffff_ffff_ffff >> random.next(54),
            };
            pmp.addr[n] = addr;
            pmp.cfg[n] = legal_cfg(random.next(256) as u8);
        }
        for machine in [false, true] {
            let map = pmp.map(machine);
            for pa in 0..140u64 {
                for len in [1u64, 2, 4, 8] {
                    let first = decides(&pmp, pa);
                    let all_same = (pa..pa + len).all(|at| decides(&pmp, at) == first);
                    let want = if all_same {
                        right(&pmp, first, machine)
                    } else {
                        0
                    };
                    assert_eq!(map.allowed(pa, len), want, "{round} {machine} {pa} {len}");
                }
            }
        }
    }
}

#[test]
fn maps_at_the_ends() {
    assert_eq!(Pmp::open().map(false), PmpMap::open());
    assert_eq!(Pmp::open().map(true), PmpMap::open());
    assert_eq!(Pmp::new().map(true), PmpMap::open());
    assert_eq!(Pmp::new().map(false).allowed(0x8000_0000, 8), 0);
    let open = PmpMap::open();
    assert_eq!(open.allowed((1 << 56) - 8, 8), 7);
    assert_eq!(open.allowed((1 << 56) - 7, 8), 0);
    assert_eq!(open.allowed(1 << 56, 1), 0);
    assert_eq!(open.allowed(u64::MAX, 8), 0);
    assert_eq!(open.page(!4095), None);
    // The largest region of TOR and of NA4.
    let mut pmp = Pmp::new();
    pmp.write_addr(0, u64::MAX);
    pmp.write_cfg(0, 0x09);
    assert_eq!(pmp.map(false).allowed((1 << 56) - 8, 4), 1);
    assert_eq!(pmp.map(false).allowed((1 << 56) - 4, 4), 0);
    pmp.write_cfg(0, 0x11);
    assert_eq!(pmp.map(false).allowed((1 << 56) - 4, 4), 1);
}

#[test]
fn locks_hold_their_entry_and_the_bound_below() {
    let mut pmp = Pmp::new();
    for n in 0..ENTRIES {
        pmp.write_addr(n, 100 + n as u64);
    }
    // Entry 2: locked TOR. Entry 5: locked, off. Entry 8: locked NAPOT.
    pmp.write_cfg(0, 0x0000_8f00_0089_0000);
    pmp.write_cfg(1, 0x98);
    let before = pmp;
    pmp.write_cfg(0, 0);
    pmp.write_cfg(1, 0);
    assert_eq!(pmp.cfg(0), 0x0000_8f00_0089_0000 & before.cfg(0));
    assert_eq!(pmp.cfg(1), 0x98);
    for n in 0..ENTRIES {
        pmp.write_addr(n, 7);
    }
    let held: Vec<usize> = (0..ENTRIES).filter(|n| pmp.addr(*n) != 7).collect();
    // 0x8f in byte 5 is a locked TOR entry too.
    assert_eq!(held, [1, 2, 4, 5, 8]);
}

#[test]
fn what_cannot_be_held_is_refused() {
    let addr = [0; ENTRIES];
    assert!(Pmp::restore([0x9f, 0], addr).is_some());
    for cfg in [0x02, 0x06, 0x20, 0x40, 0x1f00_0000_0000_0002] {
        assert_eq!(Pmp::restore([0, cfg], addr), None, "{cfg:#x}");
    }
    let mut wide = addr;
    wide[15] = 1 << 54;
    assert_eq!(Pmp::restore([0, 0], wide), None);
}
