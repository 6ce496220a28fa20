//! The thread that accepts connections.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::Shutdown;

use super::{Shared, admit};

/// Pause after an error of the host, such as no free descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// The listening socket and its thread; dropping it frees the port.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Arc<TcpListener>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    pub(crate) fn start(socket: TcpListener, shared: Arc<Shared>) -> io::Result<Listener> {
        let socket = Arc::new(socket);
        let accepting = Arc::clone(&socket);
        let thread = thread::Builder::new()
            .name("channel listen".to_owned())
            .spawn(move || accept(&accepting, &shared))?;
        Ok(Listener {
            socket,
            thread: Some(thread),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // On Linux this ends an accept that waits (accept returns EINVAL).
        let _ = rustix::net::shutdown(&*self.socket, Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(socket: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let accepted = socket.accept();
        if shared.ended.load(Ordering::Relaxed) {
            return;
        }
        let Ok((stream, from)) = accepted else {
            thread::sleep(PAUSE);
            continue;
        };
        admit(shared, stream, from);
    }
}
