// Lists of runs that have one.
#![allow(clippy::single_range_in_vec_init)]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::medium::{Hook, Step};

const DISK: u64 = 9000 * REGION_BYTES + 512;

/// Counts what is made durable.
#[derive(Debug, Default)]
struct Syncs(AtomicU64);

impl Hook for Syncs {
    fn about_to(&self, step: Step<'_>) -> io::Result<()> {
        if matches!(step, Step::Sync(_)) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A map in which no bit is set, and its file.
fn empty(dir: &tempfile::TempDir, medium: &Medium) -> (Intents, PathBuf) {
    let path = dir.path().join("map");
    let map = Intents::open(&path, DISK, medium.clone()).unwrap();
    map.retain(|_| false).unwrap();
    (map, path)
}

#[test]
fn bits_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("map");
    let open = || Intents::open(&path, DISK, Medium::default()).unwrap();
    let map = open();
    assert_eq!(map.regions(), 9001);
    // Of a disk of which nothing is known all may have been written.
    assert_eq!(map.runs(), [0..9001]);
    map.retain(|region| region == 5).unwrap();
    map.set(4062..4070).unwrap();
    map.set(9000..9001).unwrap();
    let expected = [5..6, 4062..4070, 9000..9001];
    assert_eq!(map.runs(), expected);
    drop(map);
    assert_eq!(open().runs(), expected);
    // Another size is another disk.
    let other = Intents::open(&path, REGION_BYTES, Medium::default()).unwrap();
    assert_eq!(other.runs(), [0..1]);
}

#[test]
fn a_damaged_sector_counts_as_written_and_a_damaged_head_says_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (map, path) = empty(&dir, &Medium::default());
    map.set(8500..8501).unwrap();
    drop(map);
    let good = fs::read(&path).unwrap();
    let open = || {
        Intents::open(&path, DISK, Medium::default())
            .unwrap()
            .runs()
    };
    // The second sector of bits: half of it is old.
    let mut torn = good.clone();
    torn[2 * SECTOR + 100] ^= 4;
    fs::write(&path, &torn).unwrap();
    let sector = SECTOR_REGIONS..2 * SECTOR_REGIONS;
    assert_eq!(open(), [sector, 8500..8501]);
    for damage in [3, 20, 30, 510] {
        let mut damaged = good.clone();
        damaged[damage] ^= 1;
        fs::write(&path, &damaged).unwrap();
        assert_eq!(open(), [0..9001], "byte {damage}");
    }
    fs::write(&path, &good[..good.len() - 1]).unwrap();
    assert_eq!(open(), [0..9001]);
}

#[test]
fn writes_that_go_upwards_rarely_wait_for_the_map() {
    let dir = tempfile::tempdir().unwrap();
    let syncs = Arc::new(Syncs::default());
    let medium = Medium {
        hook: Some(Arc::clone(&syncs) as Arc<dyn Hook>),
    };
    let (map, _) = empty(&dir, &medium);
    let before = syncs.0.load(Ordering::Relaxed);
    for region in 0..1700 {
        map.set(region..region + 1).unwrap();
    }
    let upwards = syncs.0.load(Ordering::Relaxed) - before;
    assert!(upwards <= 1 + 1700 / AHEAD, "{upwards}");
    // Elsewhere no more is set than is written.
    map.set(5000..5001).unwrap();
    assert_eq!(map.runs().last(), Some(&(5000..5001)));
    let all = syncs.0.load(Ordering::Relaxed);
    map.set(100..1700).unwrap();
    assert_eq!(syncs.0.load(Ordering::Relaxed), all);
}

/// Holds the first thing that is made durable, until the test has done what it wants to.
#[derive(Debug)]
struct Slow {
    begun: crossbeam_channel::Sender<()>,
    go_on: crossbeam_channel::Receiver<()>,
}

impl Hook for Slow {
    fn about_to(&self, step: Step<'_>) -> io::Result<()> {
        if matches!(step, Step::Sync(_)) {
            let _ = self.begun.send(());
            let _ = self.go_on.recv();
        }
        Ok(())
    }
}

#[test]
fn a_write_whose_bit_is_set_waits_for_nobody_elses() {
    let dir = tempfile::tempdir().unwrap();
    let (map, path) = empty(&dir, &Medium::default());
    map.set(7..8).unwrap();
    drop(map);
    let (begun, is_begun) = crossbeam_channel::bounded(1);
    let (let_go, go_on) = crossbeam_channel::bounded(0);
    let medium = Medium {
        hook: Some(Arc::new(Slow { begun, go_on })),
    };
    let map = Intents::open(&path, DISK, medium).unwrap();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| map.set(5000..5001));
        is_begun.recv().unwrap();
        map.set(7..8).unwrap();
        // Not durable yet.
        assert_eq!(map.runs(), [7..8]);
        drop(let_go);
        slow.join().unwrap().unwrap();
    });
    assert_eq!(map.runs(), [7..8, 5000..5001]);
}
