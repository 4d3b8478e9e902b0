//! What a change of a grant would have refused: each exchange that the grant admitted is decided again, as [`access::still_covers`] decides
//! about a call that is in progress, with the changed grant and the client's other grants.

use super::last_use::unread;
use super::messages::failed;
use super::{api, changes};
use crate::access;
use crate::audit::AuditError;
use crate::audit::index::SearchIndex;
use crate::audit::query::Query;
use crate::audit::search;
use crate::contract::{ContractSet, Operation};
use crate::exchange_log::{Entry, Kind, LogOpener, clock};
use crate::registry::{Grant, GrantView, Store};
use crate::time_zone::{DAY_S, day};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tonic::Status;

/// How far back is looked.
const PERIOD_DAYS: i64 = 30;
/// Longest time that a call looks.
const PATIENCE: Duration = Duration::from_secs(1);
/// Entries that are found at once.
const PAGE: usize = 500;
/// Maximum number of fields that are named.
const MAX_FIELDS: usize = 50;

/// Counts what a change would have refused.
pub(super) fn preview(
    opener: &LogOpener,
    store: &dyn Store,
    contracts: &ContractSet,
    message: api::ChangeGrantRequest,
) -> Result<api::PreviewGrantChangeResponse, Status> {
    let until = Instant::now() + PATIENCE;
    let (before, after) = changes::changed(store, contracts, message)?;
    let view = store.view(&before.client).map_err(failed)?;
    let others = view.grants.iter().filter(|grant| *grant.id != *before.id).collect();
    let mut counts = Counts::new(contracts, &after, others);
    let from_us = clock::now_us() - PERIOD_DAYS * DAY_S * 1_000_000;
    let mut read = || -> Result<bool, AuditError> {
        let (reader, index) = (opener.open()?, SearchIndex::of_log(opener));
        let query = Query { grant: Some(before.id.clone()), from_us: Some(from_us), ..Query::default() };
        let mut next = Some(u64::MAX);
        while next.is_some() && Instant::now() < until {
            let page = search::page(&reader, index.as_ref(), &query, next, PAGE, Some(until))?;
            page.found.iter().for_each(|found| counts.take(&found.entry));
            next = page.before;
        }
        Ok(next.is_none())
    };
    let complete = read().map_err(|error| unread(&error))?;
    Ok(counts.response(complete))
}

/// What was counted so far.
struct Counts<'c> {
    contracts: &'c ContractSet,
    changed: GrantView,
    others: Vec<&'c GrantView>,
    exchanges: u64,
    by_rule: BTreeMap<&'static str, u64>,
    /// Calls that would have been admitted, by day.
    by_day: BTreeMap<i64, u64>,
    reduced: u64,
    fields: BTreeSet<String>,
    since_us: i64,
}

impl<'c> Counts<'c> {
    fn new(contracts: &'c ContractSet, changed: &Grant, others: Vec<&'c GrantView>) -> Self {
        // A change that needs a second person is looked at as if it were approved.
        let changed = GrantView { approved: true, ..GrantView::from(changed) };
        let (by_rule, by_day, fields) = Default::default();
        Counts { contracts, changed, others, exchanges: 0, by_rule, by_day, reduced: 0, fields, since_us: 0 }
    }

    fn take(&mut self, entry: &Entry) {
        let Some(operation) = self.contracts.operation(&format!("/{}", entry.operation)) else { return };
        if entry.kind() != Kind::Exchange {
            return;
        }
        self.exchanges += 1;
        self.since_us = entry.time_us;
        let from = entry.peer.parse::<SocketAddr>().ok().map(|peer| peer.ip().to_canonical());
        let then = entry.time_us.div_euclid(1_000_000);
        let covers = |grant: &&GrantView| grant.in_force(then) && rule(grant, operation, entry, from).is_none();
        match rule(&self.changed, operation, entry, from) {
            // Another grant of the client admits it.
            Some(_) if self.others.iter().any(covers) => {}
            Some(rule) => *self.by_rule.entry(rule).or_default() += 1,
            None => {
                *self.by_day.entry(day(then)).or_default() += 1;
                self.narrow(operation, entry);
            }
        }
    }

    fn narrow(&mut self, operation: &Operation, entry: &Entry) {
        let mask = access::mask(&self.changed, operation);
        let lost =
            |path: &&String| operation.response_fields.has(path) && !operation.response_fields.allows(&mask, path);
        let lost: Vec<&String> = entry.fields.iter().filter(lost).collect();
        if !lost.is_empty() {
            self.reduced += 1;
            let room = MAX_FIELDS.saturating_sub(self.fields.len());
            self.fields.extend(lost.into_iter().take(room).cloned());
        }
    }

    fn response(mut self, complete: bool) -> api::PreviewGrantChangeResponse {
        let quota = self.changed.daily_quota;
        let over: u64 = self.by_day.values().map(|calls| calls.saturating_sub(quota)).sum();
        if quota > 0 && over > 0 {
            self.by_rule.insert("quota", over);
        }
        let count = |(rule, exchanges): (&str, u64)| api::RuleCount { rule: rule.to_owned(), exchanges };
        api::PreviewGrantChangeResponse {
            exchanges: self.exchanges,
            refused: self.by_rule.values().sum(),
            by_rule: self.by_rule.into_iter().map(count).collect(),
            reduced: self.reduced,
            fields: self.fields.into_iter().collect(),
            since: self.since_us.div_euclid(1_000_000),
            complete,
        }
    }
}

/// The rule by which a grant would not admit an exchange; `None` if it would. Its period is left out: the change is about calls to come.
fn rule(grant: &GrantView, operation: &Operation, entry: &Entry, from: Option<IpAddr>) -> Option<&'static str> {
    let purpose = Some(entry.purpose.as_str()).filter(|purpose| !purpose.is_empty());
    if !grant.scopes.contains(&operation.scope) {
        return Some("scope");
    }
    let from = from?;
    match access::still_covers(grant, operation, purpose, from, grant.not_before) {
        Ok(()) => None,
        Err(refusal) if refusal.reason == crate::status::Reason::PurposeNotGranted => Some("purpose"),
        Err(_) => Some("network"),
    }
}
