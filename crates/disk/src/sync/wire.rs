//! The messages of a synchronization, and what of them is checked before anything is done.
//!
//! Their numbers are the places in the enums: new ones go to the end.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::SyncError;
use crate::track::BLOCK_BYTES;

/// Most bytes of a message.
pub const MAX_MESSAGE_BYTES: usize = 256 << 10;
/// Blocks with content in one message: they fit even if they don't become smaller.
pub(super) const MAX_BATCH_BLOCKS: u64 = 56;
/// Blocks that one message asks the hashes of.
pub(super) const MAX_ASK_BLOCKS: u64 = 4096;
/// Runs in one message that asks, and in one that answers or applies.
pub(super) const MAX_RUNS: usize = 4096;
/// Questions that wait for their answer.
pub(super) const MAX_ASKS: usize = 4;
/// Bytes of bits in one piece of the write-intent map.
pub(super) const MAX_INTENT_RUNS: usize = 8192;
/// Longest line that one side tells the other.
const MAX_LINE_BYTES: usize = 512;

/// Largest disk, 64 TiB: bounds the maps that a node makes because the other one says so.
pub(super) const MAX_DISK_BYTES: u64 = 1 << 46;

/// Version of these messages.
pub(super) const VERSION: u16 = 1;

/// What the live node says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ToJoiner {
    Begin {
        version: u16,
        vm: u128,
        epoch: u128,
        /// All blocks are compared; the joiner's maps aren't wanted.
        all: bool,
        disk_bytes: Vec<u64>,
    },
    Ask {
        disk: u8,
        runs: Vec<Run>,
    },
    Apply(Apply),
    End,
    Sorry {
        line: String,
    },
}

/// What the joining node says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ToLive {
    Hello {
        version: u16,
        mark: Option<HelloMark>,
        /// `None`: there is no file yet.
        disk_bytes: Vec<Option<u64>>,
    },
    /// Regions that it may have written.
    Intents {
        disk: u8,
        runs: Vec<Run>,
    },
    Ready,
    Hashes {
        runs: Vec<HashRun>,
    },
    /// Everything up to here is written, counted since the beginning.
    Ack {
        messages: u64,
        bytes: u64,
    },
    Stable,
    Sorry {
        line: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HelloMark {
    pub(super) vm: u128,
    pub(super) generation: u64,
    pub(super) consistent: bool,
    pub(super) epoch: u128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Apply {
    pub(super) disk: u8,
    /// Runs of blocks, and whether they are all zeros.
    pub(super) runs: Vec<(Run, bool)>,
    /// `data` is compressed (LZ4 block format).
    pub(super) packed: bool,
    /// The bytes of the runs with content, in their order.
    #[serde(with = "serde_bytes")]
    pub(super) data: Vec<u8>,
}

/// Hash of a block: the first half of its BLAKE3.
pub(super) type BlockHash = [u8; 16];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum HashRun {
    /// So many blocks of zeros.
    Zeros(u64),
    /// Blocks with content.
    Hashes(Vec<BlockHash>),
}

/// The hash of a block's bytes.
pub(super) fn block_hash(bytes: &[u8]) -> BlockHash {
    let mut half = BlockHash::default();
    half.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    half
}

/// Whether a block has no content.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    // In parts, so that the compiler takes many bytes at once.
    let mut parts = bytes.chunks(256);
    parts.all(|part| part.iter().fold(0, |any, byte| any | byte) == 0)
}

pub(super) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // Into memory, of plain data: it can't fail. An empty message is none to the other side.
    postcard::to_allocvec(message).unwrap_or_default()
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, SyncError> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(wrong(format!(
            "{} bytes, at most {MAX_MESSAGE_BYTES}",
            bytes.len()
        )));
    }
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(wrong("bytes behind its end")),
        Err(error) => Err(wrong(error.to_string())),
    }
}

pub(super) fn wrong(what: impl Into<String>) -> SyncError {
    SyncError::Peer(what.into())
}

/// A line of the other side's, fit to be shown.
pub(super) fn shown(line: &str) -> String {
    let end = line.floor_char_boundary(MAX_LINE_BYTES);
    line[..end]
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Runs from the other side: in order, apart, within the disk; how many there are in all.
pub(super) fn check_runs<'a>(
    runs: impl IntoIterator<Item = &'a Run>,
    limit: u64,
    most: u64,
) -> Result<u64, SyncError> {
    let (mut end, mut total) = (0, 0u64);
    for (n, run) in runs.into_iter().enumerate() {
        let next = run.first.checked_add(run.count);
        match next {
            Some(next) if n < MAX_RUNS.max(MAX_INTENT_RUNS) && run.count > 0 && next <= limit => {
                if run.first < end {
                    return Err(wrong("blocks out of order"));
                }
                end = next;
            }
            _ => return Err(wrong("blocks that the disk hasn't got")),
        }
        // Both are at most the limit, which is a disk's.
        total = total.saturating_add(run.count);
    }
    if total > most {
        return Err(wrong(format!("{total} blocks, at most {most}")));
    }
    Ok(total)
}

impl Apply {
    /// Checks it against a disk of `disk_bytes`, and unpacks the bytes.
    pub(super) fn check(&self, disk_bytes: u64) -> Result<Vec<u8>, SyncError> {
        let blocks = disk_bytes.div_ceil(BLOCK_BYTES);
        let mut content = 0;
        for (run, zeros) in &self.runs {
            check_runs([run], blocks, u64::MAX)?;
            if !zeros {
                let end = ((run.first + run.count) * BLOCK_BYTES).min(disk_bytes);
                content += end - run.first * BLOCK_BYTES;
                if content > MAX_BATCH_BLOCKS * BLOCK_BYTES {
                    return Err(wrong("more blocks than a message may have"));
                }
            }
        }
        if !self.packed {
            return match self.data.len() as u64 == content {
                true => Ok(self.data.clone()),
                false => Err(wrong("not as many bytes as its blocks have")),
            };
        }
        let mut data = vec![0; content as usize];
        match lz4_flex::block::decompress_into(&self.data, &mut data) {
            Ok(len) if len == data.len() => Ok(data),
            Ok(_) => Err(wrong("not as many bytes as its blocks have")),
            Err(error) => Err(wrong(error.to_string())),
        }
    }
}
