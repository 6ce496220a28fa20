//! Addresses of exports.

use std::fmt;
use std::path::PathBuf;

use crate::wire::MAX_NAME_BYTES;

/// The port of servers that don't say another one (registered with IANA).
pub const DEFAULT_PORT: u16 = 10809;
/// Longest path of a socket, with its end: `sockaddr_un`.
const MAX_SOCKET_PATH_BYTES: usize = 107;
const MAX_HOST_BYTES: usize = 253;

/// What an address may look like, for messages.
pub const EXPECTED: &str =
    "\"nbd://HOST:PORT/EXPORT\", \"nbds://HOST:PORT/EXPORT\" or \"nbd+unix:///EXPORT?socket=PATH\"";

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// Over the network.
    Tcp {
        /// A name or an address; IPv6 without its brackets.
        host: String,
        /// The port, not 0.
        port: u16,
        /// Whether what follows the greeting is TLS.
        tls: bool,
    },
    /// A socket of this host.
    Unix(PathBuf),
}

/// An export: a server, and a name that it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The server.
    pub server: Server,
    /// The export's name; empty is the server's default.
    pub export: String,
}

/// A text is no export's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {EXPECTED}")]
pub struct AddressError;

impl Address {
    /// Whether a text is meant to be an address, and not a file's name.
    pub fn is_meant(text: &str) -> bool {
        ["nbd://", "nbds://", "nbd+unix:"]
            .iter()
            .any(|scheme| text.starts_with(scheme))
    }

    /// Parses the forms of [`EXPECTED`], as the NBD project's `doc/uri.md` describes them. A port
    /// may be left out.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if let Some(rest) = text.strip_prefix("nbd+unix:///") {
            let (export, query) = rest.split_once('?').ok_or(AddressError)?;
            let path = query.strip_prefix("socket=").ok_or(AddressError)?;
            let path = unescape(path)?;
            if !(1..=MAX_SOCKET_PATH_BYTES).contains(&path.len()) || path.contains('&') {
                return Err(AddressError);
            }
            return Ok(Self {
                server: Server::Unix(PathBuf::from(path)),
                export: export_name(export)?,
            });
        }
        let (rest, tls) = match (text.strip_prefix("nbd://"), text.strip_prefix("nbds://")) {
            (Some(rest), _) => (rest, false),
            (None, Some(rest)) => (rest, true),
            (None, None) => return Err(AddressError),
        };
        let (authority, export) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = host_and_port(authority)?;
        Ok(Self {
            server: Server::Tcp { host, port, tls },
            export: export_name(export)?,
        })
    }
}

fn host_and_port(authority: &str) -> Result<(String, u16), AddressError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (inside, after) = rest.split_once(']').ok_or(AddressError)?;
            let address: std::net::Ipv6Addr = inside.parse().map_err(|_| AddressError)?;
            let port = match after {
                "" => None,
                _ => Some(after.strip_prefix(':').ok_or(AddressError)?),
            };
            (address.to_string(), port)
        }
        None => {
            let (host, port) = match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            };
            let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
            if !(1..=MAX_HOST_BYTES).contains(&host.len()) || !host.bytes().all(good) {
                return Err(AddressError);
            }
            (host.to_owned(), port)
        }
    };
    let port = match port {
        None => DEFAULT_PORT,
        Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => digits
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or(AddressError)?,
        Some(_) => return Err(AddressError),
    };
    Ok((host, port))
}

fn export_name(text: &str) -> Result<String, AddressError> {
    let name = unescape(text)?;
    let fits = name.len() <= MAX_NAME_BYTES && !name.chars().any(char::is_control);
    fits.then_some(name).ok_or(AddressError)
}

/// Resolves `%XX` (RFC 3986 section 2.1).
fn unescape(text: &str) -> Result<String, AddressError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'%' => {
                let (digits, after) = rest.split_at_checked(2).ok_or(AddressError)?;
                let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(AddressError);
                bytes.push((digit(digits[0])? << 4 | digit(digits[1])?) as u8);
                rest = after;
            }
            b'?' | b'#' => return Err(AddressError),
            byte => bytes.push(*byte),
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| AddressError)?;
    match text.contains('\0') {
        true => Err(AddressError),
        false => Ok(text),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let export = Escaped(&self.export);
        match &self.server {
            Server::Tcp { host, port, tls } => {
                let scheme = if *tls { "nbds" } else { "nbd" };
                match host.contains(':') {
                    true => write!(f, "{scheme}://[{host}]:{port}/{export}"),
                    false => write!(f, "{scheme}://{host}:{port}/{export}"),
                }
            }
            Server::Unix(path) => {
                let path = path.to_string_lossy();
                write!(f, "nbd+unix:///{export}?socket={}", Escaped(&path))
            }
        }
    }
}

/// A text with `%XX` for what has a meaning of its own in an address.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '%' | '?' | '#' | '&' | ' ' => write!(f, "%{:02X}", u32::from(char))?,
                _ => write!(f, "{char}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16, tls: bool, export: &str) -> Result<Address, AddressError> {
        Ok(Address {
            server: Server::Tcp {
                host: host.to_owned(),
                port,
                tls,
            },
            export: export.to_owned(),
        })
    }

    #[test]
    fn what_an_address_may_be() {
        let parse = Address::parse;
        assert_eq!(
            parse("nbd://san:7000/shop"),
            tcp("san", 7000, false, "shop")
        );
        assert_eq!(parse("nbds://san/shop"), tcp("san", 10809, true, "shop"));
        assert_eq!(parse("nbd://10.0.0.1"), tcp("10.0.0.1", 10809, false, ""));
        assert_eq!(parse("nbd://[::1]:9/a%2fb"), tcp("::1", 9, false, "a/b"));
        assert_eq!(parse("nbd://h/a/b"), tcp("h", 10809, false, "a/b"));
        let unix = |path: &str, export: &str| {
            Ok(Address {
                server: Server::Unix(PathBuf::from(path)),
                export: export.to_owned(),
            })
        };
        assert_eq!(parse("nbd+unix:///?socket=/run/s"), unix("/run/s", ""));
        assert_eq!(parse("nbd+unix:///d?socket=a%20b"), unix("a b", "d"));
        for bad in [
            "",
            "nbd:",
            "nbd://",
            "nbd:///x",
            "nbd://h:0/x",
            "nbd://h:x/x",
            "nbd://h:+1/",
            "nbd://h:70000/x",
            "nbd://[::1/x",
            "nbd://[::1]x/x",
            "nbd://h/%",
            "nbd://h/%zz",
            "nbd://h/a?b",
            "nbd://h/%00",
            "nbd://h/%0a",
            "nbd://h/%ff",
            "nbd+unix:///",
            "nbd+unix:///?socket=",
            "nbd+unix://?socket=/s",
            "nbd+unix:///x?sock=/s",
            "disk.img",
        ] {
            assert_eq!(parse(bad), Err(AddressError), "{bad}");
        }
        let long = format!("nbd+unix:///?socket=/{}", "s".repeat(107));
        assert_eq!(parse(&long), Err(AddressError));
    }

    #[test]
    fn an_address_is_shown_as_it_is_parsed() {
        for text in [
            "nbd://san:7000/shop",
            "nbds://[::1]:9/",
            "nbd+unix:///x?socket=/run/a%20b%3F",
            "nbd://h:1/a%25b",
        ] {
            assert_eq!(
                Address::parse(text).map(|a| a.to_string()),
                Ok(text.to_owned())
            );
        }
    }
}
