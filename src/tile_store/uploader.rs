//! Copies what is under the published checkpoint to the store, in rounds. A round begins with what the store's own
//! checkpoint says, so nothing is kept on disk.

use super::TileStoreError;
use super::tiles::{bytes, edge, with_bundle};
use crate::exchange_log::note::MAX_NOTE;
use crate::exchange_log::proof;
use crate::exchange_log::pruned::{PRUNED_FILE, Pruned};
use crate::exchange_log::reader::{LogReader, VKEY_FILE};
use crate::exchange_log::tiles::{Tile, parse_name};
use crate::exchange_log::tree::TILE;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Requests at once: with bundles of 16 MB, the largest possible, each of them twice, 256 MB.
const AT_ONCE: usize = 8;
/// Full bundles that a round compares again, with their hash tiles: all of them in turn.
const COMPARED: u64 = 8;
/// The folder of the bundles.
const BUNDLES: &str = "tile/entries";
/// How often all bundles are listed although nothing was pruned meanwhile: another site may have put one that was pruned.
const LISTED_EACH: Duration = Duration::from_secs(24 * 3600);
/// Longest list of pruned bundles.
const MAX_PRUNED: u64 = 1 << 20;
const CHECKPOINT: &str = "checkpoint";

/// What the store has of an object.
struct Object {
    bytes: Vec<u8>,
    version: UpdateVersion,
}

/// Copies the log below a data folder to a store.
pub struct Uploader {
    data: PathBuf,
    store: Arc<dyn ObjectStore>,
    /// Whether no other gateway writes this log.
    alone: bool,
    /// The next full bundle to compare.
    compared: u64,
    /// What was pruned here when all pruned bundles were last deleted in the store, and when.
    removed: Option<(Pruned, Instant)>,
    /// Entries under the store's checkpoint, as it was read last, and under the published one.
    sizes: (u64, u64),
}

impl Uploader {
    /// Makes it for the log below a data folder; `alone`: no other gateway writes this log.
    pub fn new(data: PathBuf, store: Arc<dyn ObjectStore>, alone: bool) -> Self {
        Uploader { data, store, alone, compared: 0, removed: None, sizes: (0, 0) }
    }

    /// Returns how many published entries the store does not have yet, as far as it is known.
    pub fn pending(&self) -> u64 {
        self.sizes.1.saturating_sub(self.sizes.0)
    }

    /// Compares a part of what the store has, and uploads what is new.
    ///
    /// # Errors
    /// [`TileStoreError`]; the next round begins anew.
    pub async fn step(&mut self) -> Result<(), TileStoreError> {
        let reader = LogReader::sealed_only(&self.data)?;
        let Some(published) = reader.published()?.filter(|published| published.size > 0) else { return Ok(()) };
        self.sizes.1 = published.size;
        let stored = self.stored(&reader).await?;
        self.sizes.0 = stored.as_ref().map_or(0, |(size, _)| *size);
        let begun = self.sizes.0;
        // First: a tile that is not right must not keep what is pruned.
        let pruned = self.prune(&reader).await?;
        self.compare(VKEY_FILE, reader.verifier().to_string().into_bytes()).await?;
        // Where another site is ahead, the edge is not known here.
        let edge = if begun > published.size { Vec::new() } else { edge(begun) };
        self.compare_tiles(&reader, begun.min(published.size), edge, &pruned).await?;
        if begun >= published.size {
            return Ok(());
        }
        self.upload(&reader, (begun, published.size), &pruned).await?;
        let mode = stored.map_or(PutMode::Create, |(_, version)| PutMode::Update(version));
        if self.put_over(CHECKPOINT, published.note.into_bytes(), mode).await? {
            self.sizes.0 = published.size;
            self.remove_partial(begun, published.size).await?;
        }
        Ok(())
    }

    /// Returns the size of the store's checkpoint, which is a beginning of this log.
    async fn stored(&self, reader: &LogReader) -> Result<Option<(u64, UpdateVersion)>, TileStoreError> {
        let Some(found) = self.get(CHECKPOINT, MAX_NOTE as u64).await? else { return Ok(None) };
        let foreign = |why: &str| TileStoreError::Foreign(why.to_owned());
        let note = String::from_utf8(found.bytes).map_err(|_| foreign("is no signed note"))?;
        let checkpoint = reader.verifier().check(&note);
        let checkpoint = checkpoint.map_err(|error| TileStoreError::Foreign(format!("is not this log's: {error}")))?;
        let (size, sealed) = (checkpoint.size, reader.sealed());
        if size > sealed && self.alone {
            return Err(foreign("has more entries than this log, which no other gateway writes"));
        }
        let here = (1..=sealed).contains(&size);
        if here && proof::root(&|level, at| reader.node(level, at), size)? != checkpoint.root {
            return Err(foreign("is of another tree"));
        }
        Ok(Some((size, found.version)))
    }

    /// Compares the right edge of the store's tree, and the next few full tiles of `size` entries. Those that differ are the
    /// next ones again.
    async fn compare_tiles(
        &mut self,
        reader: &LogReader,
        size: u64,
        edge: Vec<Tile>,
        pruned: &Pruned,
    ) -> Result<(), TileStoreError> {
        let full = size / TILE as u64;
        let first = if self.compared < full { self.compared } else { 0 };
        let bundles = first..(first + COMPARED).min(full);
        let tiles = edge.into_iter().chain(bundles.clone().flat_map(with_bundle)).filter(|tile| is_kept(tile, pruned));
        let compared = stream::iter(tiles).map(async |tile| match bytes(reader, tile)? {
            Some(bytes) => self.compare(&tile.name(), bytes).await,
            None => Ok(()),
        });
        compared.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        self.compared = bundles.end;
        Ok(())
    }

    /// Puts the tiles that a tree of `size` needs and one of `begun` has not.
    async fn upload(
        &self,
        reader: &LogReader,
        (begun, size): (u64, u64),
        pruned: &Pruned,
    ) -> Result<(), TileStoreError> {
        let full = (begun / TILE as u64..size / TILE as u64).flat_map(with_bundle);
        let tiles = full.chain(edge(size)).filter(|tile| is_kept(tile, pruned));
        let put = stream::iter(tiles).map(async |tile| match bytes(reader, tile)? {
            Some(bytes) => self.put_new(&tile.name(), bytes).await,
            None => Ok(()),
        });
        put.buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Returns what is pruned in the store: what was there, and from now on what is pruned here.
    async fn prune(&mut self, reader: &LogReader) -> Result<Pruned, TileStoreError> {
        let found = self.get(PRUNED_FILE, MAX_PRUNED).await?;
        let different = || TileStoreError::Different(PRUNED_FILE.to_owned());
        let parse = |found: &Object| Pruned::parse(std::str::from_utf8(&found.bytes).ok()?);
        let before = found.as_ref().map_or_else(|| Some(Pruned::default()), parse).ok_or_else(different)?;
        let mut all = before.clone();
        reader.pruned().runs().iter().cloned().for_each(|run| all.add(run));
        if self.alone && all != *reader.pruned() {
            return Err(different());
        }
        // Listed first: a reader that misses a bundle knows why.
        let is_listed = all == before || {
            let mode = found.map_or(PutMode::Create, |found| PutMode::Update(found.version));
            self.put_over(PRUNED_FILE, all.text().into_bytes(), mode).await?
        };
        let is_removed = |(pruned, at): &(Pruned, Instant)| pruned == reader.pruned() && at.elapsed() < LISTED_EACH;
        if is_listed && !reader.pruned().runs().is_empty() && !self.removed.as_ref().is_some_and(is_removed) {
            let began = Instant::now();
            self.remove_pruned(reader.pruned()).await?;
            self.removed = Some((reader.pruned().clone(), began));
        }
        Ok(all)
    }

    /// Deletes every form of pruned bundles, also what a round has left that was cut off.
    async fn remove_pruned(&self, pruned: &Pruned) -> Result<(), TileStoreError> {
        let folder = path(BUNDLES);
        let found = self.store.list(Some(&folder)).map_err(TileStoreError::from);
        let names = found.map_ok(|found| found.location);
        let gone = names.try_filter(|name| {
            std::future::ready(parse_name(name.as_ref()).is_some_and(|tile| !is_kept(&tile, pruned)))
        });
        let deleted = gone.map(async |name| self.delete_object(&name?).await);
        deleted.buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn delete_object(&self, path: &Path) -> Result<(), TileStoreError> {
        match self.store.delete(path).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes the partial forms of tiles that have become full (C2SP tlog-tiles, "Partial Tiles"): at most 255 of each.
    async fn remove_partial(&self, begun: u64, size: u64) -> Result<(), TileStoreError> {
        let leaves = |tile: &Tile| (tile.index + 1) << (8 * (tile.level.unwrap_or(0) + 1));
        for tile in edge(begun).into_iter().filter(|tile| leaves(tile) <= size) {
            let folder = path(&format!("{}.p", Tile { width: TILE, ..tile }.name()));
            let partial: Vec<Path> =
                self.store.list(Some(&folder)).map_ok(|found| found.location).try_collect().await?;
            let deleted = stream::iter(&partial).map(async |path| self.delete_object(path).await);
            deleted.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        }
        Ok(())
    }

    /// Compares an object with what it has to be, and puts it if it is missing.
    async fn compare(&self, name: &str, bytes: Vec<u8>) -> Result<(), TileStoreError> {
        if self.has(name, &bytes).await? { Ok(()) } else { self.put_new(name, bytes).await }
    }

    /// Returns whether there is an object; it has to have these bytes.
    async fn has(&self, name: &str, bytes: &[u8]) -> Result<bool, TileStoreError> {
        match self.get(name, bytes.len() as u64).await? {
            Some(found) if found.bytes == bytes => Ok(true),
            Some(_) => Err(TileStoreError::Different(name.to_owned())),
            None => Ok(false),
        }
    }

    /// Puts an object that is not there; one that is has to have the same bytes.
    async fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<(), TileStoreError> {
        let options = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&path(name), bytes.clone().into(), options).await {
            Ok(_) => return Ok(()),
            Err(Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        // If it is not, another upload of it has not ended.
        let not_yet = || TileStoreError::Unavailable { reason: "it is not consistent", detail: name.to_owned() };
        self.has(name, &bytes).await?.then_some(()).ok_or_else(not_yet)
    }

    /// Puts an object in place of the one that was read; returns whether it is still that one.
    async fn put_over(&self, name: &str, bytes: Vec<u8>, mode: PutMode) -> Result<bool, TileStoreError> {
        match self.store.put_opts(&path(name), bytes.into(), PutOptions::from(mode)).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns an object; `None` if there is none. One that is larger than `max` is not read, and is a different one.
    async fn get(&self, name: &str, max: u64) -> Result<Option<Object>, TileStoreError> {
        let found = match self.store.get(&path(name)).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if found.meta.size > max {
            return Err(TileStoreError::Different(name.to_owned()));
        }
        let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        Ok(Some(Object { bytes: found.bytes().await?.to_vec(), version }))
    }
}

/// Whether a tile is no pruned bundle.
fn is_kept(tile: &Tile, pruned: &Pruned) -> bool {
    tile.level.is_some() || !pruned.has(tile.index)
}

/// The names of the log's files are those of the objects.
fn path(name: &str) -> Path {
    Path::from(name)
}
