use super::{DONE, READING, WANTED};
use crate::ram::MAX_LOADED_RUNS;
use crate::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const PAGES: u64 = 64;

fn ram() -> Memory {
    Memory::new(PAGES * PAGE_BYTES as u64).unwrap()
}

fn at(page: u64) -> u64 {
    RAM_BASE + page * PAGE_BYTES as u64
}

/// What is left of a snapshot, put into new RAM.
fn restore(reader: &mut SnapshotReader, into: &mut Memory) {
    let mut bytes = Vec::new();
    while let Some(page) = reader.next_page(&mut bytes) {
        assert_eq!(
            into.page(page as usize),
            Some(&[0; PAGE_BYTES][..]),
            "page {page} twice"
        );
        assert!(into.restore_page(page, &bytes));
        bytes.clear();
    }
}

#[test]
fn restored_ram_has_the_same_digest() {
    let mut a = ram();
    a.store(RAM_BASE + 0x1ff0, &[9; 64]).unwrap();
    let want = a.digest();
    let mut b = ram();
    restore(&mut a.begin_snapshot().unwrap(), &mut b);
    assert_eq!(b.digest(), want);
    let mut c = ram();
    restore(&mut b.begin_snapshot().unwrap(), &mut c);
    assert_eq!(c.digest(), want);
    assert!(!b.restore_page(PAGES as u32, &[0; PAGE_BYTES]));
}

#[test]
fn a_snapshot_holds_ram_as_it_was_whatever_is_stored_meanwhile() {
    let mut m = ram();
    for page in [1, 5, 9, 13] {
        m.store_u64(at(page), page).unwrap();
    }
    let want = m.digest();
    assert!(!m.claim_write_tag(5));
    m.take_changes();
    let mut reader = m.begin_snapshot().unwrap();
    assert_eq!(m.take_changes(), [Change::AllWriteTags]);
    let mut bytes = Vec::new();
    assert_eq!(reader.next_page(&mut bytes), Some(1));
    // Before, at and behind the cursor; a zero page; a page emptied; the walker; a digest.
    m.store_u64(at(1), 77).unwrap();
    m.store_u64(at(5), 77).unwrap();
    m.store_u64(at(6), 77).unwrap();
    m.store_u64(at(9), 0).unwrap();
    let changed = m.digest();
    m.store_walk_bits(at(13), 0xc1).unwrap();
    assert_ne!(m.digest(), changed);
    let mut restored = ram();
    assert!(restored.restore_page(1, &bytes));
    restore(&mut reader, &mut restored);
    assert_eq!(restored.digest(), want);
    assert_eq!(reader.aside_peak_bytes(), 3 * PAGE_BYTES);
}

#[test]
fn pages_get_their_write_tags_back_by_their_first_store() {
    let mut m = ram();
    m.store_u64(at(5), 1).unwrap();
    assert!(m.claim_write_tag(5));
    let reader = m.begin_snapshot().unwrap();
    assert!(!m.claim_write_tag(5));
    m.store_u64(at(5), 2).unwrap();
    assert!(m.claim_write_tag(5));
    drop(reader);
    m.store_u64(at(6), 2).unwrap();
    assert_eq!(m.page_state(6), 0);
}

#[test]
fn pages_that_nobody_stored_to_are_not_looked_at() {
    let mut m = ram();
    m.store_u64(at(5), 0).unwrap();
    let mut reader = m.begin_snapshot().unwrap();
    let shared = reader.shared_for_tests();
    let wanted = |page: u64| shared.claims[page as usize].load(Ordering::Relaxed) == WANTED;
    let pages: Vec<u64> = (0..PAGES).filter(|page| wanted(*page)).collect();
    assert_eq!(pages, [5]);
    assert_eq!(m.page_state(5) & state::COW, state::COW);
    assert_eq!(m.page_state(6) & state::COW, 0);
    // The first store to such a page keeps nothing, and the reader doesn't see it.
    m.store_u64(at(6), 7).unwrap();
    assert!(m.claim_write_tag(6));
    assert_eq!(reader.next_page(&mut Vec::new()), None);
    assert_eq!(reader.aside_peak_bytes(), 0);
}

#[test]
fn pages_are_left_out_while_they_are_as_they_were_loaded() {
    let mut m = ram();
    for page in [3, 4, 5, 8, 9, 20] {
        m.store_u64(at(page), page).unwrap();
    }
    // Page 6 was never stored to, 20 lies behind.
    m.mark_loaded(0..10);
    let left_out = |m: &mut Memory| {
        let mut reader = m.begin_snapshot().unwrap();
        let mut pages = Vec::new();
        while let Some(page) = reader.next_page(&mut Vec::new()) {
            pages.push(page);
        }
        (reader.loaded().to_vec(), pages)
    };
    assert_eq!(left_out(&mut m), (vec![3..6, 8..10], vec![20]));
    // Loads and digests change nothing; each kind of store does, with the same value too.
    m.digest();
    assert_eq!(m.load_u64(at(4)), Ok(4));
    assert!(!m.claim_write_tag(4));
    m.store_u64(at(4), 4).unwrap();
    m.store_walk_bits(at(8), 8).unwrap();
    assert!(m.restore_page(9, &[0; PAGE_BYTES]));
    assert_eq!(left_out(&mut m), (vec![3..4, 5..6], vec![4, 8, 20]));
    m.clear();
    m.store_u64(at(3), 1).unwrap();
    assert_eq!(left_out(&mut m), (vec![], vec![3]));
}

#[test]
fn a_snapshot_names_so_many_runs_of_loaded_pages_and_holds_the_rest() {
    let runs = MAX_LOADED_RUNS as u64 + 2;
    let mut m = Memory::new(2 * runs * PAGE_BYTES as u64).unwrap();
    for run in 0..runs {
        m.store_u64(at(2 * run), 1).unwrap();
    }
    m.mark_loaded(0..u32::MAX);
    let mut reader = m.begin_snapshot().unwrap();
    assert_eq!(reader.loaded().len(), MAX_LOADED_RUNS);
    m.store_u64(at(2 * runs - 2), 2).unwrap();
    let mut bytes = Vec::new();
    for run in [runs - 1, runs - 2] {
        assert_eq!(reader.next_page(&mut bytes), Some(2 * run as u32));
        assert_eq!(bytes[0], 1);
        bytes.clear();
    }
    assert_eq!(reader.next_page(&mut bytes), None);
}

#[test]
fn a_snapshot_survives_a_reset() {
    for in_place in [false, true] {
        let mut m = ram();
        m.store_u64(at(5), 3).unwrap();
        let want = m.digest();
        let mut reader = m.begin_snapshot().unwrap();
        if in_place {
            m.clear_in_place();
        } else {
            m.clear();
        }
        assert_eq!(m.digest(), ram().digest());
        m.store_u64(at(5), 4).unwrap();
        let mut restored = ram();
        restore(&mut reader, &mut restored);
        assert_eq!(restored.digest(), want);
    }
}

#[test]
fn snapshots_overlap_and_too_many_are_refused() {
    let mut m = ram();
    m.store_u64(at(3), 1).unwrap();
    let mut readers: Vec<(MemoryDigest, SnapshotReader)> = Vec::new();
    for n in 0..MAX_SNAPSHOTS as u64 {
        let digest = m.digest();
        readers.push((digest, m.begin_snapshot().unwrap()));
        m.store_u64(at(3), 100 + n).unwrap();
        m.store_u64(at(10 + n), 100 + n).unwrap();
    }
    assert_eq!(m.begin_snapshot().err(), Some(SnapshotBusy));
    for (want, reader) in &mut readers {
        let mut restored = ram();
        restore(reader, &mut restored);
        assert_eq!(restored.digest(), *want);
    }
    readers.pop();
    assert!(m.begin_snapshot().is_ok());
}

#[test]
fn a_snapshot_given_up_keeps_nothing() {
    let mut m = ram();
    for page in 0..8 {
        m.store_u64(at(page), 1).unwrap();
    }
    let reader = m.begin_snapshot().unwrap();
    m.store_u64(at(0), 2).unwrap();
    let shared = reader.shared_for_tests();
    drop(reader);
    assert_eq!(shared.aside().pages.len(), 0);
    // Also nothing new is kept, and the guest's side lets go at the next store.
    m.store_u64(at(1), 2).unwrap();
    assert_eq!(shared.aside().pages.len(), 0);
    assert_eq!(std::sync::Arc::strong_count(&shared), 1);
}

#[test]
fn a_store_to_a_page_just_being_read_waits_for_the_copy() {
    let mut m = ram();
    m.store_u64(at(5), 1).unwrap();
    let reader = m.begin_snapshot().unwrap();
    let shared = reader.shared_for_tests();
    shared.claims[5].store(READING, Ordering::Relaxed);
    let (asked, stored) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            asked.store(true, Ordering::Release);
            m.store_u64(at(5), 2).unwrap();
            stored.store(true, Ordering::Release);
        });
        // However long it is given.
        let mut turns = 0;
        while turns < 2000 {
            turns += usize::from(asked.load(Ordering::Acquire));
            thread::yield_now();
            assert_eq!(reader.claimed(5)[0], 1);
            assert!(!stored.load(Ordering::Acquire));
        }
        shared.claims[5].store(DONE, Ordering::Release);
    });
    assert_eq!(m.load_u64(at(5)), Ok(2));
}

/// SplitMix64 (Steele, Lea, Flood, 2014).
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A store as the guest may make it: fast under a tag, through `store`, by the walker.
fn random_store(m: &mut Memory, dice: &mut Dice, pages: u64) {
    let (page, word, value) = (dice.throw() % pages, dice.throw() % 512, dice.throw());
    let pa = at(page) + word * 8;
    match dice.throw() % 8 {
        0 => m.store_walk_bits(pa, value).unwrap(),
        1 => m.store(pa, &value.to_le_bytes()[..3]).unwrap(),
        2 => m.store(at(page), &[0; PAGE_BYTES]).unwrap(),
        _ if m.claim_write_tag(page as usize) => {
            assert!(m.store_tagged((pa - RAM_BASE) as usize, value.to_le_bytes()));
        }
        _ => m.store_u64(pa, value).unwrap(),
    }
}

#[test]
fn a_thread_reads_what_was_there_when_the_snapshot_began() {
    const PAGES: u64 = 512;
    const ROUNDS: u64 = 40;
    let new = || Memory::new(PAGES * PAGE_BYTES as u64).unwrap();
    let mut m = new();
    let mut dice = Dice(7);
    for _ in 0..4 * PAGES {
        random_store(&mut m, &mut dice, PAGES);
    }
    let mut aside = 0;
    for round in 0..ROUNDS {
        let want = m.digest();
        let mut reader = m.begin_snapshot().unwrap();
        let thread = thread::spawn(move || {
            let mut restored = new();
            restore(&mut reader, &mut restored);
            (restored, reader.aside_peak_bytes())
        });
        // The guest stores until the reader is through, to few pages or to all.
        let span = if round % 2 == 0 { PAGES } else { 8 };
        let mut stores = 0;
        while !thread.is_finished() || stores < 100 {
            random_store(&mut m, &mut dice, span);
            stores += 1;
            if stores % 5000 == 0 {
                m.digest();
            }
        }
        let (mut restored, peak) = thread.join().unwrap();
        assert_eq!(restored.digest(), want, "round {round}");
        aside += peak;
    }
    assert!(
        aside > 0,
        "no store ever met a page that the reader had not read"
    );
}
