use super::*;
use crate::cluster::timers::RuntimeTimers;
use crate::exchange_log::tree::{leaf_hash, tree_hash};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

fn entries(of: Range<usize>) -> Vec<Vec<u8>> {
    of.map(|number| format!("entry {number}").into_bytes()).collect()
}

fn peaks(entries: &[Vec<u8>]) -> Peaks {
    let mut peaks = Peaks::default();
    entries.iter().for_each(|entry| peaks.push(entry));
    peaks
}

/// A site in memory; the first of the sources is its own tiles.
struct Site {
    own: Mutex<Vec<Vec<u8>>>,
    others: Vec<Other>,
    stored: Mutex<u64>,
    asked: Mutex<Vec<usize>>,
}

/// What another site does.
enum Other {
    Away,
    /// It returns these, and their hashes.
    Has(Vec<Vec<u8>>),
    /// It returns the first, with the hashes of the second.
    Mixes(Vec<Vec<u8>>, Vec<Vec<u8>>),
}

impl Site {
    fn new(own: Vec<Vec<u8>>, others: Vec<Other>) -> Self {
        Site { own: Mutex::new(own), others, stored: Mutex::default(), asked: Mutex::default() }
    }

    fn own(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.own.lock().unwrap()
    }
}

impl SiteTiles for Site {
    async fn stored(&self) -> Result<SealedState, ClusterError> {
        Ok(SealedState::default())
    }

    async fn held(&self) -> Result<Peaks, ClusterError> {
        Ok(peaks(&self.own()))
    }

    async fn keep(&self, from: u64, entries: &[Vec<u8>]) -> Result<(), ClusterError> {
        let mut own = self.own();
        assert_eq!(own.len() as u64, from);
        own.extend_from_slice(entries);
        Ok(())
    }

    async fn store(&self, state: &SealedState, entries: &[Vec<u8>]) -> Result<(), ClusterError> {
        self.own().extend_from_slice(entries);
        *self.stored.lock().unwrap() = state.size();
        Ok(())
    }

    fn sources(&self) -> usize {
        1 + self.others.len()
    }

    async fn fetch(&self, source: usize, from: u64, to: u64) -> Result<Option<Vec<Vec<u8>>>, ClusterError> {
        self.asked.lock().unwrap().push(source);
        let has = match source.checked_sub(1).map(|at| &self.others[at]) {
            None | Some(Other::Away) => return Ok(None),
            Some(Other::Has(has) | Other::Mixes(has, _)) => has,
        };
        let last = has.len().min(to as usize).min(from as usize + 7);
        Ok(has.get(from as usize..last).map(<[Vec<u8>]>::to_vec))
    }

    async fn hashes(
        &self,
        source: usize,
        (from, to): (u64, u64),
        size: u64,
    ) -> Result<Option<Vec<Hash>>, ClusterError> {
        let has = match source.checked_sub(1).map(|at| &self.others[at]) {
            None | Some(Other::Away) => return Ok(None),
            Some(Other::Has(has) | Other::Mixes(_, has)) => has,
        };
        let Some(has) = has.get(..size as usize) else { return Ok(None) };
        let leaves: Vec<Hash> = has.iter().map(|entry| leaf_hash(entry)).collect();
        let hash = |(level, index): (u32, u64)| tree_hash(&leaves[(index << level) as usize..][..1 << level]);
        Ok(Some(subtrees(from, to).into_iter().map(hash).collect()))
    }
}

/// Fills a site up to a checkpoint over these entries.
fn fill(site: &Site, log: &[Vec<u8>]) -> Result<(), ClusterError> {
    let to = SealedState { peaks: peaks(log), ..SealedState::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let timers = RuntimeTimers::default();
        Filling::new(site, &to, &timers).await?.read_from_sources().await
    })
}

/// The log with a wrong entry.
fn altered(at: usize) -> Vec<Vec<u8>> {
    let mut log = entries(0..100);
    log[at] = b"nobody looked".to_vec();
    log
}

#[test]
fn sites_that_lie_or_are_away_are_passed_over_for_one_that_has_the_right_entries() {
    let log = entries(0..100);
    let lie = |number| match number {
        0 => vec![Other::Away, Other::Has(altered(3)), Other::Has(altered(99))],
        // Right entries with wrong hashes, and the other way round.
        1 => vec![Other::Mixes(altered(40), entries(0..100)), Other::Mixes(entries(0..100), altered(90))],
        // Fewer, and none.
        _ => vec![Other::Has(entries(0..50)), Other::Has(Vec::new())],
    };
    for number in 0..3 {
        for held in [0, 1, 8, 31, 64, 99] {
            let others = lie(number).into_iter().chain([Other::Has(log.clone())]).collect();
            let site = Site::new(entries(0..held), others);
            fill(&site, &log).unwrap();
            assert!(*site.own() == log && *site.stored.lock().unwrap() == 100, "{number} {held}");
        }
    }
}

#[test]
fn a_site_that_has_had_a_piece_is_asked_first_for_the_next_one() {
    let log = entries(0..100);
    let site = Site::new(Vec::new(), vec![Other::Away, Other::Has(altered(0)), Other::Has(log.clone())]);
    fill(&site, &log).unwrap();
    let asked = site.asked.lock().unwrap();
    assert_eq!(asked[..4], [0, 1, 2, 3]);
    assert!(asked.len() == 18 && asked[4..].iter().all(|source| *source == 3), "{asked:?}");
}

#[test]
fn a_lie_of_all_others_keeps_nothing_and_stops_nothing_for_good() {
    for others in
        [vec![Other::Has(altered(3))], vec![Other::Away], vec![Other::Has(altered(3)), Other::Has(altered(3))]]
    {
        let site = Site::new(entries(0..2), others);
        let error = fill(&site, &entries(0..100)).unwrap_err();
        assert!(error.may_pass(), "{error}");
        assert_eq!(*site.own(), entries(0..2));
    }
    // Half of a log is not kept either, if its end is not the checkpoint's.
    let site = Site::new(Vec::new(), vec![Other::Has(altered(99))]);
    assert!(fill(&site, &entries(0..100)).unwrap_err().may_pass() && site.own().is_empty());
}

#[test]
fn a_site_that_holds_another_tree_stops_when_that_is_proven_and_not_before() {
    for held in [1, 4, 7, 32, 64, 99] {
        let forked = || altered(0)[..held].to_vec();
        // Whoever lies cannot prove it, and whoever agrees with this site does not lead to the checkpoint.
        for others in [vec![Other::Away], vec![Other::Has(altered(0))], vec![Other::Has(altered(50))]] {
            let error = fill(&Site::new(forked(), others), &entries(0..100)).unwrap_err();
            assert!(error.may_pass(), "{held}: {error}");
        }
        let honest = vec![Other::Has(altered(0)), Other::Has(entries(0..100))];
        let error = fill(&Site::new(forked(), honest), &entries(0..100)).unwrap_err();
        assert!(matches!(error, ClusterError::Diverged(_)), "{held}: {error}");
    }
}
