//! 64-bit RISC-V ELF files (System V ABI, chapters 4 and 5): their segments, and single
//! symbols for test programs that report through memory.

use super::error::FileProblem;
use super::{MAX_SEGMENTS, Program, Segment, le_u16, le_u32, le_u64};
use crate::image::ImageKind;
use twinvm_mem::RAM_BASE;

/// How every ELF file starts.
pub(super) const MAGIC: &[u8] = b"\x7fELF";

const HEADER_BYTES: usize = 64;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const TYPE_EXEC: u16 = 2;
const TYPE_DYN: u16 = 3;
const MACHINE_X86: u16 = 3;
const MACHINE_X86_64: u16 = 62;
const MACHINE_AARCH64: u16 = 183;
const MACHINE_RISCV: u16 = 243;
const SEGMENT_LOAD: u32 = 1;
const PROGRAM_HEADER_BYTES: usize = 56;
const SECTION_HEADER_BYTES: usize = 64;
const SECTION_SYMTAB: u32 = 2;
const SYMBOL_BYTES: usize = 24;
const SYMBOL_UNDEFINED: u16 = 0;

fn header(what: impl Into<String>) -> FileProblem {
    FileProblem::Header {
        header: "ELF",
        what: what.into(),
    }
}

/// Reads the segments of `file`, which starts with [`MAGIC`]. Position-independent firmware is
/// placed at the start of RAM.
pub(super) fn parse(image: ImageKind, file: &[u8]) -> Result<Program, FileProblem> {
    let have = file.len() as u64;
    let cut = |need: u64| FileProblem::Truncated { have, need };
    if file.len() < HEADER_BYTES {
        return Err(cut(HEADER_BYTES as u64));
    }
    let short = || cut(HEADER_BYTES as u64);
    // The machine first: it has the same place in every class and tells most.
    let machine = le_u16(file, 18).ok_or_else(short)?;
    let name = match machine {
        MACHINE_RISCV => None,
        MACHINE_X86 => Some("x86 (an ELF file)".to_owned()),
        MACHINE_X86_64 => Some("x86-64 (an ELF file)".to_owned()),
        MACHINE_AARCH64 => Some("arm64 (an ELF file)".to_owned()),
        other => Some(format!("another processor (ELF machine {other})")),
    };
    if let Some(name) = name {
        return Err(FileProblem::WrongMachine(name));
    }
    if file[4] != CLASS_64 {
        return Err(FileProblem::WrongMachine(
            "riscv32 (an ELF file)".to_owned(),
        ));
    }
    if file[5] != LITTLE_ENDIAN {
        return Err(header("big-endian files are not supported"));
    }
    let kind = le_u16(file, 16).ok_or_else(short)?;
    if kind != TYPE_EXEC && kind != TYPE_DYN {
        return Err(header(format!(
            "type {kind} is no executable: link it first"
        )));
    }
    let entry = le_u64(file, 24).ok_or_else(short)?;
    let table = le_u64(file, 32).ok_or_else(short)?;
    let entry_bytes = usize::from(le_u16(file, 54).ok_or_else(short)?);
    let count = usize::from(le_u16(file, 56).ok_or_else(short)?);
    if entry_bytes != PROGRAM_HEADER_BYTES {
        return Err(header(format!(
            "program headers of {entry_bytes} bytes, expected 56"
        )));
    }
    if count > MAX_SEGMENTS {
        return Err(header(format!(
            "{count} segments, allowed are {MAX_SEGMENTS}"
        )));
    }
    let table_end = table.saturating_add((count * PROGRAM_HEADER_BYTES) as u64);
    if table_end > have {
        return Err(cut(table_end));
    }
    let mut segments = Vec::new();
    let mut entry_pa = None;
    let headers = &file[table as usize..table_end as usize];
    for program in headers.chunks_exact(PROGRAM_HEADER_BYTES) {
        let field = |at| le_u64(program, at).ok_or_else(short);
        let (mut offset, mut va, mut pa) = (field(8)?, field(16)?, field(24)?);
        let (file_bytes, mut ram_bytes) = (field(32)?, field(40)?);
        if le_u32(program, 0) != Some(SEGMENT_LOAD) || ram_bytes == 0 {
            continue;
        }
        if file_bytes > ram_bytes {
            return Err(header("a segment is longer in the file than in memory"));
        }
        let end = offset.saturating_add(file_bytes);
        if end > have {
            return Err(cut(end));
        }
        if pa.checked_add(ram_bytes).is_none() {
            return Err(header(format!(
                "segment at {pa:#x} runs past the last address"
            )));
        }
        // Linked with -Ttext=0x80000000, the ELF header itself is in the page before RAM. Nobody
        // misses it, and on QEMU's virt board such programs run.
        let below = RAM_BASE.saturating_sub(pa);
        if offset == 0 && below > 0 && below < ram_bytes {
            offset = below.min(file_bytes);
            (va, pa, ram_bytes) = (va.wrapping_add(below), RAM_BASE, ram_bytes - below);
        }
        // The entry is a virtual address; the hart starts without translation.
        if let Some(inside) = entry.checked_sub(va).filter(|inside| *inside < ram_bytes) {
            entry_pa = entry_pa.or(Some(pa + inside));
        }
        let range = offset as usize..end as usize;
        segments.push(Segment {
            image,
            pa,
            range,
            ram_bytes,
        });
    }
    if segments.is_empty() {
        return Err(header("nothing to load"));
    }
    let mut entry = entry_pa.ok_or_else(|| header(format!("entry {entry:#x} is in no segment")))?;
    // Linked for any place, which OpenSBI's build writes as an offset from 0.
    let end = segments.iter().map(Segment::end).max().unwrap_or(0);
    if kind == TYPE_DYN && image == ImageKind::Firmware && end <= RAM_BASE {
        entry += RAM_BASE;
        for segment in &mut segments {
            segment.pa += RAM_BASE;
        }
    }
    Ok(Program { entry, segments })
}

/// The value of the defined symbol `name` in an ELF file, such as `tohost` or
/// `begin_signature` in a test program; `None` if there is none, or no ELF file.
#[must_use]
pub fn symbol(file: &[u8], name: &str) -> Option<u64> {
    if !file.starts_with(MAGIC) || file.get(4) != Some(&CLASS_64) {
        return None;
    }
    let table = usize::try_from(le_u64(file, 40)?).ok()?;
    let count = usize::from(le_u16(file, 60)?);
    let section = |index: usize| {
        let at = table.checked_add(index.checked_mul(SECTION_HEADER_BYTES)?)?;
        file.get(at..)?.get(..SECTION_HEADER_BYTES)
    };
    let content = |section: &[u8]| {
        let at = usize::try_from(le_u64(section, 24)?).ok()?;
        let len = usize::try_from(le_u64(section, 32)?).ok()?;
        file.get(at..)?.get(..len)
    };
    let symtab = (0..count)
        .filter_map(section)
        .find(|section| le_u32(section, 4) == Some(SECTION_SYMTAB))?;
    let strings = content(section(le_u32(symtab, 40)? as usize)?)?;
    content(symtab)?
        .chunks_exact(SYMBOL_BYTES)
        .find_map(|symbol| {
            let text = strings.get(le_u32(symbol, 0)? as usize..)?;
            let rest = text.strip_prefix(name.as_bytes())?;
            let defined = le_u16(symbol, 6)? != SYMBOL_UNDEFINED;
            (rest.first() == Some(&0) && defined).then_some(le_u64(symbol, 8)?)
        })
}
