//! Several harts in turn on one engine.

use crate::asm::*;
use crate::rng::Rng;
use crate::world::*;
use std::collections::BTreeMap;
use twinvm_cpu::{Engine, Env, Exit, Hart, HartState};
use twinvm_mem::{Memory, MemoryDigest};

const PAUSE: u32 = 0x0100_000f;
const WRS_NTO: u32 = 0x00d0_0073;
const WRS_STO: u32 = 0x01d0_0073;

/// Harts that share a world's RAM and device. Hart n starts as the n-th state.
struct Crew {
    world: World,
    harts: Vec<HartState>,
    quantum: u64,
}

/// The end of a run.
struct Ended {
    harts: Vec<HartState>,
    icount: u64,
    /// Which hart ended its turn, at which step, and why.
    turns: Vec<(u64, usize, Exit)>,
    memory: Memory,
    digest: MemoryDigest,
    trace: BTreeMap<u64, Vec<HartState>>,
}

impl Ended {
    fn x(&self, hart: usize, n: usize) -> u64 {
        self.harts[hart].x[n - 1]
    }

    fn csr(&self, hart: usize, name: &str) -> u64 {
        csr(&self.harts[hart], name)
    }
}

impl Crew {
    /// Two harts that run `world`, each with its id in a0.
    fn new(world: World, quantum: u64) -> Self {
        let harts = (0..2)
            .map(|id| {
                let mut hart = world.hart.clone();
                hart.id = id;
                hart.x[9] = id;
                hart
            })
            .collect();
        Self {
            world,
            harts,
            quantum,
        }
    }

    /// Runs in every way and compares; hands the end over to `verify`.
    fn check(&self, steps: u64, verify: impl FnOnce(&Ended)) {
        let reference = self.go(WAYS[0], steps);
        for way in &WAYS[1..] {
            let got = self.go(*way, steps);
            for (at, harts) in &got.trace {
                if let Some(want) = reference.trace.get(at) {
                    assert_eq!(harts, want, "harts after step {at} run as {way:?}");
                }
            }
            assert_eq!(got.icount, reference.icount, "steps, {way:?}");
            assert_eq!(got.turns, reference.turns, "turns, {way:?}");
            assert_eq!(got.harts, reference.harts, "harts, {way:?}");
            assert!(got.digest == reference.digest, "RAM differs, {way:?}");
        }
        verify(&reference);
    }

    /// As a machine does it: turns of `quantum` steps, ended early by a yield or
    /// by waiting; waiting harts are skipped; all waiting ends the run.
    fn go(&self, way: Way, steps: u64) -> Ended {
        let mut memory = Memory::new(RAM_BYTES).expect("a RAM size");
        for (at, bytes) in &self.world.ram {
            memory.store(*at, bytes).expect("the address is RAM");
        }
        let mut device = self.world.device.clone();
        let (mut engine, mut restores) = (way.2.engine(&mut memory), 0);
        let mut harts: Vec<Hart> = self
            .harts
            .iter()
            .map(|state| Hart::restore(state).expect("a hart state"))
            .collect();
        for hart in &mut harts[1..] {
            hart.end_turn(0);
        }
        let mut rng = Rng::new(match way.0 {
            Cut::Random(seed) => seed,
            _ => 0,
        });
        let (mut icount, mut turn, mut turn_ends) = (0, 0, self.quantum);
        let (mut turns, mut trace, mut idle) = (Vec::new(), BTreeMap::new(), 0);
        while icount < steps && idle < harts.len() {
            let stop = match way.0 {
                Cut::Never => steps,
                Cut::Every(n) => icount + n,
                Cut::Random(_) => icount + 1 + rng.below(60),
            };
            let mut env = Env {
                mem: &mut memory,
                bus: &mut device,
                clock: self.world.clock,
                icount,
                builtin_sbi: false,
            };
            let stop = stop.min(steps).min(turn_ends);
            let exit = engine.run(&mut harts[turn], &mut env, stop);
            idle = if env.icount > icount { 0 } else { idle };
            icount = env.icount;
            if exit != Exit::Limit || icount == turn_ends {
                turns.push((icount, turn, exit));
                idle += usize::from(exit == Exit::Idle);
                harts[turn].end_turn(icount);
                turn = (turn + 1) % harts.len();
                turn_ends = icount + self.quantum;
                harts[turn].begin_turn(icount);
            }
            if !matches!(way.0, Cut::Never) {
                trace.insert(icount, harts.iter().map(Hart::save).collect());
            }
            match way.1 {
                Between::Nothing => {}
                Between::Flush => engine.flush(&mut memory),
                Between::Digest => drop(memory.digest()),
                Between::Restore => {
                    for hart in &mut harts {
                        *hart = Hart::restore(&hart.save()).expect("a saved state");
                    }
                    way.2.restore(&mut memory, &mut engine, &mut restores);
                }
            }
        }
        Ended {
            harts: harts.iter().map(Hart::save).collect(),
            icount,
            turns,
            digest: memory.digest(),
            memory,
            trace,
        }
    }
}

#[test]
fn pause_and_wrs_retire_and_end_the_turn() {
    for op in [PAUSE, WRS_NTO, WRS_STO] {
        let mut world = World::new(|a| {
            a.ops(&[addi(5, 5, 1), op, addi(5, 5, 1), csrr(6, 0xb02)]);
        });
        world.check(6, |after| {
            assert_eq!(after.exits(), [(2, Exit::Yield)]);
            assert_eq!((after.x(5), after.x(6)), (2, 3));
        });
        // TW lets them pass: the wait is over at once.
        world.mode(twinvm_cpu::Mode::User);
        world.set_csr("mstatus", world.csr("mstatus") | 1 << 21);
        world.check(3, |after| assert_eq!(after.hart.traps, 0));
        Crew::new(world, 100).check(9, |end| {
            assert_eq!(end.turns[..2], [(2, 0, Exit::Yield), (4, 1, Exit::Yield)]);
        });
    }
}

#[test]
fn each_hart_counts_its_own_instructions_and_the_machines_cycles() {
    let world = World::new(|a| {
        a.ops(&[NOP, PAUSE, csrr(5, 0xb02), csrr(6, 0xb00), ECALL]);
    });
    let mut crew = Crew::new(world, 1000);
    crew.world.code(M_HANDLER, |a| {
        a.ops(&[csrr(7, 0xb02), csrr(8, 0xb00), WFI]);
    });
    crew.check(100, |end| {
        assert_eq!([end.x(0, 5), end.x(1, 5)], [2, 2]);
        // 0 1 2 3 | 4 5 …: hart 1 paused after step 4, hart 0 went on.
        assert_eq!(end.x(0, 6), 5);
        // The trap is a step but doesn't retire.
        assert_eq!([end.x(0, 7), end.x(1, 7)], [4, 4]);
        assert_eq!(end.x(0, 8), 8);
        // Hart 0 waited after step 10.
        assert_eq!([end.x(1, 6), end.x(1, 8)], [11, 14]);
        assert_eq!(end.icount, 16);
        assert_eq!(
            end.turns[2..],
            [
                (10, 0, Exit::Idle),
                (16, 1, Exit::Idle),
                (16, 0, Exit::Idle)
            ]
        );
        let own = end
            .harts
            .iter()
            .map(|h| h.away_since.unwrap_or(end.icount) - h.foreign_steps);
        assert_eq!(own.sum::<u64>(), end.icount);
    });
}

#[test]
fn quanta_of_every_length_share_one_counter() {
    // Each hart adds 1 to the word 50 times, with an atomic or with LR and SC.
    let mut retried = 0;
    for quantum in [1, 2, 4, 5, 7, 64] {
        for lr_sc in [false, true] {
            let world = World::new(|a| {
                a.li(8, DATA).li(9, 50).li(11, 1);
                if lr_sc {
                    a.ops(&[amo(2, true, 5, 8, 0), addi(5, 5, 1), amo(3, true, 6, 8, 5)]);
                    // Failed: again, and count it.
                    a.op(branch(0, 6, 0, 12))
                        .op(addi(12, 12, 1))
                        .op(jal(0, -20));
                } else {
                    a.op(amo(0, true, 0, 8, 11));
                }
                let back = if lr_sc { -28 } else { -8 };
                a.op(addi(9, 9, -1)).op(branch(1, 9, 0, back)).op(WFI);
            });
            let crew = Crew::new(world, quantum);
            let steps = 2000;
            crew.check(steps, |end| {
                if lr_sc && quantum <= 2 {
                    // A turn too short for LR, add, SC makes no progress.
                    assert_eq!(end.memory.load_u64(DATA), Ok(0));
                    assert!(end.x(0, 12) > 9);
                } else {
                    assert_eq!(end.memory.load_u64(DATA), Ok(100));
                    retried += u64::from(end.x(0, 12) + end.x(1, 12) > 0);
                }
            });
        }
    }
    assert!(retried > 2, "{retried} quanta cut an LR from its SC");
}

#[test]
fn a_switch_ends_the_reservation_even_if_nobody_stored() {
    let world = World::new(|a| {
        a.li(8, DATA);
        a.ops(&[amo(2, true, 5, 8, 0), PAUSE, amo(3, true, 6, 8, 0)]);
    });
    // Alone the reservation stays.
    world.check(12, |after| assert_eq!(after.x(6), 0));
    Crew::new(world, 10).check(60, |end| assert_eq!([end.x(0, 6), end.x(1, 6)], [1, 1]));
}

#[test]
fn code_patched_by_the_other_hart() {
    // Hart 1 rewrites the instruction that hart 0 loops over.
    let world = World::new(|a| {
        a.op(branch(1, 10, 0, 28));
        // Hart 0: patch me, 40 times.
        let (add_1, add_256) = (addi(5, 5, 1), addi(5, 5, 256));
        a.ops(&[addi(9, 0, 40), add_1, PAUSE, addi(9, 9, -1)]);
        a.op(branch(1, 9, 0, -12)).op(WFI);
        // Hart 1: three turns, then the store.
        a.li(8, CODE + 8).li(7, u64::from(add_256));
        a.ops(&[PAUSE, PAUSE, sw(7, 8, 0), WFI]);
    });
    for quantum in [1000, 5, 1] {
        Crew::new(world.clone(), quantum).check(400, |end| {
            let (ones, many) = (end.x(0, 5) & 255, end.x(0, 5) >> 8);
            assert_eq!(ones + many, 40);
            assert!(ones > 0 && many > 0, "{ones} {many}");
        });
    }
}

#[test]
fn spaces_of_two_harts_stay_apart() {
    use crate::tables::*;
    // The same virtual page, through two roots.
    let mut world = World::new(|a| {
        a.li(8, page(0)).li(9, 10);
        a.ops(&[
            ld(5, 8, 0),
            add(6, 6, 5),
            PAUSE,
            sd(5, 8, 8),
            addi(9, 9, -1),
        ]);
        a.op(branch(1, 9, 0, -20)).op(WFI);
    });
    let other = RAM_ROOT;
    world
        .paged(twinvm_cpu::Mode::Supervisor)
        .map(0, data_page(1), DATA_PAGE);
    world.word(slot(other, 2), pte(CODE, DATA_PAGE | X));
    world.word(slot(other, 1), pte(other + 0x1000, V));
    world.word(other + 0x1000, pte(other + 0x2000, V));
    world.word(other + 0x2000, pte(data_page(2), DATA_PAGE));
    let mut crew = Crew::new(world, 64);
    let at = twinvm_cpu::CSR_NAMES.iter().position(|n| *n == "satp");
    crew.harts[1].csrs[at.expect("satp")] = satp(other);
    crew.check(400, |end| {
        assert_eq!([end.x(0, 6), end.x(1, 6)], [0x101 * 10, 0x102 * 10]);
        assert_eq!(end.memory.load_u64(data_page(1) + 8), Ok(0x101));
        assert_eq!(end.memory.load_u64(data_page(2) + 8), Ok(0x102));
        assert_eq!([end.csr(0, "mcause"), end.csr(1, "mcause")], [0, 0]);
    });
}

#[test]
fn memory_protection_and_translation_modes_of_two_harts_stay_apart() {
    use crate::tables::*;
    // Hart 0: Sv39, all open. Hart 1: Sv48 with a PMP that closes the page's second
    // half for stores; its handler counts and goes on.
    let mut world = World::new(|a| {
        a.li(8, page(0)).li(9, 10);
        a.ops(&[ld(5, 8, 0), add(6, 6, 5), PAUSE, sd(9, 8, 16)]);
        a.li(7, 0x7f0).op(add(7, 8, 7));
        a.ops(&[sd(9, 7, 16), addi(9, 9, -1)]);
        a.op(branch(1, 9, 0, -32)).op(WFI);
    });
    world.code(M_HANDLER, |a| {
        a.ops(&[csrr(28, 0x341), addi(28, 28, 4), csrw(0x341, 28)]);
        a.ops(&[csrr(29, 0x342), add(30, 30, 29), MRET]);
    });
    world.paged(twinvm_cpu::Mode::Supervisor);
    world.map(0, data_page(1), DATA_PAGE);
    world.word(slot(RAM_ROOT, 0), pte(ROOT, V));
    let mut crew = Crew::new(world, 64);
    let mut set = |name: &str, value: u64| {
        let at = twinvm_cpu::CSR_NAMES.iter().position(|n| *n == name);
        crew.harts[1].csrs[at.expect("a name")] = value;
    };
    set("satp", 9 << 60 | RAM_ROOT >> 12);
    set("pmpcfg0", 0x1f_19);
    set("pmpaddr0", (data_page(1) + 0x800) >> 2 | 0xff);
    set("pmpaddr1", !0 >> 10);
    crew.check(500, |end| {
        assert_eq!([end.x(0, 6), end.x(1, 6)], [0x101 * 10; 2]);
        assert_eq!([end.x(0, 30), end.x(1, 30)], [0, 7 * 10]);
        assert_eq!(end.memory.load_u64(data_page(1) + 16), Ok(1));
        assert_eq!(end.memory.load_u64(data_page(1) + 0x800), Ok(1));
        assert_eq!(end.csr(1, "mtval"), page(0) + 0x800);
    });
}

#[test]
fn a_hart_started_again_keeps_its_counters() {
    let mut world = World::new(|a| {
        a.ops(&[NOP, csrrwi(0, 0x320, 4), ECALL]);
    });
    world.set_csr("mie", 0xaaa).set_csr("satp", 9 << 60 | 5);
    let mut memory = Memory::new(RAM_BYTES).expect("a RAM size");
    for (at, bytes) in &world.ram {
        memory.store(*at, bytes).expect("the address is RAM");
    }
    let mut hart = Hart::restore(&world.hart).expect("a hart state");
    let mut env = Env {
        mem: &mut memory,
        bus: &mut world.device,
        clock: world.clock,
        icount: 0,
        builtin_sbi: false,
    };
    let mut engine = Engine::new();
    assert_eq!(engine.run(&mut hart, &mut env, 5), Exit::Limit);
    let before = hart.save();
    assert_eq!(before.traps, 1);
    hart.enter_supervisor(CODE + 0x41, 0x1234);
    let after = hart.save();
    assert_eq!((after.traps, after.foreign_steps), (1, 0));
    let inhibited = |state: &HartState| csr(state, "mcountinhibit");
    assert_eq!((inhibited(&before), inhibited(&after)), (4, 4));
    assert_eq!([csr(&after, "mie"), csr(&after, "satp")], [0, 0]);
    assert_eq!(csr(&after, "mstatus") >> 13 & 3, 3, "floating point is on");
    assert_eq!(
        (hart.pc(), hart.x(10), hart.x(11)),
        (CODE + 0x40, 0, 0x1234)
    );
    assert_eq!(Hart::restore(&after).map(|hart| hart.save()), Ok(after));
}

const RAM_ROOT: u64 = CODE + 0x5_0000;
