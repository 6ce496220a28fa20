//! The same guest on other boards: Debian's kernel and Redis under OpenSBI, with no console but a
//! virtio one and its address by DHCP, and on four harts, there with the proof by perturbation.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::redis::{SWITCHED, switch, vm_toml};
use support::{Folder, PROGRAM, Running, json};

/// Debian's package opensbi; scripts/setup.sh installs it.
const OPENSBI: &str = "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin";
/// A boot takes about 1.5 G steps: a guest that hangs ends here.
const LIMIT: &str = "6000000000";

/// Boots, asserts that each of these lines comes on the console and that Redis answers, powers
/// off; the run's report.
fn boot(folder: &Folder, more: &str, lines: &[&str], options: &[&str]) -> Value {
    let (mut lan, address) = switch(folder);

    let vm = vm_toml(folder, &format!("{more}\n{SWITCHED}"));
    let report = folder.text("report.json");
    let args = ["run", &vm, "--report", &report, "--max-instructions", LIMIT];
    let mut run = Running::start(&[&args, options].concat());
    for line in lines {
        run.line_with(line);
    }
    run.line_with("twinvm: redis ready");
    let mut redis = BufReader::new(TcpStream::connect(&address).unwrap());
    redis.get_mut().write_all(b"PING\r\n").unwrap();
    let mut answer = String::new();
    redis.read_line(&mut answer).unwrap();
    assert_eq!(answer, "+PONG\r\n");
    let mut keys = run.child.stdin.take().unwrap();
    keys.write_all(b"poweroff -f\n").unwrap();
    run.line_with("reboot: Power down");
    assert_eq!(run.wait(), Some(0));
    lan.signal("TERM");
    assert_eq!(lan.wait(), Some(0));
    json(&folder.path("report.json"))
}

#[test]
fn debian_boots_under_opensbi() {
    assert!(
        Path::new(OPENSBI).exists(),
        "no {OPENSBI}: run scripts/setup.sh test"
    );
    let folder = Folder::new();
    let more = format!("harts = 2\nfirmware = {OPENSBI:?}");
    let lines = [
        "Platform HART Count       : 2",
        "Domain0 Next Address      : 0x0000000080200000",
        "SBI implementation ID=0x1 ",
        "smp: Brought up 1 node, 2 CPUs",
    ];
    let report = boot(&folder, &more, &lines, &[]);
    assert_eq!(report["exit"]["reason"], "poweroff");
}

/// The kernel's own text, the shell's and what is typed go through the virtio console, and nothing
/// through the serial port; the switch gives the guest the address that the forward leads to.
#[test]
fn debian_boots_with_a_virtio_console_alone_and_asks_for_its_address() {
    let folder = Folder::new();
    let cmdline = "console=hvc0 panic=-1 ADDR=dhcp";
    let options = ["--console", "virtio", "--cmdline", cmdline];
    let lines = ["udhcpc: lease of 10.0.2.15 obtained from 10.0.2.2"];
    let report = boot(&folder, "", &lines, &options);
    assert_eq!(report["exit"]["reason"], "poweroff");
}

#[test]
fn debian_boots_on_four_harts_and_replays_perturbed() {
    let folder = Folder::new();
    let dir = folder.text("rec");
    let lines = ["smp: Brought up 1 node, 4 CPUs"];
    let report = boot(&folder, "harts = 4", &lines, &["--record", &dir]);
    assert_eq!(report["exit"]["reason"], "poweroff");
    for seed in ["1", "2"] {
        let output = Command::new(PROGRAM)
            .args(["replay", &dir, "--json", "--perturb", seed])
            .output()
            .unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "seed {seed}: {err}");
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&found["digest"], &found["icount"]),
            (&report["digest"], &report["icount"]),
            "seed {seed}"
        );
        assert!(found["digests_checked"].as_u64().unwrap() >= 5, "{found}");
        let done = &found["perturbation"];
        assert!(done["slices"].as_u64().unwrap() > 100_000, "{found}");
        assert!(done["restores"].as_u64().unwrap() > 0, "{found}");
    }
}
