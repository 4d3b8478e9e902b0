//! Refused handshakes, and connections that are closed because their handshake would now be refused. Both are recorded
//! with their cause and the certificate concerned: in the log and in an entry (rate-limited like every refusal);
//! refused handshakes also in the metric.

use super::refusals::{Identity, RefusalKind, RefusalLog};
use crate::exchange_log::{Entry, Kind};
use crate::identity::refused;
use crate::status::Reason;
use std::net::SocketAddr;

impl RefusalLog {
    /// Records a connection to a port (`grpc`, `https`) of this node that was refused before its first request.
    pub fn handshake(
        &self,
        node: &str,
        port: &'static str,
        address: SocketAddr,
        reason: Reason,
        why: &refused::RefusedHandshake,
    ) {
        self.metrics.handshake_refused(why.cause.label());
        self.connection(node, port, (address, reason), why, "a connection was refused");
    }

    /// Records an open connection to a port that was closed: a handshake with its certificate would be refused by now.
    pub fn closed(&self, node: &str, port: &'static str, address: SocketAddr, why: &refused::RefusedHandshake) {
        self.connection(node, port, (address, Reason::CertificateRevoked), why, "a connection was closed");
    }

    fn connection(
        &self,
        node: &str,
        port: &'static str,
        (address, reason): (SocketAddr, Reason),
        why: &refused::RefusedHandshake,
        what: &str,
    ) {
        let cause = why.cause.label();
        let mut entry = Entry {
            peer: address.to_string(),
            status: reason.code() as u32,
            reason: reason.as_str().to_owned(),
            cause: cause.to_owned(),
            listener: port.to_owned(),
            ..Entry::begin(Kind::Connection, node)
        };
        if let Some(shown) = &why.shown {
            entry.certificate = shown.thumbprint.0.to_vec();
            entry.certificate_subject.clone_from(&shown.subject);
            entry.certificate_serial.clone_from(&shown.serial);
            entry.certificate_issuer.clone_from(&shown.issuer);
        }
        if !self.note_detached(RefusalKind::Connection, Identity::Address(address.ip().into()), entry) {
            return;
        }
        let (text, reason) = (why.cause.text(), reason.as_str());
        match &why.shown {
            Some(shown) => tracing::info!(
                %address, port, cause, reason,
                subject = shown.subject, serial = shown.serial, issuer = shown.issuer,
                "{what}: {text}"
            ),
            None => tracing::info!(%address, port, cause, reason, "{what}: {text}"),
        }
    }
}
