//! Ports that break the protocol, ports that never read, and a start that can't be.

mod support;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::mpsc;

use support::raw::{GUEST_MAC, ethernet};
use support::{SOON, TestLan};
use twinvm_lan::{LanConfig, LanError, LanEvent, ListenError, MAX_FRAME_BYTES, run, stop_pair};

#[test]
fn a_broken_port_is_closed_alone_and_with_one_line() {
    let garbage: [(&str, Vec<u8>); 5] = [
        ("0 bytes", 0u32.to_be_bytes().to_vec()),
        ("13 bytes", [&13u32.to_be_bytes()[..], &[0; 13]].concat()),
        (
            "69633 bytes",
            (MAX_FRAME_BYTES as u32 + 1).to_be_bytes().to_vec(),
        ),
        ("4294967295 bytes", vec![0xff; 100_000]),
        ("1195725856 bytes", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ];
    let lan = TestLan::start(&[]);
    let mut good = lan.port();
    let mut other = lan.port();
    for (count, (told, bytes)) in garbage.iter().enumerate() {
        let mut bad = lan.port();
        // The switch may close while the rest is being written.
        let _ = bad.stream.write_all(bytes);
        assert!(bad.is_closed_soon(), "{told}");
        let lines = lan.wait_for(count + 1, |event| {
            matches!(event, LanEvent::PortLeft { .. })
        });
        assert_eq!(lines.len(), count + 1);
        assert!(lines[count].to_string().contains(told), "{}", lines[count]);
    }
    let hello = ethernet([0xff; 6], GUEST_MAC, 0x88b5, b"hello");
    good.send(&hello).unwrap();
    assert_eq!(other.receive(SOON).unwrap().unwrap(), hello);
    assert_eq!(lan.stop().ports_broken, garbage.len() as u64);
}

#[test]
fn a_port_that_dies_within_a_frame_just_leaves() {
    let lan = TestLan::start(&[]);
    let mut port = lan.port();
    port.stream.write_all(&[0, 0, 0, 60, 1, 2, 3]).unwrap();
    drop(port);
    lan.wait_for(1, |event| matches!(event, LanEvent::PortLeft { .. }));
    assert_eq!(lan.stop().ports_broken, 0);
}

#[test]
fn a_port_that_never_reads_costs_bounded_memory_and_delays_nobody() {
    const QUEUE_BYTES: u64 = 4 << 20;
    /// Frames on their way to the reader: fewer than its queue has room for.
    const AHEAD: usize = 16;
    let lan = TestLan::start(&[]);
    let mut loud = lan.port();
    let _stuck = lan.port();
    let mut reader = lan.port();
    lan.wait_for(3, |event| matches!(event, LanEvent::PortJoined { .. }));
    let frames = 500;
    let (read, count) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        (0..frames).all(|_| {
            let came = reader.receive(SOON).unwrap().is_some();
            came && read.send(()).is_ok()
        })
    });
    for sent in 0..frames {
        // The reader keeps up; the stuck port gets 30 MB.
        if sent >= AHEAD && count.recv_timeout(SOON).is_err() {
            break;
        }
        let frame = ethernet([0xff; 6], GUEST_MAC, 0x88b5, &[1; 60_000]);
        loud.send(&frame).unwrap();
    }
    assert!(reading.join().unwrap(), "the reader has all of them");
    let stats = lan.stop();
    assert!(stats.frames_dropped > 300, "{stats:?}");
    assert!(stats.peak_queue_bytes <= QUEUE_BYTES, "{stats:?}");
    assert!(stats.peak_queue_bytes > QUEUE_BYTES - 100_000, "{stats:?}");
}

fn start_error(config: LanConfig) -> LanError {
    let (stopper, stop) = stop_pair().unwrap();
    stopper.stop();
    let error = run(config, stop, |_| ()).unwrap_err();
    assert!(!error.to_string().contains('\n'));
    error
}

#[test]
fn the_socket_path_is_never_taken_from_a_live_switch_or_a_file() {
    let lan = TestLan::start(&[]);
    let error = start_error(LanConfig::new(&lan.socket));
    assert!(
        matches!(error, LanError::Listen(ListenError::InUse(_))),
        "{error}"
    );
    assert!(error.to_string().contains(lan.socket.to_str().unwrap()));
    lan.port();

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "precious").unwrap();
    let error = start_error(LanConfig::new(&file));
    assert!(
        matches!(error, LanError::Listen(ListenError::NotASocket(_))),
        "{error}"
    );
    assert_eq!(fs::read(&file).unwrap(), b"precious");

    let long = PathBuf::from(format!("/tmp/{}", "x".repeat(120)));
    let error = start_error(LanConfig::new(long));
    assert!(error.to_string().contains("125"), "{error}");

    let nowhere = directory.path().join("no/lan.sock");
    let error = start_error(LanConfig::new(&nowhere)).to_string();
    assert!(error.contains("no/lan.sock"), "{error}");
}

#[test]
fn a_stale_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lan.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let (stopper, stop) = stop_pair().unwrap();
    stopper.stop();
    let mut listened = false;
    run(LanConfig::new(&path), stop, |_| listened = path.exists()).unwrap();
    assert!(listened && !path.exists());
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let mut config = LanConfig::new(directory.path().join("lan.sock"));
    config.forwards = vec![format!("{address}=10.0.2.15:80").parse().unwrap()];
    let error = start_error(config.clone());
    assert!(matches!(error, LanError::ForwardInUse(_)), "{error}");
    assert!(error.to_string().contains(&address), "{error}");

    // Not an address of this host.
    config.forwards = vec!["192.0.2.1:80=10.0.2.15:80".parse().unwrap()];
    let error = start_error(config).to_string();
    assert!(error.contains("192.0.2.1:80"), "{error}");
}
