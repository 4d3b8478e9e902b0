//! The tiles of this gateway's site, in the same files as those of an embedded log, so that whatever reads that one reads
//! this one: `log/` and `state/signed-checkpoint`; beside them `cluster/stored`, the sealed state up to which they are
//! stored.
//!
//! Order of durability: bundles and tiles, the signed checkpoint, the published one, the state. After a crash the state may
//! be older than the tiles; the entries between them are skipped when they come again.
//!
//! A site that is being filled keeps full bundles and tiles before the checkpoint that covers them. After a crash, the next
//! process reads them here first, checks them like those of any other site, and does not write them again.

use super::own_disk::blocking;
use crate::cluster::ClusterError;
use crate::cluster::own_disk::Publication;
use crate::cluster::peaks::{Peaks, subtrees};
use crate::cluster::site::SiteTiles;
use crate::cluster::state::SealedState;
use crate::exchange_log::checkpoint::{LogSigner, LogVerifier};
use crate::exchange_log::disk;
use crate::exchange_log::reader::{COSIGNED_FILE, VKEY_FILE, policy};
use crate::exchange_log::seal::Sealer;
use crate::exchange_log::tiles::{bundle_name, complete_subtree, decode_bundle, decode_tile, read_tile, tile_name};
use crate::exchange_log::tree::{Hash, TILE, empty_root};
use crate::exchange_log::verify::{LogFiles, LogFolder};
use crate::exchange_log::{LogError, LogPaths, proof};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// The tiles of another site, from which missing ones are fetched: its folder, or its `/log/` over HTTPS. What comes from
/// there is proven by the checkpoint's root.
pub type OtherSite = Arc<dyn LogFiles + Send + Sync>;

/// Entries of a piece of the log: sixteen bundles.
const PIECE: u64 = 16 * TILE as u64;
/// Bytes from which on a piece has no further bundle; one has at most 16 MB.
const PIECE_BYTES: usize = 8 << 20;

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
    /// The tree with what is kept behind the state, once something is.
    held: Option<Peaks>,
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
        let site = StoredSite { paths: paths.clone(), verifier, sealer, state, state_file, held: None };
        // From now on the folder is known to be one without a journal.
        site.keep_state(&site.state)?;
        Ok(SiteFiles { files: Arc::new(Mutex::new(site)), sources })
    }
}

impl StoredSite {
    /// Stores entries up to a state, but for those that are stored already.
    fn store(&mut self, state: &SealedState, entries: &[Vec<u8>]) -> Result<(), LogError> {
        let first = state.size().saturating_sub(entries.len() as u64);
        // Those of the sealer follow what is published, and those of a site that is filled what is kept.
        let there = if first > self.sealer.size() { self.sealer.held_size() } else { self.sealer.size() };
        let rest = missing(entries, first, there).ok_or_else(|| self.gap(first, there))?;
        if !rest.is_empty() {
            self.sealer.store(rest, &state.note)?;
        }
        if state.size() > self.state.size() {
            self.keep_state(state)?;
            self.state = state.clone();
            self.held = None;
        }
        Ok(())
    }

    /// Keeps entries from a number on, but for those that are held, stored or kept already.
    fn keep(&mut self, from: u64, entries: &[Vec<u8>]) -> Result<(), LogError> {
        let (mut held, there) = (self.held.take().unwrap_or_else(|| self.state.peaks.clone()), self.sealer.held_size());
        let entries = missing(entries, from, held.size()).unwrap_or_default();
        let rest = missing(entries, held.size(), there).ok_or_else(|| self.gap(held.size(), there))?;
        if !rest.is_empty() {
            self.sealer.keep(rest)?;
        }
        entries.iter().for_each(|entry| held.push(entry));
        self.held = Some(held);
        Ok(())
    }

    fn gap(&self, first: u64, there: u64) -> LogError {
        LogError::corrupt(&self.paths.tiles, 0, format!("entries {there} to {first} are missing"))
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
        let node = |level, index| complete_subtree(&read, tiles, stored, (level, index));
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

    async fn held(&self) -> Result<Peaks, ClusterError> {
        blocking(&self.files, |site| Ok(site.held.clone().unwrap_or_else(|| site.state.peaks.clone()))).await
    }

    async fn keep(&self, from: u64, entries: &[Vec<u8>]) -> Result<(), ClusterError> {
        let entries = entries.to_vec();
        blocking(&self.files, move |site| site.keep(from, &entries)).await
    }

    fn sources(&self) -> usize {
        self.sources.len()
    }

    async fn fetch(&self, source: usize, from: u64, to: u64) -> Result<Option<Vec<Vec<u8>>>, ClusterError> {
        self.read(source, move |site| entries(site, from, to)).await
    }

    async fn hashes(
        &self,
        source: usize,
        (from, to): (u64, u64),
        size: u64,
    ) -> Result<Option<Vec<Hash>>, ClusterError> {
        self.read(source, move |site| hashes(site, &subtrees(from, to), size)).await
    }
}

impl SiteFiles {
    /// Reads from a source; `None` if it cannot be read, or does not have it.
    async fn read<T: Send + 'static>(
        &self,
        source: usize,
        read: impl FnOnce(&dyn LogFiles) -> Result<T, LogError> + Send + 'static,
    ) -> Result<Option<T>, ClusterError> {
        let Some(site) = self.sources.get(source).cloned() else { return Ok(None) };
        let done = tokio::task::spawn_blocking(move || read(&*site)).await;
        let read = done.map_err(|error| ClusterError::OwnDisk(error.to_string()))?;
        Ok(read.inspect_err(|error| tracing::debug!(%error, source, "a site does not have it now")).ok())
    }
}

/// What is left of entries from a number on where there are so many already; `None` if some before them are missing.
fn missing(entries: &[Vec<u8>], first: u64, there: u64) -> Option<&[Vec<u8>]> {
    let known = usize::try_from(there.checked_sub(first)?).unwrap_or(usize::MAX);
    Some(entries.get(known..).unwrap_or_default())
}

/// Reads entries from a site's bundles, up to some megabytes, or as many as it has.
fn entries(site: &dyn LogFiles, from: u64, to: u64) -> Result<Vec<Vec<u8>>, LogError> {
    const WIDTH: u64 = TILE as u64;
    // A piece ends with a bundle.
    let to = if to - from > PIECE { (from + PIECE) / WIDTH * WIDTH } else { to };
    let (mut found, mut size) = (Vec::new(), 0);
    for index in from / WIDTH..to.div_ceil(WIDTH) {
        let first = index * WIDTH;
        let width = usize::try_from(to - first).map_or(TILE, |width| width.min(TILE));
        let bytes = match site.bundle(index, width) {
            Err(_) if !found.is_empty() => break,
            bytes => bytes?,
        };
        let bundle = decode_bundle(&bytes, width, &site.path(&bundle_name(index, width)))?;
        let skipped = usize::try_from(from.saturating_sub(first)).unwrap_or(TILE);
        found.extend(bundle.into_iter().skip(skipped).map(<[u8]>::to_vec));
        size += bytes.len();
        if size >= PIECE_BYTES {
            break;
        }
    }
    Ok(found)
}

/// Reads the hashes of complete subtrees from a site's hash tiles, each tile once.
fn hashes(site: &dyn LogFiles, subtrees: &[(u32, u64)], size: u64) -> Result<Vec<Hash>, LogError> {
    let tiles: RefCell<BTreeMap<(usize, u64), Vec<Hash>>> = RefCell::default();
    let read = |level: usize, index: u64, width: usize| {
        if let Some(tile) = tiles.borrow().get(&(level, index)) {
            return Ok(tile.clone());
        }
        let path = site.path(&tile_name(level, index, width));
        let tile = decode_tile(&site.tile(level, index, width)?, width, &path)?.to_vec();
        tiles.borrow_mut().insert((level, index), tile.clone());
        Ok(tile)
    };
    let path = site.path("checkpoint");
    subtrees.iter().map(|place| complete_subtree(&read, &path, size, *place)).collect()
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
        assert_eq!(run(site.fetch(0, 299, 500)).unwrap().unwrap(), entries(299..500));
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

    fn folder(data: &Path) -> OtherSite {
        Arc::new(LogFolder::on(&LogPaths::new(data), None))
    }

    /// Fills a site up to a state, as following does: by pieces, from one source.
    fn fill(site: &SiteFiles, source: usize, to: &SealedState, until: u64) {
        loop {
            let held = run(site.held()).unwrap();
            if held.size() >= until {
                return;
            }
            let piece = run(site.fetch(source, held.size(), to.size())).unwrap().unwrap();
            let mut after = held.clone();
            piece.iter().for_each(|entry| after.push(entry));
            let behind = (after.size(), to.size());
            let hashes = run(site.hashes(source, behind, to.size())).unwrap().unwrap();
            let mut grown = after.clone();
            let levels = subtrees(behind.0, behind.1);
            levels.iter().zip(hashes).for_each(|((level, _), hash)| grown.push_subtree(*level, hash));
            assert_eq!(grown, to.peaks, "{behind:?}");
            match after.size() == to.size() {
                true => run(site.store(to, &piece)).unwrap(),
                false => run(site.keep(held.size(), &piece)).unwrap(),
            }
        }
    }

    #[test]
    fn a_piece_has_whole_bundles_and_a_bound_whoever_is_asked() {
        let (folder_, key) = (tempfile::tempdir().unwrap(), LogSigner::generate().unwrap());
        let [few, many, new] = ["few", "many", "new"].map(|name| folder_.path().join(name));
        for (data, size) in [(&few, 200), (&many, 9_000)] {
            run(open(data, &key, Vec::new()).store(&state(&key, size), &entries(0..size))).unwrap();
        }
        let site = open(&new, &key, vec![folder(&few), folder(&many)]);
        assert_eq!(site.sources(), 3);
        for (first, last, end) in [
            (0, 700, 700),
            (255, 257, 257),
            (699, 700, 700),
            (0, 9_000, 4_096),
            (5_000, 9_000, 9_000),
            (4_100, 8_500, 8_192),
        ] {
            assert_eq!(run(site.fetch(2, first, last)).unwrap().unwrap(), entries(first..end), "{first} to {last}");
        }
        // What it has of them; nothing, if that is none.
        assert_eq!(run(site.fetch(2, 8_960, 9_300)).unwrap(), None);
        assert_eq!(run(site.fetch(2, 8_600, 9_300)).unwrap().unwrap(), entries(8_600..8_960));
        assert_eq!(run(site.fetch(1, 200, 700)).unwrap(), None);
        assert_eq!(run(site.fetch(0, 0, 700)).unwrap(), None);
        assert_eq!(run(site.hashes(1, (0, 4_096), 9_000)).unwrap(), None);
    }

    #[test]
    fn a_site_that_is_filled_by_pieces_goes_on_after_a_crash_and_publishes_only_the_whole() {
        let (folder_, key) = (tempfile::tempdir().unwrap(), LogSigner::generate().unwrap());
        let [there, data] = ["there", "new"].map(|name| folder_.path().join(name));
        let to = state(&key, 9_000);
        let other = open(&there, &key, Vec::new());
        run(other.store(&to, &entries(0..9_000))).unwrap();
        let site = open(&data, &key, vec![folder(&there)]);
        run(site.store(&state(&key, 300), &entries(0..300))).unwrap();
        fill(&site, 1, &to, 8_000);
        assert_eq!(run(site.held()).unwrap().size(), 8_448);
        let published = |data: &Path| LogReader::open(data).unwrap().sealed();
        assert_eq!((published(&data), run(site.stored()).unwrap().size()), (300, 300));
        // A crash: the next process finds what was kept at itself, and does not write it again.
        drop(site);
        let tile = data.join("log/tile/entries/020");
        let written = std::fs::metadata(&tile).unwrap().modified().unwrap();
        let site = open(&data, &key, vec![folder(&there)]);
        assert_eq!(run(site.held()).unwrap().size(), 300);
        let own = run(site.fetch(0, 300, 9_000)).unwrap().unwrap();
        assert_eq!(own, entries(300..4_352));
        // The sealer of this gateway, which is behind, publishes nothing of it.
        run(site.keep(300, &own)).unwrap();
        run(site.publish(&to, &entries(8_900..9_000))).unwrap();
        fill(&site, 1, &to, 9_000);
        assert_eq!(std::fs::metadata(&tile).unwrap().modified().unwrap(), written);
        assert_eq!((published(&data), run(site.stored()).unwrap()), (9_000, to.clone()));
        assert_eq!(run(site.root_at(9_000)).unwrap(), Some(to.root()));
        let last = LogReader::open(&data).unwrap().entry_bytes(8_999).unwrap();
        assert_eq!(last, Some(entries(8_999..9_000)[0].clone()));
        // And goes on as any other.
        run(site.store(&state(&key, 9_100), &entries(9_000..9_100))).unwrap();
        assert_eq!(published(&data), 9_100);
    }

    #[test]
    fn what_was_kept_and_does_not_lead_to_the_signed_root_is_not_published() {
        let (folder_, key) = (tempfile::tempdir().unwrap(), LogSigner::generate().unwrap());
        let site = open(folder_.path(), &key, Vec::new());
        let mut wrong = entries(0..600);
        wrong[7] = b"nobody looked".to_vec();
        run(site.keep(0, &wrong[..512])).unwrap();
        assert!(matches!(run(site.store(&state(&key, 600), &wrong[512..])), Err(ClusterError::Diverged(_))));
        // Another position than the caller believes: the sealer of the gateway has stored meanwhile.
        run(site.keep(600, &entries(600..610))).unwrap();
        assert_eq!(run(site.held()).unwrap().size(), 512);
        assert!(run(site.store(&state(&key, 700), &entries(600..700))).is_err());
        // The whole from what is stored replaces it.
        run(site.store(&state(&key, 600), &entries(0..600))).unwrap();
        assert_eq!(LogReader::open(folder_.path()).unwrap().sealed(), 600);
    }
}
