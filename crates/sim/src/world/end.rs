//! When faults have ended: the pair must be protected again, and nothing may be lost.

use super::*;

/// Once faults have stopped, the pair must be protected within this time.
const PATIENCE_NS: u64 = 40_000 * MS;
/// Protected for so long, the clients stop asking; and for so long, the run ends.
const STOP_ASKING_NS: u64 = 300 * MS;
const COMPARE_NS: u64 = 500 * MS;
const END_NS: u64 = 700 * MS;
/// Without the arbiter's record a run goes on for so long.
const LOST_NS: u64 = 6000 * MS;
/// Time between two looks.
const WATCH_NS: u64 = 50 * MS;

impl World {
    /// Now and then: the live node's guest is compared with its backup's, and with what has left.
    pub(super) fn compare_soon(&mut self) -> Result<(), String> {
        self.compare();
        self.after(50 * MS, 500 * MS, Hap::Compare);
        for slot in 0..2 {
            self.nothing_missing(slot)?;
        }
        Ok(())
    }

    /// If a node's gate is empty, all that its guest has made has left.
    fn nothing_missing(&mut self, slot: usize) -> Result<(), String> {
        let named = self
            .arbiter
            .current()
            .is_some_and(|r| r.live.id.0 == slot as u128 + 1);
        let Some(process) = self.hosts[slot].process.as_ref().filter(|_| named) else {
            return Ok(());
        };
        let status = process.replica.status().protocol;
        let newest = process.life == self.lives;
        // While it works on something, what it made may not have been carried out yet.
        let resting =
            process.sleeps && process.late.is_empty() && process.loop_stands_until() <= self.now;
        if status.role != RoleKind::Live || status.gate_items > 0 || !newest || !resting {
            return Ok(());
        }
        let contents = self.contents(slot).unwrap_or_default();
        self.check.nothing_lost(&contents)
    }

    /// Has the guests compared now.
    pub(crate) fn compare(&mut self) {
        for slot in 0..2 {
            let process = self.hosts[slot].process.as_ref();
            if let Some(process) = process.filter(|p| p.role() == RoleKind::Live) {
                let epoch = process.epoch;
                self.input(slot, epoch, Input::Digest);
            }
        }
    }

    fn digests_equal(&self) -> u64 {
        let processes = self.hosts.iter().filter_map(|host| host.process.as_ref());
        processes.map(|p| p.replica.status().digests_equal).sum()
    }

    pub(super) fn watch(&mut self) -> Result<(), String> {
        let now = self.now;
        let is = |role| {
            let mut processes = self.hosts.iter().filter_map(|host| host.process.as_ref());
            processes.any(|p| {
                let status = p.replica.status().protocol;
                status.role == role && status.protected
            })
        };
        if is(RoleKind::Live) && is(RoleKind::Backup) {
            if self.protected_since.is_none() {
                self.recovery_ms = (now - self.healed_at) / MS;
            }
            let since = *self.protected_since.get_or_insert(now);
            if now >= since + STOP_ASKING_NS {
                self.asking = false;
            }
            if now == since + COMPARE_NS {
                self.compare();
            }
            // Where each write takes its way to the backup, answers may take longer.
            if now >= since + END_NS && !self.still_writes() {
                return self.end();
            }
        } else {
            self.protected_since = None;
        }
        self.mend_disks();
        if self.record_lost && now >= self.healed_at + LOST_NS {
            // Only a person can bring them together again; nothing wrong may have been seen.
            self.done = true;
            self.judged = self.history.judge()?;
            return Ok(());
        }
        if now > self.healed_at + PATIENCE_NS {
            self.impatient = true;
            let all = self.hosts.iter().filter_map(|host| host.process.as_ref());
            let all: Vec<_> = all.map(|p| p.replica.status().protocol).collect();
            return Err(format!(
                "faults ended at {} ms, but the pair is not protected: record {:?}, {all:#?}",
                self.healed_at / MS,
                self.arbiter.current()
            ));
        }
        self.at(now + WATCH_NS, Hap::Watch);
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        self.done = true;
        let live = (0..2).find(|slot| self.role(*slot) == Some(RoleKind::Live));
        let contents = live.and_then(|slot| self.contents(slot));
        self.check.nothing_lost(&contents.unwrap_or_default())?;
        self.digests += self.digests_equal();
        if self.digests_equal() == 0 {
            return Err("the backup has compared no digest".to_owned());
        }
        self.judged = self.history.judge()?;
        Ok(())
    }
}
