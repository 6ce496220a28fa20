use super::*;
use twinvm_config::{Arbiter, VmConfig};
use twinvm_host::port::PortAddress;

fn files(dir: &Path) -> Files {
    Files::new(&dir.join("out")).unwrap()
}

#[test]
fn the_vm_toml_is_what_the_nodes_read() {
    let dir = tempfile::tempdir().unwrap();
    // A path with everything that quoting can get wrong.
    let odd = dir.path().join("o\"d\\d ü");
    fs::create_dir(&odd).unwrap();
    let files = files(&odd);
    let image = BuiltImage {
        kernel: odd.join("kernel"),
        initrd: odd.join("initrd.cpio"),
        disk: None,
        vm: None,
        cmdline: "console=ttyS0 quoted=\"x y\"".to_owned(),
        up_to_date: true,
    };
    fs::write(&image.kernel, "k").unwrap();
    fs::write(&image.initrd, "i").unwrap();
    let channels = free_channels().unwrap();
    assert_ne!(channels[0], channels[1]);
    let text = vm_toml(&files, &Parts::redis(&image), channels).unwrap();
    let config = VmConfig::parse(&files.vm_toml(), &text).unwrap();
    let (a, b) = config.pair("a").unwrap();
    assert_eq!(
        [a.channel.to_string(), b.channel.to_string()],
        channels.map(|c| c.to_string())
    );
    assert_eq!(config.name, "demo");
    assert_eq!(config.memory_bytes, 256 << 20);
    assert_eq!(config.kernel, Some(image.kernel.canonicalize().unwrap()));
    assert_eq!(config.initrd, Some(image.initrd.canonicalize().unwrap()));
    assert_eq!(config.cmdline, image.cmdline);
    assert_eq!(config.state_dir, files.state());
    assert_eq!(config.arbiter, Some(Arbiter::File(files.arbiter())));
    assert_eq!(config.nets[0].backend, PortAddress::Lan(files.lan_socket()));
}

#[test]
fn a_claim_removes_what_an_earlier_run_left_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path());
    fs::create_dir_all(files.console(0).parent().unwrap()).unwrap();
    fs::write(files.console(0), "old").unwrap();
    fs::write(files.node_log(1), "old").unwrap();
    fs::write(files.out.join("notes"), "mine").unwrap();
    let _lock = files.claim().unwrap();
    assert!(!files.state().exists());
    assert!(!files.node_log(1).exists());
    assert!(files.arbiter().is_dir());
    assert!(files.out.join("notes").exists());
}

/// Claims a folder that nobody has. A process that another test has just started holds a copy of
/// every lock until it executes its program.
#[track_caller]
fn claim_soon(files: &Files) {
    let until = Instant::now() + Duration::from_secs(20);
    while let Err(error) = files.claim() {
        assert!(Instant::now() < until, "{error}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn two_demos_do_not_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path());
    let lock = files.claim().unwrap();
    let error = files.claim().unwrap_err();
    assert!(error.to_string().contains("another demo"), "{error}");
    assert_eq!(error.exit_code(), 2);
    drop(lock);
    claim_soon(&files);
}

#[test]
fn a_node_that_still_runs_keeps_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path());
    let lock_path = files.state().join("b").join("lock");
    fs::create_dir_all(lock_path.parent().unwrap()).unwrap();
    fs::write(&lock_path, "4711\n").unwrap();
    let lock = File::open(&lock_path).unwrap();
    lock.lock().unwrap();
    let error = files.claim().unwrap_err().to_string();
    assert!(error.contains("node b"), "{error}");
    assert!(error.contains("process 4711"), "{error}");
    assert!(lock_path.exists());
    drop(lock);
    claim_soon(&files);
}

#[test]
fn a_path_too_long_for_sockets_is_bad_input() {
    let dir = tempfile::tempdir().unwrap();
    let error = Files::new(&dir.path().join("x".repeat(120))).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("choose a shorter path"));
}

#[test]
fn a_folder_that_can_not_be_made_is_bad_input() {
    let error = Files::new(Path::new("/proc/nonexistent/out")).unwrap_err();
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn the_forward_is_found_in_the_switchs_words() {
    let address = |text| parse_forward(text, GUEST).map(|address| address.to_string());
    assert_eq!(
        address(
            "twinvm lan: listening on /tmp/x\ntwinvm lan: forward 127.0.0.1:40123=10.0.2.15:6379\n"
        ),
        Some("127.0.0.1:40123".to_owned())
    );
    assert_eq!(address("forward 127.0.0.1:0=10.0.2.15:6379"), None);
    assert_eq!(address("forward 127.0.0.1:40123=10.0.2.15:63"), None);
    assert_eq!(address(""), None);
}
