//! The registry on its way: waiting admin events into the log, rows and tokens into etcd, the replica up to date.

use super::{MigratingGateway, MigrationError};
use crate::access::used_quotas;
use crate::audit::scan::LastEvent;
use crate::cluster::Incarnation;
use crate::cluster::registry::quota::{self, GrantDay};
use crate::cluster::registry::{ClusterRegistry, IssuedTokens, RegistryImport, RegistrySettings};
use crate::exchange_log::journal::Journal;
use crate::exchange_log::{Pipeline, clock};
use crate::registry::sqlite::{ADOPT_EVENT, SqliteReplica};
use crate::registry::usage::{self, DayUsage, UsageStore};
use crate::registry::{AdminEvent, LoggedEvent, Page, RegistryError, Store, now};
use crate::time_zone::day;

/// The replica's state before etcd has the registry: no engine takes it for a position.
const PREPARED: &[u8] = b"";
/// Rows that are read at once.
const ROWS: usize = 500;
/// Tokens of a batch: 200 kB at most.
const TOKENS: usize = 200;
/// How often the registry is changed by others while it is prepared, before somebody is told.
const MAX_ATTEMPTS: usize = 10;

impl MigratingGateway<'_> {
    /// Logs the admin events that wait, and marks the registry's file as a replica: nothing changes it from then on.
    pub(super) fn prepare_registry(&self, pipeline: &Pipeline, journal: &mut Journal) -> Result<(), MigrationError> {
        for _ in 0..MAX_ATTEMPTS {
            self.log_waiting_events(pipeline, journal)?;
            if self.store.make_replica(0, PREPARED)? {
                return Ok(());
            }
        }
        Err(MigrationError::Refused("the registry is changed all the time: let nobody work on it meanwhile".into()))
    }

    fn log_waiting_events(&self, pipeline: &Pipeline, journal: &mut Journal) -> Result<(), MigrationError> {
        // It may be in the log, and not removed from the file yet.
        let last = LastEvent::find(self.data, self.store.key(), || true)?.unwrap_or_default();
        self.store.note_events_after(last.sequence)?;
        self.store.forget_event(&last.id)?;
        let mut seen = last.sequence;
        loop {
            let rows = self.store.logged_events(0)?;
            if rows.is_empty() {
                return Ok(());
            }
            for row in rows {
                let event = next_event(row, seen)?;
                pipeline.write(journal, vec![(self.entry)(&event)])?;
                seen = event.sequence;
                self.store.forget_event(&event.id)?;
            }
        }
    }

    /// Puts rows, then issued tokens, then the head; and takes its position. `number` names the import, and the change that it
    /// is is at least the second one.
    pub(super) async fn put_registry(
        &self,
        (number, change): (u64, u64),
        since: i64,
        progress: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), MigrationError> {
        let import = RegistryImport::prepare(&self.members, number, change).await?;
        if !import.is_begun() {
            let (mut after, mut count) = (None, 0);
            loop {
                let rows = self.store.shared_rows(after.as_ref(), ROWS)?;
                import.put(&rows, after.is_none()).await?;
                count += rows.len();
                let Some(last) = rows.last().filter(|_| rows.len() == ROWS) else { break };
                after = Some(last.key.clone());
                progress(&format!("registry: {count} rows are in etcd"));
            }
            progress(&format!("registry: {count} rows are in etcd"));
            self.put_tokens(number, since, progress).await?;
        }
        let position = import.begin(self.store.last_event()?).await?;
        match self.store.make_replica(position.number, &position.state)? {
            true => Ok(()),
            false => {
                Err(MigrationError::Refused("admin events wait in the registry's file, which is a replica".into()))
            }
        }
    }

    /// Puts the records of tokens that were in force at a time, newest first: the same ones at each repetition.
    async fn put_tokens(
        &self,
        number: u64,
        since: i64,
        progress: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), MigrationError> {
        let holder = Incarnation { gateway: self.gateway.clone(), number };
        let issued = IssuedTokens::new(self.members.clone(), holder);
        let (mut after, mut count) = (String::new(), 0);
        loop {
            let page = self.store.tokens(None, Page { after: &after, max: TOKENS, ..Page::ALL })?;
            let in_force: Vec<_> = page.iter().filter(|token| token.expires > since).cloned().collect();
            if !in_force.is_empty() {
                issued.put(&in_force).await?;
                count += in_force.len();
            }
            if page.next.is_empty() {
                progress(&format!("tokens: the records of {count} are in etcd"));
                return Ok(());
            }
            after.clone_from(&page.next);
        }
    }

    /// Brings along what was used of today's quotas.
    pub(super) async fn put_quotas(&self, progress: &mut (dyn FnMut(&str) + Send)) -> Result<(), MigrationError> {
        let today = day(now());
        let used = used_quotas::used::<MigrationError>(&self.usage()?, self.data)?;
        let mut count = 0;
        for DayUsage { grant, used, .. } in used.into_iter().filter(|one| one.day == today) {
            match self.store.grant(&grant) {
                Ok(has) if has.daily_quota > 0 => {
                    quota::raise_total(&self.members, &GrantDay { day: today.unsigned_abs(), grant }, used).await?;
                    count += 1;
                }
                Ok(_) | Err(RegistryError::Unknown(..)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        progress(&format!("quotas: what was used today is in etcd, {count} counts"));
        Ok(())
    }

    /// Takes along what all gateways have used of today's quotas.
    pub(super) async fn take_quotas(&self) -> Result<(), MigrationError> {
        let today = day(now());
        let totals = quota::totals(&self.members, today.unsigned_abs()).await?;
        let used: Vec<_> = totals.into_iter().map(|(grant, used)| DayUsage { grant, day: today, used }).collect();
        Ok(self.usage()?.save(&used, clock::now_us())?)
    }

    fn usage(&self) -> Result<UsageStore, MigrationError> {
        Ok(UsageStore::open(&self.data.join(usage::FILE), self.store.key().clone())?)
    }

    /// Brings the replica up to date, with the tokens that others have issued.
    pub(super) async fn refresh_registry(&self) -> Result<(), MigrationError> {
        let replica = SqliteReplica::open(self.store)?;
        let (members, settings) = (self.members.clone(), RegistrySettings::default());
        let registry = ClusterRegistry::new(members, replica, self.entry.clone(), settings);
        registry.refresh().await?;
        let reader = Incarnation { gateway: self.gateway.clone(), number: fastrand::u64(..) };
        IssuedTokens::new(self.members.clone(), reader).refresh(registry.replica()).await?;
        Ok(())
    }
}

/// The event of the next row, if this gateway has recorded it and none is missing before it.
fn next_event(row: LoggedEvent, seen: u64) -> Result<AdminEvent, MigrationError> {
    let sequence = row.sequence();
    match row {
        LoggedEvent::Authentic(event) if event.event != ADOPT_EVENT && (seen == 0 || sequence == seen + 1) => Ok(event),
        _ => Err(MigrationError::Refused(format!(
            "admin event {sequence} in the registry's file needs its gateway: start it, look at its alarms \
             (audit verify --registry), and stop it again"
        ))),
    }
}
