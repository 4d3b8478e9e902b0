//! The exchange log of a stage, read from its files.

use super::Stage;
use ndxp_gateway::exchange_log::reader::{Found, LogReader};
use ndxp_gateway::exchange_log::{Entry, Kind};
use std::path::Path;

impl Stage {
    /// Every entry, oldest first.
    pub fn entries(&self) -> Vec<Found> {
        entries(&self.data())
    }

    /// Every finished exchange, oldest first. The gateway's own entries may be between them.
    pub fn exchanges(&self) -> Vec<Entry> {
        exchanges(&self.data())
    }

    /// The finished exchange with this id.
    pub fn entry(&self, exchange: &str) -> Found {
        let mut found = self.entries().into_iter().filter(|one| one.entry.id_text() == exchange);
        found.next_back().unwrap_or_else(|| panic!("exchange {exchange} is not in the log"))
    }

    /// Verifies the log, at the end of every test.
    pub fn verify(&self) -> u64 {
        let report =
            ndxp_gateway::exchange_log::verify::verify_data(&self.data(), None, None, Default::default(), |_, _| {})
                .unwrap();
        report.sealed + report.tail
    }
}

pub fn entries(data: &Path) -> Vec<Found> {
    let mut all = Vec::new();
    LogReader::open(data)
        .unwrap()
        .newest_first(u64::MAX, |one| {
            all.push(one);
            true
        })
        .unwrap();
    all.reverse();
    all
}

pub fn exchanges(data: &Path) -> Vec<Entry> {
    entries(data).into_iter().map(|one| one.entry).filter(|entry| entry.kind() == Kind::Exchange).collect()
}
