//! Questions to the arbiter: late, lost, doubled, outliving who asked.

use super::*;

impl World {
    pub(super) fn request(&mut self, slot: usize, epoch: u64, req: ReqId, ask: Ask, quiet: bool) {
        let lame = self.now < self.outage_until || self.faults && self.rng.one_in(12);
        if lame && !quiet {
            // The sender hears that it is unknown, or nothing; the request may land yet.
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
            return;
        }
        let outcome = match ask.clone() {
            Ask::Read => self.arbiter.read(),
            Ask::Cas(expect, record) => self.arbiter.cas(expect, record),
        };
        if self.trace {
            println!("{:>8} arbiter {slot} {ask:?} -> {outcome:?}", self.now);
        }
        let lost = quiet || self.faults && self.rng.one_in(12);
        if !lost {
            let high = self.arbiter_us;
            self.after(
                100,
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
            let copy = Hap::Request {
                slot,
                epoch,
                req,
                ask,
                quiet: true,
            };
            self.after(MS, 3000 * MS, copy);
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

    pub(super) fn ask(&mut self, slot: usize, epoch: u64, req: ReqId, ask: Ask) {
        let high = self.arbiter_us;
        let quiet = false;
        self.after(
            100,
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
}
