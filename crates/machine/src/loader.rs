//! Where firmware, kernel, initial RAM disk and device tree go in RAM.
//!
//! ```text
//! RAM_BASE                                                                top of RAM
//! |  firmware  |  kernel (Image at its text offset, ELF where it says) ...  initrd | device tree |
//! ```
//!
//! The device tree has the last place that is aligned to 2 MiB (as QEMU does it), the initial RAM
//! disk ends on the page below. With firmware that place is below 3 GiB where all else fits there
//! too: QEMU puts it there, and firmware for its board may not map more. Nothing is copied here: the
//! plan says what the machine copies at power-on and at each reset.

mod elf;
mod error;
mod kernel;

use std::ops::Range;

use twinvm_mem::{PAGE_BYTES, RAM_BASE};

use crate::fdt::MAX_FDT_BYTES;
use crate::image::{ImageKind, Images};

pub use elf::symbol;
pub use error::{FileProblem, LoadError};

/// The most loadable segments in a file; bounds the work that a file of headers can ask for.
const MAX_SEGMENTS: usize = 64;

/// Alignment of the device tree: Linux maps it before its real page tables exist, in pieces
/// of this size.
const FDT_ALIGN: u64 = 2 << 20;
/// With firmware, the device tree goes below this address if it can.
const LOW_END: u64 = 3 << 30;
const PAGE: u64 = PAGE_BYTES as u64;
const MIB: u64 = 1 << 20;

/// What goes where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadPlan {
    /// Physical address of the first instruction: the firmware's if there is any, else the
    /// kernel's.
    pub(crate) entry: u64,
    /// With firmware: where the kernel that it is to start begins, if there is one.
    pub(crate) next: Option<u64>,
    /// Parts of firmware and kernel. All lie in RAM.
    pub(crate) segments: Vec<Segment>,
    /// Where the initial RAM disk starts and ends. It starts on a page.
    pub(crate) initrd: Option<(u64, u64)>,
    /// Where the device tree starts; [`MAX_FDT_BYTES`] are free from there.
    pub(crate) fdt_addr: u64,
}

/// A part of a file and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The file.
    pub(crate) image: ImageKind,
    /// Physical address of the first byte.
    pub(crate) pa: u64,
    /// The bytes, as a range of the file.
    pub(crate) range: Range<usize>,
    /// Bytes that the segment takes in RAM; those after the file's are zero.
    pub(crate) ram_bytes: u64,
}

impl Segment {
    fn end(&self) -> u64 {
        self.pa.saturating_add(self.ram_bytes)
    }
}

/// What a file's header asks for.
struct Program {
    entry: u64,
    segments: Vec<Segment>,
}

/// Finds out what the files are and where they and the device tree go in `ram_bytes` of RAM.
///
/// A kernel is a RISC-V Linux Image (Linux Documentation/arch/riscv/boot-image-header.rst),
/// a 64-bit little-endian RISC-V ELF executable, or the code for 0x80200000. Firmware is such an
/// ELF file, or whatever else is to lie at the start of RAM. All files may be hostile.
///
/// # Errors
/// [`LoadError`], with what to do about it.
pub(crate) fn plan(images: &Images, ram_bytes: u64) -> Result<LoadPlan, LoadError> {
    let parse = |image: ImageKind, parse: fn(&[u8], u64) -> Result<Program, FileProblem>| {
        let wrap = |problem| LoadError::File { image, problem };
        images
            .len(image)
            .map(|len| parse_file(images, image, len, parse).map_err(wrap))
            .transpose()
    };
    let firmware = parse(ImageKind::Firmware, kernel::parse_firmware)?;
    let kernel = parse(ImageKind::Kernel, kernel::parse)?;
    let with_firmware = firmware.is_some();
    let (entry, next) = match (&firmware, &kernel) {
        (Some(firmware), kernel) => (firmware.entry, kernel.as_ref().map(|kernel| kernel.entry)),
        (None, Some(kernel)) => (kernel.entry, None),
        (None, None) => return Err(LoadError::Nothing),
    };
    if let (Some(firmware), Some(kernel)) = (&firmware, &kernel) {
        check_overlap(firmware, kernel)?;
    }
    let segments: Vec<Segment> = [firmware, kernel]
        .into_iter()
        .flatten()
        .flat_map(|program| program.segments)
        .collect();
    let space = Space::new(&segments, ram_bytes)?;
    let initrd_bytes = match images.len(ImageKind::Initrd) {
        Some(0) => {
            return Err(LoadError::File {
                image: ImageKind::Initrd,
                problem: FileProblem::Empty,
            });
        }
        initrd => initrd,
    };
    let low = ram_bytes.min(LOW_END - RAM_BASE);
    let places = match space.places(low, initrd_bytes) {
        Ok(places) if with_firmware => places,
        _ => space.places(ram_bytes, initrd_bytes)?,
    };
    Ok(LoadPlan {
        entry,
        next,
        segments,
        initrd: places.initrd,
        fdt_addr: places.fdt,
    })
}

/// What a program's file asks for. An ELF file is read as a whole; of all others the beginning
/// is enough.
fn parse_file(
    images: &Images,
    kind: ImageKind,
    len: u64,
    parse: fn(&[u8], u64) -> Result<Program, FileProblem>,
) -> Result<Program, FileProblem> {
    let head = images.pieces(kind).next().ok_or(FileProblem::Empty)?;
    if head.starts_with(elf::MAGIC) {
        return elf::parse(kind, &images.unpack(kind).unwrap_or_default());
    }
    parse(&head, len)
}

fn check_overlap(firmware: &Program, kernel: &Program) -> Result<(), LoadError> {
    for ours in &firmware.segments {
        for theirs in &kernel.segments {
            if ours.pa < theirs.end() && theirs.pa < ours.end() {
                return Err(LoadError::Overlap {
                    kernel: theirs.pa,
                    firmware: ours.pa,
                });
            }
        }
    }
    Ok(())
}

/// RAM with what boots in it.
struct Space {
    ram_bytes: u64,
    /// Bytes from the start of RAM to the end of what reaches the furthest.
    used_bytes: u64,
    /// Whose end that is.
    image: ImageKind,
}

/// Places in RAM, as physical addresses.
struct Places {
    fdt: u64,
    initrd: Option<(u64, u64)>,
}

impl Space {
    fn new(segments: &[Segment], ram_bytes: u64) -> Result<Self, LoadError> {
        let mut space = Self {
            ram_bytes,
            used_bytes: 0,
            image: ImageKind::Kernel,
        };
        for segment in segments {
            let offset = segment.pa.checked_sub(RAM_BASE).ok_or(LoadError::File {
                image: segment.image,
                problem: FileProblem::OutsideRam { pa: segment.pa },
            })?;
            let end = offset.saturating_add(segment.ram_bytes);
            if end >= space.used_bytes {
                (space.used_bytes, space.image) = (end, segment.image);
            }
        }
        Ok(space)
    }

    /// Finds places below `limit` bytes from the start of RAM.
    fn places(&self, limit: u64, initrd_bytes: Option<u64>) -> Result<Places, LoadError> {
        let need_mib = self.need_mib(initrd_bytes.unwrap_or(0));
        let (image, used_bytes, ram_bytes) = (self.image, self.used_bytes, self.ram_bytes);
        let too_small = LoadError::MemoryTooSmall {
            image,
            ram_bytes,
            used_bytes,
            need_mib,
        };
        let Some(fdt) = limit.checked_sub(MAX_FDT_BYTES) else {
            return Err(too_small);
        };
        let fdt = fdt - fdt % FDT_ALIGN;
        if used_bytes > fdt || RAM_BASE.checked_add(limit).is_none() {
            return Err(too_small);
        }
        let initrd = match initrd_bytes {
            None => None,
            Some(initrd_bytes) => {
                let start = fdt
                    .checked_sub(initrd_bytes)
                    .map(|start| start - start % PAGE)
                    .filter(|start| *start >= used_bytes)
                    .ok_or(LoadError::InitrdTooLarge {
                        initrd_bytes,
                        image,
                        used_bytes,
                        ram_bytes,
                        need_mib,
                    })?;
                Some((RAM_BASE + start, RAM_BASE + start + initrd_bytes))
            }
        };
        Ok(Places {
            fdt: RAM_BASE + fdt,
            initrd,
        })
    }

    /// Memory that would do, in MiB. Saturating: a hostile size ends as "too small".
    fn need_mib(&self, initrd_bytes: u64) -> u64 {
        let bytes = self
            .used_bytes
            .checked_next_multiple_of(PAGE)
            .and_then(|used| used.checked_add(initrd_bytes.checked_next_multiple_of(PAGE)?))
            .and_then(|used| {
                used.checked_next_multiple_of(FDT_ALIGN)?
                    .checked_add(MAX_FDT_BYTES)
            });
        bytes.unwrap_or(u64::MAX).div_ceil(MIB)
    }
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
