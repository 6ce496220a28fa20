//! The Unix socket that nodes connect to: binding it, and removing it afterwards.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use mio::net::UnixListener;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Longest path of a Unix socket in bytes (`sun_path` without its final zero).
const MAX_PATH_BYTES: usize = 107;

/// The Unix socket can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Longer than the kernel takes.
    #[error("{}: a Unix socket's path has at most {MAX_PATH_BYTES} bytes, this one has {bytes}: choose a shorter one", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Another switch answers there.
    #[error("{}: another switch is listening there: stop it, or choose another path", .0.display())]
    InUse(PathBuf),
    /// Something that isn't a socket has that name.
    #[error("{}: exists and is no socket: remove it, or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// The folder for the socket is missing.
    #[error("{}: its folder is not there: make it first", .0.display())]
    NoFolder(PathBuf),
    /// Anything else the system said.
    #[error("{}: can't listen there: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The bound socket; dropping it removes the file, if it is still this one's.
pub(crate) struct PortListener {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    file: Option<(u64, u64)>,
}

impl PortListener {
    pub(crate) fn bind(path: &Path) -> Result<PortListener, ListenError> {
        let bytes = path.as_os_str().len();
        if bytes > MAX_PATH_BYTES {
            return Err(ListenError::PathTooLong {
                path: path.to_owned(),
                bytes,
            });
        }
        let io_error = |source| ListenError::Io {
            path: path.to_owned(),
            source,
        };
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error(error)),
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(ListenError::NotASocket(path.to_owned()));
            }
            Ok(_) if answers(path).map_err(io_error)? => {
                return Err(ListenError::InUse(path.to_owned()));
            }
            // Left behind by a switch that was killed.
            Ok(_) => match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error(error));
                }
                _ => {}
            },
        }
        let listener = UnixListener::bind(path).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse(path.to_owned()),
            io::ErrorKind::NotFound => ListenError::NoFolder(path.to_owned()),
            _ => io_error(error),
        })?;
        Ok(PortListener {
            listener,
            path: path.to_owned(),
            file: identity(path),
        })
    }
}

impl Drop for PortListener {
    fn drop(&mut self) {
        if self.file.is_some() && identity(&self.path) == self.file {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// True if a process listens on the socket file.
fn answers(path: &Path) -> io::Result<bool> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        // A full backlog is a live listener too.
        Ok(()) | Err(rustix::io::Errno::AGAIN) => Ok(true),
        Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
