//! When clients, grants and tokens were used last, by the log.

use super::api;
use super::messages::{invalid, refused};
use crate::audit::AuditError;
use crate::audit::index::SearchIndex;
use crate::audit::last_use::{LastUse, LastUses};
use crate::exchange_log::{LogOpener, clock};
use crate::status::{Reason, Refusal};
use crate::time_zone::DAY_S;
use std::time::{Duration, Instant};
use tonic::Status;

/// How far back is looked: a right that nobody has used for so long needs a decision.
const PERIOD_DAYS: u32 = 90;
/// Maximum number of objects of a request.
const MAX_OBJECTS: usize = 1_000;
/// Longest time that a call looks.
const PATIENCE: Duration = Duration::from_millis(10);

/// The log cannot be read; the details are for those who run the gateway.
pub(super) fn unread(error: &AuditError) -> Status {
    tracing::error!(%error, "the exchange log cannot be read for an administrator");
    refused(Refusal::with(Reason::ExchangeLogUnavailable, "it cannot be read: see the gateway's own log"))
}

/// Lists the last use of each object, as far as it is found out.
pub(super) fn list(
    opener: &LogOpener,
    uses: &LastUses,
    api::ListLastUseRequest { objects }: api::ListLastUseRequest,
) -> Result<api::ListLastUseResponse, Status> {
    if objects.len() > MAX_OBJECTS {
        return Err(invalid("objects", "must be at most 1,000", "tối đa 1.000 đối tượng"));
    }
    let from_us = clock::now_us() - i64::from(PERIOD_DAYS) * DAY_S * 1_000_000;
    let found = || {
        let (reader, index) = (opener.open()?, SearchIndex::of_log(opener));
        uses.of((&reader, index.as_ref()), &objects, from_us, Instant::now() + PATIENCE)
    };
    let found = found().map_err(|error| unread(&error))?;
    let message = |(object, found): (&String, LastUse)| {
        let time = match found {
            LastUse::At(time_us) => time_us.div_euclid(1_000_000),
            LastUse::Never => 0,
            LastUse::Unknown => return None,
        };
        Some(api::LastUse { object: object.clone(), time })
    };
    let uses = objects.iter().zip(found).filter_map(message).collect();
    Ok(api::ListLastUseResponse { uses, period_days: PERIOD_DAYS })
}
