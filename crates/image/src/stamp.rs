//! The stamp of a finished build: the last file to appear. While it is there and agrees with the
//! lock, the outputs need only be verified.

use std::fs;
use std::path::Path;

use crate::Sha256;
use crate::lock::Lock;

/// Its name in the output folder.
pub(crate) const FILE: &str = ".stamp";

/// What the stamp of this lock and recipe says.
pub(crate) fn text(lock: &Lock, recipe: Sha256) -> String {
    let inputs = Sha256::of_parts([lock.to_string().as_bytes(), &recipe.0]);
    format!("{inputs}\n")
}

/// Whether the folder holds a finished build of this lock and recipe, its files unchanged.
pub(crate) fn is_current(out: &Path, lock: &Lock, recipe: Sha256) -> bool {
    lock.recipe == recipe
        && fs::read_to_string(out.join(FILE)).is_ok_and(|found| found == text(lock, recipe))
        && lock.outputs.iter().all(|output| {
            let path = out.join(&output.name);
            let right_size = fs::metadata(&path).is_ok_and(|file| file.len() == output.size_bytes);
            right_size && Sha256::of_file(&path).is_ok_and(|(found, _)| found == output.sha256)
        })
}

#[cfg(test)]
mod tests;
