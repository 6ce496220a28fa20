mod hostile;

use std::io::{Read, Write};

use tempfile::TempDir;
use twinvm_protocol::arbiter::wire::{body_len, decode_answer, encode_request};
use twinvm_protocol::{Incarnation, LiveName, NodeId, Record};

use super::*;
use crate::arbiter::tcp::TcpArbiter;
use crate::tls::tests::Cluster;
use crate::tls::{Expect, Subject};

fn record(generation: u64, id: u128) -> Record {
    let (id, incarnation) = (NodeId(id), Incarnation(1));
    Record::solo(Generation(generation), LiveName { id, incarnation })
}

fn name(text: &str) -> VmName {
    VmName::new(text).expect("a name")
}

fn started() -> (TempDir, ArbiterServer) {
    started_at("127.0.0.1:0")
}

fn started_at(listen: &str) -> (TempDir, ArbiterServer) {
    let folder = tempfile::tempdir().unwrap();
    let listen = listen.parse().unwrap();
    let server = ArbiterServer::start(listen, folder.path(), None, drop).unwrap();
    (folder, server)
}

/// On addresses of their own, whose ports nobody else is given while they are free.
const AGAIN: [&str; 2] = ["127.0.0.4:0", "127.0.0.5:0"];

/// Starts it again at an address that it has had. A process that another test has just started holds
/// a copy of every socket until it executes its program.
fn again(address: SocketAddr, folder: &Path) -> ArbiterServer {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match ArbiterServer::start(address, folder, None, drop) {
            Ok(server) => return server,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn client(server: &ArbiterServer, vm: &str) -> TcpArbiter {
    TcpArbiter::new(vec![server.local_addr()], name(vm), None)
}

#[test]
fn each_vm_has_a_register_of_its_own() {
    let (folder, server) = started();
    let (mut a, mut b) = (client(&server, "a"), client(&server, "b"));
    assert_eq!(a.read(), Outcome::Read(None));
    // Neither a read nor a change of what is not there makes anything.
    assert_eq!(a.cas(Generation(3), record(4, 1)), Outcome::Lost(None));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(
        a.cas(Generation(0), record(1, 1)),
        Outcome::Won(record(1, 1))
    );
    assert_eq!(b.read(), Outcome::Read(None));
    assert_eq!(
        b.cas(Generation(0), record(1, 2)),
        Outcome::Won(record(1, 2))
    );
    assert_eq!(a.read(), Outcome::Read(Some(record(1, 1))));
    assert!(folder.path().join("vm.a/rec.1").is_file());
    assert_eq!((a.take_trouble(), b.take_trouble()), (None, None));
}

#[test]
fn a_client_finds_the_server_that_was_started_again() {
    let (folder, server) = started_at(AGAIN[0]);
    let address = server.local_addr();
    let mut a = client(&server, "a");
    assert_eq!(
        a.cas(Generation(0), record(1, 1)),
        Outcome::Won(record(1, 1))
    );
    drop(server);
    assert_eq!(a.read(), Outcome::Unknown);
    let text = a.take_trouble().expect("a text");
    assert!(
        text.starts_with(&format!("arbiter tcp:{address}: ")),
        "{text}"
    );
    let _server = again(address, folder.path());
    assert_eq!(a.read(), Outcome::Read(Some(record(1, 1))));
}

#[test]
fn a_server_on_another_folder_is_not_believed() {
    let (_folder, server) = started_at(AGAIN[1]);
    let address = server.local_addr();
    let mut a = client(&server, "a");
    assert_eq!(
        a.cas(Generation(0), record(1, 1)),
        Outcome::Won(record(1, 1))
    );
    drop(server);
    let other = tempfile::tempdir().unwrap();
    let _server = again(address, other.path());
    assert_eq!(a.read(), Outcome::Unknown);
    let text = a.take_trouble().expect("a text");
    assert!(
        text.contains("no record where generation 1 stood"),
        "{text}"
    );
}

#[test]
fn a_damaged_record_is_told_and_is_neither_a_record_nor_none() {
    let (folder, server) = started();
    let mut a = client(&server, "a");
    assert_eq!(
        a.cas(Generation(0), record(1, 1)),
        Outcome::Won(record(1, 1))
    );
    fs::write(folder.path().join("vm.a/rec.2"), b"torn").unwrap();
    assert_eq!(a.read(), Outcome::Unknown);
    assert_eq!(a.cas(Generation(1), record(2, 1)), Outcome::Unknown);
    let text = a.take_trouble().expect("a text");
    assert!(text.contains("rec.2") && !text.contains('\n'), "{text}");
}

#[test]
fn it_keeps_so_many_registers_and_no_more() {
    let (folder, server) = started();
    for index in 0..MAX_VMS {
        fs::create_dir(folder.path().join(format!("vm.{index}"))).unwrap();
    }
    let mut one_more = client(&server, "x");
    assert_eq!(one_more.cas(Generation(0), record(1, 1)), Outcome::Unknown);
    let text = one_more.take_trouble().expect("a text");
    assert!(text.contains("1024 VMs"), "{text}");
    let mut known = client(&server, "7");
    assert_eq!(
        known.cas(Generation(0), record(1, 1)),
        Outcome::Won(record(1, 1))
    );
}

/// What the server says to a client until it closes.
fn said_to(server: &ArbiterServer, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(server.local_addr()).unwrap();
    socket.write_all(bytes).unwrap();
    let mut said = Vec::new();
    // A reset is an end too.
    let _ = socket.read_to_end(&mut said);
    said
}

#[test]
fn nonsense_and_half_a_frame_end_the_connection_and_nothing_else() {
    let (_folder, server) = started();
    let good = encode_request(&Request {
        number: 5,
        vm: name("a"),
        ask: Ask::Read,
    });
    let mut bad = good.clone();
    bad[4] = 9;
    assert!(said_to(&server, b"GET / HTTP/1.1\r\n\r\n").is_empty());
    assert!(said_to(&server, &bad).is_empty());
    // Ended by the limit on a frame, not by this side.
    assert!(said_to(&server, &good[..good.len() - 1]).is_empty());
    let mut socket = TcpStream::connect(server.local_addr()).unwrap();
    socket.write_all(&[&good[..], &good].concat()).unwrap();
    for _ in 0..2 {
        let mut head = [0; 4];
        socket.read_exact(&mut head).unwrap();
        let mut body = vec![0; body_len(head).unwrap()];
        socket.read_exact(&mut body).unwrap();
        let told = Told::Read(None);
        assert_eq!(decode_answer(&body), Ok(Answer { number: 5, told }));
    }
}

#[test]
fn silent_clients_keep_nobody_out() {
    let (_folder, server) = started();
    let mut first = client(&server, "a");
    assert_eq!(first.read(), Outcome::Read(None));
    let mut silent: Vec<TcpStream> = Vec::new();
    for _ in 0..MAX_CONNECTIONS + 5 {
        silent.push(TcpStream::connect(server.local_addr()).unwrap());
    }
    let mut late = client(&server, "a");
    assert_eq!(
        late.cas(Generation(0), record(1, 1)),
        Outcome::Won(record(1, 1))
    );
    // Sent away meanwhile, it comes back by itself.
    assert_eq!(first.read(), Outcome::Read(Some(record(1, 1))));
    assert_eq!(first.take_trouble(), None);
}

#[test]
fn what_it_can_not_serve_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let everywhere = "0.0.0.0:0".parse().unwrap();
    let error = ArbiterServer::start(everywhere, folder.path(), None, drop).unwrap_err();
    assert!(error.to_string().contains("loopback"), "{error}");
    let (_other, server) = started();
    let error = ArbiterServer::start(server.local_addr(), folder.path(), None, drop).unwrap_err();
    assert!(error.to_string().contains("can't listen there"), "{error}");
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let error = ArbiterServer::start(listen, &file, None, drop)
        .unwrap_err()
        .to_string();
    assert!(error.contains("file") && !error.contains('\n'), "{error}");
}

#[test]
fn with_keys_only_nodes_of_the_cluster_ask_and_only_its_arbiter_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Cluster::new(), Cluster::new());
    let (tell, told) = std::sync::mpsc::channel();
    let start = |keys| {
        let tell = tell.clone();
        let listen = "127.0.0.1:0".parse().unwrap();
        let told = move |line| tell.send(line).unwrap();
        ArbiterServer::start(listen, folder.path(), keys, told).unwrap()
    };
    let server = start(Some(ours.member(Subject::Arbiter, Expect::AnyNode)));
    let client =
        |server: &ArbiterServer, keys| TcpArbiter::new(vec![server.local_addr()], name("a"), keys);
    let mut node = client(&server, Some(ours.node("n", Expect::Arbiter)));
    assert_eq!(
        node.cas(Generation(0), record(1, 1)),
        Outcome::Won(record(1, 1))
    );
    // One connection serves more than one request, and a silent end of it is no end.
    assert_eq!(node.read(), Outcome::Read(Some(record(1, 1))));
    server.guests.all_leave();
    assert_eq!(node.read(), Outcome::Read(Some(record(1, 1))));
    assert!(told.try_recv().is_err());

    let strangers = [
        None,
        Some(theirs.node("n", Expect::Arbiter)),
        Some(ours.member(Subject::Arbiter, Expect::Arbiter)),
    ];
    for keys in strangers {
        let mut stranger = client(&server, keys);
        assert_eq!(stranger.cas(Generation(1), record(2, 9)), Outcome::Unknown);
        let text = stranger.take_trouble().expect("a text");
        assert!(!text.contains('\n'), "{text}");
    }
    assert!(told.recv().unwrap().contains(" is refused: "));
    // A node in the arbiter's place, and a server without keys.
    let posing = start(Some(ours.node("x", Expect::AnyNode)));
    for (server, why) in [(posing, "arbiter"), (start(None), "--keys")] {
        let mut node = client(&server, Some(ours.node("n", Expect::Arbiter)));
        assert_eq!(node.read(), Outcome::Unknown);
        let text = node.take_trouble().expect("a text");
        assert!(text.contains(why), "{text}");
    }
    assert_eq!(node.read(), Outcome::Read(Some(record(1, 1))));
}
