//! What a node and an arbiter's server say to each other, and its bytes.
//!
//! A frame is a little-endian `u32` length and a body; a body is the format's version, a tag,
//! the request's number and the fields, in the forms of [`crate::codec`]. Each request has one
//! answer, which repeats its number. Decoding never panics and accepts exactly what encoding
//! makes; versions and tags are never reused.

use std::fmt;

use crate::codec::{
    DecodeError, Reader, decode_record, encode_record, len_within, put_bytes, put_u64,
};
use crate::record::{Generation, Record};

/// Version byte at the head of every body.
pub const VERSION: u8 = 1;
/// The longest body: the longest name, text or record and what stands around it.
pub const MAX_BODY_BYTES: usize = 512;
/// The longest name of a register in bytes.
pub const MAX_VM_BYTES: usize = 64;
/// The longest text of an error in bytes.
pub const MAX_TEXT_BYTES: usize = 256;
/// The longest stored form of a record.
const MAX_RECORD_BYTES: usize = 128;

/// The name of a VM's register: 1 to 64 letters, digits, `-`, `_` or `.`, the first of them
/// neither `.` nor `-`. So it can be part of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmName(String);

impl VmName {
    /// The name, if it is one.
    pub fn new(text: &str) -> Option<Self> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let fits = (1..=MAX_VM_BYTES).contains(&text.len())
            && text.bytes().all(good)
            && !text.starts_with(['.', '-']);
        fits.then(|| Self(text.to_owned()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// For the answer.
    pub number: u64,
    /// Whose register.
    pub vm: VmName,
    /// What is asked of it.
    pub ask: Ask,
}

/// What is asked of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// What it holds.
    Read,
    /// To take `record` if it holds generation `expect` (0: no record).
    Cas {
        /// The generation it must have now.
        expect: Generation,
        /// What to put there.
        record: Record,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which request it answers.
    pub number: u64,
    /// How that ended.
    pub told: Told,
}

/// How a request ended, as [`crate::arbiter::Outcome`] has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The record, or that there is none.
    Read(Option<Record>),
    /// It took place.
    Won(Record),
    /// It did not take place by this request; the record now.
    Lost(Option<Record>),
    /// The server does not know: it may have taken place, or take place later.
    Failed(String),
}

fn put_record(out: &mut Vec<u8>, record: &Record) {
    put_bytes(out, &encode_record(record));
}

fn put_maybe(out: &mut Vec<u8>, record: Option<&Record>) {
    out.push(u8::from(record.is_some()));
    if let Some(record) = record {
        put_record(out, record);
    }
}

fn record(r: &mut Reader<'_>) -> Result<Record, DecodeError> {
    decode_record(&r.bytes("record", MAX_RECORD_BYTES)?)
}

fn maybe(r: &mut Reader<'_>) -> Result<Option<Record>, DecodeError> {
    r.flag()?.then(|| record(r)).transpose()
}

/// The body's head: version and tag.
fn head(r: &mut Reader<'_>) -> Result<u8, DecodeError> {
    match r.u8()? {
        VERSION => r.u8(),
        found => Err(DecodeError::Format { found }),
    }
}

/// A frame around the body that `put` appends.
fn frame(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.push(VERSION);
    put(&mut out);
    let len = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&len.to_le_bytes());
    out
}

/// The length of the body that a frame's first four bytes announce.
pub fn body_len(head: [u8; 4]) -> Result<usize, DecodeError> {
    len_within(head, MAX_BODY_BYTES)
}

/// A request as a whole frame.
pub fn encode_request(request: &Request) -> Vec<u8> {
    frame(|out| {
        out.push(match request.ask {
            Ask::Read => 1,
            Ask::Cas { .. } => 2,
        });
        put_u64(out, request.number);
        put_bytes(out, request.vm.as_str().as_bytes());
        if let Ask::Cas { expect, record } = &request.ask {
            put_u64(out, expect.0);
            put_record(out, record);
        }
    })
}

/// The request in the body of a frame.
pub fn decode_request(body: &[u8]) -> Result<Request, DecodeError> {
    let mut r = Reader { rest: body };
    let tag = head(&mut r)?;
    let number = r.u64()?;
    let vm = r.text("name of a VM", MAX_VM_BYTES)?;
    let vm = VmName::new(&vm).ok_or(DecodeError::Text)?;
    let ask = match tag {
        1 => Ask::Read,
        2 => Ask::Cas {
            expect: Generation(r.u64()?),
            record: record(&mut r)?,
        },
        value => {
            return Err(DecodeError::Unknown {
                what: "request",
                value,
            });
        }
    };
    r.end()?;
    Ok(Request { number, vm, ask })
}

/// An answer as a whole frame. The text of [`Told::Failed`] is cut at [`MAX_TEXT_BYTES`].
pub fn encode_answer(answer: &Answer) -> Vec<u8> {
    frame(|out| {
        out.push(match answer.told {
            Told::Read(_) => 3,
            Told::Won(_) => 4,
            Told::Lost(_) => 5,
            Told::Failed(_) => 6,
        });
        put_u64(out, answer.number);
        match &answer.told {
            Told::Read(record) | Told::Lost(record) => put_maybe(out, record.as_ref()),
            Told::Won(record) => put_record(out, record),
            Told::Failed(text) => {
                let end = text.floor_char_boundary(MAX_TEXT_BYTES);
                put_bytes(out, &text.as_bytes()[..end]);
            }
        }
    })
}

/// The answer in the body of a frame.
pub fn decode_answer(body: &[u8]) -> Result<Answer, DecodeError> {
    let mut r = Reader { rest: body };
    let tag = head(&mut r)?;
    let number = r.u64()?;
    let told = match tag {
        3 => Told::Read(maybe(&mut r)?),
        4 => Told::Won(record(&mut r)?),
        5 => Told::Lost(maybe(&mut r)?),
        6 => Told::Failed(r.text("text", MAX_TEXT_BYTES)?),
        value => {
            return Err(DecodeError::Unknown {
                what: "answer",
                value,
            });
        }
    };
    r.end()?;
    Ok(Answer { number, told })
}

#[cfg(test)]
mod tests;
