//! An export as Parquet: points in time as timestamps, numbers as numbers, lists as lists, and each entry's canonical bytes; zstd.

use super::{COLUMNS, ColumnKind, cell};
use crate::exchange_log::Entry;
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::reader::SerializedFileReader;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::record::{Field, Row as Record};
use ::parquet::schema::parser::parse_message_type;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::fs::File;
use std::sync::Arc;

/// Rows that are written at once.
const ROW_GROUP: usize = 50_000;

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ParquetCell {
    Text(String),
    Number(i64),
    /// Microseconds after 1970.
    Time(i64),
    List(Vec<String>),
}

/// One row, and the entry's canonical bytes.
pub(super) struct ParquetRow {
    cells: Vec<ParquetCell>,
    entry: Vec<u8>,
}

impl ParquetRow {
    /// The row of an entry, of which the JSON is given too.
    pub(super) fn of(row: &Value, entry: &Entry) -> Self {
        let make = |(name, kind): &(&str, ColumnKind)| {
            let value = &row[*name];
            match kind {
                ColumnKind::Text => ParquetCell::Text(cell(value)),
                ColumnKind::Number => ParquetCell::Number(value.as_i64().unwrap_or(0)),
                ColumnKind::Time => ParquetCell::Time(entry.time_us),
                ColumnKind::List => {
                    let texts = value.as_array().map(Vec::as_slice).unwrap_or_default().iter();
                    ParquetCell::List(texts.filter_map(|text| text.as_str().map(str::to_owned)).collect())
                }
            }
        };
        ParquetRow { cells: COLUMNS.iter().map(make).collect(), entry: entry.to_bytes() }
    }

    fn read(record: &Record) -> Result<Self, String> {
        let mut columns = record.get_column_iter();
        let mut cells = Vec::with_capacity(COLUMNS.len());
        for (name, kind) in COLUMNS {
            let field = columns.next().map(|(_, field)| field);
            let read = match (kind, field) {
                (ColumnKind::Text, Some(Field::Str(text))) => ParquetCell::Text(text.clone()),
                (ColumnKind::Number, Some(Field::Long(number))) => ParquetCell::Number(*number),
                (ColumnKind::Time, Some(Field::TimestampMicros(time))) => ParquetCell::Time(*time),
                (ColumnKind::List, Some(Field::ListInternal(list))) => {
                    let text = |one: &Field| match one {
                        Field::Str(text) => Some(text.clone()),
                        _ => None,
                    };
                    let texts: Option<Vec<String>> = list.elements().iter().map(text).collect();
                    ParquetCell::List(texts.ok_or_else(|| format!("{name} is no list of texts"))?)
                }
                _ => return Err(format!("{name} has another type")),
            };
            cells.push(read);
        }
        match columns.next() {
            Some((_, Field::Bytes(entry))) => Ok(ParquetRow { cells, entry: entry.data().to_vec() }),
            _ => Err("entry has another type".into()),
        }
    }

    /// As texts, for comparison.
    pub(super) fn texts(&self) -> Vec<String> {
        let cells = self.cells.iter().map(|cell| format!("{cell:?}"));
        cells.chain([STANDARD.encode(&self.entry)]).collect()
    }
}

/// The file that is written.
pub struct Parquet {
    writer: SerializedFileWriter<File>,
    rows: Vec<ParquetRow>,
}

fn schema() -> String {
    let column = |(name, kind): &(&str, ColumnKind)| match kind {
        ColumnKind::Text => format!("REQUIRED BINARY {name} (UTF8);\n"),
        ColumnKind::Number => format!("REQUIRED INT64 {name};\n"),
        ColumnKind::Time => format!("REQUIRED INT64 {name} (TIMESTAMP(MICROS,true));\n"),
        ColumnKind::List => {
            format!("REQUIRED group {name} (LIST) {{ REPEATED group list {{ REQUIRED BINARY element (UTF8); }} }}\n")
        }
    };
    let columns: String = COLUMNS.iter().map(column).collect();
    format!("message entries {{ {columns} REQUIRED BINARY entry; }}")
}

impl Parquet {
    pub(super) fn begin(out: File) -> Result<Self, ParquetError> {
        let schema = parse_message_type(&schema())?;
        let compression = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(compression).build();
        Ok(Parquet {
            writer: SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?,
            rows: Vec::new(),
        })
    }

    pub(super) fn add(&mut self, row: ParquetRow) -> Result<(), ParquetError> {
        self.rows.push(row);
        if self.rows.len() >= ROW_GROUP { self.group() } else { Ok(()) }
    }

    fn group(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.rows);
        let mut group = self.writer.next_row_group()?;
        for (at, (_, kind)) in COLUMNS.iter().enumerate() {
            let Some(mut column) = group.next_column()? else { break };
            let cells = rows.iter().filter_map(|row| row.cells.get(at));
            if *kind == ColumnKind::List {
                let (values, definitions, repetitions) = list(cells);
                column.typed::<ByteArrayType>().write_batch(&values, Some(&definitions), Some(&repetitions))?;
            } else if *kind == ColumnKind::Text {
                let text = |cell: &ParquetCell| match cell {
                    ParquetCell::Text(text) => ByteArray::from(text.as_str()),
                    _ => ByteArray::from(""),
                };
                let values: Vec<ByteArray> = cells.map(text).collect();
                column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
            } else {
                let number = |cell: &ParquetCell| match cell {
                    ParquetCell::Number(number) | ParquetCell::Time(number) => *number,
                    _ => 0,
                };
                let values: Vec<i64> = cells.map(number).collect();
                column.typed::<Int64Type>().write_batch(&values, None, None)?;
            }
            column.close()?;
        }
        if let Some(mut column) = group.next_column()? {
            let values: Vec<ByteArray> = rows.into_iter().map(|row| row.entry.into()).collect();
            column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
            column.close()?;
        }
        group.close()?;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(), ParquetError> {
        if !self.rows.is_empty() {
            self.group()?;
        }
        self.writer.close().map(|_| ())
    }
}

/// Lists in the levels of Dremel: a list's first text repeats nothing (0), each other one the list (1); an empty list is defined down to
/// the list (0), a text down to itself (1).
fn list<'c>(cells: impl Iterator<Item = &'c ParquetCell>) -> (Vec<ByteArray>, Vec<i16>, Vec<i16>) {
    let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
    for cell in cells {
        let texts = if let ParquetCell::List(texts) = cell { texts.as_slice() } else { &[] };
        if texts.is_empty() {
            definitions.push(0);
            repetitions.push(0);
        }
        for (at, text) in texts.iter().enumerate() {
            values.push(ByteArray::from(text.as_str()));
            definitions.push(1);
            repetitions.push(i16::from(at > 0));
        }
    }
    (values, definitions, repetitions)
}

/// The rows of a file.
pub(super) fn read(file: File) -> Result<Vec<Result<ParquetRow, String>>, ParquetError> {
    let reader = SerializedFileReader::new(file)?;
    let row = |row: Result<Record, ParquetError>| ParquetRow::read(&row.map_err(|error| error.to_string())?);
    Ok(reader.into_iter().map(row).collect())
}
