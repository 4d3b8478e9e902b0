//! Listings, filtered and paged in SQL. Conditions with an index select the rows; conditions that depend on the time
//! are checked row by row, for at most [`MAX_LOOKED_AT`] rows a page, so that no page takes long however few rows it
//! finds.

use super::super::{
    Client, ClientFilter, ClientState, Grant, GrantFilter, GrantState, ListPage, MAX_LIFETIME, Page, RegistryError,
    TokenFilter, TokenRecord, TokenState, now,
};
use super::rows::{read_client, read_grant, read_token};
use rusqlite::{Connection, OptionalExtension, Row, ToSql};

/// Maximum number of rows that are checked for one page: about 40 ms of tokens.
const MAX_LOOKED_AT: usize = 20_000;
/// After every id: ids are ASCII.
const LAST: &str = "\u{10FFFF}";

/// Indexes of the registry's tables that listings use.
pub(super) const REGISTRY_INDEXES: &str = "
    CREATE INDEX IF NOT EXISTS clients_agency ON clients(agency, id);
    CREATE INDEX IF NOT EXISTS clients_suspended ON clients(id) WHERE suspended AND NOT retired;
    CREATE INDEX IF NOT EXISTS clients_retired ON clients(id) WHERE retired;
    CREATE INDEX IF NOT EXISTS grants_of_client ON grants(client, id);
    CREATE INDEX IF NOT EXISTS grants_pending ON grants(id)
        WHERE NOT withdrawn AND needs_approval AND approved_by IS NULL;
    CREATE INDEX IF NOT EXISTS grants_withdrawn ON grants(id) WHERE withdrawn;
    CREATE INDEX IF NOT EXISTS revocations_ended ON revocations(expires);";

/// Indexes of the issued tokens.
pub(super) const ISSUED_INDEXES: &str = "
    CREATE INDEX IF NOT EXISTS tokens_of_client ON tokens(client, id);
    CREATE INDEX IF NOT EXISTS tokens_ended ON tokens(expires);";

/// Issued tokens, and whether they were revoked, by themselves or with all of their client's tokens.
pub(super) const TOKENS: &str = "SELECT tokens.*,
        EXISTS (SELECT 1 FROM revocations WHERE token = tokens.id)
        OR EXISTS (SELECT 1 FROM clients WHERE id = tokens.client AND (retired OR tokens_from > tokens.issued))
        AS revoked FROM tokens";

/// A listing: its rows are `select WHERE conditions AND rest`, by id.
struct Listing<'l> {
    select: &'l str,
    /// Conditions with an index.
    conditions: Vec<&'l str>,
    /// Conditions that are checked row by row.
    rest: Option<&'l str>,
    /// Whether the greatest id comes first.
    newest_first: bool,
    params: Vec<&'l dyn ToSql>,
}

impl Listing<'_> {
    /// Returns a page of it. The last of its conditions must be `id < ?` or `id > ?`, with the last of the parameters.
    fn page<T>(
        self,
        connection: &Connection,
        most: usize,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
        id: impl Fn(&T) -> &str,
    ) -> Result<ListPage<T>, RegistryError> {
        let order = if self.newest_first { "DESC" } else { "ASC" };
        let inner = format!("{} WHERE {} ORDER BY id {order}", self.select, self.conditions.join(" AND "));
        let whole = most == usize::MAX;
        let first = self.params.len() + 1;
        // One more than the page holds shows whether another one follows.
        let wanted = i64::try_from(most).map_or(i64::MAX, |most| most.saturating_add(1));
        let looked_at = if whole { i64::MAX } else { MAX_LOOKED_AT.max(most) as i64 };
        let sql = match self.rest {
            Some(rest) => {
                format!("SELECT * FROM ({inner} LIMIT ?{}) WHERE {rest} ORDER BY id {order} LIMIT ?{first}", first + 1)
            }
            None => format!("{inner} LIMIT ?{first}"),
        };
        let mut params = self.params.clone();
        params.push(&wanted);
        if self.rest.is_some() {
            params.push(&looked_at);
        }
        let mut statement = connection.prepare_cached(&sql)?;
        let mut records: Vec<T> = statement.query_map(params.as_slice(), read)?.collect::<Result<_, _>>()?;
        if records.len() > most {
            records.truncate(most);
            let next = records.last().map(|last| id(last).to_owned()).unwrap_or_default();
            return Ok(ListPage { records, next });
        }
        let mut next = String::new();
        if self.rest.is_some() && !whole {
            let sql = format!("SELECT id FROM ({inner} LIMIT 1 OFFSET {})", looked_at - 1);
            let last =
                connection.prepare_cached(&sql)?.query_row(self.params.as_slice(), |row| row.get(0)).optional()?;
            next = last.unwrap_or_default();
        }
        Ok(ListPage { records, next })
    }
}

/// Clients by id.
pub(super) fn clients(
    connection: &Connection,
    page: &Page<'_, ClientFilter<'_>>,
) -> Result<ListPage<Client>, RegistryError> {
    let ClientFilter { agency, state } = page.filter;
    let mut conditions = Vec::new();
    let mut params: Vec<&dyn ToSql> = Vec::new();
    let below = format!("{agency}.");
    if agency.is_empty() {
        conditions.push("id > ?1");
    } else {
        // One range of the index: from `H49` to before `H49/`; `/` follows `.`, and nothing else of the agency's is
        // between them except what the last condition excludes.
        conditions.push("agency >= ?1 AND agency < ?1 || '/'");
        conditions.push("(agency = ?1 OR substr(agency, 1, length(?2)) = ?2)");
        conditions.push("id > ?3");
        params.extend([&agency as &dyn ToSql, &below]);
    }
    params.push(&page.after);
    match state {
        None => {}
        Some(ClientState::Active) => conditions.insert(0, "NOT suspended AND NOT retired"),
        Some(ClientState::Suspended) => conditions.insert(0, "suspended AND NOT retired"),
        Some(ClientState::Retired) => conditions.insert(0, "retired"),
    }
    let listing = Listing { select: "SELECT * FROM clients", conditions, rest: None, newest_first: false, params };
    listing.page(connection, page.max, read_client, |client| &client.id)
}

/// Grants by id.
pub(super) fn grants(
    connection: &Connection,
    client: Option<&str>,
    page: &Page<'_, GrantFilter>,
) -> Result<ListPage<Grant>, RegistryError> {
    let now = now();
    let (id, client) = (page.after, client.unwrap_or_default());
    let mut conditions = Vec::new();
    let mut params: Vec<&dyn ToSql> = vec![&now];
    let rest = match page.filter.state {
        None => None,
        Some(GrantState::Pending) => {
            conditions.push("NOT withdrawn AND needs_approval AND approved_by IS NULL");
            None
        }
        Some(GrantState::Withdrawn) => {
            conditions.push("withdrawn");
            None
        }
        Some(GrantState::InForce) => Some(
            "NOT withdrawn AND (NOT needs_approval OR approved_by IS NOT NULL) AND not_before <= ?1 AND not_after > ?1",
        ),
        Some(GrantState::OutOfTime) => Some(
            "NOT withdrawn AND (NOT needs_approval OR approved_by IS NOT NULL) AND (not_before > ?1 OR not_after <= ?1)",
        ),
    };
    if client.is_empty() {
        conditions.push("id > ?2");
    } else {
        conditions.push("client = ?2");
        conditions.push("id > ?3");
        params.push(&client);
    }
    params.push(&id);
    let listing = Listing { select: "SELECT * FROM grants", conditions, rest, newest_first: false, params };
    listing.page(connection, page.max, read_grant, |grant| &grant.id)
}

/// Issued tokens, newest first.
pub(super) fn tokens(
    connection: &Connection,
    client: Option<&str>,
    page: &Page<'_, TokenFilter>,
) -> Result<ListPage<TokenRecord>, RegistryError> {
    let now = now();
    let client = client.unwrap_or_default();
    let after = if page.after.is_empty() { LAST } else { page.after };
    let floor = in_force_from(now);
    let mut conditions = Vec::new();
    let mut params: Vec<&dyn ToSql> = vec![&now, &floor];
    let rest = match page.filter.state {
        None => None,
        Some(TokenState::InForce) => {
            conditions.push("id >= ?2");
            Some("expires > ?1 AND NOT revoked")
        }
        Some(TokenState::Expired) => Some("expires <= ?1 AND NOT revoked"),
        Some(TokenState::Revoked) => Some("revoked"),
    };
    if client.is_empty() {
        conditions.push("id < ?3");
    } else {
        conditions.push("client = ?3");
        conditions.push("id < ?4");
        params.push(&client);
    }
    params.push(&after);
    let listing = Listing { select: TOKENS, conditions, rest, newest_first: true, params };
    listing.page(connection, page.max, read_token, |token| &token.id)
}

/// No token in force has a smaller id: ids begin with the time of issue (UUIDv7), and no token begins later than the
/// longest lifetime after it, or lives longer than one. An hour is added as tolerance: clocks are set back.
fn in_force_from(now: i64) -> String {
    let from_ms = (now - 2 * MAX_LIFETIME.as_secs() as i64 - 3_600).max(0) * 1_000;
    format!("{:08x}-{:04x}", from_ms >> 16, from_ms & 0xffff)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::SqliteStore;
    use super::*;
    use crate::registry::Store;

    fn store() -> (tempfile::TempDir, SqliteStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("registry.sqlite")).unwrap();
        (folder, store)
    }

    fn client(id: &str, agency: &str) -> Client {
        Client { id: id.into(), agency: agency.into(), names: vec![format!("{id}.example")], ..Client::default() }
    }

    /// A token that was issued this long ago.
    fn token(number: usize, client: &str, ago_s: i64, lifetime_s: i64) -> TokenRecord {
        let issued = now() - ago_s;
        let ms = (issued * 1_000).unsigned_abs();
        let mut random = [0; 10];
        random[2..].copy_from_slice(&(number as u64).to_be_bytes());
        let id = uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid().to_string();
        let expires = issued + lifetime_s;
        let scopes = vec!["population:read".into()];
        let certificate = String::new();
        TokenRecord { id, client: client.into(), scopes, certificate, issued, starts: issued, expires, revoked: false }
    }

    #[test]
    fn clients_are_filtered_by_agency_and_state() {
        let (_folder, store) = store();
        for (id, agency) in [("a", "H49"), ("b", "H49.12"), ("c", "H491"), ("d", "H49-1"), ("e", "H50"), ("f", "H49.1")]
        {
            store.add_client(&client(id, agency)).unwrap();
        }
        store.suspend_client("b", true).unwrap();
        store.retire_client("f").unwrap();
        let ids = |agency: &str, state, most: usize| {
            let page = Page { after: "", max: most, filter: ClientFilter { agency, state } };
            store.clients(page).unwrap().records.into_iter().map(|client| client.id).collect::<Vec<_>>()
        };
        assert_eq!(ids("H49", None, 10), ["a", "b", "f"]);
        assert_eq!(ids("H49.1", None, 10), ["f"], "H49.12 is no part of H49.1");
        assert_eq!(ids("", Some(ClientState::Active), 10), ["a", "c", "d", "e"]);
        assert_eq!(ids("H49", Some(ClientState::Suspended), 10), ["b"]);
        assert_eq!(ids("", Some(ClientState::Retired), 10), ["f"]);
        assert_eq!(ids("", None, 2), ["a", "b"]);
        let page = Page { after: "b", max: 2, filter: ClientFilter::default() };
        let listed = store.clients(page).unwrap();
        assert_eq!((listed[0].id.as_str(), listed.next.as_str()), ("c", "d"));
    }

    #[test]
    fn tokens_in_force_are_found_page_by_page_among_many_that_ended() {
        let (_folder, store) = store();
        store.add_client(&client("shop", "H49")).unwrap();
        store.add_client(&client("other", "H49")).unwrap();
        // The oldest and the newest are in force; between them are more than one page checks.
        let mut all: Vec<TokenRecord> = vec![token(0, "shop", 80_000, 86_400)];
        all.extend((1..=MAX_LOOKED_AT + 10).map(|number| token(number, "shop", 70_000, 60)));
        all.push(token(1_000_000, "shop", 10, 3_600));
        all.push(token(1_000_001, "other", 10, 3_600));
        store.add_tokens(&all).unwrap();
        let list = |after: &str, client, state| {
            store.tokens(client, Page { after, max: 5, filter: TokenFilter { state } }).unwrap()
        };
        let first = list("", Some("shop"), Some(TokenState::InForce));
        assert_eq!(first.len(), 1);
        assert!(!first.next.is_empty(), "the page ends before the listing does");
        let second = list(&first.next, Some("shop"), Some(TokenState::InForce));
        assert_eq!((second.len(), second.next.as_str()), (1, ""));
        assert_eq!(second[0].id, all[0].id);
        assert_eq!(list("", None, None).len(), 5);
        assert_eq!(list("", None, Some(TokenState::InForce)).len(), 2);
        store.revoke_token(&all[0].id).unwrap();
        store.revoke_client_tokens("other").unwrap();
        assert_eq!(list("", Some("other"), Some(TokenState::InForce)).len(), 0);
        let revoked = Page { filter: TokenFilter { state: Some(TokenState::Revoked) }, ..Page::ALL };
        assert_eq!(store.tokens(None, revoked).unwrap().len(), 2);
        let expired = Page { filter: TokenFilter { state: Some(TokenState::Expired) }, ..Page::ALL };
        assert_eq!(store.tokens(None, expired).unwrap().len(), MAX_LOOKED_AT + 10);
    }

    #[test]
    fn grants_are_filtered_by_state() {
        let (_folder, store) = store();
        store.add_client(&client("shop", "H49")).unwrap();
        let grant = |id: &str, from: i64, to: i64, needs_approval: bool| Grant {
            id: id.into(),
            client: "shop".into(),
            not_before: now() + from,
            not_after: now() + to,
            needs_approval,
            ..Grant::default()
        };
        let all = [
            grant("g1", -9, 99, false),
            grant("g2", -9, 99, true),
            grant("g3", -9, -1, false),
            grant("g4", 50, 99, false),
            grant("g5", -9, 99, false),
        ];
        all.iter().for_each(|grant| store.add_grant(grant).unwrap());
        store.withdraw_grant("g5").unwrap();
        for client in [None, Some("shop")] {
            let ids = |state| {
                let page = Page { after: "", max: 9, filter: GrantFilter { state: Some(state) } };
                let found = store.grants(client, page).unwrap();
                for grant in found.iter() {
                    assert_eq!(grant.state(now()), state, "SQL and Rust agree");
                }
                found.into_iter().map(|grant| grant.id).collect::<Vec<_>>()
            };
            assert_eq!(ids(GrantState::InForce), ["g1"]);
            assert_eq!(ids(GrantState::Pending), ["g2"]);
            assert_eq!(ids(GrantState::OutOfTime), ["g3", "g4"]);
            assert_eq!(ids(GrantState::Withdrawn), ["g5"]);
        }
        assert!(store.grants(Some("other"), Page::ALL).unwrap().is_empty());
    }
}
