//! A server's door: a thread that listens, one for each client, and who hears of those that are
//! not let in.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Pause after an error of the host, such as no free descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the end tries to wake the thread that listens.
const WAKE_LIMIT: Duration = Duration::from_secs(2);
/// Refusals are told at most this often.
const TELL_EACH: Duration = Duration::from_secs(1);

/// Where clients are served.
pub(crate) trait Room: Send + Sync + 'static {
    /// Names of the threads: that which listens, and those of clients.
    const THREADS: [&'static str; 2];

    /// Lets one in, or not. Must not wait.
    fn enter(&self, number: u64, socket: TcpStream) -> bool;

    /// Serves one that was let in, to its end.
    fn serve(&self, number: u64, socket: TcpStream);

    /// It is gone.
    fn leave(&self, number: u64);
}

/// Lets clients into a room. Dropping it ends the listening, and leaves those in the room.
#[derive(Debug)]
pub(crate) struct Reception {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Reception {
    /// Begins to accept.
    ///
    /// # Errors
    /// No thread.
    pub(crate) fn open<R: Room>(
        listener: TcpListener,
        address: SocketAddr,
        room: Arc<R>,
    ) -> io::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let listening = {
            let ended = Arc::clone(&ended);
            let [name, _] = R::THREADS;
            thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || accept_all(&listener, &room, &ended))?
        };
        Ok(Self {
            address,
            ended,
            listening: Some(listening),
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the listening: nobody comes in any more.
    pub(crate) fn close(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let Some(listening) = self.listening.take() else {
            return;
        };
        // Wakes the thread that waits for the next one.
        if TcpStream::connect_timeout(&self.address, WAKE_LIMIT).is_ok() {
            let _ = listening.join();
        }
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        self.close();
    }
}

fn accept_all<R: Room>(listener: &TcpListener, room: &Arc<R>, ended: &AtomicBool) {
    let mut number = 0;
    loop {
        let accepted = listener.accept();
        if ended.load(Ordering::SeqCst) {
            return;
        }
        let entered = accepted.and_then(|(socket, _)| Ok((socket.try_clone()?, socket)));
        let Ok((socket, twin)) = entered else {
            thread::sleep(PAUSE);
            continue;
        };
        number += 1;
        if !room.enter(number, twin) {
            continue;
        }
        let spawned = {
            let room = Arc::clone(room);
            let [_, name] = R::THREADS;
            thread::Builder::new().name(name.to_owned()).spawn(move || {
                room.serve(number, socket);
                room.leave(number);
            })
        };
        if spawned.is_err() {
            room.leave(number);
            thread::sleep(PAUSE);
        }
    }
}

/// Who hears what a server has to say.
pub(crate) struct Ear {
    tell: Box<dyn Fn(String) + Send + Sync>,
    /// When a refusal was told last.
    told: Mutex<Option<Instant>>,
}

impl Ear {
    pub(crate) fn new(tell: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self {
            tell: Box::new(tell),
            told: Mutex::default(),
        }
    }

    pub(crate) fn tell(&self, text: String) {
        (self.tell)(text);
    }

    /// Says that somebody was refused, unless somebody was just now.
    pub(crate) fn refused(&self, text: impl fmt::Display) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= TELL_EACH) {
            *told = Some(Instant::now());
            self.tell(text.to_string());
        }
    }
}
