//! The sentences of `ArbiterContract`, each as a test of any place.

use std::sync::Barrier;
use std::thread;

use twinvm_protocol::{
    BackupName, Generation, Incarnation, LiveName, NodeId, Outcome, Record, SessionId,
};

use crate::history::History;
use crate::places::Place;

fn record(generation: u64, author: u128) -> Record {
    let (id, incarnation) = (NodeId(author), Incarnation(author << 64));
    Record::solo(Generation(generation), LiveName { id, incarnation })
}

/// All of them; `rounds`: how often writers race.
pub(crate) fn contract(place: &dyn Place, rounds: u64) {
    won_only_in_place_of_what_is_expected(place);
    every_field_comes_back(place);
    a_copy_of_a_request_changes_nothing(place);
    registers_are_apart(place);
    one_writer_wins_each_generation(place, rounds);
    clients_see_one_register(place, rounds as usize);
}

fn won_only_in_place_of_what_is_expected(place: &dyn Place) {
    let (mut a, mut b) = (place.open("expect"), place.open("expect"));
    assert_eq!(a.read(), Outcome::Read(None));
    let nothing = Outcome::Lost(None);
    assert_eq!(a.cas(Generation(1), record(2, 1)), nothing);
    assert_eq!(a.cas(Generation(0), record(2, 1)), nothing);
    assert_eq!(a.cas(Generation(0), record(0, 1)), nothing);
    assert_eq!(b.read(), Outcome::Read(None));
    let first = record(1, 1);
    assert_eq!(a.cas(Generation(0), first), Outcome::Won(first));
    assert_eq!(b.read(), Outcome::Read(Some(first)));
    let first = Outcome::Lost(Some(first));
    for (expect, generation) in [(0, 1), (0, 2), (1, 3), (1, 1), (2, 3), (u64::MAX, u64::MAX)] {
        let outcome = b.cas(Generation(expect), record(generation, 2));
        assert_eq!(outcome, first, "{expect} to {generation}");
    }
    let second = record(2, 2);
    assert_eq!(b.cas(Generation(1), second), Outcome::Won(second));
    assert_eq!(a.read(), Outcome::Read(Some(second)));
    assert_eq!((a.take_trouble(), b.take_trouble()), (None, None));
}

fn every_field_comes_back(place: &dyn Place) {
    let mut arbiter = place.open("fields");
    let edges = [0, 1, u128::MAX, 1 << 127, u128::from(u64::MAX)];
    for (generation, edge) in (1..).zip(edges) {
        let put = Record {
            generation: Generation(generation),
            live: LiveName {
                id: NodeId(edge),
                incarnation: Incarnation(!edge),
            },
            backup: (generation % 2 == 0).then_some(BackupName {
                id: NodeId(!edge),
                session: SessionId(edge),
            }),
            halted: generation > 2,
        };
        assert_eq!(
            arbiter.cas(Generation(generation - 1), put),
            Outcome::Won(put)
        );
        assert_eq!(place.open("fields").read(), Outcome::Read(Some(put)));
    }
}

/// Repeated at once, and delayed until much has changed.
fn a_copy_of_a_request_changes_nothing(place: &dyn Place) {
    let mut arbiter = place.open("copies");
    let last = 5;
    for generation in 1..=last {
        let mine = record(generation, 1);
        assert_eq!(
            arbiter.cas(Generation(generation - 1), mine),
            Outcome::Won(mine)
        );
        // Its own record stands there: whoever asks again knows that it took place.
        let again = arbiter.cas(Generation(generation - 1), mine);
        assert!(
            again == Outcome::Won(mine) || again == Outcome::Lost(Some(mine)),
            "{again:?}"
        );
        assert_eq!(arbiter.read(), Outcome::Read(Some(mine)));
    }
    for author in [1, 2] {
        for generation in 1..last {
            let late = record(generation, author);
            let outcome = place.open("copies").cas(Generation(generation - 1), late);
            assert_eq!(outcome, Outcome::Lost(Some(record(last, 1))));
        }
    }
    assert_eq!(arbiter.read(), Outcome::Read(Some(record(last, 1))));
}

fn registers_are_apart(place: &dyn Place) {
    let (mut a, mut b) = (place.open("one"), place.open("two"));
    assert_eq!(
        a.cas(Generation(0), record(1, 1)),
        Outcome::Won(record(1, 1))
    );
    assert_eq!(b.read(), Outcome::Read(None));
    assert_eq!(
        b.cas(Generation(0), record(1, 2)),
        Outcome::Won(record(1, 2))
    );
    assert_eq!(
        a.cas(Generation(1), record(2, 1)),
        Outcome::Won(record(2, 1))
    );
    assert_eq!(b.read(), Outcome::Read(Some(record(1, 2))));
}

fn one_writer_wins_each_generation(place: &dyn Place, rounds: u64) {
    const WRITERS: usize = 6;
    let barrier = Barrier::new(WRITERS);
    let history = History::default();
    // No assertion inside: a thread that ends early would leave the others at the barrier.
    let won: Vec<Generation> = thread::scope(|scope| {
        let handles: Vec<_> = (0..WRITERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut arbiter = place.open("race");
                    let mut won = Vec::new();
                    for round in 1..=rounds {
                        barrier.wait();
                        let mine = history.new_record(Generation(round));
                        if let Outcome::Won(now) =
                            history.cas(&mut *arbiter, Generation(round - 1), mine)
                        {
                            won.push(now.generation);
                        }
                        barrier.wait();
                    }
                    won
                })
            })
            .collect();
        let all = handles.into_iter().flat_map(|h| h.join().unwrap());
        all.collect()
    });
    let (_, doubts) = history.check();
    let mut won: Vec<u64> = won.into_iter().map(|generation| generation.0).collect();
    won.sort_unstable();
    let all: Vec<u64> = (1..=rounds).collect();
    assert_eq!((won, doubts), (all, 0), "one winner each");
}

fn clients_see_one_register(place: &dyn Place, rounds: usize) {
    let history = History::default();
    thread::scope(|scope| {
        for client in 0..5 {
            let history = &history;
            scope.spawn(move || {
                let mut arbiter = place.open("free");
                let mut left = rounds;
                history.client(&mut *arbiter, client % 2 == 0, || {
                    left -= 1;
                    left == 0
                });
            });
        }
    });
    // A folder may be in doubt about a change that another one followed at once.
    let (won, _) = history.check();
    assert!(won > 0, "nobody has won");
}
