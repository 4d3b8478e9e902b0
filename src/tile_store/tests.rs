//! The uploader over a store in memory.
#![allow(clippy::unwrap_used)]

use super::tiles::{edge, with_bundle};
use super::{TileStoreError, Uploader};
use crate::exchange_log::checkpoint::LogSigner;
use crate::exchange_log::disk::copy_folder;
use crate::exchange_log::pruned::prune;
use crate::exchange_log::tiles::Tile;
use crate::exchange_log::{Entry, ExchangeLog, Kind, LogPaths};
use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{ObjectStore, ObjectStoreExt};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

struct Log {
    folder: TempDir,
    key: Vec<u8>,
}

impl Log {
    fn new() -> Self {
        Log { folder: tempfile::tempdir().unwrap(), key: LogSigner::generate().unwrap() }
    }

    fn data(&self) -> &Path {
        self.folder.path()
    }

    /// Appends so many entries, and seals them.
    fn grow(&self, count: usize, node: &str) {
        let log = ExchangeLog::open(self.data(), LogSigner::from_pkcs8("log.test/s", &self.key).unwrap()).unwrap();
        let target = log.durable() + count as u64;
        for _ in 0..count {
            log.append_detached(&Entry::begin(Kind::Admin, node)).unwrap();
        }
        while log.seal_now().unwrap() < target {}
    }

    /// The log of another site, as it is now.
    fn copy(&self) -> Self {
        let copy = Log { folder: tempfile::tempdir().unwrap(), key: self.key.clone() };
        copy_folder(self.data(), copy.data());
        copy
    }

    fn uploader(&self, store: &Arc<dyn ObjectStore>, alone: bool) -> Uploader {
        Uploader::new(self.data().to_owned(), store.clone(), alone)
    }

    fn file(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.data().join("log").join(name)).unwrap()
    }
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

async fn names(store: &Arc<dyn ObjectStore>) -> BTreeSet<String> {
    store.list(None).map_ok(|found| found.location.to_string()).try_collect().await.unwrap()
}

async fn object(store: &Arc<dyn ObjectStore>, name: &str) -> Vec<u8> {
    store.get(&ObjectPath::from(name)).await.unwrap().bytes().await.unwrap().to_vec()
}

async fn overwrite(store: &Arc<dyn ObjectStore>, name: &str, bytes: Vec<u8>) {
    store.put(&ObjectPath::from(name), bytes.into()).await.unwrap();
}

async fn size(store: &Arc<dyn ObjectStore>) -> u64 {
    let note = String::from_utf8(object(store, "checkpoint").await).unwrap();
    note.lines().nth(1).unwrap().parse().unwrap()
}

/// Every tile that the store's checkpoint needs is there and as in the log's folder; what more is there is partial.
async fn assert_complete(log: &Log, store: &Arc<dyn ObjectStore>) {
    let size = size(store).await;
    let mut needed: BTreeSet<String> = edge(size).into_iter().map(Tile::name).collect();
    needed.extend((0..size / 256).flat_map(with_bundle).map(Tile::name));
    let found = names(store).await;
    for name in &needed {
        assert!(found.contains(name), "{name} of {size} is missing");
        if log.data().join("log").join(name).exists() {
            assert_eq!(object(store, name).await, log.file(name), "{name}");
        }
    }
    let tiles = found.iter().filter(|name| name.starts_with("tile/"));
    let others: Vec<_> = tiles.filter(|name| !needed.contains(*name) && !name.contains(".p/")).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[tokio::test]
async fn a_store_has_what_its_checkpoint_needs_and_no_partial_tile_beside_a_full_one() {
    let (log, store) = (Log::new(), memory());
    let mut uploader = log.uploader(&store, true);
    for count in [10, 5, 285, 212, 1_000] {
        log.grow(count, "dc1");
        uploader.step().await.unwrap();
        assert_eq!((uploader.pending(), object(&store, "checkpoint").await), (0, log.file("checkpoint")));
        assert_complete(&log, &store).await;
        let found = names(&store).await;
        for full in found.iter().filter(|name| !name.contains(".p/")) {
            let partial = found.iter().find(|name| name.starts_with(&format!("{full}.p/")));
            assert!(partial.is_none(), "{partial:?} beside {full}");
        }
        assert_eq!(object(&store, "vkey").await, log.file("vkey"));
    }
    // A store that has lost everything gets everything again.
    for name in names(&store).await {
        store.delete(&ObjectPath::from(name)).await.unwrap();
    }
    uploader.step().await.unwrap();
    assert_complete(&log, &store).await;
}

#[tokio::test(start_paused = true)]
async fn two_sites_at_once_upload_one_log_and_none_puts_an_older_checkpoint_over_a_newer_one() {
    let log = Log::new();
    let slow = |ms| ThrottleConfig {
        wait_get_per_call: Duration::from_millis(ms),
        wait_put_per_call: Duration::from_millis(ms),
        ..ThrottleConfig::default()
    };
    let store = Arc::new(InMemory::new());
    let behind = |ms| Arc::new(ThrottledStore::new(store.clone(), slow(ms))) as Arc<dyn ObjectStore>;
    let (first, second, plain) = (behind(3), behind(5), store.clone() as Arc<dyn ObjectStore>);
    log.grow(100, "dc1");
    let mut newer = log.uploader(&first, false);
    let mut last = 0;
    for count in [1, 300, 7, 900] {
        // The other site has less, and both begin at once.
        let other = log.copy();
        log.grow(count, "dc1");
        let mut older = other.uploader(&second, false);
        let (one, two) = tokio::join!(newer.step(), older.step());
        one.unwrap();
        two.unwrap();
        for _ in 0..2 {
            let (one, two) = tokio::join!(newer.step(), older.step());
            one.unwrap();
            two.unwrap();
            let now = size(&plain).await;
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
        assert_eq!(object(&plain, "checkpoint").await, log.file("checkpoint"));
        assert_complete(&log, &plain).await;
    }
}

#[tokio::test]
async fn a_tile_that_was_changed_is_an_alarm_and_is_never_overwritten() {
    let (log, store) = (Log::new(), memory());
    log.grow(600, "dc1");
    log.uploader(&store, true).step().await.unwrap();
    let checkpoint = object(&store, "checkpoint").await;
    log.grow(600, "dc1");
    // A tile of the edge, a full one, one that is to be put next, and the key.
    for name in ["tile/entries/002.p/88", "tile/0/001", "tile/entries/003", "vkey"] {
        let right = match store.get(&ObjectPath::from(name)).await {
            Ok(found) => found.bytes().await.unwrap().to_vec(),
            Err(_) => log.file(name),
        };
        let mut wrong = right.clone();
        wrong[3] ^= 1;
        overwrite(&store, name, wrong.clone()).await;
        let mut uploader = log.uploader(&store, true);
        for _ in 0..2 {
            let error = uploader.step().await.unwrap_err();
            assert!(matches!(&error, TileStoreError::Different(which) if which == name), "{name}: {error}");
            assert!(error.is_alarm() && uploader.pending() == 600);
            assert_eq!(
                (object(&store, name).await, object(&store, "checkpoint").await),
                (wrong.clone(), checkpoint.clone())
            );
        }
        overwrite(&store, name, right).await;
    }
    log.uploader(&store, true).step().await.unwrap();
    assert_complete(&log, &store).await;
    assert_eq!(size(&store).await, 1_200);
}

#[tokio::test]
async fn a_checkpoint_of_another_tree_or_key_is_an_alarm_and_that_of_a_site_ahead_is_none() {
    let (log, fork, store) = (Log::new(), Log::new(), memory());
    log.grow(300, "dc1");
    let behind = log.copy();
    log.grow(300, "dc1");
    log.uploader(&store, true).step().await.unwrap();
    let right = object(&store, "checkpoint").await;
    behind.uploader(&store, false).step().await.unwrap();
    assert_eq!(object(&store, "checkpoint").await, right);
    // Nobody is ahead of a gateway that is alone.
    assert!(behind.uploader(&store, true).step().await.unwrap_err().is_alarm());
    let same_key = Log { folder: tempfile::tempdir().unwrap(), key: log.key.clone() };
    fork.grow(300, "dc1");
    same_key.grow(300, "dc2");
    for wrong in [fork.file("checkpoint"), same_key.file("checkpoint"), b"x".to_vec(), vec![0xff; 1 << 20]] {
        overwrite(&store, "checkpoint", wrong.clone()).await;
        for alone in [true, false] {
            let error = log.uploader(&store, alone).step().await.unwrap_err();
            assert!(error.is_alarm(), "{error}");
        }
        assert_eq!(object(&store, "checkpoint").await, wrong);
    }
}

#[tokio::test]
async fn a_pruned_bundle_goes_and_does_not_come_back() {
    let (log, store) = (Log::new(), memory());
    log.grow(1_100, "dc1");
    log.uploader(&store, true).step().await.unwrap();
    let (removed, other) = (object(&store, "tile/entries/001").await, log.copy());
    prune(&LogPaths::new(log.data()), &[0..=1]).unwrap();
    log.uploader(&store, true).step().await.unwrap();
    let gone = |found: &BTreeSet<String>| !found.contains("tile/entries/000") && !found.contains("tile/entries/001");
    let found = names(&store).await;
    assert!(gone(&found) && found.contains("tile/entries/002") && found.contains("tile/0/001"));
    assert_eq!(object(&store, "pruned").await, log.file("pruned"));
    // A process that ended between the list and the deletion.
    overwrite(&store, "tile/entries/001", removed).await;
    log.uploader(&store, true).step().await.unwrap();
    assert!(gone(&names(&store).await));
    // A site that still has it does not bring it back, and prunes its own.
    prune(&LogPaths::new(other.data()), &[3..=3]).unwrap();
    other.uploader(&store, false).step().await.unwrap();
    assert!(gone(&names(&store).await) && !names(&store).await.contains("tile/entries/003"));
    assert_eq!(object(&store, "pruned").await, b"0 1\n3 3\n");
    // A store that lists what a gateway that is alone has never pruned.
    assert!(log.uploader(&store, true).step().await.unwrap_err().is_alarm());
}

#[tokio::test]
async fn a_partial_bundle_that_was_left_goes_with_its_pruned_bundle() {
    let (log, store) = (Log::new(), memory());
    log.grow(100, "dc1");
    log.uploader(&store, true).step().await.unwrap();
    let left = object(&store, "tile/entries/000.p/100").await;
    log.grow(600, "dc1");
    log.uploader(&store, true).step().await.unwrap();
    // What a round leaves that was cut off before it removed partial tiles.
    overwrite(&store, "tile/entries/000.p/100", left).await;
    prune(&LogPaths::new(log.data()), &[0..=0]).unwrap();
    let mut uploader = log.uploader(&store, true);
    for _ in 0..4 {
        uploader.step().await.unwrap();
    }
    let found = names(&store).await;
    let of_it: Vec<_> = found.iter().filter(|name| name.starts_with("tile/entries/000")).collect();
    assert!(of_it.is_empty(), "{of_it:?}");
}

#[tokio::test]
async fn a_site_that_is_behind_does_not_say_that_a_changed_tile_is_right() {
    let (log, store) = (Log::new(), memory());
    log.grow(300, "dc1");
    let behind = log.copy();
    log.grow(300, "dc1");
    log.uploader(&store, false).step().await.unwrap();
    overwrite(&store, "tile/entries/000", b"wrong".to_vec()).await;
    assert!(log.uploader(&store, false).step().await.unwrap_err().is_alarm());
    // What `report` takes for "in order".
    assert!(behind.uploader(&store, false).step().await.is_err());
}

#[tokio::test]
async fn what_a_cut_off_round_did_not_delete_goes_in_the_next_one() {
    let (log, store) = (Log::new(), memory());
    log.grow(256 * 20, "dc1");
    log.uploader(&store, true).step().await.unwrap();
    let bundle = object(&store, "tile/entries/012").await;
    prune(&LogPaths::new(log.data()), &[0..=15]).unwrap();
    log.uploader(&store, true).step().await.unwrap();
    overwrite(&store, "tile/entries/012", bundle).await;
    log.uploader(&store, true).step().await.unwrap();
    assert!(!names(&store).await.contains("tile/entries/012"));
}

#[tokio::test]
async fn a_site_that_uploads_from_the_beginning_does_not_bring_a_pruned_bundle_back() {
    let (log, store) = (Log::new(), memory());
    log.grow(1_100, "dc1");
    let other = log.copy();
    prune(&LogPaths::new(log.data()), &[0..=1]).unwrap();
    log.uploader(&store, false).step().await.unwrap();
    // The list is there and no checkpoint: what an upload leaves that was cut off, or the other site's at the same time.
    store.delete(&ObjectPath::from("checkpoint")).await.unwrap();
    other.uploader(&store, false).step().await.unwrap();
    assert!(!names(&store).await.contains("tile/entries/000"));
}
