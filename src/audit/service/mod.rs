//! `ndxp.audit.v1`: for auditors, by the role of their certificate's name; and receipts for the client of an exchange.
//! All reads of the log's files run on separate threads, never on one that serves calls.

mod exports;
mod findings;
mod holds;
mod host;
mod messages;
mod own_use;
mod receipts;
mod rules;
mod status;
mod streams;

use super::index::SearchIndex;
use super::query::{Query, known_as};
use super::search::{self, SearchPage};
use super::{AuditError, periods, statistics};
use crate::access::reads::{ReadPermit, ReadPermits, limits};
use crate::access::staff::{RoleRule, StaffAuthorizer};
use crate::contract::formats::{self, Format};
use crate::contract::validate::Violation;
use crate::exchange_log::proof;
use crate::exchange_log::pseudonym::{PersonKind, Pseudonyms};
use crate::exchange_log::reader::{Found, LogReader};
use crate::exchange_log::{Entry, ExchangeLog, LogError, LogOpener};
use crate::identity::principal::Principal;
use crate::keyfile::Vault;
use crate::registry::sqlite::SqliteStore;
use crate::registry::{Snapshot, now};
use crate::status::{Reason, Refusal};
use crate::work::WorkLimits;
use arc_swap::ArcSwap;
use exports::ExportFiles;
use findings::OpenFindings;
use holds::HoldCounts;
use host::Host;
use messages::{complete, count_message, entry_message, too_many_counts};
use receipts::ReceiptTarget;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status};

/// Messages and service, as generated.
#[allow(missing_docs, clippy::all, clippy::missing_errors_doc)]
pub mod api {
    include!(concat!(env!("OUT_DIR"), "/ndxp.audit.v1.rs"));
}

use api::audit_service_server::AuditService;
pub use api::audit_service_server::AuditServiceServer;

/// Default and maximum entries of a page.
const PAGE: (u32, u32) = (100, 1_000);
/// Maximum number of other ids of a person in a search.
const MAX_OTHER_IDS: usize = 15;
/// Longest time to find a page.
const PATIENCE: Duration = Duration::from_millis(500);
/// Longest search of the log for an exchange that the index does not have.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(5);
/// Longest search of a period without its key.
const KEY_PATIENCE: Duration = Duration::from_secs(5);
/// Maximum number of counts in one response: a month of hours of a province's busy systems and operations.
const MAX_COUNTS: usize = 100_000;
/// Limits of auditors' concurrent reads, including streams. A page holds some megabytes at most.
const BY_STAFF: WorkLimits = limits(8, 64, 8, 50, 200);
/// Concurrent streams of auditors: each holds a page, and lasts for as long as its reader likes.
const STREAMS: WorkLimits = limits(4, 32, 4, 5, 20);
/// Limits of clients' concurrent reads: receipts, and their own use. On separate threads: clients never delay an auditor.
const BY_CLIENTS: WorkLimits = limits(4, 256, 4, 50, 100);

/// The service.
#[derive(Clone)]
pub struct Audit {
    data: PathBuf,
    vault: Vault,
    opener: Arc<LogOpener>,
    host: Host,
    pseudonyms: Arc<Pseudonyms>,
    reads: Arc<ReadPermits>,
    streams: Arc<ReadPermits>,
    receipts: Arc<ReadPermits>,
    open_findings: Arc<OpenFindings>,
    hold_counts: Arc<HoldCounts>,
    exports: Arc<ExportFiles>,
}

type AuditResult<T> = Result<Response<T>, Status>;

fn refused(refusal: Refusal) -> Status {
    refusal.to_status("")
}

/// A fault of a field, in English and Vietnamese.
fn invalid(field: &str, description: &str, vietnamese: &str) -> Status {
    refused(Refusal::fields(vec![Violation::new(field, description).in_vietnamese(vietnamese)]))
}

/// An auditor gets the file and the position of an error: no error of the log contains an entry's content.
fn failed(error: AuditError) -> Status {
    tracing::error!(%error, "the exchange log cannot be read for an auditor");
    refused(Refusal::with(Reason::ExchangeLogUnavailable, format!("it is not what was written: {error}")))
}

/// A client gets no details.
fn failed_for_client(error: AuditError) -> Status {
    tracing::error!(%error, "the exchange log cannot be read for a client's receipt");
    refused(Refusal::with(Reason::ExchangeLogUnavailable, "it cannot be read: see the gateway's own log"))
}

fn unknown() -> Status {
    refused(Refusal::with(Reason::ObjectUnknown, "the log has no such exchange"))
}

/// Runs off the threads that serve calls, as soon as one of the few reading threads is free.
async fn reading<T: Send + 'static>(
    permit: &ReadPermit,
    read: impl FnOnce() -> Result<T, AuditError> + Send + 'static,
) -> Result<T, Status> {
    let read = permit.run(read).await;
    read.ok_or_else(|| refused(Reason::ExchangeLogUnavailable.into()))?.map_err(failed)
}

/// Returns the entry at an index, if there is one.
fn entry_at(reader: &LogReader, index: u64) -> Result<Vec<Found>, AuditError> {
    let entry = if index < reader.size() { reader.entry(index)? } else { None };
    Ok(entry.map(|entry| Found { index, entry }).into_iter().collect())
}

fn exchange_id(text: &str) -> Result<[u8; 16], Status> {
    uuid::Uuid::parse_str(text)
        .map(uuid::Uuid::into_bytes)
        .map_err(|_| invalid("exchange_id", "must be a UUID", "phải là UUID"))
}

impl Audit {
    /// Opens the service over a data folder.
    ///
    /// # Errors
    /// The keys of pseudonyms cannot be opened.
    pub fn new(
        data: &Path,
        door: StaffAuthorizer,
        registry: Arc<ArcSwap<Snapshot>>,
        log: ExchangeLog,
        vault: &Vault,
    ) -> Result<Self, LogError> {
        let [reads, streams, receipts] = ["staff", "streams", "receipts"].map(|kind| door.reads_refused(kind));
        let (reads, streams) = (ReadPermits::counted(BY_STAFF, reads), ReadPermits::counted(STREAMS, streams));
        let receipts = ReadPermits::counted(BY_CLIENTS, receipts);
        Ok(Audit { reads, streams, receipts, ..Self::at(data, Host::Gateway { door, registry, log }, vault)? })
    }

    /// Makes the service for the owner of a data folder, in their own process. Requests that name a person are recorded
    /// in the registry, which moves them into the log; `None` for a copy of a log, which has no registry: the copying
    /// was recorded where it took place.
    ///
    /// # Errors
    /// As for [`Audit::new`].
    pub fn local(data: &Path, notes: Option<SqliteStore>, vault: &Vault) -> Result<Self, LogError> {
        Self::at(data, Host::owner(data, notes), vault)
    }

    fn at(data: &Path, host: Host, vault: &Vault) -> Result<Self, LogError> {
        let pseudonyms = Arc::new(Pseudonyms::open(&crate::exchange_log::pseudonym::folder(data))?);
        let (reads, streams, receipts) =
            (ReadPermits::new(BY_STAFF), ReadPermits::new(STREAMS), ReadPermits::new(BY_CLIENTS));
        let (data, vault, opener) = (data.to_owned(), vault.clone(), Arc::new(LogOpener::new(data, vault)));
        let (open_findings, hold_counts, exports) = Default::default();
        Ok(Audit {
            data,
            vault,
            opener,
            host,
            pseudonyms,
            reads,
            streams,
            receipts,
            open_findings,
            hold_counts,
            exports,
        })
    }

    /// Reads the log, and its index if there is one, on a separate thread.
    async fn with_log<T: Send + 'static>(
        &self,
        permit: &ReadPermit,
        read: impl FnOnce(&LogReader, Option<&SearchIndex>) -> Result<T, AuditError> + Send + 'static,
    ) -> Result<T, Status> {
        let opener = self.opener.clone();
        reading(permit, move || read(&opener.open()?, SearchIndex::of_log(&opener).as_ref())).await
    }

    /// Checks whether a caller may call a method, before its message is read.
    ///
    /// # Errors
    /// As [`StaffAuthorizer::admit`]; `OPERATION_UNKNOWN` if there is no such method.
    pub async fn may_call(&self, caller: &Principal, method: &str) -> Result<(), Refusal> {
        let rule = rules::of(method).ok_or(Reason::OperationUnknown)?;
        let Host::Gateway { door, registry, .. } = &self.host else { return Err(Reason::StaffUnknown.into()) };
        if let Some(peer) = caller.peer()
            && own_use::is_client_s(method)
            && peer.identify(&registry.load()).is_ok()
        {
            return peer.check_time(now());
        }
        door.admit(caller, rule).await.map(|_| ())
    }

    /// Admits an auditor for reading.
    async fn auditor<T>(&self, request: &Request<T>, rule: &RoleRule) -> Result<ReadPermit, Status> {
        let reader = self.host.admit(request, rule).await?;
        self.host.begin(&reader, &self.reads)
    }

    /// Admits an auditor's query. A query that names a person is in the log, with its reason, before the response.
    async fn asked<T>(
        &self,
        request: &Request<T>,
        rule: &RoleRule,
        (query, first): (Option<api::Query>, bool),
        reason: &str,
        reads: &Arc<ReadPermits>,
    ) -> Result<(Query, ReadPermit), Status> {
        let reader = self.host.admit(request, rule).await?;
        let permit = self.host.begin(&reader, reads)?;
        let asked = query.unwrap_or_default();
        let read = self.query(asked.clone())?;
        if read.has_subject_filter() {
            if reason.len() > 64 || formats::check(Format::Code, reason).is_err() {
                let expected =
                    "must say why a person is searched for: a document or case number of letters, digits and . - _ /";
                let vietnamese = "cần nêu lý do tra cứu một người: số văn bản hoặc vụ việc gồm chữ, số và . - _ /";
                return Err(invalid("reason", expected, vietnamese));
            }
            // Before a key may be made: a missing one must not be replaced unnoticed. The pages after the first rely on
            // the first one's check.
            if first {
                self.check_keys(&permit, &read).await?;
            }
            let about = Entry { object: format!("reason:{reason}"), ..self.about(&asked)? };
            self.host.note(&reader, rule.event, about).await?;
        }
        Ok((read, permit))
    }

    /// A search for a person over a period with a missing key would find nothing, and look like a result.
    async fn check_keys(&self, permit: &ReadPermit, query: &Query) -> Result<(), Status> {
        let (keys, times) = (self.pseudonyms.clone(), (query.from_us, query.to_us));
        let missing = self.with_log(permit, move |reader, index| {
            periods::without_key(reader, index, &keys, times, Instant::now() + KEY_PATIENCE)
        });
        match missing.await?.as_slice() {
            [] => Ok(()),
            some => Err(refused(Refusal::with(Reason::PseudonymKeyMissing, format!("no key of {}", some.join(", "))))),
        }
    }

    fn query(&self, query: api::Query) -> Result<Query, Status> {
        let text = |text: String| (!text.is_empty()).then_some(text);
        let time = |time: i64| (time != 0).then_some(time);
        if query.other_subjects.len() > MAX_OTHER_IDS || query.other_subjects.iter().any(String::is_empty) {
            return Err(invalid(
                "other_subjects",
                "must be at most 15 ids, none empty",
                "tối đa 15 số, không để trống",
            ));
        }
        let people = |kind, ids: Vec<String>| {
            let mut known = Vec::new();
            for id in ids.iter().filter(|id| !id.is_empty()) {
                known.extend(known_as(&self.pseudonyms, kind, id).map_err(|error| failed(error.into()))?);
            }
            Ok::<_, Status>(Some(known).filter(|_| ids.iter().any(|id| !id.is_empty())))
        };
        let subjects = std::iter::once(query.subject).chain(query.other_subjects).collect();
        Ok(Query {
            client: text(query.client),
            agency: text(query.agency),
            source: text(query.source),
            operation: text(query.operation),
            scope: text(query.scope),
            outcome: text(query.outcome),
            purpose: text(query.purpose),
            subject: people(PersonKind::Subject, subjects)?,
            official: people(PersonKind::Official, vec![query.official])?,
            from_us: time(query.from_us),
            to_us: time(query.to_us),
            exchange: text(query.exchange_id).map(|id| exchange_id(&id)).transpose()?,
            event: text(query.event),
            grant: text(query.grant),
            token: text(query.token),
        })
    }
}

#[tonic::async_trait]
impl AuditService for Audit {
    async fn search(&self, request: Request<api::SearchRequest>) -> AuditResult<api::SearchResponse> {
        let api::SearchRequest { query, page_size, page_token, reason, from_log } = request.get_ref().clone();
        let first = page_token.is_empty();
        let (query, permit) = self.asked(&request, &rules::SEARCH, (query, first), &reason, &self.reads).await?;
        let before = match page_token.as_str() {
            "" => None,
            token => Some(token.parse().map_err(|_| {
                invalid("page_token", "must be one that this service gave", "phải là mã trang do cổng trả về")
            })?),
        };
        let limit = if page_size == 0 { PAGE.0 } else { page_size.min(PAGE.1) } as usize;
        let page = self.with_log(&permit, move |reader, index| {
            let index = index.filter(|_| !from_log);
            let page = search::page(reader, index, &query, before, limit, Some(Instant::now() + PATIENCE))?;
            Ok((page, complete(reader, index.is_none())?))
        });
        let (SearchPage { found, before }, complete) = page.await?;
        Ok(Response::new(api::SearchResponse {
            entries: found.into_iter().map(entry_message).collect(),
            next_page_token: before.map(|at| at.to_string()).unwrap_or_default(),
            complete: Some(complete),
        }))
    }

    async fn get(&self, request: Request<api::GetRequest>) -> AuditResult<api::GetResponse> {
        let permit = self.auditor(&request, &rules::GET).await?;
        let api::GetRequest { exchange_id: id, index } = request.into_inner();
        let id = if index.is_none() { exchange_id(&id)? } else { [0; 16] };
        let found = self.with_log(&permit, move |reader, by_index| {
            let found = match index {
                None => search::exchange(reader, by_index, &id, Instant::now() + CONFIRMED_WITHIN)?,
                Some(at) => Some(entry_at(reader, at)?),
            };
            Ok((found, complete(reader, by_index.is_none())?))
        });
        let (found, complete) = found.await?;
        let unconfirmed = || {
            let detail = "the search index has no such exchange, and the log is too long to look through in one call: Search with \
                          exchange_id and from_log";
            refused(Refusal::with(Reason::ExchangeLogUnavailable, detail))
        };
        let entries: Vec<_> = found.ok_or_else(unconfirmed)?.into_iter().map(entry_message).collect();
        let complete = Some(complete);
        if entries.is_empty() { Err(unknown()) } else { Ok(Response::new(api::GetResponse { entries, complete })) }
    }

    type TailStream = streams::PartStream<api::LogEntry>;

    async fn tail(&self, request: Request<api::TailRequest>) -> AuditResult<Self::TailStream> {
        let api::TailRequest { query, from_index, reason } = request.get_ref().clone();
        let (query, permit) = self.asked(&request, &rules::TAIL, (query, true), &reason, &self.streams).await?;
        Ok(Response::new(streams::tail(self.data.clone(), self.host.watch_sealed(), query, from_index, permit)))
    }

    async fn statistics(&self, request: Request<api::StatisticsRequest>) -> AuditResult<api::StatisticsResponse> {
        let permit = self.auditor(&request, &rules::STATISTICS).await?;
        let api::StatisticsRequest { query, bucket } = request.into_inner();
        let query = self.query(query.unwrap_or_default())?;
        if !statistics::counts(&query) {
            return Err(invalid(
                "query",
                "client, agency, source, operation, outcome and time in whole hours are counted",
                "chỉ đếm theo hệ thống, cơ quan, nguồn, dịch vụ, kết quả và thời gian theo giờ tròn",
            ));
        }
        let days = bucket == api::Bucket::Day as i32;
        let counted = self.with_log(&permit, move |reader, index| {
            let counted = statistics::statistics(reader, index, &query, days, MAX_COUNTS)?;
            Ok((counted, complete(reader, index.is_none())?))
        });
        let (statistics::PeriodStatistics { counts, not_counted, .. }, complete) = counted.await?;
        let counts = counts.ok_or_else(too_many_counts)?;
        let (counts, complete) = (counts.into_iter().map(count_message).collect(), Some(complete));
        Ok(Response::new(api::StatisticsResponse { counts, complete, not_counted }))
    }

    type CountExchangesStream = streams::PartStream<api::CountExchangesPart>;

    async fn count_exchanges(
        &self,
        request: Request<api::CountExchangesRequest>,
    ) -> AuditResult<Self::CountExchangesStream> {
        let api::CountExchangesRequest { query, bucket, reason } = request.get_ref().clone();
        let rule = &rules::COUNT_EXCHANGES;
        let (query, permit) = self.asked(&request, rule, (query, true), &reason, &self.streams).await?;
        let days = bucket == api::Bucket::Day as i32;
        Ok(Response::new(streams::count(self.opener.clone(), query, days, permit)))
    }

    async fn list_findings(
        &self,
        request: Request<api::ListFindingsRequest>,
    ) -> AuditResult<api::ListFindingsResponse> {
        let permit = self.auditor(&request, &rules::LIST_FINDINGS).await?;
        self.findings(&permit, request.into_inner()).await
    }

    async fn review_finding(
        &self,
        request: Request<api::ReviewFindingRequest>,
    ) -> AuditResult<api::ReviewFindingResponse> {
        self.review(&request).await
    }

    async fn get_checkpoint(
        &self,
        request: Request<api::GetCheckpointRequest>,
    ) -> AuditResult<api::GetCheckpointResponse> {
        let permit = self.auditor(&request, &rules::GET_CHECKPOINT).await?;
        self.checkpoint(&permit).await
    }

    async fn get_receipt(&self, request: Request<api::GetReceiptRequest>) -> AuditResult<api::GetReceiptResponse> {
        // The client of an exchange gets its receipt; anyone else must be an auditor.
        let client = match &self.host {
            Host::Gateway { registry, .. } => {
                host::caller(&request)?.peer().and_then(|peer| peer.identify(&registry.load()).ok())
            }
            Host::Owner { .. } => None,
        };
        let permit = match &client {
            Some(client) => self.receipts.begin(&client.client.id).map_err(refused)?,
            None => self.auditor(&request, &rules::GET_RECEIPT).await?,
        };
        let of = match request.into_inner().of {
            Some(api::get_receipt_request::Of::ExchangeId(id)) => ReceiptTarget::Exchange(exchange_id(&id)?),
            Some(api::get_receipt_request::Of::Index(index)) => ReceiptTarget::Index(index),
            None => {
                return Err(invalid(
                    "of",
                    "must name an exchange or an index",
                    "cần nêu một lượt trao đổi hoặc số thứ tự bản ghi",
                ));
            }
        };
        let client = client.as_ref().map(|client| client.client.id.as_str());
        let receipt = self.receipt(of, client, &permit).await?;
        Ok(Response::new(api::GetReceiptResponse { index: receipt.index, receipt: receipt.to_text() }))
    }

    async fn get_own_use(&self, request: Request<api::GetOwnUseRequest>) -> AuditResult<api::GetOwnUseResponse> {
        self.own_use(request).await
    }

    async fn prove_consistency(
        &self,
        request: Request<api::ProveConsistencyRequest>,
    ) -> AuditResult<api::ProveConsistencyResponse> {
        let permit = self.auditor(&request, &rules::PROVE_CONSISTENCY).await?;
        let api::ProveConsistencyRequest { old_size, new_size } = request.into_inner();
        let data = self.data.clone();
        let reader = reading(&permit, move || Ok(LogReader::sealed_only(&data)?)).await?;
        let new_size = if new_size == 0 { reader.sealed() } else { new_size };
        if old_size == 0 || old_size > new_size || new_size > reader.sealed() {
            let expected = "must be at least 1, at most new_size, and that at most the checkpoint's";
            let vietnamese = "phải từ 1 đến new_size, và new_size không lớn hơn điểm kiểm";
            return Err(invalid("old_size", expected, vietnamese));
        }
        let proof = reading(&permit, move || {
            let nodes = |level: u32, at: u64| reader.node(level, at);
            let path = proof::consistency(&nodes, old_size, new_size)?;
            Ok((path, proof::root(&nodes, old_size)?, proof::root(&nodes, new_size)?))
        });
        let (path, old_root, new_root) = proof.await?;
        let path = path.into_iter().map(|hash| hash.to_vec()).collect();
        let (old_root, new_root) = (old_root.to_vec(), new_root.to_vec());
        Ok(Response::new(api::ProveConsistencyResponse { path, old_root, new_root, new_size }))
    }

    type ExportStream = streams::PartStream<api::ExportPart>;

    async fn export(&self, request: Request<api::ExportRequest>) -> AuditResult<Self::ExportStream> {
        let api::ExportRequest { query, reason } = request.get_ref().clone();
        let (query, permit) = self.asked(&request, &rules::EXPORT, (query, true), &reason, &self.streams).await?;
        Ok(Response::new(streams::export((self.data.clone(), self.vault.clone()), query, permit)))
    }

    async fn start_export(&self, request: Request<api::StartExportRequest>) -> AuditResult<api::ExportFile> {
        self.begin_export(&request).await
    }

    async fn list_exports(&self, request: Request<api::ListExportsRequest>) -> AuditResult<api::ListExportsResponse> {
        let reader = self.host.admit(&request, &rules::LIST_EXPORTS).await?;
        Ok(Response::new(api::ListExportsResponse { exports: self.exports.of(&self.host.name(&reader)) }))
    }

    type DownloadExportStream = streams::PartStream<api::DownloadExportPart>;

    async fn download_export(
        &self,
        request: Request<api::DownloadExportRequest>,
    ) -> AuditResult<Self::DownloadExportStream> {
        self.download(&request).await
    }

    async fn remove_export(
        &self,
        request: Request<api::RemoveExportRequest>,
    ) -> AuditResult<api::RemoveExportResponse> {
        let reader = self.host.admit(&request, &rules::REMOVE_EXPORT).await?;
        self.exports.remove(&self.host.name(&reader), &request.get_ref().id)?;
        Ok(Response::new(api::RemoveExportResponse {}))
    }

    async fn get_status(&self, request: Request<api::GetStatusRequest>) -> AuditResult<api::GetStatusResponse> {
        let permit = self.auditor(&request, &rules::GET_STATUS).await?;
        self.status(&permit).await
    }

    type VerifyIndexStream = streams::PartStream<api::VerifyIndexPart>;

    async fn verify_index(&self, request: Request<api::VerifyIndexRequest>) -> AuditResult<Self::VerifyIndexStream> {
        let reader = self.host.admit(&request, &rules::VERIFY_INDEX).await?;
        let permit = self.host.begin(&reader, &self.streams)?;
        Ok(Response::new(streams::verify_index((self.data.clone(), self.vault.clone()), permit)))
    }

    async fn acknowledge_alarm(
        &self,
        request: Request<api::AcknowledgeAlarmRequest>,
    ) -> AuditResult<api::AcknowledgeAlarmResponse> {
        self.acknowledge(&request).await
    }

    async fn list_holds(&self, request: Request<api::ListHoldsRequest>) -> AuditResult<api::ListHoldsResponse> {
        let permit = self.auditor(&request, &rules::LIST_HOLDS).await?;
        self.holds(&permit).await
    }

    async fn place_hold(&self, request: Request<api::PlaceHoldRequest>) -> AuditResult<api::PlaceHoldResponse> {
        self.hold(&request).await
    }

    async fn release_hold(&self, request: Request<api::ReleaseHoldRequest>) -> AuditResult<api::ReleaseHoldResponse> {
        self.release(&request).await
    }
}
