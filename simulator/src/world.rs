//! One run: some lives of a gateway's log on one disk, each with its threads and its faults, a crash between them, and a final
//! life without faults, in which everything must be there and work.

use crate::disk::{Faults, Misdirected, SimDisk};
use crate::exchange_log::archive::archive;
use crate::exchange_log::checkpoint::LogSigner;
use crate::exchange_log::clock::Clock;
use crate::exchange_log::journal::Journal;
use crate::exchange_log::pruned::{PRUNE_EVENT, prune};
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::segment::HEAD;
use crate::exchange_log::tree::TILE;
use crate::exchange_log::{Entry, Kind, LogError, LogPaths, Pipeline};
use crate::inode::SECTOR;
use crate::model::{Found, Model, Violation, audit};
use shuttle::thread;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const DATA: &str = "/data";
const ARCHIVE: &str = "/archive";

/// The kind of fault in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Nothing.
    None,
    /// The machine crashes.
    Crash,
    /// Calls fail with EIO, and the machine crashes.
    Errors,
    /// Changed names are not known to be durable; the process or the machine crashes soon after, in several short lives. The
    /// effects of such names are rarely reached if any call may fail.
    Names,
    /// The disk is full, and later has space again.
    Full,
    /// A file is changed, truncated, swapped or removed, unnoticed by the log.
    Damage,
    /// A write is misdirected, and the disk reports success.
    Misdirected,
    /// The files are rolled back, and refilled with other entries by somebody with the keys.
    Forged,
}

/// A run.
struct World {
    rng: fastrand::Rng,
    disk: SimDisk,
    paths: LogPaths,
    key: Arc<Vec<u8>>,
    model: Model,
    trouble: Trouble,
    faults: Faults,
    /// This many of twenty actions are sealings.
    seals: u32,
    written: u64,
    clock: SimClock,
}

/// The machine's clocks, and the gateway's, of this life.
#[derive(Default)]
struct SimClock {
    wall_us: i64,
    monotonic: Duration,
    own: Clock,
}

impl SimClock {
    /// Time passes; sometimes the wall clock is set, by seconds or by years, back or forward.
    fn now_us(&mut self, rng: &mut fastrand::Rng) -> i64 {
        let passed = rng.u64(1..2_000_000);
        self.monotonic += Duration::from_micros(passed);
        self.wall_us += passed.cast_signed();
        if rng.u32(..40) == 0 {
            let most = rng.choice([1_000_000, 90_000_000, 90_000_000_000, 40_000_000_000_000]).unwrap_or(1);
            self.wall_us = (self.wall_us + rng.i64(-most..=most)).max(0);
        }
        self.own.at(self.wall_us, || self.monotonic)
    }

    /// Another process starts; the log's newest entry has this time.
    fn restart(&mut self, newest_us: i64) {
        (self.monotonic, self.own) = (Duration::ZERO, Clock::new());
        self.own.not_before(newest_us, self.monotonic);
    }
}

/// Runs a seed, if it has the requested kind of fault (or any, if none is requested); returns the violation.
pub fn run(seed: u64, key: &Arc<Vec<u8>>, (only, trace): (Option<&str>, bool)) -> Result<(), (Violation, Vec<String>)> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let disk = SimDisk::new(rng.u64(..), trace);
    let troubles = [
        Trouble::None,
        Trouble::Crash,
        Trouble::Crash,
        Trouble::Crash,
        Trouble::Errors,
        Trouble::Errors,
        Trouble::Errors,
        Trouble::Names,
        Trouble::Names,
        Trouble::Names,
        Trouble::Full,
        Trouble::Full,
        Trouble::Damage,
        Trouble::Damage,
        Trouble::Misdirected,
        Trouble::Misdirected,
        Trouble::Forged,
    ];
    let trouble = rng.choice(troubles).unwrap_or(Trouble::None);
    if only.is_some_and(|only| format!("{trouble:?}") != only) {
        return Ok(());
    }
    let paths = LogPaths::on(Arc::new(disk.clone()), Path::new(DATA));
    let (model, faults, key) = (Model::default(), Faults::default(), key.clone());
    let mut world =
        World { rng, disk, paths, key, model, trouble, faults, seals: 1, written: 0, clock: SimClock::default() };
    let lived = world.live();
    lived.map_err(|violation| (format!("{trouble:?}: {violation}"), world.disk.trace()))
}

impl World {
    fn live(&mut self) -> Result<(), Violation> {
        let made = self.disk.quietly(|| {
            [DATA, ARCHIVE].iter().try_for_each(|folder| self.paths.disk.create_folder(Path::new(folder)))?;
            self.paths.disk.sync_folder(Path::new("/"))
        });
        made.map_err(|error| error.to_string())?;
        let most = if self.trouble == Trouble::Names { 7 } else { 4 };
        for _ in 0..self.rng.usize(1..most) {
            self.faults = self.some_faults();
            let often = if self.trouble == Trouble::Names { [1, 1, 10, 10] } else { [1, 1, 1, 10] };
            self.seals = self.rng.choice(often).unwrap_or(1);
            self.disk.note(|| format!("-- a life with {:?}", self.faults));
            self.one_life()?;
            if let Some(astray) = self.disk.misdirected() {
                return self.is_told(&astray);
            }
        }
        self.faults = Faults::default();
        self.disk.note(|| "-- no more faults".into());
        self.one_life()?;
        match self.trouble {
            Trouble::Damage => return self.damage(),
            Trouble::Forged => return self.forge(),
            _ => {}
        }
        let report = self.disk.quietly(|| audit(&self.paths, Path::new(ARCHIVE), &self.signer()));
        report.map(drop).map_err(|error| format!("5: verification fails: {error}"))
    }

    fn signer(&self) -> LogSigner {
        LogSigner::from_pkcs8("log.example/simulated", &self.key).expect("a key")
    }

    fn some_faults(&mut self) -> Faults {
        let rng = &mut self.rng;
        let soon = |rng: &mut fastrand::Rng, most: u64| {
            rng.bool().then(|| 1 << rng.u64(0..most)).map(|most| rng.u64(1..=most))
        };
        let crash = |rng: &mut fastrand::Rng| soon(rng, 11);
        match self.trouble {
            Trouble::None | Trouble::Damage | Trouble::Forged => Faults::default(),
            Trouble::Crash => Faults { crash_in: crash(rng), ..Faults::default() },
            Trouble::Errors if rng.bool() => Faults {
                crash_in: crash(rng),
                crash_after_error: soon(rng, 6),
                errors: rng.u32(3..300),
                ..Faults::default()
            },
            // One location fails often, and the machine crashes while it is used.
            Trouble::Errors => Faults {
                crash_in: soon(rng, 6),
                errors: rng.u32(2..20),
                place: rng.choice(["/data/state", "/data/journal", "/data/log"]),
                ..Faults::default()
            },
            // In the journal, the next life continues with the last named segment; elsewhere, a file that replaced another is
            // written again some calls later.
            Trouble::Names => {
                let place = rng.choice(["/data/state", "/data/state", "/data/journal", "/data/log"]);
                let at_once = place == Some("/data/journal") && rng.bool();
                let crash_after_error = Some(if at_once { 1 } else { rng.u64(1..9) });
                Faults { crash_after_error, errors: rng.u32(2..9), only_names: true, place, ..Faults::default() }
            }
            // Most writes are the journal's.
            Trouble::Misdirected => Faults {
                misdirect_in: soon(rng, 7),
                crash_after_misdirected: rng.bool().then(|| rng.u64(2..20)),
                place: rng.choice([None, Some("/data/journal"), Some("/data/log"), Some("/data/state")]).flatten(),
                ..Faults::default()
            },
            Trouble::Full => Faults { room: Some(rng.u64(0..60_000)), ..Faults::default() },
        }
    }

    /// From a start to a crash, or to a stop followed by a power loss.
    fn one_life(&mut self) -> Result<(), Violation> {
        let known = !self.model.signed.is_empty();
        self.disk.set_faults(self.faults.clone());
        let opened = Pipeline::open(self.paths.clone(), self.signer());
        self.take_notes()?;
        match opened {
            // Its faults are reported at the end.
            _ if self.is_astray() => {}
            Ok((pipeline, journal)) => {
                self.check("after the start")?;
                self.clock.restart(self.model.newest_us());
                self.run_threads(&pipeline, journal)?;
            }
            // Without a fault, and on a full disk that served before, it starts.
            Err(error @ LogError::Io { .. }) if self.may_fail() && !(known && self.trouble == Trouble::Full) => {
                self.disk.note(|| format!("-- no start: {error}"));
            }
            Err(error) => return Err(format!("5: no start: {error}")),
        }
        let may_be_killed = [Trouble::Crash, Trouble::Errors, Trouble::Names, Trouble::Misdirected];
        if may_be_killed.contains(&self.trouble) && self.rng.bool() {
            self.disk.kill();
        } else {
            self.disk.restart();
        }
        Ok(())
    }

    /// A misdirected write: files differ from what was written, and their readers report it.
    fn is_astray(&self) -> bool {
        self.trouble == Trouble::Misdirected && self.disk.misdirected().is_some()
    }

    fn may_fail(&self) -> bool {
        self.is_astray() || self.disk.is_dead() || self.faults.errors > 0 || self.faults.room.is_some()
    }

    fn run_threads(&mut self, pipeline: &Arc<Pipeline>, mut journal: Journal) -> Result<(), Violation> {
        let stop = Arc::new(AtomicBool::new(false));
        let sealer = {
            let (pipeline, stop, strict) =
                (pipeline.clone(), stop.clone(), !self.may_fail() && self.faults.crash_in.is_none());
            let (mut rng, disk) = (self.rng.fork(), self.disk.clone());
            thread::spawn(move || -> Result<(), Violation> {
                while !stop.load(Ordering::Relaxed) {
                    thread::yield_now();
                    if rng.u32(..16) > 0 {
                        continue;
                    }
                    match pipeline.seal_prefix() {
                        Err(_) if disk.misdirected().is_some() => {}
                        Err(error) if strict => return Err(format!("5: sealing fails: {error}")),
                        Err(error) if !matches!(error, LogError::Io { .. }) => return Err(format!("3: {error}")),
                        _ => {}
                    }
                }
                Ok(())
            })
        };
        let preallocator = {
            let pipeline = pipeline.clone();
            thread::spawn(move || pipeline.prepare_segments())
        };
        let mut done = Ok(());
        let most = if self.trouble == Trouble::Names { self.rng.choice([3, 30]).unwrap_or(30) } else { 30 };
        for _ in 0..self.rng.usize(1..most) {
            done = self.step(pipeline, &mut journal);
            if done.is_err() || self.disk.is_dead() {
                break;
            }
        }
        if done.is_ok() && !self.disk.is_dead() && self.may_fail() && !self.is_astray() && self.rng.bool() {
            done = self.recovers(pipeline, &mut journal);
        }
        stop.store(true, Ordering::Relaxed);
        pipeline.close();
        let sealed = sealer.join().unwrap_or_else(|_| Err("a panic in the sealer".into()));
        preallocator.join().map_err(|_| "a panic in the thread that makes segments ready")?;
        self.take_notes()?;
        done.and(sealed)
    }

    /// One action of the gateway.
    fn step(&mut self, pipeline: &Pipeline, journal: &mut Journal) -> Result<(), Violation> {
        let did = match self.rng.u32(..20) {
            turn if turn >= 20 - self.seals => pipeline.seal().map(drop),
            1 => self.prune(pipeline, journal)?,
            2 => LogReader::open_at(&self.paths).map(drop),
            _ => {
                let batch = self.batch();
                self.write(pipeline, journal, batch)?
            }
        };
        match did {
            Err(error) if !self.may_fail() => Err(format!("5: refused without a fault: {error}")),
            Err(_) if self.is_astray() => self.take_notes(),
            Err(error @ (LogError::Corrupt { .. } | LogError::Forked { .. } | LogError::RolledBack { .. })) => {
                Err(format!("5: {error}"))
            }
            _ => self.take_notes(),
        }
    }

    fn batch(&mut self) -> Vec<Vec<u8>> {
        let most = self.rng.choice([2, 2, 8, 8, 8, 8, 120]).unwrap_or(2);
        (0..self.rng.usize(1..most)).map(|_| self.entry(String::new(), String::new())).collect()
    }

    fn entry(&mut self, event: String, object: String) -> Vec<u8> {
        self.written += 1;
        let kind = if event.is_empty() { Kind::Exchange } else { Kind::Admin } as i32;
        let purpose = "p".repeat(self.rng.usize(..200));
        let time_us = self.clock.now_us(&mut self.rng);
        Entry { version: 1, kind, time_us, client: self.written.to_string(), purpose, event, object, ..Entry::default() }
            .to_bytes()
    }

    fn write(
        &mut self,
        pipeline: &Pipeline,
        journal: &mut Journal,
        batch: Vec<Vec<u8>>,
    ) -> Result<Result<(), LogError>, Violation> {
        self.model.attempted.extend(batch.iter().cloned());
        match pipeline.write(journal, batch.clone()) {
            Ok(first) => self.model.acknowledge(first, batch).map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Archives and prunes a bundle, as the gateway does.
    fn prune(&mut self, pipeline: &Pipeline, journal: &mut Journal) -> Result<Result<(), LogError>, Violation> {
        let full = *pipeline.watch_sealed().borrow() / TILE as u64;
        if full == 0 {
            return Ok(Ok(()));
        }
        let bundle = self.rng.u64(..full);
        let entries = &self.model.acknowledged[bundle as usize * TILE..][..TILE];
        let tells = |bytes: &Vec<u8>| Entry::from_bytes(bytes).is_some_and(|entry| entry.event == PRUNE_EVENT);
        if self.model.pruned.contains(&bundle) || entries.iter().any(tells) {
            return Ok(Ok(()));
        }
        let archived = LogReader::open_at(&self.paths)
            .and_then(|reader| archive(&reader, std::iter::once(bundle), Path::new(ARCHIVE), &mut |_| {}));
        if archived.is_err() {
            return Ok(archived);
        }
        let telling = self.entry(PRUNE_EVENT.into(), format!("bundles:{bundle}-{bundle}"));
        if let Err(error) = self.write(pipeline, journal, vec![telling])?.and_then(|()| pipeline.seal().map(drop)) {
            return Ok(Err(error));
        }
        self.model.pruned.insert(bundle);
        Ok(prune(&self.paths, &[bundle..=bundle]))
    }

    /// The faults are over: the next batch is written, and everything is sealed.
    fn recovers(&mut self, pipeline: &Pipeline, journal: &mut Journal) -> Result<(), Violation> {
        self.faults = Faults::default();
        self.disk.set_faults(Faults::default());
        self.disk.note(|| "-- the faults are over".into());
        let batch = self.batch();
        self.write(pipeline, journal, batch)?.map_err(|error| format!("6: writing does not go on: {error}"))?;
        let sealed = pipeline.seal().map_err(|error| format!("6: sealing does not go on: {error}"))?;
        let all = self.model.acknowledged.len() as u64;
        if sealed < all { Err(format!("6: {sealed} of {all} entries are sealed")) } else { Ok(()) }
    }

    fn take_notes(&mut self) -> Result<(), Violation> {
        self.disk.take_notes().iter().try_for_each(|note| self.model.sign(note))
    }

    fn check(&mut self, when: &str) -> Result<(), Violation> {
        let disk = self.disk.clone();
        let checked = disk.quietly(|| self.model.check(&self.paths, Path::new(ARCHIVE)));
        checked.map_err(|found| match found {
            Found::Told(error) => format!("5: {when}: {error}"),
            Found::Wrong(violation) => format!("{violation} ({when})"),
        })
    }

    /// Rolls the log back to before its last entries, writes others instead, and restores the last signed state, which is kept
    /// apart: no tree may be signed that does not contain the one that it names.
    fn forge(&mut self) -> Result<(), Violation> {
        let (before, disk, paths) = (self.disk.snapshot(Path::new(DATA)), self.disk.clone(), self.paths.clone());
        let size = self.model.acknowledged.len();
        self.one_life()?;
        let real = self.model.acknowledged.len() - size;
        let state = paths.signed.parent().unwrap_or(&paths.signed);
        let signed = disk.snapshot(state);
        if self.model.signed.last_key_value().is_none_or(|(signed, _)| *signed <= size as u64) {
            return Ok(());
        }
        disk.put_back(Path::new(DATA), &before);
        let (more, seal) = (self.rng.usize(1..=2 * real.max(1)), self.rng.bool());
        let other: Vec<Vec<u8>> = (0..more).map(|_| self.entry(String::new(), "forged".into())).collect();
        disk.note(|| format!("-- put back to {size} entries; {more} others, sealed: {seal}"));
        let opened = disk.quietly(|| {
            let (pipeline, mut journal) = Pipeline::open(paths.clone(), self.signer())?;
            pipeline.write(&mut journal, other)?;
            if seal { pipeline.seal().map(drop) } else { Ok(()) }?;
            pipeline.close();
            drop((pipeline, journal));
            disk.put_back(state, &signed);
            Pipeline::open(paths.clone(), self.signer())
        });
        match opened {
            Err(LogError::Forked { .. } | LogError::RolledBack { .. } | LogError::Corrupt { .. }) => Ok(()),
            Err(error) => Err(format!("3: a forged log is not called so: {error}")),
            Ok(_) => Err("3: a forged log is opened".into()),
        }
    }

    /// The effect of a misdirected write: a start, a reader or `audit verify` names the file that differs, or everything is there;
    /// and nothing is there that was not written.
    fn is_told(&mut self, astray: &Misdirected) -> Result<(), Violation> {
        let (paths, archive, signer, disk) = (self.paths.clone(), Path::new(ARCHIVE), self.signer(), self.disk.clone());
        let (auditor, is_there) = (self.signer(), self.is_there_still(astray));
        let checked = disk.quietly(|| {
            let before = audit(&paths, archive, &auditor);
            Pipeline::open(paths.clone(), signer).map_err(Found::Told)?;
            match self.model.check(&paths, archive) {
                Err(Found::Wrong(violation)) => before.map_err(Found::Told).and(Err(Found::Wrong(violation))),
                checked => checked,
            }
        });
        match checked {
            Ok(()) => Ok(()),
            Err(Found::Told(error)) if error.to_string().contains(DATA) || error.to_string().contains(ARCHIVE) => {
                Ok(())
            }
            Err(Found::Told(error)) => Err(format!("4: {}: no file is named: {error}", astray.what)),
            // As if it had never reached the disk: nothing of it can be found.
            Err(Found::Wrong(_)) if !is_there && self.model.lacks_only_an_unsigned_end(&paths, archive) => Ok(()),
            Err(Found::Wrong(violation)) => Err(format!("4: {}, and nobody tells: {violation}", astray.what)),
        }
    }

    /// Whether the misdirected data is still there, in a file that is read.
    fn is_there_still(&self, astray: &Misdirected) -> bool {
        let Misdirected { landed, place, free, bytes, .. } = astray;
        // Nobody reads an unfinished file, or the previous version of the last signed state.
        let name = landed.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_read = !["spare", "unnamed", "unfinished"].contains(&name) && !name.ends_with(".new");
        let files = self.disk.snapshot(Path::new(DATA));
        let there = files.get(landed).and_then(|file| file.get(*place..place + bytes.len()));
        // Nor the data after the end of a segment that another one follows: a failed write may have left anything there.
        let followed = name.ends_with(".seg")
            && files.keys().any(|file| {
                file.parent() == landed.parent() && file > landed && file.extension() == landed.extension()
            });
        // A crash can also leave only the middle of a batch after the end of a segment, of a last write.
        let shows = if name.ends_with(".seg") { has_batch_head(bytes) } else { bytes.iter().any(|byte| *byte != 0) };
        is_read && !(followed && *free) && shows && there == Some(bytes)
    }

    /// Changes one file of the log: the change must be reported, or have no effect.
    fn damage(&mut self) -> Result<(), Violation> {
        let Some((what, like_a_crash)) = self.change_a_file() else { return Ok(()) };
        self.disk.note(|| format!("-- {what}"));
        let (paths, archive, signer, disk) = (self.paths.clone(), Path::new(ARCHIVE), self.signer(), self.disk.clone());
        let auditor = self.signer();
        let checked = disk.quietly(|| {
            let audited = || audit(&paths, archive, &auditor);
            Pipeline::open(paths.clone(), signer).map_err(Found::Told)?;
            match self.model.check(&paths, archive) {
                Err(Found::Wrong(violation)) => audited().map_err(Found::Told).and(Err(Found::Wrong(violation))),
                checked => checked,
            }
        });
        match checked {
            Ok(()) => Ok(()),
            Err(Found::Told(error)) if error.to_string().contains(DATA) || error.to_string().contains(ARCHIVE) => {
                Ok(())
            }
            Err(Found::Told(error)) => Err(format!("4: {what}: no file is named: {error}")),
            // Lost sectors of the last write are the same as a crash during an unacknowledged write.
            Err(Found::Wrong(_)) if like_a_crash => Ok(()),
            Err(Found::Wrong(violation)) => Err(format!("4: {what}, and nobody tells: {violation}")),
        }
    }

    /// The change, and whether it can look like a truncated last write.
    fn change_a_file(&mut self) -> Option<(String, bool)> {
        let files = self.disk.files(Path::new(DATA));
        // In half of the cases the newest segment, whose entries are nowhere else.
        let newest = files.iter().find(|path| self.is_newest_segment(path));
        let newest = if self.rng.bool() { newest } else { None };
        let path = newest.or(self.rng.choice(&files))?.clone();
        let other = self.rng.choice(&files)?.clone();
        let bytes = self.disk.quietly(|| crate::exchange_log::disk::read(&*self.paths.disk, &path).ok())?;
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let journal = path.extension().is_some_and(|end| end == "seg");
        let (place, bit) = (self.rng.usize(..used.max(1)), 1 << self.rng.u32(..8));
        let sector = place / SECTOR * SECTOR..((place / SECTOR + 1) * SECTOR).min(bytes.len());
        let what = match self.rng.u32(..5) {
            0 if used > 0 => {
                self.disk.damage(&path, |bytes| bytes[place] ^= bit);
                format!("{}: bit {bit} of byte {place} turned", path.display())
            }
            1 if used > 0 => {
                self.disk.damage(&path, |bytes| bytes[sector.clone()].fill(0));
                let last = journal && Self::like_a_crash(&bytes, &sector);
                return Some((format!("{}: bytes {sector:?} lost", path.display()), last));
            }
            2 => {
                let length = if bit == 1 { 0 } else { place };
                self.disk.damage(&path, |bytes| bytes.truncate(length));
                format!("{}: cut to {length} bytes", path.display())
            }
            3 if !self.is_newest_segment(&path) => {
                self.disk.quietly(|| self.paths.disk.remove(&path)).ok()?;
                format!("{}: removed", path.display())
            }
            _ => {
                let from = self.disk.quietly(|| crate::exchange_log::disk::read(&*self.paths.disk, &other).ok())?;
                let stray = from.get(sector.clone()).unwrap_or_default().to_vec();
                self.disk
                    .damage(&path, |bytes| bytes[sector.start..sector.start + stray.len()].copy_from_slice(&stray));
                let zeros = stray.iter().all(|byte| *byte == 0);
                let last = zeros && journal && Self::like_a_crash(&bytes, &sector);
                return Some((
                    format!("{}: bytes {sector:?} of {} written there", path.display(), other.display()),
                    last,
                ));
            }
        };
        Some((what, false))
    }

    /// Whether a journal segment that lost a sector looks like one with a truncated last write: nothing follows the first batch
    /// in the sector; or, if its length is lost as well, nothing follows the last batch that starts in the sector.
    fn like_a_crash(bytes: &[u8], sector: &Range<usize>) -> bool {
        let (mut start, mut end) = (HEAD, HEAD);
        while end <= sector.start || start + 4 > sector.start && end < sector.end {
            let length = bytes.get(end..end + 4).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes);
            let Some(length) = length.filter(|length| *length > 0) else { break };
            (start, end) = (end, end + 88 + length as usize);
        }
        let behind = bytes.get(end.max(sector.end)..).unwrap_or_default();
        sector.start >= HEAD && behind.iter().all(|byte| *byte == 0)
    }

    fn is_newest_segment(&self, path: &Path) -> bool {
        let newest = self.disk.files(&self.paths.journal).into_iter().filter(|file| file.extension().is_some()).max();
        newest.as_deref() == Some(path)
    }
}

/// Whether there is a batch header anywhere: 84 bytes, then their CRC-32C (docs/exchange-log.md).
fn has_batch_head(bytes: &[u8]) -> bool {
    bytes.windows(88).any(|head| head[0] == 0 && crc32c::crc32c(&head[..84]).to_be_bytes() == head[84..])
}
