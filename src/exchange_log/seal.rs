//! Sealing: new entries into bundles and tiles, then a signed checkpoint.
//!
//! Order of durability: bundles and tiles, then the last-signed state (stored separately), then the checkpoint. So a
//! published checkpoint always has its tiles. A checkpoint is signed only for a tree that contains the last signed one:
//! the root at that size is computed from the entries and compared before the signature is made, at start and at every
//! sealing.

use super::checkpoint::{Checkpoint, LogSigner};
use super::disk::{self, Disk, ReplacedFile, read_text, sync_folder};
use super::tiles::{
    bundle_path, checkpoint_path, edge_tiles, encode_bundle, put_entry, read_bundle, read_tile, tile_path, write_file,
};
use super::tree::{Edge, FullTile, Hash, TILE, leaf_hash};
use super::{LogError, LogPaths, crash_point};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The sealed part of the log.
pub struct Sealer {
    paths: LogPaths,
    signer: LogSigner,
    edge: Edge,
    /// The root of `edge`: some hundred hashes, so it is computed once.
    root: Hash,
    /// The bytes of the bundle that is not full yet.
    bundle: Vec<u8>,
    /// The last checkpoint that was signed; ahead of `edge` after a crash or a failure between signing and publishing.
    signed: Option<Checkpoint>,
    /// The text of its file, if this process has signed it.
    signed_note: Option<String>,
    signed_file: ReplacedFile,
    published_file: ReplacedFile,
    /// Entries behind the published tree that are kept until their checkpoint is known.
    kept: Option<GrownTree>,
}

/// A tree whose bundles and tiles are written, and that no published checkpoint covers yet.
#[derive(Clone)]
struct GrownTree {
    edge: Edge,
    root: Hash,
    bundle: Vec<u8>,
}

/// Reads the published checkpoint, if there is one.
///
/// # Errors
/// [`LogError::Io`] if it cannot be read; [`LogError::Corrupt`] if its signature is wrong.
pub fn published(paths: &LogPaths, signer: &LogSigner) -> Result<Option<Checkpoint>, LogError> {
    checkpoint_at(&*paths.disk, &checkpoint_path(&paths.tiles), signer)
}

fn checkpoint_at(disk: &dyn Disk, path: &Path, signer: &LogSigner) -> Result<Option<Checkpoint>, LogError> {
    checked(read_text(disk, path)?, path, signer)
}

/// Returns the checkpoint in a file's text, its signature checked.
fn checked(text: Option<String>, path: &Path, signer: &LogSigner) -> Result<Option<Checkpoint>, LogError> {
    let checked = text.map(|note| signer.verifier().check(&note)).transpose();
    checked.map_err(|error| LogError::corrupt(path, 0, error.to_string()))
}

impl Sealer {
    /// Loads the right edge of the published tree, and checks it against the checkpoint and the last signed one.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if a tile does not lead to the checkpoint's root, or the last signed checkpoint is
    /// missing; [`LogError::Io`] if a file cannot be read or a folder synced.
    pub fn open(paths: LogPaths, signer: LogSigner) -> Result<Self, LogError> {
        paths.disk.create_folder(&paths.tiles).map_err(|error| LogError::io(&paths.tiles, &error))?;
        // A killed process may have left names that a loss of power would still remove.
        for folder in [Some(paths.tiles.as_path()), paths.signed.parent()].into_iter().flatten() {
            match paths.disk.sync_folder(folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(LogError::io(folder, &error)),
                _ => {}
            }
        }
        let checkpoint = published(&paths, &signer)?;
        let size = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
        let signed = checkpoint_at(&*paths.disk, &paths.signed, &signer)?;
        let edge = load_edge(&*paths.disk, &paths.tiles, size)?;
        let root = edge.root();
        if let Some(checkpoint) = &checkpoint
            && root != checkpoint.root
        {
            let path = checkpoint_path(&paths.tiles);
            return Err(LogError::corrupt(&path, 0, "the tiles on the right edge do not have the checkpoint's root"));
        }
        let bundle = load_bundle(&*paths.disk, &paths.tiles, &edge)?;
        let signed_size = signed.as_ref().map_or(0, |signed| signed.size);
        // It is always written first, so it is missing or older only if it was removed or replaced.
        if signed_size < size {
            let reason = format!(
                "the last signed checkpoint is missing or older than the published one of {size} entries: put it back; if it \
                 is lost, {} stands for it, but then a roll-back to before that is not noticed",
                checkpoint_path(&paths.tiles).display()
            );
            return Err(LogError::corrupt(&paths.signed, 0, reason));
        }
        let signed_file = ReplacedFile::new(paths.signed.clone());
        let published_file = ReplacedFile::new(checkpoint_path(&paths.tiles));
        let (signed_note, kept) = (None, None);
        let sealer =
            Sealer { paths, signer, edge, root, bundle, signed, signed_note, signed_file, published_file, kept };
        sealer.extends(sealer.signed.as_ref(), sealer.edge.size, || root)?;
        Ok(sealer)
    }

    /// Returns the number of sealed entries.
    pub fn size(&self) -> u64 {
        self.edge.size
    }

    /// Returns the number of entries that are sealed, or kept behind those.
    pub fn held_size(&self) -> u64 {
        self.kept.as_ref().map_or(self.edge.size, |kept| kept.edge.size)
    }

    /// Returns the size of the last checkpoint that was ever signed; entries up to it must come back from the journal.
    pub fn signed_size(&self) -> u64 {
        self.signed.as_ref().map_or(0, |signed| signed.size)
    }

    /// Checks that entries after the published tree lead to the last signed tree; writes nothing.
    ///
    /// # Errors
    /// They do not ([`LogError::Forked`]), or end before it ([`LogError::RolledBack`]).
    pub fn check(&self, entries: &[Vec<u8>]) -> Result<(), LogError> {
        let Some(signed) = &self.signed else { return Ok(()) };
        let mut edge = self.edge.clone();
        let more = usize::try_from(signed.size.saturating_sub(edge.size)).unwrap_or(usize::MAX);
        entries.iter().take(more).for_each(|entry| drop(edge.push(leaf_hash(entry))));
        if edge.size < signed.size {
            let (found, path) = (edge.size, self.paths.tiles.clone());
            return Err(LogError::RolledBack { found, signed: signed.size, path });
        }
        self.extends(Some(signed), edge.size, || edge.root())
    }

    /// Compares a growing tree with a signed one where it has the size of that.
    fn extends(&self, signed: Option<&Checkpoint>, size: u64, root: impl FnOnce() -> Hash) -> Result<(), LogError> {
        match signed {
            Some(signed) if signed.size == size && signed.root != root() => {
                Err(LogError::Forked { signed: signed.size, path: self.paths.tiles.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Returns the last checkpoint that was signed: the one in memory, or the one on the disk if that is larger, since
    /// another process, or a sealing that failed half way, may have signed it. An older one on the disk means that the
    /// disk was rolled back under this process; the next sealing writes the newer one again.
    fn last_signed(&self) -> Result<Option<Checkpoint>, LogError> {
        let text = read_text(&*self.paths.disk, &self.paths.signed)?;
        let there = match &self.signed_note {
            // Unchanged since this process wrote it: its signature need not be checked again.
            Some(note) if text.as_ref() == Some(note) => self.signed.clone(),
            _ => checked(text, &self.paths.signed, &self.signer)?,
        };
        if let (Some(there), Some(known)) = (&there, &self.signed)
            && (there.size, there.root == known.root) == (known.size, false)
        {
            return Err(LogError::Forked { signed: known.size, path: self.paths.tiles.clone() });
        }
        Ok(there.into_iter().chain(self.signed.clone()).max_by_key(|signed| signed.size))
    }

    /// Seals further entries and signs a checkpoint. On an error nothing has changed except files that the next attempt
    /// overwrites.
    ///
    /// # Errors
    /// [`LogError::Forked`] if the entries do not lead to the tree that was signed last; [`LogError::RolledBack`] if
    /// they end before it; [`LogError::Io`] if a file cannot be written.
    pub fn seal(&mut self, entries: &[Vec<u8>]) -> Result<(), LogError> {
        let grown = self.write(self.published_tree(), entries)?;
        debug_assert!(grown.edge.size >= self.signed_size(), "promise 3: no checkpoint of a smaller tree is signed");
        let note = self.sign(grown.edge.size, &grown.root);
        self.publish(grown, note)
    }

    /// Keeps further entries whose checkpoint is known and far away: their full bundles and tiles become durable, and nothing
    /// is published. What a process has kept is found in these files by a later one, which keeps it once more without writing
    /// it again.
    ///
    /// # Errors
    /// As for [`Sealer::store`]; nothing is kept then.
    pub fn keep(&mut self, entries: &[Vec<u8>]) -> Result<(), LogError> {
        let signed = self.last_signed()?;
        let mut grown = self.kept.take().unwrap_or_else(|| self.published_tree());
        let mut files = Files { paths: &self.paths, folders: BTreeSet::new(), is_repeated: true };
        self.grow(&mut grown, entries, signed.as_ref(), &mut files)?;
        files.sync()?;
        grown.root = grown.edge.root();
        self.kept = Some(grown);
        Ok(())
    }

    /// Stores further entries under a checkpoint that is signed already: by the sealer of a log that several gateways
    /// write. They follow those that are kept, or the published tree, by the size of that checkpoint. Errors leave the same
    /// behind as those of [`Sealer::seal`].
    ///
    /// # Errors
    /// [`LogError::Forked`] if the entries do not lead to the tree of this checkpoint, or of the one that was stored
    /// last; [`LogError::Corrupt`] if the log's key has not signed it; otherwise as for [`Sealer::seal`].
    pub fn store(&mut self, entries: &[Vec<u8>], note: &str) -> Result<(), LogError> {
        let checkpoint = self.signer.verifier().check(note);
        let checkpoint = checkpoint.map_err(|error| LogError::corrupt(&self.paths.signed, 0, error.to_string()))?;
        let fits = |kept: &&GrownTree| kept.edge.size + entries.len() as u64 == checkpoint.size;
        let base = self.kept.as_ref().filter(fits).cloned().unwrap_or_else(|| self.published_tree());
        let grown = self.write(base, entries)?;
        if (grown.edge.size, grown.root) != (checkpoint.size, checkpoint.root) {
            return Err(LogError::Forked { signed: checkpoint.size, path: self.paths.tiles.clone() });
        }
        self.publish(grown, note.to_owned())
    }

    /// Publishes the last signed checkpoint if a crash came between: its tiles were durable before. For a log without a
    /// journal, whose entries would bring it back.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if the tiles are not those of that checkpoint; [`LogError::Io`] if a file cannot be read or
    /// written.
    pub fn publish_signed(&mut self) -> Result<(), LogError> {
        let Some(signed) = self.signed.clone().filter(|signed| signed.size > self.edge.size) else { return Ok(()) };
        let edge = load_edge(&*self.paths.disk, &self.paths.tiles, signed.size)?;
        if edge.root() != signed.root {
            return Err(LogError::corrupt(&self.paths.signed, 0, "the tiles do not lead to the root that was signed"));
        }
        let bundle = load_bundle(&*self.paths.disk, &self.paths.tiles, &edge)?;
        let note = read_text(&*self.paths.disk, &self.paths.signed)?.unwrap_or_default();
        self.publish(GrownTree { edge, root: signed.root, bundle }, note)
    }

    /// Signs a checkpoint, and changes nothing: it counts when it is published.
    pub fn sign(&self, size: u64, root: &Hash) -> String {
        self.signer.sign(size, root)
    }

    fn published_tree(&self) -> GrownTree {
        GrownTree { edge: self.edge.clone(), root: self.root, bundle: self.bundle.clone() }
    }

    /// Writes bundles and tiles of further entries, durably; the published checkpoint needs none of them. The tree
    /// contains the last one that was signed.
    fn write(&self, mut grown: GrownTree, entries: &[Vec<u8>]) -> Result<GrownTree, LogError> {
        let signed = self.last_signed()?;
        let mut files = Files { paths: &self.paths, folders: BTreeSet::new(), is_repeated: false };
        let size = grown.edge.size + entries.len() as u64;
        self.grow(&mut grown, entries, signed.as_ref(), &mut files)?;
        self.write_edge(&mut files, &grown.edge, &grown.bundle)?;
        crash_point("seal.files");
        files.sync()?;
        if let Some(signed) = signed.filter(|signed| grown.edge.size < signed.size) {
            let (found, path) = (grown.edge.size, self.paths.tiles.clone());
            return Err(LogError::RolledBack { found, signed: signed.size, path });
        }
        debug_assert_eq!(grown.edge.size, size, "promise 2: every entry is sealed once");
        grown.root = grown.edge.root();
        Ok(grown)
    }

    /// Adds entries to a tree, and writes the bundles and tiles that they fill.
    fn grow(
        &self,
        grown: &mut GrownTree,
        entries: &[Vec<u8>],
        signed: Option<&Checkpoint>,
        files: &mut Files<'_>,
    ) -> Result<(), LogError> {
        let GrownTree { edge, root, bundle } = grown;
        self.extends(signed, edge.size, || *root)?;
        for entry in entries {
            let index = edge.size / TILE as u64;
            let full = edge.push(leaf_hash(entry));
            self.extends(signed, edge.size, || edge.root())?;
            put_entry(bundle, entry);
            if edge.size.is_multiple_of(TILE as u64) {
                files.write(bundle_path(&self.paths.tiles, index, TILE), bundle)?;
                bundle.clear();
            }
            for FullTile { level, index, hashes } in full {
                files.write(tile_path(&self.paths.tiles, level, index, TILE), hashes.as_flattened())?;
            }
        }
        Ok(())
    }

    /// Writes the tiles of the right edge, and the bundle that is not full.
    fn write_edge(&self, files: &mut Files<'_>, edge: &Edge, bundle: &[u8]) -> Result<(), LogError> {
        let old_edge = edge_files(&self.paths.tiles, self.edge.size);
        let width = (edge.size % TILE as u64) as usize;
        debug_assert_eq!(
            bundle.is_empty(),
            width == 0,
            "promise 4: the open bundle holds what follows the last full one"
        );
        if width > 0 {
            files.write(bundle_path(&self.paths.tiles, edge.size / TILE as u64, width), bundle)?;
        }
        for (level, index, width) in edge_tiles(edge.size) {
            let hashes = edge.levels.get(level).filter(|hashes| hashes.len() == width);
            let hashes =
                hashes.ok_or_else(|| LogError::corrupt(&self.paths.tiles, 0, "the right edge is out of step"))?;
            let path = tile_path(&self.paths.tiles, level, index, width);
            // Above the leaves, a tile may have the same width as before: the published checkpoint depends on it, so it
            // is not touched.
            if !old_edge.contains(&path) {
                files.write(path, hashes.as_flattened())?;
            }
        }
        Ok(())
    }

    /// Stores a signed checkpoint whose tiles are written, publishes it, and removes what only the one before needed.
    fn publish(&mut self, grown: GrownTree, note: String) -> Result<(), LogError> {
        let GrownTree { edge, root, bundle } = grown;
        let old_edge = edge_files(&self.paths.tiles, self.edge.size);
        // From here on it counts as signed, even if it does not reach the disk.
        self.signed = Some(Checkpoint { origin: self.signer.origin().to_owned(), size: edge.size, root });
        let note: &str = self.signed_note.insert(note);
        self.signed_file.replace(&*self.paths.disk, note.as_bytes())?;
        crash_point("seal.signed");
        self.published_file.replace(&*self.paths.disk, note.as_bytes())?;
        crash_point("seal.published");
        let new_edge = edge_files(&self.paths.tiles, edge.size);
        (self.edge, self.root, self.bundle) = (edge, root, bundle);
        self.kept = None;
        for path in old_edge.difference(&new_edge) {
            // Partial files of an older size: the newer ones hold the same. A leftover is harmless.
            let _ = self.paths.disk.remove(path);
            crash_point("seal.removed");
            if let Some(folder) = path.parent() {
                let _ = self.paths.disk.remove_folder(folder);
            }
        }
        Ok(())
    }
}

/// Files written in one sealing, and the folders that must be synced for them.
struct Files<'p> {
    paths: &'p LogPaths,
    folders: BTreeSet<PathBuf>,
    /// Whether they may be there already, as they are.
    is_repeated: bool,
}

impl Files<'_> {
    fn write(&mut self, path: PathBuf, bytes: &[u8]) -> Result<(), LogError> {
        let disk = &*self.paths.disk;
        // A file has its name only after its bytes are durable.
        let is_there = self.is_repeated && disk::read(disk, &path).is_ok_and(|there| there == bytes);
        if !is_there {
            write_file(disk, &self.paths.tiles, &path, bytes)?;
        }
        // A new folder's own directory entry is in its parent, up to the log's root.
        let folders = path.ancestors().skip(1).take_while(|folder| folder.starts_with(&self.paths.tiles));
        self.folders.extend(folders.map(Path::to_owned));
        Ok(())
    }

    fn sync(&self) -> Result<(), LogError> {
        self.folders.iter().try_for_each(|folder| sync_folder(&*self.paths.disk, folder))
    }
}

fn load_edge(disk: &dyn Disk, root: &Path, size: u64) -> Result<Edge, LogError> {
    let mut edge = Edge { size, levels: Vec::new() };
    for level in 0..8 {
        if size >> (8 * level) > 0 {
            edge.levels.push(Vec::new());
        }
    }
    for (level, index, width) in edge_tiles(size) {
        edge.levels[level] = read_tile(disk, root, level, index, width)?;
    }
    Ok(edge)
}

/// Returns the bytes of the bundle that is not full yet, after comparing each of its entries with its hash on the right
/// edge: what is carried into the next bundle is what was signed.
fn load_bundle(disk: &dyn Disk, root: &Path, edge: &Edge) -> Result<Vec<u8>, LogError> {
    let (index, width) = (edge.size / TILE as u64, (edge.size % TILE as u64) as usize);
    if width == 0 {
        return Ok(Vec::new());
    }
    let entries = read_bundle(disk, root, index, width)?;
    let hashes = edge.levels.first().map(Vec::as_slice).unwrap_or_default();
    let wrong = |(entry, hash): (&Vec<u8>, &Hash)| leaf_hash(entry) != *hash;
    match entries.iter().zip(hashes).position(wrong) {
        None => Ok(encode_bundle(&entries)),
        Some(at) => {
            let reason = format!("entry {} is not the one whose hash is in its tile", index * TILE as u64 + at as u64);
            Err(LogError::corrupt(&bundle_path(root, index, width), 0, reason))
        }
    }
}

fn edge_files(root: &Path, size: u64) -> BTreeSet<PathBuf> {
    let width = (size % TILE as u64) as usize;
    let bundle = (width > 0).then(|| bundle_path(root, size / TILE as u64, width));
    edge_tiles(size)
        .into_iter()
        .map(|(level, index, width)| tile_path(root, level, index, width))
        .chain(bundle)
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn signer() -> LogSigner {
        LogSigner::from_pkcs8("log.example", &LogSigner::generate().unwrap()).unwrap()
    }

    /// A log of 300 entries with its files put back to their state at 100, except the last signed state, which is
    /// stored separately.
    fn rolled_back(folder: &Path) -> (LogPaths, LogSigner) {
        let (paths, key) = (LogPaths::new(folder), LogSigner::generate().unwrap());
        let signer = || LogSigner::from_pkcs8("log.example", &key).unwrap();
        let mut sealer = Sealer::open(paths.clone(), signer()).unwrap();
        sealer.seal(&entries(0..100)).unwrap();
        let before = folder.join("before");
        disk::copy_folder(&paths.tiles, &before);
        sealer.seal(&entries(100..300)).unwrap();
        std::fs::remove_dir_all(&paths.tiles).unwrap();
        std::fs::rename(&before, &paths.tiles).unwrap();
        (paths, signer())
    }

    fn entries(of: std::ops::Range<usize>) -> Vec<Vec<u8>> {
        of.map(|number| format!("entry {number}").into_bytes()).collect()
    }

    #[test]
    fn l2_a_tree_that_does_not_contain_the_last_signed_one_is_never_signed() {
        let folder = tempfile::tempdir().unwrap();
        let (paths, signer) = rolled_back(folder.path());
        let mut sealer = Sealer::open(paths.clone(), signer).unwrap();
        assert_eq!((sealer.size(), sealer.signed_size()), (100, 300));
        // More entries than were signed, one of them forged.
        let mut invented = entries(100..400);
        invented[150] = b"nobody looked".to_vec();
        let signed = std::fs::read(&paths.signed).unwrap();
        for _ in 0..2 {
            let error = sealer.seal(&invented).unwrap_err();
            assert!(matches!(error, LogError::Forked { signed: 300, .. }), "{error}");
        }
        assert_eq!(std::fs::read(&paths.signed).unwrap(), signed);
        // Too few do not permit a signature either.
        assert!(matches!(sealer.seal(&entries(100..299)), Err(LogError::RolledBack { found: 299, signed: 300, .. })));
        // The same entries, as the journal has them after a crash between signing and publishing, do.
        sealer.seal(&entries(100..400)).unwrap();
        assert_eq!((sealer.size(), sealer.signed_size()), (400, 400));
    }

    #[test]
    fn l2_what_was_signed_meanwhile_is_compared_at_every_sealing() {
        let folder = tempfile::tempdir().unwrap();
        let (paths, key) = (LogPaths::new(folder.path()), LogSigner::generate().unwrap());
        let signer = || LogSigner::from_pkcs8("log.example", &key).unwrap();
        let mut sealer = Sealer::open(paths.clone(), signer()).unwrap();
        sealer.seal(&entries(0..10)).unwrap();
        // A process on a copy of this folder signed another tree of the same log.
        let elsewhere = LogPaths::new(&folder.path().join("copy"));
        let mut other = Sealer::open(elsewhere.clone(), signer()).unwrap();
        other.seal(&entries(50..70)).unwrap();
        std::fs::copy(&elsewhere.signed, &paths.signed).unwrap();
        assert!(matches!(sealer.seal(&entries(10..40)), Err(LogError::Forked { signed: 20, .. })));
        // And one of the published size.
        let mut other = Sealer::open(LogPaths::new(&folder.path().join("second")), signer()).unwrap();
        other.seal(&entries(50..60)).unwrap();
        std::fs::copy(folder.path().join("second/state/signed-checkpoint"), &paths.signed).unwrap();
        assert!(matches!(sealer.seal(&entries(10..40)), Err(LogError::Forked { signed: 10, .. })));
        assert!(matches!(Sealer::open(paths, signer()), Err(LogError::Forked { signed: 10, .. })));
    }

    #[test]
    fn l9_a_bundle_that_is_not_what_was_signed_is_not_carried_on() {
        let folder = tempfile::tempdir().unwrap();
        let (paths, key) = (LogPaths::new(folder.path()), LogSigner::generate().unwrap());
        let signer = || LogSigner::from_pkcs8("log.example", &key).unwrap();
        Sealer::open(paths.clone(), signer()).unwrap().seal(&entries(0..10)).unwrap();
        let path = bundle_path(&paths.tiles, 0, 10);
        let whole = std::fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[20] ^= 1;
        std::fs::write(&path, flipped).unwrap();
        let error = Sealer::open(paths.clone(), signer()).err().unwrap();
        assert!(error.to_string().contains("entry 2 is not the one"), "{error}");
        std::fs::write(&path, whole).unwrap();
        Sealer::open(paths, signer()).unwrap();
    }

    #[test]
    fn another_sealer_s_checkpoint_is_stored_only_over_its_own_entries() {
        let folder = tempfile::tempdir().unwrap();
        let (here, there) = (LogPaths::new(&folder.path().join("a")), LogPaths::new(&folder.path().join("b")));
        let key = LogSigner::generate().unwrap();
        let open = |paths: &LogPaths| {
            Sealer::open(paths.clone(), LogSigner::from_pkcs8("log.example", &key).unwrap()).unwrap()
        };
        let mut sealer = open(&here);
        sealer.seal(&entries(0..300)).unwrap();
        let note = std::fs::read_to_string(&here.signed).unwrap();
        let mut copy = open(&there);
        for wrong in [entries(0..299), entries(1..301)] {
            assert!(matches!(copy.store(&wrong, &note), Err(LogError::Forked { signed: 300, .. })));
        }
        assert!(matches!(copy.store(&entries(0..300), &note.replace("300", "301")), Err(LogError::Corrupt { .. })));
        assert_eq!((copy.size(), copy.signed_size()), (0, 0));
        copy.store(&entries(0..300), &note).unwrap();
        sealer.seal(&entries(300..600)).unwrap();
        let note = std::fs::read_to_string(&here.signed).unwrap();
        copy.store(&entries(300..600), &note).unwrap();
        assert_eq!(
            std::fs::read(checkpoint_path(&here.tiles)).unwrap(),
            std::fs::read(checkpoint_path(&there.tiles)).unwrap()
        );
        assert_eq!((copy.size(), copy.root), (600, sealer.root));
        // A crash between storing and publishing: the next start publishes.
        let published = checkpoint_path(&there.tiles);
        let before = sealer.sign(0, &Edge::default().root());
        std::fs::write(&published, before).unwrap();
        let mut copy = open(&there);
        assert_eq!((copy.size(), copy.signed_size()), (0, 600));
        copy.publish_signed().unwrap();
        assert_eq!(std::fs::read_to_string(&published).unwrap(), note);
        assert_eq!((copy.size(), copy.bundle.clone()), (600, sealer.bundle.clone()));
        copy.seal(&entries(600..700)).unwrap();
    }

    /// A file that a published checkpoint needs is never written again, so that no crash can leave it half written.
    #[test]
    fn a_tile_under_the_checkpoint_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let paths = LogPaths::new(folder.path());
        let mut sealer = Sealer::open(paths.clone(), signer()).unwrap();
        let entries = |count| vec![b"entry".to_vec(); count];
        sealer.seal(&entries(300)).unwrap();
        let tile = tile_path(&paths.tiles, 1, 0, 1);
        let before = std::fs::metadata(&tile).unwrap();
        sealer.seal(&entries(100)).unwrap();
        let after = std::fs::metadata(&tile).unwrap();
        assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
        assert!(!tile_path(&paths.tiles, 0, 1, 44).exists() && tile_path(&paths.tiles, 0, 1, 144).exists());
        assert!(!paths.tiles.join("unfinished").exists());
    }
}
