//! Where kernel, initial RAM disk and device tree go in RAM.
//!
//! ```text
//! RAM_BASE                                                      top of RAM
//! |  kernel (Image at its text offset, ELF where it says) ...  initrd | device tree |
//! ```
//!
//! The device tree has the last place that is aligned to 2 MiB (as QEMU does it), the initial RAM disk ends
//! on the page below. Nothing is copied here: the plan says what the machine copies at
//! power-on and at each reset.

mod elf;

use std::ops::Range;

use twinvm_mem::{PAGE_BYTES, RAM_BASE};

use crate::fdt::MAX_FDT_BYTES;

pub use elf::symbol;

/// The most loadable segments in a kernel; bounds the work that a file of headers can ask for.
pub const MAX_SEGMENTS: usize = 64;

/// Alignment of the device tree: Linux maps it before its real page tables exist, in pieces
/// of this size.
const FDT_ALIGN: u64 = 2 << 20;
/// Linux Images load at a multiple of this (Documentation/arch/riscv/boot.rst).
const IMAGE_ALIGN: u64 = 2 << 20;
const PAGE: u64 = PAGE_BYTES as u64;
const MIB: u64 = 1 << 20;

/// What goes where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadPlan {
    /// Physical address of the kernel's first instruction.
    pub entry: u64,
    /// Parts of the kernel file. All lie in RAM.
    pub segments: Vec<Segment>,
    /// Where the initial RAM disk starts and ends. It starts on a page.
    pub initrd: Option<(u64, u64)>,
    /// Where the device tree starts; [`MAX_FDT_BYTES`] are free from there.
    pub fdt_addr: u64,
}

/// A part of the kernel file and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Physical address of the first byte.
    pub pa: u64,
    /// The bytes, as a range of the kernel file.
    pub range: Range<usize>,
    /// Bytes that the segment takes in RAM; those after the file's are zero.
    pub ram_bytes: u64,
}

/// Why a guest can't be loaded. Whoever chose the files or the memory size has to act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// No kernel.
    #[error("the kernel file is empty")]
    Empty,
    /// The file ends before what its headers promise.
    #[error(
        "the kernel file is cut short: it has {have} bytes, its headers ask for {need}; copy it again"
    )]
    Truncated {
        /// Bytes in the file.
        have: u64,
        /// Bytes that there should be.
        need: u64,
    },
    /// A kernel for another processor.
    #[error("the kernel is for {0}, this machine is riscv64: give a riscv64 Image or ELF file")]
    WrongMachine(String),
    /// A compressed kernel.
    #[error("the kernel is compressed ({format}): unpack it first, for instance with {tool}")]
    Compressed {
        /// How.
        format: &'static str,
        /// What unpacks it.
        tool: &'static str,
    },
    /// Neither an Image nor ELF.
    #[error("the kernel is neither a RISC-V Linux Image (\"RSC\\x05\" at byte 56) nor an ELF file")]
    Unknown,
    /// A header that can't be followed.
    #[error("the kernel's {header} header: {what}")]
    Header {
        /// Which header.
        header: &'static str,
        /// What is wrong.
        what: String,
    },
    /// A segment that isn't in RAM at any size.
    #[error(
        "the kernel has a segment for physical address {pa:#x}, RAM starts at {RAM_BASE:#x}: \
         link it for RAM, or give the Image in place of vmlinux"
    )]
    OutsideRam {
        /// Where the segment wants to be.
        pa: u64,
    },
    /// Kernel and device tree don't fit.
    #[error(
        "memory is {}, the kernel needs {}: set memory = \"{need_mib}M\" or more",
        size(*.ram_bytes), size(*.kernel_bytes)
    )]
    MemoryTooSmall {
        /// Size of RAM.
        ram_bytes: u64,
        /// Bytes from the start of RAM to the kernel's end.
        kernel_bytes: u64,
        /// Memory that would do, in MiB.
        need_mib: u64,
    },
    /// The initial RAM disk doesn't fit beside the kernel.
    #[error(
        "the initrd doesn't fit: it has {}, the kernel takes {} and memory is {}: \
         set memory = \"{need_mib}M\" or more",
        size(*.initrd_bytes), size(*.kernel_bytes), size(*.ram_bytes)
    )]
    InitrdTooLarge {
        /// Size of the initial RAM disk.
        initrd_bytes: u64,
        /// Bytes from the start of RAM to the kernel's end.
        kernel_bytes: u64,
        /// Size of RAM.
        ram_bytes: u64,
        /// Memory that would do, in MiB.
        need_mib: u64,
    },
    /// An initial RAM disk without content.
    #[error("the initrd file is empty: leave initrd out, or give one with content")]
    EmptyInitrd,
}

/// A size for people: whole MiB where it is one, else bytes.
fn size(bytes: u64) -> String {
    if bytes >= MIB && bytes.is_multiple_of(MIB) {
        format!("{} MiB", bytes / MIB)
    } else if bytes >= MIB {
        format!("{:.1} MiB", bytes as f64 / MIB as f64)
    } else {
        format!("{bytes} bytes")
    }
}

/// Finds out what `kernel` is and where it, `initrd` and the device tree go in `ram_bytes` of
/// RAM.
///
/// A kernel is a RISC-V Linux Image (Linux Documentation/arch/riscv/boot-image-header.rst) or
/// a 64-bit little-endian RISC-V ELF executable. Both files may be hostile.
///
/// # Errors
/// [`LoadError`], with what to do about it.
pub fn plan(kernel: &[u8], initrd: Option<&[u8]>, ram_bytes: u64) -> Result<LoadPlan, LoadError> {
    let Kernel { entry, segments } = parse_kernel(kernel)?;
    let mut kernel_bytes = 0;
    for segment in &segments {
        let offset = segment
            .pa
            .checked_sub(RAM_BASE)
            .ok_or(LoadError::OutsideRam { pa: segment.pa })?;
        kernel_bytes = kernel_bytes.max(offset.saturating_add(segment.ram_bytes));
    }
    // Work on offsets from the start of RAM, saturating: a hostile size ends as "too small".
    let need_mib = |initrd_bytes: u64| {
        let bytes = kernel_bytes
            .checked_next_multiple_of(PAGE)
            .and_then(|kernel| kernel.checked_add(initrd_bytes.checked_next_multiple_of(PAGE)?))
            .and_then(|used| {
                used.checked_next_multiple_of(FDT_ALIGN)?
                    .checked_add(MAX_FDT_BYTES)
            });
        bytes.unwrap_or(u64::MAX).div_ceil(MIB)
    };
    let too_small = LoadError::MemoryTooSmall {
        ram_bytes,
        kernel_bytes,
        need_mib: need_mib(initrd.map_or(0, |initrd| initrd.len() as u64)),
    };
    let Some(fdt) = ram_bytes.checked_sub(MAX_FDT_BYTES) else {
        return Err(too_small);
    };
    let fdt = fdt - fdt % FDT_ALIGN;
    if kernel_bytes > fdt || RAM_BASE.checked_add(ram_bytes).is_none() {
        return Err(too_small);
    }
    let initrd = match initrd {
        None => None,
        Some([]) => return Err(LoadError::EmptyInitrd),
        Some(initrd) => {
            let initrd_bytes = initrd.len() as u64;
            let start = fdt
                .checked_sub(initrd_bytes)
                .map(|start| start - start % PAGE)
                .filter(|start| *start >= kernel_bytes)
                .ok_or(LoadError::InitrdTooLarge {
                    initrd_bytes,
                    kernel_bytes,
                    ram_bytes,
                    need_mib: need_mib(initrd_bytes),
                })?;
            Some((RAM_BASE + start, RAM_BASE + start + initrd_bytes))
        }
    };
    Ok(LoadPlan {
        entry,
        segments,
        initrd,
        fdt_addr: RAM_BASE + fdt,
    })
}

struct Kernel {
    entry: u64,
    segments: Vec<Segment>,
}

fn parse_kernel(kernel: &[u8]) -> Result<Kernel, LoadError> {
    if kernel.is_empty() {
        return Err(LoadError::Empty);
    }
    if kernel.starts_with(b"\x7fELF") {
        return elf::parse(kernel);
    }
    if kernel.get(56..60) == Some(b"RSC\x05") {
        return parse_image(kernel);
    }
    Err(not_a_kernel(kernel))
}

/// Names what was given in place of a kernel, as far as it can be told.
fn not_a_kernel(bytes: &[u8]) -> LoadError {
    let compressed = |format, tool| LoadError::Compressed { format, tool };
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return compressed("gzip", "gunzip");
    }
    if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return compressed("zstd", "unzstd");
    }
    if bytes.starts_with(b"\xfd7zXZ\0") {
        return compressed("xz", "unxz");
    }
    if bytes.starts_with(b"MZ") && bytes.get(4..8) == Some(b"zimg") {
        return compressed(
            "EFI zboot",
            "the Image that it was made from, in place of it",
        );
    }
    // The Linux/x86 boot protocol's signature.
    if bytes.get(0x202..0x206) == Some(b"HdrS") {
        return LoadError::WrongMachine("x86 (a bzImage)".to_owned());
    }
    if bytes.get(56..60) == Some(b"ARM\x64") {
        return LoadError::WrongMachine("arm64 (an Image)".to_owned());
    }
    // What starts like an Image but ends inside its header.
    if bytes.len() < IMAGE_HEADER_BYTES && bytes.starts_with(b"MZ") {
        return LoadError::Truncated {
            have: bytes.len() as u64,
            need: IMAGE_HEADER_BYTES as u64,
        };
    }
    LoadError::Unknown
}

const IMAGE_HEADER_BYTES: usize = 64;
const IMAGE_BIG_ENDIAN: u64 = 1;

fn parse_image(kernel: &[u8]) -> Result<Kernel, LoadError> {
    let have = kernel.len() as u64;
    let need = IMAGE_HEADER_BYTES as u64;
    let short = || LoadError::Truncated { have, need };
    let text_offset = le_u64(kernel, 8).ok_or_else(short)?;
    let image_bytes = le_u64(kernel, 16).ok_or_else(short)?;
    let flags = le_u64(kernel, 24).ok_or_else(short)?;
    let pe_offset = le_u32(kernel, 60).ok_or_else(short)?;
    let header = |what: String| LoadError::Header {
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
        return Err(LoadError::Truncated { have, need });
    }
    let pa = RAM_BASE
        .checked_add(text_offset)
        .ok_or_else(|| header(format!("text offset {text_offset:#x} is not in RAM")))?;
    // The image size counts zeroed data after the file's end; very old kernels say 0.
    let segment = Segment {
        pa,
        range: 0..kernel.len(),
        ram_bytes: image_bytes.max(have),
    };
    Ok(Kernel {
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

fn le<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn le_u16(bytes: &[u8], at: usize) -> Option<u16> {
    le(bytes, at).map(u16::from_le_bytes)
}

fn le_u32(bytes: &[u8], at: usize) -> Option<u32> {
    le(bytes, at).map(u32::from_le_bytes)
}

fn le_u64(bytes: &[u8], at: usize) -> Option<u64> {
    le(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests;
