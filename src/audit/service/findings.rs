//! Anomalies, their reviews, and how many are open.

use super::status::reason;
use super::{Audit, AuditError, api, complete, invalid, reading, refused, rules};
use crate::access::reads::ReadPermit;
use crate::audit::anomalies::{self, Finding};
use crate::audit::index::SearchIndex;
use crate::audit::reviews::{Reviews, object_of};
use crate::exchange_log::{Entry, LogOpener, clock};
use crate::status::{Reason, Refusal};
use crate::time_zone::{day, day_begins};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status};

/// Days whose open findings are counted, today included.
const OPEN_DAYS: i64 = 7;
/// Shortest time from one count of open findings to the next.
const COUNT_EVERY: Duration = Duration::from_secs(300);
/// A count takes at most this part of a thread: the next one waits for so many times its duration.
const COUNT_SHARE: u32 = 20;

/// Checks a period.
fn check(from_us: i64, to_us: i64) -> Result<(), Status> {
    if from_us >= to_us || to_us.saturating_sub(from_us) > anomalies::LONGEST_US {
        return Err(invalid(
            "to_us",
            "must be after from_us, by at most 31 days",
            "phải sau thời điểm đầu, không quá 31 ngày",
        ));
    }
    Ok(())
}

fn missing() -> Status {
    refused(Refusal::with(Reason::ObjectUnknown, "this gateway keeps no search index (log.index)"))
}

fn message(finding: Finding, reviews: &Reviews) -> api::Finding {
    let review = reviews.of(&finding).cloned();
    let review =
        review.map(|one| api::Review { by: one.by, time_us: one.time_us, reason: one.reason, entry: one.entry });
    api::Finding {
        id: finding.id(),
        rule: finding.rule.as_str().into(),
        explanation: finding.explanation.english,
        explanation_vi: finding.explanation.vietnamese,
        client: finding.client,
        entries: finding.entries,
        count: finding.count,
        review,
    }
}

impl Audit {
    pub(super) async fn findings(
        &self,
        permit: &ReadPermit,
        api::ListFindingsRequest { from_us, to_us }: api::ListFindingsRequest,
    ) -> Result<Response<api::ListFindingsResponse>, Status> {
        check(from_us, to_us)?;
        let found = self.with_log(permit, move |reader, index| {
            let Some(index) = index else { return Ok(None) };
            let found = anomalies::findings(reader, index, from_us, to_us)?;
            let reviews = Reviews::read(reader, Some(index), from_us)?;
            Ok(Some((found, reviews, complete(reader, false)?)))
        });
        let (found, reviews, complete) = found.await?.ok_or_else(missing)?;
        let findings = found.into_iter().map(|one| message(one, &reviews)).collect();
        Ok(Response::new(api::ListFindingsResponse { findings, complete: Some(complete) }))
    }

    pub(super) async fn review(
        &self,
        request: &Request<api::ReviewFindingRequest>,
    ) -> Result<Response<api::ReviewFindingResponse>, Status> {
        let rule = &rules::REVIEW_FINDING;
        let reader = self.host.admit(request, rule).await?;
        let permit = self.host.begin(&reader, &self.reads)?;
        let api::ReviewFindingRequest { id, from_us, to_us, reason: why } = request.get_ref().clone();
        check(from_us, to_us)?;
        let justification = reason(&why)?.to_owned();
        let wanted = id.clone();
        let stands = self.with_log(&permit, move |reader, index| {
            let Some(index) = index else { return Ok(None) };
            Ok(Some(anomalies::findings(reader, index, from_us, to_us)?.iter().any(|one| one.id() == wanted)))
        });
        if !stands.await?.ok_or_else(missing)? {
            let unknown = "there is no finding with this id: it may have newer entries by now, list them again";
            return Err(refused(Refusal::with(Reason::ObjectUnknown, unknown)));
        }
        let about = Entry { object: object_of(&id), justification, ..Entry::default() };
        self.host.note(&reader, rule.event, about).await?;
        Ok(Response::new(api::ReviewFindingResponse {}))
    }

    /// Returns how many findings of the last days nobody has reviewed; `None` until they are counted. The findings are looked for in the
    /// background, so that nobody waits for them; the reviews are read at once.
    pub(super) async fn open_findings(&self, permit: &ReadPermit) -> Result<Option<u64>, Status> {
        if self.open_findings.begin(Instant::now())
            && let Ok(own) = self.streams.begin("open findings")
        {
            let (opener, open) = (self.opener.clone(), self.open_findings.clone());
            tokio::spawn(async move {
                let began = Instant::now();
                let found = reading(&own, move || search(&opener)).await.ok().flatten();
                open.end(found, began);
            });
        }
        let Some((from_us, found)) = self.open_findings.found() else { return Ok(None) };
        let reviews = self.with_log(permit, move |reader, index| Reviews::read(reader, index, from_us)).await?;
        let open = found.iter().filter(|(group, newest)| reviews.of_group(group, *newest).is_none());
        Ok(Some(open.count() as u64))
    }
}

/// When a period began, and its findings: what each is about, and its newest entry.
type FoundSince = (i64, Arc<Vec<(String, u64)>>);

fn search(opener: &LogOpener) -> Result<Option<FoundSince>, AuditError> {
    let (reader, Some(index)) = (opener.open()?, SearchIndex::of_log(opener)) else {
        return Ok(None);
    };
    let now = clock::now_us();
    let from_us = day_begins(day(now.div_euclid(1_000_000)) - (OPEN_DAYS - 1)) * 1_000_000;
    let found = anomalies::findings(&reader, &index, from_us, now)?;
    Ok(Some((from_us, Arc::new(found.iter().map(|one| (one.group(), one.newest())).collect()))))
}

/// The findings of the last days, as they were looked for last.
#[derive(Debug, Default)]
pub(super) struct OpenFindings(Mutex<OpenState>);

#[derive(Debug, Default)]
struct OpenState {
    found: Option<FoundSince>,
    /// Before this time, nothing is looked for; `None`: it never was.
    next: Option<Instant>,
}

impl OpenFindings {
    fn state(&self) -> std::sync::MutexGuard<'_, OpenState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether it is time to look for them; for one caller only.
    fn begin(&self, now: Instant) -> bool {
        let mut state = self.state();
        let due = state.next.is_none_or(|next| next <= now);
        if due {
            state.next = Some(now + COUNT_EVERY);
        }
        due
    }

    fn end(&self, found: Option<FoundSince>, began: Instant) {
        let mut state = self.state();
        state.next = Some(Instant::now() + COUNT_EVERY.max(began.elapsed() * COUNT_SHARE));
        state.found = found.or(state.found.take());
    }

    fn found(&self) -> Option<FoundSince> {
        self.state().found.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_looked_for_by_one_caller_and_not_all_the_time() {
        let (open, now) = (OpenFindings::default(), Instant::now());
        assert!(open.begin(now) && !open.begin(now) && open.found().is_none());
        open.end(Some((7, Arc::new(vec![("UNUSUAL_RATE-aa".into(), 3)]))), now);
        assert!(!open.begin(Instant::now()) && open.begin(Instant::now() + COUNT_EVERY));
        // What was found stays where the log cannot be read.
        open.end(None, now);
        assert_eq!(open.found().map(|(from, found)| (from, found.len())), Some((7, 1)));
    }
}
