//! Reports certificates and revocation lists that expire soon: in the log once a day, each by its own clock, and
//! permanently as a metric.

use crate::identity::tls::TlsAcceptors;
use crate::pki::{self, Ending};
use crate::registry::now;
use crate::server::shared::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the files are checked.
const EVERY: Duration = Duration::from_secs(600);
/// How often the same warning is repeated.
const REPEAT: Duration = Duration::from_secs(86_400);

/// When the files were checked, and when each warning was given.
#[derive(Default)]
pub(in crate::server) struct Expiry {
    looked: Option<(Instant, BTreeSet<PathBuf>, Arc<TlsAcceptors>)>,
    warned: BTreeMap<(PathBuf, String), Instant>,
}

impl Expiry {
    /// Checks the files when it is due, or when they have changed. The lists are those in force.
    pub(in crate::server) fn look(&mut self, files: &[PathBuf], gate: &Arc<TlsAcceptors>, shared: &Shared) {
        let at = Instant::now();
        let files: BTreeSet<PathBuf> = files.iter().cloned().collect();
        let same = |(last, known, before): &(Instant, BTreeSet<PathBuf>, Arc<TlsAcceptors>)| {
            at.duration_since(*last) < EVERY && *known == files && Arc::ptr_eq(before, gate)
        };
        if self.looked.as_ref().is_some_and(same) {
            return;
        }
        // A file without a certificate is a key or a secret; a file that cannot be read was reported when it was
        // loaded.
        let of_file = |file: &PathBuf| {
            pki::expirations(file).into_iter().map(|ending| (file.clone(), ending)).collect::<Vec<_>>()
        };
        let mut all: Vec<(PathBuf, Ending)> = files.iter().flat_map(of_file).collect();
        all.extend(gate.trust.lists().map(|list| (list.file.clone(), Ending::of_list(list))));
        let mut first: BTreeMap<(&PathBuf, &'static str), i64> = BTreeMap::new();
        for (file, ending) in &all {
            let kind = if ending.list.is_some() { "revocation_list" } else { "certificate" };
            let known = first.entry((file, kind)).or_insert(ending.at);
            *known = ending.at.min(*known);
        }
        shared.metrics.ends(first.into_iter().map(|((file, kind), at)| (file.as_path(), kind, at)));
        shared.ends.store(Arc::new(all.clone()));
        let now = now();
        for (file, ending) in self.due(&all, now, at) {
            let days = (ending.at - now).div_euclid(86_400);
            let what = &ending.what;
            match ending.at <= now {
                true => tracing::warn!(file = %file.display(), days, "{what} has ended: renew it"),
                false => tracing::warn!(file = %file.display(), days, "{what} ends soon: renew it"),
            }
        }
        self.looked = Some((at, files, gate.clone()));
    }

    /// Returns the due warnings: one a day for each item near its end.
    fn due<'e>(&mut self, all: &'e [(PathBuf, Ending)], now: i64, at: Instant) -> Vec<&'e (PathBuf, Ending)> {
        let key = |(file, ending): &(PathBuf, Ending)| (file.clone(), format!("{} {}", ending.what, ending.at));
        let near: Vec<_> = all.iter().filter(|(_, ending)| ending.is_near(now)).collect();
        let keys: BTreeSet<(PathBuf, String)> = near.iter().map(|one| key(one)).collect();
        self.warned.retain(|known, _| keys.contains(known));
        let mut is_due = |one: &&(PathBuf, Ending)| {
            let key = key(one);
            let due = self.warned.get(&key).is_none_or(|last| at.duration_since(*last) >= REPEAT);
            if due {
                self.warned.insert(key, at);
            }
            due
        };
        near.into_iter().filter(|one| is_due(one)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(file: &str, what: &str, at: i64) -> (PathBuf, Ending) {
        (file.into(), Ending { what: what.into(), at, warn_days: 30, list: None })
    }

    #[test]
    fn t7_each_file_has_a_clock_of_its_own() {
        let (mut expiry, start, day) = (Expiry::default(), Instant::now(), 86_400);
        let mut warned = |all: &[(PathBuf, Ending)], hours: u64| {
            let at = start + Duration::from_secs(hours * 3_600);
            expiry.due(all, 0, at).iter().map(|(file, _)| file.display().to_string()).collect::<Vec<_>>()
        };
        let (a, b, far) = (ending("a", "CN=a", day), ending("b", "CN=b", day), ending("c", "CN=c", 90 * day));
        assert_eq!(warned(&[a.clone(), far.clone()], 0), ["a"]);
        // A later item does not wait until the first one's day is over.
        assert_eq!(warned(&[a.clone(), b.clone(), far.clone()], 1), ["b"]);
        assert!(warned(&[a.clone(), b.clone()], 23).is_empty());
        assert_eq!(warned(&[a.clone(), b.clone()], 24), ["a"]);
        assert_eq!(warned(&[a.clone(), b.clone()], 25), ["b"]);
        // Two in one file, and one that was renewed for too short a time.
        assert_eq!(warned(&[a.clone(), ending("a", "CN=other", day), ending("b", "CN=b", 2 * day)], 26), ["a", "b"]);
    }
}
