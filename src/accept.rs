//! Accepting connections, whatever becomes of one attempt.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// The pause after an accept that failed: mostly because there are as many open files as there may be, which ends by itself.
const PAUSE: Duration = Duration::from_millis(50);

/// The next connection. Nothing is lost where this is dropped before it is ready.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
