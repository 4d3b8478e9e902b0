//! The listening sockets: handed over by systemd (socket activation, sd_listen_fds(3)), or bound here.
//!
//! With sockets from systemd a restart refuses no connection: they stay open in systemd, and clients that connect
//! meanwhile wait in the kernel's queue. Without systemd, the next gateway binds the same ports beside the one that
//! ends (SO_REUSEPORT).

use crate::config::Listen;
use crate::server::StartError;
use listenfd::ListenFd;
use socket2::SockRef;
use std::net::{SocketAddr, TcpListener};

/// Waiting connections that the kernel keeps for each socket.
const BACKLOG: i32 = 1024;

/// The sockets of a gateway.
pub struct Sockets {
    /// One for each worker.
    pub(in crate::server) grpc: Vec<TcpListener>,
    pub(in crate::server) https: Option<TcpListener>,
    pub(in crate::server) operator_http: Option<TcpListener>,
    /// The address of gRPC.
    pub(in crate::server) address: SocketAddr,
}

impl Sockets {
    /// Binds every port that the configuration names; port 0 takes a free one.
    ///
    /// # Errors
    /// [`StartError::Bind`] for the first port that cannot be bound.
    pub fn bind(listen: &Listen) -> Result<Self, StartError> {
        Self::with(listen, Vec::new(), false)
    }

    /// Takes the sockets from systemd, identified by their addresses, and binds the rest: `beside` another gateway, or
    /// only if no process listens there yet. `None` if systemd passes no socket, and there is no other gateway.
    ///
    /// # Errors
    /// [`StartError::HandedOver`] for a socket that cannot be used; [`StartError::Bind`] for a port that cannot be
    /// bound.
    pub fn handed_over(listen: &Listen, beside: bool) -> Result<Option<Self>, StartError> {
        let mut handed = ListenFd::from_env();
        let mut found = Vec::new();
        for place in 0..handed.len() {
            let socket = handed.take_tcp_listener(place).map_err(|error| StartError::HandedOver(error.to_string()))?;
            found.extend(socket);
        }
        if found.is_empty() && !beside {
            return Ok(None);
        }
        Self::with(listen, found, beside).map(Some)
    }

    fn with(listen: &Listen, mut handed: Vec<TcpListener>, beside: bool) -> Result<Self, StartError> {
        let mut take = |wanted: SocketAddr| {
            let place = handed.iter().position(|one| one.local_addr().is_ok_and(|address| address == wanted))?;
            Some(handed.swap_remove(place))
        };
        let grpc = match take(listen.grpc) {
            // The workers share it: each accepts what it can serve.
            Some(shared) => shared_by(&shared, listen)?,
            None => one_each(listen, beside)?,
        };
        let mut one =
            |wanted: Option<SocketAddr>| wanted.map(|wanted| take(wanted).map_or_else(|| bound(wanted, beside), Ok));
        let (https, operator_http) = (one(listen.https).transpose()?, one(listen.operator_http).transpose()?);
        if let Some(other) = handed.first().and_then(|one| one.local_addr().ok()) {
            return Err(StartError::HandedOver(format!("{other} is none of the addresses in [listen]")));
        }
        let sockets = grpc.iter().chain(https.iter()).chain(operator_http.iter());
        for socket in sockets {
            let prepare = || {
                socket.set_nonblocking(true)?;
                // Its connections inherit it: the kernel closes a connection whose peer reads nothing (RFC 5482).
                SockRef::from(socket).set_tcp_user_timeout(Some(listen.send_timeout))
            };
            prepare().map_err(|error| StartError::HandedOver(error.to_string()))?;
        }
        let address = grpc.first().and_then(|one| one.local_addr().ok()).unwrap_or(listen.grpc);
        Ok(Sockets { grpc, https, operator_http, address })
    }
}

fn shared_by(socket: &TcpListener, listen: &Listen) -> Result<Vec<TcpListener>, StartError> {
    let clones = (0..listen.workers).map(|_| socket.try_clone());
    clones.collect::<Result<_, _>>().map_err(|error| StartError::HandedOver(error.to_string()))
}

/// Makes a socket for each worker, all on one port.
fn one_each(listen: &Listen, beside: bool) -> Result<Vec<TcpListener>, StartError> {
    let mut address = listen.grpc;
    let mut sockets = Vec::new();
    for _ in 0..listen.workers {
        let socket = bound(address, beside || !sockets.is_empty())?;
        address = socket.local_addr().map_err(|error| StartError::Bind(address, error.to_string()))?;
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Binds a socket with a shareable port, for processes of the same user (SO_REUSEPORT). Unless it is bound `beside`
/// others, no process may use the port yet: sharing it by mistake would take half of another process's calls.
fn bound(address: SocketAddr, beside: bool) -> Result<TcpListener, StartError> {
    let socket = |shares: bool| {
        let domain = if address.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shares)?;
        socket.bind(&address.into())?;
        Ok::<_, std::io::Error>(socket)
    };
    let bind = || {
        if !beside && address.port() != 0 {
            socket(false)?;
        }
        let socket = socket(true)?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    bind().map_err(|error: std::io::Error| StartError::Bind(address, error.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{Config, Document};

    fn listen(grpc: SocketAddr, https: Option<SocketAddr>) -> Listen {
        let folder = tempfile::tempdir().unwrap();
        let dev = crate::sandbox::folder::DevFolder::with_free_ports(&folder.path().join("dev")).unwrap();
        assert!(Document::open(&dev.gateway_config()).is_ok());
        let config = Config::load(&dev.gateway_config()).unwrap();
        Listen { grpc, https, operator_http: None, workers: 3, ..config.listen }
    }

    #[test]
    fn sockets_are_told_apart_by_their_addresses_and_the_rest_is_bound() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (grpc, https) = (bound(any, false).unwrap(), bound(any, false).unwrap());
        let wanted = listen(grpc.local_addr().unwrap(), Some(https.local_addr().unwrap()));
        let sockets = Sockets::with(&wanted, vec![https, grpc], false).unwrap();
        assert_eq!((sockets.grpc.len(), sockets.address), (3, wanted.grpc));
        assert_eq!(sockets.https.unwrap().local_addr().unwrap(), wanted.https.unwrap());
        drop(sockets.grpc);
        let beside = [Sockets::bind(&wanted).unwrap(), Sockets::with(&wanted, Vec::new(), true).unwrap()];
        assert!(matches!(Sockets::bind(&wanted), Err(StartError::Bind(..))), "another one has the port");
        assert!(beside.iter().all(|one| one.grpc.iter().all(|one| one.local_addr().unwrap() == wanted.grpc)));
        let stray = bound(any, false).unwrap();
        let refused = Sockets::with(&wanted, vec![stray], true).err().unwrap().to_string();
        assert!(refused.contains("none of the addresses"), "{refused}");
    }
}
