//! Keys as somebody else than twinvm makes them, for servers of this host.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::ExtendedKeyUsagePurpose::{self, ClientAuth, ServerAuth};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use twinvm_host::tls::TlsFiles;

/// What a client's certificate is for.
pub(crate) const CLIENT: &[ExtendedKeyUsagePurpose] = &[ClientAuth];
/// What that of a member of etcd is for: it asks itself, too.
pub(crate) const BOTH: &[ExtendedKeyUsagePurpose] = &[ServerAuth, ClientAuth];

pub(crate) struct Authority {
    folder: PathBuf,
    name: &'static str,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one; its certificate is `NAME.crt`.
    pub(crate) fn new(folder: &Path, name: &'static str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        fs::write(folder.join(format!("{name}.crt")), certificate.pem()).unwrap();
        Self {
            folder: folder.to_owned(),
            name,
            issuer: Issuer::new(params, key),
        }
    }

    /// A key and a certificate of this host.
    pub(crate) fn issue(&self, name: &str, usages: &[ExtendedKeyUsagePurpose]) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let names = ["127.0.0.1", "localhost"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = usages.to_vec();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |kind: &str| self.folder.join(format!("{name}.{kind}"));
        let files = TlsFiles {
            ca: self.folder.join(format!("{}.crt", self.name)),
            cert: file("crt"),
            key: file("key"),
        };
        fs::write(&files.cert, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
        files
    }
}
