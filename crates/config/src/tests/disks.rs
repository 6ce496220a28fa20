//! `[[disk]]`, and what `[protect]` says of disks.

use super::*;

#[test]
fn disks() {
    let vm = parse(
        "name = \"x\"\n[[disk]]\npath = \"d.img\"\n[[disk]]\npath = \"/iso\"\nreadonly = true\n\
         [[disk]]\nnbd = \"nbd://san:7/shop\"",
    )
    .unwrap();
    let file = |path: &str, read_only| Disk::File {
        path: path.into(),
        bytes: None,
        read_only,
    };
    let nbd = Disk::Nbd {
        address: Address::parse("nbd://san:7/shop").unwrap(),
        read_only: false,
        fence: None,
        reads: Reads::Log,
    };
    assert_eq!(
        vm.disks,
        [file("vms/d.img", false), file("/iso", true), nbd]
    );
    assert_eq!(
        named("[[disk]]\npath = \"d\"\nreadonly = 1"),
        "vms/VM.toml:4: readonly must be true or false, found a whole number"
    );
}

#[test]
fn a_disk_at_a_server_may_have_a_fence() {
    let fence = |more: &str| {
        let text = format!("name = \"x\"\n[[disk]]\nnbd = \"nbd://h/x\"\n{more}");
        parse(&text).map(|vm| match &vm.disks[0] {
            Disk::Nbd { fence, .. } => fence.clone(),
            Disk::File { .. } => unreachable!("it has nbd"),
        })
    };
    assert_eq!(fence("").unwrap(), None);
    let one = fence("fence = \"cut off shop\"").unwrap().unwrap();
    assert_eq!((one.program, one.args.len()), ("cut".into(), 2));
    assert_eq!(one.timeout.as_secs(), 30);
    let slow = fence("fence = \"cut\"\nfence_timeout_s = 90").unwrap();
    assert_eq!(slow.unwrap().timeout.as_secs(), 90);
    assert_eq!(
        fence("fence = \" \"").unwrap_err().to_string(),
        "vms/VM.toml:4: fence = \" \": expected a program and its arguments, at most 2000 bytes"
    );
    assert_eq!(
        named("[[disk]]\npath = \"d\"\nfence = \"cut\""),
        "vms/VM.toml:4: fence is for a disk that both nodes reach, by nbd: leave it out"
    );
}

#[test]
fn a_backup_may_read_a_disk_at_a_server_by_itself() {
    let reads = |value: &str| {
        let text = format!("name = \"x\"\n[[disk]]\nnbd = \"nbd://h/x\"\nreads = {value}");
        parse(&text).map(|vm| match &vm.disks[0] {
            Disk::Nbd { reads, .. } => *reads,
            Disk::File { .. } => unreachable!("it has nbd"),
        })
    };
    assert_eq!(reads("\"own\"").unwrap(), Reads::Own);
    assert_eq!(reads("\"log\"").unwrap(), Reads::Log);
    assert_eq!(
        reads("\"both\"").unwrap_err().to_string(),
        "vms/VM.toml:4: reads = \"both\": expected \"log\" or \"own\""
    );
    assert_eq!(
        named("[[disk]]\npath = \"d\"\nreads = \"own\""),
        "vms/VM.toml:4: reads is for a disk that both nodes reach, by nbd: leave it out"
    );
}

#[test]
fn nodes_have_their_own_files_for_disks() {
    let own = WHOLE.replace("127.0.0.1:7001", "127.0.0.1:7001\"\npath = \"own");
    assert_eq!(
        parse(&own).unwrap_err().to_string(),
        "vms/VM.toml:18: path of a node: the VM's first disk has no file, or there is no [[disk]]"
    );
    let vm = parse(&(own + "[[disk]]\npath = \"d\"\n[[disk]]\npath = \"{name}/e\"\n")).unwrap();
    let paths = |node| {
        let own = vm.nodes.iter().find(|own| own.name == node).unwrap();
        let path = |disk| match disk {
            Disk::File { path, .. } => path,
            Disk::Nbd { .. } => unreachable!("both are files"),
        };
        vm.disks_of(own).into_iter().map(path).collect::<Vec<_>>()
    };
    assert_eq!(
        paths("a"),
        [PathBuf::from("vms/own"), PathBuf::from("vms/a/e")]
    );
    assert_eq!(
        paths("b"),
        [PathBuf::from("vms/d"), PathBuf::from("vms/b/e")]
    );
}

#[test]
fn when_a_flush_is_done() {
    let flush = |rest: &str| parse(&(WHOLE.to_owned() + rest)).map(|vm| vm.flush);
    assert_eq!(flush("").unwrap(), Flush::Live);
    assert_eq!(flush("flush = \"both\"").unwrap(), Flush::Both);
    assert_eq!(flush("flush = \"never\"").unwrap(), Flush::Never);
    assert!(flush("flush = \"soon\"").is_err());
    let rate = |rest: &str| parse(&(WHOLE.to_owned() + rest)).map(|vm| vm.sync_mib_s);
    assert_eq!(rate("").unwrap(), None);
    assert_eq!(rate("sync_mib_s = 50").unwrap(), Some(50));
    assert!(rate("sync_mib_s = 0").is_err());
}

#[test]
fn a_disk_may_have_a_size_before_it_has_a_file() {
    let vm = parse("name = \"x\"\n[[disk]]\npath = \"d\"\nsize = \"4G\"").unwrap();
    let size = match &vm.disks[0] {
        Disk::File { bytes, .. } => *bytes,
        Disk::Nbd { .. } => None,
    };
    assert_eq!(size, Some(4 << 30));
    assert_eq!(
        named("[[disk]]\npath = \"d\"\nsize = \"1000\""),
        "vms/VM.toml:4: size = \"1000\": expected a size of whole sectors of 512 bytes such as \
         \"4G\""
    );
}
