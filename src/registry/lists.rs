//! Lists of texts that many grants and tokens share, each stored once: a million grants have a few hundred different
//! lists of scopes, purposes and fields.

use foldhash::HashMap;
use std::sync::Arc;

/// Minimum number of lists for a search for unused ones.
const WORTH_A_LOOK: usize = 1_024;

/// Lists by their stored text: either all JSON or all words.
#[derive(Default)]
pub(crate) struct Lists {
    known: HashMap<Box<str>, Arc<[String]>>,
    /// Number of lists at which the unused ones are dropped next.
    look_at: usize,
}

impl Lists {
    /// Returns the list of a stored text (JSON); a text that cannot be read is an empty list, and so grants nothing.
    pub(super) fn of(&mut self, text: &str) -> Arc<[String]> {
        self.read(text, |text| serde_json::from_str(text).unwrap_or_default())
    }

    /// Returns the list of these words.
    pub(crate) fn words(&mut self, text: &str) -> Arc<[String]> {
        self.read(text, |text| text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect())
    }

    fn read(&mut self, text: &str, read: impl FnOnce(&str) -> Vec<String>) -> Arc<[String]> {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        if self.known.len() >= self.look_at.max(WORTH_A_LOOK) {
            self.known.retain(|_, list| Arc::strong_count(list) > 1);
            self.look_at = 2 * self.known.len();
        }
        let list: Arc<[String]> = read(text).into();
        self.known.insert(text.into(), list.clone());
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lists_are_one_and_unused_ones_go() {
        let mut lists = Lists::default();
        let first = lists.of("[\"a\",\"b\"]");
        assert!(Arc::ptr_eq(&first, &lists.of("[\"a\",\"b\"]")) && *first == ["a", "b"]);
        assert!(lists.of("no list").is_empty());
        for number in 0..10 * WORTH_A_LOOK {
            lists.of(&format!("[\"{number}\"]"));
        }
        assert!(lists.known.len() <= WORTH_A_LOOK, "{}", lists.known.len());
        assert!(Arc::ptr_eq(&first, &lists.of("[\"a\",\"b\"]")), "one in use stays");
    }
}
