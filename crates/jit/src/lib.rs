//! The second engine: translates hot blocks to code of the host's processor.
//!
//! One pass over a block's decoded instructions, no intermediate form: a template per
//! instruction, nine guest registers fixed to host registers (a block that is a loop
//! chooses others while it lasts), the budget of steps in another, address translation
//! inline. Three things are looked at ahead of the templates: which accesses lie so near
//! to each other that one check does for all, which sign extensions nobody wants, and
//! which registers a loop uses. Whatever has no template is interpreted, one
//! instruction at a time ([`twinvm_cpu::tier::Window::interpret`]); so is every access
//! that the inline translation refuses. Floating point is the host's wherever that is
//! the same to the bit and to the flag, in registers of the host from a block's first
//! such instruction until the interpreter has its turn. It is exact: all registers, pc
//! and step count are true wherever the run loop looks.
//!
//! Translations are of physical pages and know no virtual address: the address of the
//! page they run in is a variable. So processes that map the same file share them,
//! wherever each has it. Jumps within a page go directly; a jump to another page is
//! joined to its target by a piece of code that checks that the target's page is
//! still where it was. A return goes to where its call was noted, other indirect jumps
//! through a table of blocks by physical address. Invalidation is the run loop's: a
//! store to translated code is interpreted (its page has no write tag), which leaves.
//!
//! On hosts without a backend [`tier`] gives nothing and the interpreter does it all.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod buffer;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod x86_64;

use twinvm_cpu::tier::Tier;

/// Entries after which a block is translated; the help of `twinvm run` says so.
pub const HOT_AT: u8 = 8;

/// Of the guest's RAM above so many bytes, translated code may take this part.
const SMALL_RAM_BYTES: u64 = 216 << 20;
/// See [`SMALL_RAM_BYTES`].
const RAM_PER_CODE: u64 = 5;
/// Least and most bytes of code that are kept, whatever the RAM.
const CODE_BYTES: [u64; 2] = [4 << 20, 64 << 20];

/// No memory for code.
#[derive(Debug, thiserror::Error)]
#[error("no memory for translated code: {0}; --engine interp does without")]
pub struct NoCodeMemory(#[from] std::io::Error);

/// The second engine for this host and a guest with so much RAM, in bytes; `None` if
/// there is no backend for its processor. The code that it keeps takes 4 to 64 MiB, by
/// the RAM; when that is full it begins anew.
pub fn tier(ram_bytes: u64) -> Result<Option<Box<dyn Tier>>, NoCodeMemory> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        let [least, most] = CODE_BYTES;
        let code_bytes =
            (ram_bytes.saturating_sub(SMALL_RAM_BYTES) / RAM_PER_CODE).clamp(least, most) as usize;
        Ok(Some(Box::new(x86_64::Translator::new(code_bytes)?)))
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    {
        let _ = ram_bytes;
        Ok(None)
    }
}
