//! Legal holds: entries that no pruning may touch. An auditor places and releases them, remotely or as the folder's
//! owner.

use super::host::AuditReader;
use super::{Audit, api, invalid, reading, refused, rules};
use crate::access::reads::ReadPermit;
use crate::audit::logged_state;
use crate::audit::retention::{Hold, Holds, MAX_HOLDS};
use crate::contract::formats::{self, Format};
use crate::exchange_log::pseudonym::PersonKind;
use crate::exchange_log::{Entry, clock};
use crate::status::{Reason, Refusal};
use tonic::{Request, Response, Status};

impl Audit {
    pub(super) async fn holds(&self, permit: &ReadPermit) -> Result<Response<api::ListHoldsResponse>, Status> {
        let data = self.data.clone();
        let holds = reading(permit, move || Ok(Holds::read(&data)?)).await?.holds.into_iter();
        let holds = holds.map(|hold| api::Hold { id: hold.id, case_number: hold.case, by: hold.by, since: hold.since });
        Ok(Response::new(api::ListHoldsResponse { holds: holds.collect() }))
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
            return Err(invalid("case_number", "must be a document or case number of letters, digits and . - _ /"));
        }
        let requested = query.unwrap_or_default();
        if requested == api::Query::default() {
            return Err(invalid("query", "must have a condition: a hold on every entry would end all pruning"));
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
