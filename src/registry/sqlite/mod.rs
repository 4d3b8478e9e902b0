//! The registry in SQLite: one file, nothing to install, shared by the gateway and the CLI.

mod admin_events;
mod adopt;
mod approval;
mod changing;
mod clients;
mod grants;
mod identities;
mod issued;
mod keys;
mod list;
mod notices;
mod pending;
mod people;
mod read;
mod readers;
mod records;
mod replica;
mod replica_import;
mod rows;
mod schema;
mod tokens;

use super::lists::Lists;
use super::replication::{Replication, RowChange, RowKey};
use super::{
    Actor, AdminEventKey, ChangeOutcome, Client, ClientFilter, ClientView, Grant, GrantFilter, Item, ListPage,
    LoggedEvent, MaintenanceNotice, Page, PendingChange, RegistryError, SigningKey, Staff, Store, TokenFilter,
    TokenRecord, now,
};
use crate::keyfile::Vault;
pub use adopt::ADOPT_EVENT;
use read::{keys, revision, staff};
use readers::Readers;
pub use records::{FileMark, FileRecord, IssuedFile, RESTATE_EVENT, RegistryFile};
pub use replica::SqliteReplica;
use rows::{read_client, read_grant, read_token};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use schema::REMEMBERED;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The name of the registry's file in a data folder.
pub const FILE: &str = "registry.sqlite";

/// The SQLite store, in the name of one actor. Cheap to clone.
///
/// The follower of changes has a dedicated connection, readers have theirs, and so has each file's writer: none waits
/// for another (SQLite's write-ahead log lets readers and one writer work side by side).
#[derive(Clone)]
pub struct SqliteStore {
    path: Arc<Path>,
    /// Authenticates events on their way into the log.
    key: AdminEventKey,
    /// Writes the registry.
    connection: Arc<Mutex<Connection>>,
    /// Writes issued tokens.
    issued: Arc<Mutex<Connection>>,
    readers: Arc<Readers>,
    /// Reads changes, with the lists of texts that it has seen.
    follower: Arc<Mutex<(Connection, Lists)>>,
    actor: Arc<Actor>,
    /// The actor's justification.
    justification: Arc<str>,
    /// What makes changes count, if the file is a replica.
    replication: Option<Arc<dyn Replication>>,
}

impl From<rusqlite::Error> for RegistryError {
    fn from(error: rusqlite::Error) -> Self {
        RegistryError::Store(error.to_string())
    }
}

impl SqliteStore {
    /// Opens or creates the file, if no secret seals the keys.
    ///
    /// # Errors
    /// As for [`SqliteStore::open_with`].
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        Self::open_with(path, &Vault::default())
    }

    /// Opens or creates the file. This vault seals the key of events beside it.
    ///
    /// # Errors
    /// The file or the key cannot be used, or the file is of a later version.
    pub fn open_with(path: &Path, vault: &Vault) -> Result<Self, RegistryError> {
        if let Some(folder) = path.parent() {
            crate::keyfile::private_folder(folder)
                .map_err(|error| RegistryError::Store(format!("{}: {error}", folder.display())))?;
        }
        // A file gets its key when it is created; a lost key is replaced only by command.
        let key =
            if schema::is_made(path)? { AdminEventKey::open(path, vault) } else { AdminEventKey::make(path, vault) }?;
        let connection = schema::registry(path, &key)?;
        let issued = schema::issued(path)?;
        let readers = Readers::new(path);
        let follower = readers.open()?;
        Ok(SqliteStore {
            path: path.into(),
            key,
            connection: Arc::new(Mutex::new(connection)),
            issued: Arc::new(Mutex::new(issued)),
            readers: Arc::new(readers),
            follower: Arc::new(Mutex::new((follower, Lists::default()))),
            actor: Arc::new(Actor::local()),
            justification: "".into(),
            replication: None,
        })
    }

    /// Returns rows of the registry as an engine takes them, in an order of their own, after one of them; at most `max`.
    /// Nothing may change meanwhile.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn shared_rows(&self, after: Option<&RowKey>, max: usize) -> Result<Vec<RowChange>, RegistryError> {
        self.readers.read(|connection| replica::rows_after(connection, after, max))
    }

    /// Returns the number of the last admin event, whether it is in the log yet or not.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn last_event(&self) -> Result<u64, RegistryError> {
        self.readers.read(admin_events::last)
    }

    /// Returns the same store, whose changes count if this engine says so: the file is a replica from now on
    /// ([`SqliteReplica`]), and is changed by what counts everywhere alone.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn replicated(&self, replication: Arc<dyn Replication>) -> Result<Self, RegistryError> {
        replica::watch_rows(&self.connection())?;
        Ok(SqliteStore { replication: Some(replication), ..self.clone() })
    }

    /// Returns the path of the registry's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the key that authenticates its events.
    pub fn key(&self) -> &AdminEventKey {
        &self.key
    }

    /// Returns the same store, for changes in another actor's name.
    pub fn acting_as(&self, actor: Actor) -> Self {
        SqliteStore { actor: Arc::new(actor), ..self.clone() }
    }

    /// Returns the actor of its changes.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Returns the same store, with the justification of the next changes, at most [`super::admin_event::MAX_JUSTIFICATION`] characters.
    ///
    /// # Errors
    /// The text is longer.
    pub fn because(&self, justification: &str) -> Result<Self, RegistryError> {
        if justification.chars().count() > super::admin_event::MAX_JUSTIFICATION {
            return Err(RegistryError::Invalid("a justification has at most 500 characters"));
        }
        Ok(SqliteStore { justification: justification.into(), ..self.clone() })
    }

    fn issued(&self) -> MutexGuard<'_, Connection> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follower(&self) -> MutexGuard<'_, (Connection, Lists)> {
        self.follower.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Returns one row, which must exist.
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

/// Refuses a taken id: its holder keeps their names.
fn must_be_new(connection: &Connection, sql: &str, what: &'static str, id: &str) -> Result<(), RegistryError> {
    match connection.query_row(sql, [id], |row| row.get(0))? {
        true => Err(RegistryError::Exists(what, id.to_owned())),
        false => Ok(()),
    }
}

/// Reports a key that is already taken, or a client that does not exist, as such.
fn constraint(error: rusqlite::Error, what: &'static str, id: &str, client: &str) -> RegistryError {
    match error.sqlite_error().map(|inner| inner.extended_code) {
        Some(rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY) => RegistryError::Exists(what, id.to_owned()),
        Some(rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => RegistryError::Unknown("client", client.to_owned()),
        _ => error.into(),
    }
}

const CLIENT: &str = "SELECT * FROM clients WHERE id = ?1";

impl Store for SqliteStore {
    fn revision(&self) -> Result<u64, RegistryError> {
        Ok(revision(&self.follower().0)?.unsigned_abs())
    }

    fn read(&self, after: Option<u64>, take: &mut dyn FnMut(Item<'_>)) -> Result<u64, RegistryError> {
        let mut follower = self.follower();
        let (connection, lists) = &mut *follower;
        // One transaction: the parts belong to one moment.
        let moment = connection.transaction()?;
        let revision = revision(&moment)?;
        // If the file is an older one, or a change is missing, the complete registry is read again.
        match after.map(|after| i64::try_from(after).unwrap_or(i64::MAX)) {
            Some(after)
                if (0..REMEMBERED).contains(&revision.saturating_sub(after))
                    && read::is_unbroken(&moment, after, revision)? =>
            {
                read::changes(&moment, after, lists, take)?;
            }
            _ => read::everything(&moment, lists, take)?,
        }
        Ok(revision.unsigned_abs())
    }

    fn client(&self, id: &str) -> Result<Client, RegistryError> {
        self.readers.read(|connection| one(connection, CLIENT, "client", id, read_client))
    }

    fn view(&self, id: &str) -> Result<ClientView, RegistryError> {
        let (mut client, mut grants) = (None, Vec::new());
        self.readers.read(|connection| {
            read::client(connection, id, &mut Lists::default(), &mut |item| match item {
                Item::Client(found) => client = Some(found),
                Item::Grant(_, grant) => grants.push(grant),
                _ => {}
            })
        })?;
        let client = client.filter(|client: &Client| !client.retired);
        Ok(ClientView::new(client.ok_or_else(|| RegistryError::Unknown("client", id.to_owned()))?, grants))
    }

    fn clients(&self, page: Page<'_, ClientFilter<'_>>) -> Result<ListPage<Client>, RegistryError> {
        self.readers.read(|connection| list::clients(connection, &page))
    }

    fn add_client(&self, client: &Client) -> Result<(), RegistryError> {
        clients::add(self, client)
    }

    fn change_client(&self, client: &Client) -> Result<ChangeOutcome, RegistryError> {
        clients::change(self, client)
    }

    fn suspend_client(&self, id: &str, suspended: bool) -> Result<(), RegistryError> {
        if suspended { clients::suspend(self, id) } else { self.resume_client(id).map(drop) }
    }

    fn resume_client(&self, id: &str) -> Result<ChangeOutcome, RegistryError> {
        clients::resume(self, id)
    }

    fn retire_client(&self, id: &str) -> Result<(), RegistryError> {
        clients::retire(self, id)
    }

    fn grant(&self, id: &str) -> Result<Grant, RegistryError> {
        let sql = "SELECT * FROM grants WHERE id = ?1";
        self.readers.read(|connection| one(connection, sql, "grant", id, read_grant))
    }

    fn grants(&self, client: Option<&str>, page: Page<'_, GrantFilter>) -> Result<ListPage<Grant>, RegistryError> {
        self.readers.read(|connection| list::grants(connection, client, &page))
    }

    fn add_grant(&self, grant: &Grant) -> Result<(), RegistryError> {
        grants::add(self, grant)
    }

    fn approve_grant(&self, id: &str) -> Result<(), RegistryError> {
        grants::approve(self, id)
    }

    fn change_grant(&self, grant: &Grant) -> Result<ChangeOutcome, RegistryError> {
        grants::change(self, grant)
    }

    fn withdraw_grant(&self, id: &str) -> Result<(), RegistryError> {
        grants::withdraw(self, id)
    }

    fn token(&self, id: &str) -> Result<TokenRecord, RegistryError> {
        let sql = format!("{} WHERE id = ?1", list::TOKENS);
        self.readers.read(|connection| one(connection, &sql, "token", id, read_token))
    }

    fn tokens(
        &self,
        client: Option<&str>,
        page: Page<'_, TokenFilter>,
    ) -> Result<ListPage<TokenRecord>, RegistryError> {
        self.readers.read(|connection| list::tokens(connection, client, &page))
    }

    fn ended_tokens(&self, before: i64) -> Result<u64, RegistryError> {
        self.readers.read(|connection| {
            let sql = "SELECT COUNT(*) FROM tokens WHERE expires < ?1";
            Ok(connection.prepare_cached(sql)?.query_row([before], |row| row.get::<_, i64>(0))?.unsigned_abs())
        })
    }

    fn remove_ended_tokens(&self, before: i64, most: usize) -> Result<usize, RegistryError> {
        tokens::remove_ended(self, before, most)
    }

    fn add_tokens(&self, tokens: &[TokenRecord]) -> Result<(), RegistryError> {
        tokens::add(self, tokens)
    }

    fn add_token(&self, token: &TokenRecord) -> Result<(), RegistryError> {
        self.add_tokens(std::slice::from_ref(token))?;
        self.change("token.issue", format!("token:{} client:{}", token.id, token.client), |changing| {
            changing.record("token", &token.id, None, Some(token))
        })
    }

    fn revoke_token(&self, id: &str) -> Result<(), RegistryError> {
        tokens::revoke(self, &self.token(id)?)
    }

    fn revoke_shown_token(&self, shown: &TokenRecord) -> Result<(), RegistryError> {
        match self.token(&shown.id) {
            Ok(known) => tokens::revoke(self, &known),
            Err(RegistryError::Unknown(..)) => tokens::revoke(self, shown),
            Err(error) => Err(error),
        }
    }

    fn owners(&self, names: &[String]) -> Result<Vec<String>, RegistryError> {
        self.readers.read(|connection| identities::holders(connection, names))
    }

    fn revoke_client_tokens(&self, client: &str) -> Result<u64, RegistryError> {
        let before = self.client(client)?.tokens_from;
        // Including tokens of this second; a token issued later in it begins with the next.
        clients::revoke_tokens(self, client, now() + 1)?;
        // Counted afterwards: a client may have a million, and the revocation does not wait for that.
        let sql = "SELECT COUNT(*) FROM tokens WHERE client = ?1 AND issued >= ?2 AND expires > ?3
                   AND NOT EXISTS (SELECT 1 FROM revocations WHERE token = tokens.id)";
        let counted = self.readers.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            Ok(statement.query_row(params![client, before, now()], |row| row.get::<_, i64>(0))?)
        });
        Ok(counted?.unsigned_abs())
    }

    fn keys(&self) -> Result<Vec<SigningKey>, RegistryError> {
        self.readers.read(keys)
    }

    fn add_key(&self, key: &SigningKey, others_until: i64) -> Result<(), RegistryError> {
        keys::add(self, key, others_until)
    }

    fn retire_key(&self, kid: &str) -> Result<(), RegistryError> {
        keys::retire(self, kid)
    }

    fn notices(&self) -> Result<Vec<MaintenanceNotice>, RegistryError> {
        self.readers.read(notices::list)
    }

    fn set_notice(&self, notice: &MaintenanceNotice) -> Result<(), RegistryError> {
        notices::set(self, notice)
    }

    fn clear_notice(&self, source: &str) -> Result<MaintenanceNotice, RegistryError> {
        notices::clear(self, source)
    }

    fn staff(&self) -> Result<Vec<Staff>, RegistryError> {
        self.readers.read(staff)
    }

    fn bootstrap(&self, administrator: &Staff, approver: &Staff) -> Result<(), RegistryError> {
        approval::bootstrap(self, administrator, approver)
    }

    fn add_staff(&self, staff: &Staff) -> Result<PendingChange, RegistryError> {
        people::add(self, staff)
    }

    fn change_staff(&self, staff: &Staff) -> Result<ChangeOutcome, RegistryError> {
        people::change(self, staff)
    }

    fn remove_staff(&self, id: &str) -> Result<(), RegistryError> {
        people::remove(self, id)
    }

    fn pending_changes(&self, after: &str, most: usize) -> Result<Vec<PendingChange>, RegistryError> {
        self.readers.read(|connection| pending::list(connection, after, most))
    }

    fn approve_change(&self, id: &str) -> Result<PendingChange, RegistryError> {
        approval::approve(self, id)
    }

    fn reject_change(&self, id: &str) -> Result<PendingChange, RegistryError> {
        approval::reject(self, id)
    }

    fn end_pending_changes(&self) -> Result<usize, RegistryError> {
        approval::end(self)
    }

    fn count_pending(&self) -> Result<u64, RegistryError> {
        self.readers.read(pending::count)
    }

    fn actor(&self) -> &Actor {
        &self.actor
    }

    fn named(&self, actor: Actor, justification: &str) -> Result<Box<dyn Store>, RegistryError> {
        Ok(Box::new(self.acting_as(actor).because(justification)?))
    }

    fn logged_events(&self, after: u64) -> Result<Vec<LoggedEvent>, RegistryError> {
        self.readers.read(|connection| admin_events::noted(connection, &self.key, after))
    }

    fn remaining_events(&self, until: u64) -> Result<(u64, Option<LoggedEvent>), RegistryError> {
        self.readers.read(|connection| admin_events::left(connection, &self.key, until))
    }

    fn note_events_after(&self, sequence: u64) -> Result<(), RegistryError> {
        let mut connection = self.connection();
        let whole = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        admin_events::note_after(&whole, sequence)?;
        whole.commit()?;
        Ok(())
    }

    fn forget_event(&self, id: &[u8; 16]) -> Result<(), RegistryError> {
        self.connection().execute("DELETE FROM acts WHERE id = ?1", [id.as_slice()])?;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod replica_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
