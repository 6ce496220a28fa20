//! An etcd cluster of three on this host.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use twinvm_host::arbiter::ArbiterKeys;
use twinvm_host::arbiter_worker::ArbiterBackend;
use twinvm_host::tls::TlsFiles;
use twinvm_protocol::Outcome;

use crate::contract::contract;
use crate::history::History;
use crate::keys::{Authority, BOTH, CLIENT};
use crate::places::{Patient, Place, open_with};

/// Everything here comes within seconds, on a busy host too.
const LIMIT: Duration = Duration::from_secs(60);
const MEMBERS: usize = 3;
/// Lines of each log that a failed test prints.
const LOG_LINES: usize = 12;

struct Cluster {
    members: Vec<Option<Child>>,
    address: String,
    keys: ArbiterKeys,
    authority: Authority,
    folder: TempDir,
}

/// Free ports, below those that the system gives to outgoing connections (Linux:
/// `ip_local_port_range` begins at 32768). Each call gives others: members bind theirs later.
fn free_ports(count: usize) -> Vec<SocketAddr> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id() % 10_000 + GIVEN.fetch_add(100, Ordering::Relaxed);
    let ports = (0..10_000).map(|offset| 20_000 + (start + offset) % 10_000);
    // All stay bound until all are found.
    let bound = ports.filter_map(|port| {
        let address = SocketAddr::from(([127, 0, 0, 1], port as u16));
        Some((address, TcpListener::bind(address).ok()?))
    });
    let found: Vec<_> = bound.take(count).collect();
    assert_eq!(found.len(), count, "too few free ports");
    found.into_iter().map(|(address, _)| address).collect()
}

impl Cluster {
    /// In the clear, or with keys made in its folder.
    fn start(count: usize, tls: bool) -> Self {
        let folder = TempDir::new().unwrap();
        let scheme = if tls { "https" } else { "http" };
        let mut more = Vec::new();
        let mut keys = ArbiterKeys::default();
        let authority = Authority::new(folder.path(), "ca");
        if tls {
            keys.etcd = Some(authority.issue("client", CLIENT));
            let server = authority.issue("server", BOTH);
            let file = |path: &Path| path.to_str().unwrap().to_owned();
            more = vec![
                "--client-cert-auth".to_owned(),
                "--trusted-ca-file".to_owned(),
                file(&server.ca),
                "--cert-file".to_owned(),
                file(&server.cert),
                "--key-file".to_owned(),
                file(&server.key),
            ];
        }
        let ports = free_ports(2 * count);
        let (clients, peers) = ports.split_at(count);
        let all: Vec<String> = (0..)
            .zip(peers)
            .map(|(n, p)| format!("m{n}=http://{p}"))
            .collect();
        let members = (0..count).map(|n| {
            let (client, peer) = (
                format!("{scheme}://{}", clients[n]),
                format!("http://{}", peers[n]),
            );
            let log = File::create(folder.path().join(format!("m{n}.log"))).unwrap();
            let child = Command::new("etcd")
                .args(["--name", &format!("m{n}")])
                .arg("--data-dir")
                .arg(folder.path().join(format!("m{n}")))
                .args([
                    "--listen-client-urls",
                    &client,
                    "--advertise-client-urls",
                    &client,
                ])
                .args([
                    "--listen-peer-urls",
                    &peer,
                    "--initial-advertise-peer-urls",
                    &peer,
                ])
                .args(["--initial-cluster", &all.join(",")])
                .args(&more)
                .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .expect("etcd: scripts/setup.sh test installs it");
            Some(child)
        });
        let members = members.collect();
        let urls = clients.iter().map(|c| format!("{scheme}://{c}"));
        let urls: Vec<String> = urls.collect();
        let cluster = Self {
            members,
            address: format!("etcd:{}", urls.join(",")),
            keys,
            authority,
            folder,
        };
        await_answer(&mut *cluster.open("first"));
        cluster
    }

    /// kill -9.
    fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.members[member].take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in 0..self.members.len() {
            self.kill(member);
            if thread::panicking() {
                let log = self.folder.path().join(format!("m{member}.log"));
                let log = std::fs::read_to_string(log).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(LOG_LINES).collect();
                let last: Vec<&str> = last.into_iter().rev().collect();
                eprintln!("---- m{member}.log ----\n{}", last.join("\n"));
            }
        }
    }
}

impl Place for Cluster {
    fn open(&self, vm: &str) -> Box<dyn ArbiterBackend> {
        open_with(&self.address, vm, &self.keys).unwrap()
    }
}

#[track_caller]
fn await_answer(arbiter: &mut dyn ArbiterBackend) -> Outcome {
    let until = Instant::now() + LIMIT;
    loop {
        match arbiter.read() {
            Outcome::Unknown => {
                let why = arbiter.take_trouble();
                assert!(Instant::now() < until, "no answer: {why:?}");
            }
            known => return known,
        }
    }
}

#[test]
fn etcd_keeps_the_contract_and_survives_a_member() {
    let mut cluster = Cluster::start(MEMBERS, false);
    contract(&Patient(&cluster), 10);

    // The member that all clients ask first dies in the middle of it.
    let history = History::default();
    let (stop, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let handles: Vec<_> = (0..4).map(|_| cluster.open("storm")).collect();
    thread::scope(|scope| {
        for (client, mut arbiter) in (0..).zip(handles) {
            let (history, stop, calls) = (&history, &stop, &calls);
            scope.spawn(move || {
                history.client(&mut *arbiter, client % 2 == 0, || {
                    calls.fetch_add(1, Ordering::SeqCst);
                    stop.load(Ordering::SeqCst)
                });
            });
        }
        let until = Instant::now() + LIMIT;
        let more = |count: usize| {
            let end = calls.load(Ordering::SeqCst) + count;
            while calls.load(Ordering::SeqCst) < end && Instant::now() < until {
                thread::sleep(Duration::from_millis(10));
            }
        };
        more(60);
        cluster.kill(0);
        more(60);
        stop.store(true, Ordering::SeqCst);
    });
    let mut arbiter = cluster.open("storm");
    let last = await_answer(&mut *arbiter);
    assert_eq!(history.read(&mut *arbiter), last);
    let (won, _) = history.check();
    assert!(won > 20, "{won} won");

    // One of three is no majority: it must not answer, not even a read.
    cluster.kill(1);
    assert_eq!(arbiter.read(), Outcome::Unknown);
    let text = arbiter.take_trouble().unwrap();
    assert!(
        text.starts_with("arbiter etcd: ") && !text.contains('\n'),
        "{text}"
    );
}

#[test]
fn etcd_over_tls_keeps_the_contract_and_strangers_out() {
    let cluster = Cluster::start(1, true);
    contract(&Patient(&cluster), 10);
    let known = await_answer(&mut *cluster.open("expect"));
    assert!(matches!(known, Outcome::Read(Some(_))), "{known:?}");

    // Neither side takes the other for what it isn't.
    let own = cluster.keys.etcd.clone().unwrap();
    let refused = |address: &str, keys: &ArbiterKeys, why: &str| {
        let mut arbiter = open_with(address, "expect", keys).unwrap();
        assert_eq!(arbiter.read(), Outcome::Unknown, "{why}");
        let text = arbiter.take_trouble().unwrap();
        assert!(text.contains(why) && !text.contains('\n'), "{text}");
    };
    let folder = cluster.folder.path();
    let other = Authority::new(folder, "other").issue("stranger", BOTH);
    let with = |ca: &Path, cert: &Path, key: &Path| ArbiterKeys {
        cluster: None,
        etcd: Some(TlsFiles {
            ca: ca.to_owned(),
            cert: cert.to_owned(),
            key: key.to_owned(),
        }),
    };
    // A client of another authority, and one that believes another.
    let stranger = with(&own.ca, &other.cert, &other.key);
    refused(&cluster.address, &stranger, "it refuses the connection");
    let misled = with(&other.ca, &own.cert, &own.key);
    let why = "its certificate was not issued by the ca of [arbiter_tls]";
    refused(&cluster.address, &misled, why);
    // The right authority, but another host's certificate: it is for 127.0.0.1 and localhost.
    let elsewhere = cluster.address.replace("127.0.0.1", "127.0.0.2");
    let port = elsewhere.rsplit(':').next().unwrap();
    let relay = TcpListener::bind(format!("127.0.0.2:{port}")).unwrap();
    let to = cluster.address.rsplit("//").next().unwrap().to_owned();
    thread::spawn(move || relay_all(&relay, &to));
    refused(
        &elsewhere,
        &cluster.keys,
        "its certificate is for another host",
    );
    // In the clear it says nothing of use.
    let clear = cluster.address.replace("https", "http");
    let mut plain = open_with(&clear, "expect", &ArbiterKeys::default()).unwrap();
    assert_eq!(plain.read(), Outcome::Unknown);

    // New keys are used from the next call on, and bad ones aren't.
    let mut arbiter = cluster.open("expect");
    assert_eq!(await_answer(&mut *arbiter), known);
    let old = std::fs::read(&own.cert).unwrap();
    std::fs::write(&own.cert, "half of it").unwrap();
    assert_eq!(arbiter.read(), known);
    let text = arbiter.take_trouble().unwrap();
    assert!(text.contains("new credentials are not used"), "{text}");
    std::fs::copy(&other.key, &own.key).unwrap();
    std::fs::copy(&other.cert, &own.cert).unwrap();
    assert_eq!(arbiter.read(), Outcome::Unknown);
    assert_ne!(std::fs::read(&own.cert).unwrap(), old);
    cluster.authority.issue("client", CLIENT);
    assert_eq!(await_answer(&mut *arbiter), known);
}

#[test]
fn a_server_that_trickles_does_not_hold_a_call() {
    let folder = TempDir::new().unwrap();
    let keys = ArbiterKeys {
        cluster: None,
        etcd: Some(Authority::new(folder.path(), "ca").issue("client", CLIENT)),
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("etcd:https://{}", listener.local_addr().unwrap());
    // Begins a handshake record of 16 KiB and gives a byte of it now and then.
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            thread::spawn(move || {
                let mut sent = stream.write_all(&[22, 3, 3, 64, 0]);
                while sent.is_ok() {
                    thread::sleep(Duration::from_millis(50));
                    sent = stream.write_all(&[2]);
                }
            });
        }
    });
    let mut arbiter = open_with(&address, "slow", &keys).unwrap();
    let asked = Instant::now();
    assert_eq!(arbiter.read(), Outcome::Unknown);
    // 2.4 s is the limit of a call; a byte each 50 ms would take a quarter of an hour.
    assert!(asked.elapsed() < Duration::from_secs(20));
}

/// Passes bytes on, both ways.
fn relay_all(listener: &TcpListener, to: &str) {
    while let Ok((here, _)) = listener.accept() {
        let Ok(there) = std::net::TcpStream::connect(to) else {
            return;
        };
        let (mut in_a, mut out_a) = (here.try_clone().unwrap(), there.try_clone().unwrap());
        thread::spawn(move || pass(&mut in_a, &mut out_a));
        let (mut in_b, mut out_b) = (there, here);
        thread::spawn(move || pass(&mut in_b, &mut out_b));
    }
}

fn pass(from: &mut impl Read, to: &mut impl Write) {
    let _ = std::io::copy(from, to);
}
