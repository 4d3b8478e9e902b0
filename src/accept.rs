//! Accepts connections, whatever the result of one attempt.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// The pause after a failed accept: usually the limit of open files is reached, which passes.
const PAUSE: Duration = Duration::from_millis(50);

/// Returns the next connection. Nothing is lost if the future is dropped before it is ready.
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
