//! Numbers and frames of the protocol. All of them are big-endian.

use std::fmt;
use std::io::{self, Read, Write};

/// Longest name of an export, and longest text that a server is heard with.
pub const MAX_NAME_BYTES: usize = 4096;
/// Longest data of one option or of the answer to one: a name and a list beside it.
pub const MAX_OPTION_BYTES: usize = 2 * MAX_NAME_BYTES;
/// Most options of one client, and most answers to one option: a list of exports is the longest.
pub const MAX_OPTIONS: usize = 256;
/// Most data in one read or write if a server says nothing (the specification's default).
pub const DEFAULT_PAYLOAD_BYTES: u32 = 32 << 20;
/// Smallest block if a server says nothing (the specification's default).
pub const DEFAULT_BLOCK_BYTES: u32 = 512;
/// Largest smallest block that the specification allows.
pub const MAX_BLOCK_BYTES: u32 = 64 << 10;

pub(crate) const GREETING: u64 = 0x4e42_444d_4147_4943;
pub(crate) const OLD_STYLE: u64 = 0x0000_4202_8186_1253;
pub(crate) const OPTION: u64 = 0x4948_4156_454f_5054;
pub(crate) const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;

pub(crate) const FLAG_FIXED_NEWSTYLE: u16 = 1;
pub(crate) const FLAG_NO_ZEROES: u16 = 2;

pub(crate) const OPT_EXPORT_NAME: u32 = 1;
pub(crate) const OPT_ABORT: u32 = 2;
pub(crate) const OPT_LIST: u32 = 3;
pub(crate) const OPT_STARTTLS: u32 = 5;
pub(crate) const OPT_INFO: u32 = 6;
pub(crate) const OPT_GO: u32 = 7;
/// Our own: a [`Claim`]. Answered with `NBD_REP_ACK`, or an error and a text; a server that doesn't
/// know it says `NBD_REP_ERR_UNSUP`. The letters `tvm` keep it away from the numbers that the
/// specification gives out.
pub(crate) const OPT_CLAIM: u32 = 0x7476_6d01;
/// Our own: a [`Reader`]. Answered like a claim.
pub(crate) const OPT_READ: u32 = 0x7476_6d02;

pub(crate) const REP_ACK: u32 = 1;
pub(crate) const REP_SERVER: u32 = 2;
pub(crate) const REP_INFO: u32 = 3;
pub(crate) const REP_ERROR: u32 = 1 << 31;
pub(crate) const REP_ERR_UNSUP: u32 = REP_ERROR | 1;
pub(crate) const REP_ERR_POLICY: u32 = REP_ERROR | 2;
pub(crate) const REP_ERR_INVALID: u32 = REP_ERROR | 3;
pub(crate) const REP_ERR_TLS_REQD: u32 = REP_ERROR | 5;
pub(crate) const REP_ERR_UNKNOWN: u32 = REP_ERROR | 6;

pub(crate) const INFO_EXPORT: u16 = 0;
pub(crate) const INFO_BLOCK_SIZE: u16 = 3;

/// What can be done with an export, as it says itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportFlags(pub u16);

impl ExportFlags {
    /// The others mean something.
    pub const HAS_FLAGS: u16 = 1;
    /// No writing.
    pub const READ_ONLY: u16 = 1 << 1;
    /// `NBD_CMD_FLUSH` is known.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// [`Request::FUA`] is known.
    pub const SEND_FUA: u16 = 1 << 3;
    /// `NBD_CMD_TRIM` is known.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// `NBD_CMD_WRITE_ZEROES` is known.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// What one connection has written, all others read.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;

    /// Whether all of `bits` are set.
    pub fn has(self, bits: u16) -> bool {
        self.0 & bits == bits
    }
}

/// An export, as a server describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its size.
    pub bytes: u64,
    /// What it can do.
    pub flags: ExportFlags,
    /// Offsets and lengths are multiples of this power of two, at most [`MAX_BLOCK_BYTES`].
    pub block_bytes: u32,
    /// Most data of one read or write, a multiple of `block_bytes` unless there is no bound.
    pub payload_bytes: u32,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `NBD_CMD_READ`
    Read,
    /// `NBD_CMD_WRITE`
    Write,
    /// `NBD_CMD_DISC`: the client leaves, and wants no answer.
    Disconnect,
    /// `NBD_CMD_FLUSH`
    Flush,
    /// `NBD_CMD_TRIM`
    Trim,
    /// `NBD_CMD_WRITE_ZEROES`
    WriteZeroes,
    /// One that is not known here.
    Other(u16),
}

impl Command {
    fn number(self) -> u16 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Disconnect => 2,
            Self::Flush => 3,
            Self::Trim => 4,
            Self::WriteZeroes => 6,
            Self::Other(number) => number,
        }
    }

    fn of(number: u16) -> Self {
        match number {
            0 => Self::Read,
            1 => Self::Write,
            2 => Self::Disconnect,
            3 => Self::Flush,
            4 => Self::Trim,
            6 => Self::WriteZeroes,
            other => Self::Other(other),
        }
    }
}

/// The head of a request; the data of a write follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// [`Request::FUA`], [`Request::NO_HOLE`].
    pub flags: u16,
    /// What to do.
    pub command: Command,
    /// Comes back with the answer.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub bytes: u32,
}

impl Request {
    /// Length of the head.
    pub const BYTES: usize = 28;
    /// Stable before it is answered.
    pub const FUA: u16 = 1;
    /// Zeros must have their room.
    pub const NO_HOLE: u16 = 2;

    /// The head as it is sent.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..4].copy_from_slice(&REQUEST.to_be_bytes());
        out[4..6].copy_from_slice(&self.flags.to_be_bytes());
        out[6..8].copy_from_slice(&self.command.number().to_be_bytes());
        out[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        out[16..24].copy_from_slice(&self.offset.to_be_bytes());
        out[24..].copy_from_slice(&self.bytes.to_be_bytes());
        out
    }

    /// `None` if it is no request.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let mut fields = Fields(bytes);
        (fields.u32()? == REQUEST).then_some(())?;
        Some(Self {
            flags: fields.u16()?,
            command: Command::of(fields.u16()?),
            cookie: fields.u64()?,
            offset: fields.u64()?,
            bytes: fields.u32()?,
        })
    }
}

/// The head of a simple answer; the data of a read that was done follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 0, or what went wrong.
    pub error: u32,
    /// The request's.
    pub cookie: u64,
}

impl Reply {
    /// Length of the head.
    pub const BYTES: usize = 16;
    /// `NBD_EPERM`: the export is read-only.
    pub const EPERM: u32 = 1;
    /// `NBD_EIO`
    pub const EIO: u32 = 5;
    /// `NBD_EINVAL`
    pub const EINVAL: u32 = 22;
    /// `NBD_ENOSPC`
    pub const ENOSPC: u32 = 28;
    /// `NBD_EOVERFLOW`: more data than the server takes at once.
    pub const EOVERFLOW: u32 = 75;
    /// `NBD_ENOTSUP`
    pub const ENOTSUP: u32 = 95;
    /// `NBD_ESHUTDOWN`: the server is about to end.
    pub const ESHUTDOWN: u32 = 108;

    /// The head as it is sent.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..4].copy_from_slice(&SIMPLE_REPLY.to_be_bytes());
        out[4..8].copy_from_slice(&self.error.to_be_bytes());
        out[8..].copy_from_slice(&self.cookie.to_be_bytes());
        out
    }

    /// `None` if it is no simple answer.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let mut fields = Fields(bytes);
        (fields.u32()? == SIMPLE_REPLY).then_some(())?;
        Some(Self {
            error: fields.u32()?,
            cookie: fields.u64()?,
        })
    }
}

/// Who wants to have an export for itself.
///
/// A server that knows claims gives an export to the highest generation that it has heard of, and
/// to no lower one ever again: whoever has had it before is cut off, and what he has asked for is
/// either done before the answer or never. Generation 0 is nobody in particular: it excludes
/// others while it is connected, and leaves no trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The VM's name: an export belongs to one.
    pub vm: String,
    /// Who: the same one may come again, over another connection.
    pub holder: u128,
    /// The generation that it has won.
    pub generation: u64,
}

/// The form of [`Claim`]s that is spoken.
const CLAIM_FORM: u8 = 1;

impl Claim {
    pub(crate) fn encode(&self, export: &str) -> Vec<u8> {
        let mut out = vec![CLAIM_FORM];
        out.extend_from_slice(&self.holder.to_be_bytes());
        out.extend_from_slice(&self.generation.to_be_bytes());
        put_texts(&mut out, [export, &self.vm]);
        out
    }

    /// The export and the claim.
    pub(crate) fn decode(data: &[u8]) -> Option<(String, Self)> {
        let mut fields = Fields(data);
        (fields.u8()? == CLAIM_FORM).then_some(())?;
        let holder = fields.u128()?;
        let generation = fields.u64()?;
        let export = fields.text()?;
        let vm = fields.text()?;
        fields.end()?;
        let claim = Self {
            vm,
            holder,
            generation,
        };
        Some((export, claim))
    }
}

/// Who wants to read an export that its VM's live node has claimed, beside that node. It takes nothing
/// from anybody and may not write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// The VM's name.
    pub vm: String,
    /// Who: the same one may come again, over another connection.
    pub holder: u128,
}

/// The form of [`Reader`]s that is spoken.
const READER_FORM: u8 = 1;

impl Reader {
    pub(crate) fn encode(&self, export: &str) -> Vec<u8> {
        let mut out = vec![READER_FORM];
        out.extend_from_slice(&self.holder.to_be_bytes());
        put_texts(&mut out, [export, &self.vm]);
        out
    }

    /// The export and who wants to read it.
    pub(crate) fn decode(data: &[u8]) -> Option<(String, Self)> {
        let mut fields = Fields(data);
        (fields.u8()? == READER_FORM).then_some(())?;
        let holder = fields.u128()?;
        let export = fields.text()?;
        let vm = fields.text()?;
        fields.end()?;
        Some((export, Self { vm, holder }))
    }
}

fn put_texts(out: &mut Vec<u8>, texts: [&str; 2]) {
    for text in texts {
        out.extend_from_slice(&(text.len() as u32).to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    }
}

/// Reads big-endian fields off the front.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_be_bytes)
    }

    /// A length and a name of that many bytes.
    pub(crate) fn text(&mut self) -> Option<String> {
        let bytes = self.u32()? as usize;
        if bytes > MAX_NAME_BYTES {
            return None;
        }
        Some(std::str::from_utf8(self.take(bytes)?).ok()?.to_owned())
    }

    /// Nothing is left.
    pub(crate) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

pub(crate) fn read_array<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn read_u32(stream: &mut impl Read) -> io::Result<u32> {
    read_array(stream).map(u32::from_be_bytes)
}

pub(crate) fn read_u64(stream: &mut impl Read) -> io::Result<u64> {
    read_array(stream).map(u64::from_be_bytes)
}

pub(crate) fn send(stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    stream.flush()
}

/// What the other end has written for a person, as one line of bounded length.
pub(crate) fn one_line(text: &[u8]) -> String {
    const MAX_CHARS: usize = 200;
    let text = String::from_utf8_lossy(text);
    let plain = |char: char| if char.is_control() { ' ' } else { char };
    text.chars().take(MAX_CHARS).map(plain).collect()
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("read"),
            Self::Write => f.write_str("write"),
            Self::Disconnect => f.write_str("disconnect"),
            Self::Flush => f.write_str("flush"),
            Self::Trim => f.write_str("trim"),
            Self::WriteZeroes => f.write_str("write of zeros"),
            Self::Other(number) => write!(f, "command {number}"),
        }
    }
}

#[cfg(test)]
mod tests;
