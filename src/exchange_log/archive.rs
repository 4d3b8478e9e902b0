//! Copies entry bundles into an archive, before they are pruned.

use super::LogError;
use super::disk::{read, sync_folder, write_atomically};
use super::reader::LogReader;
use super::tiles::{bundle_path, encode_bundle, read_tile};
use super::tree::{TILE, leaf_hash};
use std::collections::BTreeSet;
use std::path::Path;

/// Copies sealed bundles below `archive`, synced and compared with their hash tiles; skips pruned ones.
///
/// # Errors
/// A bundle does not match its hash tile, or the archive does not hold what was written to it.
pub fn archive(
    reader: &LogReader,
    bundles: impl Iterator<Item = u64>,
    archive: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<(), LogError> {
    let (disk, tiles) = (&*reader.paths().disk, &reader.paths().tiles);
    let mut folders = BTreeSet::new();
    for bundle in bundles {
        let Some(entries) = reader.bundle(bundle)? else { continue };
        let hashes: Vec<_> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        if hashes != read_tile(disk, tiles, 0, bundle, TILE)? {
            let from = bundle_path(tiles, bundle, TILE);
            return Err(LogError::corrupt(&from, 0, "the entries are not those of the hash tile"));
        }
        let (path, bytes) = (bundle_path(archive, bundle, TILE), encode_bundle(&entries));
        write_atomically(disk, &path, &bytes)?;
        if read(disk, &path).map_err(|error| LogError::io(&path, &error))? != bytes {
            return Err(LogError::corrupt(&path, 0, "the archive does not hold what was written to it"));
        }
        folders.extend(path.ancestors().skip(1).take_while(|folder| folder.starts_with(archive)).map(Path::to_owned));
        progress(1);
    }
    folders.iter().try_for_each(|folder| sync_folder(disk, folder))
}
