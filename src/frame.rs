//! gRPC's length-prefixed messages (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md): five bytes, one
//! flag and the length, before each message. Used on both sides, so that bytes can pass through undecoded.

use crate::shares::{Share, ShareError, ShareLimits, ShareMetrics, Shares};
use crate::status::{Reason, Refusal};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

/// Bytes before each message.
pub const HEADER: usize = 5;

/// Longest message that needs no separate memory, in bytes: it comes in one HTTP/2 frame. 16,384 slow calls of a worker
/// with less than this hold 256 MB.
const SMALL: usize = 16 << 10;
/// Retry delay for a large message without memory.
const RETRY: Duration = Duration::from_secs(1);

/// Memory for large messages while they arrive, shared by many callers: a slow caller holds no more than its share. One
/// caller has at most a quarter of it, unless half of it is free.
#[derive(Debug, Clone)]
pub struct MessageMemory(Arc<Shares<String>>);

/// One caller's share of a [`MessageMemory`].
#[derive(Debug)]
pub struct CallerMemory {
    room: MessageMemory,
    caller: String,
}

impl MessageMemory {
    /// Makes a memory of this many bytes, counted in these metrics.
    pub fn of(bytes: usize, metrics: ShareMetrics) -> Self {
        let limits = ShareLimits { total: bytes, per_owner: bytes / 4, has_headroom: bytes / 2, rate: None };
        MessageMemory(Shares::new(limits, metrics))
    }

    /// Returns the share of one caller.
    pub fn caller(&self, caller: &str) -> CallerMemory {
        CallerMemory { room: self.clone(), caller: caller.to_owned() }
    }
}

impl CallerMemory {
    fn take(&self, bytes: usize) -> Result<Share<String>, FrameError> {
        self.room.0.take(&self.caller, bytes).map_err(|error| match error {
            ShareError::OwnerFull(bytes) => FrameError::TooMany(bytes),
            ShareError::TooFast(_) | ShareError::Full(_) => FrameError::MemoryExceeded,
        })
    }
}

/// The reason that no message could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The peer ended the stream in the middle of a message, or the bytes are no messages.
    #[error("the stream of messages is broken")]
    Broken,
    /// There is no message where there must be one, or a second one.
    #[error("the operation takes exactly one message")]
    Cardinality,
    /// The compressed flag is set.
    #[error("the message is compressed")]
    Compressed,
    /// The message is over the limit.
    #[error("the message is larger than {0} bytes")]
    TooLarge(usize),
    /// The connection failed.
    #[error("the connection failed")]
    Connection,
    /// Too many large messages are arriving at once.
    #[error("too many large messages are on their way")]
    MemoryExceeded,
    /// Too many of this caller's are; it may have this many bytes of them.
    #[error("large messages of one caller may have {0} bytes together while they are on their way")]
    TooMany(usize),
}

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Broken => Refusal::with(Reason::RequestMalformed, error.to_string()),
            FrameError::Cardinality => Refusal::with(Reason::ProtocolUnsupported, error.to_string()),
            FrameError::Compressed => Reason::EncodingUnsupported.into(),
            FrameError::TooLarge(_) => Refusal::with(Reason::MessageTooLarge, error.to_string()),
            FrameError::Connection => Reason::Cancelled.into(),
            FrameError::MemoryExceeded => {
                Refusal { retry_after: Some(RETRY), ..Refusal::with(Reason::GatewayOverloaded, error.to_string()) }
            }
            FrameError::TooMany(_) => {
                Refusal { retry_after: Some(RETRY), ..Refusal::with(Reason::RateLimited, error.to_string()) }
            }
        }
    }
}

/// Why a body ended before its end.
pub trait BodyFault {
    /// Whether its bytes were wrong; else the connection failed.
    fn is_malformed(&self) -> bool {
        false
    }
}

impl BodyFault for h2::Error {}
impl BodyFault for hyper::Error {}
impl BodyFault for std::convert::Infallible {}
impl BodyFault for () {}

/// Adds the five bytes before a message.
pub fn frame(message: &[u8]) -> Bytes {
    frame_with_flag(0, message)
}

/// Puts the five bytes before a message, the first of which is a flag: gRPC-Web and Connect mark the end of a stream by one.
pub fn frame_with_flag(flag: u8, message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER + message.len());
    out.put_u8(flag);
    // Messages are bounded far below 4 GiB by the reader's limit; a longer one cannot have been read.
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(message);
    out.freeze()
}

/// Takes messages from a body, one at a time, holding at most one message.
#[derive(Debug)]
pub struct FrameReader<B> {
    body: B,
    /// The last chunk that is not read yet: a message that is completely in it is not copied.
    chunk: Bytes,
    /// The beginning of a message that came in several chunks.
    buffer: BytesMut,
    limit: usize,
    trailers: Option<http::HeaderMap>,
    ended: bool,
    /// Messages that are marked as compressed are gzip.
    gzip: bool,
    /// The memory for large messages while they arrive, and the part in use.
    room: Option<CallerMemory>,
    held: Option<Share<String>>,
}

impl<B> FrameReader<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: BodyFault,
{
    /// Reads messages of at most `limit` bytes from `body`.
    pub fn new(body: B, limit: usize) -> Self {
        FrameReader {
            body,
            chunk: Bytes::new(),
            buffer: BytesMut::new(),
            limit,
            trailers: None,
            ended: false,
            gzip: false,
            room: None,
            held: None,
        }
    }

    /// The same, for a peer that may compress its messages with gzip; `limit` applies to both sizes of a message.
    pub fn gzip(self, gzip: bool) -> Self {
        FrameReader { gzip, ..self }
    }

    /// The same, with shared memory for large messages.
    pub fn within(self, room: CallerMemory) -> Self {
        FrameReader { room: Some(room), ..self }
    }

    /// Returns the next message, or `None` at the end of the stream.
    ///
    /// # Errors
    /// The body breaks, is no sequence of frames, or a message exceeds a bound.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if self.ended {
                let empty = self.buffer.is_empty() && self.chunk.is_empty();
                return if empty { Ok(None) } else { Err(FrameError::Broken) };
            }
            self.fill().await?;
        }
    }

    /// Returns the one message of a unary call; it must be the last.
    ///
    /// # Errors
    /// As for [`Self::next`]; or there is none, or a second one.
    pub async fn only(&mut self) -> Result<Bytes, FrameError> {
        let message = self.next().await?.ok_or(FrameError::Cardinality)?;
        match self.next().await? {
            None => Ok(message),
            Some(_) => Err(FrameError::Cardinality),
        }
    }

    /// Returns the whole body as one message: where nothing frames messages, the body is one. Memory for a large one is taken before it
    /// comes, by its announced length or, where it has none, by the limit.
    ///
    /// # Errors
    /// The body breaks, or exceeds a bound.
    pub async fn complete_body(&mut self) -> Result<Bytes, FrameError> {
        while !self.ended {
            let length = self.buffer.len() + self.chunk.len();
            let announced = self.body.size_hint().upper().and_then(|rest| usize::try_from(rest).ok());
            let size = announced.map_or(self.limit, |rest| length.saturating_add(rest));
            if length > self.limit || (announced.is_some() && size > self.limit) {
                return Err(FrameError::TooLarge(self.limit));
            }
            let is_large = announced.map_or(length, |_| size) > SMALL;
            if let Some(room) = self.room.as_ref().filter(|_| is_large && self.held.is_none()) {
                self.held = Some(room.take(size.min(self.limit))?);
            }
            self.fill().await?;
        }
        let message =
            if self.buffer.is_empty() { std::mem::take(&mut self.chunk) } else { self.buffer.split().freeze() };
        if message.len() > self.limit { Err(FrameError::TooLarge(self.limit)) } else { Ok(message) }
    }

    /// Returns the trailers, once the stream has ended.
    pub fn trailers(&mut self) -> Option<http::HeaderMap> {
        self.trailers.take()
    }

    fn take(&mut self) -> Result<Option<Bytes>, FrameError> {
        let whole = if self.buffer.is_empty() { &self.chunk[..] } else { &self.buffer[..] };
        let Some(head) = whole.first_chunk::<HEADER>() else { return Ok(None) };
        let compressed = match head[0] {
            0 => false,
            1 if self.gzip => true,
            _ => return Err(FrameError::Compressed),
        };
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > self.limit {
            return Err(FrameError::TooLarge(self.limit));
        }
        if whole.len() < HEADER + length {
            if let Some(room) = self.room.as_ref().filter(|_| length > SMALL && self.held.is_none()) {
                self.held = Some(room.take(length)?);
            }
            return Ok(None);
        }
        self.held = None;
        let message = if self.buffer.is_empty() {
            self.chunk.advance(HEADER);
            self.chunk.split_to(length)
        } else {
            self.buffer.advance(HEADER);
            self.buffer.split_to(length).freeze()
        };
        if compressed { unzip(&message, self.limit).map(Some) } else { Ok(Some(message)) }
    }

    async fn fill(&mut self) -> Result<(), FrameError> {
        match self.body.frame().await {
            None => self.ended = true,
            Some(Err(error)) if error.is_malformed() => return Err(FrameError::Broken),
            Some(Err(_)) => return Err(FrameError::Connection),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if self.buffer.is_empty() && self.chunk.is_empty() => self.chunk = data,
                Ok(data) => {
                    self.buffer.extend_from_slice(&std::mem::take(&mut self.chunk));
                    self.buffer.extend_from_slice(&data);
                }
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            },
        }
        Ok(())
    }
}

/// Decompresses a message, to at most `limit` bytes.
fn unzip(compressed: &[u8], limit: usize) -> Result<Bytes, FrameError> {
    let mut message = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let read = flate2::read::MultiGzDecoder::new(compressed).take(most).read_to_end(&mut message);
    match read {
        Ok(length) if length > limit => Err(FrameError::TooLarge(limit)),
        Ok(_) => Ok(message.into()),
        Err(_) => Err(FrameError::Broken),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    #[tokio::test]
    async fn messages_are_the_same_however_they_are_cut() {
        let messages: Vec<Bytes> = (0..6u8).map(|length| Bytes::from(vec![length; length.into()])).collect();
        let bytes: Vec<u8> = messages.iter().flat_map(|message| frame(message)).collect();
        for size in 1..=bytes.len() {
            let chunks = bytes.chunks(size).map(|chunk| Ok::<_, ()>(Frame::data(Bytes::copy_from_slice(chunk))));
            let mut reader = FrameReader::new(StreamBody::new(futures_util::stream::iter(chunks)), 8);
            for message in &messages {
                assert_eq!(reader.next().await.unwrap().as_ref(), Some(message), "in chunks of {size}");
            }
            assert_eq!(reader.next().await, Ok(None));
        }
    }

    #[tokio::test]
    async fn d3_large_messages_that_dawdle_share_their_room_and_small_ones_need_none() {
        let metrics = ShareMetrics::default();
        let room = MessageMemory::of(800 << 10, metrics.clone());
        let begun = |caller: &str, length: u32, sent: usize| {
            let mut bytes = vec![0];
            bytes.extend(length.to_be_bytes());
            bytes.resize(HEADER + sent, 7);
            let parts = futures_util::stream::iter([Ok::<_, ()>(Frame::data(Bytes::from(bytes)))]);
            let parts = futures_util::StreamExt::chain(parts, futures_util::stream::pending());
            FrameReader::new(StreamBody::new(parts), 1 << 20).within(room.caller(caller))
        };
        let soon = Duration::from_millis(5);
        let mut held = Vec::new();
        // One caller alone has half of it, three others share the rest; then it is full.
        for (caller, kilobytes, fits) in [
            ("shop", 200, Ok(())),
            ("shop", 200, Ok(())),
            ("shop", 100, Err(FrameError::TooMany(200 << 10))),
            ("other", 100, Ok(())),
            ("other", 100, Ok(())),
            ("other", 100, Err(FrameError::TooMany(200 << 10))),
            ("third", 150, Ok(())),
            ("fourth", 100, Err(FrameError::MemoryExceeded)),
        ] {
            let mut reader = begun(caller, kilobytes << 10, 10);
            let read = tokio::time::timeout(soon, reader.next()).await;
            assert_eq!(read.map_or(Ok(()), |read| read.map(|_| ())), fits, "{caller}");
            held.push(reader);
        }
        assert_eq!((metrics.held.get(), metrics.refused.get()), (750 << 10, 3));
        assert!(tokio::time::timeout(soon, begun("shop", 16 << 10, 10).next()).await.is_err(), "a small one waits");
        assert!(begun("shop", 100 << 10, 100 << 10).next().await.is_ok(), "a whole one needs none");
        drop(held);
        assert_eq!(metrics.held.get(), 0);
        assert!(tokio::time::timeout(soon, begun("fourth", 100 << 10, 10).next()).await.is_err(), "room came back");
    }

    async fn read(bytes: &[u8]) -> Result<Bytes, FrameError> {
        FrameReader::new(Full::new(Bytes::copy_from_slice(bytes)), 8).only().await
    }

    #[tokio::test]
    async fn b5_a_compressed_message_is_read_and_one_that_swells_is_not() {
        let zipped = |message: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            std::io::Write::write_all(&mut encoder, message).unwrap();
            let mut framed = frame(&encoder.finish().unwrap()).to_vec();
            framed[0] = 1;
            Full::new(Bytes::from(framed))
        };
        let read = |message: &[u8]| FrameReader::new(zipped(message), 1_000).gzip(true);
        assert_eq!(read(b"abc").only().await.unwrap(), "abc");
        assert_eq!(read(&[7; 1_000]).only().await.unwrap().len(), 1_000);
        assert_eq!(read(&[7; 1_001]).only().await, Err(FrameError::TooLarge(1_000)));
        assert_eq!(read(&[7; 400_000]).only().await, Err(FrameError::TooLarge(1_000)));
        assert_eq!(FrameReader::new(zipped(b"abc"), 1_000).only().await, Err(FrameError::Compressed));
        let garbled = Full::new(Bytes::from_static(&[1, 0, 0, 0, 3, 1, 2, 3]));
        assert_eq!(FrameReader::new(garbled, 1_000).gzip(true).only().await, Err(FrameError::Broken));
    }

    #[tokio::test]
    async fn one_message_is_read_and_nothing_else_is_taken_for_one() {
        assert_eq!(read(&frame(b"abc")).await.unwrap(), "abc");
        assert_eq!(read(&frame(b"")).await.unwrap(), "");
        assert_eq!(read(&[]).await, Err(FrameError::Cardinality));
        assert_eq!(read(&[0, 0, 0, 0, 2, 1]).await, Err(FrameError::Broken));
        assert_eq!(read(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await, Err(FrameError::Cardinality));
        assert_eq!(read(&[1, 0, 0, 0, 1, 7]).await, Err(FrameError::Compressed));
        assert_eq!(read(&[0, 0, 0, 0, 9]).await, Err(FrameError::TooLarge(8)));
        assert_eq!(read(&[0, 255, 255, 255, 255]).await, Err(FrameError::TooLarge(8)));
    }
}
