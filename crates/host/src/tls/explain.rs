//! What the TLS library says, in words for the person who can mend it.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::Moment;
use super::verify::SubjectError;

/// Our own verifier's answer, if it was the one who said no.
pub(super) fn subject_of(error: &Error) -> Option<&SubjectError> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
        _ => None,
    }
}

/// One line: what is wrong and what to do.
pub(super) fn explain(error: &Error) -> String {
    if let Some(subject) = subject_of(error) {
        return format!("{subject}: give each host its own certificate and the right address");
    }
    match error {
        Error::InvalidCertificate(wrong) => certificate(wrong),
        Error::NoCertificatesPresented => {
            "it shows no certificate: only members of this cluster are let in".to_owned()
        }
        Error::AlertReceived(alert) => alert_received(*alert),
        Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => "it does not speak TLS 1.3".to_owned(),
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => {
            "it does not speak TLS: it is no twinvm node, or one whose VM.toml has no [tls]"
                .to_owned()
        }
        other => format!("TLS: {other}"),
    }
}

fn certificate(wrong: &CertificateError) -> String {
    let moment =
        |at: rustls::pki_types::UnixTime| Moment(i64::try_from(at.as_secs()).unwrap_or(i64::MAX));
    match wrong {
        CertificateError::ExpiredContext { time, not_after } => format!(
            "its certificate has expired on {} (this host's clock says {}): issue it again with \
             twinvm keys issue, or set the clock",
            moment(*not_after),
            moment(*time)
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "its certificate is valid from {} on, and this host's clock says {}: set the clock \
             that is wrong",
            moment(*not_before),
            moment(*time)
        ),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is of another cluster: issue both with the same authority".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another role: nodes need one of keys issue --name, the arbiter \
             one of keys issue --arbiter"
                .to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not for one who connects: nodes need one of keys issue --name"
                .to_owned()
        }
        other => format!("its certificate can't be used: {other}"),
    }
}

fn alert_received(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "it takes this node's certificate for one of another cluster: issue both with the same \
             authority"
                .to_owned()
        }
        AlertDescription::CertificateExpired => {
            "it says that this node's certificate has expired or is not valid yet: issue it again, \
             or set the clock that is wrong"
                .to_owned()
        }
        AlertDescription::CertificateUnknown
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate => {
            "it expects another node's certificate than this one's: look at the names and channel \
             addresses in VM.toml"
                .to_owned()
        }
        other => format!("it has ended the handshake: {other:?}"),
    }
}
