//! Files below a log's folder that its checkpoint does not account for. A crash leaves tiles of an older or a coming checkpoint, which
//! hold what the log has at their places; anything else was put there, and would be served to auditors as if it never changed.

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

/// Most folders below each other: `tile/entries/x000/x000/x000/x000/x000/x000/000.p`.
const MAX_DEPTH: usize = 12;
/// Files of the log's folder that are no tiles. `unfinished` is one that a crash left before it had a name.
const FILES: [&str; 6] = ["checkpoint", VKEY_FILE, POLICY_FILE, COSIGNED_FILE, PRUNED_FILE, "unfinished"];

/// Checks that every file below a log's folder is one that belongs there. Full tiles under the checkpoint are those of
/// [`super::verify`], and are only told apart here.
///
/// # Errors
/// [`LogError::Corrupt`] with the first file that is not.
pub fn check(reader: &LogReader) -> Result<(), LogError> {
    let (disk, root) = (&*reader.paths().disk, &reader.paths().tiles);
    let vkey = root.join(VKEY_FILE);
    let there = disk::read(disk, &vkey).map_err(|error| LogError::io(&vkey, &error))?;
    if there != reader.verifier().to_string().as_bytes() {
        return Err(LogError::corrupt(&vkey, 0, "is not what the log wrote: a key with something beside it"));
    }
    // Cosignatures stand in a file of their own.
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
        // A gateway that seals removes folders of partial tiles.
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

/// What is written before it takes the place of another file, and was left by a crash.
fn is_unfinished(name: &str) -> bool {
    FILES.iter().any(|file| name.strip_prefix(file).is_some_and(|rest| rest.starts_with('.')) && !name.contains('/'))
}

/// A tile or bundle that the checkpoint's own are not: it holds what the log has.
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
        // Behind the last entry there is nothing that it could hold.
        let end = at.checked_add(1).and_then(|end| end.checked_mul(1 << (8 * level)));
        if end.is_none_or(|end| end > reader.size()) || node(reader, 8 * level as u32, at)? != *hash {
            return Err(stray());
        }
    }
    Ok(())
}
