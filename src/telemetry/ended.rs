//! A finished exchange as access lines and traces report it: systems, operations, stages, and no text from a caller.

use super::stages::{Stage, StageTimes};
use crate::exchange_log::Entry;

/// A finished exchange.
#[derive(Debug)]
pub struct EndedExchange {
    /// Its id.
    pub id: [u8; 16],
    /// The source's id; empty if no operation of a contract was called. The same holds for the other names.
    pub source: String,
    /// The operation's full name.
    pub operation: String,
    /// The hub of the last attempt.
    pub hub: String,
    /// The client's id.
    pub client: String,
    /// The gRPC status code.
    pub status: u32,
    /// The reason of a refusal or error.
    pub reason: String,
    /// Who has the fault.
    pub fault: String,
    /// Attempts at the source.
    pub attempts: u32,
    /// Bytes of the request messages.
    pub request_bytes: u64,
    /// Bytes of the response messages.
    pub response_bytes: u64,
    /// Arrival, Unix time in microseconds.
    pub arrived_us: i64,
    /// Time from arrival to the last entry, in microseconds.
    pub total_us: u64,
    /// The log index of the last entry, if it has its own.
    pub index: Option<u64>,
    /// Time by stage.
    pub stages: StageTimes,
}

impl EndedExchange {
    /// Makes it from the exchange's last entry.
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

    /// Returns the time of a stage, in microseconds.
    pub fn us(&self, stage: Stage) -> u64 {
        u64::try_from(self.stages.of(stage).as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn it_contains_no_text_from_a_caller_or_a_source() {
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
