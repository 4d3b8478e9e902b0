use super::*;
use crate::cluster::batch::WriterBatch;
use crate::cluster::state::WriterProgress;
use crate::exchange_log::disk::tests::RefusedSyncs;

fn writer() -> Incarnation {
    Incarnation::parse("dc1.0123456789abcdef").unwrap()
}

fn batch(seq: u64) -> EncodedBatch {
    // Nothing that could be compressed.
    let mut random = fastrand::Rng::with_seed(seq);
    let entries = vec![(0..900).map(|_| random.u8(1..)).collect()];
    WriterBatch { writer: writer(), seq, before: [7; 32], entries }.encode()
}

fn sealed(mark: u64) -> SealedState {
    let mut state = SealedState::begin([9; 16]);
    state.writers.insert(writer(), WriterProgress { mark, ..WriterProgress::default() });
    state
}

fn open(folder: &Path) -> OwnBatches {
    OwnBatches::open(disk::local(), folder, 1 << 20).unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

fn unsealed(own: &OwnBatches, mark: u64) -> Vec<u64> {
    own.unsealed(&sealed(mark)).unwrap().iter().map(|batch| batch.seq).collect()
}

/// A folder with one segment of three batches, its path and bytes.
fn three() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let mut own = open(folder.path());
    (1..=3).for_each(|seq| own.append(&batch(seq), 1).unwrap());
    let path = files(folder.path())[0].clone();
    let whole = std::fs::read(&path).unwrap();
    (folder, path, whole)
}

#[test]
fn batches_come_back_in_their_order_after_any_number_of_starts() {
    let folder = tempfile::tempdir().unwrap();
    for start in 0..4 {
        let mut own = open(folder.path());
        assert_eq!(unsealed(&own, 0), (1..=start * 5).collect::<Vec<_>>());
        (start * 5 + 1..=start * 5 + 5).for_each(|seq| own.append(&batch(seq), seq).unwrap());
    }
    let own = open(folder.path());
    assert!(files(folder.path()).len() > 4, "a segment holds four of these batches");
    assert_eq!(unsealed(&own, 17), [18, 19, 20]);
    assert_eq!(own.unsealed(&sealed(19)).unwrap(), [batch(20)]);
}

#[test]
fn what_a_crash_leaves_of_the_last_batch_is_cut_off_at_every_length() {
    let (folder, path, whole) = three();
    let frame = whole.len() / 3;
    for length in (2 * frame..3 * frame).step_by(7) {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(unsealed(&open(folder.path()), 0), [1, 2], "{length}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 2 * frame as u64);
    }
    // A sector of it was not written.
    for sector in 2 * frame / 512 + 1..3 * frame / 512 {
        let mut torn = whole.clone();
        torn[sector * 512..(sector + 1) * 512].fill(0);
        std::fs::write(&path, &torn).unwrap();
        assert_eq!(unsealed(&open(folder.path()), 0), [1, 2], "{sector}");
    }
}

#[test]
fn damage_is_an_error_and_is_never_cut_off() {
    let (folder, path, whole) = three();
    let frame = whole.len() / 3;
    let fails = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error = OwnBatches::open(disk::local(), folder.path(), 1 << 20).err();
        matches!(error, Some(LogError::Corrupt { .. })) && std::fs::read(&path).unwrap() == bytes
    };
    for at in (0..whole.len()).step_by(13) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        assert!(fails(&flipped), "{at}");
    }
    // A sector of zeros, or a cut, before a batch that is there.
    let mut zeros = whole.clone();
    zeros[512..1024].fill(0);
    assert!(fails(&zeros));
    assert!(fails(&[&whole[..frame - 10], &whole[frame..]].concat()));
    // An unfinished batch in a segment that is not the last one.
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    std::fs::write(path.with_file_name(format!("{:020}.batches", 9)), b"").unwrap();
    assert!(OwnBatches::open(disk::local(), folder.path(), 1 << 20).is_err());
}

#[test]
fn a_batch_that_could_not_be_synced_is_written_again_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(RefusedSyncs::default());
    let mut own = OwnBatches::open(disk.clone(), folder.path(), 1 << 20).unwrap();
    own.append(&batch(1), 1).unwrap();
    disk.refuse_files(true);
    for _ in 0..3 {
        assert!(matches!(own.append(&batch(2), 1), Err(LogError::Io { .. })));
    }
    disk.refuse_files(false);
    // Shorter than what has failed.
    let short = WriterBatch { writer: writer(), seq: 2, before: [7; 32], entries: vec![vec![1; 10]] }.encode();
    own.append(&short, 1).unwrap();
    assert_eq!(open(folder.path()).unsealed(&sealed(0)).unwrap(), [batch(1), short.clone()]);
    own.append(&batch(3), 1).unwrap();
    assert_eq!(open(folder.path()).unsealed(&sealed(0)).unwrap(), [batch(1), short, batch(3)]);
}

#[test]
fn segments_go_when_they_are_sealed_stored_and_old_and_earlier_only_for_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut own = OwnBatches::open(disk::local(), folder.path(), 20_000).unwrap();
    (1..=12).for_each(|seq| own.append(&batch(seq), 100).unwrap());
    let all = files(folder.path()).len();
    let late = 101 + KEEP_FOR.as_secs();
    let stored = |mark| sealed(mark).marks();
    own.trim(stored(12), late - 2).unwrap();
    own.trim(StoredMarks::default(), late).unwrap();
    assert_eq!(files(folder.path()).len(), all);
    own.trim(stored(6), late).unwrap();
    assert_eq!(unsealed(&own, 0)[0], 5, "the segment of 5 to 8 is not stored as a whole");
    // At the bound: nothing more is stored, then something is.
    let mut seq = 13;
    while own.append(&batch(seq), 200).is_ok() {
        seq += 1;
    }
    assert!(matches!(own.append(&batch(seq), 200), Err(LogError::Full)) && own.bytes() > 18_000);
    own.trim(stored(9), 201).unwrap();
    own.append(&batch(seq), 200).unwrap();
    assert_eq!(unsealed(&own, 0), (9..=seq).collect::<Vec<_>>());
}
