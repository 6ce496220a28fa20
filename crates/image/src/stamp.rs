//! The stamp of a finished build: the last file to appear. While it is there and agrees with the
//! lock, the outputs need only be verified.

use std::fs;
use std::path::Path;

use crate::Sha256;
use crate::lock::Lock;

/// Its name in the output folder.
pub(crate) const FILE: &str = ".stamp";

/// What the stamp of this lock says. The recipe's digest is a line of the lock; what the builder
/// puts in of their own is not.
pub(crate) fn text(lock: &Lock, ssh_key: Option<&str>) -> String {
    let text = lock.to_string() + ssh_key.unwrap_or_default();
    format!("{}\n", Sha256::of(text.as_bytes()))
}

/// Whether the folder holds a finished build of this lock, its files unchanged.
pub(crate) fn is_current(out: &Path, lock: &Lock, ssh_key: Option<&str>) -> bool {
    fs::read_to_string(out.join(FILE)).is_ok_and(|found| found == text(lock, ssh_key))
        && lock.outputs.iter().all(|output| {
            let path = out.join(&output.name);
            let right_size = fs::metadata(&path).is_ok_and(|file| file.len() == output.size_bytes);
            right_size && Sha256::of_file(&path).is_ok_and(|(found, _)| found == output.sha256)
        })
}

#[cfg(test)]
mod tests;
