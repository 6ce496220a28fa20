//! Random loops of the kinds that translated code has special ways for: the last branch leads
//! to the first instruction, results of 32 bits wait for their sign, several accesses to one
//! page are checked together, and all of it is left in the middle again and again.

use crate::asm::*;
use crate::rng::Rng;
use crate::tables::*;
use crate::world::*;
use twinvm_cpu::Mode;

const LOOPS: usize = 6;
const STEPS: u64 = 3000;
/// Pages of data, with different rights.
const PAGES: u64 = 8;

/// What a loop works with.
struct Cast {
    /// Registers that it reads and writes.
    pool: Vec<u32>,
    /// Registers that hold addresses.
    bases: Vec<u32>,
    count: u32,
    /// Floating-point registers.
    floats: Vec<u32>,
}

impl Cast {
    fn new(rng: &mut Rng) -> Self {
        let mut all: Vec<u32> = (1..32).collect();
        let mut take = |rng: &mut Rng, n: u64| -> Vec<u32> {
            let mut some = Vec::new();
            for _ in 0..n {
                some.push(all.swap_remove(rng.below(all.len() as u64) as usize));
            }
            some
        };
        let many = 1 + rng.below(3);
        let bases = take(rng, many);
        let count = take(rng, 1)[0];
        let many = 3 + rng.below(9);
        let pool = take(rng, many);
        let floats = (0..2 + rng.below(6)).map(|_| rng.below(32) as u32);
        Self {
            pool,
            bases,
            count,
            floats: floats.collect(),
        }
    }

    fn to(&self, rng: &mut Rng) -> u32 {
        if rng.chance(30) { 0 } else { self.from(rng) }
    }

    fn from(&self, rng: &mut Rng) -> u32 {
        match rng.below(16) {
            0 => 0,
            1 => rng.pick(&self.bases),
            _ => rng.pick(&self.pool),
        }
    }
}

/// Zbb and Zbs with one operand, by their immediates.
const UNARY: [i32; 9] = [
    0x600, 0x601, 0x602, 0x604, 0x605, 0x287, 0x6b8, 0x481, 0x287,
];

fn compute(rng: &mut Rng, cast: &Cast) -> u32 {
    let (rd, a, b) = (cast.to(rng), cast.from(rng), cast.from(rng));
    let f3 = rng.below(8) as u32;
    match rng.below(16) {
        0..4 => {
            let (f7, f3) = rng.pick(&[(0, 0), (0x20, 0), (0, 1), (0, 5), (0x20, 5), (1, 0)]);
            r(f7, b, a, f3, rd, 0x3b)
        }
        4 | 5 => {
            let imm = rng.next() as i32 % 2048;
            rng.pick(&[addiw(rd, a, imm), addiw(rd, a, 0), addi(rd, a, 0)])
        }
        6 => {
            let by = rng.below(32) as i32;
            let (high, f3) = rng.pick(&[(0, 1), (0, 5), (0x400, 5)]);
            i(by | high, a, f3, rd, 0x1b)
        }
        7 | 8 => {
            let f3 = rng.pick(&[4, 6, 7, 2, 3]);
            i(rng.pick(&[-1, 0, 1, 255, -2048, 2047]), a, f3, rd, 0x13)
        }
        9 | 10 => {
            let (f7, f3) = rng.pick(&[
                (0, 4),
                (0, 6),
                (0, 7),
                (0x20, 4),
                (0x20, 6),
                (0x20, 7),
                (0, 2),
                (0, 3),
            ]);
            r(f7, b, a, f3, rd, 0x33)
        }
        11 => r(rng.pick(&[0, 0x20]), b, a, 0, rd, 0x33),
        12 => r(1, b, a, f3, rd, rng.pick(&[0x33, 0x3b])),
        13 => {
            let f7 = rng.pick(&[0x10, 4, 5, 0x30, 0x14, 0x24, 0x34, 7]);
            r(f7, b, a, f3, rd, rng.pick(&[0x33, 0x3b]))
        }
        14 => i(
            rng.pick(&UNARY),
            a,
            rng.pick(&[1, 5]),
            rd,
            rng.pick(&[0x13, 0x13, 0x1b]),
        ),
        _ => {
            let by = rng.below(64) as i32;
            let (high, f3) = rng.pick(&[(0, 1), (0, 5), (0x400, 5), (0x600, 5), (0x480, 1)]);
            i(by | high, a, f3, rd, 0x13)
        }
    }
}

fn access(rng: &mut Rng, cast: &Cast) -> u32 {
    let base = rng.pick(&cast.bases);
    let at = match rng.below(12) {
        0 => rng.below(4096) as i32 - 2048,
        1 => rng.below(512) as i32 - 256,
        2..5 => rng.below(64) as i32,
        _ => rng.below(12) as i32 * 8 - 16,
    };
    match rng.below(20) {
        0..9 => load(rng.below(7) as u32, cast.to(rng), base, at),
        9..16 => store(rng.below(4) as u32, cast.from(rng), base, at),
        16 | 17 => i(
            at,
            base,
            2 + rng.below(2) as u32,
            rng.pick(&cast.floats),
            0x07,
        ),
        18 => s(
            at,
            rng.pick(&cast.floats),
            base,
            2 + rng.below(2) as u32,
            0x27,
        ),
        // The base itself.
        _ => load(rng.below(7) as u32, base, base, at),
    }
}

fn float(rng: &mut Rng, cast: &Cast) -> u32 {
    let f = |rng: &mut Rng| rng.pick(&cast.floats);
    let rm = rng.pick(&[7, 7, 7, 0, 1, 4]);
    let format = rng.below(2) as u32;
    match rng.below(8) {
        0 => r(
            0x60 + format,
            rng.below(4) as u32,
            f(rng),
            rm,
            cast.to(rng),
            0x53,
        ),
        1 => r(
            0x68 + format,
            rng.below(4) as u32,
            cast.from(rng),
            rm,
            f(rng),
            0x53,
        ),
        2 => r(0x70 + format, 0, f(rng), 0, cast.to(rng), 0x53),
        3 => r(0x78 + format, 0, cast.from(rng), 0, f(rng), 0x53),
        4 => r(0x50 + format, f(rng), f(rng), 2, cast.to(rng), 0x53),
        5 => csrrw(cast.to(rng), 1, cast.from(rng)),
        6 => f(rng) << 27 | r(format, f(rng), f(rng), rm, f(rng), 0x43),
        _ => r(
            rng.below(4) as u32 * 4 + format,
            f(rng),
            f(rng),
            rm,
            f(rng),
            0x53,
        ),
    }
}

fn atomic(rng: &mut Rng, cast: &Cast) -> u32 {
    let base = rng.pick(&cast.bases);
    if rng.chance(6) {
        return cbo(4, base);
    }
    let f5 = rng.pick(&[2, 3, 3, 1, 0, 4, 0xc, 8, 0x10, 0x14, 0x18, 0x1c]);
    let source = if f5 == 2 { 0 } else { cast.from(rng) };
    amo(f5, rng.chance(2), cast.to(rng), base, source)
}

fn body(a: &mut Asm, rng: &mut Rng, cast: &Cast) {
    let (accesses, floats) = rng.pick(&[(20, 0), (50, 0), (40, 4), (30, 20), (70, 3), (10, 70)]);
    let atomics = rng.pick(&[0, 0, 0, 4]);
    for _ in 0..2 + rng.below(38) {
        let what = rng.below(100);
        a.op(if what < accesses {
            access(rng, cast)
        } else if what < accesses + floats {
            float(rng, cast)
        } else if what < accesses + floats + atomics {
            atomic(rng, cast)
        } else if rng.chance(16) {
            let by = 4 * (1 + rng.below(8) as i32);
            let f3 = rng.pick(&[0, 1, 4, 5, 6, 7]);
            branch(f3, cast.from(rng), cast.from(rng), by)
        } else if rng.chance(10) {
            let base = rng.pick(&cast.bases);
            addi(base, base, rng.pick(&[8, -8, 16, 1, 64, -24, 2040]))
        } else if rng.chance(20) {
            auipc(cast.to(rng), rng.below(4) as u32)
        } else {
            compute(rng, cast)
        });
    }
}

fn program(a: &mut Asm, rng: &mut Rng, ends: &[u64]) {
    for _ in 0..LOOPS {
        let cast = Cast::new(rng);
        for base in &cast.bases {
            let near = rng.pick(&[0, 0, -8, -16, -24, -60, -300, 4, 1, -1, 1000]);
            a.li(*base, rng.pick(ends).wrapping_add_signed(near));
        }
        a.li(cast.count, 2 + rng.below(14));
        let start = a.here();
        body(a, rng, &cast);
        a.op(addi(cast.count, cast.count, -1));
        let back = start.wrapping_sub(a.here()) as i32;
        let (f3, first, second) = rng.pick(&[(1, cast.count, 0), (4, 0, cast.count)]);
        a.op(branch(f3, first, second, back));
    }
    // All over again: what was entered seldom is hot then.
    let back = a.base.wrapping_sub(a.here()) as i32;
    a.op(jal(0, back));
}

fn world(seed: u64) -> World {
    let mut rng = Rng::new(seed);
    let rng = &mut rng;
    // Page borders, and others that are nothing of the kind.
    let mut ends: Vec<u64> = (0..=PAGES).map(page).collect();
    let also = [
        LEAF + 8 * 20,
        CODE + 0x1000,
        page(2) + 0x800,
        page(5) + 0x123,
        DEVICE,
    ];
    ends.extend(also);
    let mut world = World::new(|a| program(a, rng, &ends));
    // What traps is left out.
    world.code(M_HANDLER, |a| {
        a.ops(&[csrrw(31, 0x340, 31), csrr(31, 0x341), addi(31, 31, 4)]);
        a.ops(&[csrw(0x341, 31), csrrw(31, 0x340, 31), MRET]);
    });
    world.paged(Mode::Supervisor);
    for n in 0..PAGES {
        let rights = rng.pick(&[
            DATA_PAGE,
            DATA_PAGE,
            DATA_PAGE,
            V | R | W | A,
            V | R | W,
            V | R | A,
            DATA_PAGE | U,
            0,
        ]);
        let at = rng.pick(&[data_page(n), data_page(n), data_page(n), data_page(1)]);
        world.map(n, at, rights);
    }
    if rng.chance(4) {
        // Tables and code among the data.
        world.map(3, LEAF, DATA_PAGE);
        world.map(4, CODE, DATA_PAGE);
    }
    for n in 0..PAGES * 512 {
        if rng.chance(8) {
            world.word(DATA + 8 * n, rng.next());
        }
    }
    for n in 1..32 {
        let value = rng.next();
        world.set_x(
            n,
            rng.pick(&[value, value as i32 as u64, value >> 32, 3, 0]),
        );
    }
    for f in &mut world.hart.f {
        let value = rng.next();
        *f = rng.pick(&[
            value,
            !0 << 32 | value >> 32,
            f64::from(value as i32).to_bits(),
        ]);
    }
    world.set_csr(
        "mstatus",
        world.csr("mstatus") | rng.pick(&[0, 1, 3, 3, 3, 3]) << 13,
    );
    world.set_csr("menvcfg", rng.pick(&[0, 1, 1]) << 61 | rng.pick(&[0, 0x80]));
    world.hart.fcsr = (rng.pick(&[0, 0, 1, 2, 3, 4]) << 5) as u8;
    events(rng, &mut world);
    world
}

fn events(rng: &mut Rng, world: &mut World) {
    let mut at = 0;
    loop {
        at += 1 + rng.below(STEPS / 3);
        if at >= STEPS {
            return;
        }
        let (to, value) = match rng.below(3) {
            0 => (DATA + 8 * rng.below(PAGES * 512), rng.next()),
            1 => {
                let rights = rng.pick(&[DATA_PAGE, V | R | W, V | R | A, 0]);
                let n = rng.below(PAGES);
                (slot(LEAF, n), pte(data_page(n), rights))
            }
            _ => (
                CODE + 4 * rng.below(150),
                u64::from(NOP) << 32 | u64::from(NOP),
            ),
        };
        world
            .events
            .push((at, Event::Store(to, value.to_le_bytes().to_vec())));
    }
}

/// Nothing derived lives longer than a slice of the interpreter's, as it has no part in this.
const REFERENCE: Way = (Cut::Every(1), Between::Nothing, Tier::Interpreter);
const MODES: [Way; 7] = [
    (Cut::Never, Between::Nothing, Tier::Translated(0)),
    (Cut::Every(1), Between::Nothing, Tier::Translated(0)),
    (Cut::Every(251), Between::Nothing, Tier::Translated(1)),
    (Cut::Random(1), Between::Nothing, Tier::Translated(0)),
    (Cut::Random(2), Between::Nothing, Tier::Translated(3)),
    (Cut::Every(97), Between::Digest, Tier::Translated(0)),
    (Cut::Random(4), Between::Flush, Tier::Translated(0)),
];

/// `TWINVM_SEED` runs one seed, `TWINVM_CASES` more of them.
#[test]
fn random_loops_do_the_same_in_every_way() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seeds = match (number("TWINVM_SEED"), number("TWINVM_CASES")) {
        (Some(seed), _) => seed..seed + 1,
        (None, cases) => 0..cases.unwrap_or(150),
    };
    let cases = seeds.end - seeds.start;
    let (mut steps, mut traps) = (0, 0);
    for seed in seeds {
        let world = world(seed);
        let reference = Run::new(&world, REFERENCE).go(STEPS);
        let again = format!(
            "seed {seed}: TWINVM_SEED={seed} cargo test --release -p twinvm-jit --test engine loops"
        );
        world.compare(&MODES, STEPS, &reference, &again);
        steps += reference.icount;
        traps += reference.hart.traps;
    }
    println!("{cases} programs, {steps} steps, {traps} traps");
    // The programs must get somewhere, and not only trap.
    if cases >= 100 {
        assert!(steps > cases * STEPS / 2, "{steps} steps");
        assert!(traps > cases && traps < steps / 6, "{traps} traps");
    }
}
