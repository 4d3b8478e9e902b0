//! Names of headers that every call reads or writes, parsed once: looking a header up by text parses its name each time.

use http::HeaderName;

/// The status of a call, in its trailers.
pub static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// How its messages may be compressed.
pub static GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// The caller's deadline.
pub static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The caller's trace (W3C Trace Context).
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
