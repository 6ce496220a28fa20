use super::*;

fn executable(buffer: &CodeBuffer, offset: usize, len: usize) -> Vec<u8> {
    assert!(offset + len <= buffer.used());
    // SAFETY: code that was appended, which nobody writes meanwhile.
    unsafe { std::slice::from_raw_parts(buffer.executable.as_ptr().add(offset), len) }.to_vec()
}

#[test]
fn both_views_begin_a_huge_page_and_show_the_same() {
    let mut buffer = CodeBuffer::new(BUFFER_BYTES).unwrap();
    assert!(buffer.writable.as_ptr().align_offset(HUGE_BYTES) == 0);
    assert!(buffer.executable.as_ptr().align_offset(HUGE_BYTES) == 0);
    // Over the ends of small and of huge pages, whether or not the host gives huge ones.
    let piece: Vec<u8> = (0..100_003u32).map(|n| (n * 7) as u8).collect();
    for _ in 0..50 {
        assert!(buffer.append(&piece));
    }
    assert_eq!(buffer.huge, 0b111);
    for at in (0..50).map(|n| n * piece.len()) {
        assert_eq!(executable(&buffer, at, piece.len()), piece);
    }
    for at in [3, HUGE_BYTES - 2, 2 * HUGE_BYTES + 77] {
        buffer.patch(at, 0x0403_0201);
        assert_eq!(executable(&buffer, at, 4), [1, 2, 3, 4]);
    }
    buffer.truncate(5);
    assert!(buffer.append(&[9; 8]));
    assert_eq!(executable(&buffer, 4, 4), [2, 9, 9, 9]);
}

#[test]
fn a_small_buffer_asks_for_no_huge_pages() {
    let mut buffer = CodeBuffer::new(LEAST_HUGE - 1).unwrap();
    assert!(buffer.append(&[1; 100]));
    assert_eq!(buffer.huge, 0);
    assert!(!buffer.append(&vec![0; LEAST_HUGE - 100]));
}

#[test]
fn a_patch_of_what_is_there_writes_nothing() {
    let mut buffer = CodeBuffer::new(LEAST_HUGE - 1).unwrap();
    assert!(buffer.append(&[0; 100]));
    buffer.written.fill(0);
    buffer.written_pages = 0;
    buffer.patch(10, 0);
    assert_eq!(buffer.written_pages, 0);
    buffer.patch(10, 5);
    assert_eq!(buffer.written_pages, 1);
    assert_eq!(executable(&buffer, 9, 6), [0, 5, 0, 0, 0, 0]);
}

#[test]
fn written_pages_are_unmapped_in_time_and_keep_what_they_hold() {
    let mut buffer = CodeBuffer::new(LEAST_HUGE - 1).unwrap();
    for n in 0..3 * WRITTEN_PAGES {
        assert!(buffer.append(&[n as u8; PAGE_BYTES]));
        assert!(buffer.written_pages < 2 * WRITTEN_PAGES);
    }
    for n in 0..3 * WRITTEN_PAGES {
        assert_eq!(executable(&buffer, n * PAGE_BYTES, 2), [n as u8; 2]);
    }
}
