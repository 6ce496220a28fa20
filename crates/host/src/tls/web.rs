//! TLS 1.3 to a server that isn't twinvm's: its certificate is for its host's name or address, as
//! on the web (RFC 9525), and from an authority that the owner of this node names. The server gets
//! to see a certificate in return, by which it knows who may ask.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::{Stamp, TlsError, TlsFiles, in_force, key, read_all, stamps};

/// What a client shows, and whose certificates it believes. Files that have been replaced are read
/// again before the next connection; while they are unusable, those read before are used.
#[derive(Debug)]
pub struct WebClient {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    stamps: [Stamp; 3],
    config: Arc<ClientConfig>,
    trouble: Option<String>,
}

impl WebClient {
    /// Reads the files: the authorities' certificates, one or more; this client's certificate,
    /// with those between it and its authority behind it if there are any; its key.
    ///
    /// # Errors
    /// The first file that can't be used, and why.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(default_provider());
        let stamps = stamps(&files);
        let config = read_config(&files, &provider)?;
        Ok(Self {
            files,
            provider,
            stamps,
            config,
            trouble: None,
        })
    }

    /// Why new files are not used, if so.
    pub fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    /// Makes `tcp` a connection to the server of this name, both sides authenticated, by `until`.
    ///
    /// # Errors
    /// The server is somebody else, says no, or takes too long.
    pub fn connect(
        &mut self,
        tcp: TcpStream,
        server: ServerName<'static>,
        until: Instant,
    ) -> io::Result<WebStream> {
        let found = stamps(&self.files);
        if found != self.stamps {
            self.stamps = found;
            match read_config(&self.files, &self.provider) {
                Ok(config) => self.config = config,
                Err(error) => {
                    self.trouble = Some(format!("new credentials are not used: {error}"));
                }
            }
        }
        let session = ClientConnection::new(Arc::clone(&self.config), server);
        let mut stream = WebStream {
            session: session.map_err(|error| failed(&error))?,
            tcp,
            until: Cell::new(until),
        };
        while stream.session.is_handshaking() {
            stream.send()?;
            if stream.session.is_handshaking() {
                stream.receive()?;
            }
        }
        stream.send()?;
        Ok(stream)
    }
}

fn read_config(
    files: &TlsFiles,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let [ca, cert, key] = read_all(files)?;
    config(files, [&ca, &cert, &key], provider)
}

/// Whether a client could use these contents.
pub(crate) fn are_client_credentials(files: &TlsFiles, contents: [&[u8]; 3]) -> bool {
    config(files, contents, &Arc::new(default_provider())).is_ok()
}

fn config(
    files: &TlsFiles,
    [ca, cert, key_pem]: [&[u8]; 3],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let wrong = |path: &Path, error: rustls::Error| {
        let what = match error {
            rustls::Error::InconsistentKeys(_) => format!(
                "does not belong to the key {}: give the two that were issued together",
                files.key.display()
            ),
            other => other.to_string(),
        };
        TlsError {
            path: path.to_owned(),
            what,
        }
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(&files.ca, ca)? {
        roots
            .add(authority)
            .map_err(|error| wrong(&files.ca, error))?;
    }
    let chain = certificates(&files.cert, cert)?;
    if let Some(own) = chain.first() {
        in_force(&files.cert, own)?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| wrong(&files.ca, error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key(&files.key, key_pem)?)
        .map_err(|error| wrong(&files.cert, error))?;
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// All certificates in a file, at least one.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.ok()
        .filter(|all| !all.is_empty())
        .ok_or_else(|| TlsError {
            path: path.to_owned(),
            what: "is no certificate in PEM".to_owned(),
        })
}

/// One line: what is wrong and what to do.
fn failed(error: &rustls::Error) -> io::Error {
    use rustls::CertificateError as Certificate;
    let what = match error {
        rustls::Error::InvalidCertificate(
            Certificate::UnknownIssuer | Certificate::BadSignature,
        ) => "its certificate was not issued by the ca of [arbiter_tls]".to_owned(),
        rustls::Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => "its certificate is for another host: issue one for this name or address".to_owned(),
        rustls::Error::AlertReceived(alert) => format!(
            "it refuses the connection ({alert:?}): is the cert of [arbiter_tls] one that it \
             believes, for client authentication?"
        ),
        rustls::Error::InvalidMessage(_) => "it does not speak TLS 1.3".to_owned(),
        other => format!("TLS: {other}"),
    };
    io::Error::new(ErrorKind::InvalidData, what)
}

/// A connection to a server that has proven who it is. Reads and writes end by the time set with
/// [`set_wait`](Self::set_wait), however slowly bytes trickle.
#[derive(Debug)]
pub struct WebStream {
    session: ClientConnection,
    tcp: TcpStream,
    until: Cell<Instant>,
}

impl WebStream {
    /// The longest that each read or write may take from now on.
    pub fn set_wait(&self, wait: Duration) {
        self.until.set(Instant::now() + wait);
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.until.get().saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(ErrorKind::WouldBlock.into()),
            false => Ok(left),
        }
    }

    /// Puts what waits on the wire.
    fn send(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.tcp.set_write_timeout(Some(self.left()?))?;
            match self.session.write_tls(&mut self.tcp) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes what comes next; none is the end, with a word or without.
    fn receive(&mut self) -> io::Result<usize> {
        self.tcp.set_read_timeout(Some(self.left()?))?;
        let count = match self.session.read_tls(&mut self.tcp) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(1),
            done => done?,
        };
        if let Err(error) = self.session.process_new_packets() {
            // Says why, if it is taken at once.
            let _ = self.session.write_tls(&mut self.tcp);
            return Err(failed(&error));
        }
        if count == 0 && self.session.is_handshaking() {
            let what = "hung up in the TLS handshake";
            return Err(io::Error::new(ErrorKind::UnexpectedEof, what));
        }
        Ok(count)
    }
}

impl Read for WebStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(out) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
            self.receive()?;
            self.send()?;
        }
    }
}

impl Write for WebStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.session.writer().write(bytes)?;
        self.send()?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
