use super::guest::*;
use crate::*;

#[test]
fn a_restored_machine_goes_on_like_the_original() {
    let mut a = machine(counter());
    a.run(5000);
    let bytes = a.save(false).unwrap();
    let mut b = Machine::restore(&bytes, Some(config(counter()))).unwrap();
    assert_eq!(a.digest(), b.digest());
    assert_eq!((a.run(9000), b.run(9000)), (Exit::Limit, Exit::Limit));
    assert_eq!(a.digest(), b.digest());
    // With its images it needs nothing else, and resets from them.
    let bytes = a.save(true).unwrap();
    let mut c = Machine::restore(&bytes, None).unwrap();
    assert_eq!(a.digest(), c.digest());
    assert_eq!(c.config().fields(), a.config().fields());
}

#[test]
fn a_snapshot_is_of_its_step_though_the_guest_goes_on() {
    let mut a = machine(counter());
    a.run(5000);
    let want = a.digest();
    let mut stream = a.snapshot(false).unwrap();
    let mut restore = Restore::new(Some(config(counter())));
    let mut piece = Vec::new();
    loop {
        let more = stream.read(1000, &mut piece);
        for part in piece.chunks(333) {
            restore.push(part).unwrap();
        }
        piece.clear();
        if !more {
            break;
        }
        let until = a.icount() + 500;
        a.run(until);
    }
    assert_ne!(a.digest(), want);
    assert_eq!(restore.finish().unwrap().digest(), want);
}

#[test]
fn another_thread_reads_a_snapshot_while_the_guest_runs_or_is_gone() {
    for gone in [false, true] {
        let mut a = machine(counter());
        a.run(5000);
        let want = a.digest();
        let mut stream = a.snapshot(true).unwrap();
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            while stream.read(100, &mut bytes) {}
            bytes
        });
        if gone {
            drop(a);
        } else {
            a.run(50_000);
            assert_ne!(a.digest(), want);
        }
        let bytes = reader.join().unwrap();
        assert_eq!(Machine::restore(&bytes, None).unwrap().digest(), want);
    }
}

#[test]
fn damaged_or_foreign_snapshots_are_refused() {
    let mut m = machine(counter());
    m.run(1000);
    let good = m.save(true).unwrap();
    let restore = |bytes: &[u8]| Machine::restore(bytes, None);
    assert!(restore(&good).is_ok());
    for len in (0..good.len()).step_by(97).chain([good.len() - 1]) {
        assert!(restore(&good[..len]).is_err(), "cut at {len}");
    }
    for at in (0..good.len()).step_by(61) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(restore(&bad).is_err(), "byte {at}");
    }
    let mut long = good.clone();
    long.push(0);
    assert!(restore(&long).is_err());
    let mut other = config(counter());
    other.cmdline = "other".to_owned();
    let error = Machine::restore(&good, Some(other))
        .err()
        .unwrap()
        .to_string();
    assert_eq!(
        error,
        "the snapshot's cmdline is \"test\", this machine's is \"other\"; both must be equal"
    );
    let without = m.save(false).unwrap();
    assert!(matches!(restore(&without), Err(SnapshotError::NoImages)));
}
