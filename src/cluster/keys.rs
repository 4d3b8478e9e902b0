//! The keys in etcd. Nothing else is ever put there by the log:
//!
//! | key | value |
//! | --- | --- |
//! | `log/<gateway>.<incarnation>/<seq>` | a batch; `incarnation` and `seq` are 16 hexadecimal digits |
//! | `mark/<gateway>.<incarnation>` | the number below and at which all of its batches are sealed, in 16 digits |
//! | `checkpoint` | the sealed state, with the signed note |
//! | `sealer` | who may try to seal, under a lease |
//! | `stored/<site>` | how many entries a site stores, in 16 digits |
//! | `cluster` | the random id of the log, made once |
//! | `epoch/request`, `epoch/begun/<epoch>` | who has requested the next epoch, and who has approved each |
//! | `collected` | put by each deletion, so that its revision has a put |
//!
//! The keys of [`registry`](super::registry) are beside them; its admin events are batches of the writer `registry`, which no
//! gateway may be named.
//!
//! Numbers have leading zeros, so that the order of the bytes is the order of the numbers, in keys and in comparisons of
//! values.

use super::ClusterError;
use super::codec::Decoder;
use std::fmt;

/// The checkpoint and everything that the next sealing builds on.
pub const CHECKPOINT: &[u8] = b"checkpoint";
/// Who may try to seal.
pub const SEALER: &[u8] = b"sealer";
/// The random id of the log.
pub const CLUSTER: &[u8] = b"cluster";
/// Put by each deletion.
pub const COLLECTED: &[u8] = b"collected";
/// Before all batches.
pub const LOG: &[u8] = b"log/";
/// Before all marks.
pub const MARKS: &[u8] = b"mark/";
/// Before the sizes of all sites.
pub const STORED: &[u8] = b"stored/";
/// Maximum length of a gateway's name.
const MAX_NAME: usize = 32;

/// A gateway's name: lower-case letters, digits and hyphens, 32 at most.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayName(String);

/// One start of a gateway: its batches are numbered from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation {
    /// The gateway.
    pub gateway: GatewayName,
    /// A random number, drawn at the start.
    pub number: u64,
}

impl GatewayName {
    /// Reads a name; `None` if it has other characters, none, or too many.
    pub fn parse(name: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (!name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(is_plain)).then(|| GatewayName(name.to_owned()))
    }

    /// Returns the key under which the gateway's site says how many entries it stores.
    pub fn stored_key(&self) -> Vec<u8> {
        [STORED, self.0.as_bytes()].concat()
    }
}

impl fmt::Display for GatewayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Incarnation {
    /// Reads `<gateway>.<incarnation>`.
    pub fn parse(text: &str) -> Option<Self> {
        let (gateway, number) = text.split_once('.')?;
        Some(Incarnation { gateway: GatewayName::parse(gateway)?, number: parse_number(number.as_bytes())? })
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Option<Self> {
        Incarnation::parse(decoder.text()?)
    }

    /// Returns the key of a batch.
    pub fn batch_key(&self, seq: u64) -> Vec<u8> {
        format!("log/{self}/{seq:016x}").into_bytes()
    }

    /// Returns the key of the mark.
    pub fn mark_key(&self) -> Vec<u8> {
        format!("mark/{self}").into_bytes()
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}", self.gateway, self.number)
    }
}

/// Reads the key of a batch.
///
/// # Errors
/// [`ClusterError::Malformed`] if it is not one: somebody else writes into this etcd.
pub fn parse_batch_key(key: &[u8]) -> Result<(Incarnation, u64), ClusterError> {
    let parse = || {
        let text = std::str::from_utf8(key.strip_prefix(LOG)?).ok()?;
        let (writer, seq) = text.split_once('/')?;
        Some((Incarnation::parse(writer)?, parse_number(seq.as_bytes()).filter(|seq| *seq > 0)?))
    };
    parse().ok_or_else(|| ClusterError::malformed(String::from_utf8_lossy(key), "not the key of a batch"))
}

/// Returns the key under which it is said who has requested and approved an epoch.
pub fn epoch_record(epoch: u64) -> Vec<u8> {
    format!("epoch/begun/{epoch:016x}").into_bytes()
}

/// Returns a number as it stands in keys and values.
pub fn number(number: u64) -> Vec<u8> {
    format!("{number:016x}").into_bytes()
}

/// Reads such a number.
pub fn parse_number(digits: &[u8]) -> Option<u64> {
    let plain = digits.len() == 16 && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    u64::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| plain)?, 16).ok()
}

/// Returns the end of the range of keys with a prefix that does not end in 0xff, as none does here.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back_and_sort_by_number() {
        let writer = Incarnation { gateway: GatewayName::parse("dc1-a").unwrap(), number: 0xfeed };
        let key = writer.batch_key(10);
        assert_eq!(key, b"log/dc1-a.000000000000feed/000000000000000a");
        assert_eq!(parse_batch_key(&key).unwrap(), (writer.clone(), 10));
        assert!(writer.batch_key(9) < key && key < writer.batch_key(0x100));
        assert!(key < prefix_end(format!("log/{writer}/").as_bytes()));
    }

    #[test]
    fn other_keys_and_names_are_refused() {
        for key in ["log/a/0000000000000001", "log/a.1/1", "log/a.0000000000000001/0000000000000000", "mark/a", "log/"]
        {
            assert!(parse_batch_key(key.as_bytes()).is_err(), "{key}");
        }
        assert!(["", "A", "a.b", "a/b", &"a".repeat(33)].iter().all(|name| GatewayName::parse(name).is_none()));
    }
}
