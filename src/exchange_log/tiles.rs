//! Files of the log in the C2SP tlog-tiles layout: `tile/<level>/<index>` and `tile/entries/<index>`, with `.p/<width>`
//! for partial ones (https://c2sp.org/tlog-tiles).

use super::disk::{Disk, Open, read};
use super::tree::{Hash, TILE, tree_hash};
use super::{LogError, entry};
use std::path::{Path, PathBuf};

/// `x001/x234/067` for 1234067.
fn index_path(index: u64) -> String {
    let mut path = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    path
}

fn with_width(path: String, width: usize) -> String {
    if width == TILE { path } else { format!("{path}.p/{width}") }
}

/// The name of a hash tile of this width.
pub fn tile_name(level: usize, index: u64, width: usize) -> String {
    format!("tile/{level}/{}", with_width(index_path(index), width))
}

/// The name of an entry bundle of this width.
pub fn bundle_name(index: u64, width: usize) -> String {
    format!("tile/entries/{}", with_width(index_path(index), width))
}

/// A hash tile, or an entry bundle, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// Its level; `None`: a bundle of entries.
    pub level: Option<usize>,
    /// Its index.
    pub index: u64,
    /// How many hashes or entries it holds.
    pub width: usize,
}

/// Reads the name of a tile; `None` if it is not one, or has another name.
pub fn parse_name(name: &str) -> Option<Tile> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (level, rest) = name.strip_prefix("tile/")?.split_once('/')?;
    let (path, width) = match rest.split_once(".p/") {
        Some((path, width)) => (path, width.parse().ok().filter(|width| (1..TILE).contains(width))?),
        None => (rest, TILE),
    };
    let mut index = 0u64;
    for part in path.split('/') {
        let part = part.strip_prefix('x').unwrap_or(part);
        let number = part.parse().ok().filter(|_| part.len() == 3 && digits(part))?;
        index = index.checked_mul(1_000)?.checked_add(number)?;
    }
    let level = match level {
        "entries" => None,
        level => Some(level.parse::<usize>().ok().filter(|level| *level < 8)?),
    };
    // Each file has one name only.
    Some(Tile { level, index, width }).filter(|tile| tile.name() == name)
}

impl Tile {
    /// Returns its name.
    pub fn name(self) -> String {
        match self.level {
            Some(level) => tile_name(level, self.index, self.width),
            None => bundle_name(self.index, self.width),
        }
    }

    /// Returns its bytes in a log of `size` entries, or of more: cut out of the widest file under that size, so that a
    /// file of an older size that somebody put there is never read. `None` if the size does not reach it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_under(self, disk: &dyn Disk, root: &Path, size: u64) -> Result<Option<Vec<u8>>, LogError> {
        let Tile { level, index, width } = self;
        let count = size >> (8 * level.unwrap_or(0));
        let there = count.saturating_sub(index.saturating_mul(TILE as u64)).min(TILE as u64) as usize;
        if width == 0 || width > there {
            return Ok(None);
        }
        let path = |width: usize| match level {
            Some(level) => tile_path(root, level, index, width),
            None => bundle_path(root, index, width),
        };
        let cut = match level {
            Some(level) => {
                let bytes = tile_bytes(disk, root, level, index, there)?;
                decode_tile(&bytes, there, &path(there))?[..width].as_flattened().to_vec()
            }
            None => {
                let bytes = bundle_bytes(disk, root, index, there)?;
                encode_bundle(&decode_bundle(&bytes, there, &path(there))?[..width])
            }
        };
        Ok(Some(cut))
    }
}

/// Where a hash tile of this width is.
pub fn tile_path(root: &Path, level: usize, index: u64, width: usize) -> PathBuf {
    root.join(tile_name(level, index, width))
}

/// Where an entry bundle of this width is.
pub fn bundle_path(root: &Path, index: u64, width: usize) -> PathBuf {
    root.join(bundle_name(index, width))
}

/// Where the checkpoint is.
pub fn checkpoint_path(root: &Path) -> PathBuf {
    root.join("checkpoint")
}

/// A bundle's bytes.
pub fn encode_bundle<B: AsRef<[u8]>>(entries: &[B]) -> Vec<u8> {
    let mut bundle = Vec::new();
    entries.iter().for_each(|entry| put_entry(&mut bundle, entry.as_ref()));
    bundle
}

/// Puts an entry into a bundle, after its 16-bit length.
pub fn put_entry(bundle: &mut Vec<u8>, entry: &[u8]) {
    bundle.extend_from_slice(&u16::try_from(entry.len()).unwrap_or(u16::MAX).to_be_bytes());
    bundle.extend_from_slice(entry);
}

/// Returns the words of a line if there are exactly this many.
pub(super) fn split_words<const N: usize>(line: &str) -> Option<[&str; N]> {
    line.split(' ').collect::<Vec<_>>().try_into().ok()
}

/// Splits a bundle into its `width` entries.
///
/// # Errors
/// [`LogError::Corrupt`] if the bytes are not `width` entries.
pub fn decode_bundle<'b>(bytes: &'b [u8], width: usize, path: &Path) -> Result<Vec<&'b [u8]>, LogError> {
    let mut entries = Vec::with_capacity(width);
    let mut at = 0usize;
    while at < bytes.len() {
        let cut = |reason| LogError::corrupt(path, at as u64, reason);
        let head: [u8; 2] =
            bytes.get(at..at + 2).and_then(|head| head.try_into().ok()).ok_or_else(|| cut("a length is cut off"))?;
        let length = usize::from(u16::from_be_bytes(head));
        entries.push(bytes.get(at + 2..at + 2 + length).ok_or_else(|| cut("an entry is cut off"))?);
        at += 2 + length;
    }
    if entries.len() != width {
        return Err(LogError::corrupt(path, at as u64, format!("{} entries where {width} should be", entries.len())));
    }
    Ok(entries)
}

/// Splits a hash tile into its `width` hashes.
///
/// # Errors
/// [`LogError::Corrupt`] if the bytes are not `width` hashes.
pub fn decode_tile<'b>(bytes: &'b [u8], width: usize, path: &Path) -> Result<&'b [Hash], LogError> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if hashes.len() != width || !rest.is_empty() {
        return Err(LogError::corrupt(path, bytes.len() as u64, format!("not {width} hashes")));
    }
    Ok(hashes)
}

/// Cuts a file of another width (and its path, for errors) down.
type Cut<'c> = &'c dyn Fn(Vec<u8>, usize, &Path) -> Result<Vec<u8>, LogError>;

/// Reads a file of the right edge. The next sealing deletes it, but only after a wider one, or the full one, holds
/// everything that it held: `cut` takes this width out of that.
fn read_edge(
    disk: &dyn Disk,
    path_of: &dyn Fn(usize) -> PathBuf,
    width: usize,
    cut: Cut<'_>,
) -> Result<Vec<u8>, LogError> {
    let exact = path_of(width);
    let mut last = None;
    for _ in 0..3 {
        match read(disk, &exact) {
            Ok(bytes) => return Ok(bytes),
            Err(error) => last = Some(LogError::io(&exact, &error)),
        }
        if width == TILE {
            break;
        }
        let wider = exact.parent().and_then(|folder| disk.list(folder).ok()).unwrap_or_default();
        let wider = wider.iter().filter_map(|file| file.file_name()?.to_str()?.parse::<usize>().ok());
        for at in wider.filter(|other| *other > width).chain([TILE]) {
            let path = path_of(at);
            if let Ok(bytes) = read(disk, &path) {
                return cut(bytes, at, &path);
            }
        }
    }
    Err(last.unwrap_or(LogError::Closed))
}

/// Returns the bytes of a bundle of `width` entries.
///
/// # Errors
/// [`LogError::Io`] if it cannot be read or is missing; [`LogError::Corrupt`] if a wider one in its place is invalid.
pub fn bundle_bytes(disk: &dyn Disk, root: &Path, index: u64, width: usize) -> Result<Vec<u8>, LogError> {
    read_edge(disk, &|width| bundle_path(root, index, width), width, &|bytes, wide, path| {
        Ok(encode_bundle(&decode_bundle(&bytes, wide, path)?[..width]))
    })
}

/// Returns the bytes of a hash tile of `width` hashes.
///
/// # Errors
/// [`LogError::Io`] if it cannot be read or is missing; [`LogError::Corrupt`] if a wider one in its place is invalid.
pub fn tile_bytes(disk: &dyn Disk, root: &Path, level: usize, index: u64, width: usize) -> Result<Vec<u8>, LogError> {
    read_edge(disk, &|width| tile_path(root, level, index, width), width, &|bytes, wide, path| {
        Ok(decode_tile(&bytes, wide, path)?[..width].as_flattened().to_vec())
    })
}

/// Reads a bundle of `width` entries.
///
/// # Errors
/// As for [`bundle_bytes`] and [`decode_bundle`].
pub fn read_bundle(disk: &dyn Disk, root: &Path, index: u64, width: usize) -> Result<Vec<Vec<u8>>, LogError> {
    let bytes = bundle_bytes(disk, root, index, width)?;
    let entries = decode_bundle(&bytes, width, &bundle_path(root, index, width))?;
    Ok(entries.into_iter().map(<[u8]>::to_vec).collect())
}

/// Reads a hash tile of `width` hashes.
///
/// # Errors
/// As for [`tile_bytes`] and [`decode_tile`].
pub fn read_tile(disk: &dyn Disk, root: &Path, level: usize, index: u64, width: usize) -> Result<Vec<Hash>, LogError> {
    let bytes = tile_bytes(disk, root, level, index, width)?;
    Ok(decode_tile(&bytes, width, &tile_path(root, level, index, width))?.to_vec())
}

/// The hash of a complete subtree of 2^`level` leaves in a tree of `size`, out of its tile, which `read` returns by level, index
/// and width; `path` is where the tree is.
///
/// # Errors
/// [`LogError::Corrupt`] if the subtree is not complete; what `read` returns for a tile that it cannot give.
pub fn complete_subtree(
    read: &dyn Fn(usize, u64, usize) -> Result<Vec<Hash>, LogError>,
    path: &Path,
    size: u64,
    (level, index): (u32, u64),
) -> Result<Hash, LogError> {
    let (tiles, within) = ((level / 8) as usize, level % 8);
    let count = size >> (8 * tiles);
    let first = index << within;
    let tile = first / TILE as u64;
    let width = if tile < count / TILE as u64 { TILE } else { (count % TILE as u64) as usize };
    let from = (first % TILE as u64) as usize;
    let leaves = from..from + (1 << within);
    let hashes = if leaves.end > width { Vec::new() } else { read(tiles, tile, width)? };
    hashes.get(leaves).map(tree_hash).ok_or_else(|| LogError::corrupt(path, 0, "a subtree is not complete"))
}

/// Writes a file atomically and durably (the caller syncs its folder, once for many files). Only one at a time below `root`: all begin
/// under one name, so a crash leaves one file at most.
///
/// # Errors
/// [`LogError::Io`] if it cannot be written, synced or renamed.
pub fn write_file(disk: &dyn Disk, root: &Path, path: &Path, bytes: &[u8]) -> Result<(), LogError> {
    let fresh = root.join("unfinished");
    let write = || {
        let file = disk.open(&fresh, Open::Empty)?;
        file.write_at(bytes, 0)?;
        super::crash_point("seal.file");
        file.sync()?;
        disk.rename(&fresh, path).or_else(|error| match (error.kind(), path.parent()) {
            // Most files go into a folder that is there.
            (std::io::ErrorKind::NotFound, Some(folder)) => {
                disk.create_folder(folder)?;
                disk.rename(&fresh, path)
            }
            _ => Err(error),
        })
    };
    write().map_err(|error: std::io::Error| {
        // The space that it used on a full disk is freed.
        let _ = disk.remove(&fresh);
        LogError::io(path, &error)
    })
}

/// The widths of the tiles on the right edge of a tree of `size` leaves: level, index, width.
pub fn edge_tiles(size: u64) -> Vec<(usize, u64, usize)> {
    (0..8)
        .map(|level| (level, size >> (8 * level)))
        .take_while(|(_, count)| *count > 0)
        .filter(|(_, count)| count % TILE as u64 != 0)
        .map(|(level, count)| (level, count / TILE as u64, (count % TILE as u64) as usize))
        .collect()
}

const _: () = assert!(entry::MAX_BYTES == 65_535, "a bundle's lengths have 16 bits");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let root = Path::new("log");
        assert_eq!(tile_path(root, 0, 1_234_067, 256), Path::new("log/tile/0/x001/x234/067"));
        assert_eq!(tile_path(root, 1, 0, 8), Path::new("log/tile/1/000.p/8"));
        assert_eq!(bundle_path(root, 999, 256), Path::new("log/tile/entries/999"));
        assert_eq!(edge_tiles(70_000), [(0, 273, 112), (1, 1, 17), (2, 0, 1)]);
        assert_eq!(edge_tiles(256), [(1, 0, 1)]);
    }
}
