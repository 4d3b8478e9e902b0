//! Rates of grants over all gateways together: each gateway says each second how many calls came to it, and has that part of
//! a grant's rate that its part of all these calls is.
//!
//! | key | value |
//! | --- | --- |
//! | `rate/<gateway>` | the time of the gateway's clock, and of each busy grant the calls a second, as JSON |
//!
//! A gateway without calls has a small part in reserve ([`RESERVE`]), so that a system that moves to it is served while the
//! parts follow. Rates are no rights: what is old or missing only makes parts uneven, and no call waits for them. Together
//! the gateways permit at most `1 + RESERVE` times a rate, once parts have followed, in two seconds or three.
//!
//! Bound: [`MAX_BUSY`] grants of a gateway, the busiest ones; all others have equal parts.

use crate::cluster::ClusterError;
use crate::cluster::keys::GatewayName;
use crate::cluster::member::{EtcdMember, RangeRead, Txn, TxnOperation};
use crate::cluster::members::EtcdMembers;
use crate::cluster::timers::Timers;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// How often gateways say how many calls came to them.
pub const SHARE_EACH: Duration = Duration::from_secs(1);
/// The part of a rate that all gateways without calls have together.
pub const RESERVE: f64 = 0.05;
/// Maximum number of grants that a gateway names.
pub const MAX_BUSY: usize = 1_000;
/// What a gateway said is of no use after this time; its clock may be off by a part of it.
const OLD_US: i64 = 10_000_000;
/// Before all of them.
const RATES: &[u8] = b"rate/";

/// The calls that came to a gateway.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RateDemand {
    /// When, Unix time in microseconds by its own clock.
    pub time_us: i64,
    /// Calls a second of each grant, those that were refused included.
    pub calls: BTreeMap<String, f64>,
}

impl RateDemand {
    /// Leaves the busiest grants.
    pub fn of(time_us: i64, mut calls: Vec<(String, f64)>) -> Self {
        calls.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        calls.truncate(MAX_BUSY);
        RateDemand { time_us, calls: calls.into_iter().collect() }
    }
}

/// Returns the part of each grant's rate that a gateway has, by the calls that came to it and to the others; every grant that is
/// not named has an equal part.
pub fn parts(own: &RateDemand, others: &[RateDemand], gateways: usize) -> HashMap<String, f64> {
    let current = |other: &&RateDemand| (own.time_us - other.time_us).abs() < OLD_US;
    let mut elsewhere: BTreeMap<&str, f64> = BTreeMap::new();
    for (grant, calls) in others.iter().filter(current).flat_map(|other| &other.calls) {
        *elsewhere.entry(grant).or_default() += calls.max(0.0);
    }
    let names = own.calls.keys().map(String::as_str).chain(elsewhere.keys().copied());
    let part = |grant: &str| {
        let here = own.calls.get(grant).copied().unwrap_or_default().max(0.0);
        let all = here + elsewhere.get(grant).copied().unwrap_or_default();
        let reserve = RESERVE / gateways.max(1) as f64;
        if all > 0.0 { (here / all).max(reserve) } else { 1.0 / gateways.max(1) as f64 }
    };
    names.map(|grant| (grant.to_owned(), part(grant))).collect()
}

/// Says how many calls came to this gateway, and returns what the others say.
///
/// # Errors
/// As for [`EtcdMembers::settle`].
pub async fn exchange<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    gateway: &GatewayName,
    own: &RateDemand,
) -> Result<Vec<RateDemand>, ClusterError> {
    let key = [RATES, gateway.to_string().as_bytes()].concat();
    let wrong = |error: serde_json::Error| ClusterError::malformed("rate/", error.to_string());
    let value = serde_json::to_vec(own).map_err(wrong)?;
    let then = vec![TxnOperation::Put(key.clone(), value, 0)];
    members.settle(&Txn { then, ..Txn::default() }).await?;
    let page = members.range(&RangeRead::prefix(RATES)).await?;
    let others = page.entries.iter().filter(|entry| entry.key != key);
    Ok(others.filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn demand(time_us: i64, calls: &[(&str, f64)]) -> RateDemand {
        RateDemand::of(time_us, calls.iter().map(|(grant, calls)| ((*grant).to_owned(), *calls)).collect())
    }

    #[test]
    fn parts_are_as_the_calls_are_and_make_one_rate_together() {
        let all = [demand(0, &[("g", 300.0)]), demand(1_000_000, &[("g", 100.0)]), demand(0, &[("h", 5.0)])];
        let parts = |at: usize| {
            let others: Vec<RateDemand> =
                all.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, one)| one.clone()).collect();
            parts(&all[at], &others, 3)
        };
        assert_eq!((parts(0)["g"], parts(1)["g"], parts(2)["h"]), (0.75, 0.25, 1.0));
        assert!(parts(2)["g"] <= RESERVE, "a system that moves there is served a little at once");
        let sum: f64 = (0..3).map(|at| parts(at)["g"]).sum();
        assert!(sum <= 1.0 + RESERVE, "{sum}");
    }

    #[test]
    fn what_is_old_counts_for_nothing_and_only_the_busiest_are_named() {
        let own = demand(60_000_000, &[("g", 10.0)]);
        assert_eq!(parts(&own, &[demand(0, &[("g", 90.0)])], 3)["g"], 1.0);
        let many: Vec<(String, f64)> = (0..5_000).map(|number| (format!("g{number}"), f64::from(number))).collect();
        let busiest = RateDemand::of(0, many);
        assert_eq!((busiest.calls.len(), busiest.calls.contains_key("g4999")), (MAX_BUSY, true));
    }
}
