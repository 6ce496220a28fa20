use crate::*;

fn ram() -> Memory {
    Memory::new(64 * PAGE_BYTES as u64).unwrap()
}

#[test]
fn sizes_are_checked() {
    for bad in [0, 1, 4095, MAX_RAM_BYTES + 4096] {
        assert_eq!(Memory::new(bad).err(), Some(MemError::Size(bad)));
    }
}

#[test]
fn stores_outside_ram_change_nothing() {
    let mut m = ram();
    let end = RAM_BASE + m.ram_bytes();
    assert!(m.store(end - 4, &[1; 8]).is_err());
    assert!(m.store(u64::MAX, &[1]).is_err());
    assert!(m.store(RAM_BASE - 1, &[1, 1]).is_err());
    assert_eq!(m.load_u32(end - 4), Ok(0));
    assert!(m.store(end - 8, &[1; 8]).is_ok());
}

#[test]
fn code_chunks_tell_only_of_stores_that_touch_code() {
    let mut m = ram();
    m.mark_code(RAM_BASE + 0x1040, 64);
    assert!(!m.claim_write_tag(1));
    m.store_u64(RAM_BASE + 0x1080, 7).unwrap();
    assert_eq!(m.take_changes(), []);
    m.store_u64(RAM_BASE + 0x103c, 7).unwrap();
    assert_eq!(m.take_changes(), [Change::Code { page: 1 }]);
    assert!(m.claim_write_tag(1));
}

#[test]
fn table_stores_tell_only_when_a_valid_entry_goes() {
    let mut m = ram();
    m.store_u64(RAM_BASE + 0x2008, 1).unwrap();
    m.mark_table(2);
    m.store_u64(RAM_BASE + 0x2010, 1).unwrap();
    assert_eq!(m.take_changes(), []);
    m.store(RAM_BASE + 0x200c, &[0; 4]).unwrap();
    assert_eq!(
        m.take_changes(),
        [Change::Table {
            page: 2,
            first: 1,
            last: 1
        }]
    );
    m.store_walk_bits(RAM_BASE + 0x2010, 0xc1).unwrap();
    assert_eq!(m.take_changes(), []);
}

#[test]
fn write_tags_are_withdrawn_when_a_page_gets_a_state() {
    let mut m = ram();
    m.store_u64(RAM_BASE + 0x3000, 1).unwrap();
    assert!(m.claim_write_tag(3));
    m.digest();
    assert_eq!(m.take_changes(), [Change::WriteTags { page: 3 }]);
    assert!(!m.claim_write_tag(3));
}

#[test]
fn digest_depends_on_content_and_place_only() {
    let (mut a, mut b) = (ram(), ram());
    let zero = a.digest();
    a.store_u64(RAM_BASE + 0x1000, 5).unwrap();
    a.store_u64(RAM_BASE + 0x5000, 6).unwrap();
    b.store_u64(RAM_BASE + 0x5000, 6).unwrap();
    b.digest();
    b.store_u64(RAM_BASE + 0x1000, 5).unwrap();
    assert_eq!(a.digest(), b.digest());
    assert_ne!(a.digest(), zero);
    b.store_u64(RAM_BASE + 0x1000, 0).unwrap();
    b.store_u64(RAM_BASE + 0x2000, 5).unwrap();
    assert_ne!(a.digest(), b.digest());
    b.store_u64(RAM_BASE + 0x2000, 0).unwrap();
    b.store_u64(RAM_BASE + 0x5000, 0).unwrap();
    assert_eq!(b.digest(), zero);
}

fn snapshot(m: &mut Memory) -> Vec<(u32, Vec<u8>)> {
    let mut pages = Vec::new();
    let mut bytes = Vec::new();
    while let Some(page) = m.snapshot_page(&mut bytes) {
        pages.push((page, std::mem::take(&mut bytes)));
    }
    pages
}

#[test]
fn restored_ram_has_the_same_digest() {
    let mut a = ram();
    a.store(RAM_BASE + 0x1ff0, &[9; 64]).unwrap();
    let want = a.digest();
    a.begin_snapshot();
    let mut b = ram();
    for (page, bytes) in snapshot(&mut a) {
        assert!(b.restore_page(page, &bytes));
    }
    assert_eq!(b.digest(), want);
    assert!(!b.restore_page(64, &[0; PAGE_BYTES]));
}

#[test]
fn a_snapshot_holds_ram_as_it_was_whatever_is_stored_meanwhile() {
    let mut m = ram();
    for page in [1, 5, 9, 13] {
        m.store_u64(RAM_BASE + page * 0x1000, page).unwrap();
    }
    let want = m.digest();
    assert!(!m.claim_write_tag(5));
    m.take_changes();
    m.begin_snapshot();
    assert_eq!(m.take_changes(), [Change::AllWriteTags]);
    let mut bytes = Vec::new();
    assert_eq!(m.snapshot_page(&mut bytes), Some(1));
    // Before, at and behind the cursor; a zero page; a page emptied; the walker.
    m.store_u64(RAM_BASE + 0x1000, 77).unwrap();
    m.store_u64(RAM_BASE + 0x5000, 77).unwrap();
    m.store_u64(RAM_BASE + 0x6000, 77).unwrap();
    m.store_u64(RAM_BASE + 0x9000, 0).unwrap();
    m.store_walk_bits(RAM_BASE + 0xd000, 0xc1).unwrap();
    assert!(m.claim_write_tag(5));
    let mut restored = ram();
    assert!(restored.restore_page(1, &bytes));
    for (page, bytes) in snapshot(&mut m) {
        assert!(restored.restore_page(page, &bytes));
    }
    assert_eq!(restored.digest(), want);
    assert!(m.claim_write_tag(20) || m.page_state(20) == state::HASHED);
}

#[test]
fn a_snapshot_survives_a_reset_and_can_be_given_up() {
    let mut m = ram();
    m.store_u64(RAM_BASE + 0x5000, 3).unwrap();
    let want = m.digest();
    m.begin_snapshot();
    m.clear();
    let mut restored = ram();
    for (page, bytes) in snapshot(&mut m) {
        assert!(restored.restore_page(page, &bytes));
    }
    assert_eq!(restored.digest(), want);
    m.begin_snapshot();
    m.end_snapshot();
    assert_eq!(m.page_state(5) & state::COW, 0);
    assert_eq!(m.snapshot_page(&mut Vec::new()), None);
}
