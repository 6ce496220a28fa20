//! Random functions that call each other through pages of code which are mapped anew and
//! rewritten meanwhile: each page of RAM has functions at the same places, so whatever page
//! is where, there is something to call, but another result.

use crate::asm::*;
use crate::rng::Rng;
use crate::tables::*;
use crate::world::*;
use twinvm_cpu::Mode;
use twinvm_mem::RAM_BASE;

const STEPS: u64 = 3000;
/// Pages of RAM with functions.
const PLACES: u64 = 5;
/// Pages of addresses at each of two places that are 4 MiB apart.
const PAGES: u64 = 6;
const FAR: u64 = 4 << 20;
const FUNCTIONS: u64 = 8;
const BYTES: u64 = 4096 / FUNCTIONS;
/// Addresses of functions, and entries of tables, in turn.
const TARGETS: u64 = DATA;
const ENTRIES: u64 = DATA + 0x1000;
const STACK: u64 = DATA + 0x3000;
const SP: u32 = 2;
const DEPTH: u32 = 9;
const SUM: u32 = 10;
const TARGET: u32 = 20;
const ENTRY: u32 = 21;
const TABLE: u32 = 22;
const PLACE: u32 = 23;
const RESUME: u32 = 27;

fn place(n: u64) -> u64 {
    RAM_BASE + 0x6_0000 + (n << 12)
}

fn entry(rng: &mut Rng) -> u64 {
    let rights = rng.pick(&[CODE_PAGE, CODE_PAGE, CODE_PAGE | W | D, V | R | X]);
    pte(place(rng.below(PLACES)), rights)
}

fn target(rng: &mut Rng) -> u64 {
    let near = page(rng.below(PAGES)) + BYTES * rng.below(FUNCTIONS);
    near + rng.pick(&[0, FAR])
}

/// What every function begins with, and what it is rewritten to.
fn first(rng: &mut Rng) -> u32 {
    addi(SUM, SUM, 1 + rng.below(2000) as i32)
}

fn call(a: &mut Asm, rng: &mut Rng) {
    // As deep as it may.
    a.op(branch(5, 0, DEPTH, 4 * 8));
    a.ops(&[addi(DEPTH, DEPTH, -1), addi(SP, SP, -8), sd(1, SP, 0)]);
    if rng.chance(2) {
        let at = 8 * rng.below(200) as i32;
        a.ops(&[ld(6, TARGET, at), jalr(1, 6, 0)]);
    } else {
        let here = a.here() & 4095;
        let far = rng.below(5) as i64 - 2;
        let to = (far * 4096 + (BYTES * rng.below(FUNCTIONS)) as i64 - here as i64) as i32;
        if rng.chance(2) {
            a.ops(&[NOP, jal(1, to - 4)]);
        } else {
            let high = (to + 0x800) >> 12;
            a.ops(&[
                auipc(6, high as u32 & 0xf_ffff),
                jalr(1, 6, to - (high << 12)),
            ]);
        }
    }
    a.ops(&[ld(1, SP, 0), addi(SP, SP, 8)]);
}

fn function(a: &mut Asm, rng: &mut Rng, last: bool) {
    let end = a.here() + BYTES;
    a.op(first(rng));
    for _ in 0..1 + rng.below(5) {
        match rng.below(12) {
            0..5 => call(a, rng),
            // A page is another.
            5 if rng.chance(2) => {
                let to = 8 * rng.below(PAGES) as i32;
                a.ops(&[ld(7, ENTRY, 8 * rng.below(200) as i32), sd(7, TABLE, to)]);
            }
            // A function is another.
            6 if rng.chance(2) => {
                a.ops(&[slli(7, DEPTH, 9), add(7, 7, PLACE)]);
                a.li(8, u64::from(first(rng))).op(sw(8, 7, 0));
            }
            7 => {
                a.ops(&[slli(6, SUM, 3), add(SUM, SUM, 6)]);
            }
            // Leaves early.
            8 if !last => {
                a.ops(&[branch(4, SUM, 6, 8), jalr(0, 1, 0)]);
            }
            _ => {
                a.op(addi(SUM, SUM, rng.below(100) as i32));
            }
        }
    }
    // The last of a page goes on in the next page.
    if last {
        a.pad_to(end);
    } else {
        a.op(jalr(0, 1, 0));
        while a.here() < end {
            a.op(ILLEGAL);
        }
    }
}

fn world(seed: u64) -> World {
    let mut rng = Rng::new(seed);
    let rng = &mut rng;
    let mut world = World::new(|a| {
        a.li(RESUME, CODE).li(SP, STACK).li(DEPTH, 1 + rng.below(5));
        a.li(ENTRY, ENTRIES)
            .li(TABLE, LEAF)
            .li(PLACE, place(rng.below(PLACES)));
        a.li(TARGET, TARGETS + 0x400);
        // Another function each time, by what there is so far.
        a.ops(&[
            i(0x3f8, SUM, 7, 6, 0x13),
            i(-8, 6, 7, 6, 0x13),
            add(6, 6, TARGET),
        ]);
        a.ops(&[ld(6, 6, -0x400), jalr(1, 6, 0), addi(SUM, SUM, 13)]);
        let back = CODE.wrapping_sub(a.here()) as i32;
        a.op(jal(0, back));
    });
    // Whatever traps: from the start.
    world.code(M_HANDLER, |a| {
        a.ops(&[
            addi(28, 28, 1),
            addi(SUM, SUM, 8),
            csrw(0x341, RESUME),
            MRET,
        ]);
    });
    world.paged(Mode::Supervisor);
    world.word(slot(MID, FAR >> 21), pte(LEAF2, V));
    for n in 0..PAGES {
        let common = entry(rng);
        world.word(slot(LEAF, n), common);
        let other = if rng.chance(2) { common } else { entry(rng) };
        world.word(slot(LEAF2, n), other);
    }
    for n in 0..PLACES {
        let mut page = Asm::at(place(n));
        for function_number in 0..FUNCTIONS {
            function(&mut page, rng, function_number + 1 == FUNCTIONS);
        }
        world.ram.push((place(n), page.bytes));
    }
    for n in 0..512 {
        world.word(TARGETS + 8 * n, target(rng));
        world.word(ENTRIES + 8 * n, entry(rng));
    }
    world.set_csr("menvcfg", 1 << 61);
    let mut at = 0;
    loop {
        at += 1 + rng.below(STEPS / 4);
        if at >= STEPS {
            return world;
        }
        let (to, bytes) = if rng.chance(2) {
            let table = rng.pick(&[LEAF, LEAF2]);
            (
                slot(table, rng.below(PAGES)),
                entry(rng).to_le_bytes().to_vec(),
            )
        } else {
            let to = place(rng.below(PLACES)) + BYTES * rng.below(FUNCTIONS);
            (to, first(rng).to_le_bytes().to_vec())
        };
        world.events.push((at, Event::Store(to, bytes)));
    }
}

const REFERENCE: Way = (Cut::Every(1), Between::Flush, Tier::Interpreter);
const MODES: [Way; 7] = [
    (Cut::Every(64), Between::Nothing, Tier::Interpreter),
    (Cut::Never, Between::Nothing, Tier::Translated(0)),
    (Cut::Every(1), Between::Nothing, Tier::Translated(0)),
    (Cut::Every(251), Between::Nothing, Tier::Translated(1)),
    (Cut::Random(1), Between::Nothing, Tier::Translated(0)),
    (Cut::Every(97), Between::Digest, Tier::Translated(0)),
    (Cut::Random(4), Between::Flush, Tier::Translated(0)),
];

/// `TWINVM_SEED` runs one seed, `TWINVM_CASES` more of them.
#[test]
fn random_calls_do_the_same_in_every_way() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seeds = match (number("TWINVM_SEED"), number("TWINVM_CASES")) {
        (Some(seed), _) => seed..seed + 1,
        (None, cases) => 0..cases.unwrap_or(100),
    };
    let cases = seeds.end - seeds.start;
    let mut traps = 0;
    for seed in seeds {
        let world = world(seed);
        let reference = Run::new(&world, REFERENCE).go(STEPS);
        let again = format!(
            "seed {seed}: TWINVM_SEED={seed} cargo test --release -p twinvm-jit --test engine pages"
        );
        world.compare(&MODES, STEPS, &reference, &again);
        traps += reference.hart.traps;
    }
    println!("{cases} programs, {traps} traps");
    // They mustn't only trap.
    assert!(traps < cases * STEPS / 50, "{traps} traps");
}
