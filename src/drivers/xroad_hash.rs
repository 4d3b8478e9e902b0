//! The request hash of X-Road REST (PR-REST, section 4.3): SHA-512 of the message's head, and with a body
//! SHA-512(SHA-512(head) + SHA-512(body)).
//!
//! The head is the request as the consumer's security server received it, with the request id that this server assigned
//! to it and returns with the response. So the sender of the request can compute the hash, as long as no intermediary
//! changes a header (`RestRequest.toByteArray` of X-Road 7.8).

use super::http::named_codings;
use aws_lc_rs::digest::{Context, SHA512};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method};

/// Header of the id that the consumer's security server gives each request.
pub const REQUEST_ID: &str = "x-road-request-id";
/// Header of the hash.
pub const REQUEST_HASH: &str = "x-road-request-hash";

/// Headers that belong to one hop; X-Road does not pass them on, and the head omits them
/// (`RestMessage.SKIPPED_HEADERS`).
const SKIPPED: [&str; 15] = [
    "transfer-encoding",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "upgrade",
    "connection",
    "user-agent",
    "host",
    "content-length",
    "server",
    "expect",
    REQUEST_ID,
    REQUEST_HASH,
];

/// HTTP's own headers that a request to a source may have. Jetty, the server inside a security server, writes the names
/// that it knows in its own spelling, whatever their case on arrival.
const KNOWN: [&str; 22] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-language",
    "content-location",
    "content-type",
    "cookie",
    "date",
    "forwarded",
    "from",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-unmodified-since",
    "origin",
    "pragma",
    "range",
    "referer",
];

/// How the head spells the names of HTTP's own headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderCase {
    /// As Jetty gives them, X-Road's choice so far: `Accept-Encoding`.
    Jetty,
    /// As they were sent: in lower case.
    Sent,
}

/// A request to a security server.
#[derive(Debug)]
pub struct RestRequest {
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Option<[u8; 64]>,
}

impl RestRequest {
    /// The part that the hash covers. `target` is the path with the query, as sent.
    pub fn new(method: Method, target: String, mut headers: HeaderMap, body: &[u8]) -> Self {
        named_codings(&mut headers);
        RestRequest { method, target, headers, body: (!body.is_empty()).then(|| sha512(&[body])) }
    }

    /// The hash, in base64, of the request with this id at a security server.
    pub fn hash(&self, request_id: &str, names: HeaderCase) -> String {
        let mut head = format!("{}\r\n{}\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            if SKIPPED.contains(&name.as_str()) {
                continue;
            }
            match names {
                HeaderCase::Jetty if KNOWN.contains(&name.as_str()) => {
                    head.extend(in_title_case(name.as_str()).bytes())
                }
                _ => head.extend_from_slice(name.as_str().as_bytes()),
            }
            head.push(b':');
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(format!("{REQUEST_ID}:{request_id}\r\n").as_bytes());
        let head = sha512(&[&head]);
        STANDARD.encode(match &self.body {
            Some(body) => sha512(&[&head, body]),
            None => head,
        })
    }

    /// Returns whether `hash` is this request's, in either spelling of the names.
    pub fn has_hash(&self, request_id: &str, hash: &str) -> bool {
        [HeaderCase::Jetty, HeaderCase::Sent].iter().any(|names| self.hash(request_id, *names) == hash)
    }
}

fn sha512(parts: &[&[u8]]) -> [u8; 64] {
    let mut context = Context::new(&SHA512);
    parts.iter().for_each(|part| context.update(part));
    let mut out = [0; 64];
    out.copy_from_slice(context.finish().as_ref());
    out
}

fn in_title_case(name: &str) -> String {
    let mut first = true;
    let upper = |letter: char| {
        let capital = std::mem::replace(&mut first, letter == '-');
        if capital { letter.to_ascii_uppercase() } else { letter }
    };
    name.chars().map(upper).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn request(body: &[u8], headers: &[(&'static str, &'static str)]) -> RestRequest {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        RestRequest::new(Method::POST, "/r1/VN/GOV/M/S/code/a?b=c".into(), headers, body)
    }

    const HEADERS: [(&str, &str); 3] =
        [("accept", "application/json"), ("x-road-client", "VN/GOV/H49/GW"), ("accept-encoding", "identity")];

    /// Computed by Python's hashlib from the texts in the protocol document.
    #[test]
    fn the_hash_is_that_of_the_protocol_with_and_without_a_body() {
        assert_eq!(request(b"", &HEADERS).hash("R1", HeaderCase::Jetty), WITHOUT_BODY);
        assert_eq!(request(b"{}", &HEADERS).hash("R1", HeaderCase::Jetty), WITH_BODY);
    }

    const WITHOUT_BODY: &str =
        "UMHH8nsdcGDxuGGjrDxABB/+Z1xNUvKx+i96lC1uNXW8nxuagS0zkugpYfQQVWOspoDVCNdt0coBhSC25VCIuA==";
    const WITH_BODY: &str = "CzxpwHFg4heZVE1mjCtS5an/MX996O+mR7jutPdLJa7CK/u18NGHcGiTeMLrDRWNwIdqvLZUhm6le1eFWXVJSQ==";

    #[test]
    fn headers_of_one_hop_and_the_case_of_known_names_change_nothing() {
        let plain = request(b"", &HEADERS);
        let hops = request(b"", &[("host", "h"), ("user-agent", "u"), HEADERS[0], HEADERS[1], HEADERS[2], ("te", "x")]);
        assert_eq!(hops.hash("R1", HeaderCase::Jetty), plain.hash("R1", HeaderCase::Jetty));
        for names in [HeaderCase::Jetty, HeaderCase::Sent] {
            assert!(plain.has_hash("R1", &plain.hash("R1", names)), "{names:?}");
        }
        assert_ne!(plain.hash("R1", HeaderCase::Jetty), plain.hash("R1", HeaderCase::Sent));
    }

    #[test]
    fn whatever_else_differs_is_another_request() {
        let hash = request(b"{}", &HEADERS).hash("R1", HeaderCase::Jetty);
        let other_value = [HEADERS[0], ("x-road-client", "VN/GOV/H49/OTHER"), HEADERS[2]];
        assert!(!request(b"{}", &HEADERS).has_hash("R2", &hash), "another id");
        assert!(!request(b"{ }", &HEADERS).has_hash("R1", &hash), "another body");
        assert!(!request(b"", &HEADERS).has_hash("R1", &hash), "no body");
        assert!(!request(b"{}", &other_value).has_hash("R1", &hash), "another header");
        assert!(!request(b"{}", &HEADERS).has_hash("R1", ""), "no hash");
    }
}
