use super::*;
use twinvm_mem::PAGE_BYTES;

fn taken(tags: &mut WriteTags, page: u32) -> Option<Vec<usize>> {
    Some(tags.take(page)?.collect())
}

#[test]
fn two_places_of_a_page_are_noted_and_more_are_anywhere() {
    let mem = Memory::new(8 * PAGE_BYTES as u64).unwrap();
    let mut tags = WriteTags::default();
    assert!(tags.take(3).is_none(), "nothing is known yet");
    let [zero, one, two] = [0, 0x1000, 0x2000];
    tags.note(&mem, 3, zero);
    assert_eq!(taken(&mut tags, 2), Some(vec![]));
    assert_eq!(taken(&mut tags, 3), Some(vec![data_index(zero)]));
    assert_eq!(taken(&mut tags, 3), Some(vec![]));
    for va in [one, two, one, two] {
        tags.note(&mem, 3, va);
    }
    assert_eq!(
        taken(&mut tags, 3),
        Some(vec![data_index(one), data_index(two)])
    );
    for va in [zero, one, two, one] {
        tags.note(&mem, 3, va);
    }
    assert_eq!(taken(&mut tags, 3), None);
    assert_eq!(taken(&mut tags, 3), Some(vec![]));
    tags.note(&mem, 8, zero);
    assert_eq!(taken(&mut tags, 8), None);
}
