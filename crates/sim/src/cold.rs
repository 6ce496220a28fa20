//! Both nodes killed, in every order and phase, and started again in every order: what was answered
//! is there, or nobody starts.
//!
//! The guest has a disk, so that all its boots are one history. The world's own checks hold
//! throughout: no start without the record, none beside a backup that holds the VM, and clients are
//! answered from one copy of the data.

use std::fmt;

use twinvm_protocol::RoleKind;

use crate::plan::{Broken, MS, Measures, US};
use crate::rng::Rng;
use crate::world::World;

/// What the pair is doing when the first of them is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A is live alone, B is down.
    Solo,
    /// A is live, B has been a backup before and takes its snapshot and disks again.
    Syncing,
    /// A is live, B its backup.
    Protected,
    /// B has just taken over from A, which is down.
    TookOver,
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killing {
    /// A, then B.
    AThenB,
    /// B, then A.
    BThenA,
    /// Both at once.
    Together,
    /// A; B stands still meanwhile and holds the VM. Only of a protected pair.
    AOnly,
}

/// Who is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restart {
    /// A; a while later B.
    AFirst,
    /// B; a while later A.
    BFirst,
    /// Both at once.
    Both,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Solo, Self::Syncing, Self::Protected, Self::TookOver];
}

impl Killing {
    const ALL: [Self; 4] = [Self::AThenB, Self::BThenA, Self::Together, Self::AOnly];
}

impl Restart {
    const ALL: [Self; 3] = [Self::AFirst, Self::BFirst, Self::Both];
}

/// One way for both to end and to come back.
#[derive(Clone, Copy, Debug)]
struct Case {
    phase: Phase,
    killing: Killing,
    restart: Restart,
    /// The hosts lose their power.
    power: bool,
    seed: u64,
}

/// What all cases came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Colds {
    /// Cases.
    pub cases: u64,
    /// Nodes that were started alone and went live from their disks.
    pub started_alone: u64,
    /// Nodes that were started alone and waited for the other one.
    pub waited_alone: u64,
    /// Joiners that were killed before they were the backup.
    pub killed_joining: u64,
    /// Cases in which the guest went on with its memory.
    pub kept_memory: u64,
    /// Operations of clients that were judged.
    pub operations: u64,
}

const A: usize = 0;
const B: usize = 1;
/// How long anything may take that is waited for.
const PATIENCE_NS: u64 = 20_000 * MS;
/// How long a node that was started alone is watched: far more than it needs to ask the arbiter
/// and to call its peer.
const ALONE_NS: u64 = 5_000 * MS;

impl World {
    fn waits_until(
        &mut self,
        what: &str,
        done: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), String> {
        self.run_until(50 * US, PATIENCE_NS, done)
            .map(|_| ())
            .map_err(|why| format!("until {what}: {why}"))
    }

    fn passes(&mut self, ns: u64) -> Result<(), String> {
        let until = self.now + ns;
        self.run_until(ns.max(1), ns + 1, |w| w.now >= until)
            .map(|_| ())
    }

    fn are_a_pair(&mut self) -> Result<(), String> {
        self.waits_until("they are a pair", |w| w.protected(A) && w.protected(B))
    }
}

/// Brings the pair to where the first one is killed. Who is down stays down.
fn bring_to(world: &mut World, case: Case, dice: &mut Rng) -> Result<(), String> {
    world.boot_now(A);
    world.waits_until("A is live", |w| w.role(A) == Some(RoleKind::Live))?;
    world.begin_clients();
    world.boot_now(B);
    world.are_a_pair()?;
    world.passes(dice.range(1, 200) * MS)?;
    match case.phase {
        Phase::Protected => {}
        Phase::Solo | Phase::Syncing => {
            world.end_until_started(B, case.power);
            world.waits_until("A is alone", |w| w.is_solo(A))?;
            world.passes(dice.range(1, 200) * MS)?;
        }
        Phase::TookOver => {
            world.end_until_started(A, case.power);
            world.waits_until("B is live", |w| w.role(B) == Some(RoleKind::Live))?;
        }
    }
    if case.phase == Phase::Syncing {
        world.start_again(B);
        let joins = |w: &mut World| !w.is_solo(A);
        world.waits_until("B is welcomed", joins)?;
    }
    world.passes(dice.range(1, 4000) * US)
}

/// Kills who is to be killed.
fn kill(world: &mut World, case: Case, dice: &mut Rng, colds: &mut Colds) -> Result<(), String> {
    let joins =
        world.role(B).is_some() && !world.protected(B) && world.role(B) != Some(RoleKind::Live);
    colds.killed_joining += u64::from(joins);
    let between = dice.pick(&[100 * US, 5 * MS, 100 * MS, 2000 * MS]);
    let (first, second) = match case.killing {
        Killing::AThenB => (A, B),
        _ => (B, A),
    };
    match case.killing {
        Killing::AOnly => {
            world.stands_still(B, 1500 * MS);
            world.end_until_started(A, case.power);
        }
        _ => {
            world.end_until_started(first, case.power);
            if case.killing != Killing::Together {
                world.passes(between)?;
            }
            world.end_until_started(second, case.power);
        }
    }
    // What was on its way to the arbiter arrives.
    world.passes(100 * MS)
}

/// Starts one node alone: it goes live if the record gives the VM to it and to nobody beside, and
/// waits else.
fn alone(world: &mut World, slot: usize, colds: &mut Colds) -> Result<(), String> {
    let entitled = world.is_named_alone(slot);
    world.start_again(slot);
    world.passes(ALONE_NS)?;
    let live = world.role(slot) == Some(RoleKind::Live);
    colds.started_alone += u64::from(live);
    colds.waited_alone += u64::from(!live);
    if live != entitled {
        return Err(format!("live alone: {live}, entitled: {entitled}"));
    }
    Ok(())
}

fn try_case(case: Case, broken: Option<Broken>, colds: &mut Colds) -> Result<(), String> {
    let measures = Measures {
        clients: 3,
        max_asked: 150,
        think_ns: 30 * MS,
        // A snapshot takes some milliseconds.
        ns_per_kib: 100 * US,
        disk: true,
        ..Measures::quiet()
    };
    let mut dice = Rng::new(case.seed);
    let mut world = World::new(measures, dice.split(), broken, false);
    bring_to(&mut world, case, &mut dice)?;
    kill(&mut world, case, &mut dice, colds)?;
    let held = case.killing == Killing::AOnly;
    match case.restart {
        Restart::Both => {
            world.start_again(A);
            if !held {
                world.start_again(B);
            }
        }
        Restart::AFirst if held => world.start_again(A),
        Restart::AFirst => {
            alone(&mut world, A, colds)?;
            world.start_again(B);
        }
        Restart::BFirst => {
            alone(&mut world, B, colds)?;
            world.start_again(A);
        }
    }
    world.heal();
    world.run()?;
    let tally = world.tally();
    colds.cases += 1;
    colds.operations += tally.operations;
    colds.kept_memory += u64::from(tally.boots == 1);
    if tally.unjudged > 0 {
        return Err("the history was too hard to judge".to_owned());
    }
    // The guest is powered on anew once, and not at all where a node still has its memory.
    let boots = if held { 1 } else { 2 };
    match tally.boots == boots {
        true => Ok(()),
        false => Err(format!("{} power-ons, expected {boots}", tally.boots)),
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}, killed {:?}, started {:?}",
            self.phase, self.killing, self.restart
        )?;
        let power = if self.power {
            ", with the hosts' power"
        } else {
            ""
        };
        write!(f, "{power}, seed {}", self.seed)
    }
}

/// Every phase, order of kills and order of starts, with processes that end and hosts that lose
/// their power, `seeds` times each at other moments.
///
/// # Errors
/// What was found, with the case that led to it.
pub fn colds(seeds: u64, broken: Option<Broken>) -> Result<Colds, String> {
    let mut colds = Colds::default();
    for phase in Phase::ALL {
        for killing in Killing::ALL {
            for restart in Restart::ALL {
                // Who holds the VM's memory is not started again.
                let held = killing == Killing::AOnly;
                if held && (phase != Phase::Protected || restart == Restart::BFirst) {
                    continue;
                }
                for (power, seed) in [false, true]
                    .into_iter()
                    .flat_map(|p| (0..seeds).map(move |s| (p, s)))
                {
                    let case = Case {
                        phase,
                        killing,
                        restart,
                        power,
                        seed,
                    };
                    try_case(case, broken, &mut colds).map_err(|what| format!("{case}: {what}"))?;
                }
            }
        }
    }
    Ok(colds)
}
