//! Acts of the log that tell what files beside it hold: which bundles were pruned, which legal holds stand, which alarm was raised.

use super::Entry;

/// The act that tells of pruned bundles; its object is `bundles:first-last`.
pub const PRUNE_ACT: &str = "log.prune";
/// The act that places a legal hold; its object is `hold:ID reason:CASE sha256:DIGEST`.
pub const HOLD_ACT: &str = "log.hold";
/// The act that releases one; its object is `hold:ID sha256:DIGEST`.
pub const RELEASE_ACT: &str = "log.release";
/// The act that tells of a fork alarm that was raised; its object is `alarm:ID sha256:DIGEST`.
pub const FORK_ACT: &str = "log.fork";
/// The act that acknowledges it; its object is `alarm:ID`.
pub const ACKNOWLEDGE_ACT: &str = "audit.acknowledge";
/// Those that tell of files below `state`.
const OF_STATE: [&str; 4] = [HOLD_ACT, RELEASE_ACT, FORK_ACT, ACKNOWLEDGE_ACT];

/// An act of the log that tells what a file below `state` must hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileAct {
    /// The entry's index; `u64::MAX`: it is on its way into the log.
    pub index: u64,
    /// What was done.
    pub act: String,
    /// To what.
    pub object: String,
}

impl FileAct {
    /// The act of an entry, where it is such a one; refused acts changed nothing.
    pub fn of(index: u64, entry: Entry) -> Option<Self> {
        let Entry { act, object, status, .. } = entry;
        (status == 0).then(|| FileAct::new(index, act, object)).flatten()
    }

    /// An act, where it is such a one.
    pub fn new(index: u64, act: String, object: String) -> Option<Self> {
        OF_STATE.contains(&act.as_str()).then_some(FileAct { index, act, object })
    }
}

/// What a log tells of files.
#[derive(Default)]
pub(super) struct FileActs {
    /// Objects of the acts that tell of prunings.
    pub pruned: Vec<String>,
    pub of_state: Vec<FileAct>,
}

impl FileActs {
    pub fn take(&mut self, index: u64, entry: Entry) {
        if entry.act == PRUNE_ACT && entry.status == 0 {
            self.pruned.push(entry.object);
        } else {
            self.of_state.extend(FileAct::of(index, entry));
        }
    }

    pub fn append(&mut self, mut other: Self) {
        self.pruned.append(&mut other.pruned);
        self.of_state.append(&mut other.of_state);
    }
}
