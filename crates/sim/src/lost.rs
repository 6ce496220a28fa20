//! An arbiter that loses its record just when a backup needs it: one that the record names, that was
//! never told so, and whose live node has died. It has the only machine.

use twinvm_protocol::{Generation, LiveName, NodeId, Record, RoleKind};

use crate::plan::{Broken, MS, Measures, US};
use crate::rng::Rng;
use crate::world::World;

const A: usize = 0;
const B: usize = 1;
/// How long anything may take that is waited for.
const PATIENCE_NS: u64 = 20_000 * MS;
/// How long the backup is left alone with an arbiter that knows nothing: some reads.
const WAITS_NS: u64 = 9_000 * MS;

/// What the arbiter shows when it has lost its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    Nothing,
    /// A request for the first record lands late. The backup was welcomed by that generation.
    Another,
    /// The same, and the backup was welcomed by a later one.
    Older,
}

impl World {
    fn waits(&mut self, what: &str, done: impl FnMut(&mut Self) -> bool) -> Result<(), String> {
        let waited = self.run_until(10 * US, PATIENCE_NS, done);
        waited
            .map(|_| ())
            .map_err(|why| format!("until {what}: {why}"))
    }

    fn is_live(&self, slot: usize) -> bool {
        self.role(slot) == Some(RoleKind::Live)
    }
}

fn lose(shows: Shows, seed: u64, broken: Option<Broken>) -> Result<(), String> {
    let measures = Measures {
        max_asked: 100,
        ..Measures::quiet()
    };
    let mut world = World::new(measures, Rng::new(seed), broken, false);
    world.boot_now(A);
    world.waits("A is live", |w| w.is_live(A))?;
    if shows == Shows::Older {
        world.end_until_started(A, false);
        world.start_again(A);
        world.waits("A is live again", |w| w.is_live(A))?;
    }
    world.begin_clients();
    world.boot_now(B);
    let named = |w: &mut World| w.arbiter.current().is_some_and(|r| r.backup.is_some());
    world.waits("B is named", named)?;
    world.end_losing(A);
    if world.protected(B) {
        return Err("B was told".to_owned());
    }
    let incarnation = world.incarnation(B).ok_or("B has ended")?;
    let first = Record {
        generation: Generation(1),
        live: LiveName {
            id: NodeId(B as u128 + 1),
            incarnation,
        },
        backup: None,
        halted: false,
    };
    world.lose_record_now((shows != Shows::Nothing).then_some(first));
    let until = world.now + WAITS_NS;
    world.waits("B has read some times", |w| w.now >= until)?;
    let role = world.role(B);
    if role != Some(RoleKind::Claiming) {
        return Err(format!("B has the only machine, and is {role:?}"));
    }
    // Somebody brings the records back: the guest goes on with its memory.
    world.restore_record();
    world.waits("B is live", |w| w.is_live(B))?;
    world.start_again(A);
    world.heal();
    world.run()?;
    match world.tally().boots {
        // The second is A's own, before there was a pair.
        1 => Ok(()),
        2 if shows == Shows::Older => Ok(()),
        boots => Err(format!("{boots} power-ons")),
    }
}

/// Each way for the arbiter to lose its record when only a backup that doesn't know whether it is
/// named has the VM; with each of so many seeds. How many runs that were.
///
/// # Errors
/// What was found.
pub fn lost_records(seeds: u64, broken: Option<Broken>) -> Result<u64, String> {
    let mut runs = 0;
    for shows in [Shows::Nothing, Shows::Another, Shows::Older] {
        for seed in 0..seeds {
            lose(shows, seed, broken).map_err(|what| format!("{shows:?}, seed {seed}: {what}"))?;
            runs += 1;
        }
    }
    Ok(runs)
}
