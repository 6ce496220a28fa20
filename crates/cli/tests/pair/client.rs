//! Clients: one that counts through Redis, one that asks the small guest.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::cluster::{LIMIT, echo, wait_for};

/// Between two requests: a client that leaves the guest time to rest.
const PAUSE: Duration = Duration::from_millis(3);
/// A question without an answer for this long is asked again. The guest counts what it is asked, so
/// this is longer than a busy host takes for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// One connection that says INCR again and again. Each reply must be one more than the last.
pub(crate) struct Counter {
    count: Arc<AtomicU64>,
    longest_us: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Counter {
    pub(crate) fn connect(redis: SocketAddr) -> Self {
        let stream = TcpStream::connect(redis).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let count = Arc::new(AtomicU64::new(0));
        let longest_us = Arc::new(AtomicU64::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let shared = (
            Arc::clone(&count),
            Arc::clone(&longest_us),
            Arc::clone(&ended),
        );
        let thread = thread::spawn(move || count_on(&stream, &shared.0, &shared.1, &shared.2));
        Self {
            count,
            longest_us,
            ended,
            thread: Some(thread),
        }
    }

    /// Waits for some more right replies.
    #[track_caller]
    pub(crate) fn goes_on(&mut self) {
        const MORE: u64 = 20;
        let from = self.count.load(Ordering::SeqCst);
        wait_for("more replies on the same connection", || {
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                let thread = self.thread.take().expect("asked once");
                panic!("the connection has failed: {:?}", thread.join().unwrap());
            }
            (self.count.load(Ordering::SeqCst) >= from + MORE).then_some(())
        });
    }

    /// The longest time that a reply has taken since this was asked last.
    pub(crate) fn longest_wait(&self) -> Duration {
        Duration::from_micros(self.longest_us.swap(0, Ordering::SeqCst))
    }

    /// Hangs up; how many replies there were.
    pub(crate) fn end(mut self) -> u64 {
        self.ended.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("ended once");
        thread.join().unwrap().unwrap();
        self.count.load(Ordering::SeqCst)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

fn count_on(
    stream: &TcpStream,
    count: &AtomicU64,
    longest_us: &AtomicU64,
    ended: &AtomicBool,
) -> Result<(), String> {
    let mut replies = BufReader::new(stream);
    let mut stream = stream;
    while !ended.load(Ordering::SeqCst) {
        let mut reply = String::new();
        let asked = Instant::now();
        stream
            .write_all(b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n")
            .and_then(|()| replies.read_line(&mut reply))
            .map_err(|error| error.to_string())?;
        let before = count.load(Ordering::SeqCst);
        if reply != format!(":{}\r\n", before + 1) {
            return Err(format!("{reply:?} after {before}"));
        }
        longest_us.fetch_max(asked.elapsed().as_micros() as u64, Ordering::SeqCst);
        count.store(before + 1, Ordering::SeqCst);
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// A frame as the switch takes it: its length in four bytes before it (QEMU's stream framing).
pub(crate) fn framed(frame: &[u8]) -> Vec<u8> {
    let length = (frame.len() as u32).to_be_bytes();
    [&length[..], frame].concat()
}

/// A station on the switch that asks the small guest.
pub(crate) struct Asker(UnixStream);

impl Asker {
    pub(crate) fn connect(lan: &Path) -> Self {
        let stream = UnixStream::connect(lan).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.0.write_all(&framed(frame)).unwrap();
    }

    /// Asks until there is an answer: its number. A frame may be lost, as on any wire.
    #[track_caller]
    pub(crate) fn ask(&mut self) -> u64 {
        wait_for("an answer of the guest", || {
            self.send(&echo::question());
            loop {
                match self.frame() {
                    Ok(frame) => {
                        if let Some(number) = echo::answer(&frame) {
                            return Some(number);
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                    Err(error) => panic!("the switch: {error}"),
                }
            }
        })
    }

    fn frame(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut frame)?;
        Ok(frame)
    }
}
