//! Questions to the arbiter: late, lost, doubled, outliving who asked.

use twinvm_protocol::ArbiterContract;

use super::*;
use crate::plan::US;

impl World {
    pub(super) fn ask(&mut self, slot: usize, epoch: u64, req: ReqId, ask: Ask) {
        if self.is_broken(DriverFault::CasUnasked)
            && let Ask::Cas(_, record) = ask
        {
            let outcome = Outcome::Won(record);
            return self.after(
                US,
                MS,
                Hap::Reply {
                    slot,
                    epoch,
                    req,
                    outcome,
                },
            );
        }
        let quiet = false;
        let high = self.measures.arbiter_ns;
        self.after(
            50 * US,
            high,
            Hap::Request {
                slot,
                epoch,
                req,
                ask,
                quiet,
            },
        );
    }

    /// A request reaches the arbiter, or fails to. `quiet`: nobody hears how it ends.
    pub(super) fn request(&mut self, slot: usize, epoch: u64, req: ReqId, ask: Ask, quiet: bool) {
        // Both nodes knew a record when it was lost: who asks for the first one now asked long ago.
        // If it is the one that was won, the arbiter shows nothing that is wrong: nobody could know.
        if let Ask::Cas(Generation(0), record) = ask {
            if self.record_lost && self.past.first() == Some(&record) {
                return;
            }
            if !self.record_lost && !self.firsts.contains(&record) {
                self.firsts.push(record);
            }
        }
        // Nobody may build on a record that came back from the past, and nothing could keep them from
        // it: docs/PROTOCOL.md, an arbiter that has lost its records.
        if let Ask::Cas(expect, _) = ask {
            let shown = self.arbiter.current().map(|r| r.generation);
            if self.record_lost && shown == Some(expect) {
                return;
            }
        }
        let out = self.now < self.outage_until[slot];
        if !quiet && (out || self.faults && self.rng.one_in(12)) {
            return self.lame(slot, epoch, req, ask);
        }
        let lost = self.record_lost;
        let outcome = match ask {
            Ask::Read => self.arbiter.read(),
            Ask::Cas(expect, record) => self.arbiter.cas(expect, record),
        };
        let over = matches!(
            (&ask, &outcome),
            (Ask::Cas(_, wanted), Outcome::Lost(Some(is))) if is.generation >= wanted.generation
        );
        if let Some(process) = self.process(slot, epoch) {
            process.saw_loss |= lost && matches!(ask, Ask::Read);
            // Somebody else has won. Should the arbiter lose that, and a late request put this
            // node's name there again, nothing was thrown away for it.
            process.claim.take_if(|_| over);
        }
        self.trace.note(self.now, || {
            format!("arbiter, for {}: {ask:?} -> {outcome:?}", name(slot))
        });
        let lost = quiet || self.faults && self.rng.one_in(12);
        if !lost {
            let high = self.measures.arbiter_ns;
            self.after(
                50 * US,
                high,
                Hap::Reply {
                    slot,
                    epoch,
                    req,
                    outcome,
                },
            );
        }
        if self.faults && self.rng.one_in(10) {
            // A copy of the request, and a late copy of the answer.
            let quiet = true;
            self.after(
                MS,
                3000 * MS,
                Hap::Request {
                    slot,
                    epoch,
                    req,
                    ask,
                    quiet,
                },
            );
            self.after(
                MS,
                3000 * MS,
                Hap::Reply {
                    slot,
                    epoch,
                    req,
                    outcome,
                },
            );
        }
    }

    /// The sender hears that the outcome is unknown, or nothing; the request may land yet.
    fn lame(&mut self, slot: usize, epoch: u64, req: ReqId, ask: Ask) {
        if self.rng.one_in(2) {
            let outcome = Outcome::Unknown;
            self.after(
                MS,
                400 * MS,
                Hap::Reply {
                    slot,
                    epoch,
                    req,
                    outcome,
                },
            );
        }
        if self.rng.one_in(2) {
            let quiet = true;
            self.after(
                MS,
                4000 * MS,
                Hap::Request {
                    slot,
                    epoch,
                    req,
                    ask,
                    quiet,
                },
            );
        }
    }
}
