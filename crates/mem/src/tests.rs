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

#[test]
fn pages_count_as_touched_from_their_first_store_on() {
    let mut m = ram();
    let touched = |m: &Memory| m.touched_bytes() / PAGE_BYTES as u64;
    // Nothing of this is a store.
    m.load_u64(RAM_BASE).unwrap();
    m.mark_code(RAM_BASE, 64);
    m.mark_table(1);
    m.clear_code(0);
    assert!(!m.claim_write_tag(0));
    assert!(!m.store_tagged(0, [1]));
    m.store(RAM_BASE, &[]).unwrap();
    m.store(RAM_BASE + 64 * 4096 - 1, &[1; 2]).unwrap_err();
    m.digest();
    m.begin_snapshot().unwrap();
    assert_eq!(touched(&m), 0);
    // Each page once, whoever stores, and zeroes too.
    m.store(RAM_BASE + 0x1fff, &[0; 2]).unwrap();
    assert_eq!(touched(&m), 2);
    m.store_walk_bits(RAM_BASE + 0x3000, 0xc1).unwrap();
    assert_eq!(touched(&m), 3);
    assert!(m.restore_page(4, &[7; PAGE_BYTES]));
    assert_eq!(touched(&m), 4);
    m.store_u64(RAM_BASE + 0x4000, 0).unwrap();
    assert!(m.claim_write_tag(4) && m.store_tagged(0x4000, [1; 8]));
    m.digest();
    m.store(RAM_BASE + 0x3000, &[0; PAGE_BYTES]).unwrap();
    m.digest();
    assert_eq!(touched(&m), 4);
    m.clear();
    assert_eq!(touched(&m), 0);
    m.store_u16(RAM_BASE, 0).unwrap();
    m.clear_in_place();
    assert_eq!(touched(&m), 0);
}
