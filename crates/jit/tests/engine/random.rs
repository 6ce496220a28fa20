//! Random programs in M, S and U with paging, that rewrite their own code and
//! tables: with nothing derived kept longer than a step they must do the same
//! as in long slices.

use crate::asm::*;
use crate::program::*;
use crate::rng::Rng;
use crate::tables::*;
use crate::world::*;
use std::num::NonZero;
use std::thread;
use twinvm_cpu::{Clock, Mode};
use twinvm_mem::RAM_BASE;

const CSRS: [u32; 43] = [
    0x001, 0x002, 0x003, 0x100, 0x104, 0x106, 0x140, 0x141, 0x142, 0x143, 0x144, 0x14d, 0x180,
    0x300, 0x300, 0x301, 0x302, 0x303, 0x304, 0x304, 0x306, 0x30a, 0x320, 0x340, 0x341, 0x342,
    0x343, 0x344, 0x344, 0xb00, 0xb02, 0xc00, 0xc01, 0xc02, 0xf14, 0xc83, 0x7c0, 0x100, 0x144,
    0x14d, 0x3b0, 0x3b1, 0x3a1,
];

const PROFILE: Profile = Profile {
    csrs: &CSRS,
    system: &[
        ECALL, ECALL, EBREAK, MRET, SRET, WFI, FENCE, FENCE_I, SFENCE, SFENCE, SINVAL, PAUSE,
    ],
    rewrites: true,
    aligned_atomics: false,
};

/// RAM once more for U-mode.
const USER: u64 = 0xc000_0000;
const ENTRIES_PAGE: u64 = RAM_BASE + 0x5_0000;
/// The root of Sv48.
const TOP: u64 = RAM_BASE + 0x5_1000;
const SINVAL: u32 = 0x1600_0073;
const PAUSE: u32 = 0x0100_000f;
const PROGRAM_OPS: usize = 500;
const STEPS: u64 = 3000;

fn random_entry(rng: &mut Rng) -> u64 {
    let flags = if rng.chance(4) {
        rng.below(256)
    } else {
        rng.pick(&[V | R | W | X, V | R | W, V | R | X, V | X, V])
            | rng.pick(&[0, A, A | D])
            | rng.pick(&[0, U])
    };
    let page = match rng.below(8) {
        0..3 => data_page(rng.below(16)),
        3..5 => CODE + (rng.below(3) << 12),
        5 => rng.pick(&[ROOT, MID, LEAF, LEAF2]),
        6 if rng.chance(2) => RAM_BASE,
        6 => return 1 << 63 | pte(DATA | 0x8000, flags),
        _ => return rng.pick(&[0, pte(LEAF, V), pte(LEAF2, V), pte(MID, V)]),
    };
    pte(page, flags)
}

fn world(seed: u64) -> World {
    let mut rng = Rng::new(seed);
    let rng = &mut rng;
    let mut world = World::new(|a| random_program(a, rng, &PROFILE, PROGRAM_OPS));
    world.code(M_HANDLER, |a| handler(a, 0x300, true));
    world.code(S_HANDLER, |a| handler(a, 0x100, false));
    world.paged(rng.pick(&[Mode::Machine, Mode::Supervisor, Mode::User]));
    world.word(slot(ROOT, 3), pte(RAM_BASE, V | R | W | X | U | A | D));
    if rng.chance(3) {
        // The root of Sv39 as the first table of Sv48.
        world.word(TOP, pte(ROOT, V));
        world.set_csr("satp", 9 << 60 | TOP >> 12);
    }
    if rng.chance(8) {
        world.set_csr("satp", 0);
    }
    if rng.chance(2) {
        holes(rng, &mut world);
    }
    for n in 0..16 {
        let user = rng.pick(&[0, U]);
        let extra = rng.pick(&[0, A, A | D]);
        world.map(n, data_page(n), V | R | W | user | extra);
        world.map(16 + n, CODE + ((n % 3) << 12), V | R | W | X | user | extra);
    }
    for n in 0..64 {
        world.word(slot(ENTRIES_PAGE, n), random_entry(rng));
    }
    let codes = [CODE, page(16), USER, page(17) + 0x7fe];
    world.hart.pc = rng.pick(&codes);
    let physical = world.hart.mode == Mode::Machine || world.csr("satp") == 0;
    if physical || world.hart.mode == Mode::User && world.hart.pc < USER {
        world.hart.pc = CODE;
    }
    let any = |rng: &mut Rng, at: u64| at + 8 * rng.below(512);
    for n in 1..19 {
        let value = match rng.below(4) {
            0 => rng.next(),
            1 => rng.next() as i32 as u64,
            2 => rng.below(64),
            _ => rng.pick(&[page(3), CODE, USER, page(16), DEVICE]),
        };
        world.set_x(n, value);
    }
    let window = rng.pick(&[DATA, page(0), USER + 0x2_0000, DATA + 0xffc]);
    world.set_x(2, any(rng, DATA + 0x1000));
    world.set_x(8, any(rng, window));
    world.set_x(9, any(rng, page(1)) + rng.pick(&[0, 0, 4, 1]));
    let there = rng.pick(&[0, USER - RAM_BASE]);
    world.set_x(ENTRIES as usize, ENTRIES_PAGE + there);
    let table = rng.pick(&[LEAF, LEAF, MID, ROOT]);
    world.set_x(TABLES as usize, table + rng.pick(&[0, 0, 128]) + there);
    world.set_x(CODE_BASE as usize, CODE + 0x400 + there);
    world.set_x(RESUME as usize, rng.pick(&codes));
    for f in &mut world.hart.f {
        *f = match rng.below(3) {
            0 => rng.next(),
            1 => !0 << 32 | rng.next() >> 32,
            _ => f64::from(rng.next() as i32).to_bits(),
        };
    }
    world.set_csr("mstatus", 0xa_0000_0000 | rng.next() & 0x7c_60aa);
    world.set_csr("mie", rng.next() & 0xaaa);
    world.set_csr("mideleg", rng.next() & 0x222);
    world.set_csr("medeleg", rng.next() & rng.pick(&[0, 0xb3ff]));
    world.set_csr("mcounteren", rng.below(8));
    world.set_csr("scounteren", rng.below(8));
    world.set_csr("menvcfg", rng.pick(&[0xa, 0x2, 0x8]) << 60);
    world.set_csr("stimecmp", rng.below(2 * STEPS));
    world.device.mtimecmp = rng.below(2 * STEPS);
    world.device.alarm = rng.below(2 * STEPS);
    world.clock = clock(rng, 0, 0);
    events(rng, &mut world);
    world
}

/// A PMP with holes of a word in pages of data, code and tables, and of a few
/// words in data; all else is open. Programs move the first two.
fn holes(rng: &mut Rng, world: &mut World) {
    let mut cfg = [0u64; 2];
    for n in 0..8u64 {
        let page = match rng.below(8) {
            0 => CODE + (rng.below(3) << 12),
            1 => rng.pick(&[LEAF, LEAF2, MID]),
            _ => data_page(rng.below(16)),
        };
        let word = (page >> 2) + rng.below(1024);
        let addr = if rng.chance(3) { word | 7 } else { word };
        world.set_csr(&format!("pmpaddr{n}"), addr);
        let lock = if rng.chance(6) { 0x80 } else { 0 };
        let shape = if n > 1 && addr & 7 == 7 { 0x18 } else { 0x10 };
        cfg[0] |= (lock | shape | rng.pick(&[0, 1, 3, 4, 5, 7])) << (8 * n);
    }
    cfg[1] = 0x1f << 56;
    world.set_csr("pmpaddr15", !0 >> 10);
    world.set_csr("pmpcfg0", cfg[0]).set_csr("pmpcfg2", cfg[1]);
}

fn clock(rng: &mut Rng, icount: u64, mtime: u64) -> Clock {
    Clock {
        icount,
        mtime,
        rate: rng.pick(&[1 << 32, 1 << 31, 1 << 30, 3 << 33, 0x1234_5678, 0]),
        span: rng.pick(&[u64::MAX, 100, 1000]),
    }
}

fn events(rng: &mut Rng, world: &mut World) {
    let mut at = 0;
    let mut now = world.clock;
    loop {
        at += 1 + rng.below(STEPS / 6);
        if at >= STEPS {
            return;
        }
        let event = match rng.below(5) {
            0 => {
                now = clock(rng, at, now.mtime(at));
                Event::Clock(now)
            }
            1 => Event::Lines(rng.below(8)),
            2 => Event::Store(CODE + 2 * rng.below(700), rng.next().to_le_bytes().to_vec()),
            3 => {
                let table = rng.pick(&[LEAF, LEAF, LEAF, MID]);
                let entry = random_entry(rng);
                let to = slot(table, rng.below(32));
                Event::Store(to, entry.to_le_bytes().to_vec())
            }
            _ => Event::Store(
                DATA + 8 * rng.below(2048),
                rng.next().to_le_bytes().to_vec(),
            ),
        };
        world.events.push((at, event));
    }
}

const MODES: [Way; 8] = [
    (Cut::Never, Between::Nothing, Tier::Interpreter),
    (Cut::Random(7), Between::Nothing, Tier::Interpreter),
    (Cut::Every(97), Between::Digest, Tier::Interpreter),
    (Cut::Random(11), Between::Flush, Tier::Interpreter),
    (Cut::Never, Between::Nothing, Tier::Translated(1)),
    (Cut::Random(7), Between::Nothing, Tier::Translated(0)),
    (Cut::Random(11), Between::Digest, Tier::Translated(2)),
    (Cut::Every(1), Between::Nothing, Tier::Translated(0)),
];

/// Runs one seed in all modes; returns steps, traps taken and the modes' sum.
fn case(seed: u64) -> (u64, u64) {
    let world = world(seed);
    let reference = Run::new(&world, WAYS[0]).go(STEPS);
    let again = format!(
        "seed {seed}: TWINVM_SEED={seed} cargo test --release -p twinvm-jit --test engine random"
    );
    world.compare(&MODES, STEPS, &reference, &again);
    (reference.icount, reference.hart.traps)
}

/// `TWINVM_SEED` runs one seed, `TWINVM_CASES` more of them.
#[test]
fn random_programs_do_the_same_in_every_way() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seeds = match (number("TWINVM_SEED"), number("TWINVM_CASES")) {
        (Some(seed), _) => seed..seed + 1,
        (None, cases) => 0..cases.unwrap_or(1000),
    };
    let cases = seeds.end - seeds.start;
    // The longest of all tests: it has all processors.
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let sum = |results: Vec<(u64, u64)>| {
        let add = |(steps, traps), (s, t)| (steps + s, traps + t);
        results.into_iter().fold((0, 0), add)
    };
    let (steps, traps) = thread::scope(|scope| {
        let share = |n| seeds.clone().skip(n).step_by(threads);
        let run = |n| scope.spawn(move || sum(share(n).map(case).collect()));
        let running: Vec<_> = (0..threads).map(run).collect();
        let ended = running.into_iter().map(|thread| thread.join());
        sum(ended.map(|end| end.expect("a case failed")).collect())
    });
    // The programs must get somewhere: neither stop early nor only trap.
    println!("{cases} programs, {steps} steps, {traps} traps");
    if cases >= 100 {
        assert!(steps > cases * STEPS / 2, "{steps} steps");
        assert!(
            traps > cases && traps < steps / 4,
            "{traps} traps in {steps} steps"
        );
    }
}
