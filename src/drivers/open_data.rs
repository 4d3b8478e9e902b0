//! Open data: responses that may be cached. Concurrent equal requests share one; a response is reused for as long as
//! its source allows (`max-age`, RFC 9111, section 5.2.2.1), at most a minute, and revalidated by its ETag after that.

use super::SourceError;
use super::http::HttpResponse;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Maximum number of cached responses, over all operations of a source.
const MAX_KEPT: usize = 128;
/// Largest cached response, in bytes.
const MAX_KEPT_BYTES: usize = 4 << 20;
/// How long others may join a request in flight. If it hangs, later requests must not all wait for it.
const MAX_JOINED: Duration = Duration::from_secs(2);
/// Memory for cached responses, in bytes.
const MAX_KEPT_IN_ALL: u64 = 64 << 20;
/// Longest time for which a response is used without revalidation.
const MAX_FRESH: Duration = Duration::from_secs(60);

type Answered = Result<HttpResponse, SourceError>;
type SharedFetch = BoxFuture<'static, Answered>;

/// The cache of a source, by path and by the headers that the contract defines.
pub(super) struct OpenData {
    kept: quick_cache::sync::Cache<String, CacheEntry, ResponseWeighter>,
    flights: Mutex<HashMap<String, PendingFetch>>,
}

/// A request in flight.
struct PendingFetch {
    began: Instant,
    flight: WeakShared<SharedFetch>,
}

/// Weighs responses in bytes.
#[derive(Debug, Clone)]
struct ResponseWeighter;

impl quick_cache::Weighter<String, CacheEntry> for ResponseWeighter {
    fn weight(&self, path: &String, kept: &CacheEntry) -> u64 {
        (path.len() + kept.body.len()) as u64 + 1_024
    }
}

#[derive(Clone)]
struct CacheEntry {
    etag: Option<HeaderValue>,
    until: Instant,
    headers: HeaderMap,
    body: Bytes,
}

/// A response that may be cached once it was read completely: malformed data must not come from the cache.
pub(super) struct CacheableResponse {
    key: String,
    kept: CacheEntry,
}

/// The cache key: the path with its query, and the headers before credentials and trace are added.
pub(super) fn key(path: &str, headers: &HeaderMap) -> String {
    let mut named: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    named.sort_unstable();
    let mut key = path.to_owned();
    for (name, value) in named {
        // Neither a path nor a name has spaces or line feeds, and a value has no line feeds.
        key.push_str(&format!("\n{name} {}", value.escape_ascii()));
    }
    key
}

impl OpenData {
    pub(super) fn new() -> Self {
        let kept = quick_cache::sync::Cache::with_weighter(MAX_KEPT, MAX_KEPT_IN_ALL, ResponseWeighter);
        OpenData { kept, flights: Mutex::default() }
    }

    /// Returns the response to a request with this [`key`]: cached, revalidated, or from `send` if no equal request is
    /// in flight.
    pub(super) async fn get<F>(
        &self,
        key: &str,
        mut headers: HeaderMap,
        send: impl FnOnce(HeaderMap) -> F,
    ) -> Result<(HttpResponse, Option<CacheableResponse>), SourceError>
    where
        F: Future<Output = Answered> + Send + 'static,
    {
        let kept = self.kept.get(key);
        if let Some(kept) = kept.as_ref().filter(|kept| Instant::now() < kept.until) {
            return Ok((kept.answer(), None));
        }
        if let Some(etag) = kept.as_ref().and_then(|kept| kept.etag.clone()) {
            headers.insert(header::IF_NONE_MATCH, etag);
        }
        let answer = self.fly(key, || send(headers).boxed()).await?;
        match (answer.status, kept) {
            (StatusCode::NOT_MODIFIED, Some(kept)) => {
                let again = kept.revalidated(&answer.headers);
                let answer = again.answer();
                Ok((answer, Some(CacheableResponse { key: key.to_owned(), kept: again })))
            }
            (StatusCode::NOT_MODIFIED, None) => Err(SourceError::protocol("not modified, but nothing is cached")),
            (StatusCode::OK, _) if answer.body.len() <= MAX_KEPT_BYTES => {
                let fresh = CacheableResponse { key: key.to_owned(), kept: CacheEntry::of(&answer) };
                Ok((answer, Some(fresh)))
            }
            _ => Ok((answer, None)),
        }
    }

    /// Caches a response that was read completely.
    pub(super) fn keep(&self, fresh: Option<CacheableResponse>) {
        if let Some(CacheableResponse { key, kept }) = fresh
            && (kept.etag.is_some() || Instant::now() < kept.until)
        {
            self.kept.insert(key, kept);
        }
    }

    /// Joins the equal request in flight, unless it has been in flight for too long, or sends one. The request
    /// continues as long as any caller waits for it.
    async fn fly(&self, key: &str, send: impl FnOnce() -> SharedFetch) -> Answered {
        let flight: Shared<SharedFetch> = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let young = |one: &&PendingFetch| now.saturating_duration_since(one.began) < MAX_JOINED;
            let joined = flights.get(key).filter(young).and_then(|one| one.flight.upgrade());
            match joined.filter(|flight| flight.peek().is_none()) {
                Some(flight) => flight,
                None => {
                    flights.retain(|_, one| one.flight.upgrade().is_some());
                    let flight = send().shared();
                    let under_way = flight.downgrade().map(|flight| PendingFetch { began: now, flight });
                    flights.extend(under_way.map(|under_way| (key.to_owned(), under_way)));
                    flight
                }
            }
        };
        flight.await
    }
}

impl CacheEntry {
    fn of(answer: &HttpResponse) -> Self {
        CacheEntry {
            etag: answer.headers.get(header::ETAG).cloned(),
            until: fresh_until(&answer.headers),
            headers: answer.headers.clone(),
            body: answer.body.clone(),
        }
    }

    /// The headers of a 304 replace the earlier ones; the others stay (RFC 9111, section 3.2).
    fn revalidated(mut self, headers: &HeaderMap) -> Self {
        self.headers.remove(header::AGE);
        for name in headers.keys().filter(|name| **name != header::CONTENT_LENGTH) {
            self.headers.remove(name);
            for value in headers.get_all(name) {
                self.headers.append(name.clone(), value.clone());
            }
        }
        CacheEntry { until: fresh_until(&self.headers), etag: self.headers.get(header::ETAG).cloned(), ..self }
    }

    fn answer(&self) -> HttpResponse {
        HttpResponse { status: StatusCode::OK, headers: self.headers.clone(), body: self.body.clone() }
    }
}

/// Until when a response may be used without revalidation: `max-age`, less its age, if nothing forbids it.
fn fresh_until(headers: &HeaderMap) -> Instant {
    let now = Instant::now();
    let directives: Vec<String> = headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|directive| directive.trim().to_ascii_lowercase())
        .collect();
    if directives.iter().any(|one| one == "no-store" || one.starts_with("no-cache")) {
        return now;
    }
    let max_age = directives.iter().find_map(|one| one.strip_prefix("max-age=")?.trim_matches('"').parse::<u64>().ok());
    let age = headers.get(header::AGE).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    now + Duration::from_secs(max_age.unwrap_or(0).saturating_sub(age.unwrap_or(0))).min(MAX_FRESH)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fresh_for(headers: &[(&'static str, &str)]) -> u64 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        (fresh_until(&map) - Instant::now()).as_secs_f64().round() as u64
    }

    #[test]
    fn d1_answers_that_are_kept_are_bounded_by_their_size() {
        let (open_data, body) = (OpenData::new(), Bytes::from(vec![7; MAX_KEPT_BYTES]));
        let until = Instant::now() + MAX_FRESH;
        for number in 0..100 {
            let kept = CacheEntry { etag: None, until, headers: HeaderMap::new(), body: body.clone() };
            open_data.keep(Some(CacheableResponse { key: format!("/{number}"), kept }));
        }
        assert!(open_data.kept.weight() <= MAX_KEPT_IN_ALL, "{}", open_data.kept.weight());
        assert!((8..=15).contains(&open_data.kept.len()), "{}", open_data.kept.len());
    }

    #[test]
    fn a_source_says_how_long_its_answer_may_be_used() {
        assert_eq!(fresh_for(&[("cache-control", "public, Max-Age=30")]), 30);
        assert_eq!(fresh_for(&[("cache-control", "max-age=30"), ("age", "10")]), 20);
        assert_eq!(fresh_for(&[("cache-control", "max-age=30"), ("age", "100")]), 0);
        assert_eq!(fresh_for(&[("cache-control", "max-age=86400")]), 60, "a minute at most");
        for none in ["", "max-age=x", "no-cache, max-age=30", "max-age=30, no-store", "max-age=0, must-revalidate"] {
            assert_eq!(fresh_for(&[("cache-control", none)]), 0, "{none}");
        }
    }

    fn answered() -> Answered {
        Ok(HttpResponse { status: StatusCode::OK, headers: HeaderMap::new(), body: Bytes::new() })
    }

    #[tokio::test(start_paused = true)]
    async fn b1_a_request_that_hangs_is_joined_by_those_who_come_at_once_and_by_nobody_later() {
        let open_data = OpenData::new();
        let get = |answers: bool| {
            let send = move |_| async move { if answers { answered() } else { std::future::pending().await } };
            tokio::time::timeout(Duration::from_secs(1), open_data.get("/a", HeaderMap::new(), send))
        };
        let (first, joined) = tokio::join!(get(false), get(true));
        assert!(first.is_err() && joined.is_err(), "equal requests at once share one");
        // As long as a caller waits for it, it hangs.
        let waits = open_data.get("/a", HeaderMap::new(), |_| std::future::pending::<Answered>());
        let mut waits = Box::pin(waits);
        assert!(futures_util::poll!(&mut waits).is_pending());
        open_data.flights.lock().unwrap().get_mut("/a").unwrap().began -= MAX_JOINED;
        assert!(get(true).await.is_ok_and(|answer| answer.is_ok()));
    }

    #[test]
    fn requests_that_differ_in_a_header_of_their_contract_are_not_equal() {
        let headers = |value: &str| HeaderMap::from_iter([(header::ACCEPT_LANGUAGE, value.parse().unwrap())]);
        assert_eq!(key("/a", &headers("vi")), key("/a", &headers("vi")));
        assert_ne!(key("/a", &headers("vi")), key("/a", &headers("en")));
        assert_ne!(key("/a", &headers("vi")), key("/a", &HeaderMap::new()));
    }
}
