//! Entries and their canonical encoding.

use crate::time_zone::HO_CHI_MINH;
use prost::Message;

mod generated {
    #![allow(missing_docs, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/ndxp.log.v1.rs"));
}

pub use generated::{Change, Entry, Kind, Pseudonym};

/// The version of entries that this gateway writes.
pub const VERSION: u32 = 1;
/// Largest entry: tlog-tiles bundles give each entry a 16-bit length.
pub const MAX_BYTES: usize = u16::MAX as usize;

impl Entry {
    /// Returns an entry with the present time and a new id (UUIDv7).
    pub fn begin(kind: Kind, node: &str) -> Self {
        Entry {
            version: VERSION,
            kind: kind as i32,
            exchange_id: uuid::Uuid::now_v7().as_bytes().to_vec(),
            time_us: super::clock::now_us(),
            node: node.to_owned(),
            ..Entry::default()
        }
    }

    /// Returns the canonical encoding: prost writes fields in order of number and omits defaults, and there are no
    /// maps.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// Reads an entry; `None` if the bytes are not the canonical encoding of one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let entry = Entry::decode(bytes).ok()?;
        (entry.to_bytes() == bytes).then_some(entry)
    }

    /// The exchange id as text.
    pub fn id_text(&self) -> String {
        uuid::Uuid::from_slice(&self.exchange_id).map(|id| id.to_string()).unwrap_or_default()
    }

    /// The time as RFC 3339 in Ho Chi Minh City.
    pub fn time_text(&self) -> String {
        let Ok(time) = jiff::Timestamp::from_microsecond(self.time_us) else { return String::new() };
        let local = HO_CHI_MINH.to_datetime(time);
        format!("{}+07:00", local.strftime("%Y-%m-%dT%H:%M:%S.%3f"))
    }

    /// The gRPC status code by name.
    pub fn status_text(&self) -> String {
        format!("{:?}", tonic::Code::from_i32(i32::try_from(self.status).unwrap_or(2)))
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Pseudonyms and commitments stay out of logs: they are for auditors.
        f.debug_struct("Entry").field("id", &self.id_text()).field("operation", &self.operation).finish_non_exhaustive()
    }
}
