//! Beside a recording's log: what was true at each of its digests.
//!
//! A digest says that two runs differ, not where. So the recording keeps, for each digest, the
//! state of harts and devices and the hashes of the pages that have changed since the digest
//! before, for a replay that fails there. Nothing else reads this file: a recording without it,
//! or with a damaged one, replays all the same.
//!
//! ```text
//! offset  bytes
//!      0      8  "twinvsta"
//!      8      4  version
//!     12         entries
//!
//! entry: 4  length of the content, n
//!        n  content: position (varint), icount (varint), digest (16), length of the state
//!           (varint), state, number of pages (varint), and for each page the distance of its
//!           number from the one after the page before (varint) and its hash (8)
//!        8  checksum of the content
//! ```

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use crate::recording::create_private;
use crate::varint::{Cursor, put};

/// Name of the file in a recording's directory.
pub const STATES_FILE: &str = "states";
/// The format written and understood by this crate.
pub const STATES_VERSION: u32 = 1;
/// The longest state that is kept; of a longer one (a disk's writes under way are part of it)
/// only the pages' hashes are.
pub const MAX_STATE_BYTES: usize = 4 << 20;
/// The longest content of an entry: every page of the largest RAM has changed.
const MAX_ENTRY_BYTES: usize = 256 << 20;

const MAGIC: &[u8; 8] = b"twinvsta";
/// A page takes at least this much.
const MIN_PAGE_BYTES: usize = 9;

/// What was true at one digest of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateEntry {
    /// Position of the digest's record.
    pub position: u64,
    /// Its step.
    pub icount: u64,
    /// The digest itself.
    pub digest: u128,
    /// Harts and devices, opaque here; empty if it was too long.
    pub state: Vec<u8>,
    /// Number and hash (its lower half) of each page that has changed since the entry before, in
    /// order; for the first entry, since the recording's beginning.
    pub pages: Vec<(u32, u64)>,
}

impl StateEntry {
    /// As it stands in the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut content = Vec::with_capacity(64 + self.state.len() + self.pages.len() * 10);
        put(&mut content, self.position);
        put(&mut content, self.icount);
        content.extend_from_slice(&self.digest.to_le_bytes());
        let state = match self.state.len() {
            0..=MAX_STATE_BYTES => &self.state[..],
            _ => &[],
        };
        put(&mut content, state.len() as u64);
        content.extend_from_slice(state);
        put(&mut content, self.pages.len() as u64);
        let mut next = 0;
        for (page, hash) in &self.pages {
            put(&mut content, u64::from(page.wrapping_sub(next)));
            content.extend_from_slice(&hash.to_le_bytes());
            next = page.wrapping_add(1);
        }
        let mut bytes = Vec::with_capacity(content.len() + 12);
        bytes.extend_from_slice(&(content.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&content);
        bytes.extend_from_slice(&xxh3_64(&content).to_le_bytes());
        bytes
    }

    fn decode(content: &[u8]) -> Result<Self, &'static str> {
        let mut cursor = Cursor::new(content);
        let position = cursor.varint()?;
        let icount = cursor.varint()?;
        let digest = u128::from_le_bytes(cursor.array()?);
        let state = cursor.bytes(MAX_STATE_BYTES)?;
        let count = cursor.varint()?;
        let room = (content.len() - cursor.at()) / MIN_PAGE_BYTES;
        if count > room as u64 {
            return Err("more pages than bytes");
        }
        let mut pages = Vec::with_capacity(count as usize);
        let mut next = Some(0u32);
        for _ in 0..count {
            let distance = u32::try_from(cursor.varint()?).ok();
            let page = next
                .zip(distance)
                .and_then(|(next, distance)| next.checked_add(distance))
                .ok_or("a page number above 32 bits")?;
            pages.push((page, u64::from_le_bytes(cursor.array()?)));
            next = page.checked_add(1);
        }
        if !cursor.is_empty() {
            return Err("bytes behind an entry's end");
        }
        Ok(Self {
            position,
            icount,
            digest,
            state,
            pages,
        })
    }
}

/// Writes the file. Whoever records goes on without it if that fails.
#[derive(Debug)]
pub struct StatesWriter {
    file: File,
}

impl StatesWriter {
    /// Makes the file in a recording's directory.
    ///
    /// # Errors
    /// What the host says; also if there is one.
    pub fn create(dir: &Path) -> io::Result<Self> {
        let mut file = create_private(&dir.join(STATES_FILE))?;
        file.write_all(MAGIC)?;
        file.write_all(&STATES_VERSION.to_le_bytes())?;
        Ok(Self { file })
    }

    /// Appends an entry; gives its length in bytes.
    ///
    /// # Errors
    /// What the host says.
    pub fn append(&mut self, entry: &StateEntry) -> io::Result<usize> {
        let bytes = entry.encode();
        self.file.write_all(&bytes)?;
        Ok(bytes.len())
    }
}

/// Why a file of states can't be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum StatesError {
    /// The host.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another file, or another version of it.
    #[error("not a file of states that this version reads (version {STATES_VERSION})")]
    Format,
    /// What is there is not what was written.
    #[error("damaged at byte {offset}: {what}")]
    Damaged {
        /// Where the entry begins.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// Reads the entries one after the other. An end inside an entry is an end: a run that was
/// killed leaves one. Behind damage nothing more is read.
#[derive(Debug)]
pub struct StatesReader<R> {
    input: R,
    offset: u64,
    over: bool,
}

impl StatesReader<BufReader<File>> {
    /// Opens the file in a recording's directory; `None` if the recording has none.
    ///
    /// # Errors
    /// [`StatesError`].
    pub fn open(dir: &Path) -> Result<Option<Self>, StatesError> {
        match File::open(dir.join(STATES_FILE)) {
            Ok(file) => Self::new(BufReader::new(file)).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl<R: Read> StatesReader<R> {
    /// Reads the head.
    ///
    /// # Errors
    /// [`StatesError::Format`] and [`StatesError::Io`].
    pub fn new(mut input: R) -> Result<Self, StatesError> {
        let mut head = Vec::new();
        (&mut input).take(12).read_to_end(&mut head)?;
        let rest = head.strip_prefix(MAGIC);
        if rest != Some(&STATES_VERSION.to_le_bytes()) {
            return Err(StatesError::Format);
        }
        Ok(Self {
            input,
            offset: 12,
            over: false,
        })
    }

    fn read(&mut self, bytes: usize) -> io::Result<Option<Vec<u8>>> {
        let mut read = Vec::new();
        // The file's own size, not the stated one, decides how much is allocated.
        (&mut self.input)
            .take(bytes as u64)
            .read_to_end(&mut read)?;
        Ok((read.len() == bytes).then_some(read))
    }

    fn entry(&mut self) -> Result<Option<StateEntry>, StatesError> {
        let offset = self.offset;
        let damaged = |what| StatesError::Damaged { offset, what };
        let Some(len) = self.read(4)? else {
            return Ok(None);
        };
        let len = u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize;
        if len > MAX_ENTRY_BYTES {
            return Err(damaged("an entry longer than any can be"));
        }
        let (Some(content), Some(sum)) = (self.read(len)?, self.read(8)?) else {
            return Ok(None);
        };
        if sum != xxh3_64(&content).to_le_bytes() {
            return Err(damaged("its checksum differs"));
        }
        self.offset += 12 + len as u64;
        StateEntry::decode(&content).map(Some).map_err(damaged)
    }
}

impl<R: Read> Iterator for StatesReader<R> {
    type Item = Result<StateEntry, StatesError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let entry = self.entry().transpose();
        self.over = !matches!(entry, Some(Ok(_)));
        entry
    }
}

#[cfg(test)]
mod tests;
