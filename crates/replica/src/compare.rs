//! What the two replicas say to each other when the backup has found a difference.
//!
//! The backup stands still at the record where it shows, acks nothing more, and asks. The live
//! node has gone on; it tells what it has kept of that record ([`Told`]), then page by page what
//! it knows of those that may differ ([`PageTold`]). At the end the backup says what it was.
//!
//! ```text
//! backup                                live
//!   Ask{position} -------------------->
//!          <--------------------------- Part…    (a Told)
//!   AskPage{position, page} ----------->
//!          <--------------------------- Page
//!   Found{text} ----------------------->
//! ```
//!
//! Each is a side message of the session. Its first byte says that it is about this
//! ([`SUBJECT`]), its second which word it is; neither is ever used for anything else.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// First byte of these messages.
const SUBJECT: u8 = 1;
const ASK: u8 = 1;
const PART: u8 = 2;
const LAST_PART: u8 = 3;
const ASK_PAGE: u8 = 4;
const PAGE: u8 = 5;
const FOUND: u8 = 6;

/// Bytes of one part: far below what a side message may have.
const PART_BYTES: usize = 256 << 10;
/// The longest [`Told`], encoded: hashes of 700,000 pages.
pub(crate) const MAX_TOLD_BYTES: usize = 8 << 20;
/// The longest text of what was found, in characters.
const MAX_TEXT: usize = 1024;

/// What was true on the live node at a record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// The record is a digest, and all of this is of its very step. Else the pages are those that
    /// were stored to since the digest before it, up to now.
    pub(crate) exact: bool,
    /// The digest.
    pub(crate) digest: u128,
    /// Harts and devices ([`twinvm_machine::MachineState`]); empty if not kept.
    pub(crate) state: Vec<u8>,
    /// Harts alone ([`twinvm_machine::RegisterState`]); empty if not kept.
    pub(crate) registers: Vec<u8>,
    /// The pages are told: a page that isn't among them was not stored to.
    pub(crate) whole: bool,
    /// Numbers from the start of RAM, and lower halves of hashes, in order.
    pub(crate) pages: Vec<(u32, u64)>,
}

impl Told {
    /// In parts, each a side message. What is too long is left out, the pages first.
    pub(crate) fn parts(mut self) -> Vec<Vec<u8>> {
        let mut bytes = encode(&self);
        if bytes.len() > MAX_TOLD_BYTES {
            (self.pages, self.whole) = (Vec::new(), false);
            bytes = encode(&self);
        }
        if bytes.len() > MAX_TOLD_BYTES {
            bytes = encode(&Self::default());
        }
        let mut parts: Vec<Vec<u8>> = bytes
            .chunks(PART_BYTES)
            .map(|part| [&[SUBJECT, PART], part].concat())
            .collect();
        if let Some(last) = parts.last_mut() {
            last[1] = LAST_PART;
        }
        parts
    }

    /// From the parts' bytes, one behind the other.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        decode(bytes)
    }
}

/// What is known of a page at a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PageTold {
    /// Its number from the start of RAM.
    pub(crate) page: u32,
    /// Lower half of its hash.
    pub(crate) hash: Option<u64>,
    /// Its content, if that is still the same.
    pub(crate) bytes: Option<Vec<u8>>,
}

/// One side message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    /// Backup: I differ at this record.
    Ask { position: u64 },
    /// Live: a part of a [`Told`].
    Part { bytes: Vec<u8>, last: bool },
    /// Backup: what do you know of this page at that record?
    AskPage { position: u64, page: u32 },
    /// Live: this.
    Page(PageTold),
    /// Backup: that is what differs.
    Found { text: String },
}

impl Word {
    pub(crate) fn encode(self) -> Vec<u8> {
        let (kind, rest) = match self {
            Self::Ask { position } => (ASK, encode(&position)),
            Self::Part { bytes, last } => (if last { LAST_PART } else { PART }, bytes),
            Self::AskPage { position, page } => (ASK_PAGE, encode(&(position, page))),
            Self::Page(told) => (PAGE, encode(&told)),
            Self::Found { text } => (FOUND, text.into_bytes()),
        };
        [&[SUBJECT, kind], &rest[..]].concat()
    }

    /// `None` if it is something else, or no word.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let [SUBJECT, kind, rest @ ..] = bytes else {
            return None;
        };
        Some(match *kind {
            ASK => Self::Ask {
                position: decode(rest)?,
            },
            PART | LAST_PART => Self::Part {
                bytes: rest.to_vec(),
                last: *kind == LAST_PART,
            },
            ASK_PAGE => {
                let (position, page) = decode(rest)?;
                Self::AskPage { position, page }
            }
            PAGE => Self::Page(decode(rest)?),
            // It goes into a journal: one line, and no control characters.
            FOUND => Self::Found {
                text: (String::from_utf8_lossy(rest).chars())
                    .map(|c| if c.is_control() { ' ' } else { c })
                    .take(MAX_TEXT)
                    .collect(),
            },
            _ => return None,
        })
    }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    match postcard::to_stdvec(value) {
        Ok(bytes) => bytes,
        Err(error) => unreachable!("encoding to memory failed: {error}"),
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
