//! A connection's first moment, before TLS: where it comes from, and whether it is one at all.

use super::proxy::{self, ProxyError, Said};
use crate::registry::Network;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// Why a connection has come to nothing before its first byte of TLS.
#[derive(Debug)]
pub enum Unarrived {
    /// Closed without a byte: somebody looks whether the port is open.
    Probe,
    /// It comes from a balancer, and does not begin with a header that says where it really comes from.
    Header(ProxyError),
}

/// An IPv4 peer of an IPv6 socket as that IPv4 address, in limits, networks and the log.
pub fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether connections from an address begin with a PROXY header.
pub fn is_proxied(proxies: &[Network], address: SocketAddr) -> bool {
    proxies.iter().any(|network| network.has(address.ip()))
}

/// Waits for the first byte of TLS; gives where the connection comes from. Has no time limit of its own.
pub async fn arrive(stream: &mut TcpStream, address: SocketAddr, proxied: bool) -> Result<SocketAddr, Unarrived> {
    let from = match proxied.then_some(proxy::read(stream)) {
        None => address,
        Some(header) => match header.await {
            Ok(Said::From(peer)) => peer,
            Ok(Said::Local) => address,
            Err(ProxyError::Silent) => return Err(Unarrived::Probe),
            Err(error) => return Err(Unarrived::Header(error)),
        },
    };
    match stream.peek(&mut [0]).await {
        Ok(1..) => Ok(from),
        Ok(0) | Err(_) => Err(Unarrived::Probe),
    }
}
