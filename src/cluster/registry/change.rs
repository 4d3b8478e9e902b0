//! A change as it is in etcd, the head that it leads to, and the rows: keys, values and bounds.

use crate::cluster::ClusterError;
use crate::cluster::batch::{BatchHash, MAX_BATCH_BYTES, WriterBatch};
use crate::cluster::codec::{Decoder, Encoder};
use crate::cluster::keys::{self, Incarnation};
use crate::registry::replication::{CellValue, RowChange, RowKey};

/// The head; also the prefix that is watched.
pub const VERSION: &[u8] = b"registry/version";
/// Before all changes that are kept.
pub const CHANGES: &[u8] = b"registry/change/";
/// Before all rows.
pub const ROWS: &[u8] = b"registry/row/";
/// Maximum number of rows of a change: etcd takes 128 operations in a transaction, and a change has four of its own.
pub const MAX_ROWS: usize = 120;
/// Maximum bytes of a change: it is put as a whole and row by row, beside its events, and etcd takes 1.5 MB.
pub const MAX_BYTES: usize = 400 << 10;
/// The name of the writer of admin events: no gateway has it.
pub const WRITER: &str = "registry";
/// Before each value: the format and its version.
const MAGIC: &[u8; 8] = b"ndxpreg1";

/// What the last change has led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryHead {
    /// Number of changes.
    pub number: u64,
    /// The random id of the last one; zeros before the first.
    pub id: [u8; 16],
    /// Number of the last admin event.
    pub events: u64,
    /// Who writes the admin events into the log: a writer of the registry itself, not of a gateway.
    pub writer: Incarnation,
    /// Number of its last batch.
    pub seq: u64,
    /// The hash of that batch.
    pub hash: BatchHash,
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryChange {
    /// What it leads to.
    pub head: RegistryHead,
    /// What gateways must read again: kind and id.
    pub touched: Vec<(String, String)>,
    /// The rows.
    pub rows: Vec<RowChange>,
}

/// Returns the key of a change.
pub fn change_key(number: u64) -> Vec<u8> {
    [CHANGES, keys::number(number).as_slice()].concat()
}

/// Returns the key of a row.
pub fn row_key(key: &RowKey) -> Vec<u8> {
    [ROWS, key.table.as_bytes(), b"/", key.id.as_bytes()].concat()
}

/// Reads a row that is present.
///
/// # Errors
/// [`ClusterError::Malformed`].
pub fn decode_row(key: &[u8], value: &[u8]) -> Result<RowChange, ClusterError> {
    let parse = || {
        let (table, id) = std::str::from_utf8(key.strip_prefix(ROWS)?).ok()?.split_once('/')?;
        let mut decoder = Decoder(value.strip_prefix(MAGIC)?);
        let cells = cells(&mut decoder)?;
        decoder.end()?;
        Some(RowChange { key: RowKey { table: table.into(), id: id.into() }, cells: Some(cells) })
    };
    parse().ok_or_else(|| ClusterError::malformed(String::from_utf8_lossy(key), "not in the form of a row"))
}

/// Returns the value of a row that is present.
pub fn encode_row(cells: &[(String, CellValue)]) -> Vec<u8> {
    let mut out = Encoder::default();
    put_cells(out.fixed(MAGIC), cells);
    out.0
}

impl RegistryHead {
    /// The head of a registry without changes.
    pub fn begin(writer: Incarnation) -> Self {
        RegistryHead { number: 0, id: [0; 16], events: 0, writer, seq: 0, hash: BatchHash::default() }
    }

    /// Returns the head after a change whose events are these entries, and their batch.
    ///
    /// # Errors
    /// [`ClusterError::Refused`] if there are none, or they exceed a batch.
    pub fn next(&self, id: [u8; 16], events: u64, entries: Vec<Vec<u8>>) -> Result<(Self, Vec<u8>), ClusterError> {
        let size = entries.iter().map(Vec::len).sum::<usize>();
        if entries.is_empty() || size > MAX_BATCH_BYTES {
            return Err(ClusterError::Refused(format!("{} admin events of {size} bytes in one change", entries.len())));
        }
        let (writer, seq) = (self.writer.clone(), self.seq + 1);
        let batch = WriterBatch { writer: writer.clone(), seq, before: self.hash, entries }.encode().bytes;
        let hash = crate::cluster::batch::hash(&batch);
        Ok((RegistryHead { number: self.number + 1, id, events, writer, seq, hash }, batch))
    }

    fn put(&self, out: &mut Encoder) {
        out.fixed(MAGIC).u64(self.number).fixed(&self.id).u64(self.events);
        out.bytes(self.writer.to_string().as_bytes()).u64(self.seq).fixed(&self.hash);
    }

    fn get(decoder: &mut Decoder<'_>) -> Option<Self> {
        (decoder.fixed()? == *MAGIC).then_some(())?;
        let (number, id, events) = (decoder.u64()?, decoder.fixed()?, decoder.u64()?);
        let (writer, seq, hash) = (Incarnation::decode(decoder)?, decoder.u64()?, decoder.fixed()?);
        Some(RegistryHead { number, id, events, writer, seq, hash })
    }

    /// Returns the value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        self.put(&mut out);
        out.0
    }

    /// Reads the value.
    ///
    /// # Errors
    /// [`ClusterError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ClusterError> {
        let mut decoder = Decoder(bytes);
        let head = Self::get(&mut decoder).filter(|_| decoder.end().is_some());
        head.ok_or_else(|| ClusterError::malformed("registry/version", "not in the form of a head"))
    }
}

impl RegistryChange {
    /// Returns the value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        self.head.put(&mut out);
        out.u64(self.touched.len() as u64);
        for (kind, id) in &self.touched {
            out.bytes(kind.as_bytes()).bytes(id.as_bytes());
        }
        out.u64(self.rows.len() as u64);
        for row in &self.rows {
            out.bytes(row.key.table.as_bytes()).bytes(row.key.id.as_bytes());
            match &row.cells {
                Some(cells) => put_cells(out.fixed(&[1]), cells),
                None => drop(out.fixed(&[0])),
            }
        }
        out.0
    }

    /// Reads the value of a change.
    ///
    /// # Errors
    /// [`ClusterError::Malformed`] if it is none, or another one than this.
    pub fn decode(bytes: &[u8], number: u64) -> Result<Self, ClusterError> {
        let wrong =
            || ClusterError::malformed(format!("registry/change/{number:016x}"), "not in the form of this change");
        read(bytes).filter(|change| change.head.number == number).ok_or_else(wrong)
    }
}

fn read(bytes: &[u8]) -> Option<RegistryChange> {
    let mut decoder = Decoder(bytes);
    let head = RegistryHead::get(&mut decoder)?;
    let text = |decoder: &mut Decoder<'_>| decoder.text().map(str::to_owned);
    let touched =
        (0..decoder.count(8)?).map(|_| Some((text(&mut decoder)?, text(&mut decoder)?))).collect::<Option<_>>()?;
    let row = |decoder: &mut Decoder<'_>| {
        let key = RowKey { table: text(decoder)?, id: text(decoder)? };
        let cells = match decoder.fixed()? {
            [0] => None,
            [1] => Some(cells(decoder)?),
            _ => return None,
        };
        Some(RowChange { key, cells })
    };
    let rows = (0..decoder.count(9)?).map(|_| row(&mut decoder)).collect::<Option<_>>()?;
    decoder.end()?;
    Some(RegistryChange { head, touched, rows })
}

fn put_cells(out: &mut Encoder, cells: &[(String, CellValue)]) {
    out.u64(cells.len() as u64);
    for (name, value) in cells {
        out.bytes(name.as_bytes());
        match value {
            CellValue::Null => out.fixed(&[0]),
            CellValue::Integer(number) => out.fixed(&[1]).fixed(&number.to_be_bytes()),
            CellValue::Text(text) => out.fixed(&[2]).bytes(text.as_bytes()),
            CellValue::Blob(bytes) => out.fixed(&[3]).bytes(bytes),
        };
    }
}

fn cells(decoder: &mut Decoder<'_>) -> Option<Vec<(String, CellValue)>> {
    let cell = |decoder: &mut Decoder<'_>| {
        let name = decoder.text()?.to_owned();
        let value = match decoder.fixed()? {
            [0] => CellValue::Null,
            [1] => CellValue::Integer(i64::from_be_bytes(decoder.fixed()?)),
            [2] => CellValue::Text(decoder.text()?.to_owned()),
            [3] => CellValue::Blob(decoder.bytes()?.to_vec()),
            _ => return None,
        };
        Some((name, value))
    };
    (0..decoder.count(5)?).map(|_| cell(decoder)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn change() -> RegistryChange {
        let begin = RegistryHead::begin(Incarnation::parse("registry.00000000000000aa").unwrap());
        let key = |id: &str| RowKey { table: "clients".into(), id: id.into() };
        let cells = vec![
            ("id".into(), CellValue::Text("a/b".into())),
            ("suspended".into(), CellValue::Integer(-1)),
            ("approved_by".into(), CellValue::Null),
            ("code".into(), CellValue::Blob(vec![0, 255])),
        ];
        let rows = vec![RowChange { key: key("a/b"), cells: Some(cells) }, RowChange { key: key("c"), cells: None }];
        let (head, _) = begin.next([7; 16], 3, vec![b"event".to_vec()]).unwrap();
        RegistryChange { head, touched: vec![("client".into(), "a/b".into())], rows }
    }

    #[test]
    fn a_change_is_read_back_with_its_deletions_and_nothing_beside_it_is() {
        let change = change();
        let bytes = change.encode();
        assert_eq!(RegistryChange::decode(&bytes, 1).unwrap(), change);
        assert!(RegistryChange::decode(&bytes, 2).is_err(), "it is under another number's key");
        for length in 0..bytes.len() {
            assert!(RegistryChange::decode(&bytes[..length], 1).is_err(), "{length}");
        }
        assert!(RegistryChange::decode(&[bytes.as_slice(), b"x"].concat(), 1).is_err());
        assert_eq!(RegistryHead::decode(&change.head.encode()).unwrap(), change.head);
    }

    #[test]
    fn a_row_is_read_back_whatever_is_in_its_id() {
        let row = &change().rows[0];
        let read = decode_row(&row_key(&row.key), &encode_row(row.cells.as_ref().unwrap())).unwrap();
        assert_eq!(read, *row);
        assert!(decode_row(b"registry/row/clients", b"").is_err());
    }

    #[test]
    fn the_batches_of_the_events_follow_each_other() {
        let first = change().head;
        let (second, batch) = first.next([8; 16], 4, vec![b"next".to_vec()]).unwrap();
        let read = WriterBatch::decode(&batch, &second.writer, 2).unwrap();
        assert_eq!((read.before, second.number, second.seq), (first.hash, 2, 2));
        assert!(first.next([8; 16], 4, Vec::new()).is_err(), "a change without an event is none");
        assert!(first.next([8; 16], 4, vec![vec![0; MAX_BATCH_BYTES + 1]]).is_err());
    }
}
