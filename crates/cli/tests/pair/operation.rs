//! What those who run a pair see and ask: planned takeovers, the backup sent away, digests, the
//! hook, figures, lines, and the service manager.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::client::{Asker, Counter};
use crate::cluster::{A, B, Cluster, LIMIT, NAMES, PROGRAM, wait_for};
use crate::executable::executable;
use crate::sandbox::{UID, confine, may_change_user};

/// What `ctl` printed.
fn answer(done: &Output) -> Value {
    assert!(done.status.success(), "{done:?}");
    serde_json::from_slice(&done.stdout).unwrap()
}

/// What `ctl` said is not so, or not yet.
fn not_come_about(done: &Output) -> String {
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let text = String::from_utf8(done.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// Each takeover ends protected, the other way round, and one connection counts on through all of
/// them.
#[test]
fn takeovers_swap_the_nodes_and_nothing_is_lost() {
    let mut vm = Cluster::redis();
    vm.start_pair();
    vm.await_redis(A);
    let mut client = Counter::connect(vm.redis.unwrap());
    client.goes_on();
    for (live, backup) in [(A, B), (B, A), (A, B)] {
        client.longest_wait();
        let generation = vm.generation();
        let said = answer(&vm.ctl(live, "takeover"));
        assert_eq!(said["live"], NAMES[backup]);
        assert_eq!(said["backup"], NAMES[live]);
        assert_eq!(said["protected"], true);
        // The claim and the pairing.
        assert_eq!(said["generation"], generation + 2);
        // No waiting: that is what it has waited for.
        assert_eq!(vm.role(live).as_deref(), Some("backup"));
        client.goes_on();
        let takeover = &vm.status(backup).unwrap()["last_takeover"];
        eprintln!(
            "a reply took {:?} at a takeover: {takeover}",
            client.longest_wait()
        );
        assert!(takeover["arbitrate_ms"].is_number(), "{takeover}");
    }
    assert!(client.end() > 100);
}

/// What `ctl takeover` says on A while B does not answer, and meanwhile `happens`. Where the host
/// was so slow that B was dropped before A was asked, it is tried again.
#[track_caller]
fn asked_in_vain(vm: &mut Cluster, happens: fn(&Cluster)) -> String {
    let until = Instant::now() + LIMIT;
    loop {
        vm.signal(B, Signal::STOP);
        let done = thread::scope(|scope| {
            let asked = scope.spawn(|| vm.ctl(A, "takeover"));
            happens(vm);
            asked.join().unwrap()
        });
        if !String::from_utf8_lossy(&done.stderr).contains("has no paired backup") {
            return not_come_about(&done);
        }
        assert!(Instant::now() < until, "always too late: {done:?}");
        vm.kill(B);
        vm.start(B);
        vm.await_protected(A);
    }
}

/// A backup that hangs, and one that dies, when it should take over: the VM goes on where it is.
#[test]
fn a_takeover_that_nobody_makes_leaves_the_vm_where_it_is() {
    let mut vm = Cluster::echo();
    vm.start_pair();
    let mut asker = Asker::connect(&vm.file.lan);
    assert_eq!(asker.ask(), 1);

    let said = asked_in_vain(&mut vm, |_| ());
    assert!(
        said.contains("node b did not take over: the VM goes on here"),
        "{said}"
    );
    assert_eq!(vm.role(A).as_deref(), Some("live"));
    let count = asker.ask();
    assert!(count > 1);
    // It comes to itself, finds that it has lost, and joins.
    vm.signal(B, Signal::CONT);
    vm.await_protected(A);

    let said = asked_in_vain(&mut vm, |vm| {
        wait_for("the VM to stand still", || {
            let log = vm.log(A);
            let asked = vm.status(A)?["icount"].as_u64();
            thread::sleep(Duration::from_millis(30));
            (vm.status(A)?["icount"].as_u64() == asked && !log.is_empty()).then_some(())
        });
        vm.signal(B, Signal::KILL);
    });
    assert!(said.contains("did not take over"), "{said}");
    assert!(asker.ask() > count);
    vm.kill(B);
    vm.start(B);
    vm.await_protected(A);

    // Asked of the backup, which has nothing to hand over.
    let done = vm.ctl(B, "takeover");
    assert_eq!(done.status.code(), Some(2));
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(
        said.contains("this node is backup; ask the live node"),
        "{said}"
    );
}

#[test]
fn a_backup_that_was_sent_away_stays_away_until_it_is_started() {
    let mut vm = Cluster::echo();
    vm.start_pair();
    let mut asker = Asker::connect(&vm.file.lan);
    for asked in [A, B] {
        let said = answer(&vm.ctl(asked, "detach"));
        assert_eq!(
            (&said["left"], &said["protected"]),
            (&"b".into(), &false.into())
        );
        assert_eq!(vm.await_end(B), Some(0));
        vm.await_solo(A);
        asker.ask();
        let done = vm.ctl(A, "detach");
        assert_eq!(done.status.code(), Some(2), "{done:?}");
        vm.start(B);
        vm.await_protected(A);
    }
}

#[test]
fn both_nodes_have_the_same_digest_of_the_same_step() {
    let mut vm = Cluster::echo();
    vm.start(A);
    vm.await_role(A, "live");
    let alone = answer(&vm.ctl(A, "digest"));
    assert_eq!(alone["backup"], Value::Null, "{alone}");
    vm.start(B);
    vm.await_protected(A);
    Asker::connect(&vm.file.lan).ask();
    let live = answer(&vm.ctl(A, "digest"));
    assert_eq!(live["backup"], "equal", "{live}");
    let backup = answer(&vm.ctl(B, "digest"));
    assert_eq!(backup["position"], Value::Null, "{backup}");
    for field in ["icount", "digest"] {
        assert_eq!(backup["compared"][field], live[field], "{backup} {live}");
    }
    assert_eq!(vm.status(B).unwrap()["digests_equal"], 1);
}

#[test]
fn a_status_has_the_fields_that_programs_read() {
    let mut vm = Cluster::echo();
    vm.start_pair();
    Asker::connect(&vm.file.lan).ask();
    vm.kill(A);
    vm.await_role(B, "live");
    vm.start(A);
    vm.await_protected(B);
    Asker::connect(&vm.file.lan).ask();
    let status = vm.status(B).unwrap();
    assert_eq!(status["vm"], "test");
    assert_eq!(status["protected"], true);
    for number in ["generation", "lag_ms", "log_bytes_s", "mips", "takeovers"] {
        assert!(status[number].is_number(), "{number}: {status}");
    }
    for (outer, inner) in [
        ("output_hold_us", &["p50", "p99"][..]),
        (
            "last_takeover",
            &["at_unix_ms", "detect_ms", "drain_ms", "arbitrate_ms"],
        ),
    ] {
        for name in inner {
            assert!(status[outer][name].is_number(), "{outer}.{name}: {status}");
        }
    }
    let nodes = status["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 2);
    for (node, (name, role)) in nodes.iter().zip([("b", "live"), ("a", "backup")]) {
        assert_eq!((&node["name"], &node["role"]), (&name.into(), &role.into()));
        assert!(
            node["peer"].is_string() && node["icount"].is_number(),
            "{node}"
        );
    }
}

/// Writes the hook and has the VM's file name it.
fn with_hook(vm: &mut Cluster) {
    let hook = vm.path("hook.sh");
    let heard = vm.path("heard");
    let script = format!(
        "#!/bin/sh\necho \"$1 $TWINVM_VM/$TWINVM_NODE $TWINVM_EVENT $TWINVM_PROTECTED \
         $TWINVM_GENERATION $PPID\" >> {heard:?}\necho told\n"
    );
    executable(&hook, script.as_bytes());
    vm.file.more = "[hooks]\ncommand = \"./hook.sh --for\"\n".to_owned();
    vm.write();
}

/// What the hook heard of a node: events with "yes" or "no" for protected, generations, and the
/// process that ran it last.
fn heard(vm: &Cluster, node: usize) -> Vec<(String, u64, String)> {
    let text = fs::read_to_string(vm.path("heard")).unwrap_or_default();
    let whose = format!("--for test/{} ", NAMES[node]);
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(&whose[..]));
    lines
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [event, protected, generation, runner] = words[..] else {
                panic!("{line}");
            };
            let generation = generation.parse().unwrap();
            (
                format!("{event} {protected}"),
                generation,
                runner.to_owned(),
            )
        })
        .collect()
}

#[track_caller]
fn await_heard(vm: &Cluster, node: usize, events: &[&str]) {
    wait_for(&format!("{} to have heard {events:?}", NAMES[node]), || {
        let heard = heard(vm, node);
        let heard: Vec<&str> = heard.iter().map(|(event, ..)| &event[..]).collect();
        (heard == events).then_some(())
    });
}

fn runs(pid: &str) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z ")
}

#[test]
fn the_hook_hears_of_all_that_matters_and_ends_with_its_node() {
    let mut vm = Cluster::echo();
    with_hook(&mut vm);
    vm.start_pair();
    await_heard(&vm, A, &["went-live no", "protection-regained yes"]);
    await_heard(&vm, B, &["protection-regained yes"]);
    let runner = heard(&vm, A)[0].2.clone();
    assert!(runs(&runner), "the process that runs the hook stays");

    // However a node ends, what ran its hook ends too.
    vm.kill(A);
    wait_for("the end of the hook's process", || {
        (!runs(&runner)).then_some(())
    });
    await_heard(
        &vm,
        B,
        &[
            "protection-regained yes",
            "protection-lost no",
            "took-over no",
        ],
    );
    vm.start(A);
    vm.await_protected(B);

    // In good order it hears of the end.
    let generation = vm.generation();
    assert!(vm.ctl(B, "stop").status.success());
    assert_eq!((vm.await_end(A), vm.await_end(B)), (Some(0), Some(0)));
    let all = heard(&vm, B);
    let (event, last, runner) = all.last().unwrap();
    assert_eq!((&event[..], *last), ("ended no", generation + 1), "{all:?}");
    wait_for("the end of the hook's process", || {
        (!runs(runner)).then_some(())
    });
    assert!(heard(&vm, A).iter().any(|(event, ..)| event == "ended no"));
    for line in ["took-over: told", "took-over: the command has ended after "] {
        assert!(vm.log(B).contains(line), "{line}: {}", vm.log(B));
    }
}

#[test]
fn the_hook_runs_as_the_nodes_user() {
    let mut vm = Cluster::echo();
    confine(&mut vm);
    let hook = vm.path("hook.sh");
    let who = vm.path("who");
    let script = format!("#!/bin/sh\nid -u > {who:?}\n");
    executable(&hook, script.as_bytes());
    fs::set_permissions(vm.root(), fs::Permissions::from_mode(0o777)).unwrap();
    vm.file.more = "[hooks]\ncommand = \"./hook.sh\"\n".to_owned();
    vm.write();
    vm.start(A);
    let user = wait_for("the hook", || {
        let text = fs::read_to_string(&who).ok()?;
        text.trim().parse::<u32>().ok()
    });
    let own = rustix::process::geteuid().as_raw();
    assert_eq!(user, if may_change_user() { UID } else { own });
}

/// A hook that hangs costs nothing but itself.
#[test]
fn a_hook_that_hangs_holds_nothing_up() {
    let mut vm = Cluster::echo();
    vm.file.more = "[hooks]\ncommand = \"sleep 1000\"\ntimeout_s = 2\n".to_owned();
    vm.write();
    vm.start_pair();
    let mut asker = Asker::connect(&vm.file.lan);
    asker.ask();
    vm.kill(A);
    vm.await_role(B, "live");
    asker.ask();
    wait_for("the hook to be killed", || {
        vm.log(B).contains("killed: it took too long").then_some(())
    });
    assert!(vm.ctl(B, "stop").status.success());
    assert_eq!(vm.await_end(B), Some(0));
}

/// A program that isn't there is told, and the node runs.
#[test]
fn a_hook_that_is_not_there_is_told() {
    let mut vm = Cluster::echo();
    vm.file.more = "[hooks]\ncommand = \"./absent\"\n".to_owned();
    vm.write();
    vm.start(A);
    vm.await_role(A, "live");
    let absent = vm.path("absent");
    let told = format!(
        "warning: went-live: can't run {}: No such file",
        absent.display()
    );
    wait_for("a line that names the program", || {
        vm.log(A).contains(&told).then_some(())
    });
}

/// Lines of a log that are one JSON object each.
fn json_lines(text: &str) -> Vec<Value> {
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    lines.collect()
}

#[test]
fn lines_for_programs_name_the_event() {
    let mut vm = Cluster::echo();
    with_hook(&mut vm);
    for node in [A, B] {
        vm.start_with(node, &["--log-format", "json"], &[]);
        vm.await_role(node, if node == A { "live" } else { "backup" });
    }
    vm.await_protected(A);
    vm.kill(A);
    vm.await_role(B, "live");
    await_heard(
        &vm,
        B,
        &[
            "protection-regained yes",
            "protection-lost no",
            "took-over no",
        ],
    );
    assert!(vm.ctl(B, "stop").status.success());
    assert_eq!(vm.await_end(B), Some(0));
    let lines = json_lines(&vm.log(B));
    for line in &lines {
        assert_eq!((&line["vm"], &line["node"]), (&"test".into(), &"b".into()));
        let time = line["time"].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{line}");
        assert!(line["text"].is_string(), "{line}");
    }
    let of = |event: &str| {
        let found = lines.iter().find(|line| line["event"] == event);
        found.unwrap_or_else(|| panic!("no {event}: {lines:?}"))
    };
    assert_eq!(of("started")["generation"], 0);
    assert_eq!(of("took-over")["generation"], 3);
    assert_eq!(of("protection-lost")["level"], "warning");
    assert_eq!(of("hook")["level"], "info");
    assert_eq!(of("ended")["text"], "ends: the VM is off");
}

/// What a node's port for monitoring says, by name and labels.
fn figures(vm: &Cluster, node: usize) -> BTreeMap<String, f64> {
    let log = vm.log(node);
    let address = log.rsplit_once("figures at http://").expect("a port").1;
    let address = address.split_once('/').unwrap().0;
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    parsed(body)
}

/// Checks the form of every line on the way.
fn parsed(body: &str) -> BTreeMap<String, f64> {
    let mut known = BTreeSet::new();
    let mut values = BTreeMap::new();
    let mut kind = "";
    for line in body.lines() {
        if let Some(line) = line.strip_prefix("# TYPE ") {
            let (name, what) = line.split_once(' ').unwrap();
            assert!(known.insert(name), "{name} twice");
            assert!(["gauge", "counter", "summary"].contains(&what), "{line}");
            assert_eq!(what == "counter", name.ends_with("_total"), "{line}");
            kind = name;
            continue;
        }
        if let Some(line) = line.strip_prefix("# HELP ") {
            assert!(line.ends_with('.'), "{line}");
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = name.split_once('{').unwrap();
        assert!(name.starts_with(kind), "{name} behind the type of {kind}");
        let own = |node| format!("vm=\"test\",node=\"{node}\"");
        let labels = labels.strip_suffix('}').unwrap();
        let labels = labels
            .strip_prefix(&own("a"))
            .or(labels.strip_prefix(&own("b")));
        let key = format!("{name}{}", labels.unwrap());
        assert!(
            values.insert(key, value.parse().unwrap()).is_none(),
            "{line} twice"
        );
    }
    values
}

#[test]
fn figures_tell_what_status_tells() {
    let mut vm = Cluster::echo();
    for node in [A, B] {
        vm.start_with(node, &["--metrics", "127.0.0.1:0"], &[]);
        vm.await_role(node, if node == A { "live" } else { "backup" });
    }
    vm.await_protected(A);
    Asker::connect(&vm.file.lan).ask();
    answer(&vm.ctl(A, "digest"));
    let (live, backup) = (figures(&vm, A), figures(&vm, B));
    for (of, name, value) in [
        (&live, "twinvm_protected", 1.0),
        (&live, "twinvm_role,role=\"live\"", 1.0),
        (&live, "twinvm_role,role=\"backup\"", 0.0),
        (&live, "twinvm_generation", 2.0),
        (&live, "twinvm_session", 1.0),
        (&live, "twinvm_sessions_total", 1.0),
        (&live, "twinvm_takeovers_total", 0.0),
        (&backup, "twinvm_role,role=\"backup\"", 1.0),
        (&backup, "twinvm_protected", 1.0),
        (&backup, "twinvm_digests_equal_total", 1.0),
        (&backup, "twinvm_divergences_total", 0.0),
    ] {
        assert_eq!(of.get(name), Some(&value), "{name}: {of:?}");
    }
    assert!(live["twinvm_output_hold_seconds_count"] >= 1.0, "{live:?}");
    assert!(live["twinvm_log_bytes_total"] > 0.0 && live["twinvm_steps_total"] > 0.0);
    assert!(live["process_resident_memory_bytes"] > 1e6, "{live:?}");
    assert!(!live.contains_key("twinvm_last_takeover_timestamp_seconds"));

    vm.kill(A);
    vm.await_role(B, "live");
    vm.await_solo(B);
    let live = figures(&vm, B);
    assert_eq!(live["twinvm_protected"], 0.0);
    assert_eq!(live["twinvm_protection_losses_total"], 1.0);
    assert_eq!(live["twinvm_takeovers_total"], 1.0);
    assert!(live["twinvm_last_takeover_timestamp_seconds"] > 1.6e9);
    assert!(
        live["twinvm_last_takeover_seconds,stage=\"arbitrate\""] > 0.0,
        "{live:?}"
    );

    // The same by the control socket, and the port of another is named.
    let text = answer(&vm.ctl(B, "metrics"));
    assert_eq!(parsed(text.as_str().unwrap()).len(), live.len());
    let log = vm.log(B);
    let taken = log.rsplit_once("figures at http://").unwrap().1;
    let taken = taken.split_once('/').unwrap().0.to_owned();
    vm.start_with(A, &["--metrics", &taken], &[]);
    assert_eq!(vm.await_end(A), Some(2));
    let said = vm.log(A);
    let expected = format!("twinvm node: metrics: can't listen on {taken}: Address already in use");
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn the_service_manager_hears_how_the_node_is() {
    let mut vm = Cluster::echo();
    let path = vm.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let hears = |path: &Path| {
        let mut bytes = [0; 4096];
        let count = manager
            .recv(&mut bytes)
            .unwrap_or_else(|e| panic!("{path:?}: {e}"));
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    };
    vm.start_with(A, &[], &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    assert_eq!(hears(&path), "READY=1\nSTATUS=begins");
    let next = |text: &str| {
        while hears(&path) != text {}
    };
    next("STATUS=live, NOT protected");
    vm.start(B);
    next("STATUS=live, protected");
    vm.terminate(A);
    next("STOPPING=1");
    assert_eq!(vm.await_end(A), Some(0));
}

#[test]
fn the_service_manager_hears_when_the_arbiter_listens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let mut arbiter = Command::new(PROGRAM)
        .args(["arbiter", "serve", "--listen", "127.0.0.1:0", "--dir"])
        .arg(folder.path().join("records"))
        .env("NOTIFY_SOCKET", &path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut bytes = [0; 4096];
    let heard = manager.recv(&mut bytes);
    arbiter.kill().unwrap();
    arbiter.wait().unwrap();
    let heard = String::from_utf8_lossy(&bytes[..heard.unwrap()]).into_owned();
    assert!(
        heard.starts_with("READY=1\nSTATUS=listening on 127.0.0.1:"),
        "{heard}"
    );
}
