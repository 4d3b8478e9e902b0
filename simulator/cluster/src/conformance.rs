//! The contract of `EtcdMember`, as a suite: the same cases run against the simulated members and against real ones. Each
//! has its own keys, so that they share one cluster.

use crate::cluster::member::{EtcdMember, RangeRead, Txn, TxnCondition, TxnOperation, TxnOutcome};
use crate::cluster::{ClusterError, Timers, keys, version};
use std::time::Duration;

type Verdict = Result<(), String>;

/// Runs all cases over the members of one cluster; returns their names.
///
/// # Errors
/// The first case that fails, with the reason.
pub async fn run<M: EtcdMember, T: Timers>(members: &[M], timers: &T) -> Result<Vec<&'static str>, String> {
    let mut passed = Vec::new();
    macro_rules! case {
        ($case:ident) => {
            let name = stringify!($case);
            let limit = Duration::from_secs(30);
            let verdict = timers.within(limit, async { Ok($case(members, timers).await) }).await;
            verdict.map_err(|error| format!("{name}: {error}"))?.map_err(|reason| format!("{name}: {reason}"))?;
            passed.push(name);
        };
    }
    case!(a_key_is_created_once);
    case!(an_effect_is_seen_at_every_member_at_once);
    case!(a_value_is_compared_byte_by_byte);
    case!(no_value_of_an_absent_key_is_below_anything);
    case!(a_range_is_empty_until_something_is_put_there_and_once_all_is_deleted);
    case!(a_failed_transaction_has_no_revision);
    case!(each_put_has_a_revision_of_its_own);
    case!(all_of_a_transaction_has_one_revision);
    case!(a_range_is_read_by_pages_at_its_revision);
    case!(large_batches_are_read_by_pages);
    case!(a_range_of_keys_is_deleted_at_once);
    case!(a_revision_in_the_future_is_an_error);
    case!(a_compacted_revision_is_an_error);
    case!(a_lease_takes_its_keys_along);
    case!(a_lease_that_is_kept_alive_stays);
    case!(a_put_under_an_ended_lease_is_an_error);
    case!(a_watch_wakes_for_its_prefix);
    case!(members_agree_on_their_data);
    Ok(passed)
}

fn put(key: &[u8], value: &[u8]) -> TxnOperation {
    TxnOperation::Put(key.to_vec(), value.to_vec(), 0)
}

async fn transact<M: EtcdMember>(member: &M, txn: Txn) -> Result<TxnOutcome, String> {
    member.transact(&txn).await.map_err(|error| error.to_string())
}

async fn put_all<M: EtcdMember>(member: &M, puts: &[(&[u8], &[u8])]) -> Result<i64, String> {
    let then = puts.iter().map(|(key, value)| put(key, value)).collect();
    Ok(transact(member, Txn { then, ..Txn::default() }).await?.header.revision)
}

async fn value<M: EtcdMember>(member: &M, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let page = member.range(&RangeRead::key(key)).await.map_err(|error| error.to_string())?;
    Ok(page.entries.into_iter().next().map(|entry| entry.value))
}

fn expect(holds: bool, what: &str) -> Verdict {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

async fn a_key_is_created_once<M: EtcdMember, T: Timers>(members: &[M], _: &T) -> Verdict {
    let key = b"case/once".to_vec();
    let txn = |value: &[u8]| Txn {
        conditions: vec![TxnCondition::CreatedAt(key.clone(), 0)],
        then: vec![put(&key, value)],
        otherwise: vec![TxnOperation::Get(key.clone()), TxnOperation::Get(b"case/absent".to_vec())],
    };
    let first = transact(&members[0], txn(b"one")).await?;
    expect(first.succeeded && first.found.is_empty(), "the first one creates it")?;
    let second = transact(&members[1], txn(b"two")).await?;
    let [Some(there), None] = second.found.as_slice() else { return Err(format!("{:?}", second.found)) };
    expect(!second.succeeded && there.value == b"one", "the second one finds the first one's value")?;
    expect(there.created == first.header.revision && there.modified == there.created, "its revision is the first one's")
}

async fn an_effect_is_seen_at_every_member_at_once<M: EtcdMember, T: Timers>(members: &[M], _: &T) -> Verdict {
    for round in 0u8..20 {
        put_all(&members[usize::from(round) % members.len()], &[(b"case/seen", &[round])]).await?;
        for member in members {
            expect(value(member, b"case/seen").await? == Some(vec![round]), "a member returns an older value")?;
        }
    }
    Ok(())
}

async fn a_value_is_compared_byte_by_byte<M: EtcdMember, T: Timers>(members: &[M], _: &T) -> Verdict {
    let mark = b"case/mark".to_vec();
    put_all(&members[0], &[(&mark, &keys::number(0x1f))]).await?;
    for (seq, is_newer) in [(0x1e, false), (0x1f, false), (0x20, true), (0x100, true), (u64::MAX, true), (0, false)] {
        let conditions = vec![TxnCondition::ValueBelow(mark.clone(), keys::number(seq))];
        let outcome = transact(&members[1], Txn { conditions, ..Txn::default() }).await?;
        expect(outcome.succeeded == is_newer, &format!("{seq:x} against the mark 1f"))?;
    }
    Ok(())
}

async fn no_value_of_an_absent_key_is_below_anything<M: EtcdMember, T: Timers>(members: &[M], _: &T) -> Verdict {
    let conditions = vec![TxnCondition::ValueBelow(b"case/absent".to_vec(), b"zzz".to_vec())];
    let outcome = transact(&members[0], Txn { conditions, ..Txn::default() }).await?;
    expect(!outcome.succeeded, "an absent key has no value")
}

async fn a_range_is_empty_until_something_is_put_there_and_once_all_is_deleted<M: EtcdMember, T: Timers>(
    members: &[M],
    _: &T,
) -> Verdict {
    let (from, end) = (b"case/range/".to_vec(), b"case/range0".to_vec());
    let is_empty = async |member: &M| {
        let conditions = vec![TxnCondition::NoneIn(from.clone(), end.clone())];
        transact(member, Txn { conditions, ..Txn::default() }).await.map(|outcome| outcome.succeeded)
    };
    put_all(&members[0], &[(b"case/range", b"before"), (b"case/range0", b"behind")]).await?;
    expect(is_empty(&members[1]).await?, "nothing is in it")?;
    put_all(&members[0], &[(b"case/range/9", b"within")]).await?;
    expect(!is_empty(&members[1]).await?, "a key is in it")?;
    let then = vec![TxnOperation::DeleteRange(b"case/range/9".to_vec(), b"case/range/90".to_vec())];
    transact(&members[2], Txn { then, ..Txn::default() }).await?;
    expect(is_empty(&members[0]).await?, "nothing is in it any more")
}

async fn a_failed_transaction_has_no_revision<M: EtcdMember, T: Timers>(members: &[M], _: &T) -> Verdict {
    let before = put_all(&members[0], &[(b"case/failed", b"one")]).await?;
    let conditions = vec![TxnCondition::ModifiedAt(b"case/failed".to_vec(), before - 1)];
    let then = vec![put(b"case/failed", b"two")];
    let outcome = transact(&members[1], Txn { conditions, then, otherwise: Vec::new() }).await?;
    expect(!outcome.succeeded && outcome.header.revision == before, "the revision stays")?;
    expect(value(&members[2], b"case/failed").await? == Some(b"one".to_vec()), "the value stays")
}

async fn each_put_has_a_revision_of_its_own<M: EtcdMember, T: Timers>(members: &[M], _: &T) -> Verdict {
    let mut last = 0;
    for number in 0u8..30 {
        let revision = put_all(&members[usize::from(number) % members.len()], &[(b"case/each", &[number])]).await?;
        expect(revision > last && (last == 0 || revision == last + 1), "revisions follow each other")?;
        last = revision;
    }
    Ok(())
}

async fn all_of_a_transaction_has_one_revision<M: EtcdMember, T: Timers>(members: &[M], _: &T) -> Verdict {
    let keys: Vec<Vec<u8>> = (0..128).map(|number| format!("case/all/{number:03}").into_bytes()).collect();
    let then = keys.iter().map(|key| put(key, b"value")).collect();
    let revision = transact(&members[0], Txn { then, ..Txn::default() }).await?.header.revision;
    let page = members[1].range(&RangeRead::prefix(b"case/all/")).await.map_err(|error| error.to_string())?;
    let all = page.entries.iter().all(|entry| entry.modified == revision && entry.created == revision);
    expect(page.entries.len() == 128 && all, "128 operations have one revision")?;
    let then = (0..129).map(|number| put(format!("case/many/{number}").as_bytes(), b"")).collect();
    let refused = members[0].transact(&Txn { then, ..Txn::default() }).await;
    expect(matches!(refused, Err(ClusterError::Refused(_))), "129 operations are refused")
}

async fn a_range_is_read_by_pages_at_its_revision<M: EtcdMember, T: Timers>(members: &[M], _: &T) -> Verdict {
    let mut revision = 0;
    for number in 0u8..10 {
        revision = put_all(&members[0], &[(format!("case/pages/{number}").as_bytes(), &[number])]).await?;
    }
    // What changes later is not seen at that revision.
    put_all(&members[1], &[(b"case/pages/3", b"changed"), (b"case/pages/new", b"")]).await?;
    let all = RangeRead { limit: 4, ..RangeRead::prefix(b"case/pages/").at(revision) };
    let (mut read, mut found, mut pages) = (all.clone(), Vec::new(), 0);
    loop {
        let page = members[pages % members.len()].range(&read).await.map_err(|error| error.to_string())?;
        pages += 1;
        let last = page.entries.last().map(|entry| entry.key.clone()).ok_or("an empty page")?;
        found.extend(page.entries);
        if !page.has_more {
            break;
        }
        read.from = [last.as_slice(), &[0]].concat();
    }
    let values: Vec<u8> = found.iter().flat_map(|entry| entry.value.clone()).collect();
    expect(pages == 3 && values == (0u8..10).collect::<Vec<_>>(), &format!("{pages} pages, {values:?}"))?;
    let only_keys = RangeRead { keys_only: true, limit: 0, ..all };
    let page = members[2].range(&only_keys).await.map_err(|error| error.to_string())?;
    let bare = page.entries.iter().all(|entry| entry.value.is_empty() && entry.modified > 0);
    expect(page.entries.len() == 10 && !page.has_more && bare, "keys have revisions and no values")
}

async fn large_batches_are_read_by_pages<M: EtcdMember, T: Timers>(members: &[M], _: &T) -> Verdict {
    let large = vec![7u8; 132 << 10];
    for number in 0..40 {
        put_all(&members[0], &[(format!("case/large/{number:02}").as_bytes(), &large)]).await?;
    }
    let read = RangeRead { limit: 16, ..RangeRead::prefix(b"case/large/") };
    let page = members[1].range(&read).await.map_err(|error| error.to_string())?;
    let whole = page.entries.iter().all(|entry| entry.value == large);
    expect(page.entries.len() == 16 && page.has_more && whole, "16 batches of 132 kB are a page")?;
    // Also more than tonic's own default permits.
    let page = members[2].range(&RangeRead::prefix(b"case/large/")).await.map_err(|error| error.to_string())?;
    expect(page.entries.len() == 40, "5.3 MB are read")
}

async fn a_range_of_keys_is_deleted_at_once<M: EtcdMember, T: Timers>(members: &[M], _: &T) -> Verdict {
    for number in 0u8..6 {
        put_all(&members[0], &[(format!("case/deleted/{number}").as_bytes(), b"")]).await?;
    }
    let then = vec![
        TxnOperation::DeleteRange(b"case/deleted/0".to_vec(), b"case/deleted/4".to_vec()),
        put(b"case/collected", b""),
    ];
    transact(&members[1], Txn { then, ..Txn::default() }).await?;
    let page = members[2].range(&RangeRead::prefix(b"case/deleted/")).await.map_err(|error| error.to_string())?;
    expect(page.entries.len() == 2 && page.entries[0].key == b"case/deleted/4", "the end is not deleted")?;
    // A key that is created again has a new revision of creation.
    let revision = put_all(&members[0], &[(b"case/deleted/1", b"")]).await?;
    let page = members[0].range(&RangeRead::key(b"case/deleted/1")).await.map_err(|error| error.to_string())?;
    expect(page.entries.first().is_some_and(|entry| entry.created == revision), "it is created again")
}

async fn a_revision_in_the_future_is_an_error<M: EtcdMember, T: Timers>(members: &[M], _: &T) -> Verdict {
    let far = put_all(&members[0], &[(b"case/future", b"")]).await? + 1000;
    let read = members[1].range(&RangeRead::key(b"case/future").at(far)).await;
    expect(matches!(read, Err(ClusterError::FutureRevision)), &format!("{read:?}"))
}

async fn a_compacted_revision_is_an_error<M: EtcdMember, T: Timers>(members: &[M], timers: &T) -> Verdict {
    let old = put_all(&members[0], &[(b"case/compacted", b"old")]).await?;
    let kept = put_all(&members[0], &[(b"case/compacted", b"kept")]).await?;
    put_all(&members[0], &[(b"case/compacted", b"new")]).await?;
    members[1].compact(kept).await.map_err(|error| error.to_string())?;
    let again = members[2].compact(kept).await;
    expect(matches!(again, Err(ClusterError::Compacted)), &format!("compacted again: {again:?}"))?;
    for member in members {
        let read = member.range(&RangeRead::key(b"case/compacted").at(old)).await;
        expect(matches!(read, Err(ClusterError::Compacted)), &format!("the old revision: {read:?}"))?;
        let read = member.range(&RangeRead::key(b"case/compacted").at(kept)).await;
        let value = read.map_err(|error| error.to_string())?.entries.into_iter().next().map(|entry| entry.value);
        expect(value == Some(b"kept".to_vec()), "the revision itself is kept")?;
    }
    let watch = timers.within(Duration::from_secs(5), members[0].wait_for_change(b"case/compacted", old - 5)).await;
    expect(watch.is_err(), "a watch from before it ends")
}

async fn a_lease_takes_its_keys_along<M: EtcdMember, T: Timers>(members: &[M], timers: &T) -> Verdict {
    let began = timers.now();
    let lease = members[0].grant_lease(Duration::from_secs(2)).await.map_err(|error| error.to_string())?;
    let then = vec![TxnOperation::Put(b"case/leased".to_vec(), b"".to_vec(), lease)];
    transact(&members[1], Txn { then: then.clone(), ..Txn::default() }).await?;
    expect(value(&members[2], b"case/leased").await?.is_some(), "it is there at first")?;
    let mut waits = 0;
    while value(&members[2], b"case/leased").await?.is_some() {
        waits += 1;
        expect(waits < 80, "it is gone after its lease")?;
        timers.sleep(Duration::from_millis(100)).await;
    }
    expect(timers.now() - began > Duration::from_millis(1_500), "it stays for its lease")?;
    let kept = members[0].renew_lease(lease).await;
    expect(matches!(kept, Err(ClusterError::LeaseExpired)), &format!("kept alive: {kept:?}"))?;
    let lease = members[0].grant_lease(Duration::from_secs(60)).await.map_err(|error| error.to_string())?;
    let then = vec![TxnOperation::Put(b"case/leased".to_vec(), b"".to_vec(), lease)];
    transact(&members[1], Txn { then, ..Txn::default() }).await?;
    members[2].revoke_lease(lease).await.map_err(|error| error.to_string())?;
    expect(value(&members[1], b"case/leased").await?.is_none(), "it is gone with its lease")
}

async fn a_lease_that_is_kept_alive_stays<M: EtcdMember, T: Timers>(members: &[M], timers: &T) -> Verdict {
    let lease = members[0].grant_lease(Duration::from_secs(4)).await.map_err(|error| error.to_string())?;
    let then = vec![TxnOperation::Put(b"case/kept".to_vec(), b"".to_vec(), lease)];
    transact(&members[0], Txn { then, ..Txn::default() }).await?;
    for round in 0..12 {
        timers.sleep(Duration::from_millis(500)).await;
        let member = &members[round % members.len()];
        member.renew_lease(lease).await.map_err(|error| error.to_string())?;
    }
    expect(value(&members[1], b"case/kept").await?.is_some(), "it is there after six seconds")?;
    members[0].revoke_lease(lease).await.map_err(|error| error.to_string())
}

async fn a_put_under_an_ended_lease_is_an_error<M: EtcdMember, T: Timers>(members: &[M], _: &T) -> Verdict {
    let then = vec![TxnOperation::Put(b"case/ended".to_vec(), b"".to_vec(), 0x7777)];
    let outcome = members[0].transact(&Txn { then: then.clone(), ..Txn::default() }).await;
    expect(matches!(outcome, Err(ClusterError::LeaseExpired)), &format!("{outcome:?}"))?;
    expect(value(&members[1], b"case/ended").await?.is_none(), "nothing is put")
}

async fn a_watch_wakes_for_its_prefix<M: EtcdMember, T: Timers>(members: &[M], timers: &T) -> Verdict {
    let after = put_all(&members[0], &[(b"case/watched/", b"")]).await?;
    let limit = Duration::from_secs(1);
    put_all(&members[0], &[(b"case/watchee", b"")]).await?;
    let idle = timers.within(limit, members[1].wait_for_change(b"case/watched/", after)).await;
    expect(idle.is_err(), "another key does not wake it")?;
    let limit = Duration::from_secs(10);
    let (woken, written) =
        tokio::join!(timers.within(limit, members[1].wait_for_change(b"case/watched/", after)), async {
            timers.sleep(Duration::from_millis(200)).await;
            put_all(&members[0], &[(b"case/watched/a", b"")]).await
        });
    written?;
    expect(woken.is_ok(), &format!("a change wakes it: {woken:?}"))?;
    // What has changed before it begins wakes it, too.
    let late = timers.within(limit, members[2].wait_for_change(b"case/watched/", after)).await;
    expect(late.is_ok(), &format!("a change before it: {late:?}"))
}

async fn members_agree_on_their_data<M: EtcdMember, T: Timers>(members: &[M], timers: &T) -> Verdict {
    let revision = put_all(&members[0], &[(b"case/agree", b"")]).await?;
    let read = RangeRead { keys_only: true, ..RangeRead::prefix(b"case/") }.at(revision);
    let mut pages = Vec::new();
    for member in members {
        let mut status = member.status().await.map_err(|error| error.to_string())?;
        for _ in 0..20 {
            if status.header.revision >= revision {
                break;
            }
            timers.sleep(Duration::from_millis(500)).await;
            status = member.status().await.map_err(|error| error.to_string())?;
        }
        expect(version::is_accepted(&status.version), &format!("version {}", status.version))?;
        expect(status.header.revision >= revision && status.applied_index > 0, "a member is behind")?;
        expect(status.bytes_in_use > 0 && status.alarms.is_empty(), &format!("{:?}", status.alarms))?;
        let page = member.range(&read).await.map_err(|error| error.to_string())?;
        pages.push((page.entries, page.header.cluster));
    }
    expect(!pages[0].0.is_empty() && pages.windows(2).all(|pair| pair[0] == pair[1]), &format!("{pages:?}"))
}
