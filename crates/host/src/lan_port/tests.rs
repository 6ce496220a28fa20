use std::io::Write;
use std::os::unix::net::UnixListener;
use std::time::Instant;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn frame(tag: u8, len: usize) -> Vec<u8> {
    vec![tag; len]
}

/// The frame with a header that asks for nothing.
fn packet(tag: u8, len: usize) -> Vec<u8> {
    [vec![0; NET_HEADER_BYTES], frame(tag, len)].concat()
}

/// A frame as the switch reads it.
fn got(stream: &mut UnixStream) -> Vec<u8> {
    read_frame(stream).unwrap().split_off(NET_HEADER_BYTES)
}

struct Switch {
    _dir: tempfile::TempDir,
    path: PathBuf,
    listener: Option<UnixListener>,
}

impl Switch {
    fn new() -> Switch {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lan.sock");
        let listener = Some(UnixListener::bind(&path).unwrap());
        Switch {
            _dir: dir,
            path,
            listener,
        }
    }

    fn accept(&self) -> UnixStream {
        let (stream, _) = self.listener.as_ref().unwrap().accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn stop(&mut self) {
        self.listener = None;
        std::fs::remove_file(&self.path).unwrap();
    }

    fn restart(&mut self) {
        self.listener = Some(UnixListener::bind(&self.path).unwrap());
    }
}

fn port(switch: &Switch) -> (LanPort, Receiver<PortEvent>, UnixStream) {
    let (events, heard) = bounded(1000);
    let port = LanPort::connect(&switch.path, events).unwrap();
    (port, heard, switch.accept())
}

fn next(heard: &Receiver<PortEvent>) -> PortEvent {
    heard.recv_timeout(PATIENCE).expect("an event")
}

fn put(stream: &mut UnixStream, frame: &[u8]) {
    stream
        .write_all(&(frame.len() as u32).to_be_bytes())
        .unwrap();
    stream.write_all(frame).unwrap();
}

#[test]
fn frames_go_both_ways() {
    let switch = Switch::new();
    let (port, heard, mut stream) = port(&switch);
    let lengths = [MIN_FRAME_BYTES, 60, 1514, MAX_FRAME_BYTES];
    for len in lengths {
        assert!(port.send(&packet(1, len)));
        put(&mut stream, &frame(2, len));
    }
    for len in lengths {
        assert_eq!(got(&mut stream), frame(1, len));
        assert_eq!(next(&heard), PortEvent::Frame(packet(2, len)));
    }
    assert!(!port.send(&packet(1, MIN_FRAME_BYTES - 1)));
    assert!(!port.send(&packet(1, MAX_FRAME_BYTES + 1)));
    let counts = port.counts();
    assert_eq!((counts.dropped_out, counts.dropped_in), (2, 0));
    let bytes = lengths.iter().sum::<usize>() as u64;
    assert_eq!((counts.frames_out, counts.bytes_out), (4, bytes));
    assert_eq!((counts.frames_in, counts.bytes_in), (4, bytes));
    assert_eq!((counts.large_out, counts.large_in), (0, 0));
}

#[test]
fn it_connects_again_when_the_switch_comes_back() {
    let mut switch = Switch::new();
    let (port, heard, stream) = port(&switch);
    switch.stop();
    drop(stream);
    assert!(matches!(next(&heard), PortEvent::Lost { .. }));
    assert!(!port.is_connected());
    let start = Instant::now();
    for _ in 0..10_000 {
        assert!(!port.send(&packet(1, 60)));
    }
    assert!(start.elapsed() < PATIENCE, "send waits");
    thread::sleep(Duration::from_millis(100));
    assert!(heard.is_empty(), "told more than once");
    switch.restart();
    let mut stream = switch.accept();
    assert_eq!(next(&heard), PortEvent::Reconnected);
    assert!(port.is_connected() && port.send(&packet(3, 60)));
    assert_eq!(got(&mut stream), frame(3, 60));
    put(&mut stream, &frame(4, 60));
    assert_eq!(next(&heard), PortEvent::Frame(packet(4, 60)));
}

#[test]
fn a_length_that_cannot_be_ends_the_stream_not_the_port() {
    for length in [
        0,
        MIN_FRAME_BYTES as u32 - 1,
        MAX_FRAME_BYTES as u32 + 1,
        u32::MAX,
    ] {
        let switch = Switch::new();
        let (_port, heard, mut stream) = port(&switch);
        put(&mut stream, &frame(1, 20));
        stream.write_all(&length.to_be_bytes()).unwrap();
        assert_eq!(next(&heard), PortEvent::Frame(packet(1, 20)));
        match next(&heard) {
            PortEvent::Lost { why } => assert!(why.contains(&length.to_string()), "{why}"),
            other => panic!("{other:?}"),
        }
        let mut again = switch.accept();
        assert_eq!(next(&heard), PortEvent::Reconnected);
        put(&mut again, &frame(2, 20));
        assert_eq!(next(&heard), PortEvent::Frame(packet(2, 20)));
    }
}

#[test]
fn a_frame_cut_short_is_not_delivered() {
    let switch = Switch::new();
    let (_port, heard, mut stream) = port(&switch);
    stream.write_all(&60u32.to_be_bytes()).unwrap();
    stream.write_all(&[0; 59]).unwrap();
    drop(stream);
    assert!(matches!(next(&heard), PortEvent::Lost { .. }));
}

#[test]
fn a_switch_that_does_not_read_costs_frames_and_no_time() {
    let switch = Switch::new();
    let (port, _heard, mut stream) = port(&switch);
    let start = Instant::now();
    let mut accepted = 0;
    for _ in 0..20_000 {
        accepted += u64::from(port.send(&packet(1, 1500)));
    }
    assert!(start.elapsed() < PATIENCE);
    let dropped = port.counts().dropped_out;
    assert_eq!(accepted + dropped, 20_000);
    assert!(dropped > 10_000, "{dropped} dropped: no bound");
    assert!(port.queued_bytes() <= MAX_QUEUE_BYTES);
    // What was accepted comes when it reads again.
    for _ in 0..accepted {
        assert_eq!(got(&mut stream), frame(1, 1500));
    }
}

/// Outputs are told to be on the wire when `send` has returned.
#[test]
fn a_sent_frame_is_the_kernels_at_once() {
    let switch = Switch::new();
    let (port, _heard, mut stream) = port(&switch);
    stream.set_nonblocking(true).unwrap();
    for tag in 0..100 {
        assert!(port.send(&packet(tag, 1500)));
        assert_eq!(port.queued_bytes(), 0);
        assert_eq!(got(&mut stream), frame(tag, 1500));
    }
}

#[test]
fn a_full_event_channel_drops_frames() {
    let switch = Switch::new();
    let (events, heard) = bounded(2);
    let port = LanPort::connect(&switch.path, events).unwrap();
    let mut stream = switch.accept();
    for tag in 0..10 {
        put(&mut stream, &frame(tag, 60));
    }
    let start = Instant::now();
    while port.counts().dropped_in < 8 {
        assert!(start.elapsed() < PATIENCE);
        thread::yield_now();
    }
    assert_eq!(next(&heard), PortEvent::Frame(packet(0, 60)));
    assert_eq!(next(&heard), PortEvent::Frame(packet(1, 60)));
    put(&mut stream, &frame(77, 60));
    assert_eq!(next(&heard), PortEvent::Frame(packet(77, 60)));
}

#[test]
fn dropping_the_port_ends_everything() {
    let mut switch = Switch::new();
    let (connected, heard, mut stream) = port(&switch);
    drop(connected);
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    let ended = Err(crossbeam_channel::RecvTimeoutError::Disconnected);
    assert_eq!(heard.recv_timeout(PATIENCE), ended, "its thread is alive");
    // And while it looks for a switch.
    let (looking, heard, stream) = port(&switch);
    switch.stop();
    drop(stream);
    assert!(matches!(next(&heard), PortEvent::Lost { .. }));
    thread::sleep(Duration::from_millis(300));
    drop(looking);
    assert_eq!(heard.recv_timeout(PATIENCE), ended, "its thread is alive");
}

#[test]
fn no_switch_at_the_start_is_an_error_with_its_mend() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lan.sock");
    let (events, _heard) = bounded(1);
    let error = LanPort::connect(&path, events).unwrap_err().to_string();
    assert!(error.starts_with(&path.display().to_string()), "{error}");
    assert!(
        error.contains("twinvm lan --listen") && !error.contains('\n'),
        "{error}"
    );
}

#[test]
fn another_users_switch_is_no_missing_switch() {
    let path = Path::new("lan.sock");
    let said = |kind: io::ErrorKind| LanPortError::unreachable(path, kind.into()).to_string();
    assert!(said(io::ErrorKind::PermissionDenied).contains("as the same user"));
    assert!(said(io::ErrorKind::NotFound).contains("no switch listens there"));
    assert!(said(io::ErrorKind::ConnectionRefused).contains("no switch listens there"));
}
