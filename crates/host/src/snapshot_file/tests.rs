use super::*;
use twinvm_machine::{Images, MachineConfig, OnReset, PowerOn};

/// Word by word, a program that stores its counter over and over.
fn machine() -> Machine {
    let mut image = vec![0u8; 64];
    // j . : all that is needed is a machine.
    image[..4].copy_from_slice(&0x0000_006fu32.to_le_bytes());
    image[8..16].copy_from_slice(&0x20_0000u64.to_le_bytes());
    image[16..24].copy_from_slice(&0x1000u64.to_le_bytes());
    image[32..36].copy_from_slice(&2u32.to_le_bytes());
    image[48..56].copy_from_slice(b"RISCV\0\0\0");
    image[56..60].copy_from_slice(b"RSC\x05");
    let config = MachineConfig {
        ram_bytes: 16 << 20,
        harts: 1,
        slots: Vec::new(),
        cmdline: "test".to_owned(),
        images: Images::new(image, None),
        on_reset: OnReset::Exit,
    };
    let power_on = PowerOn {
        rng_seed: [7; 32],
        rtc_base_ns: 1,
    };
    let mut machine = Machine::new(config, power_on).unwrap();
    machine.run(1000);
    machine
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_restores_to_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("snap");
    let mut machine = machine();
    let mut last = 0;
    let bytes = write(machine.snapshot(true).unwrap(), &path, false, &mut |now| {
        assert!(now > last);
        last = now;
        true
    })
    .unwrap();
    assert_eq!((bytes, bytes), (last, fs::metadata(&path).unwrap().len()));
    assert_eq!(restore(&path).unwrap().digest(), machine.digest());
    assert_eq!(names(dir.path()), ["snap"]);
}

#[test]
fn a_name_that_is_taken_is_replaced_only_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("snap");
    let mut machine = machine();
    fs::write(&path, "precious").unwrap();
    let error = write(machine.snapshot(true).unwrap(), &path, false, &mut |_| true);
    assert!(matches!(error, Err(SnapshotFileError::Exists(_))));
    // Also if it comes up while the snapshot is written.
    let late = dir.path().join("late");
    let error = write(machine.snapshot(true).unwrap(), &late, false, &mut |_| {
        fs::write(&late, "precious").unwrap();
        true
    });
    assert!(matches!(error, Err(SnapshotFileError::Exists(_))));
    assert_eq!(fs::read(&late).unwrap(), b"precious");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    write(machine.snapshot(true).unwrap(), &path, true, &mut |_| true).unwrap();
    assert!(restore(&path).is_ok());
    assert_eq!(names(dir.path()), ["late", "snap"]);
}

#[test]
fn what_is_given_up_or_impossible_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("snap");
    let mut machine = machine();
    let error = write(machine.snapshot(true).unwrap(), &path, false, &mut |_| {
        false
    });
    assert!(matches!(error, Err(SnapshotFileError::GivenUp(_))));
    let nowhere = dir.path().join("no/snap");
    let error = check(&nowhere, true).unwrap_err().to_string();
    assert!(error.contains("there is no folder"), "{error}");
    let error = check(dir.path(), true).unwrap_err().to_string();
    assert!(error.contains("is no file"), "{error}");
    let long = dir.path().join("n".repeat(250));
    assert!(check(&long, false).is_ok());
    let error = try_out(&long, false).unwrap_err().to_string();
    assert!(error.contains("File name too long"), "{error}");
    try_out(&path, false).unwrap();
    assert!(names(dir.path()).is_empty());
}

#[test]
fn what_is_no_good_snapshot_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("snap");
    let good = machine().save(true).unwrap();
    let told = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = restore(&path).err().unwrap().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        error[path.display().to_string().len() + 2..].to_owned()
    };
    let mut damaged = good.clone();
    let at = damaged.len() - 100;
    damaged[at] ^= 1;
    assert_eq!(
        told(&damaged),
        "the snapshot is damaged: its checksum is wrong: copy the file again, or make a new one"
    );
    let cut = &good[..good.len() / 2];
    let text = format!(
        "the snapshot is cut short after {} bytes: copy the file again, or make a new one",
        cut.len()
    );
    assert_eq!(told(cut), text);
    let text = "not a snapshot of twinvm: give a file of `twinvm run --snapshot` or `twinvm ctl \
                ... snapshot`";
    assert_eq!(told(b"#!/bin/sh\necho something else\n"), text);
    assert_eq!(told(b""), text);
    let mut older = good.clone();
    older[8] = 1;
    assert_eq!(
        told(&older),
        "a snapshot of format 1, this version reads format 2: go on from it with the twinvm that \
         made it, or make a new one"
    );
    let mut long = good.clone();
    long[12..16].fill(0xff);
    assert!(told(&long).starts_with("the snapshot holds a bad length of the head: "));
    let without = machine().save(false).unwrap();
    assert!(told(&without).contains("holds no kernel"));
    let error = restore(dir.path()).err().unwrap().to_string();
    assert!(error.ends_with("is no file: give another name"), "{error}");
    let error = restore(&dir.path().join("none")).err().unwrap().to_string();
    assert!(error.contains("can't be read: No such file"), "{error}");
}
