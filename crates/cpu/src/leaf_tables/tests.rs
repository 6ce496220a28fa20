use super::*;

#[test]
fn tables_are_known_for_what_they_map_until_a_part_of_it_goes() {
    const MAPPED: u64 = 1 << REACH;
    let mut tables = LeafTables::NONE;
    let high = 0xffff_ffff_ffe0_0000;
    for va in [0, 5 * MAPPED + 0x3000, high] {
        assert_eq!(tables.get(va), None);
        tables.set(va, 0x8000_0000 + (va & 0xf000));
    }
    assert_eq!(tables.get(5 * MAPPED), Some(0x8000_3000));
    assert_eq!(tables.get(6 * MAPPED - 1), Some(0x8000_3000));
    assert_eq!(tables.get(6 * MAPPED), None);
    assert_eq!(tables.get(u64::MAX), Some(0x8000_0000));
    // Another with the same index takes the place.
    tables.set(5 * MAPPED + TABLES as u64 * MAPPED, 0x9000_0000);
    assert_eq!(tables.get(5 * MAPPED), None);
    tables.set(5 * MAPPED, 0x8000_3000);
    tables.drop_range(6 * MAPPED, 1 << 30);
    tables.drop_range(4 * MAPPED, MAPPED);
    assert_eq!(tables.get(5 * MAPPED), Some(0x8000_3000));
    tables.drop_range(5 * MAPPED + 0x5000, 0x1000);
    assert_eq!(tables.get(5 * MAPPED), None);
    assert_eq!(tables.get(0), Some(0x8000_0000));
    tables.drop_range(high, MAPPED);
    assert_eq!(tables.get(high), None);
    tables.clear();
    assert_eq!(tables.get(0), None);
}
