//! The log's progress, and the alarms that a person must acknowledge.

use super::{Audit, AuditError, api, invalid, reading, refused, rules};
use crate::access::reads::ReadPermit;
use crate::audit::index::{self, SearchIndex};
use crate::exchange_log::disk::LocalDisk;
use crate::exchange_log::reader::{self, LogReader};
use crate::exchange_log::{Entry, LogOpener};
use crate::registry::admin_event::MAX_JUSTIFICATION;
use crate::status::{Reason, Refusal};
use crate::witness::alarm::{self, ForkAlarm};
use std::path::Path;
use tonic::{Request, Response, Status};

fn status(opener: &LogOpener) -> Result<api::GetStatusResponse, AuditError> {
    let (reader, data, vault) = (opener.open()?, opener.data(), opener.vault());
    let alarm = |alarm: ForkAlarm| api::Alarm {
        id: alarm.id(),
        text: alarm.to_string(),
        evidence: alarm.evidence.unwrap_or_default(),
    };
    let needs_witnesses = reader::policy(&LocalDisk, &reader.paths().tiles)?.needs_witnesses();
    let published = if needs_witnesses { reader.published()? } else { None };
    let index = SearchIndex::read(data, vault);
    let verified = index::verified(data, vault);
    Ok(api::GetStatusResponse {
        has_index: index.is_some(),
        indexed: index.map_or(0, |index| index.indexed(&reader)),
        index_verified: verified.map_or(0, |verified| verified.time),
        index_verified_entries: verified.map_or(0, |verified| verified.entries),
        index_differences: verified.map_or(0, |verified| verified.differences),
        index_rebuilt: index::rebuilt(),
        entries: reader.size(),
        sealed: reader.sealed(),
        needs_witnesses,
        cosigned: published.map_or(0, |published| published.size),
        alarms: alarm::read(data).map(alarm).into_iter().collect(),
        open_findings: None,
    })
}

fn checkpoint(data: &Path) -> Result<api::GetCheckpointResponse, AuditError> {
    let reader = LogReader::sealed_only(data)?;
    let checkpoint = reader.published()?.map(|one| one.note).unwrap_or_default();
    let policy = reader::policy(&LocalDisk, &reader.paths().tiles)?;
    // Whenever they were made: this only shows them. What counts was decided when the checkpoint was published.
    let signed = policy.cosignatures(&checkpoint, &(0..=u64::MAX)).unwrap_or_default();
    let witness = |name: &String| {
        let time = signed.iter().find(|one| one.witness == *name).map_or(0, |one| one.time);
        api::CheckpointWitness { name: name.clone(), time: i64::try_from(time).unwrap_or(i64::MAX) }
    };
    let witnesses = policy.witnesses.iter().map(|one| witness(&one.name)).collect();
    let (verifier_key, latest) = (reader.verifier().to_string(), reader.note().to_owned());
    Ok(api::GetCheckpointResponse { checkpoint, verifier_key, latest, witnesses })
}

/// Returns a reason in somebody's own words without blanks around it, if it is one.
pub(super) fn reason(text: &str) -> Result<&str, Status> {
    let reason = text.trim();
    if reason.is_empty() || reason.chars().count() > MAX_JUSTIFICATION || reason.chars().any(char::is_control) {
        let expected = format!("must say what was found out: 1 to {MAX_JUSTIFICATION} characters, no controls");
        let vietnamese = format!("cần nêu kết quả xem xét: 1 đến {MAX_JUSTIFICATION} ký tự, không có ký tự điều khiển");
        return Err(invalid("reason", &expected, &vietnamese));
    }
    Ok(reason)
}

impl Audit {
    pub(super) async fn status(&self, permit: &ReadPermit) -> Result<Response<api::GetStatusResponse>, Status> {
        let opener = self.opener.clone();
        let status = reading(permit, move || status(&opener)).await?;
        let open_findings = if status.has_index { self.open_findings(permit).await? } else { None };
        Ok(Response::new(api::GetStatusResponse { open_findings, ..status }))
    }

    pub(super) async fn checkpoint(&self, permit: &ReadPermit) -> Result<Response<api::GetCheckpointResponse>, Status> {
        let data = self.data.clone();
        reading(permit, move || checkpoint(&data)).await.map(Response::new)
    }

    /// The entry is in the log before the alarm ends: an alarm cannot disappear without acknowledgement.
    pub(super) async fn acknowledge(
        &self,
        request: &Request<api::AcknowledgeAlarmRequest>,
    ) -> Result<Response<api::AcknowledgeAlarmResponse>, Status> {
        let rule = &rules::ACKNOWLEDGE_ALARM;
        let reader = self.host.admit(request, rule).await?;
        let permit = self.host.begin(&reader, &self.reads)?;
        let api::AcknowledgeAlarmRequest { id: wanted, reason: why } = request.get_ref();
        let reason = reason(why)?;
        let data = self.data.clone();
        let standing = reading(&permit, move || Ok(alarm::read(&data))).await?;
        if standing.as_ref().map(ForkAlarm::id).as_ref() != Some(wanted) {
            return Err(refused(Refusal::with(Reason::ObjectUnknown, "there is no alarm with this id")));
        }
        let object = format!("alarm:{wanted}");
        let about = Entry { object, justification: reason.to_owned(), ..Entry::default() };
        self.host.note(&reader, rule.event, about).await?;
        let data = self.data.clone();
        reading(&permit, move || Ok(alarm::clear(&data)?)).await?;
        Ok(Response::new(api::AcknowledgeAlarmResponse {}))
    }
}
