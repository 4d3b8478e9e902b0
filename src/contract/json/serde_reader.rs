//! Reads the JSON that nearly every source writes with serde_json: some 45,000 instructions less for an enterprise's
//! record than [`super::event_reader`] takes. A document that it does not read goes to that reader, which alone reports
//! the error.

use super::MAX_DEPTH;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::fmt;

/// Reads a document; `None` if this reader cannot, for any reason: not well-formed, a duplicate name, nested too
/// deeply, a number that no float holds.
pub(super) fn parse(bytes: &[u8]) -> Option<Value> {
    let floats = RefCell::new(Floats { bytes, at: 0, given: 0 });
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let document = Reader { depth: 0, floats: &floats }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    // Each number that serde_json took for a float has its text: if it took none for one, there is nothing to search.
    let mut floats = floats.into_inner();
    (floats.given == 0 || floats.next().is_none()).then_some(document)
}

/// The texts of a well-formed document's numbers that serde_json takes for floats, in their order.
struct Floats<'b> {
    bytes: &'b [u8],
    at: usize,
    given: usize,
}

impl<'b> Iterator for Floats<'b> {
    type Item = &'b str;

    fn next(&mut self) -> Option<&'b str> {
        while let Some(byte) = self.bytes.get(self.at) {
            match byte {
                b'"' => self.pass_string(),
                b'-' | b'0'..=b'9' => {
                    let rest = &self.bytes[self.at..];
                    let length = rest.iter().take_while(|byte| is_of_a_number(**byte)).count();
                    self.at += length;
                    let text = std::str::from_utf8(&rest[..length]).ok()?;
                    if is_float(text) {
                        self.given += 1;
                        return Some(text);
                    }
                }
                _ => self.at += 1,
            }
        }
        None
    }
}

impl Floats<'_> {
    fn pass_string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.bytes.get(self.at) {
            self.at += if *byte == b'\\' { 2 } else { 1 };
            if *byte == b'"' {
                return;
            }
        }
    }
}

fn is_of_a_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

fn is_float(text: &str) -> bool {
    text.contains(['.', 'e', 'E']) || text == "-0" || (text.parse::<i64>().is_err() && text.parse::<u64>().is_err())
}

/// Reads one value, with how deeply it is nested.
#[derive(Clone, Copy)]
struct Reader<'r, 'b> {
    depth: usize,
    floats: &'r RefCell<Floats<'b>>,
}

impl Reader<'_, '_> {
    fn inner<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth + 1;
        if depth > MAX_DEPTH { Err(E::custom("too deep")) } else { Ok(Reader { depth, ..self }) }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_, '_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or_else(|_| Value::String(number.to_string()), Value::from))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Value, E> {
        let text = self.floats.borrow_mut().next().ok_or_else(|| E::custom("no float is here"))?;
        Ok(Value::String(text.to_owned()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let (inner, mut all) = (self.inner()?, Vec::new());
        while let Some(item) = items.next_element_seed(inner)? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let (inner, mut object) = (self.inner()?, Map::new());
        while let Some(name) = members.next_key::<String>()? {
            if object.insert(name, members.next_value_seed(inner)?).is_some() {
                return Err(A::Error::custom("a name twice"));
            }
        }
        Ok(Value::Object(object))
    }
}
