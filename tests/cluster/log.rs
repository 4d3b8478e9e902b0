//! Three gateways write one log over three members, while members and gateways end: every entry that was acknowledged is in
//! all three logs exactly once, and they are the same.

use crate::etcd::{EtcdCluster, LIMIT, MEMBERS};
use crate::support::{STALL, until};
use ndxp_gateway::cluster::etcd::EtcdChannel;
use ndxp_gateway::cluster::keys::MARKS;
use ndxp_gateway::cluster::member::RangeRead;
use ndxp_gateway::cluster::timers::RuntimeTimers;
use ndxp_gateway::cluster::{EtcdMembers, GatewayName};
use ndxp_gateway::cluster_log::site_files::OtherSite;
use ndxp_gateway::cluster_log::{self, ClusterLogSettings};
use ndxp_gateway::exchange_log::checkpoint::LogSigner;
use ndxp_gateway::exchange_log::reader::LogReader;
use ndxp_gateway::exchange_log::verify::{LogFiles, LogFolder, verify_data};
use ndxp_gateway::exchange_log::{Entry, ExchangeLog, Kind, LogError, LogPaths};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// An entry that is found by its text.
pub fn entry(text: &str) -> Entry {
    Entry { purpose: text.into(), ..Entry::begin(Kind::Exchange, "dc1") }
}

/// The places of each text in the sealed log of a folder.
pub fn named(data: &Path) -> BTreeMap<String, Vec<u64>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let reader = LogReader::sealed_only(data).unwrap();
    let visit = reader.newest_first(u64::MAX, |one| {
        found.entry(one.entry.purpose).or_default().push(one.index);
        true
    });
    visit.unwrap();
    found
}

/// Those of the gateway beside this member; tiles come from these folders, too.
pub fn settings(etcd: &EtcdCluster, at: usize, others: &[PathBuf]) -> ClusterLogSettings {
    let name = GatewayName::parse(&format!("dc{at}")).unwrap();
    let mut settings = ClusterLogSettings::new(name, etcd.access(at));
    settings.others = others
        .iter()
        .map(|data| Arc::new(LogFolder::on(&LogPaths::new(data), None)) as cluster_log::site_files::OtherSite)
        .collect();
    settings
}

/// Those of a gateway that refuses nothing only because the machine is busy.
pub fn patient(etcd: &EtcdCluster) -> ClusterLogSettings {
    ClusterLogSettings { refuse_after: LIMIT, ..settings(etcd, 0, &[]) }
}

/// Appends an entry with this text and a number, at the first attempt if the machine is not too busy; returns the whole text.
pub fn append_some(log: &ExchangeLog, text: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut attempts = 0;
    let mut whole = String::new();
    until("an entry is accepted", || {
        whole = format!("{text} {attempts}");
        attempts += 1;
        runtime.block_on(log.append(&entry(&whole))).is_ok()
    });
    whole
}

/// Three gateways, each with its own data folder.
struct Gateways {
    etcd: EtcdCluster,
    folder: tempfile::TempDir,
    key: Vec<u8>,
    logs: Vec<Arc<Mutex<Option<ExchangeLog>>>>,
}

impl Gateways {
    fn start() -> Option<Self> {
        EtcdCluster::start().map(Self::over)
    }

    fn over(etcd: EtcdCluster) -> Self {
        let (folder, key) = (tempfile::tempdir().unwrap(), LogSigner::generate().unwrap());
        let logs = (0..MEMBERS).map(|_| Arc::default()).collect();
        let gateways = Gateways { etcd, folder, key, logs };
        (0..MEMBERS).for_each(|at| gateways.open(at));
        gateways
    }

    fn data(&self, at: usize) -> PathBuf {
        self.folder.path().join(format!("gateway{at}"))
    }

    fn open(&self, at: usize) {
        let others: Vec<PathBuf> = (0..MEMBERS).filter(|other| *other != at).map(|other| self.data(other)).collect();
        // Whoever appended last may still be closing it.
        until("the folder is free", || {
            let signer = LogSigner::from_pkcs8("log.test/cluster", &self.key).unwrap();
            match cluster_log::open(&self.data(at), signer, settings(&self.etcd, at, &others)) {
                Err(LogError::Locked(_)) => false,
                opened => {
                    *self.logs[at].lock().unwrap() = Some(opened.unwrap());
                    true
                }
            }
        });
    }

    fn log(&self, at: usize) -> ExchangeLog {
        self.logs[at].lock().unwrap().clone().unwrap()
    }

    /// Every site stores the same, in which everything acknowledged is once.
    fn agree(&self, acknowledged: &[String]) -> u64 {
        for at in 0..MEMBERS {
            self.log(at).seal_now().unwrap();
        }
        let size = || (0..MEMBERS).map(|at| *self.log(at).watch_sealed().borrow()).collect::<Vec<_>>();
        // A batch that was offered again is sealed only once a sealer is elected.
        until("the sites store the same, with everything acknowledged", || {
            size().windows(2).all(|pair| pair[0] == pair[1]) && {
                let there = named(&self.data(0));
                acknowledged.iter().all(|text| there.contains_key(text))
            }
        });
        let reports: Vec<_> = (0..MEMBERS)
            .map(|at| verify_data(&self.data(at), None, None, Default::default(), |_, _| {}).unwrap())
            .collect();
        assert!(reports.windows(2).all(|pair| (pair[0].sealed, &pair[0].root) == (pair[1].sealed, &pair[1].root)));
        let there = named(&self.data(0));
        let wrong: Vec<_> =
            acknowledged.iter().filter(|text| there.get(*text).is_none_or(|at| at.len() != 1)).collect();
        assert!(wrong.is_empty(), "{} of {} are not there once: {:?}", wrong.len(), acknowledged.len(), wrong.first());
        let twice = there.iter().find(|(_, places)| places.len() > 1);
        assert!(twice.is_none(), "{twice:?}");
        reports[0].sealed
    }
}

/// Appends at all gateways until it is ended.
struct Appenders {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<String>>>,
    refused: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Appenders {
    fn start(gateways: &Gateways) -> Self {
        let mut all = Appenders {
            stop: Arc::default(),
            acknowledged: Arc::default(),
            refused: Arc::default(),
            threads: Vec::new(),
        };
        for (at, log) in gateways.logs.iter().enumerate() {
            let (log, stop) = (log.clone(), all.stop.clone());
            let (acknowledged, refused) = (all.acknowledged.clone(), all.refused.clone());
            all.threads.push(std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // A gateway that is away is one to which nobody sends anything.
                    let Some(log) = log.lock().unwrap().clone() else {
                        std::thread::sleep(Duration::from_millis(5));
                        continue;
                    };
                    let texts: Vec<String> = (0..5).map(|number| format!("g{at}-{turn}-{number}")).collect();
                    let entries: Vec<Entry> = texts.iter().map(|text| entry(text)).collect();
                    let appended = futures_util::future::join_all(entries.iter().map(|entry| log.append(entry)));
                    let appended = runtime.block_on(appended);
                    for (text, result) in texts.into_iter().zip(appended) {
                        match result {
                            Ok(_) => acknowledged.lock().unwrap().push(text),
                            Err(_) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                        }
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            }));
        }
        all
    }

    fn count(&self, of: &str) -> usize {
        self.acknowledged.lock().unwrap().iter().filter(|text| text.starts_with(of)).count()
    }

    /// Each of these gateways has had more entries acknowledged.
    fn progress(&self, what: &str, gateways: &[usize]) -> Duration {
        let count = |at: &usize| self.count(&format!("g{at}-"));
        let before: Vec<usize> = gateways.iter().map(count).collect();
        until(what, || gateways.iter().zip(&before).all(|(at, before)| count(at) > before + 20))
    }

    fn end(self) -> (Vec<String>, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        (std::mem::take(&mut *self.acknowledged.lock().unwrap()), self.refused.load(Ordering::Relaxed))
    }
}

#[test]
fn entries_of_three_gateways_are_in_all_three_logs_once_while_members_and_a_gateway_end() {
    // By TLS, and with the rights of a gateway alone.
    let Some(mut gateways) = EtcdCluster::start_secured().map(Gateways::over) else { return };
    let appenders = Appenders::start(&gateways);
    appenders.progress("three gateways append", &[0, 1, 2]);
    for member in 0..MEMBERS {
        gateways.etcd.kill(member);
        let took = appenders.progress("a member was killed", &[0, 1, 2]);
        println!("member {member} killed: all gateways append again after {:.1} s", took.as_secs_f64());
        gateways.etcd.restart(member);
        appenders.progress("a member was started", &[0, 1, 2]);
    }
    gateways.etcd.kill(0);
    gateways.etcd.replace(0);
    appenders.progress("a member is replaced", &[0, 1, 2]);
    // Without it there would be no majority.
    gateways.etcd.kill(1);
    appenders.progress("the new member is one of two", &[0, 1, 2]);
    gateways.etcd.restart(1);
    for at in 0..MEMBERS {
        drop(gateways.logs[at].lock().unwrap().take());
        let others: Vec<usize> = (0..MEMBERS).filter(|other| *other != at).collect();
        appenders.progress("a gateway has ended", &others);
        gateways.open(at);
        appenders.progress("a gateway was started", &[0, 1, 2]);
    }
    let (acknowledged, refused) = appenders.end();
    let sealed = gateways.agree(&acknowledged);
    // Those of before ended with their gateways' processes; what they wrote is in the log, as was just checked.
    let took = until("of each gateway, the running writer alone is left in etcd", || marks(&gateways) == MEMBERS);
    println!("ended writers are retired after {:.1} s", took.as_secs_f64());
    // A gateway that begins again finds batches of retired writers on its disk, and offers none of them.
    drop(gateways.logs[1].lock().unwrap().take());
    gateways.open(1);
    gateways.agree(&acknowledged);
    println!("{} entries acknowledged, each once among {sealed}; {refused} refused", acknowledged.len());
}

/// Number of writers that have a mark in etcd.
fn marks(gateways: &Gateways) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let channels = gateways.etcd.access(0).channels();
        let members = EtcdMembers::<EtcdChannel, _>::new(channels, RuntimeTimers::default(), None);
        let marks = RangeRead { keys_only: true, ..RangeRead::prefix(MARKS) };
        members.range(&marks).await.map_or(0, |page| page.entries.len())
    })
}

#[test]
fn without_a_quorum_appends_are_refused_within_a_second_and_then_the_log_goes_on_by_itself() {
    let Some(mut gateways) = Gateways::start() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let append = |log: &ExchangeLog, text: &str| {
        let began = Instant::now();
        (runtime.block_on(log.append(&entry(text))), began.elapsed())
    };
    let logs: Vec<ExchangeLog> = (0..MEMBERS).map(|at| gateways.log(at)).collect();
    let mut acknowledged = Vec::new();
    for (at, log) in logs.iter().enumerate() {
        acknowledged.push(append_some(log, &format!("before {at}")));
    }
    gateways.etcd.kill(0);
    gateways.etcd.kill(1);
    for (at, log) in logs.iter().enumerate() {
        let (refused, took) = append(log, &format!("first {at}"));
        assert!(matches!(refused, Err(LogError::Undecided(_))), "{refused:?}");
        assert!(took < Duration::from_millis(900) + STALL, "{took:?}");
        // From now on at once: most of them, on whatever machine.
        let mut times = Vec::new();
        for number in 0..20 {
            let (refused, took) = append(log, &format!("refused {at} {number}"));
            assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
            times.push(took);
        }
        times.sort_unstable();
        assert!(times[17] < Duration::from_millis(200), "{times:?}");
        assert!(!log.is_writable());
    }
    gateways.etcd.restart(0);
    gateways.etcd.restart(1);
    for (at, log) in logs.iter().enumerate() {
        let took = until("the log goes on", || log.is_writable());
        println!("gateway {at} accepts again {:.1} s after the members were started", took.as_secs_f64());
        acknowledged.push(append_some(log, &format!("after {at}")));
        // What was under way is there, though it was refused.
        acknowledged.push(format!("first {at}"));
    }
    drop(logs);
    gateways.agree(&acknowledged);
    // What was refused without having been sent is nowhere.
    assert!(!named(&gateways.data(0)).keys().any(|text| text.starts_with("refused")));
}

#[test]
fn a_batch_that_a_gateway_took_with_it_is_offered_again_and_a_lost_site_is_filled_by_the_others() {
    let Some(mut gateways) = Gateways::start() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut acknowledged = Vec::new();
    for number in 0..700 {
        acknowledged.push(append_some(&gateways.log(number % MEMBERS), &format!("entry {number}")));
    }
    gateways.etcd.kill(1);
    gateways.etcd.kill(2);
    let refused = runtime.block_on(gateways.log(0).append(&entry("on the own disk alone")));
    assert!(matches!(refused, Err(LogError::Undecided(_))), "{refused:?}");
    // Its process ends before etcd is there again.
    drop(gateways.logs[0].lock().unwrap().take());
    gateways.etcd.restart(1);
    gateways.etcd.restart(2);
    gateways.open(0);
    acknowledged.push("on the own disk alone".into());
    gateways.agree(&acknowledged);

    // A site with a new, empty disk, when etcd has none of the batches any more.
    drop(gateways.logs[2].lock().unwrap().take());
    std::fs::remove_dir_all(gateways.data(2)).unwrap();
    gateways.open(2);
    acknowledged.push(append_some(&gateways.log(2), "of the new site"));
    assert!(gateways.agree(&acknowledged) >= 702);
}

/// The folder of a site whose every bundle and tile is wrong.
struct Liar(LogFolder);

impl LogFiles for Liar {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, LogError> {
        self.0.read(name)
    }

    fn tile(&self, level: usize, index: u64, width: usize) -> Result<Vec<u8>, LogError> {
        let mut bytes = self.0.tile(level, index, width)?;
        bytes.iter_mut().for_each(|byte| *byte ^= 1);
        Ok(bytes)
    }

    fn bundle(&self, index: u64, width: usize) -> Result<Vec<u8>, LogError> {
        let mut bytes = self.0.bundle(index, width)?;
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        Ok(bytes)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }
}

#[test]
fn a_lost_site_is_not_stopped_by_one_that_lies_and_is_filled_by_one_that_does_not() {
    let Some(gateways) = Gateways::start() else { return };
    let mut acknowledged = Vec::new();
    for number in 0..300 {
        acknowledged.push(append_some(&gateways.log(number % MEMBERS), &format!("entry {number}")));
    }
    gateways.agree(&acknowledged);
    drop(gateways.logs[2].lock().unwrap().take());
    std::fs::remove_dir_all(gateways.data(2)).unwrap();
    let folder = |at: usize| LogFolder::on(&LogPaths::new(&gateways.data(at)), None);
    let (liar, honest): (OtherSite, OtherSite) = (Arc::new(Liar(folder(0))), Arc::new(folder(1)));
    let open = |others: Vec<OtherSite>, start_within| {
        let signer = LogSigner::from_pkcs8("log.test/cluster", &gateways.key).unwrap();
        let settings = ClusterLogSettings { others, start_within, ..settings(&gateways.etcd, 2, &[]) };
        cluster_log::open(&gateways.data(2), signer, settings)
    };
    // What etcd still has of it would be enough otherwise.
    until("a majority stores it, and etcd has not all of it any more", || {
        match open(vec![liar.clone()], Duration::from_secs(1)) {
            Ok(log) => {
                drop(log);
                std::fs::remove_dir_all(gateways.data(2)).unwrap();
                false
            }
            // Another one is of a member that does not answer in time.
            Err(error) => error.to_string().contains("no other site has the entries"),
        }
    });
    assert_eq!(LogReader::sealed_only(&gateways.data(2)).map_or(0, |reader| reader.sealed()), 0);
    let log = open(vec![liar.clone(), honest], LIMIT).unwrap();
    *gateways.logs[2].lock().unwrap() = Some(log);
    acknowledged.push(append_some(&gateways.log(2), "of the new site"));
    assert!(gateways.agree(&acknowledged) >= 301);
}
