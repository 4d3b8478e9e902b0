//! The registry in SQLite: one file, nothing to install, shared by the gateway and the CLI.

mod identities;
mod read;
mod rows;
mod schema;

use super::lists::Lists;
use super::{
    Act, Client, ClientView, Grant, Item, Network, Page, RegistryError, SigningKey, Staff, Store, TokenRecord, now,
};
use identities::Kind;
use read::{keys, revision, staff};
use rows::{list, read_act, read_client, read_grant, read_token};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The SQLite store, in the name of whoever changes something. Cheap to clone.
#[derive(Clone)]
pub struct SqliteStore {
    connection: Arc<Mutex<Connection>>,
    issued: Arc<Mutex<Connection>>,
    lists: Arc<Mutex<Lists>>,
    actor: String,
}

/// What a change touched, and gateways must read again.
enum Touched {
    /// A client, with its grants.
    Client(String),
    /// A revoked token.
    Token(String),
    /// Signing keys.
    Keys,
    /// Those who administer.
    Staff,
    /// Nothing that calls depend on.
    Nothing,
}

/// Changes that are remembered: a gateway that is further behind reads everything.
const REMEMBERED: i64 = 100_000;

impl From<rusqlite::Error> for RegistryError {
    fn from(error: rusqlite::Error) -> Self {
        RegistryError::Store(error.to_string())
    }
}

impl SqliteStore {
    /// Opens or makes the file.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|error| RegistryError::Store(format!("{}: {error}", folder.display())))?;
        }
        let connection = schema::registry(path)?;
        let issued = schema::issued(&path.with_file_name("issued.sqlite"))?;
        Ok(SqliteStore {
            connection: Arc::new(Mutex::new(connection)),
            issued: Arc::new(Mutex::new(issued)),
            lists: Arc::default(),
            actor: "unnamed".into(),
        })
    }

    /// The same store, for changes in another's name.
    pub fn acting_as(&self, actor: &str) -> Self {
        SqliteStore { actor: actor.to_owned(), ..self.clone() }
    }

    /// One change and the note of it, both or neither: the note goes into the exchange log from here.
    fn change(
        &self,
        act: &str,
        object: String,
        change: impl FnOnce(&Connection) -> Result<Touched, RegistryError>,
    ) -> Result<(), RegistryError> {
        let mut connection = self.connection();
        let whole = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (kind, touched) = match change(&whole)? {
            Touched::Client(id) => ("client", id),
            Touched::Token(id) => ("token", id),
            Touched::Keys => ("keys", String::new()),
            Touched::Staff => ("staff", String::new()),
            Touched::Nothing => ("", String::new()),
        };
        if !kind.is_empty() {
            whole.execute("INSERT INTO changes (kind, id) VALUES (?1, ?2)", params![kind, touched])?;
            whole.execute("DELETE FROM changes WHERE seq <= ?1", [whole.last_insert_rowid() - REMEMBERED])?;
        }
        let id = uuid::Uuid::now_v7();
        let now_us = jiff::Timestamp::now().as_microsecond();
        let note = params![id.as_bytes().as_slice(), now_us, self.actor, act, object];
        whole.execute("INSERT INTO acts VALUES (?1, ?2, ?3, ?4, ?5)", note)?;
        whole.commit()?;
        Ok(())
    }

    /// Notes what somebody did that changes nothing here: it goes into the exchange log like every act.
    pub fn note(&self, act: &str, object: String) -> Result<(), RegistryError> {
        self.change(act, object, |_| Ok(Touched::Nothing))
    }

    fn issued(&self) -> MutexGuard<'_, Connection> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change of one row; none is a fault.
fn must_change(connection: &Connection, sql: &str, id: &str, what: &'static str) -> Result<(), RegistryError> {
    match connection.execute(sql, params![id])? {
        0 => Err(RegistryError::Unknown(what, id.to_owned())),
        _ => Ok(()),
    }
}

fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, RegistryError> {
    Ok(connection.prepare_cached(sql)?.query_map(params, read)?.collect::<Result<_, _>>()?)
}

/// One row, which must be there.
fn one<T>(
    connection: &Connection,
    sql: &str,
    what: &'static str,
    id: &str,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<T, RegistryError> {
    let found = connection.prepare_cached(sql)?.query_row([id], read).optional()?;
    found.ok_or_else(|| RegistryError::Unknown(what, id.to_owned()))
}

/// As much of a listing as a page holds; no row beyond it is read.
fn paged<T>(
    connection: &Connection,
    sql: &str,
    client: Option<&str>,
    page: &Page<'_, T>,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, RegistryError> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = match client {
        Some(client) => statement.query_map(params![page.after, client], read)?,
        None => statement.query_map([page.after], read)?,
    };
    let fitting = rows.filter(|row| row.as_ref().map_or(true, page.fits)).take(page.most);
    Ok(fitting.collect::<Result<_, _>>()?)
}

/// Refuses an id that is taken: who holds it keeps their names.
fn must_be_new(connection: &Connection, sql: &str, what: &'static str, id: &str) -> Result<(), RegistryError> {
    match connection.query_row(sql, [id], |row| row.get(0))? {
        true => Err(RegistryError::Exists(what, id.to_owned())),
        false => Ok(()),
    }
}

/// A key that is taken already is told as such, a client that does not exist too.
fn constraint(error: rusqlite::Error, what: &'static str, id: &str, client: &str) -> RegistryError {
    match error.sqlite_error().map(|inner| inner.extended_code) {
        Some(rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY) => RegistryError::Exists(what, id.to_owned()),
        Some(rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => RegistryError::Unknown("client", client.to_owned()),
        _ => error.into(),
    }
}

impl SqliteStore {
    /// Whether an issued token was revoked, by itself or with all of its client's.
    fn mark(&self, connection: &Connection, token: &mut TokenRecord) -> rusqlite::Result<()> {
        let sql = "SELECT EXISTS (SELECT 1 FROM revocations WHERE token = ?1)
                   OR EXISTS (SELECT 1 FROM clients WHERE id = ?2 AND (retired OR tokens_from > ?3))";
        let mut statement = connection.prepare_cached(sql)?;
        token.revoked = statement.query_row(params![token.id, token.client, token.issued], |row| row.get(0))?;
        Ok(())
    }
}

const CLIENT: &str = "SELECT * FROM clients WHERE id = ?1";

impl Store for SqliteStore {
    fn revision(&self) -> Result<u64, RegistryError> {
        Ok(revision(&self.connection())?.unsigned_abs())
    }

    fn read(&self, after: Option<u64>, take: &mut dyn FnMut(Item<'_>)) -> Result<u64, RegistryError> {
        let mut connection = self.connection();
        // One transaction: the parts belong to one moment.
        let moment = connection.transaction()?;
        let revision = revision(&moment)?;
        match after.map(|after| i64::try_from(after).unwrap_or(i64::MAX)) {
            Some(after) if revision - after < REMEMBERED => self.read_changes(&moment, after, take)?,
            _ => self.read_all(&moment, take)?,
        }
        Ok(revision.unsigned_abs())
    }

    fn client(&self, id: &str) -> Result<Client, RegistryError> {
        one(&self.connection(), CLIENT, "client", id, read_client)
    }

    fn view(&self, id: &str) -> Result<ClientView, RegistryError> {
        let (mut client, mut grants) = (None, Vec::new());
        self.read_client(&self.connection(), id, &mut |item| match item {
            Item::Client(found) => client = Some(found),
            Item::Grant(_, grant) => grants.push(grant),
            _ => {}
        })?;
        let client = client.filter(|client| !client.retired);
        Ok(ClientView::new(client.ok_or_else(|| RegistryError::Unknown("client", id.to_owned()))?, grants))
    }

    fn clients(&self, page: Page<'_, Client>) -> Result<Vec<Client>, RegistryError> {
        paged(&self.connection(), "SELECT * FROM clients WHERE id > ?1 ORDER BY id", None, &page, read_client)
    }

    fn add_client(&self, client: &Client) -> Result<(), RegistryError> {
        self.change("client.add", format!("client:{}", client.id), |connection| {
            let Client { id, agency, contact, names, suspended, created, .. } = client;
            must_be_new(connection, "SELECT EXISTS (SELECT 1 FROM clients WHERE id = ?1)", "client", id)?;
            let names = identities::hold(connection, Kind::Client, id, names)?;
            let row = params![id, agency, contact, list(&names), suspended, created];
            let sql =
                "INSERT INTO clients (id, agency, contact, names, suspended, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let added = connection.execute(sql, row);
            added.map_err(|error| constraint(error, "client", id, id))?;
            Ok(Touched::Client(id.clone()))
        })
    }

    fn change_client(&self, client: &Client) -> Result<(), RegistryError> {
        self.change("client.change", format!("client:{}", client.id), |connection| {
            let sql = "UPDATE clients SET agency = ?2, contact = ?3, names = ?4 WHERE id = ?1 AND NOT retired";
            let names = identities::hold(connection, Kind::Client, &client.id, &client.names)?;
            let row = params![client.id, client.agency, client.contact, list(&names)];
            if connection.execute(sql, row)? == 0 {
                return Err(RegistryError::Unknown("client", client.id.clone()));
            }
            Ok(Touched::Client(client.id.clone()))
        })
    }

    fn suspend_client(&self, id: &str, suspended: bool) -> Result<(), RegistryError> {
        let (act, sql) = if suspended {
            ("client.suspend", "UPDATE clients SET suspended = 1 WHERE id = ?1 AND NOT retired")
        } else {
            ("client.resume", "UPDATE clients SET suspended = 0 WHERE id = ?1 AND NOT retired")
        };
        self.change(act, format!("client:{id}"), |connection| {
            must_change(connection, sql, id, "client")?;
            Ok(Touched::Client(id.to_owned()))
        })
    }

    fn retire_client(&self, id: &str) -> Result<(), RegistryError> {
        self.change("client.retire", format!("client:{id}"), |connection| {
            must_change(connection, "UPDATE clients SET retired = 1 WHERE id = ?1 AND NOT retired", id, "client")?;
            connection.execute("UPDATE grants SET withdrawn = 1 WHERE client = ?1", [id])?;
            Ok(Touched::Client(id.to_owned()))
        })
    }

    fn grant(&self, id: &str) -> Result<Grant, RegistryError> {
        one(&self.connection(), "SELECT * FROM grants WHERE id = ?1", "grant", id, read_grant)
    }

    fn grants(&self, client: Option<&str>, page: Page<'_, Grant>) -> Result<Vec<Grant>, RegistryError> {
        let sql = match client {
            Some(_) => "SELECT * FROM grants WHERE id > ?1 AND client = ?2 ORDER BY id",
            None => "SELECT * FROM grants WHERE id > ?1 ORDER BY id",
        };
        paged(&self.connection(), sql, client, &page, read_grant)
    }

    fn add_grant(&self, grant: &Grant) -> Result<(), RegistryError> {
        let object = format!("grant:{} client:{} scopes:{}", grant.id, grant.client, grant.scopes.join(","));
        self.change("grant.add", object, |connection| {
            let retired: Option<bool> = connection
                .query_row("SELECT retired FROM clients WHERE id = ?1", [&grant.client], |row| row.get(0))
                .optional()?;
            if retired != Some(false) {
                return Err(RegistryError::Unknown("client", grant.client.clone()));
            }
            let row = params![
                grant.id,
                grant.client,
                list(&grant.scopes),
                list(&grant.purposes),
                list(&grant.fields),
                grant.rate,
                grant.burst,
                i64::try_from(grant.daily_quota).unwrap_or(i64::MAX),
                grant.not_before,
                grant.not_after,
                grant.legal_basis,
                list(&grant.networks.iter().map(Network::to_string).collect::<Vec<_>>()),
                self.actor,
                Option::<String>::None,
                grant.needs_approval,
                grant.withdrawn
            ];
            let sql =
                "INSERT INTO grants VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
            let added = connection.execute(sql, row);
            added.map_err(|error| constraint(error, "grant", &grant.id, &grant.client))?;
            Ok(Touched::Client(grant.client.clone()))
        })
    }

    fn approve_grant(&self, id: &str) -> Result<(), RegistryError> {
        self.change("grant.approve", format!("grant:{id}"), |connection| {
            let sql = "SELECT requested_by, client FROM grants
                       WHERE id = ?1 AND NOT withdrawn AND needs_approval AND approved_by IS NULL";
            let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
            let (asked, client) = one(connection, sql, "grant that waits for approval", id, read)?;
            if asked == self.actor {
                return Err(RegistryError::Forbidden("a grant is approved by another person than who asked for it"));
            }
            connection.execute("UPDATE grants SET approved_by = ?2 WHERE id = ?1", params![id, self.actor])?;
            Ok(Touched::Client(client))
        })
    }

    fn withdraw_grant(&self, id: &str) -> Result<(), RegistryError> {
        self.change("grant.withdraw", format!("grant:{id}"), |connection| {
            let sql = "UPDATE grants SET withdrawn = 1 WHERE id = ?1 RETURNING client";
            Ok(Touched::Client(one(connection, sql, "grant", id, |row| row.get(0))?))
        })
    }

    fn token(&self, id: &str) -> Result<TokenRecord, RegistryError> {
        let connection = self.connection();
        let mut token = one(&self.issued(), "SELECT * FROM tokens WHERE id = ?1", "token", id, read_token)?;
        self.mark(&connection, &mut token)?;
        Ok(token)
    }

    fn tokens(&self, client: Option<&str>, page: Page<'_, TokenRecord>) -> Result<Vec<TokenRecord>, RegistryError> {
        let sql = match client {
            Some(_) => "SELECT * FROM tokens WHERE (?1 = '' OR id < ?1) AND client = ?2 ORDER BY id DESC",
            None => "SELECT * FROM tokens WHERE (?1 = '' OR id < ?1) ORDER BY id DESC",
        };
        let connection = self.connection();
        paged(&self.issued(), sql, client, &page, |row| {
            let mut token = read_token(row)?;
            self.mark(&connection, &mut token)?;
            Ok(token)
        })
    }

    fn add_tokens(&self, tokens: &[TokenRecord]) -> Result<(), RegistryError> {
        let mut issued = self.issued();
        let whole = issued.transaction()?;
        for token in tokens {
            let (scopes, certificate) = (list(&token.scopes), &token.certificate);
            let row = params![token.id, token.client, scopes, certificate, token.issued, token.starts, token.expires];
            let added = whole.prepare_cached("INSERT INTO tokens VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(row);
            added.map_err(|error| constraint(error, "token", &token.id, &token.client))?;
        }
        whole.commit()?;
        Ok(())
    }

    fn add_token(&self, token: &TokenRecord) -> Result<(), RegistryError> {
        self.add_tokens(std::slice::from_ref(token))?;
        self.change("token.issue", format!("token:{} client:{}", token.id, token.client), |_| Ok(Touched::Nothing))
    }

    fn revoke_token(&self, id: &str) -> Result<(), RegistryError> {
        let expires: i64 =
            one(&self.issued(), "SELECT expires FROM tokens WHERE id = ?1", "token", id, |row| row.get(0))?;
        self.change("token.revoke", format!("token:{id}"), |connection| {
            connection.execute("INSERT OR IGNORE INTO revocations VALUES (?1, ?2)", params![id, expires])?;
            Ok(Touched::Token(id.to_owned()))
        })
    }

    fn revoke_client_tokens(&self, client: &str) -> Result<u64, RegistryError> {
        let in_force = |token: &TokenRecord| !token.revoked && token.expires > now();
        let page = Page { fits: &in_force, ..Page::ALL };
        let revoked = self.tokens(Some(client), page)?.len() as u64;
        self.change("token.revoke", format!("client:{client}"), |connection| {
            // Those of this second too; one issued later in it begins with the next.
            let sql = "UPDATE clients SET tokens_from = ?2 WHERE id = ?1 AND NOT retired";
            match connection.execute(sql, params![client, now() + 1])? {
                0 => Err(RegistryError::Unknown("client", client.to_owned())),
                _ => Ok(Touched::Client(client.to_owned())),
            }
        })?;
        Ok(revoked)
    }

    fn keys(&self) -> Result<Vec<SigningKey>, RegistryError> {
        keys(&self.connection())
    }

    fn add_key(&self, key: &SigningKey, others_until: i64) -> Result<(), RegistryError> {
        self.change("key.rotate", format!("key:{}", key.kid), |connection| {
            connection.execute("UPDATE keys SET believed_until = ?1 WHERE believed_until = 0", [others_until])?;
            let row = params![key.kid, key.algorithm, key.public_pem, key.created, key.believed_until];
            let added = connection.execute("INSERT INTO keys VALUES (?1, ?2, ?3, ?4, ?5)", row);
            added.map_err(|error| constraint(error, "key", &key.kid, ""))?;
            Ok(Touched::Keys)
        })
    }

    fn retire_key(&self, kid: &str) -> Result<(), RegistryError> {
        self.change("key.retire", format!("key:{kid}"), |connection| {
            must_change(connection, "UPDATE keys SET believed_until = 1 WHERE kid = ?1", kid, "key")?;
            Ok(Touched::Keys)
        })
    }

    fn staff(&self) -> Result<Vec<Staff>, RegistryError> {
        staff(&self.connection())
    }

    fn add_staff(&self, staff: &Staff) -> Result<(), RegistryError> {
        self.change("staff.add", format!("staff:{}", staff.id), |connection| {
            let roles = serde_json::to_string(&staff.roles).map_err(|error| RegistryError::Store(error.to_string()))?;
            must_be_new(connection, "SELECT EXISTS (SELECT 1 FROM staff WHERE id = ?1)", "member of staff", &staff.id)?;
            let names = identities::hold(connection, Kind::Staff, &staff.id, &staff.names)?;
            let row = params![staff.id, roles, list(&names)];
            let added = connection.execute("INSERT INTO staff VALUES (?1, ?2, ?3)", row);
            added.map_err(|error| constraint(error, "member of staff", &staff.id, ""))?;
            Ok(Touched::Staff)
        })
    }

    fn remove_staff(&self, id: &str) -> Result<(), RegistryError> {
        self.change("staff.remove", format!("staff:{id}"), |connection| {
            must_change(connection, "DELETE FROM staff WHERE id = ?1", id, "member of staff")?;
            Ok(Touched::Staff)
        })
    }

    fn named(&self, actor: &str) -> Box<dyn Store> {
        Box::new(self.acting_as(actor))
    }

    fn acts(&self) -> Result<Vec<Act>, RegistryError> {
        all(&self.connection(), "SELECT * FROM acts ORDER BY id LIMIT 1000", [], read_act)
    }

    fn forget_act(&self, id: &[u8; 16]) -> Result<(), RegistryError> {
        self.connection().execute("DELETE FROM acts WHERE id = ?1", [id.as_slice()])?;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
