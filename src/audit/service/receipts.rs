//! Receipts for the client of an exchange, and for auditors. Any registered client may call, without a token, so the
//! timing must not depend on the request: an id is looked up in the index and in the few bundles that the index does
//! not have yet, the journal is never read, and waiting for a checkpoint occupies no thread.

use super::{Audit, AuditError, failed_for_client, refused, unknown};
use crate::access::reads::ReadPermit;
use crate::audit::index::SearchIndex;
use crate::audit::query::Query;
use crate::audit::search;
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::receipt::Receipt;
use crate::exchange_log::tree::TILE;
use crate::exchange_log::{Entry, Kind, clock};
use crate::keyfile::Vault;
use crate::status::{Reason, Refusal};
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::Status;

/// Longest wait until a new entry is sealed, and then cosigned.
const SEALED_WITHIN: Duration = Duration::from_secs(3);
/// How often to check for a newer cosigned checkpoint, if the policy requires witnesses: some kilobytes are read.
const COSIGNED_EVERY: Duration = Duration::from_millis(250);
/// Maximum number of bundles that are read for an exchange that is not in the index yet: 20,000 entries, a second of
/// the busiest log.
const MAX_BUNDLES: u64 = 80;
/// Clients are refused at multiples of this after their request, so that the time does not distinguish an unknown exchange from another's:
/// reading an entry takes some hundred microseconds.
const REFUSED_EVERY: Duration = Duration::from_millis(250);
/// How far the clock of the machine that made an id may be ahead.
const SKEW_MS: u64 = 60_000;

/// The target of a receipt.
#[derive(Debug, Clone, Copy)]
pub(super) enum ReceiptTarget {
    /// The last entry of an exchange.
    Exchange([u8; 16]),
    /// The entry at an index.
    Index(u64),
}

/// The result among the sealed entries.
enum ReceiptEntry {
    /// The entry at an index.
    Entry(u64, Box<Entry>),
    /// There is none.
    Missing,
    /// Unknown: the index is too far behind.
    NotIndexed,
}

/// Returns when an exchange id was made (RFC 9562, section 5.7), in milliseconds; `None` if it is not a UUIDv7.
fn made_ms(id: &[u8; 16]) -> Option<u64> {
    let uuid = uuid::Uuid::from_bytes(*id);
    let (seconds, nanos) = (uuid.get_version_num() == 7).then(|| uuid.get_timestamp())??.to_unix();
    Some(seconds * 1_000 + u64::from(nanos) / 1_000_000)
}

/// Returns whether an exchange of this id can exist by now.
fn may_exist(id: &[u8; 16]) -> bool {
    let now = u64::try_from(clock::now_us().div_euclid(1_000)).unwrap_or(0);
    made_ms(id).is_some_and(|made| made <= now + SKEW_MS)
}

/// Returns whether an entry's bytes are of an exchange: its id follows version and kind, some bytes from the beginning.
fn is_of(bytes: &[u8], id: &[u8; 16]) -> bool {
    bytes.iter().take(32).enumerate().any(|(at, _)| bytes.get(at..at + 16) == Some(id))
        && Entry::from_bytes(bytes).is_some_and(|entry| entry.exchange_id == id)
}

/// Finds the last sealed entry of an exchange, or the sealed entry at an index.
fn find(data: &Path, vault: &Vault, of: ReceiptTarget) -> Result<ReceiptEntry, AuditError> {
    let reader = LogReader::sealed_only(data)?;
    let id = match of {
        ReceiptTarget::Index(index) if index < reader.sealed() => return Ok(at(index, reader.entry(index)?)),
        ReceiptTarget::Index(_) => return Ok(ReceiptEntry::Missing),
        ReceiptTarget::Exchange(id) => id,
    };
    let index = SearchIndex::read(data, vault);
    let indexed = index.as_ref().map_or(0, |index| index.indexed(&reader));
    let mut before = reader.sealed();
    // An entry is not written before its exchange has arrived.
    let made_us = made_ms(&id).and_then(|made| i64::try_from(made.saturating_sub(SKEW_MS) * 1_000).ok()).unwrap_or(0);
    for _ in 0..MAX_BUNDLES {
        if before <= indexed {
            break;
        }
        let bundle = (before - 1) / TILE as u64;
        let first = bundle * TILE as u64;
        let entries = reader.bundle(bundle)?.unwrap_or_default();
        if let Some(place) = entries.iter().rposition(|bytes| is_of(bytes, &id)) {
            let index = first + place as u64;
            return Ok(at(index, reader.entry(index)?));
        }
        before = first;
        let oldest = entries.first().and_then(|bytes| Entry::from_bytes(bytes)).map(|entry| entry.time_us);
        if oldest.is_some_and(|oldest| oldest < made_us) {
            break;
        }
        if before == 0 {
            return Ok(ReceiptEntry::Missing);
        }
    }
    if let Some(index) = &index {
        let query = Query { exchange: Some(id), ..Query::default() };
        let newest = search::page(&reader, Some(index), &query, Some(before.min(indexed)), 1, None)?.found.pop();
        if let Some(found) = newest {
            return Ok(at(found.index, Some(found.entry)));
        }
    }
    Ok(if before <= indexed { ReceiptEntry::Missing } else { ReceiptEntry::NotIndexed })
}

fn at(index: u64, entry: Option<Entry>) -> ReceiptEntry {
    entry.map_or(ReceiptEntry::Missing, |entry| ReceiptEntry::Entry(index, Box::new(entry)))
}

async fn read<T: Send + 'static>(
    permit: &ReadPermit,
    read: impl FnOnce() -> Result<T, AuditError> + Send + 'static,
) -> Result<T, Status> {
    let read = permit.run(read).await;
    read.ok_or_else(|| refused(Reason::ExchangeLogUnavailable.into()))?.map_err(failed_for_client)
}

impl Audit {
    /// Returns the receipt of an entry: of any for an auditor, of its own for a client. A refusal of a client has the
    /// same words and takes the same time whether an entry does not exist or is another's.
    pub(super) async fn receipt(
        &self,
        of: ReceiptTarget,
        client: Option<&str>,
        permit: &ReadPermit,
    ) -> Result<Receipt, Status> {
        let began = Instant::now();
        let receipt = self.try_receipt(of, client, permit).await;
        if client.is_some() && receipt.is_err() {
            let turns = began.elapsed().as_millis() / REFUSED_EVERY.as_millis() + 1;
            let at = began + REFUSED_EVERY * u32::try_from(turns).unwrap_or(u32::MAX);
            tokio::time::sleep_until(at.into()).await;
        }
        receipt
    }

    async fn try_receipt(
        &self,
        of: ReceiptTarget,
        client: Option<&str>,
        permit: &ReadPermit,
    ) -> Result<Receipt, Status> {
        // All exchanges whose ids were returned to their callers are durable by now.
        let durable = self.host.durable();
        match of {
            ReceiptTarget::Exchange(id) if !may_exist(&id) => return Err(unknown()),
            ReceiptTarget::Index(index) if index >= durable => return Err(unknown()),
            ReceiptTarget::Exchange(_) | ReceiptTarget::Index(_) => {}
        }
        let look = || {
            let (data, vault) = (self.data.clone(), self.vault.clone());
            read(permit, move || find(&data, &vault, of))
        };
        let mut found = look().await?;
        let own = |entry: &Entry| client.is_none_or(|client| entry.client == client);
        // Only an ended one is the last entry of its exchange.
        let whole = matches!(&found, ReceiptEntry::Entry(_, entry)
            if own(entry) && (matches!(of, ReceiptTarget::Index(_)) || entry.kind() != Kind::Intent && entry.kind() != Kind::StreamOpened));
        if !whole && self.sealed(durable).await {
            found = look().await?;
        }
        match found {
            ReceiptEntry::Entry(index, entry) if own(&entry) => self.proved(index, permit).await,
            ReceiptEntry::Entry(..) | ReceiptEntry::Missing => Err(unknown()),
            ReceiptEntry::NotIndexed => {
                let detail = "the search index is behind or missing: ask by the entry's index (ndxp-log-index)";
                Err(refused(Refusal::with(Reason::ExchangeLogUnavailable, detail)))
            }
        }
    }

    /// Waits until this many entries are sealed; returns false if they already were, or never will be.
    async fn sealed(&self, size: u64) -> bool {
        let mut sealed = self.host.watch_sealed();
        if *sealed.borrow_and_update() >= size {
            return false;
        }
        let comes = sealed.wait_for(|sealed| *sealed >= size);
        matches!(tokio::time::timeout(SEALED_WITHIN, comes).await, Ok(Ok(_)))
    }

    /// Returns the receipt of a sealed entry, as soon as a checkpoint that counts covers it.
    async fn proved(&self, index: u64, permit: &ReadPermit) -> Result<Receipt, Status> {
        let began = Instant::now();
        loop {
            let data = self.data.clone();
            let made = read(permit, move || Ok(Receipt::make(&LogReader::sealed_only(&data)?, index)?)).await?;
            match made {
                Some(receipt) => return Ok(receipt),
                None if began.elapsed() < SEALED_WITHIN => tokio::time::sleep(COSIGNED_EVERY).await,
                None => return Err(unknown()),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn d3_an_id_that_no_exchange_can_have_is_refused_unread() {
        let now = uuid::Uuid::now_v7();
        assert!(may_exist(now.as_bytes()));
        let ahead = uuid::Timestamp::from_unix(uuid::NoContext, 4_000_000_000, 0);
        for other in [uuid::Uuid::nil(), uuid::Uuid::new_v4(), uuid::Uuid::max(), uuid::Uuid::new_v7(ahead)] {
            assert!(!may_exist(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn d3_an_entry_is_known_by_its_id_and_by_nothing_else() {
        let entry = Entry::begin(Kind::Exchange, "dc1");
        let id: [u8; 16] = entry.exchange_id.clone().try_into().unwrap();
        assert!(is_of(&entry.to_bytes(), &id));
        // The same bytes elsewhere are not its id.
        let other =
            Entry { certificate: id.to_vec(), node: String::new(), time_us: 0, ..Entry::begin(Kind::Exchange, "") };
        assert!(!is_of(&other.to_bytes(), &id) && !is_of(&[], &id));
    }
}
