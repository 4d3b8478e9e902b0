//! The way of a gateway's log and registry into etcd and back, in place: in the data folder that has them, by command, while
//! no gateway runs there.
//!
//! **In** ([`begin`](MigratingGateway::begin)): a log that one gateway writes alone becomes the first site of one that
//! several write. **Out** ([`leave`](MigratingGateway::leave)): a site that stores everything writes alone again; every other
//! gateway is refused from then on. The log keeps its key, its tree and its entries, so whoever has verified it goes on
//! with the same one.
//!
//! Both are made of steps, each of which finds out by itself whether it was done before. So whatever a crash leaves, the
//! same command finishes it. At no time may the folder write alone while etcd has the log:
//!
//! After a restore of etcd as a whole, two people begin the next epoch ([`approve_epoch`](MigratingGateway::approve_epoch)).
//!
//! | step of `begin` | what a crash behind it leaves |
//! | --- | --- |
//! | `cluster-begin/begin` has the plan, etcd the claim | a folder that writes alone |
//! | everything is sealed, admin events too; the registry's file is marked as a replica | the same; changes of the registry are refused |
//! | `cluster-begin` is renamed to `cluster` | a folder that neither engine opens, and an etcd without a log |
//! | etcd has keys, registry, then the sealed state | the same folder; other gateways may write |
//! | the journal is moved to `journal-until-<size>`, the plan removed | a site |
//!
//! | step of `leave` | what a crash behind it leaves |
//! | --- | --- |
//! | etcd has a [`LeftLog`] in place of the checkpoint | a site without a log: no gateway of it starts |
//! | the registry's file is up to date, and `cluster/left` written | the same |
//! | the file is a gateway's own, the journal begins behind what is sealed | a folder that neither engine opens |
//! | `cluster` is renamed to `cluster-until-<size>` | a folder that writes alone |

mod begin;
mod epoch;
mod files;
mod leave;
mod registry;

pub use begin::BeginStep;
pub use epoch::{EpochPlan, StaffKey};
pub use leave::LeaveStep;

use crate::audit::AuditError;
use crate::cluster::etcd::Members;
use crate::cluster::guard::{self, ConfirmedCheckpoint};
#[cfg(doc)]
use crate::cluster::left::LeftLog;
use crate::cluster::registry::follow::EventEntry;
use crate::cluster::{ClusterError, GatewayName};
use crate::cluster_log::site_files::OtherSite;
use crate::exchange_log::LogError;
use crate::exchange_log::checkpoint::LogSigner;
use crate::exchange_log::key::LogKeyError;
use crate::registry::RegistryError;
use crate::registry::sqlite::SqliteStore;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often a checkpoint is read that no majority confirms at this instant, and the pause before the next attempt.
const CONFIRM_ATTEMPTS: usize = 50;
/// See [`CONFIRM_ATTEMPTS`].
const CONFIRM_PAUSE: Duration = Duration::from_millis(200);

/// The reason that a migration did not come to its end. The same command goes on where it has stopped.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// It is not possible now; the text says what to do.
    #[error("{0}")]
    Refused(String),
    /// The exchange log.
    #[error("the exchange log: {0}")]
    Log(#[from] LogError),
    /// Its key.
    #[error("the exchange log's key: {0}")]
    LogKey(#[from] LogKeyError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// etcd.
    #[error("etcd: {0}")]
    Cluster(#[from] ClusterError),
    /// The log cannot be searched for its last admin event.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The keys cannot be shared with other gateways.
    #[error("the keys cannot be shared: {0}")]
    Keys(std::io::Error),
}

/// A gateway that is stopped, and whose log and registry move. Its futures block the thread on files, and are meant for a
/// command's own runtime.
pub struct MigratingGateway<'g> {
    /// Its data folder.
    pub data: &'g Path,
    /// Reads the log's key.
    pub signer: &'g (dyn Fn() -> Result<LogSigner, LogKeyError> + Sync),
    /// The registry's file in the data folder.
    pub store: &'g SqliteStore,
    /// The members of etcd, the own one first.
    pub members: Arc<Members>,
    /// Its name, and that of its site.
    pub gateway: GatewayName,
    /// Makes the entries of the log from admin events.
    pub entry: Arc<EventEntry>,
    /// Where tiles are fetched that this site lacks, when it leaves.
    pub others: Vec<OtherSite>,
    /// Shares the private keys of this folder with the gateways that will come; repeated after a crash.
    pub share_keys: &'g (dyn Fn() -> std::io::Result<()> + Sync),
}

impl MigratingGateway<'_> {
    /// Reads the confirmed checkpoint, for some seconds if a majority does not have it yet.
    async fn confirmed(&self) -> Result<ConfirmedCheckpoint, ClusterError> {
        for _ in 1..CONFIRM_ATTEMPTS {
            match guard::confirmed(&self.members).await {
                Err(error) if error.may_pass() => tokio::time::sleep(CONFIRM_PAUSE).await,
                confirmed => return confirmed,
            }
        }
        guard::confirmed(&self.members).await
    }
}
