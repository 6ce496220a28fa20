//! A disk whose contents are at an NBD server.
//!
//! [`NbdTarget`] is an export that has been looked at, [`NbdDisk`] one at work: it takes the same
//! requests as [`crate::disk::Disk`] and gives the same results.
//!
//! A server that is away is no error to the guest: its requests wait, and are asked for again when
//! the server is there. Connections are made again without an end, since nothing better can be done
//! with a disk that is missing; a person hears of it once. What the guest does hear of is what a
//! server says of a single request: an I/O error, no room, no right.

mod link;
pub(crate) mod stream;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use twinvm_machine::{DiskRequest, SECTOR_BYTES};
use twinvm_nbd::address::{Address, Server};
use twinvm_nbd::client::{Claimed, Haggle, HaggleError};
use twinvm_nbd::wire::{Claim, DEFAULT_BLOCK_BYTES, Export, ExportFlags, Reader};
use twinvm_protocol::NoteLevel;

use crate::disk::DiskDone;
use crate::fence::{Fence, Fencing};
use crate::tls::Credentials;
use link::Link;
use stream::Timed;

/// Connecting and haggling together take at most this long.
const HAGGLE_LIMIT: Duration = Duration::from_secs(10);
/// How long the end of a run waits for what is under way.
const REST_LIMIT: Duration = Duration::from_secs(10);

/// What is to be a disk.
#[derive(Clone)]
pub struct NbdSpec {
    /// Where it is.
    pub address: Address,
    /// Whether the guest can only read.
    pub read_only: bool,
    /// The keys for `nbds://`.
    pub keys: Option<Credentials>,
    /// Who wants it, for servers that can keep others off.
    pub claim: Claim,
    /// It is not claimed, only read, beside whoever has claimed it.
    pub beside: bool,
    /// What keeps others off where the server can't: [`NbdTarget::behind`].
    pub fencing: Option<Fencing>,
}

/// An export can't be a disk.
#[derive(Debug, thiserror::Error)]
#[error("disk {address}: {why}")]
pub struct NbdError {
    /// The export.
    pub address: Address,
    /// What is wrong with it, and what to do.
    pub why: String,
    /// Whether it may be well by itself in a moment: nobody has answered.
    pub passing: bool,
}

/// An export that can be a disk.
pub struct NbdTarget {
    spec: NbdSpec,
    export: Export,
    /// The connection over which it was claimed, if it was.
    open: Option<Open>,
}

/// A connection that carries requests from now on.
struct Open {
    stream: stream::Stream,
    export: Export,
    fenced: bool,
}

impl NbdTarget {
    /// Asks what the export is, and touches nothing of it.
    ///
    /// # Errors
    /// [`NbdError`].
    pub fn look(spec: NbdSpec) -> Result<Self, NbdError> {
        let export = spec.attempt(|spec| {
            let mut haggle = spec.haggle()?;
            let export = haggle.info(&spec.address.export)?;
            haggle.leave();
            Ok(export)
        })?;
        Self::of(spec, export, None)
    }

    /// Claims the export and begins to use it.
    ///
    /// # Errors
    /// [`NbdError`].
    pub fn open(spec: NbdSpec) -> Result<Self, NbdError> {
        let open = spec.attempt(NbdSpec::enter)?;
        Self::of(spec, open.export, Some(open))
    }

    fn of(spec: NbdSpec, export: Export, open: Option<Open>) -> Result<Self, NbdError> {
        let bad = |why: String| {
            Err(NbdError {
                address: spec.address.clone(),
                why,
                passing: false,
            })
        };
        if let Err(why) = fits(&spec, &export) {
            return bad(why);
        }
        if export.bytes == 0 {
            return bad("the export is empty: give it a size".to_owned());
        }
        if !export.bytes.is_multiple_of(SECTOR_BYTES) {
            let bytes = export.bytes;
            return bad(format!(
                "{bytes} bytes are not a multiple of {SECTOR_BYTES}: export whole sectors, for \
                 instance with nbdkit's filter truncate (round-up={SECTOR_BYTES})"
            ));
        }
        if i64::try_from(export.bytes).is_err() {
            return bad(format!("{} bytes are no size of a disk", export.bytes));
        }
        Ok(Self { spec, export, open })
    }

    /// Its capacity in sectors.
    pub fn sectors(&self) -> u64 {
        self.export.bytes / SECTOR_BYTES
    }

    /// Whether the guest can only read.
    pub fn read_only(&self) -> bool {
        self.spec.read_only
    }

    /// The same export behind a command that keeps others off, for a server that can't.
    pub fn behind(mut self, fence: Fence) -> Self {
        self.spec.fencing = Some(Fencing {
            fence: Arc::new(fence),
            takeover: false,
        });
        self
    }

    /// The same export, to be claimed by this generation; from another node, if it is a takeover.
    pub fn claimed_by(&self, generation: u64, takeover: bool) -> Self {
        let mut spec = self.spec.clone();
        spec.claim.generation = generation;
        if let Some(fencing) = &mut spec.fencing {
            fencing.takeover = takeover;
        }
        Self {
            spec,
            export: self.export,
            open: None,
        }
    }

    /// The same export, to be read and no more while another node has it.
    pub fn read_beside(&self) -> Self {
        let spec = NbdSpec {
            read_only: true,
            beside: true,
            // It keeps nobody off.
            fencing: None,
            ..self.spec.clone()
        };
        Self {
            spec,
            export: self.export,
            open: None,
        }
    }

    /// Whether the server lets a node read that has not claimed the export, and what it reads is
    /// what the other one has written.
    ///
    /// # Errors
    /// [`NbdError`]: it can't be asked.
    pub fn lets_others_read(&self) -> Result<bool, NbdError> {
        let alike = self.spec.read_only || self.export.flags.has(ExportFlags::CAN_MULTI_CONN);
        self.spec.attempt(|spec| {
            let mut haggle = spec.haggle()?;
            let lets = haggle.knows_readers()? || !haggle.knows_claims()?;
            haggle.leave();
            Ok(lets && alike)
        })
    }

    /// Whether the server keeps off whoever has an older claim.
    ///
    /// # Errors
    /// [`NbdError`]: it can't be asked.
    pub fn keeps_others_off(&self) -> Result<bool, NbdError> {
        self.spec.attempt(|spec| {
            let mut haggle = spec.haggle()?;
            let knows = haggle.knows_claims()?;
            haggle.leave();
            Ok(knows)
        })
    }
}

/// Why an export can't be used like this, if so.
fn fits(spec: &NbdSpec, export: &Export) -> Result<(), String> {
    if !spec.read_only && export.flags.has(ExportFlags::READ_ONLY) {
        return Err(
            "the export is read-only: export it for writing, or set readonly = true".to_owned(),
        );
    }
    if export.block_bytes > DEFAULT_BLOCK_BYTES {
        let bytes = export.block_bytes;
        return Err(format!(
            "its smallest block has {bytes} bytes, a VM's sectors have {SECTOR_BYTES}: export it \
             with smaller ones, for instance with nbdkit's filter blocksize"
        ));
    }
    Ok(())
}

/// Why a connection can't be used.
enum Failure {
    /// Nobody is there, or nobody answers.
    Away(String),
    /// Somebody is there, and a person must mend something.
    Refused(String),
}

impl From<HaggleError> for Failure {
    fn from(error: HaggleError) -> Self {
        match error.is_refusal() {
            true => Self::Refused(format!("the server {error}")),
            false => Self::Away(format!("the server {error}")),
        }
    }
}

impl NbdSpec {
    fn attempt<T>(&self, what: impl FnOnce(&Self) -> Result<T, Failure>) -> Result<T, NbdError> {
        what(self).map_err(|failure| {
            let (why, passing) = match failure {
                Failure::Away(why) => (why, true),
                Failure::Refused(why) => (why, false),
            };
            NbdError {
                address: self.address.clone(),
                why,
                passing,
            }
        })
    }

    /// A connection on which the two have greeted each other, by TLS if the address says so.
    fn haggle(&self) -> Result<Haggle<Timed>, Failure> {
        let until = Instant::now() + HAGGLE_LIMIT;
        let stream = stream::dial(&self.address.server, until).map_err(|error| {
            Failure::Away(match error.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                    "nobody listens there: start the server".to_owned()
                }
                io::ErrorKind::PermissionDenied => {
                    "this user may not connect to its socket: give it a right to it".to_owned()
                }
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                    "the server does not answer".to_owned()
                }
                _ => error.to_string(),
            })
        })?;
        let haggle = Haggle::greet(Timed::new(stream, until))?;
        let Server::Tcp { tls: true, .. } = self.address.server else {
            return Ok(haggle);
        };
        let Some(keys) = &self.keys else {
            return Err(Failure::Refused(
                "nbds:// takes the keys of [tls] in VM.toml".to_owned(),
            ));
        };
        let stream = haggle.start_tls()?.into_inner();
        let stream = stream.secure(keys, until).map_err(|error| {
            let why = format!("the server: {error}");
            match error.is_refusal() {
                true => Failure::Refused(why),
                false => Failure::Away(why),
            }
        })?;
        Ok(Haggle::resume(Timed::new(stream, until)))
    }

    /// A connection that carries requests from now on. Whoever had the export before by an older
    /// claim is cut off, if the server knows claims.
    fn enter(&self) -> Result<Open, Failure> {
        let mut haggle = self.haggle()?;
        let claimed = match self.beside {
            true => {
                let Claim { vm, holder, .. } = self.claim.clone();
                haggle.read_beside(&self.address.export, &Reader { vm, holder })?;
                Claimed::Unknown
            }
            false => haggle.claim(&self.address.export, &self.claim)?,
        };
        let (export, stream) = haggle.go(&self.address.export)?;
        Ok(Open {
            stream: stream.into_inner(),
            export,
            fenced: claimed == Claimed::Held,
        })
    }
}

/// Where lines for a person go, and how bad what they say is.
pub type Tell = Arc<dyn Fn(NoteLevel, String) + Send + Sync>;

/// A disk at work. Dropping it waits a little for the requests under way.
pub struct NbdDisk {
    link: Link,
}

impl NbdDisk {
    /// Starts to use the export; results go to `done`, which must have room for
    /// [`twinvm_machine::MAX_DISK_REQUESTS`] of each disk. `tell` hears what a person should know.
    ///
    /// # Errors
    /// No thread.
    pub fn start(target: NbdTarget, done: &Sender<DiskDone>, tell: Tell) -> io::Result<Self> {
        Ok(Self {
            link: Link::start(target, done.clone(), tell)?,
        })
    }

    /// Carries a request out. Never waits. Next hop: a [`DiskDone`].
    pub fn submit(&self, request: DiskRequest) {
        self.link.submit(request);
    }

    /// Whether the server keeps off whoever has an older claim. Only known once a connection has
    /// been made.
    pub fn is_fenced(&self) -> bool {
        self.link.is_fenced()
    }

    /// Why the guest's requests wait, if they do.
    pub fn waits(&self) -> Option<String> {
        self.link.waits()
    }

    /// Ends it now, and waits for nothing: what is under way is nobody's any more.
    pub fn abandon(mut self) {
        self.link.abandon();
    }

    /// Brings the export to rest: waits for the requests under way, whose results may be left where
    /// they are, and has the server make durable what was written. No request is taken after it.
    ///
    /// # Errors
    /// [`NbdError`]: the server is away, or could not.
    pub fn rest(&mut self) -> Result<(), NbdError> {
        self.link.rest(REST_LIMIT)
    }
}

#[cfg(test)]
mod tests;
