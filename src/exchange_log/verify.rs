//! `audit verify`: recomputes every hash of the log's files from its entries, and names the first that is wrong.

use super::checkpoint::LogVerifier;
use super::reader::{LogReader, VKEY_FILE};
use super::tiles::{bundle_path, edge_tiles, read_tile, tile_path};
use super::tree::{Edge, TILE, leaf_hash};
use super::{Entry, LogError, LogPaths};
use crate::hex::hex;
use std::path::Path;

/// What was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The log's name.
    pub origin: String,
    /// Entries under the checkpoint, each hashed into its root.
    pub sealed: u64,
    /// Entries behind it, whole in the journal.
    pub tail: u64,
    /// The root, in hexadecimal.
    pub root: String,
}

/// Verifies the log below `data`, telling progress as entries done of all. With `vkey`, the log's own key file is not
/// believed.
pub fn verify(data: &Path, vkey: Option<&str>, mut progress: impl FnMut(u64, u64)) -> Result<Report, LogError> {
    // A gateway that seals at the same moment deletes the partial tiles of the checkpoint that was read: begin again.
    let mut tries = 5;
    loop {
        tries -= 1;
        match verify_once(data, vkey, &mut progress) {
            Err(LogError::Io { .. }) if tries > 0 => std::thread::sleep(std::time::Duration::from_millis(100)),
            other => return other,
        }
    }
}

fn verify_once(data: &Path, vkey: Option<&str>, progress: &mut impl FnMut(u64, u64)) -> Result<Report, LogError> {
    let paths = LogPaths::new(data);
    let reader = LogReader::open(data)?;
    let sealed = reader.sealed();
    if let Some(vkey) = vkey {
        check_key(&paths, vkey)?;
    }
    let mut edge = Edge::default();
    for bundle in 0..sealed.div_ceil(TILE as u64) {
        let entries = reader.bundle(bundle)?;
        for (place, bytes) in entries.iter().enumerate() {
            let index = bundle * TILE as u64 + place as u64;
            if Entry::from_bytes(bytes).is_none() {
                let path = bundle_path(&paths.tiles, bundle, entries.len());
                return Err(LogError::corrupt(&path, 0, format!("entry {index} is no canonical entry")));
            }
            for tile in edge.push(leaf_hash(bytes)) {
                check_tile(&paths, tile.level, tile.index, &tile.hashes)?;
            }
        }
        progress(edge.size, sealed);
    }
    for (level, index, _) in edge_tiles(sealed) {
        check_tile(&paths, level, index, &edge.levels[level])?;
    }
    let root = edge.root();
    let Some(checkpoint) = &reader.checkpoint else {
        return Err(LogError::corrupt(&paths.tiles, 0, "there is no checkpoint"));
    };
    if checkpoint.root != root {
        return Err(LogError::corrupt(
            &paths.tiles.join("checkpoint"),
            0,
            "the entries do not have the checkpoint's root",
        ));
    }
    for (place, bytes) in reader.tail().iter().enumerate() {
        if Entry::from_bytes(bytes).is_none() {
            let index = sealed + place as u64;
            return Err(LogError::corrupt(&paths.journal, 0, format!("entry {index} is no canonical entry")));
        }
    }
    Ok(Report { origin: checkpoint.origin.clone(), sealed, tail: reader.tail().len() as u64, root: hex(&root) })
}

fn check_key(paths: &LogPaths, vkey: &str) -> Result<(), LogError> {
    let path = paths.tiles.join("checkpoint");
    let verifier = LogVerifier::parse(vkey)
        .map_err(|error| LogError::corrupt(&paths.tiles.join(VKEY_FILE), 0, error.to_string()))?;
    let note = std::fs::read_to_string(&path).map_err(|error| LogError::io(&path, &error))?;
    verifier.check(&note).map(|_| ()).map_err(|error| LogError::corrupt(&path, 0, error.to_string()))
}

/// A hash tile must hold what the entries hash to; the first hash that differs names the entries below it.
fn check_tile(paths: &LogPaths, level: usize, index: u64, computed: &[super::tree::Hash]) -> Result<(), LogError> {
    let stored = read_tile(&paths.tiles, level, index, computed.len())?;
    if let Some(place) = stored.iter().zip(computed).position(|(stored, computed)| stored != computed) {
        let span = 1u64 << (8 * level);
        let first = (index * TILE as u64 + place as u64) * span;
        let path = tile_path(&paths.tiles, level, index, computed.len());
        let which =
            if span == 1 { format!("entry {first}") } else { format!("entries {first} to {}", first + span - 1) };
        return Err(LogError::corrupt(
            &path,
            place as u64 * 32,
            format!("{which}: the stored hash is not that of the entry"),
        ));
    }
    Ok(())
}
