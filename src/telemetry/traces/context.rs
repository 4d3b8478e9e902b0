//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): the trace that a caller names, and the one that goes to a source.
//!
//! A `tracestate` is not handed on: it is free text of whoever was there before.

use crate::headers::TRACEPARENT;
use crate::hex::hex;
use http::HeaderMap;

/// Longest `traceparent` that is looked at: those of later versions may be longer than version 0's 55 characters.
const MAX_LENGTH: usize = 128;

/// The span that a caller is at, as its `traceparent` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerTrace {
    /// Of the whole trace.
    pub trace: [u8; 16],
    /// Of the caller's span.
    pub span: [u8; 8],
    /// Whether the caller records it.
    pub sampled: bool,
}

/// An id of so many bytes in lower-case hexadecimal that is not zero.
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
    /// Reads it from a call's head. Anything but one valid header is none (section 3.2.2.3 to 3.2.2.5, 4.3).
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(&TRACEPARENT).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        Self::parse(value.to_str().ok().filter(|text| text.len() <= MAX_LENGTH)?)
    }

    /// As a `traceparent` of version 0.
    pub fn to_text(self) -> String {
        traceparent(&self.trace, &self.span, self.sampled)
    }

    fn parse(text: &str) -> Option<Self> {
        let (version, rest) = text.split_once('-')?;
        let [version] = id::<1>(version)?;
        let mut parts = rest.splitn(4, '-');
        let (trace, span, flags) = (id::<16>(parts.next()?)?, id::<8>(parts.next()?)?, id::<1>(parts.next()?)?[0]);
        // Version 0 ends here; what a later one has beyond is not looked at; 255 is none.
        let ends = parts.next().is_none();
        let valid = version != u8::MAX && (version > 0 || ends) && trace != [0; 16] && span != [0; 8];
        valid.then_some(CallerTrace { trace, span, sampled: flags & 1 == 1 })
    }
}

/// The trace of one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExchangeTrace {
    /// Of the whole trace: the caller's, or a new one.
    pub trace: [u8; 16],
    /// The caller's span.
    pub parent: Option<[u8; 8]>,
    /// The exchange's span.
    pub span: [u8; 8],
    /// The span of its time at the source, which the source's own spans belong below.
    pub source: [u8; 8],
    /// Whether it is recorded.
    pub sampled: bool,
}

fn traceparent(trace: &[u8; 16], span: &[u8; 8], sampled: bool) -> String {
    format!("00-{}-{}-{:02x}", hex(trace), hex(span), u8::from(sampled))
}

/// An id that is not zero. It is no secret.
fn fresh<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fastrand::fill(&mut bytes);
    bytes[N - 1] |= u8::from(bytes == [0; N]);
    bytes
}

impl ExchangeTrace {
    /// Goes on with the caller's trace, which is recorded where the caller records it; or begins one, of which `sample` decides by its id.
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

    /// The `traceparent` that goes to the source.
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
    fn a_caller_s_trace_is_one_valid_header_or_none() {
        let read = |text: &str| CallerTrace::read(&headers(&[text]));
        let trace = read(&format!("00-{TRACE}-{SPAN}-01")).unwrap();
        assert_eq!((hex(&trace.trace), hex(&trace.span), trace.sampled), (TRACE.into(), SPAN.into(), true));
        assert!(!read(&format!("00-{TRACE}-{SPAN}-00")).unwrap().sampled);
        // Flags of later versions do not matter, nor what they have beyond.
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
    fn an_exchange_goes_on_with_its_caller_s_trace_in_spans_of_its_own() {
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
