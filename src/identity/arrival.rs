//! The beginning of a connection, before TLS: its origin, and whether it is a connection at all.

use super::connections::ConnectionPermit;
use super::hello::{HelloError, complete_hello};
use super::proxy::{self, ProxyError, ProxyHeader};
use super::refused::Cause;
use crate::registry::Network;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A connection that has ended before its first byte of TLS.
#[derive(Debug)]
pub struct ArrivalFailure {
    /// Its origin, as far as it is known: a balancer, or the peer that the balancer has named.
    pub address: SocketAddr,
    /// The reason.
    pub why: ArrivalError,
}

/// The reason that a connection has ended before its first byte of TLS.
#[derive(Debug, thiserror::Error)]
pub enum ArrivalError {
    /// Closed without a byte: a probe of whether the port is open.
    #[error("it was closed without a byte")]
    Probe,
    /// It comes from a balancer, and does not begin with a header that names its peer.
    #[error(transparent)]
    Header(#[from] ProxyError),
    /// The peer that its balancer has named has reached its limit of connections.
    #[error("its peer has too many connections")]
    TooMany,
    /// Its ClientHello is too large, or was not completed.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// The header, or the first byte, did not arrive in time.
    #[error("nothing came in time")]
    Timeout,
}

impl ArrivalError {
    /// Returns its name in the log and the metric; `None` for a probe, which is no fault.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            ArrivalError::Probe => None,
            ArrivalError::Header(_) => Some(Cause::ProxyHeader),
            ArrivalError::TooMany => Some(Cause::TooMany),
            ArrivalError::Hello(HelloError::TooLarge) => Some(Cause::HelloTooLarge),
            ArrivalError::Hello(HelloError::Closed) => Some(Cause::Closed),
            ArrivalError::Timeout | ArrivalError::Hello(HelloError::Timeout) => Some(Cause::Timeout),
        }
    }
}

/// Returns an IPv4 peer of an IPv6 socket as that IPv4 address, for limits, networks and the log.
pub fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Returns whether connections from an address begin with a PROXY header.
pub fn is_proxied(proxies: &[Network], address: SocketAddr) -> bool {
    proxies.iter().any(|network| network.has(address.ip()))
}

/// Waits for a connection's complete ClientHello, its first byte within this time; returns its origin. The connection
/// counts for its peer as soon as a balancer has named the peer, so that connections that then send nothing count for
/// regardless of who opened them.
///
/// # Errors
/// If it does not get that far.
pub async fn arrive(
    stream: &mut TcpStream,
    (address, proxied): (SocketAddr, bool),
    place: &mut ConnectionPermit,
    within: Duration,
) -> Result<SocketAddr, ArrivalFailure> {
    let until = Instant::now() + within;
    let failed = |address| move |why| ArrivalFailure { address, why };
    let peer = if proxied { in_time(until, origin(stream, address)).await.map_err(failed(address))? } else { address };
    if !place.assign(peer.ip()) {
        return Err(ArrivalFailure { address: peer, why: ArrivalError::TooMany });
    }
    in_time(until, first_byte(stream)).await.map_err(failed(peer))?;
    complete_hello(stream).await.map_err(|error| failed(peer)(error.into()))?;
    Ok(peer)
}

async fn in_time<T>(until: Instant, waits: impl Future<Output = Result<T, ArrivalError>>) -> Result<T, ArrivalError> {
    tokio::time::timeout_at(until, waits).await.unwrap_or(Err(ArrivalError::Timeout))
}

/// Returns the origin of a balancer's connection.
async fn origin(stream: &mut TcpStream, balancer: SocketAddr) -> Result<SocketAddr, ArrivalError> {
    match proxy::read(stream).await {
        Ok(ProxyHeader::From(peer)) => Ok(peer),
        Ok(ProxyHeader::Local) => Ok(balancer),
        Err(ProxyError::NoAddress) => Err(ArrivalError::Probe),
        Err(error) => Err(error.into()),
    }
}

async fn first_byte(stream: &TcpStream) -> Result<(), ArrivalError> {
    match stream.peek(&mut [0]).await {
        Ok(1..) => Ok(()),
        Ok(0) | Err(_) => Err(ArrivalError::Probe),
    }
}
