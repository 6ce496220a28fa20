//! A large file that is written once, from its beginning to its end, while a guest computes.
//!
//! Through the host's page cache each page of it costs memory, which the host must find and
//! perhaps take from others, and a copy, all in the time of who writes; and hardly anybody reads
//! the file while it is there. So it is written past the cache (`O_DIRECT` of open(2)) where the
//! file system has that, in pieces and from memory that are aligned as it wants them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::create_private;

/// Offsets, lengths and addresses are multiples of it: no device asks for more than a page.
const ALIGN: usize = 4096;
/// Bytes that are written at one time.
const PIECE_BYTES: usize = 512 << 10;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct DirectFile {
    /// Through the cache: takes what `direct` doesn't.
    file: File,
    /// Past the cache, if there is such a way.
    direct: Option<File>,
    /// Its aligned part begins at `start` and has room for a piece.
    buffer: Vec<u8>,
    start: usize,
    /// Where in the file the aligned part belongs, a multiple of [`ALIGN`].
    at: u64,
    /// How much of the aligned part is filled.
    filled: usize,
}

impl DirectFile {
    /// Makes the file, which must not exist, and begins it: from now on it holds `head`.
    pub(super) fn create_new(path: &Path, head: &[u8]) -> io::Result<Self> {
        let file = create_private(path)?;
        file.write_all_at(head, 0)?;
        let direct = past_the_cache(path, &file);
        let mut file = Self::new(file, direct);
        file.append(head)?;
        Ok(file)
    }

    fn new(file: File, direct: Option<File>) -> Self {
        let buffer = vec![0; PIECE_BYTES + ALIGN];
        let start = buffer.as_ptr().align_offset(ALIGN);
        // Where the buffer can't be aligned there is no way past the cache.
        let aligned = start <= ALIGN;
        Self {
            file,
            direct: direct.filter(|_| aligned),
            buffer,
            start: if aligned { start } else { 0 },
            at: 0,
            filled: 0,
        }
    }

    /// Appends to the file.
    pub(super) fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE_BYTES - self.filled));
            self.buffer[self.start + self.filled..][..now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == PIECE_BYTES {
                self.write_filled()?;
            }
        }
        Ok(())
    }

    fn write_filled(&mut self) -> io::Result<()> {
        let piece = &self.buffer[self.start..][..self.filled];
        let blocks = piece.len() - piece.len() % ALIGN;
        let mut done = 0;
        while let Some(direct) = self.direct.as_ref().filter(|_| done < blocks) {
            match direct.write_at(&piece[done..blocks], self.at + done as u64) {
                Ok(count) if count > 0 && count % ALIGN == 0 => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Whatever it is: the other way does it, or says what is wrong.
                _ => self.direct = None,
            }
        }
        self.file
            .write_all_at(&piece[done..], self.at + done as u64)?;
        self.at += piece.len() as u64;
        self.filled = 0;
        Ok(())
    }

    /// Writes what was appended last, puts another `head` of the same length in place of the first
    /// one, and makes all of it durable.
    pub(super) fn finish(mut self, head: &[u8]) -> io::Result<()> {
        self.write_filled()?;
        self.file.write_all_at(head, 0)?;
        self.file.sync_all()
    }
}

/// The same file once more, past the cache. Whoever may rename in the folder may have put another
/// in its place meanwhile, and that one is not ours to write to.
fn past_the_cache(path: &Path, file: &File) -> Option<File> {
    let flags = OFlags::DIRECT | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let direct = OpenOptions::new()
        .write(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .ok()?;
    let id = |file: &File| file.metadata().map(|about| (about.dev(), about.ino())).ok();
    (id(&direct)? == id(file)?).then_some(direct)
}

#[cfg(test)]
mod tests;
