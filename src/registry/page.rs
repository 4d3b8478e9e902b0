//! Listings: the request for one, and a page of it. The store filters and pages; it never returns more than a page.

use super::{ClientState, GrantState, TokenState};

/// A part of a listing: the records after `after` that the filter selects.
#[derive(Debug, Clone, Copy)]
pub struct Page<'q, F> {
    /// The end of the previous page ([`ListPage::next`]); empty: from the beginning.
    pub after: &'q str,
    /// Maximum number of records. A page may have fewer although more follow: a store examines a bounded number of
    /// records for each page. `usize::MAX`: the complete listing, however long that takes.
    pub max: usize,
    /// Selects the records of the listing.
    pub filter: F,
}

/// A filter that selects every record.
pub trait AllRecords {
    /// The filter.
    const EVERY: Self;
}

impl<F: AllRecords> Page<'static, F> {
    /// The complete listing.
    pub const ALL: Self = Page { after: "", max: usize::MAX, filter: F::EVERY };
}

/// Selects the clients of a listing.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClientFilter<'q> {
    /// Only those of this agency and the agencies below it; empty: of any.
    pub agency: &'q str,
    /// Only those in this state.
    pub state: Option<ClientState>,
}

impl AllRecords for ClientFilter<'static> {
    const EVERY: Self = ClientFilter { agency: "", state: None };
}

/// Selects the grants of a listing.
#[derive(Debug, Clone, Copy, Default)]
pub struct GrantFilter {
    /// Only those in this state now.
    pub state: Option<GrantState>,
}

impl AllRecords for GrantFilter {
    const EVERY: Self = GrantFilter { state: None };
}

/// Selects the tokens of a listing.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenFilter {
    /// Only those in this state now.
    pub state: Option<TokenState>,
}

impl AllRecords for TokenFilter {
    const EVERY: Self = TokenFilter { state: None };
}

/// A page of a listing. Reads like the list of its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage<T> {
    /// The records.
    pub records: Vec<T>,
    /// The beginning of the next page ([`Page::after`]); empty: this was the last page. There may be a next page
    /// although this one is not full.
    pub next: String,
}

impl<T> std::ops::Deref for ListPage<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.records
    }
}

impl<T> IntoIterator for ListPage<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.records.into_iter()
    }
}
