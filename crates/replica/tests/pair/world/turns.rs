//! The world runs by itself: a turn for each node, and the clock moves on.

use super::*;

impl World {
    /// Everything that is due now, then the clock moves to the next moment.
    pub(super) fn step(&mut self) {
        let mut busy = false;
        for at in [A, B] {
            let due = self.env.now_ns.saturating_sub(TICK_NS);
            match &mut self.sides[at] {
                Some(side) if side.exited.is_none() => {
                    if side.last_tick_ns <= due {
                        side.last_tick_ns = self.env.now_ns;
                        if side.replica.wants_queue() {
                            self.apply(at, Event::Queued { bytes: 0 });
                        }
                        self.apply(at, Event::Tick);
                    }
                }
                _ => continue,
            }
            self.disks_done(at);
            while !self.hold_questions[at] && !self.side(at).questions.is_empty() {
                self.ask(at);
            }
            if !self.hold_inbox[at] && !self.late() {
                while self.deliver(at).is_some() {}
            }
            if self.side(at).replica.wait() == Wait::Run {
                busy = true;
                self.apply(at, Event::Slice);
            }
        }
        self.env.now_ns += if busy { SLICE_NS } else { TICK_NS / 4 };
    }

    /// Whether the channel keeps what it has for another step.
    fn late(&mut self) -> bool {
        let mut byte = [0];
        self.lateness > 0 && {
            self.env.random(&mut byte);
            byte[0] < self.lateness
        }
    }

    pub(crate) fn run_steps(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step();
        }
    }

    pub(crate) fn run_ms(&mut self, ms: u64) {
        let until = self.env.now_ns + ms * 1_000_000;
        while self.env.now_ns < until {
            self.step();
        }
    }

    /// Runs until `done`; how long it took, in nanoseconds of the world's clock.
    pub(crate) fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> u64 {
        let since = self.env.now_ns;
        while !done(self) {
            self.step();
            if self.env.now_ns - since > PATIENCE_NS {
                let seen: Vec<String> = [A, B].into_iter().map(|at| self.describe(at)).collect();
                panic!("waited in vain until {what}; {}", seen.join("; "));
            }
        }
        self.env.now_ns - since
    }

    fn describe(&self, at: usize) -> String {
        match &self.sides[at] {
            Some(side) => format!(
                "node {at}: {:?}, notes {:?}",
                side.replica.status(),
                side.notes
            ),
            None => format!("node {at} does not run"),
        }
    }
}
