//! Where a VM's record is kept, and the ways to reach it.
//!
//! - [`crate::arbiter_file`]: a folder on storage that both nodes reach.
//! - [`tcp`]: twinvm's own small server ([`server`]).
//! - [`etcd`]: an etcd cluster.
//!
//! All keep the contract of [`twinvm_protocol::ArbiterContract`]; none of them decides
//! anything. What is in doubt is [`twinvm_protocol::Outcome::Unknown`].

pub mod etcd;
pub mod server;
pub mod tcp;

mod guard;
mod http;
mod stream;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use twinvm_protocol::arbiter::wire::VmName;
use twinvm_protocol::config::ARBITER_ANSWER_MS;

use crate::arbiter_file::{FileArbiter, FileArbiterError};
use crate::arbiter_worker::ArbiterBackend;
use crate::tls::{Credentials, Expect, Subject, TlsError, TlsFiles};

/// What an address may look like, for messages.
pub const EXPECTED: &str = "\"file:DIR\", \"tcp:HOST:PORT\" or \"etcd:http://HOST:PORT\" \
     (several with commas between them)";
/// A call of a backend over the network ends within this time: before the protocol gives its
/// answer up, so that what went wrong is told.
const CALL_LIMIT: Duration = Duration::from_millis(ARBITER_ANSWER_MS * 4 / 5);
/// Servers that one address may name.
const MAX_SERVERS: usize = 9;
const MAX_HOST_BYTES: usize = 253;

/// A host and a port of an arbiter's server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// A name or an address; IPv6 without its brackets.
    pub host: String,
    /// The TCP port, not 0.
    pub port: u16,
}

impl Server {
    /// Parses `host:port` or `[ipv6]:port`.
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        if !port.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let host = match host.strip_prefix('[') {
            Some(inside) => {
                let address: Ipv6Addr = inside.strip_suffix(']')?.parse().ok()?;
                address.to_string()
            }
            None => {
                let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
                let fits = (1..=MAX_HOST_BYTES).contains(&host.len()) && host.bytes().all(good);
                fits.then(|| host.to_owned())?
            }
        };
        Some(Self { host, port })
    }

    /// Whether it is this host.
    fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self
                .host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }

    /// Its addresses, those of this host alone if it is one of this host.
    fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let found = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|error| format!("{self}: {error}"))?;
        let here = self.is_loopback();
        let found: Vec<SocketAddr> = found.filter(|at| !here || at.ip().is_loopback()).collect();
        if found.is_empty() {
            return Err(format!("{self}: no address"));
        }
        Ok(found)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Where the record is kept that says who is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArbiterAddress {
    /// A folder on storage that both hosts see; for this VM alone.
    File(PathBuf),
    /// twinvm's own server.
    Tcp(Server),
    /// The members of an etcd cluster.
    Etcd(Vec<Server>),
}

/// A text is no arbiter's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {EXPECTED}")]
pub struct AddressError;

/// An arbiter can't be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A folder that can't serve.
    #[error(transparent)]
    File(#[from] FileArbiterError),
    /// A name that registers can't have.
    #[error("VM name {0:?}: use 1 to 64 letters, digits, '-', '_' or '.', not first '.' or '-'")]
    Name(String),
    /// A server on another host, and no keys.
    #[error(
        "arbiter {0}: without [tls] it must be a loopback address such as 127.0.0.1: make keys as twinvm keys --help shows, and add [tls]"
    )]
    NotLoopback(Server),
    /// A member of etcd on another host.
    #[error(
        "arbiter http://{0}: there is no TLS to etcd yet, so its members must have loopback addresses such as 127.0.0.1"
    )]
    EtcdNotLoopback(Server),
    /// The keys for the way to it.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A server without an address.
    #[error("arbiter {0}")]
    Server(String),
}

impl ArbiterAddress {
    /// Parses `kind:rest`; `folder` resolves a folder's relative path.
    pub fn parse(
        text: &str,
        folder: impl FnOnce(&str) -> PathBuf,
    ) -> Result<ArbiterAddress, AddressError> {
        let (kind, rest) = text.split_once(':').ok_or(AddressError)?;
        let server = |text: &str| Server::parse(text).ok_or(AddressError);
        match kind {
            "file" if !rest.is_empty() && !rest.contains('\0') => Ok(Self::File(folder(rest))),
            "tcp" => Ok(Self::Tcp(server(rest)?)),
            "etcd" => {
                let servers = rest
                    .split(',')
                    .map(|url| {
                        let rest = url.strip_prefix("http://").ok_or(AddressError)?;
                        server(rest.strip_suffix('/').unwrap_or(rest))
                    })
                    .collect::<Result<Vec<Server>, AddressError>>()?;
                match servers.len() {
                    1..=MAX_SERVERS => Ok(Self::Etcd(servers)),
                    _ => Err(AddressError),
                }
            }
            _ => Err(AddressError),
        }
    }

    /// Why it can't be used, with keys (`tls`) or without, if so.
    ///
    /// # Errors
    /// [`OpenError::NotLoopback`] or [`OpenError::EtcdNotLoopback`] for the first server on
    /// another host that can't be reached safely.
    pub fn validate_supported(&self, tls: bool) -> Result<(), OpenError> {
        let elsewhere = |server: &&Server| !server.is_loopback();
        match self {
            Self::Tcp(server) if !tls && elsewhere(&server) => {
                Err(OpenError::NotLoopback(server.clone()))
            }
            Self::Etcd(servers) => match servers.iter().find(elsewhere) {
                Some(server) => Err(OpenError::EtcdNotLoopback(server.clone())),
                None => Ok(()),
            },
            Self::File(_) | Self::Tcp(_) => Ok(()),
        }
    }

    /// A backend that keeps the record of the VM called `vm`. A folder is made if need be; a
    /// server need not answer yet. With `keys`, the files of the node of that name, the way to
    /// twinvm's own server is TLS, and only the cluster's arbiter is believed.
    pub fn open(
        &self,
        vm: &str,
        keys: Option<(&TlsFiles, &str)>,
    ) -> Result<Box<dyn ArbiterBackend>, OpenError> {
        self.validate_supported(keys.is_some())?;
        let name = || VmName::new(vm).ok_or_else(|| OpenError::Name(vm.to_owned()));
        Ok(match self {
            Self::File(folder) => Box::new(FileArbiter::open(folder)?),
            Self::Tcp(server) => {
                let addresses = server.addresses().map_err(OpenError::Server)?;
                let load = |(files, node): (&TlsFiles, &str)| {
                    let own = Subject::Node(node.to_owned());
                    Credentials::load(files.clone(), own, Expect::Arbiter)
                };
                let keys = keys.map(load).transpose()?;
                Box::new(tcp::TcpArbiter::new(addresses, name()?, keys))
            }
            Self::Etcd(servers) => {
                let mut members = Vec::new();
                for server in servers {
                    members.extend(server.addresses().map_err(OpenError::Server)?);
                }
                Box::new(etcd::EtcdArbiter::new(members, &name()?))
            }
        })
    }
}

impl fmt::Display for ArbiterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(folder) => write!(f, "file:{}", folder.display()),
            Self::Tcp(server) => write!(f, "tcp:{server}"),
            Self::Etcd(servers) => {
                f.write_str("etcd:")?;
                for (index, server) in servers.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}http://{server}")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
