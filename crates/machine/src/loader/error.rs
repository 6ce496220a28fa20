//! Why a guest can't be loaded.

use super::MIB;
use crate::image::ImageKind;
use twinvm_mem::RAM_BASE;

/// Why a guest can't be loaded. Whoever chose the files or the memory size has to act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Neither a kernel nor firmware.
    #[error("nothing to boot: neither a kernel nor firmware")]
    Nothing,
    /// A file is not what it should be.
    #[error("the {image} {problem}")]
    File {
        /// The file at fault.
        image: ImageKind,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// What boots and the device tree don't fit.
    #[error(
        "memory is {}, the {image} needs {} and 64 KiB behind it, from a multiple of 2 MiB on, for the device tree: set memory = \"{need_mib}M\" or more",
        size(*.ram_bytes), size(*.used_bytes)
    )]
    MemoryTooSmall {
        /// The file that reaches the furthest.
        image: ImageKind,
        /// Size of RAM.
        ram_bytes: u64,
        /// Bytes from the start of RAM to its end.
        used_bytes: u64,
        /// Memory that would do, in MiB.
        need_mib: u64,
    },
    /// The initial RAM disk doesn't fit beside what boots.
    #[error(
        "the initrd doesn't fit: it has {}, the {image} takes {} and memory is {}: \
         set memory = \"{need_mib}M\" or more",
        size(*.initrd_bytes), size(*.used_bytes), size(*.ram_bytes)
    )]
    InitrdTooLarge {
        /// Size of the initial RAM disk.
        initrd_bytes: u64,
        /// The other file that reaches the furthest.
        image: ImageKind,
        /// Bytes from the start of RAM to its end.
        used_bytes: u64,
        /// Size of RAM.
        ram_bytes: u64,
        /// Memory that would do, in MiB.
        need_mib: u64,
    },
    /// Firmware and kernel want the same place.
    #[error(
        "the kernel's place {kernel:#x} lies in the firmware's segment from {firmware:#x} on: \
         link one of them for another address (a Linux Image goes to 0x80200000)"
    )]
    Overlap {
        /// Where the kernel's segment starts.
        kernel: u64,
        /// Where the firmware's segment starts.
        firmware: u64,
    },
}

impl LoadError {
    /// The file that has to change, if it is one.
    pub fn image(&self) -> Option<ImageKind> {
        match self {
            Self::Nothing => None,
            Self::File { image, .. } | Self::MemoryTooSmall { image, .. } => Some(*image),
            Self::InitrdTooLarge { .. } => Some(ImageKind::Initrd),
            Self::Overlap { .. } => Some(ImageKind::Kernel),
        }
    }
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileProblem {
    /// No content.
    #[error("file is empty: leave it out, or give one with content")]
    Empty,
    /// The file ends before what its headers promise.
    #[error("file is cut short: it has {have} bytes, its headers ask for {need}; copy it again")]
    Truncated {
        /// Bytes in the file.
        have: u64,
        /// Bytes that there should be.
        need: u64,
    },
    /// Made for another processor.
    #[error("is for {0}, this machine is riscv64: give a file for riscv64")]
    WrongMachine(String),
    /// A compressed file.
    #[error("is compressed ({format}): unpack it first, for instance with {tool}")]
    Compressed {
        /// How.
        format: &'static str,
        /// What unpacks it.
        tool: &'static str,
    },
    /// Neither an Image nor ELF, nor any code.
    #[error(
        "is neither a RISC-V Linux Image (\"RSC\\x05\" at byte 56) nor an ELF file nor a raw binary"
    )]
    Unknown,
    /// A device tree of another form.
    #[error("is no flattened device tree (0xd00dfeed at its start): make one with dtc -O dtb")]
    NoTree,
    /// More than there is room for.
    #[error("file has {have} bytes, and {most} are the most that fit")]
    TooLong {
        /// Bytes in the file.
        have: u64,
        /// Bytes that there may be.
        most: u64,
    },
    /// A header that can't be followed.
    #[error("has a bad {header} header: {what}")]
    Header {
        /// Which header.
        header: &'static str,
        /// What is wrong.
        what: String,
    },
    /// A segment that isn't in RAM at any size.
    #[error(
        "has a segment for physical address {pa:#x}, RAM starts at {RAM_BASE:#x}: \
         link it for RAM, or give the Image in place of vmlinux"
    )]
    OutsideRam {
        /// Where the segment wants to be.
        pa: u64,
    },
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
