//! The extensions that the hart implements.

/// Names of the implemented extensions, as the device tree's
/// `riscv,isa-extensions` spells them, in canonical order (RISC-V Unprivileged
/// ISA, "ISA Extension Naming Conventions"): single letters, then those that
/// begin with z by category (i, m, a, f, d, c, b) and name, then those that
/// begin with s by name. An extension stands here if and only if it is there.
pub const EXTENSIONS: &[&str] = &[
    "i",
    "m",
    "a",
    "f",
    "d",
    "c",
    "zicbom",
    "zicboz",
    "zicntr",
    "zicond",
    "zicsr",
    "zifencei",
    "zihintpause",
    "zihpm",
    "zawrs",
    "zba",
    "zbb",
    "zbs",
    "sstc",
    "svadu",
    "svinval",
    "svnapot",
    "svvptc",
];

/// Bytes of a cache block, as cbo instructions see it (Zicbom, Zicboz).
pub const CACHE_BLOCK_BYTES: u64 = 64;

/// True if `name` is in [`EXTENSIONS`].
pub(crate) const fn implements(name: &str) -> bool {
    let mut n = 0;
    while n < EXTENSIONS.len() {
        let (one, other) = (EXTENSIONS[n].as_bytes(), name.as_bytes());
        let mut same = one.len() == other.len();
        let mut at = 0;
        while same && at < one.len() {
            same = one[at] == other[at];
            at += 1;
        }
        if same {
            return true;
        }
        n += 1;
    }
    false
}
