//! Bytes of frames and records: compact, canonical, bounded. Decoding never panics and
//! accepts exactly what encoding makes.
//!
//! A frame is a little-endian `u32` length and a body; a body is the format's version, a
//! tag, and the fields. Numbers are LEB128 without superfluous bytes, ids 16 bytes little
//! endian, strings and byte strings a length and their bytes. Tags are never reused.

use crate::disks::DiskMark;
use crate::event::Progress;
use crate::message::{
    Field, Goodbye, Hello, MARKED_VERSION, MAX_BATCH_BYTES, MAX_CHUNK_BYTES, MAX_FIELDS,
    MAX_NAME_BYTES, MAX_SIDE_BYTES, MAX_VALUE_BYTES, Message, Mismatch, Refusal,
};
use crate::node::RoleKind;
use crate::record::{
    BackupName, Generation, Incarnation, LiveName, NodeId, Position, Record, SessionId,
};

/// Version byte at the head of every body.
pub const FORMAT: u8 = 1;
/// The longest body: a full log batch and its head.
pub const MAX_BODY_BYTES: usize = MAX_BATCH_BYTES + 64;
/// The first bytes of a stored record.
const RECORD_MAGIC: [u8; 4] = *b"TVr1";

/// Why bytes are not a frame or a record. The sender's fault, or the medium's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends too early.
    #[error("the frame ends in the middle of a field")]
    Short,
    /// It goes on after its end.
    #[error("{0} bytes follow the end of the frame")]
    Trailing(usize),
    /// Format byte or magic.
    #[error("format {found} where {FORMAT} is understood; run the same version on both nodes")]
    Format {
        /// What stands there.
        found: u8,
    },
    /// A tag that means nothing.
    #[error("unknown {what} {value}")]
    Unknown {
        /// Of what.
        what: &'static str,
        /// The value found.
        value: u8,
    },
    /// Longer than its bound.
    #[error("{what} of {len} bytes or items, at most {max} are allowed")]
    TooLong {
        /// What.
        what: &'static str,
        /// Its length.
        len: u64,
        /// The bound.
        max: u64,
    },
    /// A number too large or with superfluous bytes.
    #[error("a number is not in its shortest form or does not fit")]
    Number,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    Text,
    /// A stored record whose check value does not match.
    #[error("the record's check value does not match: torn or damaged")]
    Check,
}

pub(crate) fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_u128(out: &mut Vec<u8>, value: u128) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_progress(out: &mut Vec<u8>, progress: &Progress) {
    put_u64(out, progress.icount);
    put_u64(out, progress.position.0);
    put_u64(out, progress.vtime);
}

fn put_mismatch(out: &mut Vec<u8>, mismatch: &Mismatch) {
    put_bytes(out, mismatch.field.as_bytes());
    put_bytes(out, mismatch.ours.as_bytes());
    put_bytes(out, mismatch.theirs.as_bytes());
}

/// Takes a body apart.
pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let low = u64::from(byte & 0x7f);
            if shift == 63 && low > 1 {
                return Err(DecodeError::Number);
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                let superfluous = byte == 0 && shift > 0;
                return if superfluous {
                    Err(DecodeError::Number)
                } else {
                    Ok(value)
                };
            }
        }
        Err(DecodeError::Number)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        u16::try_from(self.u64()?).map_err(|_| DecodeError::Number)
    }

    fn u128(&mut self) -> Result<u128, DecodeError> {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(self.take(16)?);
        Ok(u128::from_le_bytes(bytes))
    }

    pub(crate) fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::Unknown {
                what: "flag",
                value,
            }),
        }
    }

    fn len(&mut self, what: &'static str, max: usize) -> Result<usize, DecodeError> {
        let len = self.u64()?;
        let max = max as u64;
        if len > max {
            return Err(DecodeError::TooLong { what, len, max });
        }
        Ok(len as usize)
    }

    pub(crate) fn bytes(&mut self, what: &'static str, max: usize) -> Result<Vec<u8>, DecodeError> {
        let len = self.len(what, max)?;
        Ok(self.take(len)?.to_vec())
    }

    pub(crate) fn text(&mut self, what: &'static str, max: usize) -> Result<String, DecodeError> {
        String::from_utf8(self.bytes(what, max)?).map_err(|_| DecodeError::Text)
    }

    fn position(&mut self) -> Result<Position, DecodeError> {
        Ok(Position(self.u64()?))
    }

    fn progress(&mut self) -> Result<Progress, DecodeError> {
        Ok(Progress {
            icount: self.u64()?,
            position: self.position()?,
            vtime: self.u64()?,
        })
    }

    fn mismatch(&mut self) -> Result<Mismatch, DecodeError> {
        Ok(Mismatch {
            field: self.text("field name", MAX_NAME_BYTES)?,
            ours: self.text("field value", MAX_VALUE_BYTES)?,
            theirs: self.text("field value", MAX_VALUE_BYTES)?,
        })
    }

    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            n => Err(DecodeError::Trailing(n)),
        }
    }
}

/// Appends the body of a frame to `out`.
pub fn encode_body(message: &Message, out: &mut Vec<u8>) {
    out.push(FORMAT);
    match message {
        Message::Hello(hello) => {
            out.push(1);
            put_hello(out, hello);
        }
        Message::Welcome {
            session,
            generation,
        } => {
            out.push(2);
            put_u128(out, session.0);
            put_u64(out, generation.0);
        }
        Message::Refuse(refusal) => {
            out.push(3);
            match refusal {
                Refusal::NotLive => out.push(1),
                Refusal::Busy => out.push(2),
                Refusal::SameNode => out.push(3),
                Refusal::Version { ours } => {
                    out.push(4);
                    put_u64(out, u64::from(*ours));
                }
                Refusal::Machine(mismatch) => {
                    out.push(5);
                    put_mismatch(out, mismatch);
                }
            }
        }
        Message::SnapshotBegin { position } => {
            out.push(4);
            put_u64(out, position.0);
        }
        Message::SnapshotChunk {
            offset,
            bytes,
            last,
        } => {
            out.push(5);
            put_u64(out, *offset);
            out.push(u8::from(*last));
            put_bytes(out, bytes);
        }
        Message::Log {
            first,
            end,
            released,
            batch,
        } => {
            out.push(6);
            put_u64(out, first.0);
            put_u64(out, end.0);
            put_u64(out, released.0);
            put_bytes(out, batch);
        }
        Message::Ack {
            received,
            emitted,
            progress,
        } => {
            out.push(7);
            put_u64(out, received.0);
            put_u64(out, emitted.0);
            put_progress(out, progress);
        }
        Message::Installed => out.push(8),
        Message::Heartbeat {
            beat,
            released,
            progress,
        } => {
            out.push(9);
            put_u64(out, *beat);
            put_u64(out, released.0);
            put_progress(out, progress);
        }
        Message::Paired { generation } => {
            out.push(10);
            put_u64(out, generation.0);
        }
        Message::Side { bytes } => {
            out.push(11);
            put_bytes(out, bytes);
        }
        Message::Goodbye(goodbye) => {
            out.push(12);
            out.push(match goodbye {
                Goodbye::Claim => 1,
                Goodbye::Halted => 2,
                Goodbye::Detached => 3,
                Goodbye::Diverged => 4,
                Goodbye::Leaving => 5,
            });
        }
    }
}

fn put_hello(out: &mut Vec<u8>, hello: &Hello) {
    put_u64(out, u64::from(hello.version));
    put_u128(out, hello.id.0);
    put_u128(out, hello.incarnation.0);
    out.push(hello.role.wire());
    put_u64(out, hello.generation.0);
    out.push(u8::from(hello.holds.is_some()));
    if let Some(session) = hello.holds {
        put_u128(out, session.0);
    }
    put_bytes(out, hello.name.as_bytes());
    put_u64(out, hello.machine.len() as u64);
    for field in &hello.machine {
        put_bytes(out, field.name.as_bytes());
        put_bytes(out, field.value.as_bytes());
    }
    if hello.version >= MARKED_VERSION {
        put_mark(out, &hello.disks);
    }
}

fn put_mark(out: &mut Vec<u8>, mark: &DiskMark) {
    out.push(u8::from(mark.has_disks));
    if mark.has_disks {
        put_u64(out, mark.generation.0);
        out.push(u8::from(mark.pending.is_some()));
        if let Some(pending) = mark.pending {
            put_u64(out, pending.0);
        }
        out.push(u8::from(mark.consistent));
    }
}

/// Appends a whole frame, length first.
pub fn encode_frame(message: &Message, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    encode_body(message, out);
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

/// The length of the body that a frame's first four bytes announce.
pub fn body_len(head: [u8; 4]) -> Result<usize, DecodeError> {
    len_within(head, MAX_BODY_BYTES)
}

/// A frame's length, if it is not more than `max`.
pub(crate) fn len_within(head: [u8; 4], max: usize) -> Result<usize, DecodeError> {
    let len = u32::from_le_bytes(head);
    if len as usize > max {
        return Err(DecodeError::TooLong {
            what: "frame",
            len: u64::from(len),
            max: max as u64,
        });
    }
    Ok(len as usize)
}

/// The message a body holds.
pub fn decode_body(body: &[u8]) -> Result<Message, DecodeError> {
    let mut r = Reader { rest: body };
    let format = r.u8()?;
    if format != FORMAT {
        return Err(DecodeError::Format { found: format });
    }
    let tag = r.u8()?;
    let message = match tag {
        1 => Message::Hello(hello(&mut r)?),
        2 => Message::Welcome {
            session: SessionId(r.u128()?),
            generation: Generation(r.u64()?),
        },
        3 => Message::Refuse(match r.u8()? {
            1 => Refusal::NotLive,
            2 => Refusal::Busy,
            3 => Refusal::SameNode,
            4 => Refusal::Version { ours: r.u16()? },
            5 => Refusal::Machine(r.mismatch()?),
            value => {
                return Err(DecodeError::Unknown {
                    what: "refusal",
                    value,
                });
            }
        }),
        4 => Message::SnapshotBegin {
            position: r.position()?,
        },
        5 => Message::SnapshotChunk {
            offset: r.u64()?,
            last: r.flag()?,
            bytes: r.bytes("snapshot chunk", MAX_CHUNK_BYTES)?,
        },
        6 => Message::Log {
            first: r.position()?,
            end: r.position()?,
            released: r.position()?,
            batch: r.bytes("log batch", MAX_BATCH_BYTES)?,
        },
        7 => Message::Ack {
            received: r.position()?,
            emitted: r.position()?,
            progress: r.progress()?,
        },
        8 => Message::Installed,
        9 => Message::Heartbeat {
            beat: r.u64()?,
            released: r.position()?,
            progress: r.progress()?,
        },
        10 => Message::Paired {
            generation: Generation(r.u64()?),
        },
        11 => Message::Side {
            bytes: r.bytes("side message", MAX_SIDE_BYTES)?,
        },
        12 => Message::Goodbye(match r.u8()? {
            1 => Goodbye::Claim,
            2 => Goodbye::Halted,
            3 => Goodbye::Detached,
            4 => Goodbye::Diverged,
            5 => Goodbye::Leaving,
            value => {
                return Err(DecodeError::Unknown {
                    what: "goodbye",
                    value,
                });
            }
        }),
        value => {
            return Err(DecodeError::Unknown {
                what: "frame",
                value,
            });
        }
    };
    r.end()?;
    Ok(message)
}

fn hello(r: &mut Reader<'_>) -> Result<Hello, DecodeError> {
    let version = r.u16()?;
    let id = NodeId(r.u128()?);
    let incarnation = Incarnation(r.u128()?);
    let role = r.u8()?;
    let role = RoleKind::from_wire(role).ok_or(DecodeError::Unknown {
        what: "role",
        value: role,
    })?;
    let generation = Generation(r.u64()?);
    let holds = match r.flag()? {
        true => Some(SessionId(r.u128()?)),
        false => None,
    };
    let name = r.text("node name", MAX_NAME_BYTES)?;
    let count = r.len("configuration", MAX_FIELDS)?;
    let mut machine = Vec::with_capacity(count);
    for _ in 0..count {
        machine.push(Field {
            name: r.text("field name", MAX_NAME_BYTES)?,
            value: r.text("field value", MAX_VALUE_BYTES)?,
        });
    }
    // A peer of another version is to be told so, not to be misunderstood.
    let disks = match version >= MARKED_VERSION {
        true => mark(r)?,
        false => DiskMark::NONE,
    };
    Ok(Hello {
        version,
        id,
        name,
        incarnation,
        role,
        generation,
        holds,
        machine,
        disks,
    })
}

fn mark(r: &mut Reader<'_>) -> Result<DiskMark, DecodeError> {
    if !r.flag()? {
        return Ok(DiskMark::NONE);
    }
    Ok(DiskMark {
        has_disks: true,
        generation: Generation(r.u64()?),
        pending: match r.flag()? {
            true => Some(Generation(r.u64()?)),
            false => None,
        },
        consistent: r.flag()?,
    })
}

/// FNV-1a, enough to tell a torn file from a whole one.
fn check(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A record as arbiter backends store it: magic, fields, check value.
pub fn encode_record(record: &Record) -> Vec<u8> {
    let mut out = RECORD_MAGIC.to_vec();
    put_u64(&mut out, record.generation.0);
    put_u128(&mut out, record.live.id.0);
    put_u128(&mut out, record.live.incarnation.0);
    out.push(u8::from(record.backup.is_some()));
    if let Some(backup) = record.backup {
        put_u128(&mut out, backup.id.0);
        put_u128(&mut out, backup.session.0);
    }
    out.push(u8::from(record.halted));
    let sum = check(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

/// The record that [`encode_record`] made `bytes` of.
pub fn decode_record(bytes: &[u8]) -> Result<Record, DecodeError> {
    let body_len = bytes.len().checked_sub(8).ok_or(DecodeError::Short)?;
    let (body, sum) = bytes.split_at(body_len);
    if sum != check(body).to_le_bytes() {
        return Err(DecodeError::Check);
    }
    let mut r = Reader { rest: body };
    if r.take(4)? != RECORD_MAGIC {
        return Err(DecodeError::Format { found: body[3] });
    }
    let record = Record {
        generation: Generation(r.u64()?),
        live: LiveName {
            id: NodeId(r.u128()?),
            incarnation: Incarnation(r.u128()?),
        },
        backup: match r.flag()? {
            true => Some(BackupName {
                id: NodeId(r.u128()?),
                session: SessionId(r.u128()?),
            }),
            false => None,
        },
        halted: r.flag()?,
    };
    r.end()?;
    Ok(record)
}

#[cfg(test)]
mod tests;
