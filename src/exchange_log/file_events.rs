//! Admin events of the log that record what files beside it hold: pruned bundles, legal holds in force, fork alarms.

use super::Entry;
use super::pruned::Pruned;

/// The event of a legal hold; its object is `hold:ID reason:CASE sha256:DIGEST`.
pub const HOLD_EVENT: &str = "log.hold";
/// The event of its release; its object is `hold:ID sha256:DIGEST`.
pub const RELEASE_EVENT: &str = "log.release";
/// The event of a fork alarm; its object is `alarm:ID sha256:DIGEST`.
pub const FORK_EVENT: &str = "log.fork";
/// The event of its acknowledgement; its object is `alarm:ID`.
pub const ACKNOWLEDGE_EVENT: &str = "audit.acknowledge";
/// The event of a new content of one of the gateway's own files; its object is `file:PATH sha256:DIGEST`, the path in
/// the data folder.
pub const FILE_EVENT: &str = "log.file";
/// Events of files below `state` and `keys`.
const OF_STATE: [&str; 5] = [HOLD_EVENT, RELEASE_EVENT, FORK_EVENT, ACKNOWLEDGE_EVENT, FILE_EVENT];

/// An admin event that records the required content of a file below `state` or `keys`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileEvent {
    /// The entry's index; `u64::MAX`: it is on its way into the log.
    pub index: u64,
    /// The event.
    pub event: String,
    /// Its object.
    pub object: String,
    /// The gateway that has logged it; empty: the folder's own.
    pub node: String,
}

impl FileEvent {
    /// Returns the event of an entry, if it is one of these; refused events changed nothing.
    pub fn of(index: u64, entry: Entry) -> Option<Self> {
        let Entry { event, object, status, node, .. } = entry;
        let found = (status == 0).then(|| FileEvent::new(index, event, object)).flatten();
        found.map(|found| FileEvent { node, ..found })
    }

    /// Returns whether an entry of a gateway is about the files of this folder, whose gateway is `own` if others write its log, too.
    pub fn is_of(node: &str, own: Option<&str>) -> bool {
        node.is_empty() || own.is_none_or(|own| own == node)
    }

    /// Returns an event, if it is one of these.
    pub fn new(index: u64, event: String, object: String) -> Option<Self> {
        OF_STATE.contains(&event.as_str()).then_some(FileEvent { index, event, object, node: String::new() })
    }
}

/// What a log records about files.
#[derive(Default)]
pub(super) struct FileEvents {
    /// The bundles that its entries say were pruned.
    pub pruned: Pruned,
    pub of_state: Vec<FileEvent>,
}

impl FileEvents {
    pub fn take(&mut self, index: u64, entry: Entry) {
        if !self.pruned.add_event(&entry) {
            self.of_state.extend(FileEvent::of(index, entry));
        }
    }

    pub fn append(&mut self, mut other: Self) {
        other.pruned.runs().iter().cloned().for_each(|run| self.pruned.add(run));
        self.of_state.append(&mut other.of_state);
    }
}
