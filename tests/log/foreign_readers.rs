//! Readers that share no code with the gateway accept its log: the published crates `signed_note` and `tlog_tiles` (Cloudflare's Azul).
//! `tests/python/verify_log.py` is another.

use ndxp_gateway::exchange_log::checkpoint::LogSigner;
use ndxp_gateway::exchange_log::reader::LogReader;
use ndxp_gateway::exchange_log::{Entry, ExchangeLog, Kind};
use signed_note::{Note, StandardVerifier, VerifierList};
use std::path::{Path, PathBuf};
use tlog_tiles::{
    Checkpoint, Error, Tile, TileHashReader, TileReader, check_record, check_tree, prove_record, prove_tree,
    record_hash, tree_hash,
};

/// The hash tiles of a folder.
struct Folder(PathBuf);

impl TileReader for Folder {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, Error> {
        let read = |tile: &Tile| {
            // The specification's names leave the height out, which is always 8.
            let path = self.0.join(tile.path().replacen("tile/8/", "tile/", 1));
            std::fs::read(&path).map_err(|error| Error::InvalidInput(format!("{}: {error}", path.display())))
        };
        tiles.iter().map(read).collect()
    }

    fn save_tiles(&self, _tiles: &[Tile], _data: &[Vec<u8>]) {}
}

/// Their verification of a log: its checkpoint, and each entry's proof under it. An error names what they reject.
fn read(data: &Path, entries: &[Vec<u8>]) -> Result<u64, String> {
    let log = data.join("log");
    let text = |name: &str| std::fs::read_to_string(log.join(name)).map_err(|error| error.to_string());
    let verifier = StandardVerifier::new(&text("vkey")?).map_err(|error| error.to_string())?;
    let note = Note::from_bytes(text("checkpoint")?.as_bytes()).map_err(|error| error.to_string())?;
    let (signatures, _) =
        note.verify(&VerifierList::new(vec![Box::new(verifier)])).map_err(|error| error.to_string())?;
    assert_eq!(signatures.len(), 1);
    let checkpoint = Checkpoint::from_bytes(note.text()).map_err(|error| format!("{error:?}"))?;
    let (size, root) = (checkpoint.size(), *checkpoint.hash());
    let (folder, failed) = (Folder(log), |error: Error| format!("{error:?}"));
    let tiles = TileHashReader::new(size, root, &folder);
    assert_eq!(tree_hash(size, &tiles).map_err(failed)?.0, root.0);
    for (index, entry) in (0..).zip(entries).take(size as usize) {
        let proof = prove_record(size, index, &tiles).map_err(failed)?;
        check_record(&proof, size, root, index, record_hash(entry)).map_err(failed)?;
    }
    for old in [1, 255, 256, 300, size] {
        let older = tree_hash(old, &tiles).map_err(failed)?;
        let proof = prove_tree(size, old, &tiles).map_err(failed)?;
        check_tree(&proof, size, root, old, older).map_err(failed)?;
    }
    Ok(size)
}

#[test]
fn published_crates_read_the_log_and_reject_anything_else() {
    let folder = tempfile::tempdir().unwrap();
    let signer = LogSigner::from_pkcs8("log.example/foreign", &LogSigner::generate().unwrap()).unwrap();
    let log = ExchangeLog::open(folder.path(), signer).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for number in 0..600 {
        log.append_detached(&Entry { client: format!("c{number}"), ..Entry::begin(Kind::Exchange, "dc1") }).unwrap();
    }
    runtime.block_on(log.append(&Entry::begin(Kind::Admin, "dc1"))).unwrap();
    log.seal_now().unwrap();
    drop(log);
    let reader = LogReader::open(folder.path()).unwrap();
    let entries: Vec<Vec<u8>> = (0..reader.size()).map(|index| reader.entry_bytes(index).unwrap().unwrap()).collect();
    assert_eq!(read(folder.path(), &entries), Ok(601));
    // Their proofs are of these bytes, in this place, under this signature.
    let mut others = entries.clone();
    others.swap(3, 4);
    assert!(read(folder.path(), &others).is_err());
    for name in ["tile/0/000", "tile/0/002.p/89", "tile/1/000.p/2", "checkpoint"] {
        let path = folder.path().join("log").join(name);
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        std::fs::write(&path, bad).unwrap();
        assert!(read(folder.path(), &entries).is_err(), "{name}");
        std::fs::write(&path, good).unwrap();
    }
    assert_eq!(read(folder.path(), &entries), Ok(601));
}
