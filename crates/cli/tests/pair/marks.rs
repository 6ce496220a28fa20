//! Marks for measurements: what a node notes when it is asked to, and only then.

use std::collections::BTreeMap;
use std::fs;

use crate::client::Asker;
use crate::cluster::{A, B, Cluster, NAMES};

const QUESTIONS: u64 = 5;

/// When each position passed a place first, by places.
type Passed = BTreeMap<(String, u64), u64>;

fn marks(vm: &Cluster, node: usize) -> Passed {
    let path = vm.file.state_dir.join(NAMES[node]).join("marks.log");
    let text = fs::read_to_string(&path).unwrap();
    let mut passed = Passed::new();
    for line in text.lines() {
        let [place, position, at_ns] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line:?}");
        };
        let key = (place.to_owned(), position.parse().unwrap());
        passed.entry(key).or_insert(at_ns.parse().unwrap());
    }
    passed
}

#[test]
fn a_batch_and_its_ack_pass_all_places_in_order() {
    let mut vm = Cluster::echo();
    vm.more_args = vec!["--marks".to_owned()];
    vm.start_pair();
    let mut asker = Asker::connect(&vm.file.lan);
    for question in 1..=QUESTIONS {
        assert_eq!(asker.ask(), question);
    }
    assert!(vm.ctl(A, "stop").status.success());
    assert_eq!((vm.await_end(A), vm.await_end(B)), (Some(0), Some(0)));

    let (live, backup) = (marks(&vm, A), marks(&vm, B));
    for place in ["packet", "out"] {
        assert!(live.contains_key(&(place.to_owned(), 0)), "no {place}");
    }
    let way = |position: u64| {
        let places = [
            (&live, "sending"),
            (&backup, "came"),
            (&backup, "stored"),
            (&live, "ack-came"),
            (&live, "ack-taken"),
        ];
        places.map(|(of, place)| of.get(&(place.to_owned(), position)).copied())
    };
    let sent = live.keys().filter(|(place, _)| place == "sent");
    let ways: Vec<_> = sent.map(|(_, position)| way(*position)).collect();
    let whole = ways.iter().filter(|way| way.iter().all(Option::is_some));
    assert!(whole.clone().count() as u64 >= QUESTIONS, "{ways:?}");
    for way in whole {
        assert!(way.is_sorted(), "{way:?}");
    }
}

#[test]
fn without_being_asked_a_node_notes_nothing() {
    let mut vm = Cluster::echo();
    vm.start_pair();
    for name in NAMES {
        let folder = vm.file.state_dir.join(name);
        assert!(folder.join("ctl.sock").exists());
        assert!(!folder.join("marks.log").exists());
    }
}
