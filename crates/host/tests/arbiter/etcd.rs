//! An etcd cluster of three on this host.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use twinvm_host::arbiter_worker::ArbiterBackend;
use twinvm_protocol::Outcome;

use crate::contract::contract;
use crate::history::History;
use crate::places::{Place, open};

/// Everything here comes within seconds, on a busy host too.
const LIMIT: Duration = Duration::from_secs(60);
const MEMBERS: usize = 3;

struct Cluster {
    members: Vec<Option<Child>>,
    address: String,
    _folder: TempDir,
}

/// Free ports, below those that the system gives to outgoing connections (Linux:
/// `ip_local_port_range` begins at 32768).
fn free_ports(count: usize) -> Vec<SocketAddr> {
    let start = std::process::id() % 10_000;
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
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let ports = free_ports(2 * MEMBERS);
        let (clients, peers) = ports.split_at(MEMBERS);
        let all: Vec<String> = (0..)
            .zip(peers)
            .map(|(n, p)| format!("m{n}=http://{p}"))
            .collect();
        let members = (0..MEMBERS).map(|n| {
            let (client, peer) = (
                format!("http://{}", clients[n]),
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
                .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .expect("etcd: scripts/setup.sh test installs it");
            Some(child)
        });
        let members = members.collect();
        let urls: Vec<String> = clients.iter().map(|c| format!("http://{c}")).collect();
        let cluster = Self {
            members,
            address: format!("etcd:{}", urls.join(",")),
            _folder: folder,
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
        for member in 0..MEMBERS {
            self.kill(member);
        }
    }
}

impl Place for Cluster {
    fn open(&self, vm: &str) -> Box<dyn ArbiterBackend> {
        open(&self.address, vm)
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
    let mut cluster = Cluster::start();
    contract(&cluster, 10);

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
