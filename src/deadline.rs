//! Deadlines and their owners. An operation has a timeout in its contract, which is the source's: it begins with the
//! dispatch. A caller may set a shorter one (`grpc-timeout`, which begins when the call arrives). Only a source that
//! had the operation's own time and did not respond in it has timed out; a caller's deadline that passes before shows
//! nothing about the source.

use crate::headers;
use std::time::{Duration, Instant};

/// The share of an operation's own time that the transmission to the source may take from a deadline of the same
/// length: one twentieth. A caller that sets the contract's own time has not shortened it.
const ON_THE_WAY: u32 = 20;

/// A deadline with this little time left counts as passed: this time, or a quarter of the original time.
const NEAR: (Duration, u32) = (Duration::from_millis(5), 4);

/// The owner of a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadlineOwner {
    /// The operation's own time, from its contract.
    Operation,
    /// A shorter one, set by the caller.
    Caller,
}

/// The point in time by which something must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// The point in time.
    pub at: Instant,
    /// The owner.
    pub owner: DeadlineOwner,
}

impl Deadline {
    /// Makes a deadline of the operation's own time, from now on.
    pub fn own(now: Instant, time: Duration) -> Self {
        Deadline { at: now + time, owner: DeadlineOwner::Operation }
    }

    /// Returns whether it counts as passed for something that began at this time: `grpc-timeout` has whole
    /// milliseconds, clocks differ a little, and each hop subtracts something from the deadline that it passes on.
    pub fn is_near(&self, began: Instant) -> bool {
        let whole = self.at.saturating_duration_since(began);
        Instant::now() + NEAR.0.max(whole / NEAR.1) >= self.at
    }

    /// Polls a future until the deadline; an error has the owner of the deadline that has passed. After it, the future
    /// is not polled at all.
    pub async fn bound<T>(self, future: impl Future<Output = T>) -> Result<T, DeadlineOwner> {
        if Instant::now() >= self.at {
            return Err(self.owner);
        }
        tokio::time::timeout_at(self.at.into(), future).await.map_err(|_| self.owner)
    }
}

/// The time of one call.
#[derive(Debug, Clone, Copy)]
pub struct CallTime {
    /// The operation's own.
    own: Duration,
    /// When the caller's own deadline passes, if it set one.
    caller: Option<Instant>,
}

impl CallTime {
    /// Makes it for a call to an operation with this time of its own.
    pub fn new(own: Duration, caller: Option<Instant>) -> Self {
        CallTime { own, caller }
    }

    /// Returns when the caller's own deadline passes.
    pub fn caller(&self) -> Option<Instant> {
        self.caller
    }

    /// Returns whether the caller's own deadline has passed.
    pub fn is_over(&self, now: Instant) -> bool {
        self.caller.is_some_and(|caller| caller <= now)
    }

    /// Returns the deadline, from now on, for a wait that is not the source's: the request, a permit.
    pub fn wait(&self, now: Instant) -> Deadline {
        let own = Deadline::own(now, self.own);
        match self.caller {
            Some(caller) if caller < own.at => Deadline { at: caller, owner: DeadlineOwner::Caller },
            _ => own,
        }
    }

    /// Returns the timeout of a source for a dispatch now.
    pub fn source(&self, now: Instant) -> Deadline {
        let own = Deadline::own(now, self.own);
        match self.caller {
            Some(caller) if caller < own.at => {
                let whole = caller + self.own / ON_THE_WAY >= own.at;
                Deadline { at: caller, owner: if whole { DeadlineOwner::Operation } else { DeadlineOwner::Caller } }
            }
            _ => own,
        }
    }

    /// Returns the operation's complete timeout, for a dispatch now.
    pub fn full(&self, now: Instant) -> Deadline {
        Deadline::own(now, self.own)
    }
}

/// `grpc-timeout` is present, but malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("grpc-timeout is not one to eight digits and a unit")]
pub struct TimeoutMalformed;

/// Reads `grpc-timeout` (at most 8 digits and a unit: gRPC over HTTP/2, "Timeout").
pub fn grpc_timeout(head: &http::HeaderMap) -> Result<Option<Duration>, TimeoutMalformed> {
    let mut values = head.get_all(&headers::GRPC_TIMEOUT).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none()).ok_or(TimeoutMalformed)?;
    let at = text.len().checked_sub(1).ok_or(TimeoutMalformed)?;
    let (digits, unit) = text.split_at_checked(at).ok_or(TimeoutMalformed)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(TimeoutMalformed);
    }
    let number: u64 = digits.parse().map_err(|_| TimeoutMalformed)?;
    Ok(Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return Err(TimeoutMalformed),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_deadline_as_long_as_the_operation_s_own_is_not_the_caller_s() {
        let now = Instant::now();
        let whose = |given: Duration, waited: Duration| {
            CallTime::new(10 * SECOND, Some(now + given)).source(now + waited).owner
        };
        assert_eq!(whose(10 * SECOND, Duration::from_millis(3)), DeadlineOwner::Operation);
        assert_eq!(whose(60 * SECOND, SECOND), DeadlineOwner::Operation);
        assert_eq!(whose(9 * SECOND, Duration::ZERO), DeadlineOwner::Caller);
        // It sent its request so slowly that little time remains.
        assert_eq!(whose(10 * SECOND, 5 * SECOND), DeadlineOwner::Caller);
        assert_eq!(CallTime::new(SECOND, None).source(now), Deadline::own(now, SECOND));
    }

    proptest! {
        #[test]
        fn only_a_source_that_had_nearly_all_of_its_time_can_time_out(
            own in 1u64..60_000, given in 0u64..120_000, waited in 0u64..120_000,
        ) {
            let (now, own) = (Instant::now(), Duration::from_millis(own));
            let requested = now + Duration::from_millis(waited);
            let time = CallTime::new(own, Some(now + Duration::from_millis(given)));
            let deadline = time.source(requested);
            prop_assert!(deadline.at <= requested + own && Some(deadline.at) <= time.caller().max(Some(requested + own)));
            if deadline.owner == DeadlineOwner::Operation {
                prop_assert!(deadline.at - requested >= own - own / ON_THE_WAY);
            }
        }
    }
}
