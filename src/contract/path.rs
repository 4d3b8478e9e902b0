//! Paths at the source.

/// A path at the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WirePath {
    /// Relative to the document's root instead of the message's location.
    pub absolute: bool,
    /// The names on the path; empty for "." (the location itself).
    pub parts: Vec<String>,
}

impl WirePath {
    /// Reads `a/b`, `/a/b` or `.`.
    pub fn parse(text: &str) -> Self {
        let absolute = text.starts_with('/');
        let parts = text.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect();
        WirePath { absolute, parts }
    }
}
