//! The server's side of a TLS connection. However it ends, the peer gets `close_notify` (RFC 8446, section 6.1), which
//! distinguishes the end of the data from a truncation by somebody in between.

use rustls::ServerConnection;
use std::io::{self, IoSlice, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Maximum number of bytes that are read and discarded when a connection is closed. A socket that is closed with unread
/// data sends a reset, which may overtake the `close_notify`.
const MAX_DISCARDED: usize = 256 << 10;
/// The bytes for a peer that is rejected before its handshake: `user_canceled`, then `close_notify` (RFC 8446, section
/// 6.1), each in a separate record, in clear as all alerts before the keys are known.
const TURNED_AWAY: [u8; 14] = [21, 3, 3, 0, 2, 1, 90, 21, 3, 3, 0, 2, 1, 0];

/// The connection below TLS.
pub trait TlsTransport: AsyncRead + AsyncWrite + Unpin {
    /// The socket itself.
    fn socket(&self) -> &TcpStream;
}

impl TlsTransport for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

/// A TLS connection that sends `close_notify` when it is dropped, if it has not done so before.
#[derive(Debug)]
pub struct ServerStream<S: TlsTransport>(TlsStream<S>);

impl<S: TlsTransport> ServerStream<S> {
    /// Wraps a connection with a completed handshake.
    pub fn new(stream: TlsStream<S>) -> Self {
        ServerStream(stream)
    }

    /// Returns the negotiated session.
    pub fn session(&self) -> &ServerConnection {
        self.0.get_ref().1
    }
}

impl<S: TlsTransport> Drop for ServerStream<S> {
    /// Sends what the socket accepts at once, without waiting for a peer that reads nothing.
    fn drop(&mut self) {
        let (transport, session) = self.0.get_mut();
        let socket = transport.socket();
        session.send_close_notify();
        let mut out = NonBlockingSocket(socket);
        while session.wants_write() && session.write_tls(&mut out).is_ok_and(|written| written > 0) {}
        let (mut scratch, mut discarded) = ([0; 4_096], 0);
        while discarded < MAX_DISCARDED {
            match socket.try_read(&mut scratch) {
                Ok(read @ 1..) => discarded += read,
                _ => break,
            }
        }
    }
}

/// A socket for writes without waiting.
struct NonBlockingSocket<'s>(&'s TcpStream);

impl Write for NonBlockingSocket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Closes a connection before its handshake, with the corresponding alerts.
pub fn reject_connection(stream: TcpStream) {
    let socket = socket2::SockRef::from(&stream);
    // It may be closed already, which is equivalent.
    let _ = socket.send(&TURNED_AWAY).and_then(|_| socket.shutdown(Shutdown::Write));
}

impl<S: TlsTransport> AsyncRead for ServerStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl<S: TlsTransport> AsyncWrite for ServerStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
