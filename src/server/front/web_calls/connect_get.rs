//! Connect's GET (https://connectrpc.com/docs/protocol/#unary-get-request): the message is in the query, so it is served only where neither
//! request nor response is about a person. Addresses are kept by proxies and by browsers.

use super::connect::check;
use crate::server::exchange::form::{CallForm, CallProtocol, Codec};
use crate::server::exchange::protocol::InvalidCall;
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::HeaderMap;

/// URL-safe, with or without padding, as the protocol wants it read.
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Returns the form and the message of a call by its query and headers. The length of a query is bounded with the head's, 32 kB.
pub(super) fn call(query: &str, headers: &HeaderMap) -> (CallForm, Bytes) {
    let checked = check(CallProtocol::Connect, headers);
    let read = checked.and_then(|timeout| Ok((timeout, message(query)?)));
    let (codec, body, timeout, fault) = match read {
        Ok((timeout, (codec, body))) => (codec, body, timeout, None),
        Err(fault) => (Codec::Json, Bytes::new(), None, Some(fault)),
    };
    (CallForm { timeout, protocol: CallProtocol::Connect, codec, fault }, body)
}

/// The codec and the message of a query: `message`, `encoding`, `base64`, `compression` and `connect`, each once at most. Other names mean
/// nothing.
fn message(query: &str) -> Result<(Codec, Bytes), InvalidCall> {
    let one = |wanted: &str| {
        let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == wanted);
        let first = values.next().map(|(_, value)| value.into_owned());
        if values.next().is_some() { Err(InvalidCall::ConnectQuery) } else { Ok(first) }
    };
    let codec = match one("encoding")?.as_deref() {
        Some("json") => Codec::Json,
        Some("proto") => Codec::Proto,
        Some(_) => return Err(InvalidCall::WebMediaType),
        None => return Err(InvalidCall::ConnectQuery),
    };
    if !matches!(one("compression")?.as_deref(), None | Some("" | "identity")) {
        return Err(InvalidCall::WebEncoding);
    }
    if !matches!(one("connect")?.as_deref(), None | Some("v1")) {
        return Err(InvalidCall::ConnectVersion);
    }
    let text = one("message")?.ok_or(InvalidCall::ConnectQuery)?;
    let bytes = match one("base64")?.as_deref() {
        Some("1") => BASE64_URL.decode(text).map_err(|_| InvalidCall::ConnectQuery)?,
        // Other values mean nothing, by the protocol.
        _ => text.into_bytes(),
    };
    Ok((codec, bytes.into()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_text_or_base64_and_each_name_is_there_once() {
        let json = |text: &str| Ok((Codec::Json, Bytes::copy_from_slice(text.as_bytes())));
        for (query, read) in [
            ("message=%7B%22a%22%3A1%7D&encoding=json&connect=v1", json(r#"{"a":1}"#)),
            ("message=e30&encoding=json&base64=1&compression=identity&other=1", json("{}")),
            ("message=e30=&encoding=json&base64=1", json("{}")),
            ("message=-_8&encoding=proto&base64=1", Ok((Codec::Proto, Bytes::from_static(b"\xfb\xff")))),
            ("message=&encoding=proto", Ok((Codec::Proto, Bytes::new()))),
            ("encoding=json", Err(InvalidCall::ConnectQuery)),
            ("message=%7B%7D", Err(InvalidCall::ConnectQuery)),
            ("message=%7B%7D&encoding=xml", Err(InvalidCall::WebMediaType)),
            ("message=%7B%7D&message=%7B%7D&encoding=json", Err(InvalidCall::ConnectQuery)),
            ("message=%%%&encoding=json&base64=1", Err(InvalidCall::ConnectQuery)),
            ("message=+/8&encoding=proto&base64=1", Err(InvalidCall::ConnectQuery)),
            ("message=%7B%7D&encoding=json&base64=yes", json("{}")),
            ("message=%7B%7D&encoding=json&compression=gzip", Err(InvalidCall::WebEncoding)),
            ("message=%7B%7D&encoding=json&connect=v2", Err(InvalidCall::ConnectVersion)),
        ] {
            assert_eq!(message(query), read, "{query}");
        }
    }
}
