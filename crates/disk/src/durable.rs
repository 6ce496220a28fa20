//! Files that are either the old ones or the new ones after a power failure.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Makes the names in `dir` durable.
///
/// # Errors
/// The system's.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Puts `bytes` into `dir/name`: a temporary file beside it, synced, renamed, the folder
/// synced. When this returns an error the file holds either the old or the new bytes.
///
/// # Errors
/// The system's.
pub fn replace_file(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    drop(file);
    if written.is_err() {
        // What room it has taken others may need.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    fs::rename(&temporary, dir.join(name))?;
    sync_dir(dir)
}

/// Whether an error says that there is no room left.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// Puts `bytes` in the place of a small file's, which takes no room where a file system overwrites
/// in place. After a power failure in the midst of it the file holds the old or the new bytes if
/// both are as long and lie in one sector; else it may hold parts of both, so whoever reads it must
/// be able to tell.
///
/// # Errors
/// The system's; the file may hold parts of both then.
pub fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()
}

/// The content of a file of at most `max` bytes; `None` if there is no such file. A longer
/// file is an error of kind `InvalidData`.
///
/// # Errors
/// The system's.
pub fn read_small(path: &Path, max: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("longer than the {max} bytes it can have"),
        ));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_what_was_longer_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for text in ["pending 10\n", "pending -\n", "pending 11\n"] {
            match path.exists() {
                true => overwrite(&path, text.as_bytes()).unwrap(),
                false => replace_file(dir.path(), "file", text.as_bytes()).unwrap(),
            }
            assert_eq!(read_small(&path, 64).unwrap().unwrap(), text.as_bytes());
        }
    }
}
