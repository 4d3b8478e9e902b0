//! What a client has called itself: how its exchanges of the last days ended, and its newest failures. For its developers, by the
//! client's own certificate: nobody else's exchanges are in it, and no ids of people.

use super::{Audit, AuditResult, api, host, reading, refused};
use crate::audit::AuditError;
use crate::audit::index::SearchIndex;
use crate::audit::query::{Query, outcome};
use crate::audit::search;
use crate::audit::statistics::{HOUR_US, statistics};
use crate::exchange_log::reader::{Found, LogReader};
use crate::exchange_log::{Kind, clock};
use crate::status::Reason;
use crate::time_zone::DAY_S;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tonic::{Request, Response};

/// Days that are looked at by default, and at most.
const DAYS: (u32, u32) = (7, 30);
/// Most failures in a response.
const MAX_FAILURES: usize = 20;
/// Entries that are found at once.
const PAGE: usize = 500;
/// Longest time that failures are looked for.
const PATIENCE: Duration = Duration::from_millis(500);
/// Most counts: hours of operations and outcomes. A client beyond them sees its newest failures only.
const MAX_COUNTS: usize = 50_000;

impl Audit {
    pub(super) async fn own_use(&self, request: Request<api::GetOwnUseRequest>) -> AuditResult<api::GetOwnUseResponse> {
        let no_client = || refused(Reason::ClientUnknown.into());
        let registry = self.host.registry().ok_or_else(no_client)?;
        let caller = host::caller(&request)?;
        let client = caller.peer().ok_or_else(no_client)?.identify(&registry.load()).map_err(refused)?;
        let permit = self.receipts.begin(&client.client.id).map_err(refused)?;
        let days = match request.into_inner().days {
            0 => DAYS.0,
            days => days.min(DAYS.1),
        };
        let from_us = clock::now_us() - i64::from(days) * DAY_S * 1_000_000;
        let (opener, id) = (self.opener.clone(), client.client.id.clone());
        let read = move || {
            let (reader, index) = (opener.open()?, SearchIndex::of_log(&opener));
            // Whole hours: the index counts those.
            let from_us = Some(from_us.div_euclid(HOUR_US) * HOUR_US);
            let query = Query { client: Some(id), from_us, ..Query::default() };
            let uses = uses(&reader, index.as_ref(), &query)?;
            Ok((uses, failures(&reader, index.as_ref(), &query)?))
        };
        let ((uses, counted), failures) = reading(&permit, read).await?;
        let client = client.client.id.clone();
        Ok(Response::new(api::GetOwnUseResponse { client, days, uses, counted, failures }))
    }
}

/// Counts by operation and outcome; without the index, or with too many, none.
fn uses(
    reader: &LogReader,
    index: Option<&SearchIndex>,
    query: &Query,
) -> Result<(Vec<api::OwnUse>, bool), AuditError> {
    if index.is_none() {
        return Ok((Vec::new(), false));
    }
    let Some(counts) = statistics(reader, index, query, true, MAX_COUNTS)?.counts else {
        return Ok((Vec::new(), false));
    };
    let mut sums: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for one in counts {
        let sum = sums.entry((one.operation, one.outcome)).or_default();
        *sum = (sum.0 + one.exchanges, sum.1 + one.total_us);
    }
    let uses = sums.into_iter().map(|((operation, outcome), (exchanges, total_us))| api::OwnUse {
        operation,
        outcome,
        exchanges,
        mean_us: total_us / exchanges.max(1),
    });
    Ok((uses.collect(), true))
}

/// The newest failures, newest first.
fn failures(
    reader: &LogReader,
    index: Option<&SearchIndex>,
    query: &Query,
) -> Result<Vec<api::OwnFailure>, AuditError> {
    let until = Instant::now() + PATIENCE;
    let (mut failures, mut next) = (Vec::new(), Some(u64::MAX));
    while next.is_some() && failures.len() < MAX_FAILURES && Instant::now() < until {
        let page = search::page(reader, index, query, next, PAGE, Some(until))?;
        let failed = |found: &Found| found.entry.kind() == Kind::Exchange && outcome(&found.entry) != "OK";
        failures.extend(page.found.into_iter().filter(failed).map(failure));
        next = page.before;
    }
    failures.truncate(MAX_FAILURES);
    Ok(failures)
}

fn failure(found: Found) -> api::OwnFailure {
    let exchange_id = found.entry.id_text();
    let entry = found.entry;
    api::OwnFailure {
        exchange_id,
        time_us: entry.time_us,
        operation: entry.operation,
        reason: entry.reason,
        fault: entry.fault,
        source_code: entry.source_code,
        index: found.index,
    }
}

/// Returns whether a method is for the client of a certificate, beside auditors or alone.
pub(super) fn is_client_s(method: &str) -> bool {
    [super::rules::GET_RECEIPT.method, super::rules::GET_OWN_USE.method].contains(&method)
}
