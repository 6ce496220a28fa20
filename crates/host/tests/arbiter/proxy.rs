//! A network between clients and the small server that loses, repeats and delays.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use twinvm_protocol::{Generation, Outcome};

use crate::history::History;
use crate::places::{Place, TcpPlace, open};

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
struct Random(AtomicU64);

impl Random {
    fn below(&self, end: u64) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// A frame with its head, as far as it comes.
fn frame(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 4];
    from.read_exact(&mut bytes).ok()?;
    let len = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    bytes.resize(4 + len, 0);
    from.read_exact(&mut bytes[4..]).ok()?;
    Some(bytes)
}

/// Carries one connection until it is broken.
fn carry(mut client: TcpStream, server: SocketAddr, random: &Random) -> Option<()> {
    let mut there = TcpStream::connect(server).ok()?;
    loop {
        let request = frame(&mut client)?;
        match random.below(10) {
            // Lost on the way there.
            0 => return None,
            // Carried out, but the answer is lost.
            1 => {
                there.write_all(&request).ok()?;
                frame(&mut there)?;
                return None;
            }
            // Cut in the middle.
            2 => {
                there.write_all(&request[..request.len() / 2]).ok()?;
                return None;
            }
            // Twice, and both answers come.
            3 => {
                there.write_all(&[&request[..], &request].concat()).ok()?;
                for _ in 0..2 {
                    client.write_all(&frame(&mut there)?).ok()?;
                }
                continue;
            }
            // A copy, or the request itself, arrives much later.
            fate @ (4 | 5) => {
                let late = request.clone();
                let delay = Duration::from_millis(random.below(40));
                thread::spawn(move || {
                    thread::sleep(delay);
                    let mut there = TcpStream::connect(server).ok()?;
                    there.write_all(&late).ok()?;
                    frame(&mut there)
                });
                if fate == 5 {
                    return None;
                }
            }
            _ => {}
        }
        there.write_all(&request).ok()?;
        client.write_all(&frame(&mut there)?).ok()?;
    }
}

#[test]
fn a_bad_network_makes_doubts_but_no_second_history() {
    let place = TcpPlace::new();
    let server = place.server.local_addr();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp:{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || {
                // By the connection: which one gets which is up to the host's scheduler.
                let seed = client.peer_addr().map_or(0, |peer| peer.port());
                let random = Random(AtomicU64::new(u64::from(seed)));
                let twin = client.try_clone();
                carry(client, server, &random);
                twin.map(|twin| twin.shutdown(Shutdown::Both))
            });
        }
    });
    let history = History::default();
    thread::scope(|scope| {
        for client in 0..6 {
            let (history, address) = (&history, &address);
            scope.spawn(move || {
                let mut arbiter = open(address, "net");
                let mut left = 150;
                history.client(&mut *arbiter, client % 2 == 0, || {
                    left -= 1;
                    left == 0
                });
            });
        }
    });
    // Straight, after all that.
    let last = history.read(&mut *place.open("net"));
    assert!(matches!(last, Outcome::Read(Some(_))), "{last:?}");
    let (won, doubts) = history.check();
    assert!(won > 10 && doubts > 10, "{won} won, {doubts} in doubt");
}

#[test]
fn a_server_that_says_nothing_leaves_doubt() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp:{}", listener.local_addr().unwrap());
    let mut arbiter = open(&address, "silent");
    let record = History::default().new_record(Generation(1));
    assert_eq!(arbiter.cas(Generation(0), record), Outcome::Unknown);
    let text = arbiter.take_trouble().unwrap();
    assert!(text.contains("no answer in time"), "{text}");
}
