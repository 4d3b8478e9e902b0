//! gRPC-Web (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md): gRPC's frames, with the trailers as the last of them.

use super::{frames, metadata, with_head};
use crate::frame::frame_with_flag;
use crate::server::exchange::response::ResponseBody;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};
use std::convert::Infallible;

/// The flag of the frame that has the trailers.
const TRAILERS: u8 = 0x80;
const MEDIA_TYPE: &str = "application/grpc-web+proto";

/// A response as its frames.
pub(super) fn response(response: http::Response<ResponseBody>) -> Response {
    let (head, body) = response.into_parts();
    let sent = metadata(&head.headers);
    let body = match body {
        ResponseBody::Empty => Body::from(trailer_frame(&head.headers)),
        body => {
            let frames = frames(body).map(|frame| match frame.into_data() {
                Ok(message) => message,
                Err(frame) => trailer_frame(frame.trailers_ref().unwrap_or(&HeaderMap::new())),
            });
            Body::from_stream(frames.map(Ok::<_, Infallible>))
        }
    };
    with_head(StatusCode::OK, MEDIA_TYPE, sent, body)
}

/// Trailers as HTTP/1.1 writes headers, names in lower case.
fn trailer_frame(trailers: &HeaderMap) -> Bytes {
    let mut text = Vec::new();
    for (name, value) in trailers.iter().filter(|(name, _)| *name != http::header::CONTENT_TYPE) {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    frame_with_flag(TRAILERS, &text)
}
