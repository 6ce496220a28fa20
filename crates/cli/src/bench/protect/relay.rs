//! A line that takes its time: a TCP relay that hands on every byte so much later, whatever else is
//! under way. What an end says last is handed on too.
//!
//! It stands in for the distance between two hosts where the kernel has nothing to delay packets
//! with. One connection has no window of its own here: a distance costs time, not throughput.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Where it listens, where it leads, and how long each byte takes
#[derive(Debug, clap::Args)]
pub(crate) struct RelayArgs {
    listen: SocketAddr,
    to: SocketAddr,
    delay_ms: u64,
}

/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// Pieces under way, each way: 64 MiB of whole ones.
const PIECES: usize = 1024;
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);

/// Serves until the process ends.
pub(crate) fn run(args: &RelayArgs) -> Result<u8, (u8, String)> {
    let delay = Duration::from_millis(args.delay_ms);
    match serve(args.listen, args.to, delay) {
        Ok(()) => Ok(0),
        Err(error) => Err((2, format!("{}: {error}", args.listen))),
    }
}

fn serve(listen: SocketAddr, to: SocketAddr, delay: Duration) -> std::io::Result<()> {
    for stream in TcpListener::bind(listen)?.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            // A handshake takes a round trip of its own.
            thread::sleep(delay * 2);
            // Who is not there can't be reached: the connection ends.
            if let Ok(there) = TcpStream::connect_timeout(&to, CONNECT) {
                let _ = relay(stream, there, delay);
            }
        });
    }
    Ok(())
}

fn relay(here: TcpStream, there: TcpStream, delay: Duration) -> std::io::Result<()> {
    here.set_nodelay(true)?;
    there.set_nodelay(true)?;
    one_way(here.try_clone()?, there.try_clone()?, delay);
    one_way(there, here, delay);
    Ok(())
}

/// A thread that reads and one that writes when the time has come.
fn one_way(from: TcpStream, to: TcpStream, delay: Duration) {
    let (pieces_in, pieces) = sync_channel(PIECES);
    thread::spawn(move || read(from, &pieces_in));
    thread::spawn(move || write(to, &pieces, delay));
}

fn read(mut from: TcpStream, pieces: &SyncSender<(Instant, Vec<u8>)>) {
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let count = from.read(&mut bytes).unwrap_or(0);
        let piece = (Instant::now(), bytes[..count].to_vec());
        if pieces.send(piece).is_err() || count == 0 {
            return;
        }
    }
}

fn write(mut to: TcpStream, pieces: &Receiver<(Instant, Vec<u8>)>, delay: Duration) {
    while let Ok((came, bytes)) = pieces.recv() {
        thread::sleep((came + delay).saturating_duration_since(Instant::now()));
        if bytes.is_empty() || to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
