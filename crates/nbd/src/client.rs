//! What a client says before it reads and writes.

use std::io::{self, ErrorKind, Read, Write};

use crate::wire::*;

/// A server is not one that this client can use.
#[derive(Debug, thiserror::Error)]
pub enum HaggleError {
    /// The connection.
    #[error("{}", broken(.0))]
    Io(#[from] io::Error),
    /// Something else listens there.
    #[error("speaks something else than NBD")]
    NotNbd,
    /// It stopped being developed in 2011.
    #[error(
        "speaks the old NBD handshake: use a server with the fixed newstyle one, such as nbdkit or qemu-nbd"
    )]
    OldStyle,
    /// An answer that means nothing.
    #[error("answers {0}, which is not the NBD protocol")]
    Garbled(&'static str),
    /// The server doesn't want to.
    #[error("{}", refusal(*.code, .text))]
    Refused {
        /// The kind of error (`NBD_REP_ERR_…`), without its highest bit.
        code: u32,
        /// What it says.
        text: String,
    },
}

impl HaggleError {
    /// Whether a person has to mend something; otherwise time may.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::Io(_))
    }
}

fn broken(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::UnexpectedEof => "closed the connection".to_owned(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "does not answer".to_owned(),
        _ => error.to_string(),
    }
}

fn refusal(code: u32, text: &str) -> String {
    let meaning = match code | REP_ERROR {
        REP_ERR_UNSUP => "does not know what it is asked",
        REP_ERR_TLS_REQD => "wants TLS: use nbds://",
        REP_ERR_UNKNOWN => "has no export of this name",
        _ => "refuses",
    };
    match text.is_empty() {
        true => meaning.to_owned(),
        false => format!("{meaning}: {text}"),
    }
}

/// How a server has answered a [`Claim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The export is this client's.
    Held,
    /// The server knows no claims: it can't keep anybody off.
    Unknown,
}

/// A connection whose two ends have greeted each other.
#[derive(Debug)]
pub struct Haggle<S> {
    stream: S,
}

impl<S: Read + Write> Haggle<S> {
    /// Hears the server's greeting and answers it.
    ///
    /// # Errors
    /// [`HaggleError`].
    pub fn greet(mut stream: S) -> Result<Self, HaggleError> {
        if read_u64(&mut stream)? != GREETING {
            return Err(HaggleError::NotNbd);
        }
        match read_u64(&mut stream)? {
            OPTION => {}
            OLD_STYLE => return Err(HaggleError::OldStyle),
            _ => return Err(HaggleError::NotNbd),
        }
        let flags = u16::from_be_bytes(read_array(&mut stream)?);
        if flags & FLAG_FIXED_NEWSTYLE == 0 {
            return Err(HaggleError::OldStyle);
        }
        let ours = u32::from(FLAG_FIXED_NEWSTYLE | flags & FLAG_NO_ZEROES);
        send(&mut stream, &ours.to_be_bytes())?;
        Ok(Self { stream })
    }

    /// Goes on over `stream`, on which the two have greeted each other before it became TLS.
    pub fn resume(stream: S) -> Self {
        Self { stream }
    }

    /// Asks for TLS; the stream is ready for the client's first word of it.
    ///
    /// # Errors
    /// [`HaggleError`].
    pub fn start_tls(mut self) -> Result<S, HaggleError> {
        self.ask(OPT_STARTTLS, &[])?;
        match self.answer(OPT_STARTTLS)? {
            (REP_ACK, _) => Ok(self.stream),
            (other, data) => Err(unfit(other, &data)),
        }
    }

    /// Claims an export.
    ///
    /// # Errors
    /// [`HaggleError::Refused`]: somebody else has it. Or another [`HaggleError`].
    pub fn claim(&mut self, export: &str, claim: &Claim) -> Result<Claimed, HaggleError> {
        self.ask(OPT_CLAIM, &claim.encode(export))?;
        match self.answer(OPT_CLAIM)? {
            (REP_ACK, _) => Ok(Claimed::Held),
            (REP_ERR_UNSUP, _) => Ok(Claimed::Unknown),
            (other, data) => Err(unfit(other, &data)),
        }
    }

    /// Asks to read an export beside whoever has claimed it. A server that knows no claims keeps
    /// nobody off, so there is nothing to ask it for.
    ///
    /// # Errors
    /// [`HaggleError::Refused`]: not by this one, or not now. Or another [`HaggleError`].
    pub fn read_beside(&mut self, export: &str, reader: &Reader) -> Result<(), HaggleError> {
        self.ask(OPT_READ, &reader.encode(export))?;
        match self.answer(OPT_READ)? {
            (REP_ACK | REP_ERR_UNSUP, _) => Ok(()),
            (other, data) => Err(unfit(other, &data)),
        }
    }

    /// Whether the server knows claims. Changes nothing: it is asked with half of one.
    ///
    /// # Errors
    /// [`HaggleError`].
    pub fn knows_claims(&mut self) -> Result<bool, HaggleError> {
        self.knows(OPT_CLAIM)
    }

    /// Whether the server knows who reads beside a claim. Changes nothing.
    ///
    /// # Errors
    /// [`HaggleError`].
    pub fn knows_readers(&mut self) -> Result<bool, HaggleError> {
        self.knows(OPT_READ)
    }

    fn knows(&mut self, option: u32) -> Result<bool, HaggleError> {
        self.ask(option, &[])?;
        match self.answer(option)? {
            (REP_ERR_INVALID, _) => Ok(true),
            (REP_ERR_UNSUP, _) => Ok(false),
            (other, data) => Err(unfit(other, &data)),
        }
    }

    /// Asks what an export is, and touches nothing of it.
    ///
    /// # Errors
    /// [`HaggleError`].
    pub fn info(&mut self, export: &str) -> Result<Export, HaggleError> {
        self.describe(OPT_INFO, export)
    }

    /// Begins to use an export. From then on the stream carries requests and answers.
    ///
    /// # Errors
    /// [`HaggleError`].
    pub fn go(mut self, export: &str) -> Result<(Export, S), HaggleError> {
        let export = self.describe(OPT_GO, export)?;
        Ok((export, self.stream))
    }

    /// Leaves, as politely as the server lets one.
    pub fn leave(mut self) {
        let _ = self.ask(OPT_ABORT, &[]);
    }

    fn describe(&mut self, option: u32, export: &str) -> Result<Export, HaggleError> {
        let mut data = (export.len() as u32).to_be_bytes().to_vec();
        data.extend_from_slice(export.as_bytes());
        data.extend_from_slice(&1u16.to_be_bytes());
        data.extend_from_slice(&INFO_BLOCK_SIZE.to_be_bytes());
        self.ask(option, &data)?;
        let mut found = None;
        let mut blocks = (DEFAULT_BLOCK_BYTES, DEFAULT_PAYLOAD_BYTES);
        for _ in 0..MAX_OPTIONS {
            let (kind, data) = self.answer(option)?;
            match kind {
                REP_INFO => {
                    let short = HaggleError::Garbled("half a description");
                    let mut fields = Fields(&data);
                    match fields.u16() {
                        Some(INFO_EXPORT) => {
                            let size = fields.u64().zip(fields.u16()).ok_or(short)?;
                            found = Some(size);
                        }
                        Some(INFO_BLOCK_SIZE) => {
                            let least = fields.u32();
                            let _preferred = fields.u32();
                            blocks = least.zip(fields.u32()).ok_or(short)?;
                        }
                        // What was not asked for may be said.
                        Some(_) => {}
                        None => return Err(short),
                    }
                }
                REP_ACK => {
                    let (bytes, flags) =
                        found.ok_or(HaggleError::Garbled("without the export's size"))?;
                    return export_of(bytes, flags, blocks);
                }
                other => return Err(unfit(other, &data)),
            }
        }
        Err(HaggleError::Garbled("without an end"))
    }

    fn ask(&mut self, option: u32, data: &[u8]) -> io::Result<()> {
        let mut frame = OPTION.to_be_bytes().to_vec();
        frame.extend_from_slice(&option.to_be_bytes());
        frame.extend_from_slice(&(data.len() as u32).to_be_bytes());
        frame.extend_from_slice(data);
        send(&mut self.stream, &frame)
    }

    /// The kind of an answer, and its data.
    fn answer(&mut self, option: u32) -> Result<(u32, Vec<u8>), HaggleError> {
        if read_u64(&mut self.stream)? != OPTION_REPLY {
            return Err(HaggleError::Garbled("no option"));
        }
        if read_u32(&mut self.stream)? != option {
            return Err(HaggleError::Garbled("what was not asked"));
        }
        let kind = read_u32(&mut self.stream)?;
        let bytes = read_u32(&mut self.stream)? as usize;
        if bytes > MAX_OPTION_BYTES {
            return Err(HaggleError::Garbled("more than there is to say"));
        }
        let mut data = vec![0; bytes];
        self.stream.read_exact(&mut data)?;
        Ok((kind, data))
    }
}

fn export_of(bytes: u64, flags: u16, (least, most): (u32, u32)) -> Result<Export, HaggleError> {
    let sound = least.is_power_of_two()
        && least <= MAX_BLOCK_BYTES
        && most >= least.max(DEFAULT_BLOCK_BYTES)
        && (most == u32::MAX || most.is_multiple_of(least));
    if !sound {
        return Err(HaggleError::Garbled("sizes of blocks that can't be"));
    }
    let flags = match flags & ExportFlags::HAS_FLAGS {
        0 => 0,
        _ => flags,
    };
    Ok(Export {
        bytes,
        flags: ExportFlags(flags),
        block_bytes: least,
        payload_bytes: most,
    })
}

fn unfit(kind: u32, data: &[u8]) -> HaggleError {
    match kind & REP_ERROR {
        0 => HaggleError::Garbled("what was not asked"),
        _ => HaggleError::Refused {
            code: kind & !REP_ERROR,
            text: one_line(data),
        },
    }
}
