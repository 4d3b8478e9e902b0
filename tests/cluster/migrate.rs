//! The way of a real embedded log with its registry into a real etcd, and back: whatever crashes in between, nothing is
//! lost, none is there twice, and never do two write.

use crate::etcd::{EtcdCluster, LIMIT, MEMBERS};
use crate::log::{append_some, entry, named, settings};
use crate::support::until;
use ndxp_gateway::cluster::adoption::{self, EtcdLog};
use ndxp_gateway::cluster::etcd::Members;
use ndxp_gateway::cluster::member::{RangeRead, Txn, TxnOperation};
use ndxp_gateway::cluster::registry::quota::{self, GrantDay, QuotaBlocks};
use ndxp_gateway::cluster::registry::{BlockingCommits, ClusterRegistry, IssuedTokens, RegistrySettings};
use ndxp_gateway::cluster::secrets;
use ndxp_gateway::cluster::timers::RuntimeTimers;
use ndxp_gateway::cluster::{GatewayName, Incarnation, version};
use ndxp_gateway::cluster_log::{self, ClusterLogSettings};
use ndxp_gateway::exchange_log::checkpoint::LogSigner;
use ndxp_gateway::exchange_log::key::LogKeyError;
use ndxp_gateway::exchange_log::verify::verify_data;
use ndxp_gateway::exchange_log::{Entry, ExchangeLog, Kind, LogError, LogPaths};
use ndxp_gateway::keyfile::{SharedSecrets, Vault};
use ndxp_gateway::migration::{BeginStep, LeaveStep, MigratingGateway, MigrationError};
use ndxp_gateway::registry::sqlite::{SqliteReplica, SqliteStore};
use ndxp_gateway::registry::usage::{self, DayUsage, UsageStore};
use ndxp_gateway::registry::{AdminEvent, Client, Grant, Page, Staff, Store, TokenRecord, now};
use ndxp_gateway::server::EtcdSecrets;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const LEAVE_STEPS: [LeaveStep; 5] =
    [LeaveStep::Left, LeaveStep::Noted, LeaveStep::RegistryAlone, LeaveStep::JournalBegun, LeaveStep::PutAway];

/// Folders of three gateways, the first of which has a log and a registry that it writes alone.
pub struct Folders {
    pub etcd: EtcdCluster,
    folder: tempfile::TempDir,
    key: Vec<u8>,
    pub runtime: Runtime,
    pub members: Arc<Members>,
}

fn vault() -> Vault {
    Vault::sealed("0123456789abcdef0123456789abcdef").unwrap()
}

pub fn event_entry(event: &AdminEvent) -> Vec<u8> {
    let text = format!("event {} {}", event.sequence, event.event);
    let (exchange_id, event_sequence) = (event.id.to_vec(), event.sequence);
    Entry { purpose: text, exchange_id, event_sequence, ..Entry::begin(Kind::Admin, "dc0") }.to_bytes()
}

impl Folders {
    pub fn start() -> Option<Self> {
        let etcd = EtcdCluster::empty()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let members = {
            let _here = runtime.enter();
            Arc::new(Members::new(etcd.access(0).channels(), RuntimeTimers::default(), None))
        };
        until("etcd starts", || {
            let ready = runtime.block_on(async {
                let read = members.range(&RangeRead::key(b"x")).await;
                version::check(&members).await.and(read.map(drop))
            });
            std::thread::sleep(Duration::from_millis(50));
            ready.is_ok()
        });
        let (folder, key) = (tempfile::tempdir().unwrap(), LogSigner::generate().unwrap());
        Some(Folders { etcd, folder, key, runtime, members })
    }

    pub fn data(&self, at: usize) -> PathBuf {
        self.folder.path().join(format!("gateway{at}"))
    }

    fn signer(&self) -> LogSigner {
        LogSigner::from_pkcs8("log.test/migrate", &self.key).unwrap()
    }

    pub fn store(&self, at: usize) -> SqliteStore {
        SqliteStore::open(&self.data(at).join("registry.sqlite")).unwrap()
    }

    /// Nothing is in etcd.
    pub fn empty_etcd(&self) {
        let then = vec![TxnOperation::DeleteRange(b"!".to_vec(), b"~".to_vec())];
        self.runtime.block_on(self.members.settle(&Txn { then, ..Txn::default() })).unwrap();
    }

    /// Everything away: another etcd, other folders.
    fn clear(&self) {
        self.empty_etcd();
        for at in 0..MEMBERS {
            let _ = std::fs::remove_dir_all(self.data(at));
        }
    }

    /// Runs something with the gateway of a folder, which is stopped.
    pub fn migrate<T>(
        &self,
        at: usize,
        work: impl AsyncFnOnce(MigratingGateway<'_>) -> Result<T, MigrationError>,
    ) -> Result<T, MigrationError> {
        let (data, store) = (self.data(at), self.store(at));
        let signer = || Ok::<_, LogKeyError>(self.signer());
        let secrets = EtcdSecrets::new(self.members.clone(), vault(), self.runtime.handle().clone());
        let share_keys = || secrets.agree("log", &self.key).map(drop);
        let gateway = MigratingGateway {
            data: &data,
            signer: &signer,
            store: &store,
            members: self.members.clone(),
            gateway: GatewayName::parse(&format!("dc{at}")).unwrap(),
            entry: Arc::new(event_entry),
            others: Vec::new(),
            share_keys: &share_keys,
        };
        self.runtime.block_on(work(gateway))
    }

    pub fn begin(&self, at: usize) -> Result<u64, MigrationError> {
        self.migrate(at, async |gateway| gateway.begin(&mut |line| println!("  {line}")).await)
    }

    fn begin_until(&self, step: BeginStep) -> Result<u64, MigrationError> {
        self.migrate(0, async |gateway| gateway.begin_until(step, &mut |_| ()).await)
    }

    fn leave(&self, at: usize) -> Result<u64, MigrationError> {
        self.migrate(at, async |gateway| gateway.leave(&mut |line| println!("  {line}")).await)
    }

    fn leave_until(&self, step: LeaveStep) -> Result<u64, MigrationError> {
        self.migrate(0, async |gateway| gateway.leave_until(step, &mut |_| ()).await)
    }

    fn embedded(&self) -> Result<ExchangeLog, LogError> {
        ExchangeLog::open(&self.data(0), self.signer())
    }

    /// Appends so many entries to the log that this folder writes alone.
    pub fn append_alone(&self, text: &str, count: usize) -> Vec<String> {
        let log = self.embedded().unwrap();
        let texts: Vec<String> = (0..count).map(|number| format!("{text} {number}")).collect();
        let entries: Vec<Entry> = texts.iter().map(|text| entry(text)).collect();
        let appended = futures_util::future::join_all(entries.iter().map(|entry| log.append(entry)));
        assert!(self.runtime.block_on(appended).iter().all(Result::is_ok));
        texts
    }

    pub fn site(&self, at: usize) -> Result<ExchangeLog, LogError> {
        let others: Vec<PathBuf> = (0..MEMBERS).filter(|other| *other != at).map(|other| self.data(other)).collect();
        let settings = ClusterLogSettings { refuse_after: LIMIT, ..settings(&self.etcd, at, &others) };
        cluster_log::open(&self.data(at), self.signer(), settings)
    }

    /// Three gateways append, and store the same.
    pub fn append_together(&self, text: &str, count: usize) -> Vec<String> {
        let logs: Vec<ExchangeLog> = (0..MEMBERS).map(|at| self.site(at).unwrap()).collect();
        let mut texts: Vec<String> =
            (0..count).map(|number| append_some(&logs[number % MEMBERS], &format!("{text} {number}"))).collect();
        texts.push(append_some(&logs[0], &format!("{text}, the last one")));
        logs.iter().for_each(|log| assert!(log.seal_now().is_ok()));
        let size = || logs.iter().map(|log| *log.watch_sealed().borrow()).collect::<Vec<_>>();
        until("the sites store the same", || size().windows(2).all(|pair| pair[0] == pair[1]));
        texts
    }

    /// The registry of a gateway of the cluster, for changes.
    pub fn replica(&self, at: usize) -> SqliteStore {
        let (store, members) = (self.store(at), self.members.clone());
        let replica = SqliteReplica::open(&store).unwrap();
        let registry = Arc::new(ClusterRegistry::new(
            members.clone(),
            replica,
            Arc::new(event_entry),
            RegistrySettings::default(),
        ));
        self.runtime.block_on(registry.refresh()).unwrap();
        let holder =
            Incarnation { gateway: GatewayName::parse(&format!("dc{at}")).unwrap(), number: fastrand::u64(..) };
        let issued = Arc::new(IssuedTokens::new(members, holder));
        self.runtime.block_on(issued.refresh(registry.replica())).unwrap();
        let commits = BlockingCommits::new(registry, issued, self.runtime.handle().clone());
        store.replicated(Arc::new(commits)).unwrap()
    }
}

pub fn client(id: &str) -> Client {
    let names = vec![format!("{id}.example")];
    Client { id: id.into(), agency: "H49".into(), names, created: 7, ..Client::default() }
}

/// People, two clients, a grant, tokens: with events that wait for the log.
fn fill(store: &SqliteStore) {
    let person = |id: &str| Staff { id: id.into(), roles: Vec::new(), names: vec![format!("spiffe://a.vn/{id}")] };
    store.bootstrap(&person("lan"), &person("minh")).unwrap();
    store.add_client(&client("shop")).unwrap();
    store.add_client(&client("other")).unwrap();
    let scopes = vec!["population:read".into()];
    let grant = Grant { id: "g-1".into(), client: "shop".into(), scopes, not_after: 1 << 40, ..Grant::default() };
    store.add_grant(&grant).unwrap();
    store.add_grant(&Grant { id: "g-2".into(), daily_quota: 100, ..grant }).unwrap();
    let token = |number: i64| TokenRecord {
        id: uuid::Uuid::now_v7().to_string(),
        client: "shop".into(),
        issued: now(),
        expires: now() + number,
        ..TokenRecord::default()
    };
    store.add_tokens(&(0..450).map(|number| token(number - 10)).collect::<Vec<_>>()).unwrap();
}

pub fn clients(store: &SqliteStore) -> Vec<String> {
    store.clients(Page::ALL).unwrap().iter().map(|client| client.id.clone()).collect()
}

/// The log of a folder verifies, and has these texts once each, in any order, and nothing twice.
pub fn has_once(data: &Path, texts: &[String]) -> u64 {
    let report = verify_data(data, None, None, Default::default(), |_, _| {}).unwrap();
    let there = named(data);
    let wrong: Vec<_> = texts.iter().filter(|text| there.get(*text).is_none_or(|at| at.len() != 1)).collect();
    assert!(wrong.is_empty(), "{} of {} are not there once: {:?}", wrong.len(), texts.len(), wrong.first());
    let twice = there.iter().find(|(text, places)| places.len() > 1 && !text.is_empty());
    assert!(twice.is_none() && report.tail == 0, "{twice:?}, {} behind", report.tail);
    report.sealed
}

/// The numbers of the admin events in a log, in order.
fn events(data: &Path) -> Vec<u64> {
    let mut events: Vec<(u64, u64)> = named(data)
        .iter()
        .filter_map(|(text, at)| Some((at[0], text.strip_prefix("event ")?.split(' ').next()?.parse().ok()?)))
        .collect();
    events.sort_unstable();
    events.into_iter().map(|(_, sequence)| sequence).collect()
}

/// Logs the events that wait, as the gateway alone does.
fn log_events(folders: &Folders) {
    let (log, store) = (folders.embedded().unwrap(), folders.store(0));
    for event in store.admin_events().unwrap() {
        let entry = Entry::from_bytes(&event_entry(&event)).unwrap();
        folders.runtime.block_on(log.append(&entry)).unwrap();
        store.forget_event(&event.id).unwrap();
    }
}

#[test]
fn a_log_goes_into_etcd_and_back_and_in_again_with_everything_once() {
    let Some(folders) = Folders::start() else { return };
    let data = folders.data(0);
    let mut texts = folders.append_alone("alone", 1_200);
    fill(&folders.store(0));
    let waiting = folders.store(0).admin_events().unwrap().len() as u64;
    let places = named(&data);
    let began = Instant::now();
    let size = folders.begin(0).unwrap();
    println!("{size} entries, {} ms into etcd", began.elapsed().as_millis());
    assert_eq!((size, has_once(&data, &texts)), (1_200 + waiting, size));
    assert!(matches!(folders.embedded(), Err(LogError::Replicated(_))));
    assert!(folders.store(0).add_client(&client("late")).is_err(), "a replica is not changed by itself");
    let shared = folders.runtime.block_on(secrets::get(&folders.members, "log")).unwrap().unwrap();
    assert_eq!(vault().open_text("log", &shared).unwrap().as_slice(), folders.key);
    assert!(std::fs::read_dir(data.join(format!("journal-until-{size}"))).unwrap().count() > 0);

    // Three gateways, one of them changes the registry.
    let second = folders.replica(1);
    assert_eq!(clients(&second), ["other", "shop"]);
    let tokens = second.tokens(None, Page::ALL).unwrap().len();
    assert!((400..450).contains(&tokens), "{tokens} tokens were in force");
    texts.extend(folders.append_together("together", 120));
    second.add_client(&client("third")).unwrap();
    texts.extend(folders.append_together("after the change", 9));
    assert_eq!(clients(&folders.replica(0)), ["other", "shop", "third"]);
    for at in 0..MEMBERS {
        has_once(&folders.data(at), &texts);
    }
    second.add_client(&client("fourth")).unwrap();

    // Out, with a change that no gateway had sealed.
    until("what is open is seen", || folders.leave(0).unwrap_err().to_string().contains("batches are not sealed"));
    texts.extend(folders.append_together("sealed", 1));
    let began = Instant::now();
    until("the sealer's lease ends", || {
        let left = folders.leave(0);
        left.is_ok() || {
            assert!(left.unwrap_err().to_string().contains("stop every gateway"));
            false
        }
    });
    println!("{} ms out of etcd", began.elapsed().as_millis());
    for at in 1..MEMBERS {
        let refused = folders.site(at).err().unwrap().to_string();
        assert!(refused.contains("has left this etcd") && refused.contains("dc0"), "{refused}");
        let refused = folders.leave(at).unwrap_err().to_string();
        assert!(refused.contains("has left this etcd"), "{refused}");
    }
    assert!(second.add_client(&client("nobody")).is_err(), "the registry has left, too");
    texts.extend(folders.append_alone("alone again", 300));
    let store = folders.store(0);
    assert_eq!(clients(&store), ["fourth", "other", "shop", "third"]);
    store.add_client(&client("fifth")).unwrap();
    log_events(&folders);
    assert_eq!(events(&data), (1..=waiting + 3).collect::<Vec<_>>(), "the numbers of events go on");
    texts.extend(folders.append_alone("and again", 10));
    has_once(&data, &texts);

    // In again: the other sites fetch what they lack, and follow.
    folders.begin(0).unwrap();
    let EtcdLog::Begun(state) = folders.runtime.block_on(adoption::present(&folders.members)).unwrap() else {
        panic!()
    };
    assert_eq!(state.epoch, 1);
    texts.extend(folders.append_together("together again", 30));
    assert_eq!(clients(&folders.replica(2)), ["fifth", "fourth", "other", "shop", "third"]);
    folders.replica(1).add_client(&client("sixth")).unwrap();
    assert_eq!(clients(&folders.replica(0)).len(), 6);
    texts.extend(folders.append_together("the end", 3));
    let sizes: Vec<u64> = (0..MEMBERS).map(|at| has_once(&folders.data(at), &texts)).collect();
    assert!(sizes.windows(2).all(|pair| pair[0] == pair[1]), "{sizes:?}");
    assert_eq!(events(&data), (1..=waiting + 4).collect::<Vec<_>>());
    // What was where in the log of one gateway is there still.
    let now = named(&data);
    assert!(places.iter().all(|(text, at)| now.get(text) == Some(at)));
}

#[test]
fn what_was_used_of_today_s_quotas_goes_along_and_back() {
    let Some(folders) = Folders::start() else { return };
    // A day of Ho Chi Minh City, UTC+7.
    let today = (now() + 7 * 3_600) / 86_400;
    drop(folders.append_alone("alone", 3));
    fill(&folders.store(0));
    let usage = || {
        let store = folders.store(0);
        UsageStore::open(&folders.data(0).join(usage::FILE), store.key().clone()).unwrap()
    };
    let used = |grant: &str, day, used| DayUsage { grant: grant.into(), day, used };
    usage().save(&[used("g-1", today, 5), used("g-2", today, 7), used("gone", today, 1)], now() * 1_000_000).unwrap();
    // Two more, of which the log alone knows.
    let log = folders.embedded().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for grant_call in [8, 9] {
        let entry = Entry { grant: "g-2".into(), grant_call, ..Entry::begin(Kind::Exchange, "dc0") };
        runtime.block_on(log.append(&entry)).unwrap();
    }
    drop(log);
    folders.begin(0).unwrap();
    let of = GrantDay { day: today.unsigned_abs(), grant: "g-2".into() };
    let totals = || folders.runtime.block_on(quota::totals(&folders.members, of.day)).unwrap();
    assert_eq!(totals(), [("g-2".to_owned(), 9)], "a grant without a quota needs none");
    // Another gateway has the rest, and no more.
    let holder = Incarnation { gateway: GatewayName::parse("dc1").unwrap(), number: 1 };
    let blocks = QuotaBlocks::new(folders.members.clone(), holder, 3);
    let mut calls = 0;
    while calls < 3 {
        match blocks.consume(&of) {
            true => calls += 1,
            false => assert!(folders.runtime.block_on(blocks.refill(&of, 100)).unwrap() > 0),
        }
    }
    assert_eq!(blocks.remaining(&of, 100), 88);
    folders.runtime.block_on(blocks.release(&of)).unwrap();
    assert_eq!(totals(), [("g-2".to_owned(), 12)]);
    folders.leave(0).unwrap();
    assert!(usage().load().unwrap().usage.contains(&used("g-2", today, 12)));
    // In again on the same day: what was counted here before is not counted twice, nor forgotten.
    usage().save(&[used("g-2", today, 13)], now() * 1_000_000).unwrap();
    folders.begin(0).unwrap();
    assert_eq!(totals(), [("g-2".to_owned(), 13)]);
}

#[test]
fn a_crash_between_any_two_steps_leaves_a_folder_that_the_same_command_finishes() {
    let Some(folders) = Folders::start() else { return };
    for (turn, step) in BeginStep::ALL.into_iter().enumerate() {
        folders.clear();
        let mut texts = folders.append_alone("alone", 300);
        fill(&folders.store(0));
        folders.begin_until(step).unwrap();
        match step < BeginStep::Fenced {
            true => texts.extend(folders.append_alone("in between", 7)),
            false => assert!(matches!(folders.embedded(), Err(LogError::Replicated(_))), "{step:?}"),
        }
        if (BeginStep::Fenced..BeginStep::PutAway).contains(&step) {
            let refused = folders.site(0).err().unwrap().to_string();
            assert!(refused.contains("`cluster begin` has not come to its end"), "{step:?}: {refused}");
        }
        if step == BeginStep::LogBegun {
            // Others may write already, and change the registry.
            folders.replica(1).add_client(&client("early")).unwrap();
            let log = folders.site(1).err().map(|error| error.to_string());
            assert!(log.is_none(), "{log:?}");
        }
        match step {
            BeginStep::PutAway => assert!(folders.begin(0).is_err(), "it is a site already"),
            _ => drop(folders.begin(0).unwrap()),
        }
        texts.extend(folders.append_together("together", 6));
        has_once(&folders.data(0), &texts);
        assert_eq!(clients(&folders.replica(0)).len(), if step == BeginStep::LogBegun { 3 } else { 2 });

        let Some(step) = LEAVE_STEPS.get(turn).copied() else { continue };
        until("the sealer's lease ends", || folders.leave_until(step).is_ok());
        if step < LeaveStep::PutAway {
            assert!(matches!(folders.embedded(), Err(LogError::Replicated(_))), "{step:?}");
            let refused = folders.site(0).err().unwrap().to_string();
            assert!(refused.contains("has left") || refused.contains("not come to its end"), "{step:?}: {refused}");
            folders.leave(0).unwrap();
        }
        assert!(folders.leave(0).is_err(), "it is no site any more");
        texts.extend(folders.append_alone("alone again", 20));
        has_once(&folders.data(0), &texts);
        folders.store(0).add_client(&client("late")).unwrap();
    }
}

#[test]
fn what_would_make_two_logs_of_one_is_refused() {
    let Some(folders) = Folders::start() else { return };
    folders.append_alone("alone", 20);
    fill(&folders.store(0));
    // Another folder, with a log of its own, was first.
    drop(ExchangeLog::open(&folders.data(1), folders.signer()).unwrap());
    folders.migrate(1, async |gateway| gateway.begin_until(BeginStep::Claimed, &mut |_| ()).await).unwrap();
    let refused = folders.begin(0).unwrap_err().to_string();
    assert!(refused.contains("another data folder fills this etcd"), "{refused}");
    folders.begin(1).unwrap();
    let refused = folders.begin(0).unwrap_err().to_string();
    assert!(refused.contains("holds a log") || refused.contains("another log"), "{refused}");
    // It goes on alone as ever, and its registry, too.
    folders.append_alone("still alone", 5);
    folders.store(0).add_client(&client("third")).unwrap();

    // A gateway that runs keeps the log where it is; one in this folder keeps the command out.
    let log = folders.site(1).unwrap();
    append_some(&log, "it runs");
    log.seal_now().unwrap();
    assert!(matches!(folders.leave(1), Err(MigrationError::Log(LogError::Locked(_)))));
    let other = folders.site(2).unwrap();
    drop(log);
    until("the other one seals", || {
        let refused = folders.leave(1).unwrap_err().to_string();
        refused.contains("gateway dc2 runs: stop every gateway first")
    });
    drop(other);
    assert!(folders.leave(0).unwrap_err().to_string().contains("is not a site"));

    // A log that has left comes back from where it was continued alone.
    until("the lease ends", || folders.leave(1).is_ok());
    let refused = folders.begin(0).unwrap_err().to_string();
    assert!(refused.contains("another log"), "{refused}");
    folders.begin(1).unwrap();

    // An event that the gateway did not record is not logged by the way.
    folders.clear();
    folders.append_alone("alone", 20);
    let store = folders.store(0);
    fill(&store);
    let file = rusqlite::Connection::open(store.path()).unwrap();
    file.execute("UPDATE acts SET actor = 'staff:somebody' WHERE seq = 3", []).unwrap();
    let refused = folders.begin(0).unwrap_err().to_string();
    assert!(refused.contains("admin event 3") && refused.contains("start it"), "{refused}");
    assert!(!LogPaths::new(&folders.data(0)).is_replicated().unwrap());
    folders.append_alone("still alone", 5);
}
