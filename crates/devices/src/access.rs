//! What an access to a device brings with it, and how it can fail.

/// The board has no register at this address, or not for this access size.
///
/// The hart turns it into a load or store access fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no device register answers an access of this size at this address")]
pub struct AccessFault;

/// Virtual time at the access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The machine timer in ticks of 100 ns (10 MHz).
    pub mtime: u64,
}

/// Reads `size` bytes of `bytes` from `offset` as a little-endian number; bytes past the end read
/// as zero.
pub(crate) fn read_le(bytes: &[u8], offset: u64, size: usize) -> u64 {
    let mut value = [0; 8];
    for (byte, address) in value.iter_mut().take(size).zip(offset..) {
        if let Some(found) = usize::try_from(address).ok().and_then(|i| bytes.get(i)) {
            *byte = *found;
        }
    }
    u64::from_le_bytes(value)
}

/// Reads a 64-bit register through an aligned window of 4 or 8 bytes at byte `offset` within it.
pub(crate) fn window_read(register: u64, offset: u64, size: usize) -> Result<u64, AccessFault> {
    match (size, offset) {
        (8, 0) => Ok(register),
        (4, 0) => Ok(register & 0xffff_ffff),
        (4, 4) => Ok(register >> 32),
        _ => Err(AccessFault),
    }
}

/// The register after `value` is written through an aligned window of 4 or 8 bytes at `offset`.
pub(crate) fn window_write(
    register: u64,
    offset: u64,
    size: usize,
    value: u64,
) -> Result<u64, AccessFault> {
    match (size, offset) {
        (8, 0) => Ok(value),
        (4, 0) => Ok(set_low(register, value as u32)),
        (4, 4) => Ok(set_high(register, value as u32)),
        _ => Err(AccessFault),
    }
}

/// `register` with its low 32 bits replaced.
pub(crate) fn set_low(register: u64, low: u32) -> u64 {
    (register & !0xffff_ffff) | u64::from(low)
}

/// `register` with its high 32 bits replaced.
pub(crate) fn set_high(register: u64, high: u32) -> u64 {
    (register & 0xffff_ffff) | (u64::from(high) << 32)
}
