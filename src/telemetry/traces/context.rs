//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): the caller's trace context, and the one sent to a source.
//!
//! `tracestate` is not forwarded: it is free text from earlier hops.

use crate::headers::TRACEPARENT;
use crate::hex::hex;
use http::HeaderMap;

/// Maximum length of a `traceparent`: later versions may be longer than the 55 characters of version 0.
const MAX_LENGTH: usize = 128;

/// The caller's span, from its `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerTrace {
    /// The trace id.
    pub trace: [u8; 16],
    /// The caller's span id.
    pub span: [u8; 8],
    /// Whether the caller samples it.
    pub sampled: bool,
}

/// Reads a non-zero id of `N` bytes in lower-case hexadecimal.
fn id<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (at, pair) in text.as_bytes().chunks_exact(2).enumerate() {
        bytes[at] = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

impl CallerTrace {
    /// Reads it from a call's headers. Anything but one valid header is ignored (sections 3.2.2.3 to 3.2.2.5, 4.3).
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(&TRACEPARENT).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        Self::parse(value.to_str().ok().filter(|text| text.len() <= MAX_LENGTH)?)
    }

    /// Formats a `traceparent` of version 0.
    pub fn to_text(self) -> String {
        traceparent(&self.trace, &self.span, self.sampled)
    }

    fn parse(text: &str) -> Option<Self> {
        let (version, rest) = text.split_once('-')?;
        let [version] = id::<1>(version)?;
        let mut parts = rest.splitn(4, '-');
        let (trace, span, flags) = (id::<16>(parts.next()?)?, id::<8>(parts.next()?)?, id::<1>(parts.next()?)?[0]);
        // Version 0 ends here; further fields of later versions are ignored; version 255 is invalid.
        let ends = parts.next().is_none();
        let valid = version != u8::MAX && (version > 0 || ends) && trace != [0; 16] && span != [0; 8];
        valid.then_some(CallerTrace { trace, span, sampled: flags & 1 == 1 })
    }
}

/// The trace of one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExchangeTrace {
    /// The trace id: the caller's, or a new one.
    pub trace: [u8; 16],
    /// The caller's span id.
    pub parent: Option<[u8; 8]>,
    /// The exchange's span id.
    pub span: [u8; 8],
    /// The id of the span for the source's stage: the parent of the source's own spans.
    pub source: [u8; 8],
    /// Whether it is sampled.
    pub sampled: bool,
}

fn traceparent(trace: &[u8; 16], span: &[u8; 8], sampled: bool) -> String {
    format!("00-{}-{}-{:02x}", hex(trace), hex(span), u8::from(sampled))
}

/// A non-zero random id. It is not secret.
fn fresh<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fastrand::fill(&mut bytes);
    bytes[N - 1] |= u8::from(bytes == [0; N]);
    bytes
}

impl ExchangeTrace {
    /// Continues the caller's trace, with the caller's sampling decision; or starts a trace, for which `sample` decides by its id.
    pub fn begin(caller: Option<CallerTrace>, sample: impl FnOnce(&[u8; 16]) -> bool) -> Self {
        let (span, source) = (fresh(), fresh());
        match caller {
            Some(CallerTrace { trace, span: parent, sampled }) => {
                ExchangeTrace { trace, parent: Some(parent), span, source, sampled }
            }
            None => {
                let trace = fresh();
                ExchangeTrace { trace, parent: None, span, source, sampled: sample(&trace) }
            }
        }
    }

    /// Returns the `traceparent` for the source.
    pub fn to_source(self) -> String {
        traceparent(&self.trace, &self.source, self.sampled)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (TRACEPARENT.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_caller_s_trace_is_one_valid_header_or_ignored() {
        let read = |text: &str| CallerTrace::read(&headers(&[text]));
        let trace = read(&format!("00-{TRACE}-{SPAN}-01")).unwrap();
        assert_eq!((hex(&trace.trace), hex(&trace.span), trace.sampled), (TRACE.into(), SPAN.into(), true));
        assert!(!read(&format!("00-{TRACE}-{SPAN}-00")).unwrap().sampled);
        // Flags and further fields of later versions are ignored.
        assert!(read(&format!("cc-{TRACE}-{SPAN}-03-what-the-future-will-be")).unwrap().sampled);
        for invalid in [
            format!("00-{TRACE}-{SPAN}-01-beyond"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}x-{SPAN}-01"),
            format!("cc-{TRACE}-{SPAN}-01-{}", "x".repeat(100)),
            String::new(),
            "001099000001".into(),
        ] {
            assert_eq!(read(&invalid), None, "{invalid:?}");
        }
        let two = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(CallerTrace::read(&headers(&[&two, &two])), None);
        assert_eq!(CallerTrace::read(&HeaderMap::new()), None);
    }

    #[test]
    fn an_exchange_continues_its_caller_s_trace_with_its_own_spans() {
        let caller = CallerTrace { trace: [7; 16], span: [8; 8], sampled: false };
        let trace = ExchangeTrace::begin(Some(caller), |_| true);
        assert_eq!((trace.trace, trace.parent, trace.sampled), ([7; 16], Some([8; 8]), false), "the caller decides");
        assert!(trace.span != trace.source && trace.span != [8; 8]);
        let sent = CallerTrace::parse(&trace.to_source()).unwrap();
        assert_eq!(sent, CallerTrace { trace: [7; 16], span: trace.source, sampled: false });
        let own = ExchangeTrace::begin(None, |_| true);
        assert!(own.sampled && own.parent.is_none() && own.trace != trace.trace);
        assert!(!ExchangeTrace::begin(None, |_| false).sampled);
    }
}
