//! Checks that bytes are the canonical encoding of an entry, without decoding them: a log of ten million entries is
//! checked in seconds. Canonical means: fields of the message in order of number, each in its shortest form, defaults
//! omitted, no unknown fields. So two entries with the same content have the same bytes, and every byte has a meaning.

use crate::varint::read_shortest;

/// How a field is encoded (https://protobuf.dev/programming-guides/encoding).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A varint of at most this number of significant bits.
    Uint(u32),
    Enum,
    Int64,
    Text,
    Bytes,
    /// A list of texts.
    Texts,
    Pseudonym,
    Pseudonyms,
    /// A list of messages of three texts.
    Changes,
}

/// The fields of `ndxp.log.v1.Entry`.
const fn form(field: u64) -> Option<Form> {
    Some(match field {
        1 | 20 | 36 => Form::Uint(32),
        2 => Form::Enum,
        4 => Form::Int64,
        23..=28 | 33 | 35 | 41 | 59 | 67..=71 => Form::Uint(64),
        3 | 8 | 18 | 19 => Form::Bytes,
        5..=7 | 9..=14 | 21 | 22 | 29..=32 | 34 | 37..=39 | 44..=49 | 55 | 56 | 62..=66 => Form::Text,
        15 | 58 => Form::Pseudonyms,
        16 => Form::Pseudonym,
        17 | 57 | 60 | 61 => Form::Texts,
        40 => Form::Changes,
        _ => return None,
    })
}

fn delimited(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = read_shortest(bytes)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

/// Returns the number of a kind if these bytes are a canonical entry. Decoding and encoding such bytes returns the same
/// bytes.
pub fn kind(mut bytes: &[u8]) -> Option<i32> {
    let (mut last, mut kind) = (0, 0);
    while !bytes.is_empty() {
        let (key, rest) = read_shortest(bytes)?;
        let (field, wire) = (key >> 3, key & 7);
        let form = form(field)?;
        let repeated = matches!(form, Form::Texts | Form::Pseudonyms | Form::Changes);
        if field < last || field == last && !repeated {
            return None;
        }
        last = field;
        bytes = match form {
            Form::Uint(_) | Form::Enum | Form::Int64 => {
                let (value, rest) = read_shortest(rest)?;
                let fits = match form {
                    Form::Uint(32) => u32::try_from(value).is_ok(),
                    Form::Enum => i32::try_from(value.cast_signed()).is_ok(),
                    _ => true,
                };
                if wire != 0 || value == 0 || !fits {
                    return None;
                }
                if form == Form::Enum {
                    kind = i32::try_from(value.cast_signed()).ok()?;
                }
                rest
            }
            Form::Text | Form::Bytes | Form::Texts | Form::Pseudonym | Form::Pseudonyms | Form::Changes => {
                let (inside, rest) = delimited(rest)?;
                let holds = match form {
                    Form::Text => !inside.is_empty() && is_text(inside),
                    Form::Bytes => !inside.is_empty(),
                    Form::Texts => is_text(inside),
                    Form::Changes => three_texts(inside).is_some(),
                    _ => pseudonym(inside).is_some(),
                };
                if wire != 2 || !holds {
                    return None;
                }
                rest
            }
        };
    }
    Some(kind)
}

fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}

/// `key` and `value`, each if it is not empty.
fn pseudonym(mut bytes: &[u8]) -> Option<()> {
    let mut last = 0;
    while !bytes.is_empty() {
        let (key, rest) = read_shortest(bytes)?;
        let (inside, rest) = delimited(rest)?;
        let known = key == (1 << 3 | 2) && is_text(inside) || key == (2 << 3 | 2);
        if key <= last || !known || inside.is_empty() {
            return None;
        }
        (last, bytes) = (key, rest);
    }
    Some(())
}

/// `object`, `before` and `after`, each if it is not empty.
fn three_texts(mut bytes: &[u8]) -> Option<()> {
    let mut last = 0;
    while !bytes.is_empty() {
        let (key, rest) = read_shortest(bytes)?;
        let (inside, rest) = delimited(rest)?;
        let known = matches!(key >> 3, 1..=3) && key & 7 == 2;
        if key <= last || !known || inside.is_empty() || !is_text(inside) {
            return None;
        }
        (last, bytes) = (key, rest);
    }
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::Entry;
    use crate::exchange_log::entry::{Change, Pseudonym};
    use proptest::prelude::*;

    fn entry(numbers: [u64; 8], texts: &[String], blob: &[u8]) -> Entry {
        let text = |at: usize| texts.get(at).cloned().unwrap_or_default();
        let pseudonym = |at: usize| Pseudonym { key: text(at), value: blob.to_vec() };
        Entry {
            version: numbers[0] as u32,
            kind: numbers[1] as i32,
            exchange_id: blob.to_vec(),
            time_us: numbers[2] as i64,
            node: text(0),
            client: text(1),
            operation: text(2),
            subjects: texts.iter().skip(3).map(|text| Pseudonym { key: text.clone(), value: vec![] }).collect(),
            official: numbers[3].is_multiple_of(2).then(|| pseudonym(1)),
            fields: texts.to_vec(),
            status: numbers[4] as u32,
            total_us: numbers[5],
            suppressed: numbers[6],
            grant: text(0),
            grant_call: numbers[7],
            event_sequence: numbers[6],
            attempts: numbers[0] as u32,
            shadow_hub: text(3),
            approved_by: text(1),
            justification: text(4),
            fault: text(2),
            source_reason: text(1),
            source_dropped: texts.to_vec(),
            dropped_fields: texts.to_vec(),
            unknown_codes: texts.to_vec(),
            xroad_id: text(0),
            xroad_request_id: text(3),
            xroad_request_hash: text(1),
            protocol: text(1),
            identity_provider: text(2),
            access_us: numbers[5],
            request_us: numbers[6],
            guard_us: numbers[7],
            response_us: numbers[0],
            log_us: numbers[1],
            changes: texts
                .iter()
                .skip(2)
                .map(|one| Change { object: text(0), before: one.clone(), after: text(3) })
                .collect(),
            ..Entry::default()
        }
    }

    proptest! {
        #[test]
        fn the_same_bytes_are_canonical_as_by_decoding(
            numbers in any::<[u64; 8]>(), shift in 0u32..64, texts in prop::collection::vec("[a-zà-ỹ]{0,6}", 0..6),
            blob in prop::collection::vec(any::<u8>(), 0..20),
            changes in prop::collection::vec((any::<usize>(), any::<u8>(), 0u8..4), 0..3),
        ) {
            let mut bytes = entry(numbers.map(|number| number >> shift), &texts, &blob).to_bytes();
            prop_assert_eq!(kind(&bytes), Entry::from_bytes(&bytes).map(|entry| entry.kind));
            for (at, byte, how) in changes {
                let at = at % (bytes.len() + 1);
                match how {
                    0 if at < bytes.len() => bytes[at] ^= byte,
                    1 => bytes.insert(at, byte),
                    2 if at < bytes.len() => drop(bytes.remove(at)),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            prop_assert_eq!(kind(&bytes), Entry::from_bytes(&bytes).map(|entry| entry.kind));
        }
    }
}
