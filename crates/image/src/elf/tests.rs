use super::needed;

/// A file with one LOAD segment (file offset 0 at address 0x1000) and a dynamic section that
/// asks for liba.so and libb.so.
fn sample() -> Vec<u8> {
    let mut file = vec![0; 64];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[18] = 243;
    file[32] = 64; // program headers follow the file header
    file[54] = 56;
    file[56] = 2;
    let header = |kind: u32, offset: u64, address: u64, length: u64| {
        let mut header = Vec::new();
        header.extend(kind.to_le_bytes());
        header.extend(0u32.to_le_bytes());
        for field in [offset, address, address, length, length, 8] {
            header.extend(field.to_le_bytes());
        }
        header
    };
    file.extend(header(1, 0, 0x1000, 0x200));
    file.extend(header(2, 176, 0x1000 + 176, 80));
    for (tag, value) in [(1, 1), (5, 0x1000 + 256), (1, 9), (0, 0), (1, 9)] {
        file.extend(u64::to_le_bytes(tag));
        file.extend(u64::to_le_bytes(value));
    }
    file.extend(b"\0liba.so\0libb.so\0");
    file
}

#[test]
fn finds_the_libraries() {
    assert_eq!(needed(&sample()).unwrap(), ["liba.so", "libb.so"]);
}

#[test]
fn a_static_program_needs_none() {
    let mut file = sample();
    file[56] = 1;
    assert!(needed(&file).unwrap().is_empty());
}

#[test]
fn bad_files_are_errors() {
    assert!(needed(b"#!/bin/sh").is_err());
    let good = sample();
    for length in 0..good.len() {
        assert!(needed(&good[..length]).is_err(), "cut to {length}");
    }
    // Every byte of the tables set to its highest value: any answer, but no panic.
    for index in 0..good.len() {
        let mut bad = good.clone();
        bad[index] = 0xff;
        let _ = needed(&bad);
    }
}
