//! The last use of clients and grants, for listings: `--unused 90d`.

use super::CliError;
use super::output::bar;
use super::session::Session;
use crate::admin::api;
use crate::registry::now;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Objects of one request.
const AT_ONCE: usize = 1_000;
/// How often the gateway is asked about the same objects: it looks for 50 ms each time, and goes on from there.
const MAX_REQUESTS: usize = 2_000;
/// The same, where somebody waits at a terminal.
const QUICK_REQUESTS: usize = 40;

/// Returns the objects (`client:ID`, `grant:ID`) that were not used for so long.
///
/// # Errors
/// The time is longer than the log is looked through (90 days), or not everything is found out in about two minutes.
pub fn unused(session: &Session, objects: &[String], for_long: Duration) -> Result<HashSet<String>, CliError> {
    let progress = bar("looking up last uses {bar:40} {pos}/{len}")?;
    progress.set_length(objects.len() as u64);
    let mut uses = HashMap::new();
    for some in objects.chunks(AT_ONCE) {
        of(session, some, for_long, &mut uses)?;
        progress.inc(some.len() as u64);
    }
    progress.finish_and_clear();
    let since = now() - i64::try_from(for_long.as_secs()).unwrap_or(i64::MAX / 2);
    Ok(uses.into_iter().filter(|(_, time)| *time < since).map(|(object, _)| object).collect())
}

/// Returns when an object was last used within the last 90 days; 0 for never, `None` if that takes longer than some two seconds.
pub fn last(session: &Session, object: &str) -> Result<Option<i64>, CliError> {
    for _ in 0..QUICK_REQUESTS {
        let request = api::ListLastUseRequest { objects: vec![object.to_owned()] };
        let found = session.read(session.admin().list_last_use(request))?.uses;
        if let Some(one) = found.first() {
            return Ok(Some(one.time));
        }
    }
    Ok(None)
}

/// Adds when each of some objects was used last; 0 for never.
fn of(
    session: &Session,
    objects: &[String],
    for_long: Duration,
    uses: &mut HashMap<String, i64>,
) -> Result<(), CliError> {
    for _ in 0..MAX_REQUESTS {
        let open: Vec<String> = objects.iter().filter(|object| !uses.contains_key(*object)).cloned().collect();
        if open.is_empty() {
            return Ok(());
        }
        let request = api::ListLastUseRequest { objects: open };
        let found = session.read(session.admin().list_last_use(request))?;
        if for_long > Duration::from_secs(u64::from(found.period_days) * 86_400) {
            let days = found.period_days;
            return Err(CliError::Usage(format!(
                "--unused: the log is looked through for {days} days: at most {days}d"
            )));
        }
        uses.extend(found.uses.into_iter().map(|one| (one.object, one.time)));
    }
    Err(CliError::Failed("the last uses are not found out yet: try again".to_owned()))
}
