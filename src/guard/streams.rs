//! Open streams at a source. A watched request may last for an hour, and a long list, or a stream of requests, for as
//! long as its caller likes. So they hold none of the permits that calls share: those would soon be gone for everybody.
//! Streams have a separate limit, and no client may have more than half of them.

use crate::status::{Reason, Refusal};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The retry delay: a stream may end at any moment, or last for long.
const AGAIN: Duration = Duration::from_secs(2);

/// The streams of one source.
pub(super) struct Streams {
    most: usize,
    open: Mutex<OpenStreams>,
}

#[derive(Default)]
struct OpenStreams {
    all: usize,
    of: HashMap<Arc<str>, usize>,
}

/// The permit of an open stream; released when dropped.
pub struct StreamPermit {
    streams: Arc<Streams>,
    client: Arc<str>,
}

impl Streams {
    pub(super) fn new(most: usize) -> Self {
        Streams { most, open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, OpenStreams> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of open streams.
    pub(super) fn count(&self) -> usize {
        self.open().all
    }

    /// Returns how many of them one client may have.
    fn share(&self) -> usize {
        self.most.div_ceil(2)
    }

    /// Begins a stream of this client.
    pub(super) fn begin(self: &Arc<Self>, client: &str) -> Result<StreamPermit, Refusal> {
        let client: Arc<str> = client.into();
        let mut open = self.open();
        let own = open.of.get(&client).copied().unwrap_or_default();
        if own >= self.share() {
            let detail = format!("{own} streams of this client go on at the source already");
            return Err(Refusal { detail, ..Refusal::retry(Reason::RateLimited, AGAIN) });
        }
        if open.all >= self.most {
            return Err(Refusal::retry(Reason::GatewayOverloaded, AGAIN));
        }
        open.all += 1;
        open.of.insert(client.clone(), own + 1);
        Ok(StreamPermit { streams: self.clone(), client })
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut open = self.streams.open();
        open.all -= 1;
        if let Some(own) = open.of.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                open.of.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_client_gets_half_of_them_and_all_are_given_back() {
        let streams = Arc::new(Streams::new(5));
        let begin = |client| streams.begin(client);
        let reason = |refused: Result<StreamPermit, Refusal>| refused.err().unwrap().reason;
        let first: Vec<_> = (0..3).map(|_| begin("one").unwrap()).collect();
        assert_eq!(reason(begin("one")), Reason::RateLimited);
        let second: Vec<_> = (0..2).map(|_| begin("other").unwrap()).collect();
        assert_eq!(reason(begin("other")), Reason::GatewayOverloaded);
        assert_eq!(streams.count(), 5);
        drop(first);
        begin("other").unwrap();
        drop(second);
        assert!(streams.count() == 0 && streams.open().of.is_empty());
    }
}
