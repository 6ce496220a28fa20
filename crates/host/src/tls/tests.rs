use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;

mod keys;
mod streams;

/// An authority in a folder, and what it has issued.
pub(crate) struct Cluster {
    folder: TempDir,
    authority: Authority,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let authority = Authority::new(now_s()).unwrap();
        authority.write(folder.path(), false).unwrap();
        Self { folder, authority }
    }

    fn files(&self, subject: &Subject) -> TlsFiles {
        let path = |name: String| self.folder.path().join(name);
        let stem = subject.file_stem();
        TlsFiles {
            ca: path(CA_CERT.to_owned()),
            cert: path(format!("{stem}.crt")),
            key: path(format!("{stem}.key")),
        }
    }

    fn issue(&self, subject: &Subject, validity: Validity) {
        let issued = self.authority.issue(subject, validity).unwrap();
        let folder = self.folder.path();
        self.authority
            .write_issued(folder, subject, &issued, true)
            .unwrap();
    }

    pub(crate) fn member(&self, own: Subject, expect: Expect) -> Credentials {
        self.issue(&own, self.authority.span(now_s(), ISSUE_DAYS));
        Credentials::load(self.files(&own), own, expect).unwrap()
    }

    pub(crate) fn node(&self, name: &str, expect: Expect) -> Credentials {
        self.member(Subject::Node(name.to_owned()), expect)
    }

    /// What no honest member would show: dates and subject are nobody's business here.
    pub(crate) fn unchecked(
        &self,
        own: &Subject,
        validity: Validity,
        expect: Expect,
    ) -> Credentials {
        let issued = self.authority.issue(own, validity).unwrap();
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let provider = Arc::new(default_provider());
        let (client, server) = configs(
            der(self.authority.cert()),
            der(&issued.cert),
            PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap(),
            &expect,
            &provider,
        )
        .unwrap();
        with_configs(own, expect, client, server)
    }

    /// Speaks TLS 1.3 and knows the authority, but has no certificate.
    pub(crate) fn without_certificate(&self, expect: Expect) -> Credentials {
        let own = Subject::Node("nobody".to_owned());
        let provider = Arc::new(default_provider());
        let ca = CertificateDer::from_pem_slice(self.authority.cert().as_bytes()).unwrap();
        let verifier = PeerVerifier::new(ca, &provider, expect.clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        let other = self.unchecked(&own, always(), expect.clone());
        let server = other.fresh().server;
        with_configs(&own, expect, client, Arc::unwrap_or_clone(server))
    }
}

pub(crate) fn always() -> Validity {
    Validity {
        not_before_s: 0,
        not_after_s: now_s() + dates::DAY_S,
    }
}

pub(crate) fn expired() -> Validity {
    Validity {
        not_before_s: now_s() - 2 * dates::DAY_S,
        not_after_s: now_s() - 60,
    }
}

pub(crate) fn not_yet() -> Validity {
    Validity {
        not_before_s: now_s() + 3600,
        not_after_s: now_s() + dates::DAY_S,
    }
}

fn with_configs(
    own: &Subject,
    expect: Expect,
    client: ClientConfig,
    server: ServerConfig,
) -> Credentials {
    let path = || PathBuf::from("no/such/file");
    let files = TlsFiles {
        ca: path(),
        cert: path(),
        key: path(),
    };
    Credentials(Arc::new(Inner {
        own: own.clone(),
        expect,
        provider: Arc::new(default_provider()),
        reading: Mutex::new(stamps(&files)),
        current: Mutex::new(Current {
            loaded: Loaded {
                client: Arc::new(client),
                server: Arc::new(server),
                ca: always(),
                cert: always(),
            },
            trouble: None,
        }),
        files,
    }))
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Both sides of a handshake.
fn shake(
    dialling: &Credentials,
    listening: &Credentials,
) -> (
    Result<TlsStream, HandshakeError>,
    Result<TlsStream, HandshakeError>,
) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let dialling = dialling.clone();
    let dialled =
        thread::spawn(move || connect(TcpStream::connect(address).unwrap(), &dialling, soon()));
    let accepted = accept(listener.accept().unwrap().0, listening, soon());
    (dialled.join().unwrap(), accepted)
}
