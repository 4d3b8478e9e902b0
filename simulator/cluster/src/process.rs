//! A gateway's process for the run over a real etcd: writers, sealer and site, with a disk of files. What it promises goes to
//! its standard output: `ack WRITER SEQ ENTRY…`, `publish SIZE ROOT`, and `sign SIZE` before each signature.

use crate::cluster::batch::EncodedBatch;
use crate::cluster::etcd::{EtcdAccess, EtcdChannel, Members};
use crate::cluster::highest::HighestSeen;
use crate::cluster::own_disk::{OwnDisk, Publication};
use crate::cluster::peaks::Peaks;
use crate::cluster::sealer::SealerSettings;
use crate::cluster::site::{self, SiteTiles};
use crate::cluster::state::SealedState;
use crate::cluster::timers::RuntimeTimers;
use crate::cluster::{BatchWriter, ClusterError, ClusterSealer, Timers, guard, version, writer};
use crate::exchange_log::tree::Hash;
use crate::gateway::name;
use crate::model::note;
use crate::runtime::locked;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// While this file is there, batches are written.
pub const WRITES: &str = "writes";

/// The files of one gateway, beside those of the others.
pub struct FileDisk {
    root: PathBuf,
    machine: usize,
    gateways: usize,
    appending: tokio::sync::Mutex<()>,
    /// Entries behind what is stored, until their checkpoint is.
    kept: std::sync::Mutex<Vec<Vec<u8>>>,
}

impl FileDisk {
    pub fn new(root: &Path, machine: usize, gateways: usize) -> Self {
        let (appending, kept) = Default::default();
        let disk = FileDisk { root: root.to_owned(), machine, gateways, appending, kept };
        let _ = std::fs::create_dir_all(disk.path(machine, ""));
        disk
    }

    fn path(&self, machine: usize, file: &str) -> PathBuf {
        self.root.join(format!("gateway{machine}")).join(file)
    }

    fn own(&self, file: &str) -> PathBuf {
        self.path(self.machine, file)
    }

    /// The state up to which a gateway stores tiles, with its entries.
    pub fn tiles(&self, machine: usize) -> Result<(SealedState, Vec<Vec<u8>>), ClusterError> {
        let bytes = read(&self.path(machine, "state")).map_err(|error| failed(&error))?;
        if bytes.is_empty() {
            return Ok((SealedState::default(), Vec::new()));
        }
        let state = SealedState::decode(&bytes)?;
        let mut entries = records(&self.path(machine, "entries")).map_err(|error| failed(&error))?;
        entries.truncate(state.size() as usize);
        Ok((state, entries))
    }

    /// What any gateway has published last.
    fn published(&self) -> Option<(u64, Hash)> {
        let read = |machine| {
            let text = std::fs::read_to_string(self.path(machine, "published")).ok()?;
            let (size, root) = text.split_once(' ')?;
            Some((size.parse().ok()?, STANDARD.decode(root).ok()?.try_into().ok()?))
        };
        (0..self.gateways).filter_map(read).max_by_key(|(size, _)| *size)
    }
}

fn failed(error: &io::Error) -> ClusterError {
    ClusterError::OwnDisk(error.to_string())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

/// Records after their 32-bit lengths; an unfinished one at the end is left out.
fn records(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let (bytes, mut found) = (read(path)?, Vec::new());
    let mut rest = bytes.as_slice();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let Some((record, after)) = after.split_at_checked(u32::from_be_bytes(*length) as usize) else { break };
        found.push(record.to_vec());
        rest = after;
    }
    Ok(found)
}

fn append(path: &Path, all: &[Vec<u8>]) -> io::Result<()> {
    // What a crash has left unfinished is written over.
    let end: usize = records(path)?.iter().map(|record| record.len() + 4).sum();
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    file.set_len(end as u64)?;
    write_records(file, end as u64, all)
}

fn write_records(mut file: File, at: u64, all: &[Vec<u8>]) -> io::Result<()> {
    use std::io::Seek;
    file.seek(io::SeekFrom::Start(at))?;
    for record in all {
        file.write_all(&(record.len() as u32).to_be_bytes())?;
        file.write_all(record)?;
    }
    file.sync_data()
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), ClusterError> {
    let write = || {
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        std::fs::rename(new, path)
    };
    write().map_err(|error: io::Error| failed(&error))
}

impl OwnDisk for FileDisk {
    async fn append(&self, batch: &EncodedBatch) -> Result<(), ClusterError> {
        let _turn = self.appending.lock().await;
        let path = self.own("batches");
        let end = path.metadata().map_or(0, |found| found.len());
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        file.and_then(|file| write_records(file, end, std::slice::from_ref(&batch.bytes)))
            .map_err(|error| failed(&error))
    }

    async fn unsealed(&self, state: &SealedState) -> Result<Vec<EncodedBatch>, ClusterError> {
        // Cuts an unfinished record off.
        append(&self.own("batches"), &[]).map_err(|error| failed(&error))?;
        let records = records(&self.own("batches")).map_err(|error| failed(&error))?;
        let batches = records.into_iter().map(EncodedBatch::from_bytes).collect::<Result<Vec<_>, _>>()?;
        Ok(batches.into_iter().filter(|batch| !state.is_sealed(&batch.writer, batch.seq)).collect())
    }

    async fn store_highest(&self, seen: &HighestSeen) -> Result<(), ClusterError> {
        let stored = self.highest().await?;
        if stored.is_some_and(|stored| !seen.is_newer(&stored)) {
            return Ok(());
        }
        replace(&self.own("highest"), &seen.encode())
    }

    async fn highest(&self) -> Result<Option<HighestSeen>, ClusterError> {
        let bytes = read(&self.own("highest")).map_err(|error| failed(&error))?;
        if bytes.is_empty() { Ok(None) } else { HighestSeen::decode(&bytes).map(Some) }
    }
}

impl Publication for FileDisk {
    async fn sign(&self, size: u64, root: &Hash) -> Result<String, ClusterError> {
        say(&format!("sign {size}"));
        tokio::time::sleep(Duration::from_millis(30)).await;
        Ok(note(size, root))
    }

    async fn publish(&self, state: &SealedState, _: &[Vec<u8>]) -> Result<(), ClusterError> {
        if state.size() == 0 {
            return Ok(());
        }
        let (size, root) = (state.size(), STANDARD.encode(state.root()));
        say(&format!("publish {size} {root}"));
        replace(&self.own("published"), format!("{size} {root}").as_bytes())
    }

    async fn last_cosigned(&self) -> Result<Option<(u64, Hash)>, ClusterError> {
        Ok(self.published())
    }

    async fn root_at(&self, size: u64) -> Result<Option<Hash>, ClusterError> {
        let (_, entries) = self.tiles(self.machine)?;
        let Some(entries) = entries.get(..size as usize) else { return Ok(None) };
        let mut peaks = Peaks::default();
        entries.iter().for_each(|entry| peaks.push(entry));
        Ok(Some(peaks.root()))
    }
}

impl SiteTiles for FileDisk {
    async fn stored(&self) -> Result<SealedState, ClusterError> {
        Ok(self.tiles(self.machine)?.0)
    }

    async fn store(&self, state: &SealedState, entries: &[Vec<u8>]) -> Result<(), ClusterError> {
        let (before, _) = self.tiles(self.machine)?;
        let path = self.own("entries");
        let stored = records(&path).map_err(|error| failed(&error))?;
        let end: usize = stored.iter().take(before.size() as usize).map(|entry| entry.len() + 4).sum();
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let kept = std::mem::take(&mut *locked(&self.kept));
        // The sealer, which publishes what it has sealed itself, follows what is stored.
        let follows = before.size() + entries.len() as u64 == state.size();
        let all = if follows { entries.to_vec() } else { [kept.as_slice(), entries].concat() };
        let written = file.and_then(|file| {
            file.set_len(end as u64)?;
            write_records(file, end as u64, &all)
        });
        written.map_err(|error| failed(&error))?;
        replace(&self.own("state"), &state.encode())
    }

    async fn held(&self) -> Result<Peaks, ClusterError> {
        let mut peaks = self.tiles(self.machine)?.0.peaks;
        locked(&self.kept).iter().for_each(|entry| peaks.push(entry));
        Ok(peaks)
    }

    async fn keep(&self, from: u64, entries: &[Vec<u8>]) -> Result<(), ClusterError> {
        let known = self.held().await?.size().checked_sub(from);
        let rest = known.and_then(|known| entries.get(known as usize..)).unwrap_or_default();
        locked(&self.kept).extend_from_slice(rest);
        Ok(())
    }

    fn sources(&self) -> usize {
        self.gateways
    }

    async fn fetch(&self, source: usize, from: u64, to: u64) -> Result<Option<Vec<Vec<u8>>>, ClusterError> {
        let (_, entries) = self.tiles((self.machine + source) % self.gateways)?;
        Ok(entries.get(from as usize..to as usize).map(<[Vec<u8>]>::to_vec))
    }

    async fn hashes(&self, _: usize, _: (u64, u64), _: u64) -> Result<Option<Vec<Hash>>, ClusterError> {
        Ok(None)
    }
}

/// One line, at once.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Connections to endpoints, from this one on.
pub fn channels(endpoints: &[String], first: usize) -> Vec<EtcdChannel> {
    let mut urls = endpoints.to_vec();
    urls.rotate_left(first % endpoints.len().max(1));
    EtcdAccess::new(&urls, None).map(|etcd| etcd.channels()).unwrap_or_default()
}

/// Runs a gateway until it is killed, or has stopped for good.
pub async fn run(root: &Path, machine: usize, endpoints: &[String]) -> ClusterError {
    let disk = Arc::new(FileDisk::new(root, machine, endpoints.len()));
    loop {
        match serve(root, machine, endpoints, &disk).await {
            error if error.may_pass() => {
                say(&format!("retry {error}"));
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            error => return error,
        }
    }
}

async fn serve(root: &Path, machine: usize, endpoints: &[String], disk: &Arc<FileDisk>) -> ClusterError {
    let started = async {
        let seen = disk.highest().await?.map(|seen| (seen.cluster, seen.revision));
        let members = Arc::new(Members::new(channels(endpoints, machine), RuntimeTimers::default(), seen));
        version::check(&members).await?;
        let checkpoint = guard::checked(&members, &**disk).await?;
        let offered = writer::offer_unsealed(&members, &**disk, &checkpoint.state).await?;
        say(&format!("offered batches of {} starts again", offered.len()));
        let number = fastrand::u64(..);
        let writer =
            BatchWriter::begin(members.clone(), disk.clone(), name(machine), &checkpoint.state, number).await?;
        Ok((members, writer))
    };
    let (members, writer) = match started.await {
        Ok(started) => started,
        Err(error) => return error,
    };
    let sealer = ClusterSealer {
        members: members.clone(),
        disk: disk.clone(),
        publication: disk.clone(),
        candidate: writer.incarnation().clone(),
        settings: SealerSettings { seal_each: Duration::from_millis(200), sites: endpoints.len() },
    };
    tokio::select! {
        error = sealer.run() => error,
        error = write(root, &writer, 1) => error,
        error = write(root, &writer, 2) => error,
        error = follow(machine, &members, disk) => error,
    }
}

async fn write(root: &Path, writer: &BatchWriter<EtcdChannel, RuntimeTimers, FileDisk>, task: u64) -> ClusterError {
    let mut count = 0u64;
    loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if !root.join(WRITES).exists() {
            continue;
        }
        let entry = |number: u64| format!("{}-{task}-{}", writer.incarnation(), count * 10 + number);
        let entries: Vec<String> = (0..1 + fastrand::u64(0..8)).map(entry).collect();
        count += 1;
        let batch = match writer.next_batch(entries.iter().map(|entry| entry.clone().into_bytes()).collect()) {
            Ok(batch) => batch,
            Err(error) => return error,
        };
        if let Err(error) = writer.write(&batch, |_| (), || ()).await {
            return error;
        }
        say(&format!("ack {} {} {}", batch.writer, batch.seq, entries.join(" ")));
    }
}

async fn follow(machine: usize, members: &Members, disk: &FileDisk) -> ClusterError {
    let mut said = 0;
    loop {
        match site::follow(members, disk, disk, &name(machine), &mut said).await {
            Err(error) if !error.may_pass() => return error,
            _ => members.timers().sleep(Duration::from_millis(300)).await,
        }
    }
}
