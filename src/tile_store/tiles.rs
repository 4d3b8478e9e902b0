//! Which tiles a checkpoint needs, and their bytes, hashed up to it.

use crate::exchange_log::LogError;
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::tiles::{Tile, edge_tiles, encode_bundle};
use crate::exchange_log::tree::TILE;

/// The tiles that become full with a full bundle: the bundle, its hash tile, and those above that it completes.
pub(super) fn with_bundle(bundle: u64) -> Vec<Tile> {
    let mut all = vec![Tile { level: None, index: bundle, width: TILE }];
    let mut count = Some(bundle + 1);
    let mut level = 0;
    while let Some(index) = count {
        all.push(Tile { level: Some(level), index: index - 1, width: TILE });
        count = index.is_multiple_of(TILE as u64).then_some(index / TILE as u64);
        level += 1;
    }
    all
}

/// The tiles on the right edge of a tree of `size` leaves, with the bundle that is not full.
pub(super) fn edge(size: u64) -> Vec<Tile> {
    let width = (size % TILE as u64) as usize;
    let bundle = (width > 0).then_some(Tile { level: None, index: size / TILE as u64, width });
    let hashes = edge_tiles(size).into_iter().map(|(level, index, width)| Tile { level: Some(level), index, width });
    bundle.into_iter().chain(hashes).collect()
}

/// Returns a tile's bytes; `None` if it is a bundle that was pruned.
///
/// # Errors
/// What was read does not lead to the log's signed root, or cannot be read: such bytes are never uploaded.
pub(super) fn bytes(reader: &LogReader, tile: Tile) -> Result<Option<Vec<u8>>, LogError> {
    let short = || LogError::corrupt(&reader.paths().tiles.join(tile.name()), 0, "is not under the checkpoint");
    let Some(level) = tile.level else {
        let Some(entries) = reader.bundle(tile.index)? else { return Ok(None) };
        return Ok(Some(encode_bundle(entries.get(..tile.width).ok_or_else(short)?)));
    };
    let hashes = reader.tile(level, tile.index)?;
    Ok(Some(hashes.get(..tile.width).ok_or_else(short)?.as_flattened().to_vec()))
}
