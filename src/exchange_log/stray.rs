//! Files below a log's folder that do not belong to its checkpoint. A crash leaves tiles of an older or a coming
//! checkpoint, which hold what the log has at their positions; anything else was put there, and would be served to
//! auditors as immutable.

use super::LogError;
use super::disk::{self, PathKind};
use super::note::Note;
use super::pruned::PRUNED_FILE;
use super::reader::{COSIGNED_FILE, LogReader, POLICY_FILE, VKEY_FILE};
use super::signed::node;
use super::tiles::{Tile, checkpoint_path, decode_bundle, decode_tile, parse_name};
use super::tree::{Hash, TILE, leaf_hash};
use std::io::ErrorKind;
use std::path::Path;

/// Maximum depth of folders: `tile/entries/x000/x000/x000/x000/x000/x000/000.p`.
const MAX_DEPTH: usize = 12;
/// Files of the log's folder other than tiles. An unfinished file is one that a crash left before it had its name.
const FILES: [&str; 6] = ["checkpoint", VKEY_FILE, POLICY_FILE, COSIGNED_FILE, PRUNED_FILE, "unfinished"];

/// Checks that every file below a log's folder belongs there. [`super::verify`] checks full tiles under the checkpoint;
/// this function only recognises them.
///
/// # Errors
/// [`LogError::Corrupt`] with the first file that does not belong there.
pub fn check(reader: &LogReader) -> Result<(), LogError> {
    let (disk, root) = (&*reader.paths().disk, &reader.paths().tiles);
    let vkey = root.join(VKEY_FILE);
    let there = disk::read(disk, &vkey).map_err(|error| LogError::io(&vkey, &error))?;
    if there != reader.verifier().to_string().as_bytes() {
        return Err(LogError::corrupt(&vkey, 0, "is not what the log wrote: a key with something beside it"));
    }
    // Cosignatures have a separate file.
    if Note::parse(reader.note()).is_ok_and(|note| note.signatures.len() > 1) {
        return Err(LogError::corrupt(&checkpoint_path(root), 0, "holds more than the log's own signature"));
    }
    below(reader, root, 0)
}

fn below(reader: &LogReader, folder: &Path, depth: usize) -> Result<(), LogError> {
    let (disk, root) = (&*reader.paths().disk, &reader.paths().tiles);
    let wrong = |path: &Path, reason: &str| LogError::corrupt(path, 0, reason);
    if depth > MAX_DEPTH {
        return Err(wrong(folder, "is no folder of a log"));
    }
    let mut paths = match disk.list(folder) {
        Ok(paths) => paths,
        // A gateway that is sealing removes folders of partial tiles.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(LogError::io(folder, &error)),
    };
    paths.sort();
    for path in paths {
        match disk.kind(&path) {
            Ok(PathKind::Folder) => below(reader, &path, depth + 1)?,
            Ok(PathKind::File) => {
                let name = path.strip_prefix(root).ok().and_then(Path::to_str).unwrap_or_default();
                match parse_name(name) {
                    Some(tile) => tile_of(reader, &path, tile)?,
                    None if FILES.contains(&name) || is_unfinished(name) => {}
                    None => return Err(wrong(&path, "is no file of a log")),
                }
            }
            Ok(PathKind::Other) => return Err(wrong(&path, "is neither a file nor a folder")),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(LogError::io(&path, &error)),
        }
    }
    Ok(())
}

/// Returns whether this is the name of a file that a crash left before it replaced another one.
fn is_unfinished(name: &str) -> bool {
    FILES.iter().any(|file| name.strip_prefix(file).is_some_and(|rest| rest.starts_with('.')) && !name.contains('/'))
}

/// Checks a tile or bundle that is not one of the checkpoint's: it must hold what the log has.
fn tile_of(reader: &LogReader, path: &Path, tile: Tile) -> Result<(), LogError> {
    let Tile { level, index, width } = tile;
    let level = level.unwrap_or(0);
    let below = reader.sealed() >> (8 * level);
    if index < below / TILE as u64 && width == TILE {
        return Ok(());
    }
    let bytes = match disk::read(&*reader.paths().disk, path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(LogError::io(path, &error)),
    };
    let stray = || LogError::corrupt(path, 0, "does not hold what the log has at its place: it was put there");
    let held: Vec<Hash> = match tile.level {
        None => decode_bundle(&bytes, width, path)?.into_iter().map(leaf_hash).collect(),
        Some(_) => decode_tile(&bytes, width, path)?.to_vec(),
    };
    let first = index.checked_mul(TILE as u64).ok_or_else(stray)?;
    for (at, hash) in (first..).zip(&held) {
        // After the last entry there is nothing that it could hold.
        let end = at.checked_add(1).and_then(|end| end.checked_mul(1 << (8 * level)));
        if end.is_none_or(|end| end > reader.size()) || node(reader, 8 * level as u32, at)? != *hash {
            return Err(stray());
        }
    }
    Ok(())
}
