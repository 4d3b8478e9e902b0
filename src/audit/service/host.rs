//! The host of the service: a gateway, for staff with certificates, or the process of the data folder's owner, who
//! reads their own files.

use super::refused;
use crate::access::reads::{ReadPermit, ReadPermits, limits};
use crate::access::staff::{RoleRule, StaffAuthorizer};
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::{Entry, ExchangeLog};
use crate::identity::principal::Principal;
use crate::registry::sqlite::SqliteStore;
use crate::registry::{Actor, Snapshot};
use crate::status::Reason;
use crate::work::WorkLimits;
use arc_swap::ArcSwap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::{Request, Status};

/// Limits for the owner: nobody else has to wait.
const BY_OWNER: WorkLimits = limits(8, 64, 64, 1_000_000, 1_000_000);
/// How often the owner's process looks for a newer checkpoint.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The host of the service.
#[derive(Clone)]
pub(super) enum Host {
    /// In a gateway.
    Gateway { door: StaffAuthorizer, registry: Arc<ArcSwap<Snapshot>>, log: ExchangeLog },
    /// In the process of the folder's owner; with the registry that records events, which a copy of a log does not
    /// have.
    Owner { data: PathBuf, notes: Option<SqliteStore>, reads: Arc<ReadPermits> },
}

/// A reader, as far as they are identified.
pub(super) enum AuditReader {
    /// A person, and what they have proved.
    Staff(Principal, Actor),
    /// The folder's owner.
    Owner,
}

impl Host {
    /// Returns the registry of a gateway; `None` in the process of the folder's owner.
    pub fn registry(&self) -> Option<&Arc<ArcSwap<Snapshot>>> {
        match self {
            Host::Gateway { registry, .. } => Some(registry),
            Host::Owner { .. } => None,
        }
    }

    pub(super) fn owner(data: &Path, notes: Option<SqliteStore>) -> Self {
        Host::Owner { data: data.to_owned(), notes, reads: ReadPermits::new(BY_OWNER) }
    }

    /// Admits an auditor, or the owner.
    pub(super) async fn admit<T>(&self, request: &Request<T>, rule: &RoleRule) -> Result<AuditReader, Status> {
        match self {
            Host::Owner { .. } => Ok(AuditReader::Owner),
            Host::Gateway { door, .. } => {
                let caller = caller(request)?;
                let staff = door.admit(&caller, rule).await.map_err(refused)?;
                Ok(AuditReader::Staff(caller, staff))
            }
        }
    }

    /// Returns a permit to read; an auditor's is one of `reads`.
    pub(super) fn begin(&self, reader: &AuditReader, of_staff: &Arc<ReadPermits>) -> Result<ReadPermit, Status> {
        let permit = match (self, reader) {
            (Host::Owner { reads, .. }, _) => reads.begin("owner"),
            (Host::Gateway { .. }, AuditReader::Staff(_, staff)) => of_staff.begin(staff.id()),
            (Host::Gateway { .. }, AuditReader::Owner) => Err(Reason::StaffUnknown.into()),
        };
        permit.map_err(refused)
    }

    /// Returns a reader's name, as in events.
    pub(super) fn name(&self, reader: &AuditReader) -> String {
        match (reader, self) {
            (AuditReader::Staff(_, staff), _) => staff.to_string(),
            (AuditReader::Owner, Host::Owner { notes: Some(notes), .. }) => notes.actor().to_string(),
            (AuditReader::Owner, _) => "local".to_owned(),
        }
    }

    /// Logs a reader's event: the gateway at once, the owner through the registry.
    pub(super) async fn note(&self, reader: &AuditReader, event: &str, entry: Entry) -> Result<(), Status> {
        match (self, reader) {
            (Host::Gateway { door, .. }, AuditReader::Staff(caller, staff)) => {
                let whole = door.event(caller, event);
                let entry = Entry {
                    actor: staff.to_string(),
                    object: entry.object,
                    subjects: entry.subjects,
                    official: entry.official,
                    justification: entry.justification,
                    ..whole
                };
                door.note(&entry).await.map(|_| ()).map_err(refused)
            }
            (Host::Owner { notes: Some(notes), .. }, _) => {
                let noted = notes.because(&entry.justification).and_then(|notes| notes.note(event, entry.object));
                noted.map_err(|_| refused(Reason::RegistryUnavailable.into()))
            }
            (Host::Owner { notes: None, .. }, _) => Ok(()),
            (Host::Gateway { .. }, AuditReader::Owner) => Err(refused(Reason::StaffUnknown.into())),
        }
    }

    /// Returns the number of durable entries; for the owner, those in the files.
    pub(super) fn durable(&self) -> u64 {
        match self {
            Host::Gateway { log, .. } => log.durable(),
            Host::Owner { data, .. } => LogReader::open(data).map_or(0, |reader| reader.size()),
        }
    }

    /// Watches the number of sealed entries.
    pub(super) fn watch_sealed(&self) -> watch::Receiver<u64> {
        let data = match self {
            Host::Gateway { log, .. } => return log.watch_sealed(),
            Host::Owner { data, .. } => data.clone(),
        };
        let sealed = |data: &Path| LogReader::sealed_only(data).map_or(0, |reader| reader.sealed());
        let (to, receiver) = watch::channel(sealed(&data));
        tokio::spawn(async move {
            while !to.is_closed() {
                tokio::time::sleep(LOOK_EVERY).await;
                to.send_if_modified(|size| {
                    let now = sealed(&data);
                    now > std::mem::replace(size, now.max(*size))
                });
            }
        });
        receiver
    }
}

/// Returns who calls.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Principal, Status> {
    Principal::of(request.extensions()).ok_or_else(|| refused(Reason::StaffUnknown.into()))
}
