//! A guest on a TAP interface: Debian's kernel and Redis, its clients and bulk data through the
//! host's own network, with segmentation offload in use; then the recording is replayed, disturbed.

#[path = "support/namespace.rs"]
mod namespace;
mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use namespace::{in_namespaces, ip};
use support::redis::vm_toml;
use support::{Folder, PROGRAM, Running, json, refuses};

/// Between two looks at something.
const PAUSE: Duration = Duration::from_millis(50);
/// For everything that a guest does in a moment.
const PATIENCE: Duration = Duration::from_secs(120);
const TAP: &str = "twinvm0";
const GUEST: &str = "10.0.2.15";
/// Some hundred of the largest frames.
const BULK_BYTES: usize = 8 << 20;
/// Request and answer, one after the other.
const ROUND_TRIPS: u64 = 500;
const SEEDS: [&str; 2] = ["1", "2"];

#[test]
fn a_guest_on_a_tap_interface() {
    let needs = format!("ip tuntap add dev {TAP} mode tap");
    let test = "a_guest_on_a_tap_interface";
    in_namespaces(test, &[], &[&needs], on_a_tap_interface);
}

fn make_interface() {
    ip(&format!("tuntap add dev {TAP} mode tap"));
    ip(&format!("addr add 10.0.2.2/24 dev {TAP}"));
}

/// A VM whose console and messages are files.
struct Vm {
    child: Child,
    console: PathBuf,
    messages: PathBuf,
}

impl Vm {
    fn start(folder: &Folder, args: &[&str]) -> Self {
        let (console, messages) = (folder.path("console"), folder.path("messages"));
        let child = Command::new(PROGRAM)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(fs::File::create(&console).unwrap())
            .stderr(fs::File::create(&messages).unwrap())
            .spawn()
            .unwrap();
        Self {
            child,
            console,
            messages,
        }
    }

    fn type_line(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits for a text on the console.
    fn await_console(&mut self, text: &str) {
        self.await_in(self.console.clone(), text);
    }

    /// Waits for one of the program's own messages.
    fn await_message(&mut self, text: &str) {
        self.await_in(self.messages.clone(), text);
    }

    fn await_in(&mut self, file: PathBuf, text: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let all = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
            if all.contains(text) {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < until,
                "no {text:?} ({ended:?}) in:\n{all}\n{}",
                fs::read_to_string(&self.messages).unwrap()
            );
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(port: u16) -> TcpStream {
    let until = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect((GUEST, port)) {
            Ok(stream) => {
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return stream;
            }
            Err(error) => assert!(Instant::now() < until, "port {port}: {error}"),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Sends a command of these words and reads the first line of the answer.
fn ask(redis: &mut BufReader<TcpStream>, words: &[&[u8]]) -> String {
    let mut command = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        command.extend(format!("${}\r\n", word.len()).as_bytes());
        command.extend_from_slice(word);
        command.extend(b"\r\n");
    }
    redis.get_mut().write_all(&command).unwrap();
    let mut line = String::new();
    redis.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Bytes that no compression or repetition could stand in for.
fn bulk() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next)
        .take(BULK_BYTES / 8)
        .flatten()
        .collect()
}

fn md5(bytes: &[u8]) -> String {
    let mut child = Command::new("md5sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let out = child.wait_with_output().unwrap().stdout;
    String::from_utf8_lossy(&out[..32]).into_owned()
}

/// The test itself. It changes the network: only inside a namespace of its own.
fn on_a_tap_interface() {
    let folder = Folder::new();
    let vm_file = vm_toml(
        &folder,
        &format!("[[net]]\nmac = \"52:54:00:12:34:56\"\nbackend = \"tap:{TAP}\"\n"),
    );
    refuses(
        &["run", &vm_file],
        &format!(
            "twinvm run: tap:{TAP}: there is no such interface: make it with `ip tuntap add dev {TAP} \
             mode tap user $USER` and `ip link set {TAP} up`"
        ),
    );
    make_interface();
    let (recording, report) = (folder.text("rec"), folder.text("report.json"));
    let args = ["run", &vm_file, "--record", &recording, "--report", &report];
    let mut vm = Vm::start(&folder, &args);
    vm.await_message(&format!(
        "tap:{TAP}: the interface is down, no frame will pass until `ip link set {TAP} up`"
    ));
    ip(&format!("link set {TAP} up"));
    refuses(
        &["run", &vm_file],
        &format!(
            "twinvm run: tap:{TAP}: another process uses it: end that one, or give this VM an \
             interface of its own"
        ),
    );
    vm.await_console("twinvm: redis ready");

    vm.type_line("ping -c 3 10.0.2.2");
    vm.await_console("3 packets received");
    let mut redis = BufReader::new(connect(6379));
    for n in 1..=ROUND_TRIPS {
        assert_eq!(ask(&mut redis, &[b"INCR", b"n"]), format!(":{n}"));
    }

    // To the guest, which says what it has got; then both ways, compared here.
    let data = bulk();
    vm.type_line("nc -l -p 9000 | md5sum");
    let mut stream = connect(9000);
    stream.write_all(&data).unwrap();
    drop(stream);
    vm.await_console(&md5(&data));
    assert_eq!(ask(&mut redis, &[b"SET", b"bulk", &data]), "+OK");
    let answer = ask(&mut redis, &[b"GET", b"bulk"]);
    assert_eq!(answer, format!("${BULK_BYTES}"));
    let mut back = vec![0; BULK_BYTES + 2];
    redis.read_exact(&mut back).unwrap();
    assert!(back[..BULK_BYTES] == data, "the guest sent other bytes");

    // The interface goes and comes back; the VM lives on.
    ip(&format!("link del {TAP}"));
    vm.await_message("the interface has gone");
    make_interface();
    ip(&format!("link set {TAP} up"));
    vm.await_message(&format!("tap:{TAP} is there again"));
    let mut redis = BufReader::new(connect(6379));
    let next = ROUND_TRIPS + 1;
    assert_eq!(ask(&mut redis, &[b"INCR", b"n"]), format!(":{next}"));

    vm.type_line("poweroff -f");
    assert_eq!(vm.child.wait().unwrap().code(), Some(0));
    let net = &json(&folder.path("report.json"))["nets"][0];
    for key in ["large_in", "large_out"] {
        // Frames of many segments: the bulk in single ones would be some 5800 each way.
        assert!(net[key].as_u64().unwrap() >= 50, "{key}: {net}");
    }

    let mut replays = SEEDS.map(|seed| {
        let args = ["replay", &recording, "--perturb", seed];
        (seed, Running::start(&args))
    });
    for (seed, replay) in &mut replays {
        let code = replay.child.wait().unwrap().code();
        assert_eq!(code, Some(0), "seed {seed} is not equal");
    }
}
