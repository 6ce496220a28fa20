//! What several clients asked of one register and were answered, and whether one register can
//! have answered so.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use twinvm_host::arbiter_worker::ArbiterBackend;
use twinvm_protocol::{Generation, Incarnation, LiveName, NodeId, Outcome, Record};

/// A request and its answer. Times are places in one order of all beginnings and ends.
#[derive(Clone, Copy, Debug)]
struct Call {
    begin: u64,
    end: u64,
    proposed: Option<(Generation, Record)>,
    outcome: Outcome,
}

/// All calls of all clients.
#[derive(Debug, Default)]
pub(crate) struct History {
    time: AtomicU64,
    records: AtomicU64,
    calls: Mutex<Vec<Call>>,
}

fn generation(record: Option<Record>) -> Generation {
    record.map_or(Generation(0), |record| record.generation)
}

impl History {
    fn now(&self) -> u64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    /// A record that nobody else proposes.
    pub(crate) fn new_record(&self, generation: Generation) -> Record {
        let unique = self.records.fetch_add(1, Ordering::SeqCst);
        Record {
            generation,
            live: LiveName {
                id: NodeId(7),
                incarnation: Incarnation(u128::from(unique)),
            },
            backup: None,
            halted: unique.is_multiple_of(3),
        }
    }

    fn call(
        &self,
        proposed: Option<(Generation, Record)>,
        ask: impl FnOnce() -> Outcome,
    ) -> Outcome {
        let begin = self.now();
        let outcome = ask();
        let end = self.now();
        self.calls.lock().unwrap().push(Call {
            begin,
            end,
            proposed,
            outcome,
        });
        outcome
    }

    pub(crate) fn read(&self, arbiter: &mut dyn ArbiterBackend) -> Outcome {
        self.call(None, || arbiter.read())
    }

    pub(crate) fn cas(
        &self,
        arbiter: &mut dyn ArbiterBackend,
        expect: Generation,
        record: Record,
    ) -> Outcome {
        self.call(Some((expect, record)), || arbiter.cas(expect, record))
    }

    /// One client: looks, changes what it saw, and after an unknown outcome asks the same again
    /// (some clients) or looks (the others), until `done`.
    pub(crate) fn client(
        &self,
        arbiter: &mut dyn ArbiterBackend,
        stubborn: bool,
        mut done: impl FnMut() -> bool,
    ) {
        let mut pending: Option<(Generation, Record)> = None;
        while !done() {
            let (expect, record) = match pending.take() {
                Some(again) => again,
                None => match self.read(arbiter) {
                    Outcome::Read(now) => {
                        let now = generation(now);
                        (now, self.new_record(now.next()))
                    }
                    _ => {
                        assert!(arbiter.take_trouble().is_some(), "unknown without a reason");
                        continue;
                    }
                },
            };
            if self.cas(arbiter, expect, record) == Outcome::Unknown {
                assert!(arbiter.take_trouble().is_some(), "unknown without a reason");
                pending = stubborn.then_some((expect, record));
            }
        }
    }

    /// Whether one register can have answered all this. Returns how many changes were won and
    /// how many calls ended in doubt.
    #[track_caller]
    pub(crate) fn check(&self) -> (usize, usize) {
        let calls = self.calls.lock().unwrap();
        let mut first_proposed = BTreeMap::new();
        for call in calls.iter() {
            if let Some((_, record)) = call.proposed {
                let begin = first_proposed
                    .entry(record.live.incarnation)
                    .or_insert(call.begin);
                *begin = call.begin.min(*begin);
            }
        }
        let mut stood: BTreeMap<Generation, Record> = BTreeMap::new();
        let mut won = BTreeMap::new();
        for call in calls.iter() {
            if let Some(record) = call.outcome.record() {
                // A record never changes, and somebody has proposed it before.
                let first = stood.entry(record.generation).or_insert(*record);
                assert_eq!(first, record, "two records of one generation");
                let proposed = first_proposed.get(&record.live.incarnation);
                assert!(proposed.is_some_and(|begin| *begin < call.end), "{call:?}");
            }
            match (call.proposed, call.outcome) {
                (Some((expect, record)), Outcome::Won(now)) => {
                    assert_eq!(now, record, "won, but not what was proposed");
                    assert_eq!(record.generation, expect.next(), "won out of order");
                    won.insert(now.generation, now);
                }
                (Some((expect, record)), Outcome::Lost(now)) => {
                    let could = record.generation == expect.next() && generation(now) == expect;
                    assert!(!could, "lost, though nothing stood in its way: {call:?}");
                }
                (None, Outcome::Read(_)) | (_, Outcome::Unknown) => {}
                _ => panic!("an answer to something else: {call:?}"),
            }
        }
        // Each generation was changed into the next: none is left out.
        for generation in won.keys().filter(|g| g.0 > 1) {
            let before = Generation(generation.0 - 1);
            assert!(stood.contains_key(&before), "nobody saw {before}");
        }
        // What began after another one's end sees at least as much.
        let mut by_end: Vec<&Call> = calls.iter().filter(|c| known(c).is_some()).collect();
        let mut by_begin = by_end.clone();
        by_end.sort_by_key(|call| call.end);
        by_begin.sort_by_key(|call| call.begin);
        let mut ended = by_end.into_iter().peekable();
        let mut least = Generation(0);
        for call in by_begin {
            while let Some(before) = ended.next_if(|before| before.end < call.begin) {
                least = least.max(known(before).unwrap_or_default());
            }
            assert!(
                known(call) >= Some(least),
                "went back below {least}: {call:?}"
            );
        }
        let doubts = calls.iter().filter(|c| c.outcome == Outcome::Unknown);
        (won.len(), doubts.count())
    }
}

/// The generation that a call has seen.
fn known(call: &Call) -> Option<Generation> {
    match call.outcome {
        Outcome::Read(record) | Outcome::Lost(record) => Some(generation(record)),
        Outcome::Won(record) => Some(record.generation),
        Outcome::Unknown => None,
    }
}
