//! The small server: one register per VM, each in a folder of its own.
//!
//! ```text
//! DIR/vm.NAME/rec.<g>     as crate::arbiter_file writes it
//! ```
//!
//! A change is answered when it is durable, and nothing is kept in memory that would have to
//! be: the server may be killed and started again at any time, also twice on one folder.
//!
//! One thread per connection. Connections, registers and frames are bounded; one that sends
//! half a frame or nothing is closed, and when there are too many the one that has been silent
//! longest goes.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use twinvm_protocol::arbiter::wire::{
    Answer, Ask, Request, Told, VmName, decode_request, encode_answer,
};
use twinvm_protocol::{ArbiterContract, Generation, Outcome};

use super::stream::{self, Stream};
use crate::arbiter_file::{FileArbiter, FileArbiterError};
use crate::arbiter_worker::ArbiterBackend;
use crate::durable::sync_dir;
use crate::reception::{Ear, Reception, Room};
use crate::tls::Credentials;

/// Registers that a server keeps. Each is a folder with some small files.
pub const MAX_VMS: usize = 1024;
/// Connections at one time: two nodes for each of some dozens of VMs. Each is a thread.
pub const MAX_CONNECTIONS: usize = 128;
/// A connection that asks nothing for this long is closed; clients make a new one.
pub const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// A frame that has begun must be whole within this time, and an answer taken.
pub const FRAME_LIMIT: Duration = Duration::from_secs(2);
/// What the folders of registers begin with.
const PREFIX: &str = "vm.";

/// The server can't start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Not on this host alone, and no keys.
    #[error(
        "{0}: without --keys it listens on a loopback address only, such as 127.0.0.1: make keys as twinvm keys --help shows"
    )]
    NotLoopback(SocketAddr),
    /// The port can't be had.
    #[error(
        "{address}: can't listen there: {source}: choose an address of this host and a port that no other program has"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Its folder can't serve.
    #[error(transparent)]
    Folder(#[from] FileArbiterError),
    /// The host refuses a thread.
    #[error("starting the arbiter's thread: {0}")]
    Thread(io::Error),
}

/// The folder of all registers.
#[derive(Debug)]
struct Registers {
    folder: PathBuf,
    /// Those whose folder's name is known to be durable.
    durable: Mutex<BTreeSet<VmName>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registers {
    /// Checks the folder and clears away what killed servers left in it.
    fn open(folder: &Path) -> Result<Registers, FileArbiterError> {
        FileArbiter::open(folder)?;
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if is_register(&entry) {
                FileArbiter::at(&entry.path()).tidy();
            }
        }
        Ok(Registers {
            folder: folder.to_owned(),
            durable: Mutex::default(),
        })
    }

    /// The register of `vm`, made if it is missing and `make` says so.
    fn register(&self, vm: &VmName, make: bool) -> Result<Option<FileArbiter>, String> {
        let path = self.folder.join(format!("{PREFIX}{vm}"));
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let mut durable = lock(&self.durable);
        if !durable.contains(vm) {
            if !path.try_exists().map_err(failed)? {
                if !make {
                    return Ok(None);
                }
                let entries = fs::read_dir(&self.folder).map_err(failed)?;
                let count = entries.flatten().filter(is_register).count();
                if count >= MAX_VMS {
                    return Err(format!(
                        "{count} VMs have a record here, more are not taken: remove the folders \
                         of those that are no more, or serve another folder"
                    ));
                }
                match DirBuilder::new().mode(0o755).create(&path) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(failed(error));
                    }
                    _ => {}
                }
            }
            // Whoever made it may have been killed before it came to this.
            sync_dir(&self.folder).map_err(failed)?;
            durable.insert(vm.clone());
        }
        Ok(Some(FileArbiter::at(&path)))
    }
}

fn is_register(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    name.to_str().is_some_and(|name| name.starts_with(PREFIX))
}

/// An open connection, as others see it.
#[derive(Debug)]
struct Guest {
    number: u64,
    socket: TcpStream,
    /// When it last asked; `None` while it is being answered.
    silent_since: Option<Instant>,
}

/// Who is connected.
#[derive(Debug, Default)]
struct Guests(Mutex<Vec<Guest>>);

impl Guests {
    /// Lets one in; the one that has been silent longest makes room. False if all are being
    /// answered.
    fn enter(&self, number: u64, socket: TcpStream) -> bool {
        let mut guests = lock(&self.0);
        if guests.len() >= MAX_CONNECTIONS {
            let silent = guests.iter().enumerate();
            let silent = silent.filter_map(|(at, guest)| Some((guest.silent_since?, at)));
            let Some((_, at)) = silent.min() else {
                return false;
            };
            let _ = guests.swap_remove(at).socket.shutdown(Shutdown::Both);
        }
        guests.push(Guest {
            number,
            socket,
            silent_since: Some(Instant::now()),
        });
        true
    }

    /// Marks the beginning or the end of an answer. False if the guest was sent away.
    fn mark(&self, number: u64, silent_since: Option<Instant>) -> bool {
        let mut guests = lock(&self.0);
        let guest = guests.iter_mut().find(|guest| guest.number == number);
        guest
            .map(|guest| guest.silent_since = silent_since)
            .is_some()
    }

    fn leave(&self, number: u64) {
        lock(&self.0).retain(|guest| guest.number != number);
    }

    fn all_leave(&self) {
        for guest in lock(&self.0).drain(..) {
            let _ = guest.socket.shutdown(Shutdown::Both);
        }
    }
}

/// What all connections share.
struct Door {
    registers: Registers,
    keys: Option<Credentials>,
    ear: Ear,
    guests: Arc<Guests>,
}

impl Door {
    /// The client's stream, if it is one that may come in.
    fn let_in(&self, socket: TcpStream) -> Option<Box<dyn Stream>> {
        let from = socket.peer_addr();
        match stream::accept(socket, self.keys.as_ref(), Instant::now() + FRAME_LIMIT) {
            Ok(stream) => Some(stream),
            Err(error) => {
                if let Ok(from) = from {
                    self.ear.refused(format_args!("{from} is refused: {error}"));
                }
                None
            }
        }
    }
}

impl Room for Door {
    const THREADS: [&'static str; 2] = ["arbiter listen", "arbiter client"];

    fn enter(&self, number: u64, socket: TcpStream) -> bool {
        self.guests.enter(number, socket)
    }

    fn serve(&self, number: u64, socket: TcpStream) {
        if let Some(mut stream) = self.let_in(socket) {
            // However it ends, the client makes another one.
            let _ = serve(&mut *stream, number, &self.registers, &self.guests);
        }
    }

    fn leave(&self, number: u64) {
        self.guests.leave(number);
    }
}

/// The server. Dropping it closes all connections and ends the listening.
#[derive(Debug)]
pub struct ArbiterServer {
    reception: Reception,
    guests: Arc<Guests>,
}

impl ArbiterServer {
    /// Listens at `listen` (port 0 takes a free one), which must be a loopback address if there
    /// are no `keys`, and keeps the records in `folder`, which is made if need be. With `keys`
    /// every client must be one whom they expect; `tell` hears of those that were refused, at
    /// most one line a second.
    pub fn start(
        listen: SocketAddr,
        folder: &Path,
        keys: Option<Credentials>,
        tell: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<ArbiterServer, ServerError> {
        if keys.is_none() && !listen.ip().is_loopback() {
            return Err(ServerError::NotLoopback(listen));
        }
        let failed = |source| ServerError::Listen {
            address: listen,
            source,
        };
        let listener = TcpListener::bind(listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let guests = Arc::new(Guests::default());
        let door = Arc::new(Door {
            registers: Registers::open(folder)?,
            keys,
            ear: Ear::new(tell),
            guests: Arc::clone(&guests),
        });
        let reception = Reception::open(listener, address, door).map_err(ServerError::Thread)?;
        Ok(ArbiterServer { reception, guests })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.reception.address()
    }
}

impl Drop for ArbiterServer {
    fn drop(&mut self) {
        self.reception.close();
        self.guests.all_leave();
    }
}

/// Answers one client until it is silent, talks nonsense or is sent away.
fn serve(
    stream: &mut dyn Stream,
    number: u64,
    registers: &Registers,
    guests: &Guests,
) -> io::Result<()> {
    let mut last: Option<(VmName, FileArbiter)> = None;
    loop {
        let body = stream::read_frame(stream, Instant::now() + IDLE_LIMIT, FRAME_LIMIT)?;
        let request = decode_request(&body)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if !guests.mark(number, None) {
            return Ok(());
        }
        let answer = Answer {
            number: request.number,
            told: answer(&request, registers, &mut last),
        };
        let sent = stream::write_all(
            stream,
            &encode_answer(&answer),
            Instant::now() + FRAME_LIMIT,
        );
        guests.mark(number, Some(Instant::now()));
        sent?;
    }
}

/// Carries a request out. `last` is the register that this client asked for last.
fn answer(
    request: &Request,
    registers: &Registers,
    last: &mut Option<(VmName, FileArbiter)>,
) -> Told {
    if last.as_ref().is_none_or(|(vm, _)| *vm != request.vm) {
        *last = None;
        // Only a first record makes a register.
        let make = matches!(request.ask, Ask::Cas { expect, .. } if expect == Generation(0));
        match registers.register(&request.vm, make) {
            Ok(Some(register)) => *last = Some((request.vm.clone(), register)),
            Ok(None) => {
                return match request.ask {
                    Ask::Read => Told::Read(None),
                    Ask::Cas { .. } => Told::Lost(None),
                };
            }
            Err(why) => return Told::Failed(why),
        }
    }
    let Some((_, register)) = last else {
        return Told::Failed("no register".to_owned());
    };
    let outcome = match request.ask {
        Ask::Read => register.read(),
        Ask::Cas { expect, record } => register.cas(expect, record),
    };
    match outcome {
        Outcome::Read(record) => Told::Read(record),
        Outcome::Won(record) => Told::Won(record),
        Outcome::Lost(record) => Told::Lost(record),
        Outcome::Unknown => {
            let why = register.take_trouble();
            Told::Failed(why.unwrap_or_else(|| "unknown".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests;
