//! The entries of one log that a gateway of this site stores: they are read before a checkpoint is cosigned, and looked at
//! again afterwards. A loss is an alarm: nothing is cosigned until the whole log has been read again.
//!
//! One thread reads at a time, and only while there is something to read. A request waits for it with a bound, and others
//! do not wait.

use super::checked::{Checked, EntryFault, Look, SiteFolder, Tree};
use super::checked_file::{self, SavedProgress};
use crate::exchange_log::pruned::Pruned;
use crate::exchange_log::tree::TILE;
use crate::exchange_log::{remove_file, write_atomically};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Pause before entries that are not there yet are read again.
const RETRY: Duration = Duration::from_millis(50);
/// Attempts to read what was promised before it counts as lost: files of the right edge are replaced while it is read.
const ATTEMPTS: u32 = 5;
/// How often progress is saved and logged, and a refusal logged.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// Shortest time until what was wrong is read again; it is not shorter than the reading took, either.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// Bundles that are looked at at once.
const LOOKS: u64 = 16;

/// The entries of a log that are stored at this site.
pub struct StoredLog {
    origin: String,
    folder: SiteFolder,
    /// What was checked.
    file: PathBuf,
    /// The loss, while there is one.
    alarm_file: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The whole bundles below what was proven.
    base: Checked,
    /// The pruned bundles of which an entry says so, up to the end of what was proven.
    recorded: Pruned,
    /// The largest tree whose entries were all found.
    proven: Option<Tree>,
    /// What was read behind the base; no root proves it yet.
    reading: Option<Checked>,
    /// The tree that is wanted, and until when somebody waits for it.
    wanted: Option<Tree>,
    until: Instant,
    /// Whether a thread reads.
    busy: bool,
    /// Whether the end of what was proven was found since the start.
    found: bool,
    /// A tree to which the entries do not lead, why, and when they are read again at the earliest.
    refused: Option<(Tree, String, Instant)>,
    /// Why the wanted tree is not there.
    waiting: String,
    alarm: Option<String>,
    /// When the whole is read again at the earliest, while there is an alarm.
    again: Instant,
    /// The next bundle to look at; without it, any.
    next: Option<u64>,
    /// A bundle that is listed as pruned, and the size of the tree that should explain it.
    unexplained: Option<(u64, u64)>,
    said: Option<Instant>,
}

impl StoredLog {
    /// Makes it for a folder, and continues from what an earlier process has saved below `state` under this name; `signed`
    /// is the last tree that was cosigned. Nothing is read yet.
    pub fn open(origin: &str, folder: SiteFolder, (state, name): (&Path, &str), signed: Option<Tree>) -> Arc<Self> {
        let (file, alarm_file) = (state.join(format!("{name}.stored")), state.join(format!("{name}.lost")));
        let saved = checked_file::read(&file).unwrap_or_default();
        // An alarm that cannot be read is one.
        let alarm = match std::fs::read_to_string(&alarm_file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => Some(format!("{}: {error}", alarm_file.display())),
            Ok(text) => Some(text.trim().to_owned()),
        };
        let proven = saved.proven.into_iter().chain(signed).max_by_key(|(size, _)| *size).filter(|(size, _)| *size > 0);
        let now = Instant::now();
        let state = State {
            recorded: saved.base.recorded.clone(),
            base: saved.base,
            proven,
            reading: saved.reading,
            wanted: None,
            until: now,
            busy: false,
            found: proven.is_none(),
            refused: None,
            waiting: "what was promised is read again since the start".to_owned(),
            alarm,
            again: now,
            next: None,
            unexplained: None,
            said: None,
        };
        let (origin, state, changed) = (origin.to_owned(), Mutex::new(state), Condvar::new());
        Arc::new(StoredLog { origin, folder, file, alarm_file, state, changed })
    }

    /// The loss of entries that were promised.
    pub fn alarm(&self) -> Option<String> {
        self.state().alarm.clone()
    }

    /// Returns once all entries of a tree were found; what was promised before counts among them.
    ///
    /// # Errors
    /// Why they were not, after this time at the latest.
    pub fn prove(self: &Arc<Self>, tree: Tree, most: Duration) -> Result<(), String> {
        let (mut state, end) = (self.state(), Instant::now() + most);
        let reason = loop {
            let now = Instant::now();
            match (&state.alarm, &state.refused) {
                (Some(alarm), _) => break format!("entries that were stored here are lost: {alarm}"),
                (None, _) if tree.0 == 0 || state.found && state.proven == Some(tree) => return Ok(()),
                (None, Some((refused, reason, again))) if *refused == tree && now < *again => break reason.clone(),
                _ if now >= end => break format!("the entries are not all stored here yet: {}", state.waiting),
                _ => {}
            }
            (state.wanted, state.until) = (Some(tree), end);
            self.clone().start(&mut state);
            let waited = self.changed.wait_timeout(state, end.saturating_duration_since(now));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        if state.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            state.said = Some(Instant::now());
            tracing::warn!(origin = self.origin, entries = tree.0, reason, "a checkpoint is not cosigned");
        }
        Err(reason)
    }

    /// Begins to find what was promised, without waiting for it.
    pub fn begin(self: &Arc<Self>) {
        let mut state = self.state();
        if !state.found && state.alarm.is_none() {
            self.clone().start(&mut state);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(self: Arc<Self>, state: &mut State) {
        if state.busy {
            return;
        }
        let work = std::thread::Builder::new().name("stored entries".into());
        let origin = self.origin.clone();
        match work.spawn(move || while self.step() {}) {
            Ok(_) => state.busy = true,
            Err(error) => tracing::error!(%error, origin, "the entries are not read"),
        }
    }

    /// Reads up to the next tree that is wanted. Returns whether there was one.
    fn step(&self) -> bool {
        let (tree, mut checked) = {
            let mut state = self.state();
            let tree = if state.found { state.wanted.take().filter(|tree| state.is_due(*tree)) } else { state.proven };
            let Some(tree) = tree.filter(|_| state.alarm.is_none()) else {
                state.busy = false;
                return false;
            };
            (tree, state.begin(tree))
        };
        let (began, mut said) = (Instant::now(), Instant::now());
        loop {
            let read = self.folder.verify(&mut checked, tree, &mut |checked| self.progress(checked, tree, &mut said));
            let mut state = self.state();
            match read {
                Ok(all) => {
                    state.refused = None;
                    self.settle(&mut state, tree, checked, all.recorded);
                    break;
                }
                // What was promised is there, or lost; what is new may come.
                Err(fault) if !state.found => {
                    drop(state);
                    self.check_promise(checked, Some(fault.to_string()));
                    break;
                }
                Err(EntryFault::Missing(reason)) => {
                    state.waiting = reason;
                    state.reading = Some(checked.clone());
                    let is_last = state.wanted.is_some_and(|wanted| wanted != tree) || Instant::now() >= state.until;
                    let base = state.base.clone();
                    drop(state);
                    if is_last {
                        self.check_promise(base, None);
                        break;
                    }
                    std::thread::sleep(RETRY);
                }
                Err(EntryFault::Wrong(reason)) => {
                    tracing::error!(origin = self.origin, reason, "the stored entries are not those of a checkpoint");
                    state.reading = None;
                    state.refused = Some((tree, reason, Instant::now() + began.elapsed().max(LEAST_PAUSE)));
                    let base = state.base.clone();
                    drop(state);
                    self.check_promise(base, None);
                    break;
                }
            }
        }
        self.changed.notify_all();
        true
    }

    /// Keeps what was found.
    fn settle(&self, state: &mut State, tree: Tree, checked: Checked, recorded: Pruned) {
        let is_longer = checked.peaks.size() != state.base.peaks.size() || state.proven.is_none();
        state.reading = state.reading.take().filter(|reading| reading.peaks.size() > checked.peaks.size());
        (state.base, state.recorded, state.proven, state.found) = (checked, recorded, Some(tree), true);
        if is_longer {
            self.save(state);
        }
    }

    /// It only spares the next process some reading: what was promised is in the signed checkpoint.
    fn save(&self, state: &State) {
        let (base, reading) = (state.base.clone(), state.reading.clone());
        let saved = SavedProgress { proven: state.proven, base, reading };
        if let Err(error) = checked_file::write(&self.file, &saved) {
            tracing::warn!(%error, origin = self.origin, "what was checked is not saved");
        }
    }

    fn progress(&self, checked: &Checked, (size, _): Tree, said: &mut Instant) {
        if said.elapsed() < SAY_EVERY {
            return;
        }
        *said = Instant::now();
        let read = checked.peaks.size();
        tracing::info!(origin = self.origin, read, of = size, "entries are read");
        let mut state = self.state();
        state.waiting = format!("{read} of {size} were read");
        state.reading = Some(checked.clone());
        self.save(&state);
    }

    /// Looks whether the end of what was proven is still there, behind what was `checked` of it; `fault` is what was wrong
    /// already.
    fn check_promise(&self, mut checked: Checked, mut fault: Option<String>) {
        let Some(tree) = self.state().proven else { return };
        for attempt in 0..ATTEMPTS {
            if attempt > 0 || fault.is_some() {
                std::thread::sleep(RETRY);
            }
            match self.folder.verify(&mut checked, tree, &mut |_| {}) {
                Ok(all) => return self.settle(&mut self.state(), tree, checked, all.recorded),
                Err(other) => fault = Some(other.to_string()),
            }
        }
        self.raise(fault.unwrap_or_default());
    }

    fn raise(&self, reason: String) {
        let mut state = self.state();
        tracing::error!(origin = self.origin, reason, "LOST: entries that were stored here are missing, or others");
        if let Err(error) = write_atomically(&self.alarm_file, format!("{reason}\n").as_bytes()) {
            tracing::error!(%error, "the alarm could not be saved");
        }
        state.alarm = Some(reason);
        drop(state);
        self.changed.notify_all();
    }

    /// Looks at some bundles again. While there is an alarm, reads the whole log: it ends when all entries are there. Returns
    /// whether it could: not before what was promised was read since the start.
    pub fn look(&self) -> bool {
        let (alarm, found) = {
            let state = self.state();
            (state.alarm.is_some(), state.found)
        };
        match (alarm, found) {
            (true, _) => self.read_again(),
            (false, true) => {
                if let Err(reason) = self.look_at_some() {
                    self.raise(reason);
                }
            }
            // The thread that reads reports it.
            (false, false) => {}
        }
        alarm || found
    }

    fn look_at_some(&self) -> Result<(), String> {
        let (base, recorded, first, unexplained) = {
            let state = self.state();
            (state.base.clone(), state.recorded.clone(), state.next, state.unexplained)
        };
        let bundles = base.peaks.size() / TILE as u64;
        if bundles == 0 {
            return Ok(());
        }
        let first = first.unwrap_or_else(|| fastrand::u64(..)) % bundles;
        let mut still = None;
        let again = unexplained.map(|(bundle, _)| bundle);
        for bundle in again.into_iter().chain((0..LOOKS.min(bundles)).map(|step| (first + step) % bundles)) {
            let mut looked = self.folder.look(&base.peaks, &recorded, bundle);
            for _ in 1..ATTEMPTS {
                if looked.is_ok() {
                    break;
                }
                std::thread::sleep(RETRY);
                looked = self.folder.look(&base.peaks, &recorded, bundle);
            }
            if let Look::Unexplained(size) = looked.map_err(|fault| fault.to_string())? {
                // The entry that says so may be one that was not read yet: it is waited for once, up to this size.
                let size = unexplained.filter(|(known, _)| *known == bundle).map_or(size, |(_, size)| size);
                if self.state().proven.is_none_or(|(proven, _)| proven >= size) && !self.state().recorded.has(bundle) {
                    return Err(format!("bundle {bundle} is listed as pruned, and none of {size} entries says so"));
                }
                still = still.or(Some((bundle, size)));
            }
        }
        let mut state = self.state();
        (state.next, state.unexplained) = (Some((first + LOOKS) % bundles), still);
        Ok(())
    }

    fn read_again(&self) {
        let began = Instant::now();
        let proven = {
            let state = self.state();
            if state.again > began { None } else { state.proven }
        };
        let Some(tree) = proven else { return };
        let (mut checked, mut said) = (Checked::default(), began);
        let read = self.folder.verify(&mut checked, tree, &mut |_| {
            if said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                tracing::info!(origin = self.origin, of = tree.0, "the log is read again");
            }
        });
        let mut state = self.state();
        match read {
            Err(error) => {
                tracing::error!(%error, origin = self.origin, "LOST: entries that were stored here are still missing");
                state.again = Instant::now() + began.elapsed();
                state.alarm = Some(error.to_string());
            }
            Ok(all) => match remove_file(&self.alarm_file) {
                Err(error) => tracing::error!(%error, "the alarm could not be removed"),
                Ok(_) => {
                    tracing::warn!(origin = self.origin, entries = tree.0, "all entries are there again");
                    (state.alarm, state.unexplained) = (None, None);
                    self.settle(&mut state, tree, checked, all.recorded);
                }
            },
        }
    }
}

impl State {
    /// Whether a wanted tree is to be read now.
    fn is_due(&self, tree: Tree) -> bool {
        let refused = self.refused.as_ref().filter(|(refused, ..)| *refused == tree);
        self.proven != Some(tree) && refused.is_none_or(|(_, _, again)| Instant::now() >= *again)
    }

    /// The longest beginning of a tree that was read.
    fn begin(&self, (size, _): Tree) -> Checked {
        let reading = self.reading.as_ref().filter(|reading| reading.peaks.size() <= size);
        reading.filter(|reading| reading.peaks.size() > self.base.peaks.size()).unwrap_or(&self.base).clone()
    }
}
