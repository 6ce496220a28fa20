//! What a server answers before requests come, and which requests it carries out.

use std::io::{self, Read, Write};

use crate::wire::*;

/// What one read or write may carry here.
pub const PAYLOAD_BYTES: u32 = 1 << 20;

/// What a server says no with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum No {
    /// There is no such export.
    Unknown,
    /// Not to this client, or not now; why, for a person.
    Policy(String),
}

/// What stands behind the haggling.
pub trait House {
    /// The names of all exports.
    fn names(&self) -> Vec<String>;

    /// What an export is. Nothing of it is touched.
    ///
    /// # Errors
    /// [`No`].
    fn look(&self, export: &str) -> Result<Export, No>;

    /// Gives an export to whoever claims it.
    ///
    /// # Errors
    /// [`No`].
    fn claim(&mut self, export: &str, claim: &Claim) -> Result<(), No>;

    /// Lets somebody read an export beside whoever has claimed it.
    ///
    /// # Errors
    /// [`No`].
    fn read_beside(&mut self, export: &str, reader: &Reader) -> Result<(), No>;

    /// This client wants to use an export.
    ///
    /// # Errors
    /// [`No`].
    fn enter(&mut self, export: &str) -> Result<Export, No>;
}

/// Whether a connection is, may become or must become TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// This server has none.
    No,
    /// It must become TLS before anything else is said.
    Due,
    /// It is.
    Yes,
}

/// How the haggling has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreed {
    /// The client's first word of TLS comes next; haggling begins again after it.
    StartTls,
    /// Requests come next, for this export.
    Requests(Export),
    /// The client has left.
    Left,
}

/// Greets a client; whether it wants no zeros behind an old option.
///
/// # Errors
/// The connection's, or a client that is none.
pub fn greet(stream: &mut (impl Read + Write)) -> io::Result<bool> {
    let mut greeting = GREETING.to_be_bytes().to_vec();
    greeting.extend_from_slice(&OPTION.to_be_bytes());
    greeting.extend_from_slice(&(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes());
    send(stream, &greeting)?;
    let flags = read_u32(stream)?;
    let known = u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
    match flags & !known {
        0 => Ok(flags & u32::from(FLAG_NO_ZEROES) != 0),
        _ => Err(garbled()),
    }
}

fn garbled() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not the NBD protocol")
}

/// Answers a client's options until requests come, or TLS.
///
/// # Errors
/// The connection's, or a client that talks nonsense or too much.
pub fn haggle(
    stream: &mut (impl Read + Write),
    house: &mut impl House,
    tls: Tls,
    no_zeroes: bool,
) -> io::Result<Agreed> {
    for _ in 0..MAX_OPTIONS {
        if read_u64(stream)? != OPTION {
            return Err(garbled());
        }
        let option = read_u32(stream)?;
        let bytes = read_u32(stream)? as usize;
        if bytes > MAX_OPTION_BYTES {
            return Err(garbled());
        }
        let mut data = vec![0; bytes];
        stream.read_exact(&mut data)?;
        let mut reply = |kind: u32, data: &[u8]| answer(stream, option, kind, data);
        match option {
            OPT_ABORT => {
                // Nobody need hear it.
                let _ = reply(REP_ACK, &[]);
                return Ok(Agreed::Left);
            }
            OPT_STARTTLS if tls == Tls::Due && data.is_empty() => {
                reply(REP_ACK, &[])?;
                return Ok(Agreed::StartTls);
            }
            // This option alone has no room for an error.
            OPT_EXPORT_NAME if tls == Tls::Due => return Err(garbled()),
            _ if tls == Tls::Due => reply(REP_ERR_TLS_REQD, b"")?,
            OPT_STARTTLS if tls == Tls::Yes => reply(REP_ERR_INVALID, b"this is TLS already")?,
            OPT_STARTTLS => reply(REP_ERR_POLICY, b"this server was started without keys")?,
            OPT_EXPORT_NAME => {
                let name = std::str::from_utf8(&data).map_err(|_| garbled())?;
                let export = house.enter(name).map_err(|_| garbled())?;
                let mut out = export.bytes.to_be_bytes().to_vec();
                out.extend_from_slice(&export.flags.0.to_be_bytes());
                if !no_zeroes {
                    out.extend_from_slice(&[0; 124]);
                }
                send(stream, &out)?;
                return Ok(Agreed::Requests(export));
            }
            OPT_LIST if data.is_empty() => {
                for name in house.names().iter().take(MAX_OPTIONS) {
                    let mut entry = (name.len() as u32).to_be_bytes().to_vec();
                    entry.extend_from_slice(name.as_bytes());
                    answer(stream, option, REP_SERVER, &entry)?;
                }
                answer(stream, option, REP_ACK, &[])?;
            }
            OPT_INFO | OPT_GO => {
                let Some(name) = wanted(&data) else {
                    reply(REP_ERR_INVALID, b"")?;
                    continue;
                };
                let found = match option {
                    OPT_INFO => house.look(&name),
                    _ => house.enter(&name),
                };
                match found {
                    Ok(export) => {
                        describe(stream, option, &export)?;
                        if option == OPT_GO {
                            return Ok(Agreed::Requests(export));
                        }
                    }
                    Err(no) => refuse(stream, option, &no)?,
                }
            }
            OPT_CLAIM => match Claim::decode(&data) {
                None => reply(REP_ERR_INVALID, b"")?,
                Some((export, claim)) => match house.claim(&export, &claim) {
                    Ok(()) => reply(REP_ACK, &[])?,
                    Err(no) => refuse(stream, option, &no)?,
                },
            },
            OPT_READ => match Reader::decode(&data) {
                None => reply(REP_ERR_INVALID, b"")?,
                Some((export, reader)) => match house.read_beside(&export, &reader) {
                    Ok(()) => reply(REP_ACK, &[])?,
                    Err(no) => refuse(stream, option, &no)?,
                },
            },
            OPT_LIST => reply(REP_ERR_INVALID, b"")?,
            _ => reply(REP_ERR_UNSUP, b"")?,
        }
    }
    Err(garbled())
}

/// The export that `NBD_OPT_INFO` or `NBD_OPT_GO` names. What else it asks for is told anyway.
fn wanted(data: &[u8]) -> Option<String> {
    let mut fields = Fields(data);
    let name = fields.text()?;
    let infos = fields.u16()?;
    fields.take(usize::from(infos) * 2)?;
    fields.end()?;
    Some(name)
}

fn describe(stream: &mut impl Write, option: u32, export: &Export) -> io::Result<()> {
    let mut size = INFO_EXPORT.to_be_bytes().to_vec();
    size.extend_from_slice(&export.bytes.to_be_bytes());
    size.extend_from_slice(&export.flags.0.to_be_bytes());
    answer(stream, option, REP_INFO, &size)?;
    let mut blocks = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
    for bytes in [export.block_bytes, 4096, export.payload_bytes] {
        blocks.extend_from_slice(&bytes.to_be_bytes());
    }
    answer(stream, option, REP_INFO, &blocks)?;
    answer(stream, option, REP_ACK, &[])
}

fn refuse(stream: &mut impl Write, option: u32, no: &No) -> io::Result<()> {
    match no {
        No::Unknown => answer(stream, option, REP_ERR_UNKNOWN, b""),
        No::Policy(why) => {
            let bytes = &why.as_bytes()[..why.floor_char_boundary(MAX_NAME_BYTES)];
            answer(stream, option, REP_ERR_POLICY, bytes)
        }
    }
}

fn answer(stream: &mut impl Write, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let mut frame = OPTION_REPLY.to_be_bytes().to_vec();
    frame.extend_from_slice(&option.to_be_bytes());
    frame.extend_from_slice(&kind.to_be_bytes());
    frame.extend_from_slice(&(data.len() as u32).to_be_bytes());
    frame.extend_from_slice(data);
    send(stream, &frame)
}

/// Why a request is not carried out: an error of [`Reply`]; 0 if it may be.
pub fn judge(request: &Request, export: &Export) -> u32 {
    let writes = matches!(
        request.command,
        Command::Write | Command::Trim | Command::WriteZeroes
    );
    let known = match request.command {
        Command::WriteZeroes => Request::FUA | Request::NO_HOLE,
        _ => Request::FUA,
    };
    if let Command::Other(_) = request.command {
        return Reply::EINVAL;
    }
    if writes && export.flags.has(ExportFlags::READ_ONLY) {
        return Reply::EPERM;
    }
    if request.flags & !known != 0 {
        return Reply::EINVAL;
    }
    if matches!(request.command, Command::Flush | Command::Disconnect) {
        return 0;
    }
    let bytes = u64::from(request.bytes);
    let carries = matches!(request.command, Command::Read | Command::Write);
    if carries && request.bytes > export.payload_bytes {
        return Reply::EOVERFLOW;
    }
    match request.offset.checked_add(bytes) {
        Some(end) if end <= export.bytes => 0,
        // A write behind the end is like one on a full disk.
        _ if writes => Reply::ENOSPC,
        _ => Reply::EINVAL,
    }
}

#[cfg(test)]
mod tests;
