//! What a gateway shares with others over etcd beside the log, which does so by itself ([`cluster_log`]): the registry, daily
//! quotas, private keys. One runtime of its own, whose tasks follow the registry and the issued tokens.

mod secrets;
mod status;

use super::StartError;
use super::control::admin_events;
use crate::access::limits::{GrantLimits, Remaining, quota_exceeded};
use crate::audit::remote_log::RemoteLogFiles;
use crate::cluster::etcd::{EtcdAccess, EtcdChannel, Members};
use crate::cluster::registry::{
    BlockingCommits, ClusterRegistry, Freshness, IssuedTokens, QuotaBlocks, RegistrySettings,
    quota::GrantDay,
    rates::{self, RateDemand, SHARE_EACH},
};
use crate::cluster::report::{self, GatewayReport, REPORT_EACH};
use crate::cluster::timers::RuntimeTimers;
use crate::cluster::{ClusterError, Incarnation};
use crate::cluster_log::site_files::OtherSite;
use crate::cluster_log::{self, ClusterLogSettings};
use crate::config::{ClusterSettings, Config};
use crate::exchange_log::checkpoint::LogSigner;
use crate::exchange_log::clock::now_us;
use crate::exchange_log::key::{self, LogKeyError};
use crate::exchange_log::{ExchangeLog, LogError};
use crate::keyfile::{SharedSecrets, Vault};
use crate::registry::replication::{Replica, ReplicaPosition};
use crate::registry::sqlite::{SqliteReplica, SqliteStore};
use crate::registry::{GrantView, now};
use crate::status::{Reason, Refusal};
use crate::time_zone::day;
use secrets::LOG_KEY;
pub use secrets::{EtcdSecrets, share_keys};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, Runtime};

/// The registry with this gateway's replica.
type Registry = ClusterRegistry<EtcdChannel, RuntimeTimers, SqliteReplica>;

/// Pause before another attempt while a gateway starts.
const RETRY: Duration = Duration::from_millis(300);
/// How long a call waits for a block of its quota.
const QUOTA_WITHIN: Duration = Duration::from_secs(2);
/// When such a call may be repeated.
const QUOTA_RETRY: Duration = Duration::from_secs(1);
/// How often what other gateways have issued is read if no watch wakes.
const TOKENS_EACH: Duration = Duration::from_secs(5);
/// How often what is over is removed from etcd.
const TIDY_EACH: Duration = Duration::from_secs(600);
/// How long the quotas' rest may take to be given back at the end.
const RELEASE_WITHIN: Duration = Duration::from_secs(2);
/// Days of quotas that stay in etcd: a gateway's clock may be behind.
const KEPT_DAYS: i64 = 2;

/// The part that a gateway takes in a cluster.
pub(super) struct Cluster {
    settings: ClusterSettings,
    etcd: EtcdAccess,
    members: Arc<Members>,
    /// This start of the gateway, as the holder of quotas and the issuer of tokens.
    holder: Incarnation,
    quotas: QuotaBlocks<EtcdChannel, RuntimeTimers>,
    /// The latest day of any call: a clock that is set back does not begin an earlier one again.
    latest_day: AtomicI64,
    secrets: Arc<EtcdSecrets>,
    /// What this gateway says of itself.
    report: Mutex<GatewayReport>,
    /// Wakes the task that puts it.
    reports: tokio::sync::Notify,
    /// What was read last of all gateways.
    last_status: status::LastStatus,
    replica: Mutex<Option<Arc<Registry>>>,
    /// Why the registry cannot be followed, if it cannot.
    fault: Mutex<Option<String>>,
    freshness: Mutex<Option<Arc<Freshness<RuntimeTimers>>>>,
    tasks: Handle,
    runtime: Mutex<Option<Runtime>>,
}

/// Connects to the members of etcd; requests are sent on the present runtime.
///
/// # Errors
/// [`StartError::Cluster`] if a URL is none.
pub fn connect(settings: &ClusterSettings) -> Result<Members, StartError> {
    Ok(Members::new(access(settings)?.channels(), RuntimeTimers::default(), None))
}

fn access(settings: &ClusterSettings) -> Result<EtcdAccess, StartError> {
    let access = EtcdAccess::new(&settings.etcd, settings.tls.clone());
    access.map_err(|error| StartError::Cluster(error.to_string()))
}

impl Cluster {
    /// Connects, and fetches the log's key if this gateway does not have it yet.
    pub(super) fn join(settings: &ClusterSettings, config: &Config) -> Result<Arc<Self>, StartError> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("cluster").enable_all().build();
        let runtime = runtime.map_err(|error| StartError::Thread(error.to_string()))?;
        let tasks = runtime.handle().clone();
        let etcd = access(settings)?;
        let channels = {
            let _here = tasks.enter();
            etcd.channels()
        };
        let members = Arc::new(Members::new(channels, RuntimeTimers::default(), None));
        let holder = Incarnation { gateway: settings.gateway.clone(), number: fastrand::u64(..) };
        let gateways = settings.sites as u64;
        let cluster = Arc::new(Cluster {
            settings: settings.clone(),
            etcd,
            quotas: QuotaBlocks::new(members.clone(), holder.clone(), gateways),
            holder,
            latest_day: AtomicI64::new(i64::MIN),
            secrets: Arc::new(EtcdSecrets::new(members.clone(), config.vault.clone(), tasks.clone())),
            members,
            report: Mutex::new(GatewayReport {
                gateway: settings.gateway.to_string(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..GatewayReport::default()
            }),
            reports: tokio::sync::Notify::new(),
            last_status: status::LastStatus::default(),
            replica: Mutex::default(),
            fault: Mutex::default(),
            freshness: Mutex::default(),
            tasks,
            runtime: Mutex::new(Some(runtime)),
        });
        cluster.fetch_log_key(&config.data, &config.vault)?;
        Ok(cluster)
    }

    /// Returns where it shares private keys with the other gateways.
    pub(super) fn secrets(&self) -> Arc<dyn SharedSecrets> {
        self.secrets.clone()
    }

    /// The log's key is the same at every gateway: a new one gets it here.
    fn fetch_log_key(&self, data: &Path, vault: &Vault) -> Result<(), StartError> {
        let path = key::path(data);
        let unusable = |error: std::io::Error| LogKeyError::Unusable(path.clone(), error.to_string());
        let secret = self.in_time(|| self.secrets.get(LOG_KEY))?;
        let Some(secret) = secret else { return Err(StartError::Cluster(ClusterError::NoLog.to_string())) };
        match vault.read(&path) {
            Ok(own) if own == secret => Ok(()),
            Ok(_) => Err(unusable(std::io::Error::other("is not the key of this cluster's log")).into()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                tracing::info!("the exchange log's key was fetched from the other gateways");
                Ok(vault.write(&path, &secret).map_err(unusable)?)
            }
            Err(error) => Err(unusable(error).into()),
        }
    }

    /// Repeats what a start needs while etcd does not respond.
    fn in_time<V>(&self, attempt: impl Fn() -> std::io::Result<V>) -> Result<V, StartError> {
        let until = Instant::now() + self.settings.start_within;
        loop {
            match attempt() {
                Err(error) if error.kind() == ErrorKind::TimedOut && Instant::now() < until => {
                    tracing::info!(%error, "the gateway waits for etcd");
                    std::thread::sleep(RETRY);
                }
                done => return done.map_err(|error| self.start_error(&error)),
            }
        }
    }

    /// The reason of a start that failed, with why members cannot be reached.
    fn start_error(&self, error: &std::io::Error) -> StartError {
        let reasons = std::iter::once(error.to_string()).chain(self.etcd.faults()).collect::<Vec<_>>();
        StartError::Cluster(reasons.join("; "))
    }

    /// Opens this gateway's part of the log.
    pub(super) fn open_log(&self, data: &Path, signer: LogSigner) -> Result<ExchangeLog, LogError> {
        let settings = ClusterLogSettings {
            others: other_sites(&self.settings)?,
            sites: self.settings.sites,
            quota: self.settings.etcd_quota,
            refuse_after: self.settings.refuse_after,
            start_within: self.settings.start_within,
            own_disk_bytes: self.settings.own_disk,
            ..ClusterLogSettings::new(self.settings.gateway.clone(), self.etcd.clone())
        };
        cluster_log::open(data, signer, settings)
    }

    /// Makes the registry's file a replica, brings it up to date, and follows from then on. Returns the store whose changes
    /// count at every gateway.
    pub(super) fn replicate(self: &Arc<Self>, store: &SqliteStore, node: &str) -> Result<SqliteStore, StartError> {
        let (replica, node) = (SqliteReplica::open(store)?, node.to_owned());
        let entry = move |event: &_| admin_events::entry(event, &node).to_bytes();
        let settings = RegistrySettings { max_age: self.settings.max_view_age, ..RegistrySettings::default() };
        let registry = Arc::new(Registry::new(self.members.clone(), replica, Arc::new(entry), settings));
        let issued = Arc::new(IssuedTokens::new(self.members.clone(), self.holder.clone()));
        self.in_time(|| {
            let registry = registry.clone();
            self.secrets.wait(async move { registry.refresh().await.map(drop) })
        })?;
        *locked(&self.freshness) = Some(registry.freshness().clone());
        *locked(&self.replica) = Some(registry.clone());
        self.tasks.spawn(self.clone().follow(registry.clone()));
        self.tasks.spawn(self.clone().follow_tokens(registry.clone(), issued.clone()));
        let commits = BlockingCommits::new(registry, issued, self.tasks.clone());
        Ok(store.replicated(Arc::new(commits))?)
    }

    async fn follow(self: Arc<Self>, registry: Arc<Registry>) {
        let told = |outcome: Result<(), &ClusterError>| {
            let fault = outcome.err().map(|error| format!("the registry cannot be read from etcd: {error}"));
            *locked(&self.fault) = fault;
        };
        let error = registry.run(told).await;
        tracing::error!(%error, "this gateway does not follow the registry any more");
        *locked(&self.fault) = Some(format!("the registry is not followed any more: {error}"));
    }

    /// Reads what other gateways have issued, and removes what is over.
    async fn follow_tokens(
        self: Arc<Self>,
        registry: Arc<Registry>,
        issued: Arc<IssuedTokens<EtcdChannel, RuntimeTimers>>,
    ) {
        let mut tidied: Option<Instant> = None;
        loop {
            let read = issued.refresh(registry.replica()).await;
            if let Err(error) = &read {
                tracing::warn!(%error, "tokens that other gateways have issued are not listed here yet");
            }
            if tidied.is_none_or(|tidied| tidied.elapsed() > TIDY_EACH) {
                tidied = Some(Instant::now());
                let before = u64::try_from(day(now()) - KEPT_DAYS).unwrap_or_default();
                let tidy = async {
                    self.quotas.remove_before(before).await?;
                    while issued.remove_ended(now() - crate::registry::MAX_SKEW_S).await? > 0 {}
                    Ok::<_, ClusterError>(())
                };
                if let Err(error) = tidy.await {
                    tracing::warn!(%error, "what is over is not removed from etcd yet");
                }
            }
            match read {
                Ok(revision) => issued.wait(revision, TOKENS_EACH).await,
                Err(_) => tokio::time::sleep(TOKENS_EACH).await,
            }
        }
    }

    /// Returns how far the replica is; `None` if it cannot be read.
    pub(super) fn position(&self) -> Option<ReplicaPosition> {
        let registry = locked(&self.replica).clone()?;
        registry.replica().position().ok().flatten()
    }

    /// Notes that calls see the replica as it was at a position, or later.
    pub(super) fn note_in_force(&self, position: Option<&ReplicaPosition>) {
        if let Some(position) = position
            && locked(&self.report).applies(position.number, position.events, now_us())
        {
            self.reports.notify_one();
        }
    }

    /// Returns what this gateway says of itself now.
    fn own_report(&self, log: &ExchangeLog) -> GatewayReport {
        let mut report = locked(&self.report);
        report.time_us = now_us();
        report.stored = *log.watch_sealed().borrow();
        report.view_age_ms = self.view_age().map_or(u64::MAX, |age| age.as_millis() as u64);
        report.stopped = log.health().stopped.map(str::to_owned);
        report.clone()
    }

    /// Says in etcd how far this gateway is, each few seconds and with each change of the registry.
    pub(super) fn report(self: &Arc<Self>, log: ExchangeLog) {
        let cluster = self.clone();
        self.tasks.spawn(async move {
            loop {
                let report = cluster.own_report(&log);
                if let Err(error) = report::put(&cluster.members, &cluster.settings.gateway, &report).await {
                    tracing::debug!(%error, "this gateway's report is not in etcd");
                }
                let _ = tokio::time::timeout(REPORT_EACH, cluster.reports.notified()).await;
            }
        });
    }

    /// Has this gateway's part of each grant's rate follow the calls.
    pub(super) fn share_rates(self: &Arc<Self>, limits: Arc<GrantLimits>) {
        let cluster = self.clone();
        self.tasks.spawn(async move {
            loop {
                let began = Instant::now();
                tokio::time::sleep(SHARE_EACH).await;
                let seconds = began.elapsed().as_secs_f64();
                let demand = limits.demand().into_iter().map(|(grant, calls)| (grant, f64::from(calls) / seconds));
                let own = RateDemand::of(now_us(), demand.collect());
                match rates::exchange(&cluster.members, &cluster.settings.gateway, &own).await {
                    Ok(others) => limits.set_parts(&rates::parts(&own, &others, cluster.settings.sites)),
                    Err(error) => tracing::debug!(%error, "rates are not shared now: parts stay as they are"),
                }
            }
        });
    }

    /// Returns whether the registry as it is now may not be known here.
    pub(super) fn is_outdated(&self) -> bool {
        locked(&self.freshness).as_ref().is_none_or(|freshness| freshness.is_stale())
    }

    /// Returns how old the view of the registry is at most.
    pub(super) fn view_age(&self) -> Option<Duration> {
        locked(&self.freshness).as_ref().and_then(|freshness| freshness.age())
    }

    /// Returns why the registry cannot be followed now.
    pub(super) fn fault(&self) -> Option<String> {
        let age = self.view_age()?;
        let fault = locked(&self.fault).clone()?;
        let age = age.as_secs();
        Some(match self.is_outdated() {
            true => format!("{fault}; what is known of it is {age} s old: calls are refused"),
            false => format!("{fault}; what is known of it is {age} s old"),
        })
    }

    /// Takes one call from the quota that all gateways share.
    ///
    /// # Errors
    /// QUOTA_EXCEEDED; REGISTRY_UNAVAILABLE if another block is needed and etcd does not respond.
    pub(super) async fn take_quota(&self, grant: &GrantView, left: Remaining, now: i64) -> Result<Remaining, Refusal> {
        let today = self.latest_day.fetch_max(day(now), Ordering::Relaxed).max(day(now));
        let of = GrantDay { day: u64::try_from(today).unwrap_or_default(), grant: grant.id.to_string() };
        let quota = grant.daily_quota;
        while !self.quotas.consume(&of) {
            let unavailable = || Refusal::retry(Reason::RegistryUnavailable, QUOTA_RETRY);
            match tokio::time::timeout(QUOTA_WITHIN, self.quotas.refill(&of, quota)).await {
                Ok(Ok(0)) => return Err(quota_exceeded(quota, today, now)),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "no block of a quota is had");
                    return Err(unavailable());
                }
                Err(_) => return Err(unavailable()),
            }
        }
        Ok(Remaining { quota: Some(self.quotas.remaining(&of, quota)), ..left })
    }

    /// Gives back what it holds, and ends its tasks.
    pub(super) fn leave(&self) {
        let Some(runtime) = locked(&self.runtime).take() else { return };
        let held = self.quotas.held_days();
        let release = async {
            for day in held {
                // What is not given back is lost for the day.
                let _ = self.quotas.release(&day).await;
            }
        };
        let _ = std::thread::scope(|scope| {
            let ends = scope.spawn(|| {
                let _ = runtime.block_on(async { tokio::time::timeout(RELEASE_WITHIN, release).await });
                runtime.shutdown_background();
            });
            ends.join()
        });
    }
}

/// Returns the readers of other sites' tiles.
///
/// # Errors
/// [`LogError::Unavailable`] if the system gives no more descriptors.
pub fn other_sites(settings: &ClusterSettings) -> Result<Vec<OtherSite>, LogError> {
    let site = |url: &String| {
        let files = RemoteLogFiles::new(url, settings.tiles_tls.clone());
        files.map(|files| Arc::new(files) as OtherSite).map_err(|error| LogError::Unavailable(error.to_string()))
    };
    settings.tiles.iter().map(site).collect()
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
