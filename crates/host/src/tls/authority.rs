//! A cluster's own certificate authority, and what it issues.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;

use super::dates::DAY_S;
use super::{Moment, Subject, Validity};
use crate::durable::{read_small, replace_file};
use crate::random::random_u128;

/// The authority's certificate, which every host has.
pub const CA_CERT: &str = "ca.crt";
/// The authority's key, which no host needs.
pub const CA_KEY: &str = "ca.key";
/// How long an authority lives: longer than most clusters.
pub const CA_DAYS: u32 = 3650;
/// How long a node's certificate lives if nobody says otherwise: two years.
pub const ISSUE_DAYS: u32 = 730;
/// A certificate is valid from a day ago on: hosts' clocks differ.
const BACKDATE_S: i64 = DAY_S;
/// A key or a certificate in PEM has less than 2 KiB.
pub(super) const MAX_PEM_BYTES: usize = 64 << 10;

/// Keys could not be made or written.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of that name is there.
    #[error("{0}: is there already: give another --out, or replace it with --force")]
    Exists(PathBuf),
    /// No authority in the folder.
    #[error("{0}: there is no authority here: make one with twinvm keys init --out DIR")]
    Absent(PathBuf),
    /// The file is not what `keys init` wrote.
    #[error("{path}: {what}: give the folder that twinvm keys init made", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another authority's certificate is where this one's belongs.
    #[error("{0}: is of another authority: give another --out, or replace it with --force")]
    OtherAuthority(PathBuf),
    /// The authority's own time is over.
    #[error("{path}: the authority has expired on {until}: make a new one with twinvm keys init, and issue all certificates again", path = path.display())]
    Expired {
        /// Its certificate.
        path: PathBuf,
        /// When.
        until: Moment,
    },
    /// The system said no.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// There is no folder to write to.
    #[error("{path}: can't make the folder: {source}: name one that you can make, or that is there", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The library that makes certificates said no.
    #[error("making a certificate: {0}")]
    Make(String),
}

/// A key and its certificate, in PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub cert: String,
    /// The key: a secret.
    pub key: String,
}

/// A cluster's certificate authority.
pub struct Authority {
    key: KeyPair,
    cert: String,
    validity: Validity,
}

impl Authority {
    /// Draws a new one, valid for [`CA_DAYS`] from `now_s` on (seconds since 1970).
    pub fn new(now_s: i64) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate().map_err(make)?;
        let validity = Validity {
            not_before_s: now_s - BACKDATE_S,
            not_after_s: now_s + i64::from(CA_DAYS) * DAY_S,
        };
        let mut params = params(validity)?;
        params.distinguished_name = name_of(&key);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let cert = params.self_signed(&key).map_err(make)?.pem();
        Ok(Self {
            key,
            cert,
            validity,
        })
    }

    /// The one in a folder.
    pub fn open(folder: &Path) -> Result<Self, AuthorityError> {
        let path = folder.join(CA_KEY);
        let unusable = |path: &Path, what: &str| AuthorityError::Unusable {
            path: path.to_owned(),
            what: what.to_owned(),
        };
        let text = read_text(&path)?;
        let key =
            KeyPair::from_pem(&text).map_err(|_| unusable(&path, "is no key of an authority"))?;
        let path = folder.join(CA_CERT);
        let cert = read_text(&path)?;
        let der = CertificateDer::from_pem_slice(cert.as_bytes())
            .map_err(|_| unusable(&path, "is no certificate"))?;
        let validity = Validity::of(&der).ok_or_else(|| unusable(&path, "is no certificate"))?;
        // What it issues is worth nothing unless the two belong together.
        let parsed = webpki::anchor_from_trusted_cert(&der)
            .map_err(|_| unusable(&path, "is no certificate of an authority"))?;
        if !parsed
            .subject_public_key_info
            .ends_with(key.public_key_raw())
        {
            return Err(unusable(&path, "does not belong to the key beside it"));
        }
        Ok(Self {
            key,
            cert,
            validity,
        })
    }

    /// Says so if its own time is over.
    pub fn check_alive(&self, folder: &Path, now_s: i64) -> Result<(), AuthorityError> {
        if now_s <= self.validity.not_after_s {
            return Ok(());
        }
        Err(AuthorityError::Expired {
            path: folder.join(CA_CERT),
            until: Moment(self.validity.not_after_s),
        })
    }

    /// Its certificate, in PEM.
    pub fn cert(&self) -> &str {
        &self.cert
    }

    /// When it lives.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The dates of a certificate for `days` from `now_s` on, which ends with the authority at the
    /// latest.
    pub fn span(&self, now_s: i64, days: u32) -> Validity {
        Validity {
            not_before_s: now_s - BACKDATE_S,
            not_after_s: (now_s + i64::from(days) * DAY_S).min(self.validity.not_after_s),
        }
    }

    /// Draws a key for `subject` and certifies it.
    pub fn issue(&self, subject: &Subject, validity: Validity) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate().map_err(make)?;
        let ia5 = |text: String| Ia5String::try_from(text).map_err(make);
        let mut params = params(validity)?;
        params
            .distinguished_name
            .push(DnType::CommonName, subject.to_string());
        params.subject_alt_names = vec![
            SanType::DnsName(ia5(subject.role_name().to_owned())?),
            SanType::URI(ia5(subject.uri())?),
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // A node dials and listens; an arbiter only listens, and can't pass for one who dials.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if matches!(subject, Subject::Node(_)) {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let mut authority = CertificateParams::default();
        authority.distinguished_name = name_of(&self.key);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = Issuer::new(authority, &self.key);
        let cert = params.signed_by(&key, &issuer).map_err(make)?;
        Ok(Issued {
            cert: cert.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Writes key and certificate into `folder`, which is made.
    pub fn write(&self, folder: &Path, force: bool) -> Result<(), AuthorityError> {
        let key = self.key.serialize_pem();
        write_all(
            folder,
            &[(CA_KEY.to_owned(), &key), (CA_CERT.to_owned(), &self.cert)],
            force,
        )
    }

    /// Writes what was issued to `subject`, and the authority's certificate, into `folder`, which
    /// is made: all that one host needs. An equal certificate of the authority may be there.
    pub fn write_issued(
        &self,
        folder: &Path,
        subject: &Subject,
        issued: &Issued,
        force: bool,
    ) -> Result<(), AuthorityError> {
        let stem = subject.file_stem();
        let mut files = vec![
            (format!("{stem}.key"), issued.key.as_str()),
            (format!("{stem}.crt"), issued.cert.as_str()),
        ];
        let path = folder.join(CA_CERT);
        match read_small(&path, MAX_PEM_BYTES) {
            Ok(Some(there)) if there == self.cert.as_bytes() => {}
            Ok(Some(_)) if !force => return Err(AuthorityError::OtherAuthority(path)),
            _ => files.push((CA_CERT.to_owned(), self.cert.as_str())),
        }
        write_all(folder, &files, force)
    }
}

/// An authority is named after its key: two of them never look alike.
fn name_of(key: &KeyPair) -> DistinguishedName {
    let id = CertificateParams::default().key_identifier(key);
    let hex: String = id
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, format!("twinvm cluster {hex}"));
    name
}

fn params(validity: Validity) -> Result<CertificateParams, AuthorityError> {
    let moment = |at| OffsetDateTime::from_unix_timestamp(at).map_err(make);
    let serial = random_u128().map_err(make)?.to_be_bytes();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = moment(validity.not_before_s)?;
    params.not_after = moment(validity.not_after_s)?;
    // Positive in any encoding.
    params.serial_number = Some(SerialNumber::from_slice(
        &[&[1][..], &serial[..15]].concat(),
    ));
    Ok(params)
}

fn make(error: impl std::fmt::Display) -> AuthorityError {
    AuthorityError::Make(error.to_string())
}

fn read_text(path: &Path) -> Result<String, AuthorityError> {
    match read_small(path, MAX_PEM_BYTES) {
        Ok(Some(bytes)) => String::from_utf8(bytes).map_err(|_| AuthorityError::Unusable {
            path: path.to_owned(),
            what: "is no text".to_owned(),
        }),
        Ok(None) => Err(AuthorityError::Absent(path.to_owned())),
        Err(source) => Err(AuthorityError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Only the owner may read what this writes.
fn write_all(folder: &Path, files: &[(String, &str)], force: bool) -> Result<(), AuthorityError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| AuthorityError::Io { path, source }
    };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| AuthorityError::Folder {
        path: folder.to_owned(),
        source,
    })?;
    for (name, _) in files {
        let path = folder.join(name);
        if !force && fs::symlink_metadata(&path).is_ok() {
            return Err(AuthorityError::Exists(path));
        }
    }
    for (name, text) in files {
        replace_file(folder, name, text.as_bytes()).map_err(io(&folder.join(name)))?;
    }
    Ok(())
}
