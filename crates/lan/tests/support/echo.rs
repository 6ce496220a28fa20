//! A guest with a TCP/IP stack of its own that echoes on port 7.
//!
//! What a connection begins with decides: `RESET` is answered by a reset, `BYE`
//! by `bye` and the end of the guest's side, all else comes back.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use super::Port;

/// Address and port of the echo server.
pub(crate) const SERVER: &str = "10.0.2.15:7";
/// A port on which the guest refuses.
pub(crate) const REFUSED: &str = "10.0.2.15:9";
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const LISTENERS: usize = 80;

/// What the guest saw.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) accepted: AtomicUsize,
    pub(crate) ended_in_order: AtomicUsize,
    pub(crate) reset_by_peer: AtomicUsize,
}

pub(crate) struct EchoGuest {
    pub(crate) seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoGuest {
    pub(crate) fn start(lan: &Path) -> EchoGuest {
        let seen = Arc::new(Seen::default());
        let stop = Arc::new(AtomicBool::new(false));
        let port = Port::connect(lan);
        let (seen_too, stop_too) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = thread::spawn(move || serve(port, &seen_too, &stop_too));
        EchoGuest {
            seen,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for EchoGuest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            assert!(result.is_ok() || thread::panicking());
        }
    }
}

#[derive(Default, Clone)]
struct Session {
    accepted: bool,
    bye: bool,
    closing: bool,
}

fn serve(mut port: Port, seen: &Seen, stop: &AtomicBool) {
    let start = Instant::now();
    let now = || StackInstant::from_micros(start.elapsed().as_micros() as i64);
    let mut device = Wire::default();
    let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(MAC)));
    config.random_seed = 3;
    let mut interface = Interface::new(config, &mut device, now());
    interface.update_ip_addrs(|ips| {
        ips.push(IpCidr::new(IpAddress::v4(10, 0, 2, 15), 24))
            .unwrap()
    });
    let mut sockets = SocketSet::new(Vec::new());
    let mut sessions = Vec::new();
    for _ in 0..LISTENERS {
        let buffer = || tcp::SocketBuffer::new(vec![0; 65536]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        socket.listen(7).unwrap();
        sessions.push((sockets.add(socket), Session::default()));
    }
    while !stop.load(Ordering::Relaxed) {
        match port.receive(Duration::from_millis(1)) {
            Ok(Some(frame)) => device.incoming.push_back(frame),
            Ok(None) => {}
            Err(_) => return,
        }
        interface.poll(now(), &mut device, &mut sockets);
        for (handle, session) in &mut sessions {
            step(sockets.get_mut(*handle), session, seen);
        }
        interface.poll(now(), &mut device, &mut sockets);
        for frame in device.outgoing.drain(..) {
            if port.send(&frame).is_err() {
                return;
            }
        }
    }
}

fn step(socket: &mut tcp::Socket<'_>, session: &mut Session, seen: &Seen) {
    if !session.accepted && socket.may_send() {
        session.accepted = true;
        seen.accepted.fetch_add(1, Ordering::Relaxed);
    }
    if socket.state() == tcp::State::Closed || socket.state() == tcp::State::TimeWait {
        if session.accepted && session.closing {
            seen.ended_in_order.fetch_add(1, Ordering::Relaxed);
        } else if session.accepted {
            seen.reset_by_peer.fetch_add(1, Ordering::Relaxed);
        }
        *session = Session::default();
        socket.abort();
        let _ = socket.listen(7);
        return;
    }
    if !session.accepted {
        return;
    }
    let mut begins = [0; 5];
    let count = socket.peek_slice(&mut begins).unwrap_or(0);
    if begins[..count].starts_with(b"RESET") {
        session.accepted = false;
        socket.abort();
        return;
    }
    if begins[..count].starts_with(b"BYE") {
        let _ = socket.recv(|bytes| (bytes.len(), ()));
        socket.send_slice(b"bye").unwrap();
        socket.close();
        session.bye = true;
        session.closing = true;
    }
    if session.bye {
        // Takes what comes, after its own end.
        let _ = socket.recv(|bytes| (bytes.len(), ()));
        return;
    }
    while socket.can_recv() && socket.can_send() {
        let room = socket.send_capacity() - socket.send_queue();
        let bytes = socket
            .recv(|bytes| {
                let count = bytes.len().min(room);
                (count, bytes[..count].to_vec())
            })
            .unwrap();
        assert_eq!(socket.send_slice(&bytes), Ok(bytes.len()));
    }
    if !socket.may_recv() && !session.closing {
        socket.close();
        session.closing = true;
    }
}

#[derive(Default)]
struct Wire {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

struct Rx(Vec<u8>);
struct Tx<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Rx, Tx<'_>)> {
        let frame = self.incoming.pop_front()?;
        Some((Rx(frame), Tx(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Tx<'_>> {
        Some(Tx(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}
