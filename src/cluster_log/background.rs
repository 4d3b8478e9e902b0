//! What a gateway does beside writing: seals while it is elected, follows the checkpoint, watches the room in etcd and the
//! versions of its members, gives up batches that are not needed any more.

use super::own_batches::StoredMarks;
use super::own_disk::FileDisk;
use super::progress::Progress;
use super::site_files::SiteFiles;
use crate::cluster::etcd::{EtcdChannel, Members};
use crate::cluster::keys::CHECKPOINT;
use crate::cluster::pressure::{MEASURE_EACH, Pressure};
use crate::cluster::site::{self, SiteTiles};
use crate::cluster::timers::RuntimeTimers;
use crate::cluster::{ClusterError, ClusterSealer, GatewayName, Timers, reclaim, version};
use std::sync::Arc;
use std::time::Duration;

/// The longest time between two looks at the checkpoint.
const FOLLOW_EACH: Duration = Duration::from_secs(1);
/// The shortest: a sealing may follow the one before at once.
const FOLLOW_PAUSE: Duration = Duration::from_millis(50);
/// Pause after what may pass by itself.
const RETRY: Duration = Duration::from_millis(300);
/// Pause after the own disk has failed.
const DISK_RETRY: Duration = Duration::from_secs(1);
/// How often batches on the own disk are looked at.
const TRIM_EACH: Duration = Duration::from_secs(10);

/// What the tasks work with.
pub(super) struct Background {
    pub(super) progress: Arc<Progress>,
    pub(super) members: Arc<Members>,
    pub(super) disk: Arc<FileDisk>,
    pub(super) site: Arc<SiteFiles>,
    pub(super) sealer: ClusterSealer<EtcdChannel, RuntimeTimers, FileDisk, SiteFiles>,
    pub(super) gateway: GatewayName,
    pub(super) sites: usize,
    pub(super) quota: u64,
}

impl Background {
    /// Runs until an error that does not pass: the log stops on this gateway then.
    pub(super) async fn run(self) {
        let error = tokio::select! {
            error = self.seal() => error,
            error = self.follow() => error,
            error = self.measure() => error,
            error = self.check_versions() => error,
            error = self.trim() => error,
        };
        self.progress.stop(&error);
    }

    async fn seal(&self) -> ClusterError {
        loop {
            match self.sealer.run().await {
                error @ ClusterError::OwnDisk(_) => self.progress.cannot_store(&error),
                error => return error,
            }
            self.members.timers().sleep(DISK_RETRY).await;
        }
    }

    /// Keeps the tiles of this site up to date.
    async fn follow(&self) -> ClusterError {
        let mut said = 0;
        loop {
            let timers = self.members.timers();
            match self.follow_once(&mut said).await {
                Ok(revision) => {
                    timers.sleep(FOLLOW_PAUSE).await;
                    self.members.wait_for_change(CHECKPOINT, revision, FOLLOW_EACH).await;
                }
                Err(error @ ClusterError::OwnDisk(_)) => {
                    self.progress.cannot_store(&error);
                    timers.sleep(DISK_RETRY).await;
                }
                Err(error) if error.may_pass() => {
                    tracing::debug!(%error, "the checkpoint cannot be followed now");
                    timers.sleep(RETRY).await;
                }
                Err(error) => return error,
            }
        }
    }

    async fn follow_once(&self, said: &mut u64) -> Result<i64, ClusterError> {
        let followed = site::follow(&self.members, &*self.disk, &*self.site, &self.gateway, said).await?;
        self.progress.is_stored(&self.site.stored().await?);
        Ok(followed.header.revision)
    }

    async fn measure(&self) -> ClusterError {
        loop {
            // Without a majority nothing is written anyway.
            if let Ok(pressure) = Pressure::measure(&self.members, self.quota).await {
                self.progress.press(pressure);
            }
            self.members.timers().sleep(MEASURE_EACH).await;
        }
    }

    async fn check_versions(&self) -> ClusterError {
        loop {
            self.members.timers().sleep(version::CHECK_EACH).await;
            match version::check(&self.members).await {
                Err(error) if !error.may_pass() => return error,
                _ => {}
            }
        }
    }

    /// Gives up what is sealed at or below a size that a majority of the sites stores.
    async fn trim(&self) -> ClusterError {
        let mut waits: Option<(u64, StoredMarks)> = None;
        loop {
            self.members.timers().sleep(TRIM_EACH).await;
            let Ok(state) = self.site.stored().await else { continue };
            let size = waits.get_or_insert_with(|| (state.size(), state.marks())).0;
            let Ok(stored) = reclaim::stored_by_majority(&self.members, self.sites).await else { continue };
            if let Some((_, marks)) = waits.take_if(|_| size <= stored)
                && let Err(error) = self.disk.trim(marks).await
            {
                tracing::warn!(%error, "batches that are not needed any more cannot be deleted");
            }
        }
    }
}
