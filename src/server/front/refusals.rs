//! Connections that are refused before any call, and calls that are refused before they are read: they are logged, too,
//! but rate-limited ([`crate::access::refusals`]), since they cost an attacker nothing.

use crate::access::refusals::{Identity, RefusalKind};
use crate::exchange_log::{Entry, Kind};
use crate::identity::refused::Cause;
use crate::identity::{self, Peer};
use crate::server::shared::Shared;
use crate::status::{Reason, Refusal};
use std::net::SocketAddr;
use std::sync::Arc;

/// The reason that a connection did not reach its calls.
#[derive(Debug)]
pub struct RefusedBeforeCall {
    reason: Reason,
    why: identity::refused::RefusedHandshake,
}

impl RefusedBeforeCall {
    /// Because of another protocol than HTTP/2 over TLS.
    pub fn protocol(cause: Cause) -> Self {
        RefusedBeforeCall {
            reason: Reason::ProtocolUnsupported,
            why: identity::refused::RefusedHandshake::plain(cause),
        }
    }
}

impl From<identity::refused::RefusedHandshake> for RefusedBeforeCall {
    fn from(why: identity::refused::RefusedHandshake) -> Self {
        RefusedBeforeCall { reason: Reason::HandshakeFailed, why }
    }
}

impl From<Cause> for RefusedBeforeCall {
    fn from(cause: Cause) -> Self {
        identity::refused::RefusedHandshake::plain(cause).into()
    }
}

/// Logs refused connections and calls.
pub struct Refusals {
    shared: Arc<Shared>,
}

impl Refusals {
    /// Makes it for a gateway.
    pub fn new(shared: Arc<Shared>) -> Self {
        Refusals { shared }
    }

    /// Logs a refused connection.
    pub fn connection(&self, address: SocketAddr, reason: Reason) {
        let entry = Entry {
            peer: address.to_string(),
            status: reason.code() as u32,
            reason: reason.as_str().to_owned(),
            ..Entry::begin(Kind::Connection, &self.shared.node)
        };
        if self.shared.refusals.note_detached(RefusalKind::Connection, Identity::Address(address.ip().into()), entry) {
            tracing::info!(%address, reason = reason.as_str(), "a connection was refused");
        }
    }

    /// Logs a connection that was refused because there are too many.
    pub fn too_many(&self, address: SocketAddr) {
        let why = identity::refused::RefusedHandshake::plain(Cause::TooMany);
        self.handshake(address, &RefusedBeforeCall { reason: Reason::GatewayOverloaded, why });
    }

    /// Logs a connection that was refused because there are too many handshakes.
    pub fn too_many_handshakes(&self, address: SocketAddr) {
        let why = identity::refused::RefusedHandshake::plain(Cause::TooManyHandshakes);
        self.handshake(address, &RefusedBeforeCall { reason: Reason::GatewayOverloaded, why });
    }

    /// Logs a connection that was refused before its first call, with its cause.
    pub fn handshake(&self, address: SocketAddr, unopened: &RefusedBeforeCall) {
        let RefusedBeforeCall { reason, why } = unopened;
        self.shared.refusals.handshake(&self.shared.node, "grpc", address, *reason, why);
    }

    /// Logs an open connection that was closed because its certificate is no longer valid.
    pub fn closed(&self, address: SocketAddr, why: &identity::refused::RefusedHandshake) {
        self.shared.refusals.closed(&self.shared.node, "grpc", address, why);
    }

    /// Logs a call that was refused because of its headers: neither its token nor its message were read. Its entry, if
    /// it has one, is durable when this returns; returns its exchange id.
    pub async fn unhandled(&self, peer: &Peer, refusal: &Refusal) -> String {
        let entry = self.entry(peer, refusal);
        let (id, by) = (entry.id_text(), Identity::Certificate(peer.certificate.thumbprint));
        if let Err(error) = self.shared.refusals.note(RefusalKind::Exchange, by, entry).await {
            tracing::error!(%error, "a refusal could not be logged");
        }
        id
    }

    fn entry(&self, peer: &Peer, refusal: &Refusal) -> Entry {
        Entry {
            peer: peer.address.to_string(),
            certificate: peer.certificate.thumbprint.0.to_vec(),
            status: refusal.reason.code() as u32,
            reason: refusal.reason.as_str().to_owned(),
            ..Entry::begin(Kind::Exchange, &self.shared.node)
        }
    }

    /// Logs a call that was refused without being read: neither its token nor its message were read, so only the
    /// certificate identifies its caller.
    pub fn call(&self, peer: &Peer, refusal: &Refusal) {
        self.shared.metrics.shed();
        let entry = self.entry(peer, refusal);
        let by = Identity::Certificate(peer.certificate.thumbprint);
        self.shared.refusals.note_detached(RefusalKind::Unhandled, by, entry);
    }
}
