//! The first message of a TLS handshake: the gateway waits for it before it holds or computes anything for it.
//!
//! Until a ClientHello is complete, its bytes stay in the kernel: they are peeked at, not read. A ClientHello that is
//! larger than [`MAX_HELLO`], or is not complete within [`HELLO_TIMEOUT`] of its first byte, is refused; an incomplete
//! one holds nothing in this process beyond its connection. The TLS library judges anything that is not a ClientHello,
//! since it knows the right alert.

use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Largest ClientHello, in bytes: its message, without record headers. Those of present clients with X25519MLKEM768
/// have about 1,700.
pub const MAX_HELLO: usize = 16 << 10;
/// Largest ClientHello on the wire: records of very few bytes each would make it many times as large.
const MAX_SENT: usize = MAX_HELLO + (2 << 10);
/// How long a ClientHello may take from its first byte: two retransmissions.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(3);

/// The first peek, and the interval until the next if it is not complete: doubled each time, up to the longest. It is
/// not possible to wait for more bytes on a socket with unread bytes.
const FIRST_LOOK: usize = 4 << 10;
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// Header of a record: type, version, length (RFC 8446, section 5.1).
const RECORD_HEAD: usize = 5;
/// Header of a handshake message: type, length (RFC 8446, section 4).
const MESSAGE_HEAD: usize = 4;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// The reason that a connection sent no complete ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// It is too large.
    #[error("the ClientHello is larger than {MAX_HELLO} bytes")]
    TooLarge,
    /// It was not complete in time.
    #[error("the ClientHello was not whole in time")]
    Timeout,
    /// The connection was closed before its end.
    #[error("the connection was closed within its ClientHello")]
    Closed,
}

/// How much of it has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Part,
    /// Or something that is not a ClientHello.
    Whole,
}

/// Examines the first bytes of a connection.
fn progress(sent: &[u8]) -> Result<Progress, HelloError> {
    let (mut rest, mut message) = (sent, 0);
    let (mut head, mut length) = ([0u8; MESSAGE_HEAD], None);
    loop {
        if rest.first().is_some_and(|kind| *kind != HANDSHAKE) {
            return Ok(Progress::Whole);
        }
        let Some((record, after)) = rest.split_at_checked(RECORD_HEAD) else { break };
        let size = usize::from(u16::from_be_bytes([record[3], record[4]]));
        let part = &after[..size.min(after.len())];
        for (into, byte) in head.iter_mut().skip(message).zip(part) {
            *into = *byte;
        }
        message += part.len();
        if message > 0 && head[0] != CLIENT_HELLO {
            return Ok(Progress::Whole);
        }
        if message >= MESSAGE_HEAD && length.is_none() {
            let said = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
            if said > MAX_HELLO {
                return Err(HelloError::TooLarge);
            }
            length = Some(MESSAGE_HEAD + said);
        }
        if length.is_some_and(|length| message >= length) {
            return Ok(Progress::Whole);
        }
        match after.split_at_checked(size) {
            Some((_, next)) => rest = next,
            None => break,
        }
    }
    if sent.len() >= MAX_SENT { Err(HelloError::TooLarge) } else { Ok(Progress::Part) }
}

/// Waits until a connection's ClientHello is complete; its first byte has arrived already.
///
/// # Errors
/// It is too large, not complete within [`HELLO_TIMEOUT`], or can never be complete.
pub async fn complete_hello(stream: &TcpStream) -> Result<(), HelloError> {
    tokio::time::timeout(HELLO_TIMEOUT, look(stream)).await.unwrap_or(Err(HelloError::Timeout))
}

async fn look(stream: &TcpStream) -> Result<(), HelloError> {
    let (mut bytes, mut pause, mut before) = (vec![0; FIRST_LOOK], PAUSE.0, 0);
    loop {
        let seen = stream.peek(&mut bytes).await.map_err(|_| HelloError::Closed)?;
        if seen == 0 {
            return Err(HelloError::Closed);
        }
        if progress(&bytes[..seen])? == Progress::Whole {
            return Ok(());
        }
        if seen == bytes.len() {
            bytes.resize(MAX_SENT, 0);
            continue;
        }
        // While bytes are left unread, only the socket's readiness shows that no more will come.
        if seen == before && stream.ready(Interest::READABLE).await.is_ok_and(|ready| ready.is_read_closed()) {
            return Err(HelloError::Closed);
        }
        before = seen;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message in records of this many bytes each.
    fn sent(kind: u8, length: usize, record: usize) -> Vec<u8> {
        let mut message = vec![kind];
        message.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()[1..]);
        message.resize(MESSAGE_HEAD + length, 7);
        message
            .chunks(record)
            .flat_map(|part| {
                [&[HANDSHAKE, 3, 1][..], &u16::try_from(part.len()).unwrap_or(0).to_be_bytes(), part].concat()
            })
            .collect()
    }

    #[test]
    fn d6_a_hello_is_waited_for_until_it_is_whole_and_no_longer() {
        for (length, record) in [(0, 100), (517, 16_384), (1_700, 512), (MAX_HELLO, 16_384), (300, 1)] {
            let whole = sent(CLIENT_HELLO, length, record);
            assert_eq!(progress(&whole), Ok(Progress::Whole), "{length} by {record}");
            for cut in [1, 3, 6, whole.len() / 2, whole.len() - 1] {
                assert_eq!(progress(&whole[..cut]), Ok(Progress::Part), "{length} by {record}, cut at {cut}");
            }
        }
    }

    #[test]
    fn d6_a_hello_that_is_too_large_is_known_by_its_head() {
        let large = sent(CLIENT_HELLO, MAX_HELLO + 1, 16_384);
        assert_eq!(progress(&large[..9]), Err(HelloError::TooLarge));
        assert_eq!(progress(&large[..8]), Ok(Progress::Part));
        // Or by its size on the wire, in records of a byte each.
        let small = sent(CLIENT_HELLO, 4_000, 1);
        assert_eq!(progress(&small[..MAX_SENT - 1]), Ok(Progress::Part));
        assert_eq!(progress(&small[..MAX_SENT]), Err(HelloError::TooLarge));
    }

    #[test]
    fn d6_what_is_no_hello_is_left_to_tls() {
        for other in [&b"GET / HTTP/1.1\r\n"[..], &[21, 3, 1, 0, 2, 2, 40], &sent(2, 50, 100), b"\x80"] {
            assert_eq!(progress(other), Ok(Progress::Whole), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn d6_no_bytes_are_waited_on_for_ever(bytes in prop::collection::vec(prop::sample::select(vec![0u8, 1, 3, 22, 255]), 0..2_000)) {
            let mut bytes = bytes;
            let before = progress(&bytes);
            bytes.resize(MAX_SENT, 0);
            prop_assert_ne!(progress(&bytes), Ok(Progress::Part));
            // A judgement stays the same.
            if before != Ok(Progress::Part) {
                prop_assert_eq!(progress(&bytes), before);
            }
        }
    }
}
