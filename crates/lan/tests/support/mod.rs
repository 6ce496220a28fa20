//! What the tests share: a running switch, a port, and two kinds of fake guest.
#![allow(dead_code)] // Each test file uses its part.

pub(crate) mod echo;
pub(crate) mod raw;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use twinvm_lan::{Impairment, LanConfig, LanEvent, LanStats, Stopper, run_logged, stop_pair};

/// Long enough for anything that happens at once, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// A switch in a thread of the test.
pub(crate) struct TestLan {
    pub(crate) socket: PathBuf,
    pub(crate) forwards: Vec<SocketAddr>,
    pub(crate) events: Arc<Mutex<Vec<LanEvent>>>,
    stopper: Stopper,
    thread: JoinHandle<LanStats>,
    _directory: tempfile::TempDir,
}

impl TestLan {
    /// A switch that forwards to each of `guests`, from free host ports.
    pub(crate) fn start(guests: &[&str]) -> TestLan {
        TestLan::impaired(guests, Impairment::default())
    }

    /// The same, behind wires that are as bad as this.
    pub(crate) fn impaired(guests: &[&str], impairment: Impairment) -> TestLan {
        let directory = tempfile::tempdir().unwrap();
        let mut config = LanConfig::new(directory.path().join("lan.sock"));
        config.impairment = impairment;
        config.forwards = guests
            .iter()
            .map(|guest| format!("127.0.0.1:0={guest}").parse().unwrap())
            .collect();
        let (stopper, stop) = stop_pair().unwrap();
        let (ready, is_ready) = mpsc::channel();
        let events = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&events);
        let thread = thread::spawn(move || {
            let on_ready = move |bound: &_| ready.send(Clone::clone(bound)).unwrap();
            run_logged(config, stop, on_ready, &mut |event| {
                log.lock().unwrap().push(event.clone());
            })
            .unwrap()
        });
        let bound: twinvm_lan::BoundAddrs = is_ready.recv_timeout(SOON).unwrap();
        TestLan {
            socket: bound.listen,
            forwards: bound.forwards.iter().map(|f| f.listen).collect(),
            events,
            stopper,
            thread,
            _directory: directory,
        }
    }

    pub(crate) fn port(&self) -> Port {
        Port::connect(&self.socket)
    }

    /// A client of forward `index`.
    pub(crate) fn client(&self, index: usize) -> TcpStream {
        let client = TcpStream::connect(self.forwards[index]).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        client.set_nodelay(true).unwrap();
        client
    }

    /// Waits until the log has `count` events that `wanted` takes.
    pub(crate) fn wait_for(
        &self,
        count: usize,
        wanted: impl Fn(&LanEvent) -> bool,
    ) -> Vec<LanEvent> {
        let start = Instant::now();
        loop {
            let found: Vec<LanEvent> = {
                let events = self.events.lock().unwrap();
                events
                    .iter()
                    .filter(|event| wanted(event))
                    .cloned()
                    .collect()
            };
            if found.len() >= count {
                return found;
            }
            assert!(
                start.elapsed() < SOON,
                "events so far: {:?}",
                self.events.lock().unwrap()
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn stop(self) -> LanStats {
        self.stopper.stop();
        self.thread.join().unwrap()
    }
}

/// A node's side of a port.
pub(crate) struct Port {
    pub(crate) stream: UnixStream,
    buffer: Vec<u8>,
}

impl Port {
    pub(crate) fn connect(path: &Path) -> Port {
        Port {
            stream: UnixStream::connect(path).unwrap(),
            buffer: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
        bytes.extend(frame);
        self.stream.write_all(&bytes)
    }

    /// The next frame; `None` if none comes in `timeout`, an error at the end.
    pub(crate) fn receive(&mut self, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
        let end = Instant::now() + timeout;
        loop {
            if let Some((prefix, rest)) = self.buffer.split_first_chunk::<4>() {
                let length = u32::from_be_bytes(*prefix) as usize;
                if rest.len() >= length {
                    let frame = rest[..length].to_vec();
                    self.buffer.drain(..4 + length);
                    return Ok(Some(frame));
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut bytes = [0; 65536];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.buffer.extend(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// True if the switch closes this port soon.
    pub(crate) fn is_closed_soon(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < SOON {
            match self.receive(SOON) {
                Err(_) => return true,
                Ok(_) => continue,
            }
        }
        false
    }
}

/// True if reading from the client ends with a reset.
pub(crate) fn is_reset(client: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    match client.read_to_end(&mut rest) {
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        Ok(_) => false,
    }
}
