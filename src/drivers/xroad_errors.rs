//! X-Road's own error codes, and whose fault they are. A code is a family of leading segments and a reason: 7.8 writes
//! `server.serverproxy.access_denied`, 7.7 and earlier `Server.ServerProxy.AccessDenied` (ErrorCodes.java and
//! ErrorCode.java of both).
//!
//! The family names the place of the error. `client`: the consumer's message, which the gateway writes.
//! `server.clientproxy` and `signer`: our own security server, with our certificates and keys. `server.serverproxy`:
//! the provider's security server.

use super::{GatewayFault, SourceError, SourceFault};
use crate::contract::map::outcome::spelling_free;

/// The place of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ErrorFamily {
    Client,
    OwnServer,
    TheirServer,
}

/// Reasons about certificates, keys and signatures of the family's server.
const CERTIFICATES: &[&str] = &[
    "sslauthenticationfailed",
    "certvalidation",
    "incorrectcertificate",
    "missingvalidationinfo",
    "incorrectvalidationinfo",
    "cannotcreatecertpath",
    "invalidcertpath",
    "certvaliditytime",
    "cannotcreatesignature",
    "missingsignature",
    "malformedsignature",
    "invalidsignaturevalue",
    "signatureverification",
    "unsupportedalgorithm",
    "unsupportedsignalgorithm",
    "cannotsign",
    "keynotfound",
    "keynotavailable",
    "certnotfound",
    "csrnotfound",
    "tokennotfound",
    "tokennotactive",
    "tokennotinitialized",
    "tokennotavailable",
    "tokenreadonly",
    "wrongcertusage",
    "certexists",
    "loginfailed",
    "pinincorrect",
    "hsmnonoperational",
    "cryptographyerror",
];

/// Reasons that mean that the gateway may not do this.
const RIGHTS: &[&str] = &["accessdenied"];

/// Reasons that mean that the connection entry or the contract names somebody or something that does not exist.
const NAMES: &[&str] = &[
    "unknownmember",
    "invalidclientidentifier",
    "clientnotfound",
    "invalidsecurityserver",
    "securityservernotfound",
    "invalidprotocolversion",
    "servicetype",
    "clientproxyversionnotsupported",
];

/// Reasons that mean that the operation does not exist: others may work.
const OPERATIONS: &[&str] =
    &["unknownservice", "servicenotfound", "endpointnotfound", "servicemissingurl", "servicemalformedurl"];

/// Temporary reasons.
const PASSING: &[&str] = &["maintenancemode", "servicedisabled"];

/// Returns the meaning of one of X-Road's own codes, with the code as received; `None` for a code that is not X-Road's.
pub(super) fn meaning(code: &str) -> Option<SourceError> {
    let name = spelling_free(code.trim());
    let mut segments = name.split('.');
    let (family, rest): (ErrorFamily, Vec<&str>) = match (segments.next(), segments.clone().next()) {
        (Some("client"), Some(_)) => (ErrorFamily::Client, segments.collect()),
        (Some("signer"), Some(_)) => (ErrorFamily::OwnServer, segments.collect()),
        (Some("server"), Some("clientproxy")) => (ErrorFamily::OwnServer, segments.skip(1).collect()),
        (Some("server"), Some("serverproxy")) => (ErrorFamily::TheirServer, segments.skip(1).collect()),
        _ => return None,
    };
    // `service_failed.ssl_authentication_failed`, `signature_verification.invalid_cert_path`: the first segment names
    // the failure.
    let is = |reasons: &[&str]| rest.first().is_some_and(|first| reasons.contains(first));
    let error: SourceError = if is(RIGHTS) {
        GatewayFault::Forbidden(String::new()).into()
    } else if is(NAMES) {
        SourceError::internal("X-Road does not know the names that the connection entry or the contract has")
    } else if is(PASSING) {
        SourceFault::Unavailable("X-Road says that it is not in service").into()
    } else if is(OPERATIONS) {
        SourceError::unreadable("X-Road has no such service")
    } else if rest.first() == Some(&"servicefailed") {
        SourceFault::Unavailable("the service behind X-Road failed").into()
    } else {
        match (family, is(CERTIFICATES)) {
            (ErrorFamily::Client | ErrorFamily::OwnServer, true) => GatewayFault::Forbidden(String::new()).into(),
            (ErrorFamily::Client, false) => SourceError::internal("X-Road does not take the gateway's message"),
            (ErrorFamily::OwnServer | ErrorFamily::TheirServer, _) => {
                SourceError::broken("X-Road could not reach the service")
            }
        }
    };
    Some(error.coded(code.trim()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::status::{FaultOwner, Reason, Refusal};

    /// The codes of 7.8 that occur when messages are exchanged.
    const CODES: &str = include_str!("xroad_codes.txt");

    #[test]
    fn u4_every_code_has_somebody_at_fault_in_both_spellings() {
        let camel = |code: &str| -> String {
            let word = |word: &str| word[..1].to_uppercase() + &word[1..];
            let segment = |segment: &str| match segment {
                "serverproxy" => "ServerProxy".to_owned(),
                "clientproxy" => "ClientProxy".to_owned(),
                other => other.split('_').map(word).collect(),
            };
            code.split('.').map(segment).collect::<Vec<_>>().join(".")
        };
        let mut count = 0;
        for line in CODES.lines().filter(|line| !line.starts_with('#')) {
            let [code, reason, fault] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
            for spelling in [code.to_owned(), camel(code), code.to_uppercase()] {
                let refusal = Refusal::from(meaning(&spelling).unwrap_or_else(|| panic!("{spelling}")));
                assert_eq!((refusal.reason.as_str(), refusal.fault.as_str()), (reason, fault), "{spelling}");
                assert_eq!(refusal.source_code.as_deref(), Some(spelling.as_str()));
            }
            count += 1;
        }
        assert!(count >= 90, "{count}");
    }

    #[test]
    fn u4_a_code_of_the_service_s_own_is_not_x_road_s() {
        for code in ["Server", "Client", "server", "DOSSIER_UNKNOWN", "Server.Busy", "soap.client.x", "", "."] {
            assert!(meaning(code).is_none(), "{code}");
        }
        let denied = Refusal::from(meaning("server.serverproxy.access_denied").unwrap());
        assert_eq!((denied.reason, denied.fault), (Reason::SourceCredentialsRefused, FaultOwner::Gateway));
    }
}
