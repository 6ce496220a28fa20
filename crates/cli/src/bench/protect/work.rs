//! The work that a guest is given: what asks it, and how much of it at once.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::NAME;
use crate::bench::guests::{Guest, Kind, Spec, Tap, Wire};
use crate::bench::load::{Bulk, Pipelines};
use crate::bench::redis::Client;
use crate::bench::{Bench, netns};
use crate::demo::error::DemoError;

/// How long the guest computes in a turn, about.
const COMPUTES: Duration = Duration::from_millis(2500);
/// Turns of the guest's loop that are tried first.
const FIRST_TURNS: u64 = 5_000_000;
/// Blocks of pipelined requests, and large values each way, of a turn.
const BLOCKS: usize = 120;
pub(super) const VALUES: usize = 48;
const KEY: &str = "bench:value";
/// The guest computes and nothing else.
const LOOP: &str = "local x=0 for i=1,ARGV[1] do x=(x*31+i)%65521 end return x";
/// The neighbour does a piece of this share of the work again and again.
const PIECES: usize = 24;
/// The neighbour is at work before the one that is measured begins.
const AHEAD: Duration = Duration::from_millis(50);
/// The neighbour's own network.
pub(super) const NEIGHBOUR_TAP: Tap = Tap {
    name: "bench-beside",
    host: std::net::Ipv4Addr::new(10, 0, 3, 2),
    guest: std::net::Ipv4Addr::new(10, 0, 3, 15),
};

/// Kinds of work that keep a guest busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// A loop in Redis's Lua.
    Compute,
    /// SET on many connections, with many under way on each.
    Pipelined,
    /// SET of large values.
    In,
    /// GET of large values.
    Out,
}

/// Who asks a guest.
pub(super) struct Asker {
    pub(super) client: Client,
    pipelines: Pipelines,
    bulk: Bulk,
    /// Turns of the guest's loop.
    turns: u64,
}

impl Asker {
    /// Connects.
    pub(super) fn new(address: SocketAddr) -> Result<Self, DemoError> {
        Ok(Self {
            client: Client::new(address, NAME)?,
            pipelines: Pipelines::new(address)?,
            bulk: Bulk::new(address)?,
            turns: FIRST_TURNS,
        })
    }

    /// Stores so many large values, each under a key of its own.
    pub(super) fn fill(&mut self, bench: &Bench, values: usize) -> Result<(), DemoError> {
        (0..values).try_for_each(|number| self.bulk.set(bench, &format!("bench:fill:{number}")))
    }

    /// Does each kind of work a little, and finds out how many turns of the guest's loop take a
    /// while.
    pub(super) fn warm_up(&mut self, bench: &Bench) -> Result<(), DemoError> {
        self.pipelines.turn(bench, 1)?;
        self.bulk.set(bench, KEY)?;
        self.compute(bench, self.turns)?;
        let began = Instant::now();
        self.compute(bench, self.turns)?;
        let share = COMPUTES.as_secs_f64() / began.elapsed().as_secs_f64().max(0.01);
        self.turns = (self.turns as f64 * share) as u64;
        Ok(())
    }

    fn compute(&mut self, bench: &Bench, turns: u64) -> Result<(), DemoError> {
        let words = ["EVAL", LOOP, "0", &turns.to_string()];
        self.client.ask(bench, &words).map(drop)
    }

    /// A turn's work of one kind; how many requests that were.
    pub(super) fn whole(&mut self, bench: &Bench, work: Work) -> Result<usize, DemoError> {
        self.part(bench, work, 1)
    }

    /// One of so many equal parts of it.
    fn part(&mut self, bench: &Bench, work: Work, of: usize) -> Result<usize, DemoError> {
        match work {
            Work::Compute => self.compute(bench, self.turns / of as u64).map(|()| 1),
            Work::Pipelined => self.pipelines.turn(bench, BLOCKS / of),
            Work::In | Work::Out => {
                for _ in 0..VALUES / of {
                    match work {
                        Work::In => self.bulk.set(bench, KEY)?,
                        _ => self.bulk.get(bench, KEY)?,
                    }
                }
                Ok(VALUES / of)
            }
        }
    }
}

/// A VM that nobody protects, on the core that the backup has otherwise: it does the same work while the
/// live node does it alone. What the live node pays then it pays for a busy core beside its own.
pub(super) struct Neighbour {
    _guest: Guest,
    asker: Asker,
}

impl Neighbour {
    /// Boots it, kept on the backup's core.
    pub(super) fn start(bench: &Bench, live: usize) -> Result<Self, DemoError> {
        let spec = Spec::redis(bench, Wire::Tap(NEIGHBOUR_TAP))?;
        let mut guest = Guest::power_on(bench, Kind::Run, &spec)?;
        netns::keep_on(bench, guest.pid(), 1 - live)?;
        guest.await_pong(bench)?;
        let mut asker = Asker::new(guest.address())?;
        asker.warm_up(bench)?;
        Ok(Self {
            _guest: guest,
            asker,
        })
    }

    /// Does such work until `measured` has ended.
    pub(super) fn beside<T>(
        &mut self,
        bench: &Bench,
        work: Work,
        measured: impl FnOnce() -> Result<T, DemoError>,
    ) -> Result<T, DemoError> {
        let over = AtomicBool::new(false);
        let asker = &mut self.asker;
        thread::scope(|scope| {
            let busy = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    asker.part(bench, work, PIECES)?;
                }
                Ok(())
            });
            thread::sleep(AHEAD);
            let outcome = measured();
            over.store(true, Ordering::Relaxed);
            let gone = || DemoError::failed("who asks the neighbour has ended");
            busy.join().unwrap_or_else(|_| Err(gone()))?;
            outcome
        })
    }
}
