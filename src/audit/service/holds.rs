//! Legal holds: entries that no pruning may touch. An auditor places and releases them, remotely or as the folder's
//! owner.

use super::host::AuditReader;
use super::{Audit, AuditError, api, invalid, reading, refused, rules};
use crate::access::reads::ReadPermit;
use crate::audit::index::SearchIndex;
use crate::audit::query::Query;
use crate::audit::retention::{Hold, Holds, MAX_HOLDS};
use crate::audit::{logged_state, search};
use crate::contract::formats::{self, Format};
use crate::exchange_log::pseudonym::PersonKind;
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::{Entry, clock};
use crate::status::{Reason, Refusal};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status};

/// Longest time that a listing counts the entries of holds; the next one goes on from there.
const COUNTED_WITHIN: Duration = Duration::from_millis(500);
/// Entries that are found at once.
const PAGE: usize = 1_000;

/// The entries of each hold, as far as they were counted: a log only grows, and a held entry stays.
#[derive(Debug, Default)]
pub(super) struct HoldCounts(Mutex<HashMap<String, HoldCount>>);

/// The entries of one hold: those below `top` are counted, but for those from `bottom` until before `before`.
#[derive(Debug, Default)]
struct HoldCount {
    entries: u64,
    top: u64,
    bottom: u64,
    before: u64,
}

impl HoldCounts {
    /// Returns the number of entries of each hold, and whether some are not counted yet; counts until `patience`.
    fn of(
        &self,
        log: (&LogReader, Option<&SearchIndex>),
        holds: &[Hold],
        patience: Instant,
    ) -> Result<Vec<(u64, bool)>, AuditError> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let digests: Vec<String> = holds.iter().map(Hold::digest).collect();
        counts.retain(|digest, _| digests.contains(digest));
        let of_hold = |(hold, digest): (&Hold, String)| {
            let count = counts.entry(digest).or_default();
            while !count.is_complete(log.0) && Instant::now() < patience {
                count.go_on(log, hold, patience)?;
            }
            Ok((count.entries, !count.is_complete(log.0)))
        };
        holds.iter().zip(digests).map(of_hold).collect()
    }
}

impl HoldCount {
    fn is_complete(&self, reader: &LogReader) -> bool {
        self.before <= self.bottom && self.top >= reader.size()
    }

    /// Counts a page, downwards; once all below `top` are counted, those that are new since.
    fn go_on(
        &mut self,
        (reader, index): (&LogReader, Option<&SearchIndex>),
        hold: &Hold,
        patience: Instant,
    ) -> Result<(), AuditError> {
        if self.before <= self.bottom {
            (self.bottom, self.top, self.before) = (self.top, reader.size(), reader.size());
        }
        let page = search::page(reader, index, &hold.query, Some(self.before), PAGE, Some(patience))?;
        self.entries += page.found.iter().filter(|one| one.index >= self.bottom).count() as u64;
        self.before = page.before.unwrap_or(0);
        Ok(())
    }
}

/// The conditions of a query without those about people, of whom only pseudonyms are known.
fn conditions(query: Query) -> api::Query {
    let exchange_id = query.exchange.map(|id| uuid::Uuid::from_bytes(id).to_string()).unwrap_or_default();
    api::Query {
        client: query.client.unwrap_or_default(),
        agency: query.agency.unwrap_or_default(),
        source: query.source.unwrap_or_default(),
        operation: query.operation.unwrap_or_default(),
        scope: query.scope.unwrap_or_default(),
        outcome: query.outcome.unwrap_or_default(),
        purpose: query.purpose.unwrap_or_default(),
        from_us: query.from_us.unwrap_or_default(),
        to_us: query.to_us.unwrap_or_default(),
        event: query.event.unwrap_or_default(),
        grant: query.grant.unwrap_or_default(),
        token: query.token.unwrap_or_default(),
        exchange_id,
        ..api::Query::default()
    }
}

impl Audit {
    pub(super) async fn holds(&self, permit: &ReadPermit) -> Result<Response<api::ListHoldsResponse>, Status> {
        let (data, counts) = (self.data.clone(), self.hold_counts.clone());
        let holds = self.with_log(permit, move |reader, index| {
            let holds = Holds::read(&data)?.holds;
            let counted = counts.of((reader, index), &holds, Instant::now() + COUNTED_WITHIN)?;
            Ok(holds.into_iter().zip(counted).collect::<Vec<_>>())
        });
        let message = |(hold, (entries, counting)): (Hold, (u64, bool))| {
            let (by_subject, by_official) = (hold.query.subject.is_some(), hold.query.official.is_some());
            let Hold { id, case: case_number, by, since, query } = hold;
            let query = Some(conditions(query));
            api::Hold { id, case_number, by, since, entries, counting, query, by_subject, by_official }
        };
        Ok(Response::new(api::ListHoldsResponse { holds: holds.await?.into_iter().map(message).collect() }))
    }

    /// The hold is in force before its entry is written: its entries are kept, whatever happens in between.
    pub(super) async fn hold(
        &self,
        request: &Request<api::PlaceHoldRequest>,
    ) -> Result<Response<api::PlaceHoldResponse>, Status> {
        let rule = &rules::PLACE_HOLD;
        let reader = self.host.admit(request, rule).await?;
        let permit = self.host.begin(&reader, &self.reads)?;
        let api::PlaceHoldRequest { query, case_number } = request.get_ref().clone();
        if case_number.len() > 64 || formats::check(Format::Code, &case_number).is_err() {
            let expected = "must be a document or case number of letters, digits and . - _ /";
            let vietnamese = "phải là số văn bản hoặc vụ việc gồm chữ, số và . - _ /";
            return Err(invalid("case_number", expected, vietnamese));
        }
        let requested = query.unwrap_or_default();
        if requested == api::Query::default() {
            let expected = "must have a condition: a hold on every entry would end all pruning";
            let vietnamese = "cần ít nhất một điều kiện: giữ mọi bản ghi thì không xóa được bản ghi nào nữa";
            return Err(invalid("query", expected, vietnamese));
        }
        let query = self.query(requested.clone())?;
        if query.has_subject_filter() {
            self.check_keys(&permit, &query).await?;
        }
        let (data, case, by) = (self.data.clone(), case_number.clone(), self.host.name(&reader));
        let place = move || Ok(Holds::change(&data, |holds| holds.add(&query, &case, &by).cloned())?);
        let full =
            || refused(Refusal::with(Reason::ChangesFull, format!("there are already {MAX_HOLDS} holds: release one")));
        let hold = reading(&permit, place).await?.ok_or_else(full)?;
        let about = Entry { object: hold.object(), ..self.about(&requested)? };
        self.host.note(&reader, rule.event, about).await?;
        Ok(Response::new(api::PlaceHoldResponse { id: hold.id }))
    }

    /// The entry is in the log before the hold ends: no hold is lost unnoticed.
    pub(super) async fn release(
        &self,
        request: &Request<api::ReleaseHoldRequest>,
    ) -> Result<Response<api::ReleaseHoldResponse>, Status> {
        let rule = &rules::RELEASE_HOLD;
        let reader: AuditReader = self.host.admit(request, rule).await?;
        let permit = self.host.begin(&reader, &self.reads)?;
        let (data, vault, id) = (self.data.clone(), self.vault.clone(), request.get_ref().id);
        // A hold that the file has lost is still in the log, until it is released.
        let find = move || {
            let in_file = Holds::read(&data)?.holds.iter().find(|hold| hold.id == id).map(Hold::released_object);
            Ok(match in_file {
                None => logged_state::logged_state(&data, &vault)?.lost_hold(id),
                found => found,
            })
        };
        let unknown = || refused(Refusal::with(Reason::ObjectUnknown, format!("there is no hold {id}")));
        let object = reading(&permit, find).await?.ok_or_else(unknown)?;
        self.host.note(&reader, rule.event, Entry { object, ..Entry::default() }).await?;
        let data = self.data.clone();
        reading(&permit, move || Ok(Holds::change(&data, |holds| holds.release(id))?)).await?;
        Ok(Response::new(api::ReleaseHoldResponse {}))
    }

    /// Returns an entry with the persons of a query.
    pub(super) fn about(&self, query: &api::Query) -> Result<Entry, Status> {
        let ids: Vec<&String> =
            std::iter::once(&query.subject).chain(&query.other_subjects).filter(|id| !id.is_empty()).collect();
        if ids.is_empty() && query.official.is_empty() {
            return Ok(Entry::default());
        }
        let keys = self.pseudonyms.keys(clock::now_us());
        let keys = keys.map_err(|error| super::failed(error.into()))?;
        let official = (!query.official.is_empty()).then(|| keys.pseudonym(PersonKind::Official, &query.official));
        let subjects = ids.into_iter().map(|id| keys.pseudonym(PersonKind::Subject, id)).collect();
        Ok(Entry { subjects, official, ..Entry::default() })
    }
}
