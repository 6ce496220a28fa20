//! A node joins a VM whose guest never sleeps, over a channel that takes its time for the snapshot.

use twinvm_protocol::RoleKind;

use crate::lag::{boot_live, busy};
use crate::plan::{MS, Measures, US};
use crate::rng::Rng;
use crate::world::World;

/// A thousand steps on the live node's host: 20 million a second.
const FAST_NS: u64 = 50 * US;
/// The channel's bottleneck: the snapshot of the small guest takes more than a second.
const NS_PER_KIB: u64 = 28 * MS;
/// Longer than one piece of the snapshot is on its way.
const SUSPECT_MS: u64 = 3000;
const LIVE: usize = 0;
const JOINER: usize = 1;
/// The guest is watched for so long before the joining, and after it.
const BESIDE_MS: u64 = 2000;
/// Its speed is looked at this often.
const LOOK_MS: u64 = 50;
/// Times between two looks in a second.
const LOOKS: usize = 1000 / LOOK_MS as usize;

/// What was seen, in virtual time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinSeen {
    /// From the joining node's start until it had the snapshot.
    pub installed_after_ms: u64,
    /// What it had to execute then, in its own time.
    pub behind_ms: u64,
    /// From its start until the VM was protected.
    pub protected_after_ms: u64,
    /// What it had to execute then, and at most in the time after that.
    pub lag_then_ms: u64,
    /// The same, later.
    pub worst_lag_after_ms: u64,
    /// Steps a second of the guest alone.
    pub alone_per_s: u64,
    /// From the node's start until protection.
    pub joining_per_s: u64,
    /// In the slowest second of that time and of the time after it.
    pub slowest_per_s: u64,
    /// In the two seconds after protection.
    pub protected_per_s: u64,
}

/// The guest's steps, looked at from time to time.
struct Looks(Vec<u64>);

impl Looks {
    /// Goes on until `done` holds; how many looks that took.
    fn until(
        &mut self,
        world: &mut World,
        limit_ms: u64,
        mut done: impl FnMut(&mut World) -> bool,
    ) -> Result<usize, String> {
        let from = self.0.len();
        let began = world.now;
        world.run_until(LOOK_MS * MS, limit_ms * MS, |w| {
            if w.now > began || self.0.is_empty() {
                self.0.push(steps(w));
            }
            done(w)
        })?;
        Ok(self.0.len() - from)
    }

    fn go_on(&mut self, world: &mut World, ms: u64) -> Result<(), String> {
        let end = world.now + ms * MS;
        self.until(world, ms, |w| w.now >= end).map(drop)
    }

    /// Steps a second between two looks.
    fn per_s(&self, from: usize, to: usize) -> u64 {
        (self.0[to] - self.0[from]) * 1000 / ((to - from).max(1) as u64 * LOOK_MS)
    }
}

fn steps(world: &World) -> u64 {
    world.progress(LIVE).0
}

/// A node joins that is `times` slower than the live node.
///
/// # Errors
/// What was found.
pub fn join_of(times: u64) -> Result<JoinSeen, String> {
    let measures = Measures {
        ns_per_kstep: [FAST_NS, times * FAST_NS],
        ns_per_kib: NS_PER_KIB,
        ..Measures::quiet()
    };
    let mut world = World::new(measures, Rng::new(1), None, false);
    world.protect.suspect_ms = SUSPECT_MS;
    boot_live(&mut world)?;
    busy(&mut world, 1, true);
    let behind_ms = |w: &World| {
        let left = steps(w).saturating_sub(w.progress(JOINER).0);
        left * times * FAST_NS / 1000 / MS
    };
    let mut looks = Looks(Vec::new());
    looks.go_on(&mut world, BESIDE_MS)?;
    let start = looks.0.len() - 1;

    world.boot_now(JOINER);
    let installed = |w: &mut World| w.role(JOINER) == Some(RoleKind::Backup);
    let installing = looks.until(&mut world, 10_000, installed)?;
    let mut seen = JoinSeen {
        alone_per_s: looks.per_s(0, start),
        installed_after_ms: installing as u64 * LOOK_MS,
        behind_ms: behind_ms(&world),
        ..JoinSeen::default()
    };
    let protected = |w: &mut World| w.protected(LIVE) && w.protected(JOINER);
    looks.until(&mut world, 200_000, protected)?;
    let end = looks.0.len() - 1;
    seen.protected_after_ms = (end - start) as u64 * LOOK_MS;
    seen.joining_per_s = looks.per_s(start, end);
    seen.lag_then_ms = behind_ms(&world);

    let over = world.now + BESIDE_MS * MS;
    looks.until(&mut world, BESIDE_MS, |w| {
        seen.worst_lag_after_ms = seen.worst_lag_after_ms.max(behind_ms(w));
        w.now >= over
    })?;
    if !protected(&mut world) {
        return Err("the pair did not stay protected".to_owned());
    }
    let last = looks.0.len() - 1;
    seen.protected_per_s = looks.per_s(end, last);
    let seconds = (start..=last - LOOKS).map(|from| looks.per_s(from, from + LOOKS));
    seen.slowest_per_s = seconds.min().unwrap_or(0);
    Ok(seen)
}
