//! What is told of an exchange that has ended, outside the exchange log: systems, operations, stages, and nothing that a caller has written.

use super::stages::{Stage, StageTimes};
use crate::exchange_log::Entry;

/// An exchange that has ended.
#[derive(Debug)]
pub struct EndedExchange {
    /// Its id.
    pub id: [u8; 16],
    /// The source's id; empty where no operation of a contract was called, and so on.
    pub source: String,
    /// The operation's full name.
    pub operation: String,
    /// The hub that the last attempt went through.
    pub hub: String,
    /// The client's id.
    pub client: String,
    /// gRPC's status code.
    pub status: u32,
    /// The reason of a refusal or failure.
    pub reason: String,
    /// Whose fault that is.
    pub fault: String,
    /// Attempts at the source.
    pub attempts: u32,
    /// Bytes of the requests' messages.
    pub request_bytes: u64,
    /// Bytes of the responses' messages.
    pub response_bytes: u64,
    /// When it arrived, Unix time in microseconds.
    pub arrived_us: i64,
    /// From its arrival to its last entry, in microseconds.
    pub total_us: u64,
    /// The last entry's place in the log, where it has one of its own.
    pub index: Option<u64>,
    /// Where its time went.
    pub stages: StageTimes,
}

impl EndedExchange {
    /// By its last entry.
    pub fn of(entry: Entry, stages: StageTimes, index: Option<u64>) -> Self {
        EndedExchange {
            id: entry.exchange_id.as_slice().try_into().unwrap_or_default(),
            source: entry.source,
            operation: entry.operation,
            hub: entry.hub,
            client: entry.client,
            status: entry.status,
            reason: if entry.reason.is_empty() { "OK".to_owned() } else { entry.reason },
            fault: entry.fault,
            attempts: entry.attempts.max(u32::from(!stages.of(Stage::Source).is_zero())),
            request_bytes: entry.request_bytes,
            response_bytes: entry.response_bytes,
            arrived_us: entry.time_us.saturating_sub_unsigned(entry.total_us),
            total_us: entry.total_us,
            index,
            stages,
        }
    }

    /// How long a stage took, in microseconds.
    pub fn us(&self, stage: Stage) -> u64 {
        u64::try_from(self.stages.of(stage).as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn it_has_nothing_of_the_entry_that_a_caller_or_a_source_has_written() {
        let entry = Entry {
            purpose: "purpose-of-the-caller".into(),
            peer: "192.0.2.7:1".into(),
            token: "token-id".into(),
            xroad_id: "x-road-id".into(),
            source_code: "code-of-the-source".into(),
            client: "one-stop-shop".into(),
            ..Entry::default()
        };
        let text = format!("{:?}", EndedExchange::of(entry, StageTimes::begin(Instant::now()), None));
        assert!(text.contains("one-stop-shop"));
        for kept in ["purpose-of-the-caller", "192.0.2.7", "token-id", "x-road-id", "code-of-the-source"] {
            assert!(!text.contains(kept), "{text}");
        }
    }
}
