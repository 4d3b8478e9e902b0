//! Out: a site that stores everything writes alone again.

use super::files::{MigratingFiles, malformed};
use super::{MigratingGateway, MigrationError};
use crate::cluster::adoption::{self, EtcdLog};
use crate::cluster::left::LeftLog;
use crate::cluster::own_disk::OwnDisk;
use crate::cluster::site::{self, SiteTiles};
use crate::cluster::{ClusterError, version};
use crate::cluster_log::own_disk::FileDisk;
use crate::cluster_log::site_files::SiteFiles;
use crate::exchange_log::journal::Journal;

/// The steps, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaveStep {
    /// etcd says that the log has left.
    Left,
    /// The registry's file is up to date, so is what was used of today's quotas, and the folder knows that the log has left.
    Noted,
    /// The registry's file is this gateway's own.
    RegistryAlone,
    /// The journal begins behind what is sealed.
    JournalBegun,
    /// The site's own files are put away: the folder writes alone.
    PutAway,
}

impl MigratingGateway<'_> {
    /// Takes the log and the registry out of etcd into this folder, and returns the size of the log. Every other gateway is
    /// refused from then on; [`begin`](MigratingGateway::begin) in this folder brings both back, in the next epoch.
    ///
    /// # Errors
    /// [`MigrationError::Refused`] and [`ClusterError::Refused`] say what to do; after any error, the same call goes on.
    pub async fn leave(&self, progress: &mut (dyn FnMut(&str) + Send)) -> Result<u64, MigrationError> {
        self.leave_until(LeaveStep::PutAway, progress).await
    }

    /// The same, up to a step.
    ///
    /// # Errors
    /// As for [`leave`](MigratingGateway::leave).
    pub async fn leave_until(
        &self,
        last: LeaveStep,
        progress: &mut (dyn FnMut(&str) + Send),
    ) -> Result<u64, MigrationError> {
        let files = MigratingFiles::lock(self.data)?;
        if !files.is_site()? || files.read(&files.plan()?)?.is_some() {
            return Err(MigrationError::Refused("this data folder is not a site of a cluster".into()));
        }
        let noted = files.read(&files.left())?.map(|bytes| LeftLog::decode(&bytes)).transpose()?.flatten();
        let left = match noted {
            Some(left) => left,
            None => {
                let left = self.take_out(&files, progress).await?;
                if last < LeaveStep::Noted {
                    return Ok(left.state.size());
                }
                self.refresh_registry().await?;
                self.take_quotas().await?;
                files.write(&files.left(), &left.encode())?;
                progress("registry: this folder has all of it");
                left
            }
        };
        let size = left.state.size();
        if last >= LeaveStep::RegistryAlone {
            self.store.make_standalone()?;
        }
        if last >= LeaveStep::JournalBegun {
            Journal::begin(&files.paths, size)?;
        }
        if last >= LeaveStep::PutAway {
            let away = files.put_site_away(size)?;
            progress(&format!("folder: it writes alone from {size} entries on; put away to {}", away.display()));
        }
        Ok(size)
    }

    /// Brings this site up to date, and takes the log out of etcd.
    async fn take_out(
        &self,
        files: &MigratingFiles,
        progress: &mut (dyn FnMut(&str) + Send),
    ) -> Result<LeftLog, MigrationError> {
        version::check(&self.members).await?;
        let tiles = SiteFiles::open(&files.paths, (self.signer)()?, self.others.clone())?;
        match adoption::present(&self.members).await? {
            EtcdLog::Empty => return Err(ClusterError::NoLog.into()),
            EtcdLog::Left(left) if left.gateway != self.gateway => return Err(ClusterError::Left(left.gateway).into()),
            EtcdLog::Left(left) => {
                // An earlier attempt of this folder; another folder of this name would have another state.
                if tiles.stored().await? != left.state {
                    return Err(malformed(&files.paths.replicated.join("stored")));
                }
                adoption::confirm(&self.members, &left).await?;
                return Ok(left);
            }
            EtcdLog::Begun(_) => {}
        }
        let disk = FileDisk::open(files.paths.disk.clone(), &files.paths.replicated, u64::MAX)?;
        self.confirmed().await?;
        let checkpoint = site::follow(&self.members, &disk, &tiles, &self.gateway, &mut 0).await?;
        let open = disk.unsealed(&checkpoint.state).await?.len();
        if open > 0 {
            let what =
                format!("{open} batches of this gateway are not sealed: start it, and stop it once it has sealed them");
            return Err(MigrationError::Refused(what));
        }
        adoption::may_leave(&self.members, &checkpoint).await?;
        let size = checkpoint.state.size();
        progress(&format!("log: this site stores all {size} entries, and nothing waits to be sealed"));
        let left = adoption::leave(&self.members, &checkpoint, &self.gateway).await?;
        progress("etcd: the log has left it; every other gateway is refused");
        Ok(left)
    }
}
