//! `twinvm arbiter`: the server as a process that is killed, and the record for people.

mod support;

#[path = "../../host/tests/arbiter/history.rs"]
mod history;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use history::History;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{Folder, LIMIT, LISTEN, Server, twinvm, twinvm_with};
use twinvm_config::Arbiter;
use twinvm_host::arbiter::ArbiterKeys;
use twinvm_host::arbiter_worker::ArbiterBackend;
use twinvm_protocol::{
    BackupName, Generation, Incarnation, LiveName, NodeId, Outcome, Record, SessionId,
};

fn serve(listen: &str, folder: &Path) -> Server {
    let folder = folder.to_str().unwrap();
    Server::start(&["arbiter", "serve", "--listen", listen, "--dir", folder])
}

fn spec(server: &Server) -> String {
    format!("tcp:{}", server.address)
}

fn open(address: &str, vm: &str) -> Box<dyn ArbiterBackend> {
    let address = Arbiter::parse(address, |folder| folder.into()).unwrap();
    address.open(vm, &ArbiterKeys::default()).unwrap()
}

#[test]
fn what_was_answered_outlives_kills_in_the_middle_of_a_storm() {
    const KILLS: usize = 4;
    let folder = Folder::new();
    let mut server = serve(LISTEN, &folder.path("records"));
    let (address, spec) = (server.address.clone(), spec(&server));
    let history = History::default();
    let (stop, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for client in 0..6 {
            let (history, stop, calls, spec) = (&history, &stop, &calls, &spec);
            scope.spawn(move || {
                let mut arbiter = open(spec, "storm");
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
                thread::sleep(Duration::from_millis(1));
            }
        };
        for kill in 0..KILLS {
            more(150 + 31 * kill);
            server.kill();
            server = serve(&address, &folder.path("records"));
        }
        more(200);
        stop.store(true, Ordering::SeqCst);
    });
    // The last answer is there after one more life, and the folder alone says the same.
    let last = history.read(&mut *open(&spec, "storm"));
    server.kill();
    server = serve(&address, &folder.path("records"));
    assert_eq!(history.read(&mut *open(&spec, "storm")), last);
    let on_disk = format!("file:{}", folder.text("records/vm.storm"));
    assert_eq!(history.read(&mut *open(&on_disk, "storm")), last);
    let (won, doubts) = history.check();
    assert!(won > 50 && doubts > 0, "{won} won, {doubts} in doubt");
    drop(server);
}

#[test]
fn the_server_ends_in_good_order_and_refuses_what_it_can_not_serve() {
    let folder = Folder::new();
    let mut server = serve("localhost:0", &folder.path("records"));
    let dir = folder.text("records");
    let taken = twinvm(&[
        "arbiter",
        "serve",
        "--listen",
        &server.address,
        "--dir",
        &dir,
    ]);
    assert_eq!(taken.code, Some(2));
    assert!(taken.err.contains("can't listen there"), "{}", taken.err);
    kill_process(Pid::from_child(&server.running.child), Signal::TERM).unwrap();
    assert_eq!(server.running.child.wait().unwrap().code(), Some(0));

    for (listen, dir, why) in [
        ("0.0.0.0:0", &dir, "loopback address"),
        ("[::]:0", &dir, "loopback address"),
        ("7790", &dir, "expected HOST:PORT"),
        ("127.0.0.1:0", &folder.file("file", ""), "name a folder"),
    ] {
        let done = twinvm(&["arbiter", "serve", "--listen", listen, "--dir", dir]);
        assert_eq!((done.code, &done.out[..]), (Some(2), ""));
        assert!(
            done.err.contains(why) && done.err.lines().count() == 1,
            "{}",
            done.err
        );
    }
}

const LOST: u128 = 0x5f0c_31d2_a97e_4b68_85d2_c1f3_a0b4_e679;
const KEPT: u128 = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;

/// A VM whose node `a` is live with a backup `b`; the folder of `b` is on this host.
fn vm(folder: &Folder) -> String {
    fs::create_dir_all(folder.path("state/b")).unwrap();
    folder.file("state/b/node.id", format!("{KEPT:032x}\n"));
    let file = "name = \"shop\"\nkernel = \"k\"\narbiter = \"file:arbiter\"\n\
                [[node]]\nname = \"a\"\nchannel = \"127.0.0.1:1\"\n\
                [[node]]\nname = \"b\"\nchannel = \"127.0.0.1:2\"\n";
    let mut arbiter = open(&format!("file:{}", folder.text("arbiter")), "shop");
    for generation in 1..=4 {
        let record = Record {
            generation: Generation(generation),
            live: LiveName {
                id: NodeId(LOST),
                incarnation: Incarnation(9),
            },
            backup: (generation == 4).then_some(BackupName {
                id: NodeId(KEPT),
                session: SessionId(1),
            }),
            halted: false,
        };
        assert_eq!(
            arbiter.cas(Generation(generation - 1), record),
            Outcome::Won(record)
        );
    }
    folder.file("VM.toml", file)
}

#[test]
fn show_says_who_may_run_the_vm() {
    let folder = Folder::new();
    let file = vm(&folder);
    let shown = twinvm(&["arbiter", "show", &file]);
    assert_eq!((shown.code, &shown.err[..]), (Some(0), ""));
    assert_eq!(
        shown.out,
        format!(
            "VM shop: generation 4: node {LOST:032x} is live, node b (id {KEPT:032x}) is its \
             backup and may claim the VM\n"
        )
    );
    let json = twinvm(&["arbiter", "show", &file, "--json"]);
    let json: Value = serde_json::from_str(&json.out).unwrap();
    let record = &json["record"];
    assert_eq!(
        (&json["vm"], &record["generation"]),
        (&"shop".into(), &4.into())
    );
    assert_eq!(record["live"]["id"], format!("{LOST:032x}"));
    assert_eq!(record["live"]["name"], Value::Null);
    assert_eq!(record["backup"]["name"], "b");
    assert_eq!(record["halted"], false);

    let server = serve("127.0.0.1:0", &folder.path("records"));
    let spec = spec(&server);
    let none = twinvm(&["arbiter", "show", "--arbiter", &spec, "--vm", "shop"]);
    assert_eq!(none.out, "VM shop: no record: it has never been started\n");
    drop(server);
    let silent = twinvm(&["arbiter", "show", "--arbiter", &spec, "--vm", "shop"]);
    assert_eq!(silent.code, Some(1));
    assert!(
        silent.err.contains(&spec) && silent.err.lines().count() == 1,
        "{}",
        silent.err
    );

    let away = format!("file:{}", folder.text("away"));
    for (args, why) in [
        (vec!["--arbiter", &away, "--vm", "x"], "there is none"),
        (
            vec!["--arbiter", "nfs:x", "--vm", "x"],
            "expected \"file:DIR\"",
        ),
        (vec!["--arbiter", "tcp:10.0.0.1:5", "--vm", "x"], "loopback"),
        (vec!["--arbiter", &spec, "--vm", "a/b"], "VM name"),
        (vec!["--arbiter", &spec], "--vm"),
        (vec![], "required"),
    ] {
        let done = twinvm(&[&["arbiter", "show"][..], &args].concat());
        assert_eq!((done.code, &done.out[..]), (Some(2), ""), "{args:?}");
        assert!(
            done.err.contains(why) && done.err.lines().count() == 1,
            "{}",
            done.err
        );
    }
    assert!(!folder.path("away").exists());
}

#[test]
fn reset_lets_the_chosen_node_start_and_nobody_go_on() {
    let folder = Folder::new();
    let file = vm(&folder);
    let reset = |args: &[&str], typed: &str| {
        twinvm_with(&[&["arbiter", "reset", &file][..], args].concat(), typed)
    };
    let read = || open(&format!("file:{}", folder.text("arbiter")), "shop").read();
    let before = read();
    // Only a person at a terminal can type the name.
    let asked = reset(&["--live", "b"], "shop\n");
    assert_eq!((asked.code, &asked.out[..]), (Some(2), ""));
    assert!(
        asked.err.contains("generation 4") && asked.err.contains("--yes"),
        "{}",
        asked.err
    );
    for (live, above, why) in [
        ("a", "0", "node.id"),
        ("c", "0", "node.id"),
        ("12ab", "0", "node.id"),
        ("b", "10005", "at most 10000"),
        ("b", "18446744073709551615", "at most 10000"),
    ] {
        let done = reset(&["--live", live, "--above", above, "--yes"], "");
        assert_eq!(done.code, Some(2));
        assert!(
            done.err.contains(why) && done.err.lines().count() == 1,
            "{}",
            done.err
        );
    }
    assert_eq!(read(), before);

    let done = reset(&["--live", "b", "--yes"], "");
    let said = format!("VM shop: generation 6: off, and node b (id {KEPT:032x}) may start it\n");
    assert_eq!((done.code, done.out), (Some(0), said));
    let Outcome::Read(Some(record)) = read() else {
        panic!("no record");
    };
    assert_eq!((record.live.id, record.backup), (NodeId(KEPT), None));
    assert!(record.halted && record.generation == Generation(6));
    // What the backup of generation 4 would claim with.
    let claim = Record {
        live: LiveName {
            id: NodeId(KEPT),
            incarnation: Incarnation(3),
        },
        halted: false,
        ..record
    };
    let mut arbiter = open(&format!("file:{}", folder.text("arbiter")), "shop");
    assert_eq!(
        arbiter.cas(Generation(4), claim),
        Outcome::Lost(Some(record))
    );

    // An arbiter that has lost everything is brought above what the nodes know.
    let server = serve("127.0.0.1:0", &folder.path("records"));
    let spec = spec(&server);
    let id = format!("{LOST:032X}");
    let which = ["arbiter", "reset", "--arbiter", &spec, "--vm", "shop"];
    let args = [&which[..], &["--live", &id, "--above", "7", "--yes"]].concat();
    let said = format!("VM shop: generation 9: off, and node {LOST:032x} may start it\n");
    let done = twinvm(&args);
    assert_eq!((done.code, done.out), (Some(0), said));
}
