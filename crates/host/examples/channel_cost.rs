//! What TLS costs on the channel: round trips of small frames, and processor time per MiB of large
//! ones, over loopback, with and without it, in turns.
//!
//!     cargo run --release -p twinvm-host --example channel_cost

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded};
use twinvm_host::channel::{ChannelEvent, ChannelHub};
use twinvm_host::marks::Marks;
use twinvm_host::time::{process_cpu_ns, wall_ns};
use twinvm_host::tls::{Authority, Credentials, Expect, Subject, TlsFiles};
use twinvm_protocol::{ConnId, Message, Position, Progress};

/// Turns of each kind.
const TURNS: usize = 5;
const ROUND_TRIPS: usize = 20_000;
/// A snapshot's pieces.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNKS: usize = 4096;
/// What may wait for the socket.
const AHEAD_BYTES: usize = 4 << 20;

type End = (ChannelHub, Receiver<ChannelEvent>, ConnId);

fn fail(what: impl Display) -> ! {
    panic!("{what}")
}

fn hub(peer: SocketAddr, tls: Option<Credentials>) -> (ChannelHub, Receiver<ChannelEvent>) {
    let (events, heard) = bounded(64);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let hub = ChannelHub::start(any, peer, tls, events, Marks::default())
        .unwrap_or_else(|error| fail(error));
    (hub, heard)
}

fn up(heard: &Receiver<ChannelEvent>) -> ConnId {
    match heard.recv() {
        Ok(ChannelEvent::Up { conn, .. }) => conn,
        other => fail(format_args!("{other:?}")),
    }
}

fn pair(tls: &Option<[Credentials; 2]>) -> (End, End) {
    let [a_tls, b_tls] = match tls {
        Some([a, b]) => [Some(a.clone()), Some(b.clone())],
        None => [None, None],
    };
    let (b, b_heard) = hub(SocketAddr::from(([127, 0, 0, 1], 1)), b_tls);
    let (a, a_heard) = hub(b.local_addr(), a_tls);
    a.dial().unwrap_or_else(|error| fail(error));
    let (a_conn, b_conn) = (up(&a_heard), up(&b_heard));
    ((a, a_heard, a_conn), (b, b_heard, b_conn))
}

fn frame(heard: &Receiver<ChannelEvent>) -> Message {
    match heard.recv() {
        Ok(ChannelEvent::Received { message, .. }) => message,
        other => fail(format_args!("{other:?}")),
    }
}

/// Microseconds of each round trip, sorted.
fn round_trips(tls: &Option<[Credentials; 2]>) -> Vec<f64> {
    let ((a, a_heard, a_conn), (b, b_heard, b_conn)) = pair(tls);
    let answers = std::thread::spawn(move || {
        for _ in 0..ROUND_TRIPS {
            let message = frame(&b_heard);
            b.send(b_conn, message).unwrap_or_else(|error| fail(error));
        }
        b
    });
    let mut times: Vec<f64> = (0..ROUND_TRIPS as u64)
        .map(|beat| {
            let message = Message::Heartbeat {
                beat,
                released: Position(0),
                progress: Progress::default(),
            };
            let start = Instant::now();
            a.send(a_conn, message).unwrap_or_else(|error| fail(error));
            frame(&a_heard);
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    drop(answers.join());
    times.sort_by(f64::total_cmp);
    times
}

/// Processor time of both ends in milliseconds per MiB, and MiB per second.
fn stream(tls: &Option<[Credentials; 2]>) -> (f64, f64) {
    let ((a, _a_heard, a_conn), (_b, b_heard, _)) = pair(tls);
    let (start, cpu_ns) = (Instant::now(), process_cpu_ns());
    let taken = std::thread::spawn(move || {
        for _ in 0..CHUNKS {
            frame(&b_heard);
        }
    });
    for at in 0..CHUNKS {
        while a.queued_bytes(a_conn) > AHEAD_BYTES {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        let message = Message::SnapshotChunk {
            offset: (at * CHUNK_BYTES) as u64,
            bytes: vec![at as u8; CHUNK_BYTES],
            last: false,
        };
        a.send(a_conn, message).unwrap_or_else(|error| fail(error));
    }
    drop(taken.join());
    let mib = (CHUNKS * CHUNK_BYTES) as f64 / f64::from(1 << 20);
    let cpu_ms = (process_cpu_ns() - cpu_ns) as f64 / 1e6;
    (cpu_ms / mib, mib / start.elapsed().as_secs_f64())
}

/// Milliseconds from the dial to both being told, the middle of some.
fn opening(tls: &Option<[Credentials; 2]>) -> f64 {
    let mut times: Vec<f64> = (0..21)
        .map(|_| {
            let start = Instant::now();
            let ends = pair(tls);
            let took = start.elapsed().as_secs_f64() * 1e3;
            drop(ends);
            took
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn credentials() -> [Credentials; 2] {
    let folder = std::env::temp_dir().join(format!("twinvm-channel-cost-{}", std::process::id()));
    let now_s = (wall_ns() / 1_000_000_000) as i64;
    let authority = Authority::new(now_s).unwrap_or_else(|error| fail(error));
    let made = [("a", "b"), ("b", "a")].map(|(name, peer)| {
        let subject = Subject::Node(name.to_owned());
        let issued = authority
            .issue(&subject, authority.span(now_s, 1))
            .unwrap_or_else(|error| fail(error));
        authority
            .write_issued(&folder, &subject, &issued, false)
            .unwrap_or_else(|error| fail(error));
        let files = TlsFiles {
            ca: folder.join("ca.crt"),
            cert: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
        };
        Credentials::load(files, subject, Expect::Node(peer.to_owned()))
            .unwrap_or_else(|error| fail(error))
    });
    let _ = std::fs::remove_dir_all(&folder);
    made
}

fn main() {
    let kinds = [("plain", None), ("TLS", Some(credentials()))];
    for turn in 1..=TURNS {
        for (name, tls) in &kinds {
            let times = round_trips(tls);
            let at = |part: f64| times[(times.len() as f64 * part) as usize];
            let (cpu_ms_per_mib, mib_s) = stream(tls);
            println!(
                "{turn} {name:<5} round trip p50 {:6.1} us, p99 {:6.1} us; opened in {:.2} ms; \
                 {cpu_ms_per_mib:.3} ms of processor time per MiB, {mib_s:.0} MiB/s",
                at(0.5),
                at(0.99),
                opening(tls)
            );
        }
    }
}
