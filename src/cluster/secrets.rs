//! Private keys that all gateways share: each is created once, sealed by its gateway before it comes here.
//!
//! | key | value |
//! | --- | --- |
//! | `secret/<name>` | a sealed key: `log`, `signing/<kid>`, `pseudonyms/<period>` |

use super::ClusterError;
use super::collect::pages;
use super::member::{EtcdMember, RangeRead, Txn, TxnCondition, TxnOperation};
use super::members::EtcdMembers;
use super::timers::Timers;

/// Before all names.
const SECRETS: &[u8] = b"secret/";
/// Secrets of a page: a key is some hundred bytes.
const PAGE: i64 = 500;

fn key(name: &str) -> Vec<u8> {
    [SECRETS, name.as_bytes()].concat()
}

/// Puts a sealed secret, unless there is one of this name; returns the one that is there.
///
/// # Errors
/// As for [`EtcdMembers::settle`]: a repetition with whatever bytes is safe.
pub async fn agree<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    name: &str,
    sealed: Vec<u8>,
) -> Result<Vec<u8>, ClusterError> {
    let key = key(name);
    let txn = Txn {
        conditions: vec![TxnCondition::CreatedAt(key.clone(), 0)],
        then: vec![TxnOperation::Put(key.clone(), sealed.clone(), 0)],
        otherwise: vec![TxnOperation::Get(key.clone())],
    };
    let outcome = members.settle(&txn).await?;
    if outcome.succeeded {
        return Ok(sealed);
    }
    let there = outcome.found.into_iter().flatten().next().map(|there| there.value);
    there.ok_or_else(|| ClusterError::malformed(String::from_utf8_lossy(&key), "the response lacks what is there"))
}

/// Returns the sealed secret of a name, if there is one.
///
/// # Errors
/// As for [`EtcdMembers::range`].
pub async fn get<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    name: &str,
) -> Result<Option<Vec<u8>>, ClusterError> {
    let page = members.range(&RangeRead::key(&key(name))).await?;
    Ok(page.entries.into_iter().next().map(|entry| entry.value))
}

/// Returns the names below a prefix, `pseudonyms/` for example.
///
/// # Errors
/// As for [`EtcdMembers::range`].
pub async fn names<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    prefix: &str,
) -> Result<Vec<String>, ClusterError> {
    let read = RangeRead { limit: PAGE, keys_only: true, ..RangeRead::prefix(&key(prefix)) };
    let name = |key: &[u8]| key.strip_prefix(SECRETS).and_then(|name| String::from_utf8(name.to_vec()).ok());
    Ok(pages(members, read).await?.iter().filter_map(|entry| name(&entry.key)).collect())
}
