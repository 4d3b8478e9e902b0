//! The log over etcd as an engine of the exchange log: several gateways write one log, and each of them has all of it in its
//! own data folder, where readers, proofs and verification find it as they find an embedded one.
//!
//! An entry is durable when its batch is on this gateway's own disk ([`own_batches`]) and in etcd. Its index is known when it
//! is sealed: by whichever gateway is elected, in about half a second. A background task stores what was sealed below this
//! gateway's data folder ([`site_files`]).
//!
//! Without a majority of etcd's members, appends are refused in less than a second. Batches that were under way are repeated
//! with the same bytes; further ones are refused at once until they are through, then the log goes on by itself. If etcd was
//! rolled back, or its members differ, the log stops on this gateway until a person has looked.
//!
//! What was signed here before is not signed differently: the checkpoint in etcd only moves forward, and each site compares
//! what it stores with what it has stored before.
//!
//! Files, below the data folder: `log/` and `state/signed-checkpoint` as of an embedded log; `journal/lock`; `cluster/stored`,
//! `cluster/highest`, `cluster/batches/`; while a log comes or goes ([`crate::migration`]), `cluster/begin` or `cluster/left`.

mod background;
mod engine;
mod epoch_entry;
mod frame;
pub mod own_batches;
pub mod own_disk;
mod progress;
pub mod site_files;
mod spool;
mod start;

use crate::cluster::GatewayName;
use crate::cluster::etcd::EtcdAccess;
use crate::exchange_log::checkpoint::LogSigner;
use crate::exchange_log::{ExchangeLog, LogError, LogLock, LogPaths, disk};
use site_files::OtherSite;
pub use start::{BEGINNING, LEAVING};
use std::path::Path;
use std::time::Duration;

/// How a gateway takes part in a log.
#[derive(Clone)]
pub struct ClusterLogSettings {
    /// Its name, and that of its site: no other gateway of the log has it.
    pub gateway: GatewayName,
    /// The members of etcd, that of the own data centre first, with TLS towards them.
    pub etcd: EtcdAccess,
    /// Number of sites that store the log: a batch stays in etcd until more than half of them store it.
    pub sites: usize,
    /// Where tiles are fetched that this site lacks and etcd has not any more.
    pub others: Vec<OtherSite>,
    /// Time between two sealings while entries come.
    pub seal_each: Duration,
    /// The quota of etcd's database (`--quota-backend-bytes`): from a quarter of it on batches are delayed, from half of it
    /// on refused.
    pub quota: u64,
    /// How long appenders wait for their batch before they are refused. The election of a new leader of etcd takes about a
    /// second: with less, calls are refused meanwhile; with more, they wait.
    pub refuse_after: Duration,
    /// How long a start waits for etcd.
    pub start_within: Duration,
    /// Maximum bytes of batches on the own disk.
    pub own_disk_bytes: u64,
}

impl ClusterLogSettings {
    /// Three sites, a checkpoint each 400 ms, 4 GiB of quota, refusal after 900 ms, 30 s for a start, 16 GiB of batches.
    pub fn new(gateway: GatewayName, etcd: EtcdAccess) -> Self {
        ClusterLogSettings {
            gateway,
            etcd,
            sites: 3,
            others: Vec::new(),
            seal_each: Duration::from_millis(400),
            quota: 4 << 30,
            refuse_after: Duration::from_millis(900),
            start_within: Duration::from_secs(30),
            own_disk_bytes: 16 << 30,
        }
    }
}

/// Opens a log over etcd for appending: offers the batches of earlier starts again, and brings the tiles up to date. The log
/// must have been begun in etcd ([`begin_log`](crate::cluster::commit::begin_log)).
///
/// # Errors
/// [`LogError::Locked`] while another process has the folder; [`LogError::Corrupt`], [`LogError::Forked`] or
/// [`LogError::RolledBack`] if its files are not what was stored; [`LogError::Unavailable`] if etcd does not respond in
/// time, is too old, was rolled back, or holds no log; [`LogError::Io`], also if the folder has a log that one gateway
/// writes alone.
pub fn open(data: &Path, signer: LogSigner, settings: ClusterLogSettings) -> Result<ExchangeLog, LogError> {
    let paths = LogPaths::new(data);
    let lock = LogLock::take(&paths)?;
    keep_name(&paths, &settings.gateway)?;
    ExchangeLog::over(start::start(&paths, signer, settings)?, lock)
}

/// From the first start on, the folder says which gateway's it is ([`LogPaths::own_gateway`]).
fn keep_name(paths: &LogPaths, gateway: &GatewayName) -> Result<(), LogError> {
    match paths.own_gateway()? {
        Some(own) if own == gateway.to_string() => Ok(()),
        Some(own) => {
            let reason = format!("this folder is of the gateway {own:?}: its node must stay the same");
            Err(LogError::Io { path: paths.gateway.clone(), reason })
        }
        None => disk::write_atomically(&*paths.disk, &paths.gateway, gateway.to_string().as_bytes()),
    }
}
