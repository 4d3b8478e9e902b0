//! The protocols that this gateway uses towards sources, one line each. A contract names its protocol, this table makes
//! its source's driver, and a source's credentials are checked against it when the connection entries are loaded.

use super::credentials::{CredentialLocation, Credentials};
use super::{Protocol, grpc, rest, soap, xroad};
use crate::contract::Operation;
use std::sync::{PoisonError, RwLock};

/// The gateway's own. A new protocol is one file and one line here (`docs/adding-a-protocol.md`).
const BUILT_IN: [Protocol; 4] = [rest::PROTOCOL, soap::PROTOCOL, xroad::PROTOCOL, grpc::PROTOCOL];

/// Protocols that a program with this crate has registered.
static REGISTERED: RwLock<Vec<Protocol>> = RwLock::new(Vec::new());

/// A protocol of this name already exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is a protocol {0:?} already")]
pub struct DuplicateProtocol(pub &'static str);

/// Adds a protocol to those of this process, before its gateway reads its contracts.
///
/// # Errors
/// A protocol of this name already exists.
pub fn register(protocol: Protocol) -> Result<(), DuplicateProtocol> {
    let mut registered = REGISTERED.write().unwrap_or_else(PoisonError::into_inner);
    if BUILT_IN.iter().chain(registered.iter()).any(|known| known.name == protocol.name) {
        return Err(DuplicateProtocol(protocol.name));
    }
    registered.push(protocol);
    Ok(())
}

/// Every protocol, the gateway's own first.
pub fn protocols() -> Vec<Protocol> {
    let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    BUILT_IN.iter().chain(registered.iter()).copied().collect()
}

/// Returns the protocol of an operation; `None` if its contract names one that this gateway does not support.
pub fn protocol_of(operation: &Operation) -> Option<Protocol> {
    protocols().into_iter().find(|protocol| protocol.name == operation.binding.driver())
}

/// Checks that an operation's requests carry these credentials: otherwise the operator would assume that they are sent.
///
/// # Errors
/// The reason that they are never sent.
pub fn check_credentials(credentials: &Credentials, operation: &Operation) -> Result<(), String> {
    let Some(location) = credentials.location() else { return Ok(()) };
    let locations = protocol_of(operation).map_or(&[][..], |protocol| (protocol.credentials)(operation));
    match location {
        location if locations.contains(&location) => Ok(()),
        CredentialLocation::JsonBody => {
            Err("a session is sent in the body of a REST request, and no request of this source has a body".into())
        }
        CredentialLocation::SoapHeader => {
            Err("a username-token is sent in a SOAP header, and this source does not use SOAP".into())
        }
        CredentialLocation::Header => {
            let protocol = operation.binding.protocol();
            Err(format!("a {protocol} source knows the gateway by its certificate alone"))
        }
    }
}
