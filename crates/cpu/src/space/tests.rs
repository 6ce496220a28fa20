use super::*;

const PAGE: u64 = PAGE_BYTES as u64;
/// Equal indices of fetch and of data entries.
const SAME: u64 = (LOW_PAGES as u64) << PAGE_SHIFT;

fn data(va: u64, store: bool) -> DataEntry {
    DataEntry::new(va, 0, 0, true, store)
}

#[test]
fn ranges_go_whether_few_or_many_pages_were_known() {
    for len in [PAGE << 9, PAGE << 18] {
        let mut tlb = DataTlb::new();
        for page in [0, 1, 511, 1 << 18] {
            tlb.set(
                0x40_0000 + page * PAGE,
                data(0x40_0000 + page * PAGE, page == 1),
            );
        }
        // That is of one index with the first, which went for it.
        tlb.set(0x40_0000, data(0x40_0000, false));
        tlb.set(0x4041_0000, data(0x4041_0000, false));
        tlb.drop_range(0x40_0000 & !(len - 1), len);
        for page in [0, 1, 511] {
            let entry = tlb.data(0x40_0000 + page * PAGE);
            assert!(entry.load == NO_TAG && entry.store == NO_TAG, "{page}");
        }
        assert_eq!(tlb.data(0x4041_0000).load, 0x4041_0000);
    }
}

#[test]
fn what_took_the_place_of_another_is_dropped_and_counted_once() {
    let mut tlb = DataTlb::new();
    let mut fetch = FetchTlb::new();
    for _ in 0..3 {
        for va in [0x10_0000, 0x10_0000 + SAME] {
            tlb.set(va, data(va, false));
            fetch.set_fetch(va, 1);
        }
    }
    let range = (0x10_0000 + SAME) & !((PAGE << 9) - 1);
    assert!(!fetch.drop_range(0, PAGE << 9));
    tlb.drop_range(0, PAGE << 9);
    assert_eq!(tlb.data(0x10_0000 + SAME).load, 0x10_0000 + SAME);
    assert!(fetch.drop_range(range, PAGE << 9));
    tlb.drop_range(range, PAGE << 9);
    assert_eq!(tlb.data(0x10_0000 + SAME).load, NO_TAG);
    assert!(!tlb.live.any(range, PAGE << 9) && !fetch.live.any(range, PAGE << 9));
    assert!(!fetch.drop_page(0x10_0000 + SAME));
    tlb.drop_page(0x10_0000 + SAME);
}

#[test]
fn returns_are_forgotten_with_a_range_whose_entries_others_took() {
    let mut fetch = FetchTlb::new();
    fetch.set_fetch(0x10_0000, 1);
    fetch.returns[5] = Return {
        pc: 0x10_000a,
        code: 77,
    };
    fetch.set_fetch(0x10_0000 + SAME, 2);
    assert!(!fetch.drop_range(0, PAGE << 9));
    assert_eq!(fetch.returns[5].pc, 0);
}
