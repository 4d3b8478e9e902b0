//! Mapping plans: the definition of each field of a message, here and at the source, computed once when a contract
//! loads.

use super::drift::DocumentShape;
use super::formats::Format;
use super::map::date::Notation;
use super::options;
pub use super::path::WirePath;
use super::text::{integer, nfc};
use prost_reflect::{FieldDescriptor, MessageDescriptor};
use std::collections::HashSet;
use std::sync::Arc;

/// Default for the longest text, in characters.
pub const DEFAULT_TEXT_LENGTH: usize = 4_000;
/// Default for the maximum number of items of a list.
pub const DEFAULT_LIST_LENGTH: usize = 10_000;
/// Maximum nesting of messages in a contract: a record of a person needs five.
pub const MAX_NESTING: usize = 12;

/// Everything about one message.
#[derive(Debug)]
pub struct MessagePlan {
    /// The compiled message.
    pub message: MessageDescriptor,
    /// Its fields in the order of the `.proto`.
    pub fields: Vec<FieldPlan>,
    /// Names of the `one_of` groups.
    pub groups: Vec<String>,
    /// The names of the source's structure that belong to this message: the first names of its fields' paths.
    pub known: HashSet<String>,
    /// Paths of further names at the source that are known and ignored.
    pub ignored: Vec<String>,
}

/// Everything about one field.
#[derive(Debug)]
pub struct FieldPlan {
    /// The compiled field.
    pub field: FieldDescriptor,
    /// Its name in the contract.
    pub name: String,
    /// Its names at the source: the first is written, the first present one is read.
    pub names: Vec<WirePath>,
    /// Its type.
    pub kind: FieldKind,
    /// Whether it is a list.
    pub list: bool,
    /// Joins a list into one text.
    pub separator: Option<String>,
    /// The format that a text must have.
    pub format: Option<Format>,
    /// Whether it must be given.
    pub required: bool,
    /// In a response: whether its name is always present.
    pub expected: bool,
    /// Longest text or list.
    pub max_length: usize,
    /// How scalars are written.
    pub wire: options::Wire,
    /// The case of a text.
    pub case: options::Case,
    /// The setting of the connection entry that may choose another case.
    pub case_setting: Option<String>,
    /// The name of each list item inside a structure that wraps it.
    pub item: Option<String>,
    /// Its location in the request.
    pub location: options::Location,
    /// The `one_of` group, as an index into [`MessagePlan::groups`].
    pub group: Option<usize>,
    /// A document inside a text.
    pub embedded: Option<options::Embedded>,
    /// The shape of that document.
    pub document: Option<DocumentShape>,
    /// Data class, if higher than the operation's.
    pub data_class: options::DataClass,
    /// Whether it names a person or an enterprise.
    pub subject: bool,
    /// In a response: the field beside it that takes the source's text if this one cannot be read.
    pub unparsed_into: Option<FieldDescriptor>,
    /// The number of the field whose raw text it takes (`unparsed_into`): it has no name of its own at the source, and
    /// is granted with that field.
    pub raw_text_of: Option<u32>,
    /// In a response: the number of digits of a code that may have become a number; 0: it is not a code.
    pub digits: usize,
    /// In a response: whether an unknown code of an enum is an error.
    pub strict: bool,
    /// Texts at the source that mean absence.
    pub absent: Vec<Absent>,
    /// In a response: whether a value that cannot be read removes only this field.
    pub omit: bool,
}

/// A text at the source that means absence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    /// This text.
    Text(String),
    /// Every text with this prefix.
    Prefix(String),
}

impl Absent {
    /// Reads `text` or `prefix*`.
    pub fn parse(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Absent::Prefix(nfc(prefix).into_owned()),
            None => Absent::Text(nfc(text).into_owned()),
        }
    }

    /// Returns whether a text (trimmed, in form C) matches.
    pub fn is(&self, text: &str) -> bool {
        match self {
            Absent::Text(absent) => absent == text,
            Absent::Prefix(prefix) => text.starts_with(prefix.as_str()),
        }
    }
}

/// The type of a field.
#[derive(Debug)]
pub enum FieldKind {
    /// `string`.
    Text,
    /// `bytes`, base64 at the source.
    Bytes,
    /// `int32`, `sint32`, `sfixed32`.
    Int32,
    /// `int64`, `sint64`, `sfixed64`.
    Int64,
    /// `uint32`, `fixed32`.
    Uint32,
    /// `uint64`, `fixed64`.
    Uint64,
    /// `double`.
    Double,
    /// `float`.
    Float,
    /// `bool`, with the texts for true and false if the contract defines them.
    Bool {
        /// Written for true.
        yes: Option<String>,
        /// Written for false.
        no: Option<String>,
    },
    /// An enum: number, and texts at the source (the first is written).
    Enum(Vec<EnumPlan>),
    /// A nested message.
    Message(Arc<MessagePlan>),
    /// `ndxp.type.v1.PartialDate`.
    Date(Vec<Notation>),
    /// `google.protobuf.Timestamp`.
    Time(Vec<Notation>),
    /// `map<string, string>` of every property that no other field names.
    Remaining,
}

/// One value of an enum.
#[derive(Debug)]
pub struct EnumPlan {
    /// Number in the contract.
    pub number: i32,
    /// Name in the contract.
    pub name: String,
    /// Texts at the source, in form C.
    pub texts: Vec<String>,
}

impl EnumPlan {
    /// Returns the number of the value of a code (trimmed, in form C). Digits may have lost their leading zeros, or
    /// become a decimal number, if exactly one value then fits.
    pub fn find(values: &[EnumPlan], code: &str) -> Option<i32> {
        if let Some(known) = values.iter().find(|value| value.texts.iter().any(|text| text == code)) {
            return Some(known.number);
        }
        let number = integer(code)?;
        let fits = |value: &&EnumPlan| {
            value
                .texts
                .iter()
                .any(|text| text.bytes().all(|byte| byte.is_ascii_digit()) && integer(text) == Some(number))
        };
        let mut fitting = values.iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(one), None) => Some(one.number),
            _ => None,
        }
    }
}

impl MessagePlan {
    /// Returns the field of this name.
    pub fn field(&self, name: &str) -> Option<&FieldPlan> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Returns whether a field of it, or of a message in it, holds something.
    pub fn any(&self, holds: &impl Fn(&FieldPlan) -> bool) -> bool {
        self.fields.iter().any(|field| {
            let below = matches!(&field.kind, FieldKind::Message(inner) if inner.any(holds));
            below || holds(field)
        })
    }

    /// Returns whether it takes all properties of a structure.
    pub fn takes_any(&self) -> bool {
        self.fields.iter().any(|field| matches!(field.kind, FieldKind::Remaining))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_lost_its_zeros_is_one_only_where_one_value_fits() {
        let value = |number, texts: &[&str]| EnumPlan {
            number,
            name: String::new(),
            texts: texts.iter().map(|text| (*text).to_owned()).collect(),
        };
        let one = [value(1, &["01", "một"]), value(2, &["02"])];
        for (code, number) in [
            ("01", Some(1)),
            ("1", Some(1)),
            ("1.0", Some(1)),
            ("001", Some(1)),
            ("2", Some(2)),
            ("3", None),
            ("một", Some(1)),
            ("", None),
        ] {
            assert_eq!(EnumPlan::find(&one, code), number, "{code}");
        }
        // `1` and `01` are two codes of this list: `1.0` may be either.
        let two = [value(1, &["1"]), value(2, &["01"])];
        assert_eq!(["1", "01", "1.0", "001"].map(|code| EnumPlan::find(&two, code)), [Some(1), Some(2), None, None]);
    }

    #[test]
    fn what_means_nothing_is_a_text_or_whatever_begins_so() {
        let (text, prefix) = (Absent::parse("000000001"), Absent::parse("9999-12-31*"));
        assert_eq!(["000000001", "0000000012", "00000000"].map(|one| text.is(one)), [true, false, false]);
        assert_eq!(
            ["9999-12-31", "9999-12-31T00:00:00", "9999-12-3", "19999-12-31"].map(|one| prefix.is(one)),
            [true, true, false, false]
        );
    }
}
