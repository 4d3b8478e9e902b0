//! In: the log and the registry of one gateway become those of several.

use super::files::{MigratingFiles, malformed};
use super::{MigratingGateway, MigrationError};
use crate::cluster::adoption::{self, EtcdLog, LogClaim};
use crate::cluster::highest::HighestSeen;
use crate::cluster::state::{LogId, SealedState};
use crate::cluster::{ClusterError, version};
use crate::cluster_log::BEGINNING;
use crate::exchange_log::{LogPaths, Pipeline};
use crate::registry::now;
use serde::{Deserialize, Serialize};

/// The steps, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BeginStep {
    /// The plan is written, and etcd claimed.
    Claimed,
    /// Everything is sealed, and the registry's file a replica.
    Sealed,
    /// The folder does not write alone any more.
    Fenced,
    /// Other gateways can have the keys.
    KeysShared,
    /// etcd has the registry, and what was used of today's quotas.
    RegistryPut,
    /// etcd has the log: other gateways may write.
    LogBegun,
    /// The journal is put away.
    PutAway,
}

impl BeginStep {
    /// All of them, in order.
    pub const ALL: [Self; 7] =
        [Self::Claimed, Self::Sealed, Self::Fenced, Self::KeysShared, Self::RegistryPut, Self::LogBegun, Self::PutAway];
}

/// What is the same at each repetition.
#[derive(Serialize, Deserialize)]
struct BeginPlan {
    /// The log's id in etcd.
    log: LogId,
    /// The number of the registry's writer, and of the start that has issued the tokens of before.
    number: u64,
    /// When it was made, in Unix seconds: tokens that were in force then are known to all gateways.
    time: i64,
}

/// A migration that goes on.
struct Beginning<'m> {
    gateway: &'m MigratingGateway<'m>,
    files: MigratingFiles,
    plan: BeginPlan,
    /// `None`: etcd has the log already.
    claim: Option<LogClaim>,
}

impl MigratingGateway<'_> {
    /// Brings the log and the registry of this folder into etcd, and returns the size that the log has there. `progress`
    /// gets a line for each step.
    ///
    /// # Errors
    /// [`MigrationError::Refused`] and [`ClusterError::Refused`] say what to do; after any error, the same call goes on.
    pub async fn begin(&self, progress: &mut (dyn FnMut(&str) + Send)) -> Result<u64, MigrationError> {
        self.begin_until(BeginStep::PutAway, progress).await
    }

    /// Returns whether [`begin`](MigratingGateway::begin) has something to do, also while a gateway runs in this folder.
    ///
    /// # Errors
    /// [`ClusterError::Refused`] if etcd holds another log; as for [`version::check`].
    pub async fn is_to_begin(&self) -> Result<bool, MigrationError> {
        let paths = LogPaths::new(self.data);
        if paths.is_replicated()? {
            return Ok(paths.disk.kind(&paths.replicated.join(BEGINNING)).is_ok());
        }
        version::check(&self.members).await?;
        match adoption::present(&self.members).await? {
            EtcdLog::Begun(_) => Err(other_log()),
            EtcdLog::Empty | EtcdLog::Left(_) => Ok(true),
        }
    }

    /// The same, up to a step.
    ///
    /// # Errors
    /// As for [`begin`](MigratingGateway::begin).
    pub async fn begin_until(
        &self,
        last: BeginStep,
        progress: &mut (dyn FnMut(&str) + Send),
    ) -> Result<u64, MigrationError> {
        version::check(&self.members).await?;
        let mut beginning = Beginning::prepare(self).await?;
        for step in BeginStep::ALL.into_iter().filter(|step| *step <= last) {
            beginning.go(step, progress).await?;
        }
        Ok(beginning.stored()?.map_or(0, |stored| stored.size()))
    }
}

impl<'m> Beginning<'m> {
    /// Locks the folder, and finds the plan, or makes one.
    async fn prepare(gateway: &'m MigratingGateway<'m>) -> Result<Self, MigrationError> {
        let files = MigratingFiles::lock(gateway.data)?;
        let path = files.plan()?;
        let plan = match files.read(&path)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|_| malformed(&path))?,
            None if files.is_site()? => {
                return Err(MigrationError::Refused("this data folder is a site of a cluster already".into()));
            }
            None => {
                let log = match adoption::present(&gateway.members).await? {
                    EtcdLog::Left(left) => left.state.log,
                    EtcdLog::Empty => *uuid::Uuid::new_v4().as_bytes(),
                    EtcdLog::Begun(_) => return Err(other_log()),
                };
                let plan = BeginPlan { log, number: fastrand::u64(..), time: now() };
                let bytes = serde_json::to_vec(&plan).map_err(|_| malformed(&path))?;
                files.write(&path, &bytes)?;
                plan
            }
        };
        Ok(Beginning { gateway, files, plan, claim: None })
    }

    async fn go(&mut self, step: BeginStep, progress: &mut (dyn FnMut(&str) + Send)) -> Result<(), MigrationError> {
        let fenced = self.files.is_site()?;
        match step {
            BeginStep::Claimed => self.claim(fenced).await,
            BeginStep::Sealed if !fenced => self.seal(progress),
            BeginStep::Fenced if !fenced => self.fence(progress).await,
            BeginStep::KeysShared if self.claim.is_some() => {
                (self.gateway.share_keys)().map_err(MigrationError::Keys)?;
                progress("keys: other gateways can have them, sealed");
                Ok(())
            }
            BeginStep::RegistryPut if self.claim.is_some() => {
                self.gateway.put_registry((self.plan.number, 0), self.plan.time, progress).await?;
                self.gateway.put_quotas(progress).await
            }
            BeginStep::LogBegun => self.begin_log(progress).await,
            BeginStep::PutAway => self.put_away(progress),
            BeginStep::Sealed | BeginStep::Fenced | BeginStep::KeysShared | BeginStep::RegistryPut => Ok(()),
        }
    }

    async fn claim(&mut self, fenced: bool) -> Result<(), MigrationError> {
        let members = &self.gateway.members;
        match adoption::present(members).await? {
            EtcdLog::Begun(state) if state.log == self.plan.log && fenced => return Ok(()),
            EtcdLog::Begun(_) => return Err(other_log()),
            EtcdLog::Left(_) | EtcdLog::Empty => {}
        }
        self.claim = Some(adoption::claim(members, self.plan.log).await?);
        Ok(())
    }

    /// Seals everything, admin events included. The folder writes alone until it is fenced, so this is repeated with it.
    fn seal(&self, progress: &mut (dyn FnMut(&str) + Send)) -> Result<(), MigrationError> {
        let (pipeline, mut journal) = Pipeline::open(self.files.paths.clone(), (self.gateway.signer)()?)?;
        self.gateway.prepare_registry(&pipeline, &mut journal)?;
        let sealed = pipeline.seal()?;
        if sealed != pipeline.durable() {
            let what = format!("{sealed} of {} entries are sealed: free space for the rest", pipeline.durable());
            return Err(MigrationError::Refused(what));
        }
        progress(&format!("log: all {sealed} entries are sealed, admin events included"));
        Ok(())
    }

    async fn fence(&self, progress: &mut (dyn FnMut(&str) + Send)) -> Result<(), MigrationError> {
        let (peaks, note) = self.files.published(&(self.gateway.signer)()?)?;
        let size = peaks.size();
        let state = SealedState { peaks, note, ..SealedState::begin(self.plan.log) };
        let state = match adoption::present(&self.gateway.members).await? {
            EtcdLog::Left(left) if self.files.continues(size, &left.state.peaks)? => left.next_epoch(state),
            EtcdLog::Empty => state,
            EtcdLog::Left(_) | EtcdLog::Begun(_) => return Err(other_log()),
        };
        self.files.become_site(&state.encode())?;
        progress("folder: it does not write alone any more");
        Ok(())
    }

    fn stored(&self) -> Result<Option<SealedState>, MigrationError> {
        let path = self.files.paths.replicated.join("stored");
        let bytes = self.files.read(&path)?;
        Ok(bytes.map(|bytes| SealedState::decode(&bytes)).transpose()?)
    }

    async fn begin_log(&self, progress: &mut (dyn FnMut(&str) + Send)) -> Result<(), MigrationError> {
        let path = self.files.paths.replicated.join("stored");
        let stored = self.stored()?.ok_or_else(|| malformed(&path))?;
        if let Some(claim) = self.claim {
            adoption::begin(&self.gateway.members, claim, &stored).await?;
        }
        let there = self.gateway.confirmed().await?;
        if there.state.log != stored.log {
            return Err(other_log());
        }
        let seen = HighestSeen::of(&there.header, &there.state);
        self.files.write(&self.files.paths.replicated.join("highest"), &seen.encode())?;
        let (size, epoch) = (stored.size(), stored.epoch);
        progress(&format!("log: etcd has it from {size} entries on, in epoch {epoch}"));
        Ok(())
    }

    fn put_away(&self, progress: &mut (dyn FnMut(&str) + Send)) -> Result<(), MigrationError> {
        let size = self.stored()?.map_or(0, |stored| stored.size());
        let away = self.files.put_journal_away(size)?;
        self.files.remove_plan()?;
        progress(&format!("journal: put away to {}; all of it is sealed", away.display()));
        Ok(())
    }
}

fn other_log() -> MigrationError {
    let what =
        "this etcd holds another log: give its members empty folders, or join that log with an empty data folder";
    ClusterError::Refused(what.into()).into()
}
