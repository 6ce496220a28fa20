//! The signature of an architecture test: what the test has left in memory, for comparison with
//! a reference (RISC-V Architecture Test format specification, "Test signature").

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use twinvm_config::VmConfig;
use twinvm_machine::loader::symbol;
use twinvm_machine::{ImageKind, Machine, MachineConfig, RAM_BASE};

const BEGIN: &str = "begin_signature";
const END: &str = "end_signature";
/// A line holds one word of this many bytes.
const WORD_BYTES: u64 = 4;

/// Why there is no signature.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignatureError {
    /// A symbol is missing.
    #[error(
        "--signature: {} has no symbol {symbol}: give an ELF file that defines {BEGIN} and {END}, \
         with its symbol table (not stripped)",
        file.display()
    )]
    NoSymbol {
        /// Where it was looked for.
        file: PathBuf,
        /// The symbol.
        symbol: &'static str,
    },
    /// The symbols make no range of words in RAM.
    #[error(
        "--signature: {}: {BEGIN} is {begin:#x} and {END} is {end:#x}: expected addresses in RAM, \
         both multiples of {WORD_BYTES}, the end not before the beginning",
        file.display()
    )]
    Range {
        /// The ELF file.
        file: PathBuf,
        /// Value of the first symbol.
        begin: u64,
        /// Value of the second.
        end: u64,
    },
    /// The file can't be written.
    #[error("signature {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Where a test leaves its signature, and where that is to be written.
pub(crate) struct Signature {
    path: PathBuf,
    begin: u64,
    bytes: usize,
}

impl Signature {
    /// Looks the symbols up in what the guest boots from: the firmware if there is any.
    pub(crate) fn find(
        path: &Path,
        vm: &VmConfig,
        config: &MachineConfig,
    ) -> Result<Self, SignatureError> {
        let (kind, file) = match &vm.firmware {
            Some(firmware) => (ImageKind::Firmware, Some(firmware)),
            None => (ImageKind::Kernel, vm.kernel.as_ref()),
        };
        let file = file.cloned().unwrap_or_default();
        let elf = config.images.unpack(kind).unwrap_or_default();
        let value = |name| {
            symbol(&elf, name).ok_or_else(|| SignatureError::NoSymbol {
                file: file.clone(),
                symbol: name,
            })
        };
        let (begin, end) = (value(BEGIN)?, value(END)?);
        let in_ram = begin >= RAM_BASE && end <= RAM_BASE.saturating_add(config.ram_bytes);
        let words = begin.is_multiple_of(WORD_BYTES) && end.is_multiple_of(WORD_BYTES);
        match end.checked_sub(begin).map(usize::try_from) {
            Some(Ok(bytes)) if in_ram && words => Ok(Self {
                path: path.to_owned(),
                begin,
                bytes,
            }),
            _ => Err(SignatureError::Range { file, begin, end }),
        }
    }

    /// Writes what is there now: a line of eight hexadecimal digits for each word, the lowest
    /// address first.
    pub(crate) fn write(&self, machine: &Machine) -> Result<(), SignatureError> {
        let memory = machine.ram(self.begin, self.bytes).unwrap_or_default();
        let (words, _) = memory.as_chunks();
        let mut text = String::with_capacity(words.len() * 9);
        for word in words {
            // Writing to a string doesn't fail.
            let _ = writeln!(text, "{:08x}", u32::from_le_bytes(*word));
        }
        fs::write(&self.path, text).map_err(|source| SignatureError::Write {
            path: self.path.clone(),
            source,
        })
    }
}
