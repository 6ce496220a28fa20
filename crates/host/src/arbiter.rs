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
use crate::tls::{Credentials, Expect, ServerName, Subject, TlsError, TlsFiles, WebClient};

/// What an address may look like, for messages.
pub const EXPECTED: &str = "\"file:DIR\", \"tcp:HOST:PORT\", \"etcd:http://HOST:PORT\" or \
     \"etcd:https://HOST:PORT\" (several with commas between them)";
/// A call of a backend over the network ends within this time: before the protocol gives its
/// answer up, so that what went wrong is told.
const CALL_LIMIT: Duration = Duration::from_millis(ARBITER_ANSWER_MS * 4 / 5);
/// Servers that one address may name.
const MAX_SERVERS: usize = 9;
const MAX_HOST_BYTES: usize = 253;
const HTTP: &str = "http://";
const HTTPS: &str = "https://";

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

    /// Whom its certificate must be for.
    fn tls_name(&self) -> Result<ServerName<'static>, OpenError> {
        ServerName::try_from(self.host.clone())
            .map_err(|error| OpenError::Server(format!("https://{self}: {error}")))
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
    Etcd {
        /// All of them.
        servers: Vec<Server>,
        /// Whether they speak TLS: `https`.
        tls: bool,
    },
}

/// The keys for the way to an arbiter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArbiterKeys {
    /// The files of the node of this name, for twinvm's own server.
    pub cluster: Option<(TlsFiles, String)>,
    /// The files of a client, for etcd.
    pub etcd: Option<TlsFiles>,
}

impl ArbiterKeys {
    /// Which there are.
    pub fn kinds(&self) -> KeyKinds {
        KeyKinds {
            cluster: self.cluster.is_some(),
            etcd: self.etcd.is_some(),
        }
    }
}

/// Which keys there are for the way to an arbiter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyKinds {
    /// `[tls]`.
    pub cluster: bool,
    /// `[arbiter_tls]`.
    pub etcd: bool,
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
        "arbiter http://{0}: without TLS its members must have loopback addresses such as 127.0.0.1: use https://, and [arbiter_tls]"
    )]
    EtcdNotLoopback(Server),
    /// TLS, and nothing to show or to believe.
    #[error(
        "arbiter https://{0}: it takes [arbiter_tls]: ca, whose certificates etcd's members have, and the cert and key of a client that etcd lets in"
    )]
    EtcdKeys(Server),
    /// Keys that would not be used.
    #[error(
        "[arbiter_tls] is for etcd's members with https://, and this is {0}: remove one of them"
    )]
    UnusedKeys(ArbiterAddress),
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
                // Of one kind, all of them.
                let tls = rest.starts_with(HTTPS);
                let scheme = if tls { HTTPS } else { HTTP };
                let servers = rest
                    .split(',')
                    .map(|url| {
                        let rest = url.strip_prefix(scheme).ok_or(AddressError)?;
                        server(rest.strip_suffix('/').unwrap_or(rest))
                    })
                    .collect::<Result<Vec<Server>, AddressError>>()?;
                match servers.len() {
                    1..=MAX_SERVERS => Ok(Self::Etcd { servers, tls }),
                    _ => Err(AddressError),
                }
            }
            _ => Err(AddressError),
        }
    }

    /// Why it can't be used with these keys, if so.
    ///
    /// # Errors
    /// The first server that can't be reached safely, or keys that nothing here is for.
    pub fn validate_supported(&self, keys: KeyKinds) -> Result<(), OpenError> {
        let elsewhere = |server: &&Server| !server.is_loopback();
        let etcd_tls = matches!(self, Self::Etcd { tls: true, .. });
        if keys.etcd && !etcd_tls {
            return Err(OpenError::UnusedKeys(self.clone()));
        }
        match self {
            Self::Tcp(server) if !keys.cluster && elsewhere(&server) => {
                Err(OpenError::NotLoopback(server.clone()))
            }
            Self::Etcd { servers, tls } => {
                let lacking = match (tls, keys.etcd) {
                    (true, true) => None,
                    (true, false) => servers.first().cloned().map(OpenError::EtcdKeys),
                    (false, _) => {
                        let far = servers.iter().find(elsewhere);
                        far.cloned().map(OpenError::EtcdNotLoopback)
                    }
                };
                lacking.map_or(Ok(()), Err)
            }
            Self::File(_) | Self::Tcp(_) => Ok(()),
        }
    }

    /// A backend that keeps the record of the VM called `vm`. A folder is made if need be; a
    /// server need not answer yet. With keys for it the way to a server is TLS: of twinvm's own
    /// only the cluster's arbiter is believed, of etcd only who has a certificate for its address.
    pub fn open(&self, vm: &str, keys: &ArbiterKeys) -> Result<Box<dyn ArbiterBackend>, OpenError> {
        self.validate_supported(keys.kinds())?;
        let name = || VmName::new(vm).ok_or_else(|| OpenError::Name(vm.to_owned()));
        Ok(match self {
            Self::File(folder) => Box::new(FileArbiter::open(folder)?),
            Self::Tcp(server) => {
                let addresses = server.addresses().map_err(OpenError::Server)?;
                let load = |(files, node): &(TlsFiles, String)| {
                    let own = Subject::Node(node.clone());
                    Credentials::load(files.clone(), own, Expect::Arbiter)
                };
                let keys = keys.cluster.as_ref().map(load).transpose()?;
                Box::new(tcp::TcpArbiter::new(addresses, name()?, keys))
            }
            Self::Etcd { servers, tls } => {
                let mut members = Vec::new();
                for server in servers {
                    let name = tls.then(|| server.tls_name()).transpose()?;
                    let addresses = server.addresses().map_err(OpenError::Server)?;
                    let member = |at| etcd::Member {
                        at,
                        name: name.clone(),
                    };
                    members.extend(addresses.into_iter().map(member));
                }
                let keys = keys.etcd.clone().map(WebClient::load).transpose()?;
                Box::new(etcd::EtcdArbiter::new(members, &name()?, keys))
            }
        })
    }
}

impl fmt::Display for ArbiterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(folder) => write!(f, "file:{}", folder.display()),
            Self::Tcp(server) => write!(f, "tcp:{server}"),
            Self::Etcd { servers, tls } => {
                f.write_str("etcd:")?;
                let scheme = if *tls { HTTPS } else { HTTP };
                for (index, server) in servers.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}{scheme}{server}")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
