//! Bare programs as ELF files, made here (System V ABI, chapters 4 and 5).

/// An executable whose only segment is `words` at `pa`, with these symbols.
pub(crate) fn program(pa: u64, words: &[u32], symbols: &[(&str, u64)]) -> Vec<u8> {
    const CODE_AT: usize = 120;
    let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(CODE_AT, 0);
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &2u16.to_le_bytes());
    put(18, &243u16.to_le_bytes());
    put(24, &pa.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &1u16.to_le_bytes());
    // The one program header.
    put(64, &1u32.to_le_bytes());
    put(68, &7u32.to_le_bytes());
    let len = code.len() as u64;
    for (n, field) in [CODE_AT as u64, pa, pa, len, len, 4]
        .into_iter()
        .enumerate()
    {
        put(72 + 8 * n, &field.to_le_bytes());
    }
    file.extend_from_slice(&code);

    let mut strings = vec![0];
    let mut table = vec![0; 24];
    for (name, value) in symbols {
        table.extend_from_slice(&(strings.len() as u32).to_le_bytes());
        table.extend_from_slice(&[0, 0, 1, 0]);
        table.extend_from_slice(&value.to_le_bytes());
        table.extend_from_slice(&0u64.to_le_bytes());
        strings.extend_from_slice(name.as_bytes());
        strings.push(0);
    }
    let table_at = file.len() as u64;
    file.extend_from_slice(&table);
    let strings_at = file.len() as u64;
    file.extend_from_slice(&strings);
    let sections_at = file.len() as u64;
    let sections = [
        (0u32, 0, 0, 0u32),
        (2, table_at, table.len() as u64, 2),
        (3, strings_at, strings.len() as u64, 0),
    ];
    for (kind, at, len, link) in sections {
        let mut section = [0; 64];
        section[4..8].copy_from_slice(&kind.to_le_bytes());
        section[24..32].copy_from_slice(&at.to_le_bytes());
        section[32..40].copy_from_slice(&len.to_le_bytes());
        section[40..44].copy_from_slice(&link.to_le_bytes());
        file.extend_from_slice(&section);
    }
    file[40..48].copy_from_slice(&sections_at.to_le_bytes());
    file[60..62].copy_from_slice(&3u16.to_le_bytes());
    file
}
