//! TLS 1.3 (RFC 8446) between the members of a cluster, both sides authenticated.
//!
//! A cluster is whoever holds a certificate of its one [`Authority`]. A certificate names its
//! [`Subject`], a node or the arbiter, and a handshake succeeds only with the one that is
//! [expected](Expect): a node of another cluster, the arbiter in a node's place, or a node that is
//! shown its own certificate are refused before a byte of content has passed. There is no session
//! resumption and no early data, so no byte of an earlier connection means anything in a later
//! one.
//!
//! The blocking way to use it, for one thread:
//!
//! ```no_run
//! # use std::{io::{Read, Write}, net::TcpStream, path::PathBuf, time::{Duration, Instant}};
//! # use twinvm_host::tls::{connect, Credentials, Expect, Subject, TlsFiles};
//! let files = TlsFiles {
//!     ca: PathBuf::from("keys/ca.crt"),
//!     cert: PathBuf::from("keys/a.crt"),
//!     key: PathBuf::from("keys/a.key"),
//! };
//! let own = Subject::Node("a".to_owned());
//! let credentials = Credentials::load(files, own, Expect::Arbiter)?;
//! let tcp = TcpStream::connect("192.0.2.7:7700")?;
//! let mut stream = connect(tcp, &credentials, Instant::now() + Duration::from_secs(2))?;
//! stream.write_all(b"question")?;
//! stream.read_exact(&mut [0; 6])?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`accept`] is the other side of it. [`TlsStream::split`] gives a half for a reading thread and
//! one for a writing thread.

mod authority;
mod dates;
mod explain;
mod stream;
mod verify;
mod web;

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, ServerConfig};

use crate::durable::read_small;
use crate::time::wall_ns;
use authority::MAX_PEM_BYTES;
use verify::{PeerVerifier, SubjectError};

pub use authority::{Authority, AuthorityError, CA_CERT, CA_DAYS, CA_KEY, ISSUE_DAYS, Issued};
pub use dates::{Moment, Validity};
pub use rustls::pki_types::ServerName;
pub(crate) use stream::send_now;
pub use stream::{HandshakeError, TlsReader, TlsStream, TlsWriter, accept, connect};
pub(crate) use web::are_client_credentials;
pub use web::{WebClient, WebStream};

/// How long before its end a certificate is spoken of: 30 days.
pub const WARN_BEFORE_S: i64 = 30 * dates::DAY_S;
/// Permission bits of a key's file that give it away.
const OTHERS_MAY: u32 = 0o077;

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The node of this name. In the certificate: URI `twinvm:node:NAME`, DNS name `node.twinvm`.
    Node(String),
    /// The arbiter. In the certificate: URI `twinvm:arbiter`, DNS name `arbiter.twinvm`.
    Arbiter,
}

const NODE_URI: &str = "twinvm:node:";
const ARBITER_URI: &str = "twinvm:arbiter";
const NODE_ROLE: &str = "node.twinvm";
const ARBITER_ROLE: &str = "arbiter.twinvm";

impl Subject {
    fn uri(&self) -> String {
        match self {
            Self::Node(name) => format!("{NODE_URI}{name}"),
            Self::Arbiter => ARBITER_URI.to_owned(),
        }
    }

    fn from_uri(uri: &str) -> Option<Self> {
        match uri.strip_prefix(NODE_URI) {
            Some(name) => Some(Self::Node(name.to_owned())),
            None => (uri == ARBITER_URI).then_some(Self::Arbiter),
        }
    }

    fn role_name(&self) -> &'static str {
        match self {
            Self::Node(_) => NODE_ROLE,
            Self::Arbiter => ARBITER_ROLE,
        }
    }

    /// The name of its files, without `.crt` and `.key`.
    pub fn file_stem(&self) -> &str {
        match self {
            Self::Node(name) => name,
            Self::Arbiter => "arbiter",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node {name}"),
            Self::Arbiter => f.write_str("the arbiter"),
        }
    }
}

/// Who may be at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The node of this name, no other.
    Node(String),
    /// Any node of the cluster: what an arbiter lets in.
    AnyNode,
    /// The arbiter.
    Arbiter,
}

impl Expect {
    fn admits(&self, found: &Subject) -> bool {
        match (self, found) {
            (Self::Node(expected), Subject::Node(found)) => expected == found,
            (Self::AnyNode, Subject::Node(_)) | (Self::Arbiter, Subject::Arbiter) => true,
            _ => false,
        }
    }

    fn role_name(&self) -> &'static str {
        match self {
            Self::Node(_) | Self::AnyNode => NODE_ROLE,
            Self::Arbiter => ARBITER_ROLE,
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node {name}"),
            Self::AnyNode => f.write_str("a node"),
            Self::Arbiter => f.write_str("the arbiter"),
        }
    }
}

/// Where a member's credentials are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// This member's certificate.
    pub cert: PathBuf,
    /// This member's key, which only its owner may read.
    pub key: PathBuf,
}

impl TlsFiles {
    fn all(&self) -> [&Path; 3] {
        [&self.ca, &self.cert, &self.key]
    }
}

/// Credentials can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {what}", path = path.display())]
pub struct TlsError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, and what to do.
    pub what: String,
}

/// What one member shows to others, and whom it lets in. Clones are the same.
///
/// Files that have been replaced are read again at the next handshake. While they are unusable,
/// the ones read before go on being used, and [`notice`](Self::notice) says so.
#[derive(Clone, Debug)]
pub struct Credentials(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: TlsFiles,
    own: Subject,
    expect: Expect,
    provider: Arc<CryptoProvider>,
    /// The stamps of what was read last. Held while files are read, which may take as long as a
    /// file system likes; nobody waits for it.
    reading: Mutex<[Stamp; 3]>,
    /// Held for a moment only: the guest's thread asks, too.
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    loaded: Loaded,
    trouble: Option<String>,
}

/// Tells whether a file is still the one that was read.
type Stamp = Option<(u64, u64, i64, i64)>;

#[derive(Clone, Debug)]
struct Loaded {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    ca: Validity,
    cert: Validity,
}

impl Credentials {
    /// Reads the files of `own` and checks that they belong together and are in force now.
    ///
    /// # Errors
    /// The first file that can't be used, and why.
    pub fn load(files: TlsFiles, own: Subject, expect: Expect) -> Result<Self, TlsError> {
        let provider = Arc::new(default_provider());
        let stamps = stamps(&files);
        let loaded = Loaded::read(&files, &own, &expect, &provider)?;
        Ok(Self(Arc::new(Inner {
            files,
            own,
            expect,
            provider,
            reading: Mutex::new(stamps),
            current: Mutex::new(Current {
                loaded,
                trouble: None,
            }),
        })))
    }

    /// Who is expected at the other end.
    pub fn expect(&self) -> &Expect {
        &self.0.expect
    }

    /// What its owner should know now: a certificate that ends soon, or new files that can't be
    /// used. One line.
    pub fn notice(&self) -> Option<String> {
        let files = &self.0.files;
        let held = self.lock();
        if let Some(trouble) = &held.trouble {
            return Some(format!("new credentials are not used: {trouble}"));
        }
        let now = now_s();
        let mends = [
            (
                &files.cert,
                held.loaded.cert,
                "issue it again with twinvm keys issue … --force",
            ),
            (
                &files.ca,
                held.loaded.ca,
                "make a new authority with twinvm keys init, and issue all certificates again",
            ),
        ];
        let (path, validity, mend) = mends
            .into_iter()
            .find(|(_, validity, _)| now > validity.not_after_s - WARN_BEFORE_S)?;
        let ends = match now > validity.not_after_s {
            true => "has expired on",
            false => "will expire on",
        };
        Some(format!(
            "{}: {ends} {}, and without it the nodes can't connect: {mend}",
            path.display(),
            Moment(validity.not_after_s)
        ))
    }

    /// The newest usable ones.
    fn fresh(&self) -> Loaded {
        let inner = &*self.0;
        // If another thread is about to read them, the ones in use will do.
        if let Ok(mut read) = inner.reading.try_lock() {
            let found = stamps(&inner.files);
            if found != *read {
                *read = found;
                let loaded = Loaded::read(&inner.files, &inner.own, &inner.expect, &inner.provider);
                let mut held = self.lock();
                match loaded {
                    Ok(loaded) => {
                        held.loaded = loaded;
                        held.trouble = None;
                    }
                    Err(error) => held.trouble = Some(error.to_string()),
                }
            }
        }
        self.lock().loaded.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        self.0
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamps(files: &TlsFiles) -> [Stamp; 3] {
    files.all().map(|path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec()))
    })
}

/// Seconds since 1970-01-01 UTC.
fn now_s() -> i64 {
    i64::try_from(wall_ns() / 1_000_000_000).unwrap_or(i64::MAX)
}

impl Loaded {
    fn read(
        files: &TlsFiles,
        own: &Subject,
        expect: &Expect,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let [ca, cert, key] = read_all(files)?;
        Self::of(files, [&ca, &cert, &key], own, expect, provider)
    }

    /// What these contents of the files are.
    fn of(
        files: &TlsFiles,
        [ca, cert, key_pem]: [&[u8]; 3],
        own: &Subject,
        expect: &Expect,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let wrong = |path: &Path, what: String| TlsError {
            path: path.to_owned(),
            what,
        };
        let ca_der = certificate(&files.ca, ca)?;
        let cert_der = certificate(&files.cert, cert)?;
        let ca = in_force(&files.ca, &ca_der)?;
        let cert = in_force(&files.cert, &cert_der)?;
        let key = key(&files.key, key_pem)?;

        // A peer will check the same.
        check_own(files, &ca_der, &cert_der, own, provider)?;
        let (client, server) =
            configs(ca_der, cert_der, key, expect, provider).map_err(|error| {
                let what = match error {
                    rustls::Error::InconsistentKeys(_) => format!(
                        "does not belong to the key {}: give the two that were issued together",
                        files.key.display()
                    ),
                    other => other.to_string(),
                };
                wrong(&files.cert, what)
            })?;
        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
            ca,
            cert,
        })
    }
}

/// For the one that dials and the one that listens.
fn configs(
    ca: CertificateDer<'static>,
    cert: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    expect: &Expect,
    provider: &Arc<CryptoProvider>,
) -> Result<(ClientConfig, ServerConfig), rustls::Error> {
    let versions = &[&rustls::version::TLS13];
    let verifier = Arc::new(PeerVerifier::new(ca, provider, expect.clone())?);
    let mut server = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(Arc::clone(&verifier) as _)
        .with_single_cert(vec![cert.clone()], key.clone_key())?;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server.max_early_data_size = 0;
    let mut client = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(vec![cert], key)?;
    client.resumption = Resumption::disabled();
    client.enable_early_data = false;
    // Names are nobody's business on the wire.
    client.enable_sni = false;
    Ok((client, server))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let wrong = |what: String| TlsError {
        path: path.to_owned(),
        what,
    };
    match read_small(path, MAX_PEM_BYTES) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(wrong(
            "there is no such file: make it with twinvm keys issue, and copy it to this host"
                .to_owned(),
        )),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// The contents of all three; the key's only if nobody else may read it.
fn read_all(files: &TlsFiles) -> Result<[Vec<u8>; 3], TlsError> {
    let all = [read(&files.ca)?, read(&files.cert)?, read(&files.key)?];
    let mode = std::fs::metadata(&files.key).map_or(0, |meta| meta.mode());
    if mode & OTHERS_MAY != 0 {
        return Err(TlsError {
            path: files.key.clone(),
            what:
                "others may read this key: chmod 600 it, and if they may have done so, issue a new \
                   one"
                .to_owned(),
        });
    }
    Ok(all)
}

/// Whether a member could use these contents.
pub(crate) fn are_usable(
    files: &TlsFiles,
    contents: [&[u8]; 3],
    own: &Subject,
    expect: &Expect,
) -> bool {
    Loaded::of(files, contents, own, expect, &Arc::new(default_provider())).is_ok()
}

/// Whom a certificate names.
pub(crate) fn subject_of(certificate: &[u8]) -> Option<Subject> {
    verify::subject(&CertificateDer::from(certificate)).ok()
}

fn certificate(path: &Path, pem: &[u8]) -> Result<CertificateDer<'static>, TlsError> {
    CertificateDer::from_pem_slice(pem).map_err(|_| TlsError {
        path: path.to_owned(),
        what: "is no certificate: give one that twinvm keys made".to_owned(),
    })
}

fn key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| TlsError {
        path: path.to_owned(),
        what: "is no key: give one that twinvm keys made".to_owned(),
    })
}

fn in_force(path: &Path, certificate: &CertificateDer<'_>) -> Result<Validity, TlsError> {
    let wrong = |what: String| TlsError {
        path: path.to_owned(),
        what,
    };
    let validity = Validity::of(certificate)
        .ok_or_else(|| wrong("is no certificate: give one that twinvm keys made".to_owned()))?;
    let now = now_s();
    let (first, last) = (Moment(validity.not_before_s), Moment(validity.not_after_s));
    if now < validity.not_before_s {
        let now = Moment(now);
        return Err(wrong(format!(
            "is valid from {first} on, and this host's clock says {now}: set the clock, or issue \
             the certificate on a host whose clock is right"
        )));
    }
    if now > validity.not_after_s {
        let now = Moment(now);
        return Err(wrong(format!(
            "has expired on {last} (this host's clock says {now}): issue it again with twinvm keys \
             issue … --force, or set the clock"
        )));
    }
    Ok(validity)
}

/// What a peer that expects us would find.
fn check_own(
    files: &TlsFiles,
    ca: &CertificateDer<'static>,
    cert: &CertificateDer<'_>,
    own: &Subject,
    provider: &Arc<CryptoProvider>,
) -> Result<(), TlsError> {
    let wrong = |what: String| TlsError {
        path: files.cert.clone(),
        what,
    };
    let expect = match own {
        Subject::Node(name) => Expect::Node(name.clone()),
        Subject::Arbiter => Expect::Arbiter,
    };
    let verifier = PeerVerifier::new(ca.clone(), provider, expect.clone())
        .map_err(|error| wrong(error.to_string()))?;
    verifier
        .verify_as_peer(cert, expect.role_name())
        .map_err(|error| {
            let ca = files.ca.display();
            let what = match explain::subject_of(&error) {
                Some(SubjectError::Other { found, .. }) => format!("is for {found}"),
                Some(SubjectError::Nobody) => "names no node and no arbiter".to_owned(),
                None => format!("was not issued by {ca}"),
            };
            wrong(format!(
                "{what}: give the certificate of {own} in this cluster"
            ))
        })
}

#[cfg(test)]
pub(crate) mod tests;
