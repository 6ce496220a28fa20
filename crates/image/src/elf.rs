//! Which shared libraries a program asks for (ELF-64 little-endian, the dynamic section's
//! DT_NEEDED entries).

/// The sonames in a program or library, in file order; none for a static one.
///
/// # Errors
///
/// In words, for a file that is no 64-bit RISC-V ELF or whose tables point outside it.
pub(crate) fn needed(file: &[u8]) -> Result<Vec<String>, &'static str> {
    const RISCV: u16 = 243;
    const LOAD: u32 = 1;
    const DYNAMIC: u32 = 2;
    const DT_NULL: u64 = 0;
    const DT_NEEDED: u64 = 1;
    const DT_STRTAB: u64 = 5;
    const SHORT: &str = "an ELF table points outside the file";

    if !file.starts_with(b"\x7fELF\x02\x01") || half(file, 18) != Some(RISCV) {
        return Err("not a 64-bit RISC-V ELF file");
    }
    let table = long(file, 32).ok_or(SHORT)?;
    let (size, count) = half(file, 54).zip(half(file, 56)).ok_or(SHORT)?;
    let mut loads = Vec::new();
    let mut dynamic = None;
    for index in 0..u64::from(count) {
        let at = table
            .checked_add(index * u64::from(size))
            .and_then(|at| usize::try_from(at).ok())
            .ok_or(SHORT)?;
        let kind = word(file, at).ok_or(SHORT)?;
        let field = |offset: usize| at.checked_add(offset).and_then(|at| long(file, at));
        let (offset, address, length) = field(8)
            .zip(field(16))
            .zip(field(32))
            .map(|((offset, address), length)| (offset, address, length))
            .ok_or(SHORT)?;
        match kind {
            LOAD => loads.push((offset, address, length)),
            DYNAMIC => dynamic = Some((offset, length)),
            _ => {}
        }
    }
    let Some((start, length)) = dynamic else {
        return Ok(Vec::new());
    };
    let section = slice(file, start, length).ok_or(SHORT)?;
    let entries: Vec<(u64, u64)> = section
        .chunks_exact(16)
        .filter_map(|entry| long(entry, 0).zip(long(entry, 8)))
        .take_while(|(tag, _)| *tag != DT_NULL)
        .collect();
    let strings = entries
        .iter()
        .find(|(tag, _)| *tag == DT_STRTAB)
        .and_then(|(_, address)| {
            loads.iter().find_map(|(offset, start, length)| {
                let inside = address.checked_sub(*start).filter(|at| at < length)?;
                offset.checked_add(inside)
            })
        })
        .ok_or(SHORT)?;
    entries
        .iter()
        .filter(|(tag, _)| *tag == DT_NEEDED)
        .map(|(_, at)| {
            let from = strings.checked_add(*at).ok_or(SHORT)?;
            let bytes = usize::try_from(from)
                .ok()
                .and_then(|from| file.get(from..))
                .ok_or(SHORT)?;
            let end = bytes.iter().position(|byte| *byte == 0).ok_or(SHORT)?;
            Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
        })
        .collect()
}

fn slice(file: &[u8], start: u64, length: u64) -> Option<&[u8]> {
    let end = start.checked_add(length)?;
    file.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

fn bytes<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..)?.first_chunk().copied()
}

fn half(file: &[u8], at: usize) -> Option<u16> {
    bytes(file, at).map(u16::from_le_bytes)
}

fn word(file: &[u8], at: usize) -> Option<u32> {
    bytes(file, at).map(u32::from_le_bytes)
}

fn long(file: &[u8], at: usize) -> Option<u64> {
    bytes(file, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests;
