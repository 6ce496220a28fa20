//! Kills at random moments, many times, with whatever was on its way lost.

use twinvm_protocol::RoleKind;
use twinvm_protocol::node::Mutation;

use crate::guest;
use crate::world::{A, B, World};

/// Kills in one run.
const KILLS: usize = 12;
/// Runs, each with its own seed.
const SEEDS: u64 = 40;
/// Short runs of the world in which a backup must be named: some minutes of its clock.
const PATIENCE_STEPS: u32 = 100_000;
/// Set it to run one seed alone.
const SEED_VARIABLE: &str = "PAIR_SEED";

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % bound
    }
}

/// A client may see an answer again, byte for byte, but none may be missing, and none may come
/// in two versions.
fn check(world: &World) -> Result<u64, String> {
    let mut first: Vec<&[u8]> = Vec::new();
    for (_, frame) in &world.wire {
        let Some(number) = guest::answer(frame) else {
            continue;
        };
        let known = first.len() as u64;
        match first.get(number as usize - 1) {
            Some(same) if same == frame => {}
            Some(_) => return Err(format!("answer {number} in two versions")),
            None if number == known + 1 => first.push(frame),
            None => return Err(format!("answer {number} after {known}")),
        }
    }
    Ok(first.len() as u64)
}

/// Asks the live node's guest some questions at once, if there is one.
fn ask(world: &mut World, questions: u64) {
    for _ in 0..questions {
        if let Some(at) = live(world) {
            world.frame(at, guest::question());
        }
    }
}

/// Whether the record names the session that the node beside the live one holds: from here on
/// either may die.
fn named(world: &World) -> bool {
    let backup = world.arbiter.current().and_then(|record| record.backup);
    let holds = live(world).and_then(|at| world.session(1 - at));
    backup.is_some_and(|backup| holds == Some(backup.session))
}

fn live(world: &World) -> Option<usize> {
    [A, B]
        .into_iter()
        .find(|at| world.role(*at) == Some(RoleKind::Live))
}

/// One run, with a rule broken if a test of this test wants that.
fn run(seed: u64, broken: Option<Mutation>) -> Result<(), String> {
    let mut dice = Dice(seed);
    let mut world = World::new();
    world.broken = broken;
    world.pair();
    world.lateness = 200;
    for _ in 0..KILLS {
        for _ in 0..dice.below(8) {
            ask(&mut world, dice.below(3));
            world.run_steps(dice.below(20));
        }
        // A burst at the end: its answers are on their way, each in a batch of its own.
        ask(&mut world, 1 + dice.below(6));
        world.run_steps(dice.below(12));
        // Acks, heartbeats and log on their way to the survivor are lost, some or all.
        let victim = dice.below(2) as usize;
        let keep = dice.below(4) as usize;
        world.kill_losing(victim, keep);
        world.run_steps(dice.below(200));
        world.start(victim);
        // The next kill may come as soon as the record names a backup. Before that, now and
        // then the joiner dies on its way.
        let mut left = PATIENCE_STEPS;
        while !named(&world) {
            ask(&mut world, dice.below(8) / 7);
            world.run_steps(dice.below(20));
            if dice.below(500) == 0 && live(&world) == Some(1 - victim) && !named(&world) {
                world.kill_losing(victim, dice.below(4) as usize);
                world.start(victim);
            }
            left -= 1;
            if left == 0 {
                return Err("no backup is named for long".to_owned());
            }
        }
        world.run_steps(dice.below(4) * dice.below(100));
        check(&world)?;
    }
    world.run_until("the pair is protected", |w| {
        w.protected(A) && w.protected(B)
    });
    let before = check(&world)?;
    let at = live(&world).ok_or("nobody is live")?;
    world.frame(at, guest::question());
    world.run_until("an answer", |w| check(w) != Ok(before));
    check(&world)?;
    let diverged = [A, B].map(|at| world.side(at).replica.status().divergence);
    match diverged.into_iter().flatten().next() {
        Some(what) => Err(what),
        None => Ok(()),
    }
}

#[test]
fn no_answer_is_lost_or_changed_by_any_kill() {
    let seeds = match std::env::var(SEED_VARIABLE) {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("a number");
            seed..seed + 1
        }
        Err(_) => 0..SEEDS,
    };
    for seed in seeds {
        if let Err(what) = run(seed, None) {
            panic!(
                "{what}; again with: {SEED_VARIABLE}={seed} cargo test --release -p \
                 twinvm-replica --test pair soak"
            );
        }
    }
}

/// Tests of this test: rules whose breaking only a kill at the right moment shows.
#[test]
fn broken_rules_are_noticed() {
    for broken in [Mutation::NoResend, Mutation::ReleaseOnInputAck] {
        let found = (0..SEEDS).find_map(|seed| run(seed, Some(broken)).err());
        let found = found.unwrap_or_else(|| panic!("nobody noticed {broken:?}"));
        assert!(found.starts_with("answer "), "{broken:?}: {found}");
    }
}
