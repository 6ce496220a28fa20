//! Random numbers from the kernel: node ids, incarnations, session ids.

use std::io;

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

/// 128 random bits.
///
/// Fails only where the kernel has no `getrandom` (Linux before 3.17, or forbidden by a
/// sandbox).
pub fn random_u128() -> io::Result<u128> {
    let mut bytes = [0u8; 16];
    fill_random(&mut bytes)?;
    Ok(u128::from_le_bytes(bytes))
}

/// Fills `bytes` with random bits; fails as [`random_u128`] does.
pub fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn numbers_differ() {
        let drawn: BTreeSet<u128> = (0..100).map(|_| super::random_u128().unwrap()).collect();
        assert_eq!(drawn.len(), 100);
    }
}
