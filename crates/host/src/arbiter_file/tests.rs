use std::os::unix::fs::PermissionsExt;
use std::sync::Barrier;
use std::thread;

use twinvm_protocol::{Incarnation, LiveName, NodeId};

use super::*;

fn record(generation: u64, author: u128) -> Record {
    let (id, incarnation) = (NodeId(author), Incarnation(author * 7));
    Record::solo(Generation(generation), LiveName { id, incarnation })
}

fn names(dir: &Path, prefix: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    names
}

fn win(arbiter: &mut FileArbiter, record: Record) {
    let expect = Generation(record.generation.0 - 1);
    assert_eq!(arbiter.cas(expect, record), Outcome::Won(record));
}

#[test]
fn it_is_a_register() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("shared/arbiter");
    let mut a = FileArbiter::open(&folder).unwrap();
    let mut b = FileArbiter::open(&folder).unwrap();
    assert_eq!(a.read(), Outcome::Read(None));
    assert_eq!(a.cas(Generation(1), record(2, 1)), Outcome::Lost(None));
    win(&mut a, record(1, 1));
    assert_eq!(b.read(), Outcome::Read(Some(record(1, 1))));
    let lost = Outcome::Lost(Some(record(1, 1)));
    assert_eq!(b.cas(Generation(0), record(1, 2)), lost);
    assert_eq!(b.cas(Generation(0), record(2, 2)), lost);
    assert_eq!(b.cas(Generation(1), record(3, 2)), lost);
    win(&mut b, record(2, 2));
    // Repeating a won change tells so again; the register has it once.
    win(&mut b, record(2, 2));
    assert_eq!(a.read(), Outcome::Read(Some(record(2, 2))));
    assert_eq!(names(&folder, ""), ["rec.1", "rec.2"]);
    let end = record(u64::MAX, 1);
    let now = Outcome::Lost(Some(record(2, 2)));
    assert_eq!(a.cas(Generation(u64::MAX), end), now);
    assert_eq!(a.take_trouble(), None);
}

#[test]
fn nodes_may_start_at_the_same_moment() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let folder = dir.path().join(round.to_string());
        let opened: Vec<_> = thread::scope(|scope| {
            let open = || FileArbiter::open(&folder);
            let handles: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            handles.into_iter().map(|h| h.join().unwrap()).collect()
        });
        for arbiter in opened {
            assert_eq!(arbiter.unwrap().read(), Outcome::Read(None));
        }
        assert_eq!(names(&folder, ""), [] as [&str; 0]);
    }
}

#[test]
fn one_of_many_racing_writers_wins_each_generation() {
    const WRITERS: u128 = 8;
    const GENERATIONS: u64 = 80;
    let dir = tempfile::tempdir().unwrap();
    let arbiters: Vec<FileArbiter> = (0..WRITERS)
        .map(|_| FileArbiter::open(dir.path()).unwrap())
        .collect();
    let barrier = Barrier::new(WRITERS as usize);
    // No assertion inside: a thread that ends early would leave the others at the barrier.
    let write = &|mut arbiter: FileArbiter, author| {
        let mut seen = Vec::new();
        for generation in 1..=GENERATIONS {
            barrier.wait();
            let mine = record(generation, author);
            let outcome = arbiter.cas(Generation(generation - 1), mine);
            seen.push((mine, outcome, arbiter.take_trouble()));
            barrier.wait();
        }
        seen
    };
    let outcomes: Vec<(Record, Outcome, Option<String>)> = thread::scope(|scope| {
        let handles: Vec<_> = (1..)
            .zip(arbiters)
            .map(|(author, arbiter)| scope.spawn(move || write(arbiter, author)))
            .collect();
        handles
            .into_iter()
            .flat_map(|h| h.join().unwrap())
            .collect()
    });
    let mut won = Vec::new();
    for (mine, outcome, trouble) in outcomes {
        match outcome {
            Outcome::Won(seen) => {
                assert_eq!(seen, mine);
                won.push(seen);
            }
            Outcome::Lost(Some(now)) => {
                assert!(now.generation == mine.generation && now != mine);
            }
            other => panic!("{other:?}: {trouble:?}"),
        }
    }
    let mut all: Vec<u64> = won.iter().map(|r| r.generation.0).collect();
    all.sort_unstable();
    assert_eq!(all, (1..=GENERATIONS).collect::<Vec<_>>());
    assert_eq!(names(dir.path(), "tmp."), [] as [&str; 0]);
    assert_eq!(names(dir.path(), "rec.").len() as u64, KEPT_RECORDS + 1);
}

#[test]
fn writers_without_step_agree_on_one_history() {
    const WRITERS: u128 = 6;
    let dir = tempfile::tempdir().unwrap();
    let won: Vec<Record> = thread::scope(|scope| {
        let handles: Vec<_> = (1..=WRITERS)
            .map(|author| {
                let dir = dir.path();
                scope.spawn(move || {
                    let mut arbiter = FileArbiter::open(dir).unwrap();
                    let mut won = Vec::new();
                    let mut last = 0;
                    for _ in 0..60 {
                        let now = match arbiter.read() {
                            Outcome::Read(now) => now.map_or(0, |r| r.generation.0),
                            other => panic!("{other:?}: {:?}", arbiter.take_trouble()),
                        };
                        assert!(now >= last, "the register went back");
                        let mine = record(now + 1, author);
                        let outcome = arbiter.cas(Generation(now), mine);
                        if let Outcome::Won(seen) = outcome {
                            assert_eq!(seen, mine);
                            won.push(seen);
                        }
                        last = outcome.record().map_or(now, |r| r.generation.0);
                    }
                    won
                })
            })
            .collect();
        handles
            .into_iter()
            .flat_map(|h| h.join().unwrap())
            .collect()
    });
    let mut generations: Vec<u64> = won.iter().map(|r| r.generation.0).collect();
    generations.sort_unstable();
    let before = generations.len();
    generations.dedup();
    assert_eq!(generations.len(), before, "two winners of one generation");
    assert!(before > 0);
}

#[test]
fn a_delayed_copy_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = FileArbiter::open(dir.path()).unwrap();
    for generation in 1..=KEPT_RECORDS + 10 {
        win(&mut a, record(generation, 1));
    }
    let highest = record(KEPT_RECORDS + 10, 1);
    assert!(!dir.path().join("rec.1").exists());
    assert_eq!(names(dir.path(), "rec.").len() as u64, KEPT_RECORDS + 1);
    let mut late = FileArbiter::open(dir.path()).unwrap();
    // Of a change once won, of one once lost, and of one whose file is gone.
    for (generation, author) in [(70, 1), (70, 2), (1, 1), (1, 2)] {
        let outcome = late.cas(Generation(generation - 1), record(generation, author));
        assert_eq!(outcome, Outcome::Lost(Some(highest)));
    }
    assert_eq!(a.read(), Outcome::Read(Some(highest)));
}

/// A writer that was stopped between its look and its link, for so long that the name was
/// used and removed again.
#[test]
fn a_sleeper_that_links_an_old_name_has_not_won() {
    let dir = tempfile::tempdir().unwrap();
    let mut sleeper = FileArbiter::open(dir.path()).unwrap();
    assert_eq!(sleeper.current().ok(), Some(None));
    let old = record(1, 9);
    let temporary = write_temporary(dir.path(), &encode_record(&old)).unwrap();

    let mut a = FileArbiter::open(dir.path()).unwrap();
    for generation in 1..=KEPT_RECORDS + 2 {
        win(&mut a, record(generation, 1));
    }
    let name = sleeper.path_of(1);
    assert!(!name.exists());
    let linked = fs::hard_link(&temporary, &name);
    assert!(linked.is_ok());
    let settled = sleeper.settle(&name, &old, linked);
    assert!(settled.is_err(), "neither won nor lost for certain");
    let highest = Outcome::Read(Some(record(KEPT_RECORDS + 2, 1)));
    assert_eq!(sleeper.read(), highest);
    assert_eq!(a.read(), highest);
}

#[test]
fn the_folder_decides_not_the_answer_of_link() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = FileArbiter::open(dir.path()).unwrap();
    let mine = record(1, 1);
    let name = a.path_of(1);
    let no = || Err(io::Error::other("the answer was lost"));
    // The link did not happen: it may still.
    assert!(a.settle(&name, &mine, no()).is_err());
    // It did, though the call said no.
    fs::write(&name, encode_record(&mine)).unwrap();
    assert_eq!(a.settle(&name, &mine, no()).ok(), Some(Outcome::Won(mine)));
    // Another one's did.
    fs::write(&name, encode_record(&record(1, 2))).unwrap();
    let lost = Outcome::Lost(Some(record(1, 2)));
    assert_eq!(a.settle(&name, &mine, no()).ok(), Some(lost));
}

#[test]
fn what_killed_writers_leave_is_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = encode_record(&record(1, 1));
    for cut in [0, 1, bytes.len() - 1, bytes.len()] {
        write_temporary(dir.path(), &bytes[..cut]).unwrap();
    }
    for name in [
        "rec.",
        "rec.0",
        "rec.01",
        "rec.+1",
        "rec.x",
        "rec.18446744073709551616",
    ] {
        fs::write(dir.path().join(name), &bytes).unwrap();
    }
    let mut a = FileArbiter::open(dir.path()).unwrap();
    assert_eq!(names(dir.path(), "tmp.").len(), 4);
    assert_eq!(a.read(), Outcome::Read(None));
    win(&mut a, record(1, 2));
    // Long after, they are cleared away; fresh ones may belong to a writer at work.
    let old = SystemTime::now() - 2 * LEFTOVER_AGE;
    let left = names(dir.path(), "tmp.");
    for name in &left[1..] {
        let file = OpenOptions::new().write(true).open(dir.path().join(name));
        file.unwrap().set_modified(old).unwrap();
    }
    FileArbiter::open(dir.path()).unwrap();
    assert_eq!(names(dir.path(), "tmp."), left[..1]);
}

#[test]
fn a_damaged_record_is_neither_a_record_nor_none() {
    let whole = encode_record(&record(1, 1));
    let mut flipped = whole.clone();
    flipped[10] ^= 1;
    let other = encode_record(&record(2, 1));
    let long = [whole.clone(), vec![0; 4000]].concat();
    let cases: [&[u8]; 6] = [
        &[],
        &whole[..20],
        b"garbage, not a record",
        &flipped,
        &other,
        &long,
    ];
    for damaged in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut a = FileArbiter::open(dir.path()).unwrap();
        fs::write(dir.path().join("rec.1"), damaged).unwrap();
        assert_eq!(a.read(), Outcome::Unknown);
        let text = a.take_trouble().expect("a text");
        assert!(text.contains("rec.1") && !text.contains('\n'), "{text}");
        assert_eq!(a.cas(Generation(0), record(1, 1)), Outcome::Unknown);
        assert_eq!(a.cas(Generation(1), record(2, 1)), Outcome::Unknown);
        assert!(a.take_trouble().is_some() && a.take_trouble().is_none());
        assert_eq!(names(dir.path(), ""), ["rec.1"]);
    }
}

#[test]
fn a_register_that_goes_back_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = FileArbiter::open(dir.path()).unwrap();
    win(&mut a, record(1, 1));
    win(&mut a, record(2, 1));
    fs::remove_file(dir.path().join("rec.2")).unwrap();
    assert_eq!(a.read(), Outcome::Unknown);
    assert_eq!(a.cas(Generation(1), record(2, 3)), Outcome::Unknown);
    fs::remove_file(dir.path().join("rec.1")).unwrap();
    assert_eq!(a.read(), Outcome::Unknown);
    let text = a.take_trouble().unwrap();
    assert!(text.contains("rec.2") && text.contains("mounted"), "{text}");
}

#[test]
fn a_folder_that_vanishes_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("arbiter");
    let mut a = FileArbiter::open(&folder).unwrap();
    fs::remove_dir(&folder).unwrap();
    assert_eq!(a.read(), Outcome::Unknown);
    assert_eq!(a.cas(Generation(0), record(1, 1)), Outcome::Unknown);
    let text = a.take_trouble().unwrap();
    assert!(text.contains(&folder.display().to_string()), "{text}");
    fs::create_dir(&folder).unwrap();
    win(&mut a, record(1, 1));
}

#[test]
fn a_useless_folder_is_refused_at_start_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = FileArbiter::open(&file).unwrap_err().to_string();
    let named = format!("arbiter folder {}", file.display());
    assert!(
        error.starts_with(&named) && !error.contains('\n'),
        "{error}"
    );

    let locked = dir.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    if rustix::process::geteuid().is_root() {
        return; // Root may write everywhere.
    }
    let error = FileArbiter::open(&locked).unwrap_err();
    assert!(error.to_string().contains("can't write"), "{error}");
}

#[test]
fn folders_are_made_whatever_their_path_looks_like() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        make_durably(&dir.path().join("a/b/c")).unwrap();
    }
    assert!(dir.path().join("a/b/c").is_dir());
    // Relative to where the process runs, and the root.
    make_durably(Path::new(".")).unwrap();
    make_durably(Path::new("/")).unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(make_durably(&dir.path().join("file/x")).is_err());
}
