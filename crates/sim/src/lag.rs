//! A backup much slower than the live node, under a guest that never sleeps.

use twinvm_protocol::RoleKind;

use crate::guest::{self, CLIENTS, Op};
use crate::plan::{MS, Measures, US};
use crate::rng::Rng;
use crate::world::World;

/// A thousand steps on the live node's host: 20 million a second.
const FAST_NS: u64 = 50 * US;
/// How long the busy guest is watched.
const WATCHED_MS: u64 = 8000;
const LIVE: usize = 0;
const BACKUP: usize = 1;

/// What was seen, in virtual time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LagSeen {
    /// From the start of the slow backup until the busy guest was protected.
    pub protected_after_ms: u64,
    /// Steps a second of the live guest alone, and over the last half of the time that it was
    /// watched as one of a pair.
    pub alone_per_s: u64,
    /// As one of a pair.
    pub paired_per_s: u64,
    /// The same of the backup.
    pub backup_per_s: u64,
    /// How far it was behind when the guest was protected.
    pub lag_then_ms: u64,
    /// How far the backup was behind at most from then on, and typically.
    pub worst_lag_ms: u64,
    /// The median.
    pub median_lag_ms: u64,
    /// Most outputs that the gate held.
    pub gate_items: usize,
    /// Most bytes that waited for the channel.
    pub queued_bytes: usize,
    /// How far it was behind when the live node was killed.
    pub killed_at_lag_ms: u64,
    /// From the kill until the backup knew, or suspected.
    pub detected_ms: u64,
    /// From there until it was live.
    pub drained_ms: u64,
    /// From there until the next answer left it.
    pub answered_ms: u64,
}

/// Until the guest's server is there.
pub(crate) fn boot_live(world: &mut World) -> Result<(), String> {
    world.boot_now(LIVE);
    world.run_until(MS, 5000 * MS, |w| w.role(LIVE) == Some(RoleKind::Live))?;
    let up = |w: &mut World| w.contents(LIVE).is_some_and(|contents| contents.boot > 0);
    world.run_until(MS, 50 * MS, up)?;
    Ok(())
}

pub(crate) fn busy(world: &mut World, seq: u64, on: bool) {
    let packet = guest::question(CLIENTS - 1, seq, 0, Op::Busy(on));
    world
        .history
        .ask(CLIENTS - 1, seq, 0, Op::Busy(on), world.now);
    world.put_on_lan(packet);
}

/// How long a backup that needs `ns_per_kstep` has to work on what it has not executed.
fn lag_of(world: &World, ns_per_kstep: u64) -> u64 {
    let (live, backup) = (world.progress(LIVE).0, world.progress(BACKUP).0);
    live.saturating_sub(backup) * ns_per_kstep / 1000 / MS
}

fn per_s(world: &World, slot: usize, since: (u64, u64)) -> u64 {
    let (steps, at) = since;
    (world.progress(slot).0 - steps) * 1000 / ((world.now - at) / MS).max(1)
}

/// Watches a busy guest with a backup that is `times` slower, then kills its live node: the process,
/// or the whole host, of which the backup only hears silence.
///
/// # Errors
/// What was found.
pub fn lag(times: u64, power: bool) -> Result<LagSeen, String> {
    let slow_ns = times * FAST_NS;
    let measures = Measures {
        ns_per_kstep: [FAST_NS, slow_ns],
        clients: 2,
        max_asked: 10_000,
        think_ns: 100 * MS,
        ..Measures::quiet()
    };
    let mut world = World::new(measures, Rng::new(1), None, false);
    let mut seen = LagSeen::default();
    boot_live(&mut world)?;
    busy(&mut world, 1, true);
    let since = (world.progress(LIVE).0, world.now);
    world.run_until(MS, 301 * MS, |w| w.now >= since.1 + 300 * MS)?;
    seen.alone_per_s = per_s(&world, LIVE, since);

    world.boot_now(BACKUP);
    let protected = |w: &mut World| w.protected(LIVE) && w.protected(BACKUP);
    seen.protected_after_ms = world.run_until(MS, 60_000 * MS, protected)? / MS;
    seen.lag_then_ms = lag_of(&world, slow_ns);
    world.begin_clients();
    watch(&mut world, &mut seen, slow_ns)?;
    kill(&mut world, &mut seen, slow_ns, power)?;
    Ok(seen)
}

/// A backup as fast as the live node becomes `times` slower from one moment to the next.
///
/// # Errors
/// What was found.
pub fn sudden_lag(times: u64) -> Result<SuddenSeen, String> {
    let measures = Measures {
        ns_per_kstep: [FAST_NS; 2],
        clients: 2,
        max_asked: 10_000,
        think_ns: 100 * MS,
        ..Measures::quiet()
    };
    let mut world = World::new(measures, Rng::new(1), None, false);
    boot_live(&mut world)?;
    world.boot_now(BACKUP);
    let protected = |w: &mut World| w.protected(LIVE) && w.protected(BACKUP);
    world.run_until(MS, 5000 * MS, protected)?;
    busy(&mut world, 1, true);
    world.begin_clients();
    let at = world.now + 1000 * MS;
    world.run_until(MS, 1001 * MS, |w| w.now >= at)?;
    let fast = lag_of(&world, FAST_NS);
    world.slow_down_host(BACKUP, times);
    let mut seen = SuddenSeen {
        lag_before_ms: fast,
        ..SuddenSeen::default()
    };
    let mut before = world.progress(LIVE).0;
    let emitted = world.emissions();
    world.run_until(MS, 6001 * MS, |w| {
        let lag = lag_of(w, FAST_NS * times);
        let steps = w.progress(LIVE).0;
        seen.worst_lag_ms = seen.worst_lag_ms.max(lag);
        if lag > 1000 {
            seen.over_a_second_ms += 1;
            seen.waited_ms += u64::from(steps == before);
        }
        before = steps;
        w.now >= at + 6000 * MS
    })?;
    seen.last_lag_ms = lag_of(&world, FAST_NS * times);
    seen.answers = world.emissions() - emitted;
    if !protected(&mut world) {
        return Err("the pair did not stay protected".to_owned());
    }
    Ok(seen)
}

/// What was seen when a backup suddenly became slow, in virtual time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SuddenSeen {
    /// How far it was behind before.
    pub lag_before_ms: u64,
    /// At most, behind it, in the time that the slow backup needs.
    pub worst_lag_ms: u64,
    /// Six seconds later.
    pub last_lag_ms: u64,
    /// For so long that was more than a second.
    pub over_a_second_ms: u64,
    /// Of which the live guest waited for so long.
    pub waited_ms: u64,
    /// Answers that left in these six seconds.
    pub answers: u64,
}

fn watch(world: &mut World, seen: &mut LagSeen, slow_ns: u64) -> Result<(), String> {
    let began = world.now;
    let mut lags = Vec::new();
    let mut half = None;
    let seen = std::cell::RefCell::new(seen);
    world.run_until(10 * MS, (WATCHED_MS + 10) * MS, |w| {
        let mut seen = seen.borrow_mut();
        lags.push(lag_of(w, slow_ns));
        let (gate, queued) = w.held(LIVE);
        seen.gate_items = seen.gate_items.max(gate);
        seen.queued_bytes = seen.queued_bytes.max(queued);
        if w.now >= began + WATCHED_MS / 2 * MS && half.is_none() {
            half = Some([LIVE, BACKUP].map(|slot| (w.progress(slot).0, w.now)));
        }
        w.now >= began + WATCHED_MS * MS
    })?;
    let seen = seen.into_inner();
    lags.sort_unstable();
    seen.worst_lag_ms = lags.last().copied().unwrap_or(0);
    seen.median_lag_ms = lags.get(lags.len() / 2).copied().unwrap_or(0);
    let [live, backup] = half.ok_or("it was watched for no time")?;
    seen.paired_per_s = per_s(world, LIVE, live);
    seen.backup_per_s = per_s(world, BACKUP, backup);
    if !world.protected(LIVE) || !world.protected(BACKUP) {
        return Err("the pair did not stay protected".to_owned());
    }
    Ok(())
}

fn kill(world: &mut World, seen: &mut LagSeen, slow_ns: u64, power: bool) -> Result<(), String> {
    seen.killed_at_lag_ms = lag_of(world, slow_ns);
    world.end_for_good(LIVE, power);
    let limit = 10_000 * MS;
    let detected = |w: &mut World| w.role(BACKUP) != Some(RoleKind::Backup);
    seen.detected_ms = world.run_until(MS, limit, detected)? / MS;
    let live = |w: &mut World| w.role(BACKUP) == Some(RoleKind::Live);
    seen.drained_ms = world.run_until(MS, limit, live)? / MS;
    let before = world.emissions();
    seen.answered_ms = world.run_until(MS, limit, |w| w.emissions() > before)? / MS;
    world.asking = false;
    world.history.judge().map(|_| ())
}
