//! Issued tokens: each gateway puts its own in batches that are created once, and reads those of the others. They wait for no
//! change of the registry, and change none.
//!
//! | key | value |
//! | --- | --- |
//! | `issued/<gateway>.<incarnation>/<seq>` | a batch of token records, deleted once all of them have expired |
//! | `issued-last/<gateway>.<incarnation>` | the number of its last batch, in 16 hexadecimal digits |
//!
//! A token is handed out once its record is durable here. Bounds: etcd holds the records of the tokens that are in force, some
//! 300 bytes each; a gateway that starts reads all of them again.

use super::replica_state::own_disk;
use crate::cluster::ClusterError;
use crate::cluster::codec::{Decoder, Encoder};
use crate::cluster::keys::{self, Incarnation};
use crate::cluster::member::{EtcdMember, KeyValue, RangeRead, Txn, TxnCondition, TxnOperation};
use crate::cluster::members::EtcdMembers;
use crate::cluster::timers::Timers;
use crate::registry::TokenRecord;
use crate::registry::replication::Replica;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Before all batches.
const BATCHES: &[u8] = b"issued/";
/// Before the numbers of the last ones.
const LAST: &[u8] = b"issued-last/";
/// Put by each deletion, so that its revision has a put.
const REMOVED: &[u8] = b"issued-removed";
/// Maximum number of tokens of a batch.
pub const MAX_TOKENS: usize = 500;
/// Maximum bytes of a batch.
const MAX_BYTES: usize = 256 << 10;
/// Batches of a page: 4 MB at most.
const PAGE: i64 = 16;
/// Before each value: the format and its version.
const MAGIC: &[u8; 8] = b"ndxptok1";

/// The tokens of one start of a gateway, and what it has read of the others'.
pub struct IssuedTokens<M, T> {
    members: Arc<EtcdMembers<M, T>>,
    holder: Incarnation,
    sending: Mutex<Sending>,
    /// How far the batches of each start of a gateway were read.
    known: Mutex<BTreeMap<Incarnation, u64>>,
}

#[derive(Default)]
struct Sending {
    /// Number of the last batch that is durable.
    seq: u64,
    /// A batch whose outcome is not known yet: it is settled before another one is sent, so that no number is left out.
    open: Option<Vec<u8>>,
}

impl<M: EtcdMember, T: Timers> IssuedTokens<M, T> {
    /// The tokens of a start of a gateway; its incarnation is new.
    pub fn new(members: Arc<EtcdMembers<M, T>>, holder: Incarnation) -> Self {
        IssuedTokens { members, holder, sending: Mutex::default(), known: Mutex::default() }
    }

    /// Makes the records of tokens durable.
    ///
    /// # Errors
    /// [`ClusterError::Refused`] for more than [`MAX_TOKENS`]; [`ClusterError::OutcomeUnknown`] or
    /// [`ClusterError::NoQuorum`] without a response: the tokens must not be handed out, and their records may be there.
    pub async fn put(&self, tokens: &[TokenRecord]) -> Result<(), ClusterError> {
        let batch = encode(tokens);
        if tokens.len() > MAX_TOKENS || batch.len() > MAX_BYTES {
            return Err(ClusterError::Refused(format!("{} tokens of {} bytes at once", tokens.len(), batch.len())));
        }
        let mut sending = self.sending.lock().await;
        if let Some(open) = sending.open.clone() {
            self.settle(&mut sending, open).await?;
        }
        self.settle(&mut sending, batch).await
    }

    async fn settle(&self, sending: &mut Sending, batch: Vec<u8>) -> Result<(), ClusterError> {
        let seq = sending.seq + 1;
        let (key, last) = (batch_key(&self.holder, seq), last_key(&self.holder));
        let txn = Txn {
            conditions: vec![TxnCondition::CreatedAt(key.clone(), 0)],
            then: vec![TxnOperation::Put(key.clone(), batch.clone(), 0), TxnOperation::Put(last, keys::number(seq), 0)],
            otherwise: vec![TxnOperation::Get(key.clone())],
        };
        sending.open = Some(batch.clone());
        if !self.members.settle_put(&txn, &batch).await? {
            return Err(ClusterError::Conflict { key: String::from_utf8_lossy(&key).into_owned() });
        }
        (sending.seq, sending.open) = (seq, None);
        Ok(())
    }

    /// Stores what other gateways have issued, and returns the revision that was read: what is issued later has a higher one.
    ///
    /// # Errors
    /// As for [`EtcdMembers::range`]; the replica's.
    pub async fn refresh<R: Replica>(&self, replica: &R) -> Result<i64, ClusterError> {
        let mut known = self.known.lock().await;
        let (revision, batches) = self.last_batches().await?;
        // Of a start whose tokens have all expired there is nothing any more.
        known.retain(|issuer, _| batches.iter().any(|(there, ..)| there == issuer));
        for (issuer, last, _) in batches {
            let read = known.get(&issuer).copied().unwrap_or(0);
            if last > read {
                self.read(replica, &issuer, read + 1, last).await?;
                known.insert(issuer, last);
            }
        }
        Ok(revision)
    }

    /// Waits until something may have been issued after a revision, or for this time.
    pub async fn wait(&self, after: i64, limit: std::time::Duration) {
        self.members.wait_for_change(LAST, after, limit).await;
    }

    /// The revision that was read; each start that has tokens in force, the number of its last batch, and the revision at which
    /// that was put.
    async fn last_batches(&self) -> Result<(i64, Vec<(Incarnation, u64, i64)>), ClusterError> {
        let page = self.members.range(&RangeRead::prefix(LAST)).await?;
        let parse = |key: &[u8], value: &[u8]| {
            let issuer = std::str::from_utf8(key.strip_prefix(LAST)?).ok()?;
            Some((Incarnation::parse(issuer)?, keys::parse_number(value)?))
        };
        let wrong =
            |key: &[u8]| ClusterError::malformed(String::from_utf8_lossy(key), "not the last batch of a gateway");
        let read = |entry: &KeyValue| {
            let (issuer, last) = parse(&entry.key, &entry.value).ok_or_else(|| wrong(&entry.key))?;
            Ok((issuer, last, entry.modified))
        };
        Ok((page.header.revision, page.entries.iter().map(read).collect::<Result<_, _>>()?))
    }

    async fn read<R: Replica>(
        &self,
        replica: &R,
        issuer: &Incarnation,
        first: u64,
        last: u64,
    ) -> Result<(), ClusterError> {
        let (mut from, end) = (batch_key(issuer, first), batch_key(issuer, last.saturating_add(1)));
        loop {
            let page =
                self.members.range(&RangeRead { from, end: end.clone(), limit: PAGE, ..RangeRead::default() }).await?;
            for entry in &page.entries {
                let (tokens, _) = decode(&entry.key, &entry.value)?;
                replica.add_tokens(&tokens).map_err(own_disk)?;
            }
            let Some(next) = page.entries.last().filter(|_| page.has_more) else { return Ok(()) };
            from = [next.key.as_slice(), &[0]].concat();
        }
    }

    /// Deletes batches whose tokens have all expired before a time (Unix time in seconds), those of each start from its first
    /// on, and the number of the last one when there is none any more; any gateway may do that. Returns their number, one page
    /// at most for each start.
    ///
    /// # Errors
    /// As for [`EtcdMembers::range`] and [`EtcdMembers::settle`].
    pub async fn remove_ended(&self, before: i64) -> Result<usize, ClusterError> {
        let mut removed = 0;
        for (issuer, last, modified) in self.last_batches().await?.1 {
            let (from, end) = (batch_key(&issuer, 0), batch_key(&issuer, last.saturating_add(1)));
            let read = RangeRead { from: from.clone(), end, limit: PAGE, ..RangeRead::default() };
            let entries = self.members.range(&read).await?.entries;
            if entries.is_empty() {
                self.forget(&issuer, modified).await?;
                continue;
            }
            let mut ended = 0_usize;
            for entry in &entries {
                if decode(&entry.key, &entry.value)?.1 >= before {
                    break;
                }
                ended += 1;
            }
            let Some(entry) = ended.checked_sub(1).and_then(|at| entries.get(at)) else { continue };
            let until = [entry.key.as_slice(), &[0]].concat();
            let then = vec![TxnOperation::DeleteRange(from, until), TxnOperation::Put(REMOVED.to_vec(), Vec::new(), 0)];
            self.members.settle(&Txn { then, ..Txn::default() }).await?;
            removed += ended;
        }
        Ok(removed)
    }
}

impl<M: EtcdMember, T: Timers> IssuedTokens<M, T> {
    /// Deletes the number of a start's last batch, unless it has put another one meanwhile. If it does so later, the number
    /// goes on where it was: the start itself counts.
    async fn forget(&self, issuer: &Incarnation, modified: i64) -> Result<(), ClusterError> {
        let last = last_key(issuer);
        let conditions = vec![TxnCondition::ModifiedAt(last.clone(), modified)];
        let end = [last.as_slice(), &[0]].concat();
        let then = vec![TxnOperation::DeleteRange(last, end), TxnOperation::Put(REMOVED.to_vec(), Vec::new(), 0)];
        self.members.settle(&Txn { conditions, then, otherwise: Vec::new() }).await.map(drop)
    }
}

fn batch_key(issuer: &Incarnation, seq: u64) -> Vec<u8> {
    [BATCHES, format!("{issuer}/{seq:016x}").as_bytes()].concat()
}

fn last_key(issuer: &Incarnation) -> Vec<u8> {
    [LAST, issuer.to_string().as_bytes()].concat()
}

fn encode(tokens: &[TokenRecord]) -> Vec<u8> {
    let mut out = Encoder::default();
    let last = tokens.iter().map(|token| token.expires).max().unwrap_or_default();
    out.fixed(MAGIC).fixed(&last.to_be_bytes()).u64(tokens.len() as u64);
    for token in tokens {
        out.bytes(token.id.as_bytes()).bytes(token.client.as_bytes()).bytes(token.certificate.as_bytes());
        out.fixed(&token.issued.to_be_bytes()).fixed(&token.starts.to_be_bytes()).fixed(&token.expires.to_be_bytes());
        out.u64(token.scopes.len() as u64);
        for scope in &token.scopes {
            out.bytes(scope.as_bytes());
        }
    }
    out.0
}

/// Reads a batch, and when the last of its tokens expires.
fn decode(key: &[u8], bytes: &[u8]) -> Result<(Vec<TokenRecord>, i64), ClusterError> {
    let read = || {
        let mut decoder = Decoder(bytes.strip_prefix(MAGIC)?);
        let last = i64::from_be_bytes(decoder.fixed()?);
        let tokens = (0..decoder.count(44)?).map(|_| token(&mut decoder)).collect::<Option<_>>()?;
        decoder.end()?;
        Some((tokens, last))
    };
    read().ok_or_else(|| ClusterError::malformed(String::from_utf8_lossy(key), "not in the form of issued tokens"))
}

fn token(decoder: &mut Decoder<'_>) -> Option<TokenRecord> {
    let text = |decoder: &mut Decoder<'_>| decoder.text().map(str::to_owned);
    let time = |decoder: &mut Decoder<'_>| decoder.fixed().map(i64::from_be_bytes);
    let (id, client, certificate) = (text(decoder)?, text(decoder)?, text(decoder)?);
    let (issued, starts, expires) = (time(decoder)?, time(decoder)?, time(decoder)?);
    let scopes = (0..decoder.count(4)?).map(|_| text(decoder)).collect::<Option<_>>()?;
    // Revocations are changes of the registry.
    Some(TokenRecord { id, client, scopes, certificate, issued, starts, expires, revoked: false })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_back_with_their_last_end() {
        let token = |id: &str, expires| TokenRecord {
            id: id.into(),
            client: "shop".into(),
            scopes: vec!["population:read".into(), "land:read".into()],
            certificate: "thumb".into(),
            issued: 1,
            starts: 2,
            expires,
            revoked: false,
        };
        let all = vec![token("t-1", 9), token("t-2", 7)];
        let bytes = encode(&all);
        assert_eq!(decode(b"k", &bytes).unwrap(), (all, 9));
        for length in 0..bytes.len() {
            assert!(decode(b"k", &bytes[..length]).is_err(), "{length}");
        }
    }
}
