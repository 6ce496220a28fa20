//! A kill at every position of the log of one run, each followed by takeover, checks and rejoin.

use crate::plan::{MS, Measures};
use crate::rng::Rng;
use crate::world::{Kill, Moment, World};
use twinvm_protocol::OutputFrom;

/// Questions that the clients ask until the run is long enough.
const QUESTIONS: usize = 48;
/// After this the run without a kill is over.
const RUN_NS: u64 = 1500 * MS;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Positions in the log of the run without a kill.
    pub positions: u64,
    /// Kills, of which these were of the live node.
    pub kills: u64,
    /// Kills of the live node.
    pub live_kills: u64,
    /// Kills that came exactly at the end of their record; the others came at the first moment
    /// behind it that can be seen from outside.
    pub exact: u64,
    /// Takeovers.
    pub takeovers: u64,
    /// Kills of a live node that no record had given a backup: the guest began anew.
    pub power_ons: u64,
    /// Operations of clients that were judged.
    pub operations: u64,
}

fn world(seed: u64, output: OutputFrom) -> World {
    let measures = Measures {
        clients: 3,
        max_asked: QUESTIONS,
        think_ns: 40 * MS,
        beat_ns: 5 * MS,
        output,
        ..Measures::quiet()
    };
    let mut world = World::new(measures, Rng::new(seed), None, false);
    world.plan_quiet();
    world
}

/// How far the log of the run comes if nobody is killed.
fn length(seed: u64, output: OutputFrom) -> Result<u64, String> {
    let mut world = world(seed, output);
    while world.now < RUN_NS && world.step()? {}
    if world.history.len() < QUESTIONS || !world.protected(0) || !world.protected(1) {
        return Err("the run without a kill did not come to its end".to_owned());
    }
    Ok((0..2).map(|slot| world.position(slot)).max().unwrap_or(0))
}

/// One run with this kill.
fn with_kill(seed: u64, output: OutputFrom, kill: Kill, swept: &mut Swept) -> Result<(), String> {
    let mut world = world(seed, output);
    world.plan_kill(kill);
    world.run()?;
    let tally = world.tally();
    let killed = world.killed().ok_or("it never happened")?;
    swept.kills += 1;
    swept.exact += u64::from(killed.position == kill.position);
    swept.takeovers += tally.takeovers;
    swept.operations += tally.operations;
    if tally.unjudged > 0 {
        return Err("the history was too hard to judge".to_owned());
    }
    if !kill.live {
        return match (tally.takeovers, tally.boots) {
            (0, 1) => Ok(()),
            other => Err(format!("takeovers and power-ons: {other:?}")),
        };
    }
    swept.live_kills += 1;
    let backed = killed.record.is_some_and(|record| record.backup.is_some());
    swept.power_ons += 1 - tally.takeovers.min(1);
    match (backed, tally.takeovers, tally.boots) {
        (true, 1, 1) => Ok(()),
        // Whoever it was about to name may have been named behind its death.
        (false, 0, 2) | (false, 1, 1) => Ok(()),
        // It died before it could say that it has powered the guest on.
        (false, 0, 1) if kill.position == 1 => Ok(()),
        other => Err(format!("named, takeovers and power-ons: {other:?}")),
    }
}

/// Kills each node at every position, at every [`Moment`], with what was on its way lost or not.
///
/// # Errors
/// What was found, with the kill that led to it.
pub fn sweep(seed: u64, output: OutputFrom) -> Result<Swept, String> {
    let mut swept = Swept {
        positions: length(seed, output)?,
        ..Swept::default()
    };
    for position in 1..=swept.positions {
        for moment in Moment::ALL {
            for (live, arrives) in [(true, true), (true, false), (false, true), (false, false)] {
                let kill = Kill {
                    moment,
                    position,
                    live,
                    arrives,
                };
                with_kill(seed, output, kill, &mut swept)
                    .map_err(|what| format!("seed {seed}, {kill:?}: {what}"))?;
            }
        }
    }
    Ok(swept)
}
