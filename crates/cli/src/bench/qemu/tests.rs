use std::path::PathBuf;

use super::*;

fn words(rr: Option<&Path>) -> Vec<String> {
    let spec = Spec {
        kernel: PathBuf::from("kernel"),
        initrd: PathBuf::from("initrd"),
        cmdline: "console=ttyS0".to_owned(),
        memory_mib: 512,
        disk: Some(PathBuf::from("disk.img")),
        wire: Wire::User,
    };
    let address = SocketAddr::from(([127, 0, 0, 1], 1234));
    let command = command(Path::new("qemu"), &spec, address, 6379, rr);
    let words = command.get_args().map(|word| word.to_str().unwrap());
    words.map(str::to_owned).collect()
}

#[test]
fn record_and_replay_changes_nothing_of_the_machine() {
    let plain = words(None);
    let recorded = words(Some(Path::new("rr.bin")));
    let pair = |words: &[String], option: &str, value: &str| {
        words.windows(2).any(|two| two == [option, value])
    };
    assert!(pair(&plain, "-device", "virtio-blk-device,drive=disk"));
    assert!(pair(
        &recorded,
        "-icount",
        "shift=auto,rr=record,rrfile=rr.bin"
    ));
    assert!(pair(
        &recorded,
        "-device",
        "virtio-blk-device,drive=replayed"
    ));
    let all_but_the_disk = plain.iter().filter(|word| !word.contains("drive="));
    for word in all_but_the_disk {
        assert!(recorded.contains(word), "{word}");
    }
}
