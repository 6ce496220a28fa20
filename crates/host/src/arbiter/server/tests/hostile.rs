//! Whoever knows the server's port, and what they can do: nothing. What a handshake refuses is
//! tried at the channel, which has the same; here is what is the server's own.

use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use twinvm_protocol::arbiter::wire::MAX_BODY_BYTES;

use super::*;

/// Longer than anything here takes on a busy host.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with keys and a record, and the cluster that may ask it.
struct Attacked {
    cluster: Cluster,
    server: ArbiterServer,
    told: Receiver<String>,
    node: TcpArbiter,
    _folder: TempDir,
}

impl Attacked {
    fn new() -> Self {
        let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::new());
        let (tell, told) = channel();
        let keys = cluster.member(Subject::Arbiter, Expect::AnyNode);
        let listen = "127.0.0.1:0".parse().unwrap();
        let tell = move |line| tell.send(line).unwrap();
        let server = ArbiterServer::start(listen, folder.path(), Some(keys), tell).unwrap();
        let mut node = Self::node_at(&cluster, server.local_addr());
        assert_eq!(
            node.cas(Generation(0), record(1, 1)),
            Outcome::Won(record(1, 1))
        );
        Self {
            cluster,
            server,
            told,
            node,
            _folder: folder,
        }
    }

    fn node_at(cluster: &Cluster, address: SocketAddr) -> TcpArbiter {
        let keys = cluster.node("n", Expect::Arbiter);
        TcpArbiter::new(vec![address], name("a"), Some(keys))
    }

    fn knock(&self) -> TcpStream {
        let stream = TcpStream::connect(self.server.local_addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The record is as it was, and the node is answered.
    #[track_caller]
    fn goes_on(&mut self) {
        assert_eq!(self.node.read(), Outcome::Read(Some(record(1, 1))));
        assert_eq!(self.node.take_trouble(), None);
    }
}

/// Sends a byte now and then for as long as somebody takes it.
fn drip(mut stream: TcpStream, bytes: Vec<u8>) -> JoinHandle<()> {
    thread::spawn(move || {
        for byte in bytes {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    })
}

#[test]
fn an_oversized_frame_is_not_waited_for() {
    let (_folder, server) = started();
    for announced in [u32::MAX, MAX_BODY_BYTES as u32 + 1] {
        for order in [u32::to_be_bytes, u32::to_le_bytes] {
            let asked = Instant::now();
            let mut socket = TcpStream::connect(server.local_addr()).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.write_all(&order(announced)).unwrap();
            assert_eq!(socket.read(&mut [0; 1]).unwrap_or(0), 0);
            // In one of the two orders it is longer than any; in the other it may be a short frame
            // that never comes whole.
            assert!(asked.elapsed() < PATIENCE / 2);
        }
    }
    assert_eq!(client(&server, "a").read(), Outcome::Read(None));
}

#[test]
fn who_dawdles_is_cut_off() {
    // With a frame, where there are no keys.
    let (_folder, server) = started();
    let mut socket = TcpStream::connect(server.local_addr()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // The longest body, which at this pace takes longer than a frame may.
    let announced = [u32::to_le_bytes, u32::to_be_bytes]
        .map(|order| order(MAX_BODY_BYTES as u32))
        .into_iter()
        .find(|head| body_len(*head).is_ok());
    let bytes = [&announced.unwrap()[..], &[1; MAX_BODY_BYTES]].concat();
    let dripping = drip(socket.try_clone().unwrap(), bytes);
    assert_eq!(socket.read(&mut [0; 1]).unwrap_or(0), 0);
    dripping.join().unwrap();
    assert_eq!(client(&server, "a").read(), Outcome::Read(None));

    // With the handshake, where there are.
    let mut attacked = Attacked::new();
    let mut socket = attacked.knock();
    let hello = [
        &[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3][..],
        &[1; 10_000],
    ]
    .concat();
    let dripping = drip(socket.try_clone().unwrap(), hello);
    attacked.goes_on();
    assert_eq!(socket.read(&mut [0; 1]).unwrap_or(0), 0);
    dripping.join().unwrap();
    let line = attacked.told.recv_timeout(PATIENCE).unwrap();
    assert!(
        line.contains("is refused: ") && !line.contains('\n'),
        "{line}"
    );
    attacked.goes_on();
}

#[test]
fn recorded_bytes_change_nothing_later() {
    let mut attacked = Attacked::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let way = listener.local_addr().unwrap();
    let to = attacked.server.local_addr();
    let tap = thread::spawn(move || {
        let (mut near, _) = listener.accept().unwrap();
        let mut far = TcpStream::connect(to).unwrap();
        let (mut back_from, mut back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
        let back = thread::spawn(move || io::copy(&mut back_from, &mut back_to));
        let mut kept = Vec::new();
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = near.read(&mut bytes) {
            kept.extend_from_slice(&bytes[..count]);
            if far.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = far.shutdown(Shutdown::Both);
        let _ = back.join();
        kept
    });
    let mut tapped = Attacked::node_at(&attacked.cluster, way);
    let second = record(2, 2);
    assert_eq!(tapped.cas(Generation(1), second), Outcome::Won(second));
    drop(tapped);
    let recorded = tap.join().unwrap();
    let third = record(3, 3);
    assert_eq!(attacked.node.cas(Generation(2), third), Outcome::Won(third));

    let mut socket = attacked.knock();
    let _ = socket.write_all(&recorded);
    let mut said = Vec::new();
    let _ = socket.read_to_end(&mut said);
    let line = attacked.told.recv_timeout(PATIENCE).unwrap();
    assert!(line.contains("is refused: "), "{line}");
    assert_eq!(attacked.node.read(), Outcome::Read(Some(third)));
}

#[test]
fn a_flood_of_strangers_is_a_few_lines_and_a_bounded_number_of_connections() {
    let mut attacked = Attacked::new();
    let began = Instant::now();
    let mut strangers = Vec::new();
    for number in 0..3 * MAX_CONNECTIONS {
        let mut stranger = attacked.knock();
        if number % 2 == 0 {
            let _ = stranger.write_all(b"GET / HTTP/1.1\r\n\r\n");
        }
        strangers.push(stranger);
        assert!(lock(&attacked.server.guests.0).len() <= MAX_CONNECTIONS);
    }
    attacked.goes_on();
    drop(strangers);
    attacked.goes_on();
    // The first comes when a stranger's thread has run.
    attacked.told.recv_timeout(PATIENCE).unwrap();
    let lines = 1 + attacked.told.try_iter().count();
    let seconds = began.elapsed().as_secs() as usize;
    assert!(
        (1..=seconds + 2).contains(&lines),
        "{lines} lines in {seconds} s"
    );
}
