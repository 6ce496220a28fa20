//! The ways a synchronization can go.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::medium::{Hook, Step};
use crate::worker::locked;

#[test]
fn a_new_node_gets_the_disk_as_it_was_at_the_snapshot() {
    let (a, b) = (Place::with_file(64 * MIB + 512), Place::new());
    let mut live = a.open();
    live.set.found().unwrap();
    for n in 0..40 {
        assert_eq!(live.write(n * MIB, &noise(n, 9 * 4096)), 0);
    }
    let mut joiner = b.open();
    assert_eq!(joiner.set.sizes(), [None]);
    joiner.set.check_whole().expect_err("no file");
    // The guest writes on: into what was sent, into what will be, and after the snapshot.
    let mut written = 0;
    let mut meanwhile = |live: &mut Node, sent: u64| {
        let data = noise(1000 + sent, 3 * 4096 + 512);
        live.submit(
            DiskOp::Write { durable: false },
            (sent % 63) * MIB + 1024..(sent % 63) * MIB + 1024 + data.len() as u64,
            &data,
        );
        live.results(1);
        written += 1;
    };
    let outcome = synchronize(
        &mut live,
        &mut joiner,
        Script {
            meanwhile: Some(&mut meanwhile),
            ..Script::default()
        },
    );
    outcome.assert_copied(&joiner);
    assert!(written > 5);
    let (ours, theirs) = (live.set.mark().unwrap(), joiner.set.mark().unwrap());
    assert_eq!((ours.vm, ours.epoch), (theirs.vm, theirs.epoch));
    assert_ne!(ours.epoch, 0);
}

/// Two nodes that are a pair: copies of one epoch.
fn pair(a: &Place, b: &Place, fill: u64) -> (Node, Node) {
    let mut live = a.open();
    live.set.found().unwrap();
    for n in 0..fill {
        assert_eq!(live.write(n * 4096, &noise(n, 4096)), 0);
    }
    let mut joiner = b.open();
    synchronize(&mut live, &mut joiner, Script::default()).assert_copied(&joiner);
    (live, joiner)
}

#[test]
fn a_full_join_sends_no_more_than_what_is_used() {
    let (a, b) = (Place::with_file(1 << 30), Place::new());
    let mut live = a.open();
    live.set.found().unwrap();
    let used = 24 * MIB;
    for n in 0..used / MIB {
        assert_eq!(live.write(n * 40 * MIB, &noise(n, MIB as usize)), 0);
    }
    // Zeros that take room are no content.
    live.write(500 * MIB + 4096, &vec![0; 8 * MIB as usize]);
    let mut joiner = b.open();
    let outcome = synchronize(&mut live, &mut joiner, Script::default());
    outcome.assert_copied(&joiner);
    let SyncProgress {
        sent_bytes,
        heard_bytes,
        ..
    } = outcome.progress;
    assert!(sent_bytes <= used + used / 100, "{sent_bytes} for {used}");
    assert!(heard_bytes < used / 100, "{heard_bytes}");
    // Nor does the copy take more room.
    let room = |path: &Path| fs::metadata(path).unwrap().blocks() * 512;
    assert!(room(&b.path) <= used + MIB, "{}", room(&b.path));

    // What can be packed is sent in less.
    let mut text = "all work and no play ".repeat(200_000).into_bytes();
    text.truncate(2 * MIB as usize);
    live.write(900 * MIB, &text);
    let again = synchronize(&mut live, &mut joiner, Script::default());
    again.assert_copied(&joiner);
    assert!(again.progress.sent_bytes < MIB / 2, "{again:?}");
}

#[test]
fn what_only_the_dead_side_wrote_is_overwritten() {
    let (a, b) = (Place::with_file(64 * MIB), Place::new());
    let (mut live, mut joiner) = pair(&a, &b, 2000);
    for node in [&mut live, &mut joiner] {
        node.write(3 * MIB, &noise(5, 8192));
    }
    // The joiner wrote, and died before anybody heard of it.
    joiner.write(40 * MIB + 512, &noise(6, 1024));
    joiner.write(7 * 4096, &noise(7, 4096));
    drop(joiner);
    let written = 100 * 4096;
    for n in 0..100 {
        live.write(20 * MIB + n * 8192, &noise(n, 4096));
    }
    let mut joiner = b.open();
    let outcome = synchronize(&mut live, &mut joiner, Script::default());
    outcome.assert_copied(&joiner);
    // Three blocks that only the joiner had and one hundred of ours, none that both wrote.
    let differ = written + 3 * 4096;
    let SyncProgress {
        sent_bytes,
        heard_bytes,
        copied_bytes,
        ..
    } = outcome.progress;
    assert!(copied_bytes <= differ, "{copied_bytes} for {differ}");
    assert!(
        sent_bytes <= differ * 105 / 100,
        "{sent_bytes} for {differ}"
    );
    // A hash for each block of what was compared.
    assert!(heard_bytes < 16 * 1024, "{heard_bytes}");
    // The joiner's map named two regions, and the one that both wrote; we know our blocks.
    assert!(outcome.progress.compared_bytes <= 3 * MIB + written);
}

#[test]
fn what_is_durable_on_both_is_compared_no_more() {
    let (a, b) = (Place::with_file(64 * MIB), Place::new());
    let (mut live, mut joiner) = pair(&a, &b, 1);
    for n in 0..50 {
        for node in [&mut live, &mut joiner] {
            node.write(n * MIB, &noise(n, 4096));
        }
    }
    let points = (live.set.begin_point(&[]), joiner.set.begin_point(&[]));
    for node in [&mut live, &mut joiner] {
        node.write(9 * MIB, &noise(99, 4096));
        node.flush();
    }
    live.set.clear_to(points.0);
    joiner.set.clear_to(points.1);
    drop(joiner);
    // After a crash of the live node too, whose map of blocks is lost.
    for restart in [false, true] {
        if restart {
            drop(live);
            live = a.open();
        }
        let mut joiner = b.open();
        let outcome = synchronize(&mut live, &mut joiner, Script::default());
        outcome.assert_copied(&joiner);
        assert!(outcome.progress.compare_bytes <= 2 * MIB, "{outcome:?}");
        assert!(outcome.progress.sent_bytes < 8192, "{outcome:?}");
    }
}

#[test]
fn a_point_that_was_forgotten_clears_nothing() {
    let (a, b) = (Place::with_file(8 * MIB), Place::new());
    let (mut live, mut joiner) = pair(&a, &b, 1);
    let old = live.set.begin_point(&[]);
    live.write(5 * MIB, &noise(3, 4096));
    live.set.begin_point(&[]);
    live.flush();
    live.set.clear_to(old);
    live.flush();
    let outcome = synchronize(&mut live, &mut joiner, Script::default());
    outcome.assert_copied(&joiner);
    assert_eq!(outcome.progress.copied_bytes, 4096);
}

#[test]
fn without_a_common_epoch_only_what_differs_is_sent() {
    let (a, b) = (Place::with_file(32 * MIB), Place::with_file(32 * MIB));
    let content = noise(1, 16 * MIB as usize);
    for place in [&a, &b] {
        let file = fs::File::options().write(true).open(&place.path).unwrap();
        file.write_all_at(&content, 4 * MIB).unwrap();
    }
    let (mut live, mut joiner) = (a.open(), b.open());
    live.set.found().unwrap();
    live.write(5 * MIB, &noise(2, 4096));
    live.write(30 * MIB, &noise(3, 4096));
    live.submit(DiskOp::Discard, 6 * MIB..6 * MIB + 8192, &[]);
    live.results(1);
    let outcome = synchronize(&mut live, &mut joiner, Script::default());
    outcome.assert_copied(&joiner);
    assert_eq!(outcome.progress.copied_bytes, 4 * 4096);
    assert!(outcome.progress.sent_bytes < 10_000, "{outcome:?}");
    assert_eq!(outcome.progress.compared_bytes, 32 * MIB);
}

#[test]
fn one_that_broke_off_leaves_half_a_copy_and_goes_on_from_there() {
    let (a, b) = (Place::with_file(64 * MIB), Place::new());
    let mut live = a.open();
    live.set.found().unwrap();
    for n in 0..24 {
        live.write(n * MIB, &noise(n, MIB as usize));
    }
    let mut joiner = b.open();
    let script = Script {
        cut_after: Some(80),
        ..Script::default()
    };
    let outcome = synchronize(&mut live, &mut joiner, script);
    assert_eq!(outcome.live, SyncPiece::Later);
    drop(joiner);
    let mut joiner = b.open();
    assert!(!joiner.set.mark().unwrap().consistent);
    let refused = joiner.set.check_whole().unwrap_err().to_string();
    assert!(refused.contains("half a copy"), "{refused}");
    // The live node is unharmed, and nobody may take half a copy from the joiner.
    live.write(0, &noise(77, 4096));
    let other = Place::new();
    let from = synchronize(&mut joiner, &mut other.open(), Script::default());
    assert!(matches!(
        from.live,
        SyncPiece::Failed(SyncError::Refused(_))
    ));

    let outcome = synchronize(&mut live, &mut joiner, Script::default());
    outcome.assert_copied(&joiner);
    assert!(outcome.progress.sent_bytes < 14 * MIB, "{outcome:?}");
    joiner.set.check_whole().unwrap();
}

#[test]
fn disks_that_cannot_become_copies_are_refused() {
    // Both sides say why.
    let refused = |outcome: Outcome| match (outcome.live, outcome.joiner) {
        (SyncPiece::Failed(ours), SyncPiece::Failed(theirs)) => {
            assert!(theirs.to_string().contains(&ours.to_string()));
            ours.to_string()
        }
        other => panic!("{other:?}"),
    };
    let (a, b) = (Place::with_file(8 * MIB), Place::with_file(9 * MIB));
    let mut live = a.open();
    let outcome = synchronize(&mut live, &mut b.open(), Script::default());
    assert!(refused(outcome).contains("no mark"));
    live.set.found().unwrap();
    let outcome = synchronize(&mut live, &mut b.open(), Script::default());
    let line = refused(outcome);
    assert!(
        line.contains("8388608 bytes here, 9437184 on the joining node"),
        "{line}"
    );
    // Another VM's.
    let c = Place::with_file(8 * MIB);
    let mut other = c.open();
    other.set.found().unwrap();
    let outcome = synchronize(&mut live, &mut other, Script::default());
    let line = refused(outcome);
    assert!(line.contains("belong to another VM"), "{line}");
    assert!(other.set.mark().unwrap().consistent);
}

#[test]
fn a_file_that_is_not_the_disk_is_refused() {
    let a = Place::with_file(8 * MIB);
    let node = a.open();
    node.set.found().unwrap();
    drop(node);
    let refused = || a.open_on(Medium::default(), DiskOptions::default());
    let refused = || refused().map(|_| ()).unwrap_err().to_string();
    let kept = a.path.with_file_name("kept");
    fs::rename(&a.path, &kept).unwrap();
    // None at all: it may join, and can't start alone.
    let node = a.open();
    assert_eq!(node.set.sizes(), [None]);
    let line = node.set.check_whole().unwrap_err().to_string();
    assert!(line.contains("no such file"), "{line}");
    drop(node);
    // Another one.
    fs::copy(&kept, &a.path).unwrap();
    let line = refused();
    assert!(
        line.contains("not the file") && line.contains("disks.mark"),
        "{line}"
    );
    fs::rename(&kept, &a.path).unwrap();
    a.open();
    let file = fs::File::options().write(true).open(&a.path).unwrap();
    file.set_len(4 * MIB).unwrap();
    let line = refused();
    assert!(line.contains("4194304 bytes, it had 8388608"), "{line}");
    // One that has grown is the disk; where it has grown nothing is known.
    file.set_len(16 * MIB).unwrap();
    let node = a.open();
    assert_eq!(node.set.sizes(), [Some(16 * MIB)]);
    // A damaged mark isn't guessed at.
    drop(node);
    fs::write(a.folder.join("disks.mark"), "twinvm disks 1\n").unwrap();
    let line = refused();
    assert!(line.contains("disks.mark"), "{line}");
}

#[test]
fn generations_are_stored() {
    let a = Place::with_file(MIB);
    let node = a.open();
    assert_eq!(node.set.mark(), None);
    node.set.set_generation(5, None).unwrap();
    assert_eq!(node.set.mark(), None);
    let mark = node.set.found().unwrap();
    assert_eq!(
        (mark.generation, mark.pending, mark.consistent),
        (0, None, true)
    );
    node.set.set_generation(0, Some(1)).unwrap();
    node.set.set_generation(1, None).unwrap();
    node.set.set_generation(1, Some(2)).unwrap();
    drop(node);
    let node = a.open();
    let stored = node.set.mark().unwrap();
    assert_eq!(
        stored,
        crate::Mark {
            generation: 1,
            pending: Some(2),
            ..mark
        }
    );
    assert_eq!(node.set.found().unwrap(), stored);
    node.set.set_inconsistent().unwrap();
    drop(node);
    a.open().set.check_whole().unwrap_err();
}

/// Steps that fail.
#[derive(Debug, Default)]
struct Trouble {
    /// Writes of this file find no room once so many bytes are in it.
    full: Option<(PathBuf, AtomicU64)>,
    /// The next sync of this file fails, once.
    sync: Mutex<Option<PathBuf>>,
}

impl Hook for Trouble {
    fn about_to(&self, step: Step<'_>) -> io::Result<()> {
        match (step, &self.full) {
            (Step::Write { path, bytes, .. }, Some((full, room))) if path == full => {
                let taken = room.fetch_update(SeqCst, SeqCst, |room| room.checked_sub(bytes));
                taken.map_err(|_| io::Error::from(io::ErrorKind::StorageFull))?;
            }
            (Step::Sync(path), _) => {
                let mut failing = locked(&self.sync);
                if failing.as_deref() == Some(path) {
                    *failing = None;
                    return Err(io::Error::from_raw_os_error(5));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn troubled(trouble: Arc<Trouble>) -> Medium {
    Medium {
        hook: Some(trouble),
    }
}

#[test]
fn no_room_at_the_joiner_harms_nobody_else() {
    let (a, b) = (Place::with_file(32 * MIB), Place::new());
    let mut live = a.open();
    live.set.found().unwrap();
    for n in 0..16 {
        live.write(n * MIB, &noise(n, MIB as usize));
    }
    let trouble = Trouble {
        full: Some((b.path.clone(), AtomicU64::new(5 * MIB))),
        ..Trouble::default()
    };
    let medium = troubled(Arc::new(trouble));
    let mut joiner = b.open_on(medium, DiskOptions::default()).unwrap();
    let outcome = synchronize(&mut live, &mut joiner, Script::default());
    let (SyncPiece::Failed(own), SyncPiece::Failed(told)) = (&outcome.joiner, &outcome.live) else {
        panic!("{outcome:?}");
    };
    let (own, told) = (own.to_string(), told.to_string());
    assert!(
        own.contains("no storage space") && own.contains(b.path.to_str().unwrap()),
        "{own}"
    );
    assert!(told.contains("gave up") && told.contains(&own), "{told}");
    assert_eq!(own.lines().count() + told.lines().count(), 2);
    assert!(!joiner.set.mark().unwrap().consistent);
    drop(joiner);
    assert_eq!(live.write(0, &noise(50, 4096)), 0);
    // There is room again.
    let mut joiner = b.open();
    synchronize(&mut live, &mut joiner, Script::default()).assert_copied(&joiner);
}

#[test]
fn a_disk_whose_flush_failed_has_failed_for_ever() {
    let a = Place::with_file(MIB);
    let trouble = Arc::new(Trouble::default());
    let medium = troubled(Arc::clone(&trouble));
    let mut node = a.open_on(medium, DiskOptions::default()).unwrap();
    assert_eq!(node.write(0, &[1; 512]), 0);
    assert_eq!(node.set.failed(), None);
    *locked(&trouble.sync) = Some(a.path.clone());
    node.submit(DiskOp::Flush, 0..0, &[]);
    assert_eq!(node.results(1), [1]);
    // The next one would say that all is well.
    for (op, range) in [
        (DiskOp::Flush, 0..0),
        (DiskOp::Read, 0..512),
        (DiskOp::Discard, 0..4096),
    ] {
        node.submit(op, range, &[]);
        assert_eq!(node.results(1), [1], "{op:?}");
    }
    assert_eq!(node.write(0, &[2; 512]), 1);
    assert!(!node.try_flush());
    assert!(
        node.set
            .failed()
            .unwrap()
            .contains("an earlier flush failed")
    );
    node.set.rest().unwrap_err();
}

#[test]
fn nothing_is_written_that_the_map_does_not_hold() {
    let (a, b) = (Place::with_file(8 * MIB), Place::new());
    drop(pair(&a, &b, 1));
    let trouble = Arc::new(Trouble::default());
    let medium = troubled(Arc::clone(&trouble));
    let mut node = a.open_on(medium, DiskOptions::default()).unwrap();
    assert_eq!(node.write(0, &[1; 512]), 0);
    *locked(&trouble.sync) = Some(a.folder.join("disk-0.intents"));
    assert_eq!(node.write(5 * MIB, &[2; 512]), 1);
    assert_eq!(node.contents()[5 * MIB as usize..][..512], [0; 512]);
    // Nor is anything after it: what the map holds is unknown.
    assert_eq!(node.write(6 * MIB, &[2; 512]), 1);
    assert_eq!(node.write(0, &[2; 512]), 1);
}

#[test]
fn flushes_that_nobody_wants_are_not_made() {
    let a = Place::with_file(MIB);
    let trouble = Arc::new(Trouble::default());
    *locked(&trouble.sync) = Some(a.path.clone());
    let options = DiskOptions {
        flush: false,
        ..DiskOptions::default()
    };
    let mut node = a.open_on(troubled(trouble), options).unwrap();
    node.submit(DiskOp::Flush, 0..0, &[]);
    node.submit(DiskOp::Write { durable: true }, 0..512, &[3; 512]);
    assert_eq!(node.results(2), [0, 0]);
    // One that the node wants is.
    assert!(!node.try_flush());
}

#[test]
fn a_read_only_disk_is_copied_too() {
    let (a, b) = (Place::with_file(MIB), Place::new());
    let options = DiskOptions::default;
    fs::write(&a.path, noise(4, MIB as usize)).unwrap();
    let open = |place: &Place| {
        let spec = DiskSpec {
            device: DEVICE,
            path: place.path.clone(),
            read_only: true,
        };
        let set = DiskSet::open(&place.folder, vec![spec], options()).unwrap();
        let events = set.events().clone();
        let path = place.path.clone();
        Node {
            set,
            events,
            next_id: 0,
            path,
            snapshot_taken: false,
        }
    };
    let (mut live, mut joiner) = (open(&a), open(&b));
    live.set.found().unwrap();
    synchronize(&mut live, &mut joiner, Script::default()).assert_copied(&joiner);
    let again = synchronize(&mut live, &mut joiner, Script::default());
    again.assert_copied(&joiner);
    assert!(again.progress.sent_bytes < 1024);
}

/// One write or clearing of a range of sectors.
fn change() -> impl Strategy<Value = (u8, u64, u64, u64)> {
    (0u8..8, 0u64..16_000, 1u64..200, any::<u64>())
}

fn make(node: &mut Node, bytes: u64, (op, first, sectors, seed): (u8, u64, u64, u64)) {
    let limit = bytes / 512;
    let first = first % limit;
    let end = (first + sectors).min(limit);
    let range = first * 512..end * 512;
    let (op, data) = match op {
        0 => (DiskOp::Discard, Vec::new()),
        1 => (DiskOp::WriteZeroes { unmap: false }, Vec::new()),
        2 => (DiskOp::Flush, Vec::new()),
        3 => (
            DiskOp::Write { durable: false },
            vec![0; (range.end - range.start) as usize],
        ),
        _ => {
            let data = noise(seed, (range.end - range.start) as usize);
            (DiskOp::Write { durable: false }, data)
        }
    };
    let range = if op == DiskOp::Flush { 0..0 } else { range };
    node.submit(op, range, &data);
    assert_eq!(node.results(1), [0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever is written before, during and after: at the moment of the snapshot the copies are
    /// equal, at the first joining and when the maps say what differs.
    #[test]
    fn copies_are_equal_at_the_snapshot(
        sectors in 9_000u64..17_000,
        before in prop::collection::vec(change(), 0..12),
        during in prop::collection::vec(change(), 1..12),
        on_both in prop::collection::vec(change(), 0..6),
        on_one in prop::collection::vec((any::<bool>(), change()), 0..8),
        restart in any::<bool>(),
    ) {
        let bytes = sectors * 512;
        let (a, b) = (Place::with_file(bytes), Place::new());
        let mut live = a.open();
        live.set.found().unwrap();
        for one in before {
            make(&mut live, bytes, one);
        }
        let mut joiner = b.open();
        let mut turn = during.iter().cycle();
        let mut meanwhile = |live: &mut Node, _| make(live, bytes, *turn.next().unwrap());
        let script = Script { meanwhile: Some(&mut meanwhile), ..Script::default() };
        synchronize(&mut live, &mut joiner, script).assert_copied(&joiner);
        for one in on_both {
            make(&mut live, bytes, one);
            make(&mut joiner, bytes, one);
        }
        for (ours, one) in on_one {
            make(if ours { &mut live } else { &mut joiner }, bytes, one);
        }
        drop(joiner);
        if restart {
            drop(live);
            live = a.open();
        }
        let mut joiner = b.open();
        let mut meanwhile = |live: &mut Node, _| make(live, bytes, *turn.next().unwrap());
        let script = Script { meanwhile: Some(&mut meanwhile), ..Script::default() };
        synchronize(&mut live, &mut joiner, script).assert_copied(&joiner);
    }
}
