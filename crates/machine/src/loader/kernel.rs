//! What is in a kernel's or firmware's file: its header, or what it is in place of one.

use super::error::FileProblem;
use super::{Program, Segment, le_u16, le_u32, le_u64};
use crate::image::ImageKind;
use twinvm_mem::RAM_BASE;

/// Linux Images load at a multiple of this (Documentation/arch/riscv/boot.rst).
const IMAGE_ALIGN: u64 = 2 << 20;

/// Where a kernel without any header goes, as on QEMU's virt board.
const RAW_PA: u64 = RAM_BASE + IMAGE_ALIGN;

/// What a kernel that is no ELF file asks for: a Linux Image, or the bytes for [`RAW_PA`].
/// `kernel` is the file's beginning.
pub(super) fn parse(kernel: &[u8], file_bytes: u64) -> Result<Program, FileProblem> {
    if kernel.get(56..60) == Some(b"RSC\x05") {
        return parse_image(kernel, file_bytes);
    }
    match not_a_kernel(kernel) {
        Some(problem) => Err(problem),
        None => Ok(raw(ImageKind::Kernel, RAW_PA, file_bytes)),
    }
}

/// Firmware that is no ELF file: the bytes for the start of RAM.
pub(super) fn parse_firmware(file: &[u8], file_bytes: u64) -> Result<Program, FileProblem> {
    // A reset vector never looks like this.
    if let Some(problem) = compressed(file) {
        return Err(problem);
    }
    Ok(raw(ImageKind::Firmware, RAM_BASE, file_bytes))
}

/// A file of nothing but what is to lie at `pa`, its first instruction first.
fn raw(image: ImageKind, pa: u64, file_bytes: u64) -> Program {
    let segment = Segment {
        image,
        pa,
        range: 0..file_bytes as usize,
        ram_bytes: file_bytes,
    };
    Program {
        entry: pa,
        segments: vec![segment],
    }
}

/// Whether this is a compressed file, and how.
fn compressed(bytes: &[u8]) -> Option<FileProblem> {
    let (format, tool) = if bytes.starts_with(&[0x1f, 0x8b]) {
        ("gzip", "gunzip")
    } else if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        ("zstd", "unzstd")
    } else if bytes.starts_with(b"\xfd7zXZ\0") {
        ("xz", "unxz")
    } else if bytes.starts_with(b"MZ") && bytes.get(4..8) == Some(b"zimg") {
        (
            "EFI zboot",
            "the Image that it was made from, in place of it",
        )
    } else {
        return None;
    };
    Some(FileProblem::Compressed { format, tool })
}

/// Names what was given in place of a kernel, as far as it can be told; `None` if it may be code.
fn not_a_kernel(bytes: &[u8]) -> Option<FileProblem> {
    if let Some(problem) = compressed(bytes) {
        return Some(problem);
    }
    // The Linux/x86 boot protocol's signature.
    if bytes.get(0x202..0x206) == Some(b"HdrS") {
        return Some(FileProblem::WrongMachine("x86 (a bzImage)".to_owned()));
    }
    if bytes.get(56..60) == Some(b"ARM\x64") {
        return Some(FileProblem::WrongMachine("arm64 (an Image)".to_owned()));
    }
    // What starts like an Image but ends inside its header.
    if bytes.len() < IMAGE_HEADER_BYTES && bytes.starts_with(b"MZ") {
        return Some(FileProblem::Truncated {
            have: bytes.len() as u64,
            need: IMAGE_HEADER_BYTES as u64,
        });
    }
    // A text, an initial RAM disk (cpio) or a device tree: what the other options take.
    let start = &bytes[..bytes.len().min(IMAGE_HEADER_BYTES)];
    let text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    let other = start.iter().all(text) || bytes.starts_with(&FDT_MAGIC);
    other.then_some(FileProblem::Unknown)
}

const IMAGE_HEADER_BYTES: usize = 64;
const FDT_MAGIC: [u8; 4] = [0xd0, 0x0d, 0xfe, 0xed];
const IMAGE_BIG_ENDIAN: u64 = 1;

fn parse_image(kernel: &[u8], have: u64) -> Result<Program, FileProblem> {
    let need = IMAGE_HEADER_BYTES as u64;
    let short = || FileProblem::Truncated { have, need };
    let text_offset = le_u64(kernel, 8).ok_or_else(short)?;
    let image_bytes = le_u64(kernel, 16).ok_or_else(short)?;
    let flags = le_u64(kernel, 24).ok_or_else(short)?;
    let pe_offset = le_u32(kernel, 60).ok_or_else(short)?;
    let header = |what: String| FileProblem::Header {
        header: "Image",
        what,
    };
    if flags & IMAGE_BIG_ENDIAN != 0 {
        return Err(header("big-endian kernels are not supported".to_owned()));
    }
    if !text_offset.is_multiple_of(IMAGE_ALIGN) {
        return Err(header(format!(
            "text offset {text_offset:#x} is no multiple of 2 MiB"
        )));
    }
    let pe_bytes = pe_file_bytes(kernel, pe_offset as usize);
    if let Some(need) = pe_bytes.filter(|need| *need > have) {
        return Err(FileProblem::Truncated { have, need });
    }
    let pa = RAM_BASE
        .checked_add(text_offset)
        .ok_or_else(|| header(format!("text offset {text_offset:#x} is not in RAM")))?;
    // The image size counts zeroed data after the file's end; very old kernels say 0.
    let segment = Segment {
        image: ImageKind::Kernel,
        pa,
        range: 0..have as usize,
        ram_bytes: image_bytes.max(have),
    };
    Ok(Program {
        entry: pa,
        segments: vec![segment],
    })
}

/// Where the last section of the EFI (PE) file around an Image ends: the only trace of how
/// long the file should be. `None` if there is no PE header.
fn pe_file_bytes(kernel: &[u8], at: usize) -> Option<u64> {
    const SECTION_BYTES: usize = 40;
    let pe = kernel.get(at..)?;
    if at < IMAGE_HEADER_BYTES || !pe.starts_with(b"PE\0\0") {
        return None;
    }
    let sections = usize::from(le_u16(pe, 6)?);
    let table = 24 + usize::from(le_u16(pe, 20)?);
    (0..sections)
        .map(|i| {
            let section = pe.get(table + i * SECTION_BYTES..)?;
            Some(u64::from(le_u32(section, 16)?) + u64::from(le_u32(section, 20)?))
        })
        .try_fold(0, |end: u64, section| Some(end.max(section?)))
}
