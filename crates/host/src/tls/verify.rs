//! What a peer's certificate must be: issued by the cluster's authority, in force, and for the peer
//! that is expected.
//!
//! Chains, dates, key usages and signatures are checked by the TLS library's own verifiers. What
//! this adds is the subject, inside the handshake: no connection exists that was not asked for it.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use super::{Expect, Subject};

/// A certificate of the right authority, but not the expected peer's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubjectError {
    #[error("its certificate is for {found}, expected is {expected}")]
    Other { found: Subject, expected: Expect },
    #[error("its certificate names no node and no arbiter")]
    Nobody,
}

/// Whom a certificate is for. Only meaningful once the chain has been verified.
pub(crate) fn subject(certificate: &CertificateDer<'_>) -> Result<Subject, SubjectError> {
    let parsed = webpki::EndEntityCert::try_from(certificate).map_err(|_| SubjectError::Nobody)?;
    let mut subjects = parsed.valid_uri_names().filter_map(Subject::from_uri);
    match (subjects.next(), subjects.next()) {
        (Some(subject), None) => Ok(subject),
        _ => Err(SubjectError::Nobody),
    }
}

/// Verifies whoever is at the other end, be it the one that dialled or the one that listens.
#[derive(Debug)]
pub(crate) struct PeerVerifier {
    expect: Expect,
    listening: Arc<WebPkiServerVerifier>,
    dialling: Arc<dyn ClientCertVerifier>,
}

impl PeerVerifier {
    pub(crate) fn new(
        authority: CertificateDer<'static>,
        provider: &Arc<CryptoProvider>,
        expect: Expect,
    ) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        roots.add(authority)?;
        let roots = Arc::new(roots);
        let failed =
            |error: rustls::server::VerifierBuilderError| Error::General(error.to_string());
        let listening =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider))
                .build()
                .map_err(failed)?;
        // Without a certificate there is no connection: that is this verifier's default.
        let dialling = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
            .build()
            .map_err(failed)?;
        Ok(Self {
            expect,
            listening,
            dialling,
        })
    }

    /// Whether a certificate would do for the one that listens under this role.
    pub(crate) fn verify_as_peer(
        &self,
        certificate: &CertificateDer<'_>,
        role_name: &'static str,
    ) -> Result<(), Error> {
        let role = ServerName::try_from(role_name)
            .map_err(|_| Error::from(CertificateError::NotValidForName))?;
        self.verify_server_cert(certificate, &[], &role, &[], UnixTime::now())
            .map(drop)
    }

    fn check_subject(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let wrong = match subject(certificate) {
            Ok(found) if self.expect.admits(&found) => return Ok(()),
            Ok(found) => SubjectError::Other {
                found,
                expected: self.expect.clone(),
            },
            Err(error) => error,
        };
        Err(CertificateError::Other(OtherError(Arc::new(wrong))).into())
    }
}

fn is_name(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        )
    )
}

/// What both traits ask in the same words: signatures are the library's business.
macro_rules! signatures_by {
    ($verifier:ident) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.$verifier.verify_tls12_signature(message, cert, dss)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.$verifier.verify_tls13_signature(message, cert, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.$verifier.supported_verify_schemes()
        }
    };
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let listening = &self.listening;
        let verified = listening
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .or_else(|error| {
                // The role is looked at last: the subject says more than it.
                if is_name(&error) {
                    self.check_subject(end_entity)?;
                }
                Err(error)
            })?;
        self.check_subject(end_entity)?;
        Ok(verified)
    }

    signatures_by!(listening);
}

impl ClientCertVerifier for PeerVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.dialling.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .dialling
            .verify_client_cert(end_entity, intermediates, now)?;
        self.check_subject(end_entity)?;
        Ok(verified)
    }

    signatures_by!(dialling);
}
