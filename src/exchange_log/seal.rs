//! Sealing: new entries into bundles and tiles, then a signed checkpoint.
//!
//! Order of durability: bundles and tiles, then the last-signed state (kept apart), then the checkpoint. So a published
//! checkpoint always has its tiles, and a checkpoint is never signed for a smaller or another tree than the last one.

use super::checkpoint::{Checkpoint, LogSigner};
use super::tiles::{
    bundle_path, checkpoint_path, edge_tiles, encode_bundle, put_entry, read_bundle, read_tile, tile_path, write_file,
};
use super::tree::{Edge, FullTile, TILE, leaf_hash};
use super::{LogError, LogPaths, crash_point, replace_atomically, sync_folder};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The sealed part of the log.
pub struct Sealer {
    paths: LogPaths,
    signer: LogSigner,
    edge: Edge,
    /// The bytes of the bundle that is not full yet.
    bundle: Vec<u8>,
    signed_size: u64,
}

/// Reads the published checkpoint, where there is one.
pub fn published(paths: &LogPaths, signer: &LogSigner) -> Result<Option<Checkpoint>, LogError> {
    checkpoint_at(&checkpoint_path(&paths.tiles), signer)
}

fn checkpoint_at(path: &Path, signer: &LogSigner) -> Result<Option<Checkpoint>, LogError> {
    match std::fs::read_to_string(path) {
        Ok(note) => {
            let checked = signer.verifier().check(&note);
            Ok(Some(checked.map_err(|error| LogError::corrupt(path, 0, error.to_string()))?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LogError::io(path, &error)),
    }
}

impl Sealer {
    /// Loads the right edge of what is published, and checks it against the checkpoint and the last signed one.
    pub fn open(paths: LogPaths, signer: LogSigner) -> Result<Self, LogError> {
        super::make_folder(&paths.tiles)?;
        let checkpoint = published(&paths, &signer)?;
        let size = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
        let signed = checkpoint_at(&paths.signed, &signer)?;
        let edge = load_edge(&paths.tiles, size)?;
        if let Some(checkpoint) = &checkpoint
            && edge.root() != checkpoint.root
        {
            let path = checkpoint_path(&paths.tiles);
            return Err(LogError::corrupt(&path, 0, "the tiles on the right edge do not have the checkpoint's root"));
        }
        let width = (size % TILE as u64) as usize;
        let bundle =
            if width == 0 { Vec::new() } else { encode_bundle(&read_bundle(&paths.tiles, size / TILE as u64, width)?) };
        let signed_size = signed.as_ref().map_or(0, |signed| signed.size);
        // It is always written first, so it can only be missing, or older, where somebody has put it there.
        if signed_size < size {
            let reason = format!(
                "the last signed checkpoint is missing or older than the published one of {size} entries: put it back; if it \
                 is lost, {} stands for it, but then a roll-back to before that is not noticed",
                checkpoint_path(&paths.tiles).display()
            );
            return Err(LogError::corrupt(&paths.signed, 0, reason));
        }
        if let (Some(signed), Some(checkpoint)) = (&signed, &checkpoint)
            && signed.size == checkpoint.size
            && signed.root != checkpoint.root
        {
            return Err(LogError::corrupt(&paths.signed, 0, "another tree of this size was signed before"));
        }
        Ok(Sealer { paths, signer, edge, bundle, signed_size })
    }

    /// Entries sealed so far.
    pub fn size(&self) -> u64 {
        self.edge.size
    }

    /// The size of the last checkpoint that was ever signed; entries up to it must come back from the journal.
    pub fn signed_size(&self) -> u64 {
        self.signed_size
    }

    /// Seals further entries and signs a checkpoint. On failure nothing has changed but files that the next try writes
    /// again.
    pub fn seal(&mut self, entries: &[Vec<u8>]) -> Result<(), LogError> {
        let old_edge = edge_files(&self.paths.tiles, self.edge.size);
        let mut edge = self.edge.clone();
        let mut bundle = self.bundle.clone();
        let mut files = Files { root: self.paths.tiles.clone(), folders: BTreeSet::new() };
        for entry in entries {
            let index = edge.size / TILE as u64;
            let full = edge.push(leaf_hash(entry));
            put_entry(&mut bundle, entry);
            if edge.size.is_multiple_of(TILE as u64) {
                files.write(bundle_path(&self.paths.tiles, index, TILE), &bundle)?;
                bundle.clear();
            }
            for FullTile { level, index, hashes } in full {
                files.write(tile_path(&self.paths.tiles, level, index, TILE), hashes.as_flattened())?;
            }
        }
        let width = (edge.size % TILE as u64) as usize;
        if width > 0 {
            files.write(bundle_path(&self.paths.tiles, edge.size / TILE as u64, width), &bundle)?;
        }
        for (level, index, width) in edge_tiles(edge.size) {
            let hashes = edge.levels.get(level).filter(|hashes| hashes.len() == width);
            let hashes =
                hashes.ok_or_else(|| LogError::corrupt(&self.paths.tiles, 0, "the right edge is out of step"))?;
            let path = tile_path(&self.paths.tiles, level, index, width);
            // Above the leaves, a tile may have the same width as before: it stands under the published checkpoint, so
            // it is left as it is.
            if !old_edge.contains(&path) {
                files.write(path, hashes.as_flattened())?;
            }
        }
        crash_point("seal.files");
        files.sync()?;
        let root = edge.root();
        let note = self.signer.sign(edge.size, &root);
        if edge.size < self.signed_size {
            let (found, path) = (edge.size, self.paths.tiles.clone());
            return Err(LogError::RolledBack { found, signed: self.signed_size, path });
        }
        replace_atomically(&self.paths.signed, note.as_bytes())?;
        crash_point("seal.signed");
        self.signed_size = edge.size;
        replace_atomically(&checkpoint_path(&self.paths.tiles), note.as_bytes())?;
        crash_point("seal.published");
        let new_edge = edge_files(&self.paths.tiles, edge.size);
        self.edge = edge;
        self.bundle = bundle;
        for path in old_edge.difference(&new_edge) {
            // Partial files of an older size: what they held stands in the newer ones. A leftover does no harm.
            let _ = std::fs::remove_file(path);
            crash_point("seal.removed");
            if let Some(folder) = path.parent() {
                let _ = std::fs::remove_dir(folder);
            }
        }
        Ok(())
    }
}

/// Files written in one sealing, and the folders that must be synced for them.
struct Files {
    root: PathBuf,
    folders: BTreeSet<PathBuf>,
}

impl Files {
    fn write(&mut self, path: PathBuf, bytes: &[u8]) -> Result<(), LogError> {
        write_file(&self.root, &path, bytes)?;
        // A new folder's own entry stands in its parent, up to the log's root.
        self.folders.extend(path.ancestors().skip(1).take(4).map(Path::to_owned));
        Ok(())
    }

    fn sync(&self) -> Result<(), LogError> {
        self.folders.iter().filter(|folder| folder.is_dir()).try_for_each(|folder| sync_folder(folder))
    }
}

fn load_edge(root: &Path, size: u64) -> Result<Edge, LogError> {
    let mut edge = Edge { size, levels: Vec::new() };
    for level in 0..8 {
        if size >> (8 * level) > 0 {
            edge.levels.push(Vec::new());
        }
    }
    for (level, index, width) in edge_tiles(size) {
        edge.levels[level] = read_tile(root, level, index, width)?;
    }
    Ok(edge)
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

    /// What a published checkpoint needs is never written again, so that no crash can find it half written.
    #[test]
    fn a_tile_under_the_checkpoint_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let paths = LogPaths::new(folder.path());
        let signer = LogSigner::from_pkcs8("log.example", &LogSigner::generate().unwrap()).unwrap();
        let mut sealer = Sealer::open(paths.clone(), signer).unwrap();
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
