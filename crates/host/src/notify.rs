//! Tells the service manager that started this process how it is, as `sd_notify(3)` describes:
//! datagrams to the socket that `NOTIFY_SOCKET` names.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Longest text of a status.
const MAX_STATUS_BYTES: usize = 512;

/// The way to the service manager.
#[derive(Debug)]
pub struct Notify {
    socket: UnixDatagram,
}

impl Notify {
    /// The one that started this process; `None` if it asks for nothing.
    pub fn from_env() -> Result<Option<Self>, String> {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let failed = |error: io::Error| {
            format!(
                "NOTIFY_SOCKET={}: {error}: the service manager hears nothing of this process",
                name.display()
            )
        };
        Self::connect(&name).map(Some).map_err(failed)
    }

    /// To the socket of this name: a path, or with `@` in front an abstract name.
    pub fn connect(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // A service manager that doesn't read misses something; the node goes on.
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    /// The process is up, and this is how it is.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// How it is now.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", one_line(status)));
    }

    /// It has begun to end.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, state: &str) {
        let _ = self.socket.send(state.as_bytes());
    }
}

fn one_line(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_STATUS_BYTES);
    text[..end]
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut bytes = [0; 2048];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[test]
    fn states_arrive_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::connect(path.as_os_str()).unwrap();
        notify.ready("live: solo");
        assert_eq!(heard(&by_path), "READY=1\nSTATUS=live: solo");
        notify.status("two\nREADY=0");
        assert_eq!(heard(&by_path), "STATUS=two READY=0");
        notify.stopping();
        assert_eq!(heard(&by_path), "STOPPING=1");

        let name = format!("twinvm-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let abstract_one = UnixDatagram::bind_addr(&address).unwrap();
        let notify = Notify::connect(OsStr::new(&format!("@{name}"))).unwrap();
        notify.status(&"ä".repeat(1000));
        assert_eq!(heard(&abstract_one), format!("STATUS={}", "ä".repeat(256)));
    }

    #[test]
    fn one_that_does_not_read_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::connect(path.as_os_str()).unwrap();
        for _ in 0..10_000 {
            notify.status("still here");
        }
        assert_eq!(heard(&socket), "STATUS=still here");
        assert!(Notify::connect(OsStr::new("/nowhere/notify")).is_err());
    }
}
