//! A source's retry delay, in each of its forms; bounded in one place.

use http::{HeaderMap, header};
use std::time::{Duration, SystemTime};
use tonic_types::pb;

/// Longest retry delay that a source may request.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// `Retry-After`, in seconds or as a date (RFC 9110, section 10.2.3); `None` if there is none or it cannot be read. A
/// date is relative to the response's own `Date`, if it has one, since clocks differ.
pub fn of_headers(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| Some(headers.get(name)?.to_str().ok()?.trim());
    let value = text(header::RETRY_AFTER)?;
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that overflows exceeds the bound, too.
        return Some(value.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs).min(MAX_RETRY_AFTER));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let now = text(header::DATE).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or_else(SystemTime::now);
    Some(until.duration_since(now).unwrap_or_default().min(MAX_RETRY_AFTER))
}

/// `google.rpc.RetryInfo`; `None` if it holds no time, or a negative one.
pub(super) fn of_retry_info(info: &pb::RetryInfo) -> Option<Duration> {
    Some(Duration::try_from(info.retry_delay?).ok()?.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_source_says_when_to_come_again_in_seconds_or_by_a_date_and_within_an_hour() {
        let date = "Fri, 27 Nov 2026 05:00:00 GMT";
        for (retry_after, date, wanted) in [
            ("7", None, Some(7)),
            (" 0 ", None, Some(0)),
            ("86400", None, Some(3_600)),
            ("99999999999999999999999", None, Some(3_600)),
            ("Fri, 27 Nov 2026 05:00:30 GMT", Some(date), Some(30)),
            ("Fri, 27 Nov 2026 04:00:00 GMT", Some(date), Some(0)),
            ("Sat, 28 Nov 2026 05:00:00 GMT", Some(date), Some(3_600)),
            ("-1", None, None),
            ("1.5", None, None),
            ("", None, None),
            ("soon", None, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, retry_after.parse().unwrap());
            headers.extend(date.map(|date| (header::DATE, date.parse().unwrap())));
            assert_eq!(of_headers(&headers), wanted.map(Duration::from_secs), "{retry_after:?}");
        }
        assert_eq!(of_headers(&HeaderMap::new()), None);
    }

    #[test]
    fn a_grpc_source_s_retry_info_is_bounded_as_well() {
        let info = |seconds, nanos| pb::RetryInfo { retry_delay: Some(prost_types::Duration { seconds, nanos }) };
        for (info, wanted) in [
            (info(2, 500_000_000), Some(Duration::from_millis(2_500))),
            (info(86_400, 0), Some(MAX_RETRY_AFTER)),
            (info(-1, 0), None),
            (pb::RetryInfo { retry_delay: None }, None),
        ] {
            assert_eq!(of_retry_info(&info), wanted);
        }
    }
}
