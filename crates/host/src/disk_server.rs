//! A small NBD server that can keep a former live node off a disk: `twinvm disk serve`.
//!
//! An export belongs to the highest generation that has claimed it ([`exported`]). A claim is
//! answered when it is durable, whoever was there before is cut off, and each of his requests is
//! either done by then or never will be. Clients that claim nothing get an export that nobody has
//! claimed; the backup of a VM that has claimed one may read it.
//!
//! One thread listens; each connection has one that reads ([`connection`]) and a few that carry
//! requests out. Connections, requests and what they carry are bounded.

mod connection;
mod exported;

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::disk::DiskFile;
use crate::reception::{Ear, Reception, Room};
use crate::tls::Credentials;

pub use exported::{Exported, HolderError};

/// Exports of one server.
pub const MAX_EXPORTS: usize = 16;
/// Connections at one time: more than all exports have seats for, so that somebody who still
/// haggles can always make room.
const MAX_CONNECTIONS: usize = 192;
/// A client must have said what it wants within this time.
const HAGGLE_LIMIT: Duration = Duration::from_secs(10);
/// How long the end waits for the threads.
const WAKE_LIMIT: Duration = Duration::from_secs(2);

/// The server can't start.
#[derive(Debug, thiserror::Error)]
pub enum DiskServerError {
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
    /// Two exports of one name.
    #[error("two exports are named {0}: give each its own, as NAME=FILE")]
    Names(String),
    /// Too many.
    #[error("{0} exports, and {MAX_EXPORTS} are the most: start another server")]
    Many(usize),
    /// What is known about who has an export.
    #[error(transparent)]
    Holder(#[from] HolderError),
    /// The host refuses a thread.
    #[error("starting a thread: {0}")]
    Thread(io::Error),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all connections share.
struct Door {
    exports: Vec<Arc<Exported>>,
    keys: Option<Credentials>,
    ear: Ear,
    guests: Mutex<Vec<Guest>>,
}

/// An open connection, as others see it.
struct Guest {
    number: u64,
    socket: TcpStream,
    /// It has said what it wants.
    seated: bool,
}

impl Room for Door {
    const THREADS: [&'static str; 2] = ["disk listen", "disk client"];

    /// Lets one in; of those that have not said what they want, the first makes room.
    fn enter(&self, number: u64, socket: TcpStream) -> bool {
        let mut guests = lock(&self.guests);
        if guests.len() >= MAX_CONNECTIONS {
            let Some(at) = guests.iter().position(|guest| !guest.seated) else {
                return false;
            };
            let _ = guests.remove(at).socket.shutdown(Shutdown::Both);
        }
        guests.push(Guest {
            number,
            socket,
            seated: false,
        });
        true
    }

    fn serve(&self, number: u64, socket: TcpStream) {
        // However it ends, the client makes another one.
        let _ = connection::serve(self, number, socket);
    }

    fn leave(&self, number: u64) {
        lock(&self.guests).retain(|guest| guest.number != number);
    }
}

impl Door {
    fn seated(&self, number: u64) {
        let mut guests = lock(&self.guests);
        if let Some(guest) = guests.iter_mut().find(|guest| guest.number == number) {
            guest.seated = true;
        }
    }
}

/// The server. Dropping it closes all connections and ends the listening.
pub struct DiskServer {
    reception: Reception,
    door: Arc<Door>,
}

impl DiskServer {
    /// Listens at `listen` (port 0 takes a free one), which must be a loopback address if there
    /// are no `keys`, and exports these files by their names. Beside each file lies what is known
    /// about who has it. With `keys` every client must be one whom they expect; `tell` hears of
    /// takeovers, and of those that were refused.
    ///
    /// # Errors
    /// [`DiskServerError`].
    pub fn start(
        listen: SocketAddr,
        files: Vec<(String, DiskFile)>,
        keys: Option<Credentials>,
        tell: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<Self, DiskServerError> {
        if keys.is_none() && !listen.ip().is_loopback() {
            return Err(DiskServerError::NotLoopback(listen));
        }
        if files.len() > MAX_EXPORTS {
            return Err(DiskServerError::Many(files.len()));
        }
        for (n, (name, _)) in files.iter().enumerate() {
            if files[..n].iter().any(|(other, _)| other == name) {
                return Err(DiskServerError::Names(name.clone()));
            }
        }
        let exports = files
            .into_iter()
            .map(|(name, file)| Ok(Arc::new(Exported::open(name, file)?)))
            .collect::<Result<_, HolderError>>()?;
        let failed = |source| DiskServerError::Listen {
            address: listen,
            source,
        };
        let listener = TcpListener::bind(listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let door = Arc::new(Door {
            exports,
            keys,
            ear: Ear::new(tell),
            guests: Mutex::default(),
        });
        let reception = Reception::open(listener, address, Arc::clone(&door))
            .map_err(DiskServerError::Thread)?;
        Ok(Self { reception, door })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.reception.address()
    }
}

impl Drop for DiskServer {
    fn drop(&mut self) {
        self.reception.close();
        for guest in lock(&self.door.guests).iter() {
            let _ = guest.socket.shutdown(Shutdown::Both);
        }
        // Whoever is still there holds the files, and their locks.
        let until = Instant::now() + WAKE_LIMIT;
        while Arc::strong_count(&self.door) > 1 && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests;
