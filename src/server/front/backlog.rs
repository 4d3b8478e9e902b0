//! What a connection's reads show: whether its caller sends anything, and for how long there has been more to read than
//! was read. Only the reads show calls that wait in the socket: the connections take turns, so a caller that sends more
//! than its share waits behind itself, not behind others.

use crate::identity::stream::TlsTransport;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The backlog of one connection.
#[derive(Clone)]
pub(in crate::server) struct Backlog {
    start: Instant,
    reads: Arc<ReadTimes>,
}

#[derive(Default)]
struct ReadTimes {
    /// Since when it has not been read empty, in microseconds after the start; 0: it is empty.
    since: AtomicU64,
    /// Whether anything was read.
    any: AtomicBool,
}

impl Backlog {
    /// Watches a connection's reads.
    pub(in crate::server) fn of(stream: TcpStream) -> (Self, WatchedStream) {
        let backlog = Backlog { start: Instant::now(), reads: Arc::default() };
        (backlog.clone(), WatchedStream { stream, backlog })
    }

    fn at(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// Returns its age.
    pub(in crate::server) fn age(&self, now: Instant) -> Duration {
        match self.reads.since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_micros(self.at(now).saturating_sub(since)),
        }
    }

    /// Returns whether anything was read since the last call of this function.
    pub(in crate::server) fn heard(&self) -> bool {
        self.reads.any.swap(false, Ordering::Relaxed)
    }
}

/// A connection that reports when it is read empty.
pub(in crate::server) struct WatchedStream {
    stream: TcpStream,
    backlog: Backlog,
}

impl TlsTransport for WatchedStream {
    fn socket(&self) -> &TcpStream {
        &self.stream
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        if read.is_pending() {
            // Not if the task has only used up its turn (tokio's cooperative scheduling).
            if !tokio::task::coop::has_budget_remaining() {
                return read;
            }
            self.backlog.reads.since.store(0, Ordering::Relaxed);
            return read;
        }
        self.backlog.reads.any.store(true, Ordering::Relaxed);
        if self.backlog.reads.since.load(Ordering::Relaxed) == 0 {
            self.backlog.reads.since.store(self.backlog.at(Instant::now()), Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn it_stands_until_it_is_read_empty() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (backlog, mut watched) = Backlog::of(listener.accept().await.unwrap().0);
        caller.write_all(&[7; 100]).await.unwrap();
        let mut half = [0; 50];
        assert!(!backlog.heard());
        watched.read_exact(&mut half).await.unwrap();
        assert!(backlog.heard() && !backlog.heard());
        let later = Instant::now() + Duration::from_secs(1);
        assert!(backlog.age(later) >= Duration::from_secs(1));
        let empty = tokio::time::timeout(Duration::from_millis(20), watched.read_exact(&mut [0; 51])).await;
        assert!(empty.is_err());
        assert_eq!(backlog.age(later), Duration::ZERO);
    }
}
