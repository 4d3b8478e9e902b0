//! The justification of a change, in the actor's own words: metadata `ndxp-justification-bin` (UTF-8), or
//! `ndxp-justification` if ASCII is sufficient.

use super::messages::invalid;
use crate::registry::admin_event::MAX_JUSTIFICATION;
use tonic::Status;
use tonic::metadata::MetadataMap;

/// Metadata with the words as UTF-8.
pub const JUSTIFICATION: &str = "ndxp-justification-bin";
/// The same in ASCII.
const PLAIN: &str = "ndxp-justification";

/// Returns the justification; empty if there is none. Text that is not valid in a log is refused: control characters
/// could pass for another line of it.
pub(super) fn justification(metadata: &MetadataMap) -> Result<String, Status> {
    let wrong = || {
        let expected =
            format!("must be said once, in at most {MAX_JUSTIFICATION} characters of UTF-8 without controls");
        let vietnamese = format!("lý do tối đa {MAX_JUSTIFICATION} ký tự UTF-8, không có ký tự điều khiển");
        invalid("metadata ndxp-justification", expected, vietnamese)
    };
    let mut said = Vec::new();
    for value in metadata.get_all_bin(JUSTIFICATION) {
        said.push(value.to_bytes().map_err(|_| wrong())?.to_vec());
    }
    said.extend(metadata.get_all(PLAIN).iter().map(|value| value.as_bytes().to_vec()));
    let text = match said.len() {
        0 => return Ok(String::new()),
        1 => String::from_utf8(said.remove(0)).map_err(|_| wrong())?,
        _ => return Err(wrong()),
    };
    let text = text.trim().to_owned();
    let fits = text.chars().count() <= MAX_JUSTIFICATION && !text.chars().any(char::is_control);
    if fits { Ok(text) } else { Err(wrong()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tonic::metadata::MetadataValue;

    #[test]
    fn t4_the_reason_is_taken_as_it_is_said_or_refused() {
        let said = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert_bin(JUSTIFICATION, MetadataValue::from_bytes(text.as_bytes()));
            justification(&metadata)
        };
        assert_eq!(said("Theo công văn 12/UBND").unwrap(), "Theo công văn 12/UBND");
        assert_eq!(said(&"ệ".repeat(500)).unwrap().chars().count(), 500);
        assert!(said(&"ệ".repeat(501)).is_err() && said("a\nb").is_err());
        assert_eq!(justification(&MetadataMap::new()).unwrap(), "");
        let mut twice = MetadataMap::new();
        twice.insert(PLAIN, MetadataValue::from_static("a"));
        assert_eq!(justification(&twice).unwrap(), "a");
        twice.append(PLAIN, MetadataValue::from_static("b"));
        assert!(justification(&twice).is_err());
    }
}
