//! A simulated world for two production replicas: hosts with clocks and disks, connections, an
//! arbiter, clients, and everything that may go wrong with them, decided by a seed alone.
//!
//! [`run`] is one run. Nothing in it reads a clock or the host's chance, and it has one thread: the
//! same seed with the same code is the same run.
//!
//! The guest is a real one on the real machine, a server for a few registers. What its clients
//! are answered must be linearizable, over all takeovers; what leaves a node must be in the state
//! of every later live node; and once faults have ended the pair must be protected again.

mod check;
mod clock;
mod cold;
mod disk;
pub mod guest;
mod history;
mod host;
mod joining;
mod lag;
mod linear;
mod link;
mod lost;
mod medium;
mod plan;
mod rng;
mod sweep;
mod trace;
mod world;

pub use cold::{Colds, colds};
pub use disk::DiskFault;
pub use joining::{JoinSeen, join_of};
pub use lag::{LagSeen, SuddenSeen, lag, sudden_lag};
pub use lost::lost_records;
pub use plan::{Broken, DriverFault};
pub use sweep::{Swept, sweep};
pub use world::Tally;

use plan::{MS, Measures};
use rng::Rng;
use world::World;

/// What must not happen, happened.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The run's seed.
    pub seed: u64,
    /// When, in virtual milliseconds.
    pub at_ms: u64,
    /// Something wrong was seen, as against nothing good in time.
    pub safety: bool,
    /// What.
    pub what: String,
}

/// One run with random faults, decided by its seed.
///
/// # Errors
/// What was found.
pub fn run(seed: u64, broken: Option<Broken>) -> Result<Tally, Box<Finding>> {
    let (world, outcome) = run_world(seed, broken, false);
    match outcome {
        Ok(()) => Ok(world.tally()),
        Err(what) => Err(Box::new(Finding {
            seed,
            at_ms: world.now / MS,
            safety: !world.is_impatient(),
            what,
        })),
    }
}

/// The last events of the run with this seed, as lines for people.
pub fn trace(seed: u64, broken: Option<Broken>) -> Vec<String> {
    run_world(seed, broken, true).0.trace.take()
}

fn run_world(seed: u64, broken: Option<Broken>, trace: bool) -> (World, Result<(), String>) {
    let mut rng = Rng::new(seed);
    let measures = Measures::draw(&mut rng);
    let mut world = World::new(measures, rng, broken, trace);
    world.plan_all();
    let outcome = world.run();
    (world, outcome)
}
