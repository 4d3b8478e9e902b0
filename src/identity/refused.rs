//! The cause of a refused handshake, and its certificate: for the log, the entry and the metric.

use super::Thumbprint;
use crate::hex::hex;
use rustls::CertificateError;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

/// Maximum number of characters of a recorded name: it is the peer's own text.
const MAX_NAME: usize = 200;
/// Maximum number of characters of a serial number: 20 bytes (RFC 5280, section 4.1.2.2) in hexadecimal, and some for
/// numbers that violate the rule.
const MAX_SERIAL: usize = 64;
/// Smallest RSA key in bits.
const MIN_RSA_BITS: usize = 2_048;

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident, $label:literal, $text:literal;)*) => {
        /// The cause of a refused handshake. The labels are a fixed set.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Cause { $($(#[$doc])* $name,)* }

        impl Cause {
            /// Every cause.
            pub const ALL: &[Cause] = &[$(Cause::$name,)*];

            /// Returns its name in the metric and in the entry.
            pub fn label(self) -> &'static str { match self { $(Cause::$name => $label,)* } }

            /// Returns its description.
            pub fn text(self) -> &'static str { match self { $(Cause::$name => $text,)* } }
        }
    };
}

causes! {
    /// A certificate is required.
    NoCertificate, "no_certificate", "the peer showed no certificate";
    /// No CA here issued it, or only a CA with another key of the same name.
    UnknownIssuer, "unknown_issuer", "no CA in client_ca has signed the certificate";
    /// It has expired, or its CA has.
    Expired, "expired", "the certificate has expired";
    /// It is not valid yet.
    NotYetValid, "not_yet_valid", "the certificate is not valid yet";
    /// It is on its issuer's list.
    Revoked, "revoked", "the certificate is revoked";
    /// Its issuer has no list here.
    NoRevocationList, "no_revocation_list", "there is no revocation list of the certificate's issuer";
    /// The list is out of date, or not valid yet.
    RevocationListOutOfDate, "revocation_list_out_of_date", "the revocation list of the certificate's issuer is out of date";
    /// A key or a signature of a kind that is not trusted.
    WeakKey, "weak_key", "a key or a signature algorithm is too weak or not known";
    /// It is for another purpose.
    WrongUsage, "wrong_usage", "the certificate is not for a client, or its chain not for clients";
    /// It cannot be read.
    Malformed, "malformed_certificate", "the certificate cannot be read";
    /// The peer does not hold the certificate's key.
    BadSignature, "bad_signature", "the peer has not proved that it holds the certificate's key";
    /// It comes from a balancer that has not named its peer.
    ProxyHeader, "proxy_header", "the connection comes from a balancer and does not begin with a PROXY header of version 2";
    /// The limit of connections is reached, for this peer or in all.
    TooMany, "too_many", "there are too many connections, from this address or in all";
    /// Handshakes begin more often than permitted.
    TooManyHandshakes, "too_many_handshakes", "too many handshakes are begun, from this address or by strangers in all";
    /// No client sends that much.
    HelloTooLarge, "hello_too_large", "the first message of the handshake is larger than any client's";
    /// Another protocol.
    NotTls, "not_tls", "the peer does not speak TLS";
    /// No TLS version, cipher or group in common.
    NoCommonVersion, "no_common_version", "the peer and the gateway have no TLS version, cipher or group in common";
    /// No application protocol in common (ALPN).
    NoCommonProtocol, "no_common_protocol", "the peer asks for no application protocol that is served here (ALPN)";
    /// The negotiated protocol is not spoken.
    NotHttp2, "not_http2", "the peer does not speak HTTP/2";
    /// The peer ended it with an alert: it may not trust the gateway's certificate.
    PeerAlert, "peer_alert", "the peer ended the handshake with an alert";
    /// The peer disconnected.
    Closed, "closed", "the peer closed the connection in the handshake";
    /// It took too long.
    Timeout, "timeout", "the handshake took too long";
    /// TLS, but in violation of its rules.
    Protocol, "protocol_error", "the peer broke the rules of TLS";
}

/// A certificate that was presented, as its holder wrote it: nothing in it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownCertificate {
    /// Subject, bounded, without control characters.
    pub subject: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Issuer, bounded, without control characters.
    pub issuer: String,
    /// SHA-256.
    pub thumbprint: Thumbprint,
}

impl ShownCertificate {
    /// Returns the readable parts of a certificate.
    pub fn of(der: &[u8]) -> Self {
        let thumbprint = Thumbprint::of(der);
        match X509Certificate::from_der(der) {
            Ok((_, read)) => ShownCertificate {
                subject: plain(&read.subject().to_string(), MAX_NAME),
                serial: plain(&hex(read.raw_serial()), MAX_SERIAL),
                issuer: plain(&read.issuer().to_string(), MAX_NAME),
                thumbprint,
            },
            Err(_) => {
                ShownCertificate { subject: String::new(), serial: String::new(), issuer: String::new(), thumbprint }
            }
        }
    }
}

/// Returns foreign text for a log: bounded, and without characters that would end a line, control a terminal or reverse
/// the text.
pub fn plain(text: &str, most: usize) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let mut out: String = text.chars().take(most).map(|c| if steers(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(most).is_some() {
        out.push('…');
    }
    out
}

/// A refused handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedHandshake {
    /// The cause.
    pub cause: Cause,
    /// The certificate concerned, if one was presented: the peer's, or one above it.
    pub shown: Option<Box<ShownCertificate>>,
}

impl From<Cause> for RefusedHandshake {
    fn from(cause: Cause) -> Self {
        RefusedHandshake::plain(cause)
    }
}

impl RefusedHandshake {
    /// Makes one with this cause, without a certificate.
    pub fn plain(cause: Cause) -> Self {
        RefusedHandshake { cause, shown: None }
    }

    /// Makes one with this cause, about this certificate.
    pub fn about(cause: Cause, der: &[u8]) -> Self {
        RefusedHandshake { cause, shown: Some(Box::new(ShownCertificate::of(der))) }
    }

    /// Returns the error for which rustls sends the right alert.
    pub fn error(&self) -> rustls::Error {
        let error = match self.cause {
            Cause::UnknownIssuer => CertificateError::UnknownIssuer,
            Cause::Expired => CertificateError::Expired,
            Cause::NotYetValid => CertificateError::NotValidYet,
            Cause::Revoked => CertificateError::Revoked,
            Cause::NoRevocationList => CertificateError::UnknownRevocationStatus,
            Cause::RevocationListOutOfDate => CertificateError::ExpiredRevocationList,
            Cause::WeakKey | Cause::BadSignature => CertificateError::BadSignature,
            Cause::WrongUsage => CertificateError::InvalidPurpose,
            _ => CertificateError::BadEncoding,
        };
        rustls::Error::InvalidCertificate(error)
    }

    /// Returns the cause of a handshake's error; `shown` is what the verifier has recorded of the certificate, if any.
    pub fn of(error: &std::io::Error, noted: Option<RefusedHandshake>) -> Self {
        if let Some(noted) = noted {
            return noted;
        }
        let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) else {
            return RefusedHandshake::plain(Cause::Closed);
        };
        RefusedHandshake::plain(match error {
            rustls::Error::NoCertificatesPresented => Cause::NoCertificate,
            rustls::Error::InvalidMessage(
                rustls::InvalidMessage::InvalidContentType
                | rustls::InvalidMessage::UnknownProtocolVersion
                | rustls::InvalidMessage::MessageTooLarge
                | rustls::InvalidMessage::InvalidEmptyPayload,
            ) => Cause::NotTls,
            rustls::Error::PeerIncompatible(_) => Cause::NoCommonVersion,
            rustls::Error::NoApplicationProtocol => Cause::NoCommonProtocol,
            rustls::Error::AlertReceived(_) => Cause::PeerAlert,
            rustls::Error::InvalidCertificate(_) => Cause::Malformed,
            _ => Cause::Protocol,
        })
    }
}

/// Returns whether a certificate's key or signature is of a kind that is not trusted, however valid.
pub fn is_weak(der: &[u8]) -> bool {
    let Ok((_, read)) = X509Certificate::from_der(der) else { return false };
    // MD2, MD5 and SHA-1 with RSA; SHA-1 with ECDSA and DSA.
    const OLD: [&str; 5] = [
        "1.2.840.113549.1.1.2",
        "1.2.840.113549.1.1.4",
        "1.2.840.113549.1.1.5",
        "1.2.840.10045.4.1",
        "1.2.840.10040.4.3",
    ];
    let small = match read.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => key.key_size() < MIN_RSA_BITS,
        Ok(PublicKey::DSA(_)) => true,
        _ => false,
    };
    small || OLD.contains(&read.signature_algorithm.algorithm.to_id_string().as_str())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn t7_foreign_text_is_bounded_and_cannot_forge_a_line_of_the_log() {
        assert_eq!(plain("CN=shop", 200), "CN=shop");
        assert_eq!(
            plain("a\nb\r\u{1b}[2Jc\u{202e}d\u{2028}e", 200),
            "a\u{fffd}b\u{fffd}\u{fffd}[2Jc\u{fffd}d\u{fffd}e"
        );
        assert_eq!(plain(&"x".repeat(10_000), 200).chars().count(), 201);
        assert_eq!(plain(&"ế".repeat(200), 200), "ế".repeat(200));
    }

    #[test]
    fn t7_labels_are_told_apart() {
        let labels: std::collections::BTreeSet<&str> = Cause::ALL.iter().map(|cause| cause.label()).collect();
        assert_eq!(labels.len(), Cause::ALL.len());
    }
}
