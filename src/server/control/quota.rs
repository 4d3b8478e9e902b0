//! Restores quotas after a restart, however the gateway ended: from what was saved, and from the calls since then in
//! the exchange log.

use crate::access::used_quotas;
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::{Entry, ExchangeLog, Kind, clock};
use crate::registry::Actor;
use crate::registry::usage::UsageStore;
use crate::server::StartError;
use crate::server::shared::Shared;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// The event by which an operator states that the clock was ahead when earlier entries were written, and is right now.
const CLOCK_EVENT: &str = "clock.correct";
/// Number of the newest entries that are searched for the latest time: entries of concurrent calls are not in the order
/// of their times.
const NEWEST: usize = 256;
/// Of a log that several gateways write: until there are so many of this one, and at most so many in all.
const NEWEST_OF_ALL: usize = 100_000;

/// The latest times in a log, by whose clock they are.
struct LatestTimes<'n> {
    /// This gateway, if others write the log, too.
    own: Option<&'n str>,
    /// The latest time of each gateway; of all that writes this log if it is this gateway alone.
    latest: HashMap<String, i64>,
    /// Gateways whose clock was ahead before.
    corrected: HashSet<String>,
    seen: usize,
    seen_own: usize,
}

impl<'n> LatestTimes<'n> {
    fn new(own: Option<&'n str>) -> Self {
        LatestTimes { own, latest: HashMap::new(), corrected: HashSet::new(), seen: 0, seen_own: 0 }
    }

    /// Takes the next older entry; returns whether more are needed.
    fn take(&mut self, entry: &Entry) -> bool {
        let whose = if self.own.is_some() { entry.node.as_str() } else { "" };
        if entry.event == CLOCK_EVENT {
            self.corrected.insert(whose.to_owned());
        } else if !self.corrected.contains(whose) {
            let latest = self.latest.entry(whose.to_owned()).or_insert(i64::MIN);
            *latest = entry.time_us.max(*latest);
        }
        let is_own = self.own.is_none_or(|own| own == whose);
        (self.seen, self.seen_own) = (self.seen + 1, self.seen_own + usize::from(is_own));
        let is_over = is_own && self.corrected.contains(whose);
        let most = if self.own.is_some() { NEWEST_OF_ALL } else { NEWEST };
        !is_over && self.seen < most && self.seen_own < NEWEST
    }

    /// The time before which it is not: that of this gateway's newest entry, and one that two others have reached. One
    /// clock that is ahead makes no other one wrong.
    fn earliest(&self) -> i64 {
        let own = self.latest.get(self.own.unwrap_or_default()).copied().unwrap_or(i64::MIN);
        let mut others: Vec<i64> = self
            .latest
            .iter()
            .filter(|(whose, _)| Some(whose.as_str()) != self.own)
            .map(|(_, latest)| *latest)
            .collect();
        others.sort_unstable_by(|one, other| other.cmp(one));
        others.get(1).map_or(own, |second| own.max(*second))
    }
}

/// Continues the time from the log's newest entry, so that a clock that was set back while the gateway was down
/// restores no expired right. If an operator states that the clock was ahead before, that becomes an entry, and the
/// clock is used as it is. `is_alone`: no other gateway writes this log.
pub(in crate::server) fn go_on_in_time(
    log: &ExchangeLog,
    data: &Path,
    (node, is_alone): (&str, bool),
    clock_ahead: bool,
) -> Result<(), StartError> {
    let mut times = LatestTimes::new((!is_alone).then_some(node));
    LogReader::open(data)?.newest_first(u64::MAX, |found| times.take(&found.entry))?;
    let (latest, now) = (times.earliest(), clock::now_us());
    if latest <= now {
        return Ok(());
    }
    let ahead_s = latest.saturating_sub(now) / 1_000_000;
    if clock_ahead {
        let (actor, object) = (Actor::local().to_string(), format!("clock:{ahead_s}s"));
        let entry = Entry { actor, event: CLOCK_EVENT.into(), object, ..Entry::begin(Kind::Admin, node) };
        return Ok(log.append_detached(&entry)?);
    }
    clock::not_before(latest);
    tracing::warn!(ahead_s, "the log's newest entry is later than the system clock: time continues from there");
    Ok(())
}

/// Restores the limits. Over etcd, quotas are counted there.
pub(in crate::server) fn restore(shared: &Shared, usage: &UsageStore, data: &Path) -> Result<(), StartError> {
    if shared.cluster.is_some() {
        return Ok(());
    }
    shared.limits.restore(used_quotas::used::<StartError>(usage, data)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(node: &str, time_us: i64) -> Entry {
        Entry { time_us, ..Entry::begin(Kind::Exchange, node) }
    }

    fn corrected(node: &str) -> Entry {
        Entry { event: CLOCK_EVENT.into(), ..entry(node, 0) }
    }

    /// The time that these entries, newest first, leave no earlier one than.
    fn earliest(own: Option<&str>, entries: &[Entry]) -> i64 {
        let mut times = LatestTimes::new(own);
        let _ = entries.iter().try_for_each(|entry| times.take(entry).then_some(()));
        times.earliest()
    }

    #[test]
    fn time_goes_on_from_the_latest_of_the_newest_entries() {
        assert_eq!(earliest(None, &[entry("dc1", 5), entry("dc1", 9), entry("before", 7)]), 9);
        assert_eq!(earliest(None, &[entry("dc1", 5), corrected("dc1"), entry("dc1", 9)]), 5);
        assert_eq!(earliest(None, &[]), i64::MIN);
        let many: Vec<Entry> = (0..NEWEST as i64).map(|_| entry("dc1", 1)).chain([entry("dc1", 9)]).collect();
        assert_eq!(earliest(None, &many), 1, "older entries are not read");
    }

    #[test]
    fn one_gateway_whose_clock_is_ahead_makes_no_other_one_wrong() {
        let log = [entry("dc3", 900), entry("dc1", 10), entry("dc2", 12), entry("dc3", 11)];
        assert_eq!([Some("dc1"), Some("dc2"), Some("dc3")].map(|own| earliest(own, &log)), [12, 12, 900]);
        // Its operator says so, at that gateway alone.
        let log = [&[entry("dc3", 13), corrected("dc3")], &log[..]].concat();
        assert_eq!([Some("dc1"), Some("dc3")].map(|own| earliest(own, &log)), [12, 13]);
    }

    #[test]
    fn a_gateway_that_was_away_goes_on_from_what_two_others_have_reached() {
        let log = [entry("dc3", 20), entry("dc2", 25), entry("dc3", 22), entry("dc2", 21)];
        assert_eq!(earliest(Some("dc1"), &log), 22);
        assert_eq!(earliest(Some("dc1"), &[entry("dc3", 20)]), i64::MIN, "one alone may be wrong");
    }
}
