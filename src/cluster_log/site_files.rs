//! The tiles of this gateway's site, in the same files as those of an embedded log, so that whatever reads that one reads
//! this one: `log/` and `state/signed-checkpoint`; beside them `cluster/stored`, the sealed state up to which they are
//! stored.
//!
//! Order of durability: bundles and tiles, the signed checkpoint, the published one, the state. After a crash the state may
//! be older than the tiles; the entries between them are skipped when they come again.

use super::own_disk::blocking;
use crate::cluster::ClusterError;
use crate::cluster::own_disk::Publication;
use crate::cluster::site::SiteTiles;
use crate::cluster::state::SealedState;
use crate::exchange_log::checkpoint::{LogSigner, LogVerifier};
use crate::exchange_log::disk;
use crate::exchange_log::reader::{COSIGNED_FILE, VKEY_FILE, policy};
use crate::exchange_log::seal::Sealer;
use crate::exchange_log::tiles::{bundle_name, decode_bundle, read_tile, subtree};
use crate::exchange_log::tree::{Hash, TILE, empty_root};
use crate::exchange_log::verify::{LogFiles, LogFolder};
use crate::exchange_log::{LogError, LogPaths, proof};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// The tiles of another site, from which missing ones are fetched: its folder, or its `/log/` over HTTPS. What comes from
/// there is compared with the checkpoint's root.
pub type OtherSite = Arc<dyn LogFiles + Send + Sync>;

/// The tiles of this site.
pub struct SiteFiles {
    files: Arc<Mutex<StoredSite>>,
    /// Where entries are fetched, this site first: after a crash it may have more than its state says.
    sources: Vec<OtherSite>,
}

struct StoredSite {
    paths: LogPaths,
    verifier: LogVerifier,
    sealer: Sealer,
    state: SealedState,
    state_file: PathBuf,
}

impl SiteFiles {
    /// Opens the files, and completes what a crash has left.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Forked`] or [`LogError::RolledBack`] if they are not what was stored, also if an
    /// embedded log is there; [`LogError::Io`].
    pub fn open(paths: &LogPaths, signer: LogSigner, others: Vec<OtherSite>) -> Result<Self, LogError> {
        let verifier = signer.verifier();
        let mut sealer = Sealer::open(paths.clone(), signer)?;
        let state_file = paths.replicated.join("stored");
        let state = match disk::read(&*paths.disk, &state_file) {
            Ok(bytes) => {
                SealedState::decode(&bytes).map_err(|error| LogError::corrupt(&state_file, 0, error.to_string()))?
            }
            Err(error) if error.kind() == ErrorKind::NotFound && sealer.signed_size() == 0 => SealedState::default(),
            Err(error) => return Err(LogError::io(&state_file, &error)),
        };
        sealer.publish_signed()?;
        if sealer.size() < state.size() {
            let (found, path) = (sealer.size(), paths.tiles.clone());
            return Err(LogError::RolledBack { found, signed: state.size(), path });
        }
        let key = verifier.to_string();
        disk::write_atomically(&*paths.disk, &paths.tiles.join(VKEY_FILE), key.as_bytes())?;
        let own: OtherSite = Arc::new(LogFolder::on(paths, None));
        let sources = std::iter::once(own).chain(others).collect();
        let site = StoredSite { paths: paths.clone(), verifier, sealer, state, state_file };
        // From now on the folder is known to be one without a journal.
        site.keep_state(&site.state)?;
        Ok(SiteFiles { files: Arc::new(Mutex::new(site)), sources })
    }
}

impl StoredSite {
    /// Stores entries up to a state, but for those that are stored already.
    fn store(&mut self, state: &SealedState, entries: &[Vec<u8>]) -> Result<(), LogError> {
        let (there, first) = (self.sealer.size(), state.size().saturating_sub(entries.len() as u64));
        if first > there {
            let reason = format!("entries {there} to {first} are missing");
            return Err(LogError::corrupt(&self.paths.tiles, 0, reason));
        }
        let known = usize::try_from(there - first).unwrap_or(usize::MAX);
        if let Some(rest) = entries.get(known..).filter(|rest| !rest.is_empty()) {
            self.sealer.store(rest, &state.note)?;
        }
        if state.size() > self.state.size() {
            self.keep_state(state)?;
            self.state = state.clone();
        }
        Ok(())
    }

    fn keep_state(&self, state: &SealedState) -> Result<(), LogError> {
        disk::write_atomically(&*self.paths.disk, &self.state_file, &state.encode())
    }

    /// The newest checkpoint with the cosignatures that the policy requires, which `witness::client` stores.
    fn cosigned(&self) -> Result<Option<(u64, Hash)>, LogError> {
        if !policy(&*self.paths.disk, &self.paths.tiles)?.needs_witnesses() {
            return Ok(None);
        }
        let path = self.paths.tiles.join(COSIGNED_FILE);
        let Some(note) = disk::read_text(&*self.paths.disk, &path)? else { return Ok(None) };
        let checkpoint = self.verifier.check(&note);
        let checkpoint = checkpoint.map_err(|error| LogError::corrupt(&path, 0, error.to_string()))?;
        Ok(Some((checkpoint.size, checkpoint.root)))
    }

    fn root_at(&self, size: u64) -> Result<Option<Hash>, LogError> {
        let stored = self.sealer.size();
        if size == 0 {
            return Ok(Some(empty_root()));
        }
        if size > stored {
            return Ok(None);
        }
        let (disk, tiles) = (&*self.paths.disk, &self.paths.tiles);
        let read = |level, index, width| read_tile(disk, tiles, level, index, width);
        let node = |level, index| {
            let hash = subtree(&read, stored, level, index)?;
            hash.ok_or_else(|| LogError::corrupt(tiles, 0, "a subtree is not complete"))
        };
        proof::root(&node, size).map(Some)
    }
}

impl SiteTiles for SiteFiles {
    async fn stored(&self) -> Result<SealedState, ClusterError> {
        blocking(&self.files, |site| Ok(site.state.clone())).await
    }

    async fn store(&self, state: &SealedState, entries: &[Vec<u8>]) -> Result<(), ClusterError> {
        let (state, entries) = (state.clone(), entries.to_vec());
        blocking(&self.files, move |site| site.store(&state, &entries)).await
    }

    async fn fetch(&self, from: u64, to: u64) -> Result<Option<Vec<Vec<u8>>>, ClusterError> {
        for source in self.sources.clone() {
            let read = tokio::task::spawn_blocking(move || entries(&*source, from, to)).await;
            // It may be behind, or away: the next one may have them.
            match read {
                Ok(Ok(entries)) => return Ok(Some(entries)),
                Ok(Err(error)) => tracing::debug!(%error, from, to, "a site does not have the entries"),
                Err(error) => return Err(ClusterError::OwnDisk(error.to_string())),
            }
        }
        Ok(None)
    }
}

/// Reads entries from a site's bundles.
fn entries(site: &dyn LogFiles, from: u64, to: u64) -> Result<Vec<Vec<u8>>, LogError> {
    let mut found = Vec::new();
    for index in from / TILE as u64..to.div_ceil(TILE as u64) {
        let first = index * TILE as u64;
        let width = usize::try_from(to - first).map_or(TILE, |width| width.min(TILE));
        let bytes = site.bundle(index, width)?;
        let bundle = decode_bundle(&bytes, width, &site.path(&bundle_name(index, width)))?;
        let skipped = usize::try_from(from.saturating_sub(first)).unwrap_or(TILE);
        found.extend(bundle.into_iter().skip(skipped).map(<[u8]>::to_vec));
    }
    Ok(found)
}

impl Publication for SiteFiles {
    async fn sign(&self, size: u64, root: &Hash) -> Result<String, ClusterError> {
        let root = *root;
        blocking(&self.files, move |site| Ok(site.sealer.sign(size, &root))).await
    }

    /// Stores what it can: a site that is behind stores the rest first, and publishes then.
    async fn publish(&self, state: &SealedState, entries: &[Vec<u8>]) -> Result<(), ClusterError> {
        let (state, entries) = (state.clone(), entries.to_vec());
        let store = move |site: &mut StoredSite| {
            let follows = site.sealer.size() + entries.len() as u64 >= state.size();
            if follows { site.store(&state, &entries) } else { Ok(()) }
        };
        blocking(&self.files, store).await
    }

    async fn last_cosigned(&self) -> Result<Option<(u64, Hash)>, ClusterError> {
        blocking(&self.files, |site| site.cosigned()).await
    }

    async fn root_at(&self, size: u64) -> Result<Option<Hash>, ClusterError> {
        blocking(&self.files, move |site| site.root_at(size)).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::reader::LogReader;
    use std::ops::Range;
    use std::path::Path;

    fn entries(of: Range<u64>) -> Vec<Vec<u8>> {
        of.map(|number| format!("entry {number}").into_bytes()).collect()
    }

    fn signer(key: &[u8]) -> LogSigner {
        LogSigner::from_pkcs8("log.test/site", key).unwrap()
    }

    /// A sealed state of so many entries.
    fn state(key: &[u8], size: u64) -> SealedState {
        let mut state = SealedState::begin([3; 16]);
        entries(0..size).iter().for_each(|entry| state.peaks.push(entry));
        state.note = signer(key).sign(size, &state.root());
        state
    }

    fn open(data: &Path, key: &[u8], others: Vec<OtherSite>) -> SiteFiles {
        SiteFiles::open(&LogPaths::new(data), signer(key), others).unwrap()
    }

    fn run<T>(work: impl Future<Output = Result<T, ClusterError>>) -> Result<T, ClusterError> {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    #[test]
    fn entries_that_are_stored_already_are_skipped_after_a_crash_before_their_state_was() {
        let (folder, key) = (tempfile::tempdir().unwrap(), LogSigner::generate().unwrap());
        let (data, kept) = (folder.path(), folder.path().join("cluster/stored"));
        let site = open(data, &key, Vec::new());
        run(site.store(&state(&key, 300), &entries(0..300))).unwrap();
        let older = std::fs::read(&kept).unwrap();
        run(site.store(&state(&key, 500), &entries(300..500))).unwrap();
        drop(site);
        std::fs::write(&kept, older).unwrap();
        let site = open(data, &key, Vec::new());
        assert_eq!(run(site.stored()).unwrap().size(), 300);
        // Its own tiles have what its state does not name.
        assert_eq!(run(site.fetch(299, 500)).unwrap().unwrap(), entries(299..500));
        run(site.store(&state(&key, 600), &entries(300..600))).unwrap();
        // What the sealer has published meanwhile is not stored twice either.
        run(site.publish(&state(&key, 600), &entries(500..600))).unwrap();
        assert_eq!(run(site.stored()).unwrap(), state(&key, 600));
        let reader = LogReader::open(data).unwrap();
        assert_eq!((reader.sealed(), reader.entry_bytes(599).unwrap().unwrap()), (600, entries(599..600)[0].clone()));
    }

    #[test]
    fn nothing_is_stored_that_does_not_lead_to_the_signed_root() {
        let (folder, key) = (tempfile::tempdir().unwrap(), LogSigner::generate().unwrap());
        let site = open(folder.path(), &key, Vec::new());
        run(site.store(&state(&key, 300), &entries(0..300))).unwrap();
        let mut wrong = entries(300..400);
        wrong[7] = b"nobody looked".to_vec();
        assert!(matches!(run(site.store(&state(&key, 400), &wrong)), Err(ClusterError::Diverged(_))));
        // A site that is behind publishes nothing: what is between is missing.
        run(site.publish(&state(&key, 500), &entries(400..500))).unwrap();
        assert!(run(site.store(&state(&key, 500), &entries(400..500))).is_err());
        let other = state(&LogSigner::generate().unwrap(), 400);
        assert!(run(site.store(&other, &entries(300..400))).is_err());
        assert_eq!(LogReader::open(folder.path()).unwrap().sealed(), 300);
        run(site.store(&state(&key, 400), &entries(300..400))).unwrap();
        assert_eq!(run(site.root_at(300)).unwrap(), Some(state(&key, 300).root()));
        assert_eq!(run(site.root_at(401)).unwrap(), None);
    }

    #[test]
    fn a_site_is_filled_from_another_one_that_has_enough() {
        let (folder, key) = (tempfile::tempdir().unwrap(), LogSigner::generate().unwrap());
        let [few, many, new] = ["few", "many", "new"].map(|name| folder.path().join(name));
        for (data, size) in [(&few, 200), (&many, 700)] {
            run(open(data, &key, Vec::new()).store(&state(&key, size), &entries(0..size))).unwrap();
        }
        let from = |data: &Path| Arc::new(LogFolder::on(&LogPaths::new(data), None)) as OtherSite;
        let site = open(&new, &key, vec![from(&few), from(&many)]);
        for (first, last) in [(0, 700), (0, 256), (255, 257), (256, 512), (699, 700)] {
            assert_eq!(run(site.fetch(first, last)).unwrap().unwrap(), entries(first..last), "{first} to {last}");
        }
        assert_eq!(run(site.fetch(0, 701)).unwrap(), None);
    }
}
