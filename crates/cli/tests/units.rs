//! The units of `packaging/systemd`: the service manager takes them, and they start what there is.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::twinvm;

fn units() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd");
    let mut units: Vec<(String, String)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    units.sort();
    units
}

#[test]
fn units_start_commands_that_there_are() {
    let units = units();
    let names: Vec<&str> = units.iter().map(|(name, _)| &name[..]).collect();
    assert_eq!(
        names,
        [
            "twinvm-arbiter.service",
            "twinvm-node@.service",
            "twinvm-tap@.service"
        ]
    );
    let mut commands = 0;
    for (name, text) in &units {
        for line in text.lines() {
            let Some(command) = line.strip_prefix("ExecStart=/usr/bin/twinvm ") else {
                continue;
            };
            commands += 1;
            let words: Vec<&str> = command.split(' ').collect();
            let plain = words
                .iter()
                .take_while(|word| word.bytes().all(|byte| byte.is_ascii_lowercase()));
            let mut help: Vec<&str> = plain.copied().collect();
            help.push("--help");
            let help = twinvm(&help);
            assert_eq!(help.code, Some(0), "{name}: {command}");
            for option in words.iter().filter(|word| word.starts_with("--")) {
                let known = help.out.contains(&format!("{option} <"));
                assert!(known, "{name}: {command}: no {option} in {}", help.out);
            }
        }
    }
    assert_eq!(commands, 2);
}

/// A boot on which the bridge comes late must not leave a guest without its network.
#[test]
fn an_interface_is_made_after_the_bridge_or_again() {
    let units = units();
    let (_, tap) = units
        .iter()
        .find(|(name, _)| name == "twinvm-tap@.service")
        .unwrap();
    let has = |line: &str| tap.lines().any(|found| found == line);
    assert!(has("After=network.target"), "{tap}");
    assert!(
        has("Restart=on-failure") && has("StartLimitIntervalSec=0"),
        "{tap}"
    );
    // Looked for before anything is made: a node would take an interface that leads nowhere.
    let at = |text: &str| tap.find(text).unwrap();
    assert!(
        at("=/sbin/ip link show dev ${BRIDGE}") < at("=/sbin/ip tuntap add"),
        "{tap}"
    );
}

/// Copies the units and puts this program and files that are there in place of what is installed.
fn installed(folder: &Path) -> Vec<PathBuf> {
    let here = env!("CARGO_BIN_EXE_twinvm");
    let units = units().into_iter().map(|(name, text)| {
        let path = folder.join(name.replace("@.", "@shop."));
        fs::write(&path, text.replace("/usr/bin/twinvm", here)).unwrap();
        path
    });
    units.collect()
}

#[test]
fn the_service_manager_takes_the_units() {
    let analyze = |args: &[&str], units: &[PathBuf]| {
        Command::new("systemd-analyze")
            .args(args)
            .args(units)
            .output()
    };
    if analyze(&["--version"], &[]).is_err() {
        eprintln!("skipped: no systemd-analyze here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let units = installed(folder.path());
    let done = analyze(&["verify", "--man=no", "--recursive-errors=no"], &units).unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    // Of other units of this host it says things too.
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("twinvm"))
        .collect();
    assert!(done.status.success() && ours.is_empty(), "{done:?}");

    // A word that it doesn't know is told: the check can fail.
    let odd = folder.path().join("twinvm-odd.service");
    fs::write(&odd, "[Service]\nExecStart=/bin/true\nNoNewPrivilege=yes\n").unwrap();
    let done = analyze(&["verify", "--man=no", "--recursive-errors=no"], &[odd]).unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.contains("NoNewPrivilege"), "{said}");
}
