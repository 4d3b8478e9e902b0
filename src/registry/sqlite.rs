//! The registry in SQLite: one file, nothing to install, shared by the gateway and the CLI.

use super::{Act, Client, Grant, Loaded, Network, RegistryError, SigningKey, Staff, Store, TokenRecord};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A revoked token is remembered for longer than any clock skew that the configuration can forgive: until then it might
/// pass as not yet expired.
const MAX_SKEW_S: i64 = 600;

/// Version of the tables below: a file of another one is refused rather than misread.
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS clients (
        id TEXT PRIMARY KEY, agency TEXT NOT NULL, contact TEXT NOT NULL, names TEXT NOT NULL,
        suspended INTEGER NOT NULL, created INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS grants (
        id TEXT PRIMARY KEY, client TEXT NOT NULL REFERENCES clients(id), scopes TEXT NOT NULL, purposes TEXT NOT NULL,
        fields TEXT NOT NULL, rate INTEGER NOT NULL, burst INTEGER NOT NULL, daily_quota INTEGER NOT NULL,
        not_before INTEGER NOT NULL, not_after INTEGER NOT NULL, legal_basis TEXT NOT NULL, networks TEXT NOT NULL,
        requested_by TEXT NOT NULL, approved_by TEXT, needs_approval INTEGER NOT NULL,
        withdrawn INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS staff (id TEXT PRIMARY KEY, roles TEXT NOT NULL, names TEXT NOT NULL) STRICT;
    CREATE INDEX IF NOT EXISTS grants_client ON grants(client);
    CREATE TABLE IF NOT EXISTS revocations (token TEXT PRIMARY KEY, expires INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS keys (
        kid TEXT PRIMARY KEY, algorithm TEXT NOT NULL, public_pem TEXT NOT NULL, created INTEGER NOT NULL,
        believed_until INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS acts (
        id BLOB PRIMARY KEY, time_us INTEGER NOT NULL, actor TEXT NOT NULL, act TEXT NOT NULL,
        object TEXT NOT NULL) STRICT;";

/// Issued tokens stand in a file of their own: clients fetch them all the time, and the registry is loaded anew at each
/// change of its file.
const ISSUED: &str = "
    CREATE TABLE IF NOT EXISTS tokens (
        id TEXT PRIMARY KEY, client TEXT NOT NULL, scopes TEXT NOT NULL, certificate TEXT NOT NULL,
        issued INTEGER NOT NULL, starts INTEGER NOT NULL, expires INTEGER NOT NULL) STRICT;
    CREATE INDEX IF NOT EXISTS tokens_client ON tokens(client, issued);";

/// The SQLite store, in the name of whoever changes something. Cheap to clone.
#[derive(Clone)]
pub struct SqliteStore {
    connection: Arc<Mutex<Connection>>,
    issued: Arc<Mutex<Connection>>,
    actor: String,
}

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
        let connection = open(path, SCHEMA)?;
        let issued = open(&path.with_file_name("issued.sqlite"), ISSUED)?;
        Ok(SqliteStore {
            connection: Arc::new(Mutex::new(connection)),
            issued: Arc::new(Mutex::new(issued)),
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
        change: impl FnOnce(&Connection) -> Result<(), RegistryError>,
    ) -> Result<(), RegistryError> {
        let mut connection = self.connection();
        let whole = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        change(&whole)?;
        let id = uuid::Uuid::now_v7();
        let now_us = jiff::Timestamp::now().as_microsecond();
        let note = params![id.as_bytes().as_slice(), now_us, self.actor, act, object];
        whole.execute("INSERT INTO acts VALUES (?1, ?2, ?3, ?4, ?5)", note)?;
        whole.commit()?;
        Ok(())
    }

    fn issued(&self) -> MutexGuard<'_, Connection> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &Path, schema: &str) -> Result<Connection, RegistryError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    // FULL: a change that was told as made survives a power cut.
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version != 0 && version != SCHEMA_VERSION {
        let told = format!("{} was made by another version of the gateway (schema {version})", path.display());
        return Err(RegistryError::Store(told));
    }
    connection.execute_batch(schema)?;
    if version == 0 {
        connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    Ok(connection)
}

/// A change of one row; none is a fault.
fn must_change(connection: &Connection, sql: &str, id: &str, what: &'static str) -> Result<(), RegistryError> {
    match connection.execute(sql, params![id])? {
        0 => Err(RegistryError::Unknown(what, id.to_owned())),
        _ => Ok(()),
    }
}

fn list(texts: &[String]) -> String {
    serde_json::Value::from(texts.to_vec()).to_string()
}

fn read_list(row: &Row<'_>, column: &str) -> rusqlite::Result<Vec<String>> {
    Ok(serde_json::from_str(&row.get::<_, String>(column)?).unwrap_or_default())
}

fn read_client(row: &Row<'_>) -> rusqlite::Result<Client> {
    Ok(Client {
        id: row.get("id")?,
        agency: row.get("agency")?,
        contact: row.get("contact")?,
        names: read_list(row, "names")?,
        suspended: row.get("suspended")?,
        created: row.get("created")?,
    })
}

fn read_grant(row: &Row<'_>) -> rusqlite::Result<Grant> {
    Ok(Grant {
        id: row.get("id")?,
        client: row.get("client")?,
        scopes: read_list(row, "scopes")?,
        purposes: read_list(row, "purposes")?,
        fields: read_list(row, "fields")?,
        rate: row.get("rate")?,
        burst: row.get("burst")?,
        daily_quota: row.get::<_, i64>("daily_quota")?.unsigned_abs(),
        not_before: row.get("not_before")?,
        not_after: row.get("not_after")?,
        legal_basis: row.get("legal_basis")?,
        networks: read_list(row, "networks")?.iter().filter_map(|text| Network::parse(text).ok()).collect(),
        requested_by: row.get("requested_by")?,
        approved_by: row.get("approved_by")?,
        needs_approval: row.get("needs_approval")?,
        withdrawn: row.get("withdrawn")?,
    })
}

fn read_token(row: &Row<'_>) -> rusqlite::Result<TokenRecord> {
    Ok(TokenRecord {
        id: row.get("id")?,
        client: row.get("client")?,
        scopes: read_list(row, "scopes")?,
        certificate: row.get("certificate")?,
        issued: row.get("issued")?,
        starts: row.get("starts")?,
        expires: row.get("expires")?,
        revoked: false,
    })
}

fn read_key(row: &Row<'_>) -> rusqlite::Result<SigningKey> {
    Ok(SigningKey {
        kid: row.get("kid")?,
        algorithm: row.get("algorithm")?,
        public_pem: row.get("public_pem")?,
        created: row.get("created")?,
        believed_until: row.get("believed_until")?,
    })
}

fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, RegistryError> {
    Ok(connection.prepare(sql)?.query_map(params, read)?.collect::<Result<_, _>>()?)
}

/// A key that is taken already is told as such, a client that does not exist too.
fn constraint(error: rusqlite::Error, what: &'static str, id: &str, client: &str) -> RegistryError {
    match error.sqlite_error().map(|inner| inner.extended_code) {
        Some(rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY) => RegistryError::Exists(what, id.to_owned()),
        Some(rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => RegistryError::Unknown("client", client.to_owned()),
        _ => error.into(),
    }
}

impl Store for SqliteStore {
    fn load(&self) -> Result<Loaded, RegistryError> {
        let mut connection = self.connection();
        // One transaction: the parts belong to one moment.
        let moment = connection.transaction()?;
        Ok(Loaded {
            clients: all(&moment, "SELECT * FROM clients ORDER BY id", [], read_client)?,
            grants: all(
                &moment,
                "SELECT * FROM grants WHERE NOT withdrawn AND (NOT needs_approval OR approved_by IS NOT NULL) ORDER BY id",
                [],
                read_grant,
            )?,
            revoked: all(
                &moment,
                "SELECT token FROM revocations WHERE expires > ?1",
                [super::now() - MAX_SKEW_S],
                |row| row.get(0),
            )?,
            keys: all(&moment, "SELECT * FROM keys ORDER BY created, kid", [], read_key)?,
            staff: all(&moment, "SELECT * FROM staff ORDER BY id", [], |row| {
                let roles = serde_json::from_str(&row.get::<_, String>("roles")?).unwrap_or_default();
                Ok(Staff { id: row.get("id")?, roles, names: read_list(row, "names")? })
            })?,
        })
    }

    fn version(&self) -> Result<u64, RegistryError> {
        let connection = self.connection();
        // data_version tells of other connections' changes, total_changes of our own.
        let others: u64 = connection.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0))?.unsigned_abs();
        Ok(others << 32 | (connection.total_changes() & 0xffff_ffff))
    }

    fn add_client(&self, client: &Client) -> Result<(), RegistryError> {
        self.change("client.add", format!("client:{}", client.id), |connection| {
            for name in &client.names {
                let sql = "SELECT id FROM clients WHERE EXISTS (SELECT 1 FROM json_each(names) WHERE value = ?1)";
                let holder: Option<String> = connection.query_row(sql, [name], |row| row.get(0)).optional()?;
                if holder.is_some() {
                    return Err(RegistryError::Exists("client with the certificate name", name.clone()));
                }
            }
            let row = params![
                client.id,
                client.agency,
                client.contact,
                list(&client.names),
                client.suspended,
                client.created
            ];
            let added = connection.execute("INSERT INTO clients VALUES (?1, ?2, ?3, ?4, ?5, ?6)", row);
            added.map(|_| ()).map_err(|error| constraint(error, "client", &client.id, &client.id))
        })
    }

    fn suspend_client(&self, id: &str, suspended: bool) -> Result<(), RegistryError> {
        let (act, sql) = if suspended {
            ("client.suspend", "UPDATE clients SET suspended = 1 WHERE id = ?1")
        } else {
            ("client.resume", "UPDATE clients SET suspended = 0 WHERE id = ?1")
        };
        self.change(act, format!("client:{id}"), |connection| must_change(connection, sql, id, "client"))
    }

    fn add_grant(&self, grant: &Grant) -> Result<(), RegistryError> {
        let object = format!("grant:{} client:{} scopes:{}", grant.id, grant.client, grant.scopes.join(","));
        self.change("grant.add", object, |connection| {
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
            added.map(|_| ()).map_err(|error| constraint(error, "grant", &grant.id, &grant.client))
        })
    }

    fn approve_grant(&self, id: &str) -> Result<(), RegistryError> {
        self.change("grant.approve", format!("grant:{id}"), |connection| {
            let sql = "SELECT requested_by FROM grants WHERE id = ?1 AND NOT withdrawn AND needs_approval AND approved_by IS NULL";
            let asked: Option<String> = connection.query_row(sql, [id], |row| row.get(0)).optional()?;
            let asked = asked.ok_or_else(|| RegistryError::Unknown("grant that waits for approval", id.to_owned()))?;
            if asked == self.actor {
                return Err(RegistryError::Forbidden("a grant is approved by another person than who asked for it"));
            }
            connection.execute("UPDATE grants SET approved_by = ?2 WHERE id = ?1", params![id, self.actor])?;
            Ok(())
        })
    }

    fn all_grants(&self) -> Result<Vec<Grant>, RegistryError> {
        all(&self.connection(), "SELECT * FROM grants ORDER BY id", [], read_grant)
    }

    fn add_staff(&self, staff: &Staff) -> Result<(), RegistryError> {
        self.change("staff.add", format!("staff:{}", staff.id), |connection| {
            let roles = serde_json::to_string(&staff.roles).map_err(|error| RegistryError::Store(error.to_string()))?;
            let row = params![staff.id, roles, list(&staff.names)];
            let added = connection.execute("INSERT INTO staff VALUES (?1, ?2, ?3)", row);
            added.map(|_| ()).map_err(|error| constraint(error, "member of staff", &staff.id, ""))
        })
    }

    fn remove_staff(&self, id: &str) -> Result<(), RegistryError> {
        self.change("staff.remove", format!("staff:{id}"), |connection| {
            must_change(connection, "DELETE FROM staff WHERE id = ?1", id, "member of staff")
        })
    }

    fn retire_key(&self, kid: &str) -> Result<(), RegistryError> {
        self.change("key.retire", format!("key:{kid}"), |connection| {
            must_change(connection, "UPDATE keys SET believed_until = 1 WHERE kid = ?1", kid, "key")
        })
    }

    fn withdraw_grant(&self, id: &str) -> Result<(), RegistryError> {
        self.change("grant.withdraw", format!("grant:{id}"), |connection| {
            must_change(connection, "UPDATE grants SET withdrawn = 1 WHERE id = ?1", id, "grant")
        })
    }

    fn add_token(&self, token: &TokenRecord) -> Result<(), RegistryError> {
        self.add_tokens(std::slice::from_ref(token))?;
        self.change("token.issue", format!("token:{} client:{}", token.id, token.client), |_| Ok(()))
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

    fn revoke_token(&self, id: &str) -> Result<(), RegistryError> {
        let expires: Option<i64> =
            self.issued().query_row("SELECT expires FROM tokens WHERE id = ?1", [id], |row| row.get(0)).optional()?;
        let expires = expires.ok_or_else(|| RegistryError::Unknown("token", id.to_owned()))?;
        self.change("token.revoke", format!("token:{id}"), |connection| {
            connection.execute("INSERT OR IGNORE INTO revocations VALUES (?1, ?2)", params![id, expires])?;
            Ok(())
        })
    }

    fn tokens(&self, client: Option<&str>) -> Result<Vec<TokenRecord>, RegistryError> {
        let revoked: Vec<String> = all(&self.connection(), "SELECT token FROM revocations", [], |row| row.get(0))?;
        let revoked: HashSet<String> = revoked.into_iter().collect();
        let sql = "SELECT * FROM tokens WHERE ?1 IS NULL OR client = ?1 ORDER BY issued DESC, id DESC LIMIT 10000";
        let mut tokens = all(&self.issued(), sql, [client], read_token)?;
        for token in &mut tokens {
            token.revoked = revoked.contains(&token.id);
        }
        Ok(tokens)
    }

    fn add_key(&self, key: &SigningKey, others_until: i64) -> Result<(), RegistryError> {
        self.change("key.rotate", format!("key:{}", key.kid), |connection| {
            connection.execute("UPDATE keys SET believed_until = ?1 WHERE believed_until = 0", [others_until])?;
            let row = params![key.kid, key.algorithm, key.public_pem, key.created, key.believed_until];
            let added = connection.execute("INSERT INTO keys VALUES (?1, ?2, ?3, ?4, ?5)", row);
            added.map(|_| ()).map_err(|error| constraint(error, "key", &key.kid, ""))
        })
    }

    fn named(&self, actor: &str) -> Box<dyn Store> {
        Box::new(self.acting_as(actor))
    }

    fn acts(&self) -> Result<Vec<Act>, RegistryError> {
        all(&self.connection(), "SELECT * FROM acts ORDER BY id LIMIT 1000", [], |row| {
            Ok(Act {
                id: row.get("id")?,
                time_us: row.get("time_us")?,
                actor: row.get("actor")?,
                act: row.get("act")?,
                object: row.get("object")?,
            })
        })
    }

    fn forget_act(&self, id: &[u8; 16]) -> Result<(), RegistryError> {
        self.connection().execute("DELETE FROM acts WHERE id = ?1", [id.as_slice()])?;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_another_process_are_noticed_and_constraints_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.sqlite");
        let (gateway, cli) = (SqliteStore::open(&path).unwrap(), SqliteStore::open(&path).unwrap());
        let before = gateway.version().unwrap();
        let client = Client {
            id: "one-stop-shop".into(),
            agency: "H49.12".into(),
            contact: String::new(),
            names: vec!["a.example".into()],
            suspended: false,
            created: 1,
        };
        cli.add_client(&client).unwrap();
        assert_ne!(gateway.version().unwrap(), before);
        assert_eq!(gateway.load().unwrap().clients, std::slice::from_ref(&client));
        assert!(matches!(cli.add_client(&client), Err(RegistryError::Exists(..))));
        let other = Client { id: "other".into(), ..client };
        assert!(matches!(cli.add_client(&other), Err(RegistryError::Exists("client with the certificate name", _))));
        assert!(matches!(cli.revoke_token("x"), Err(RegistryError::Unknown("token", _))));
        // What was done is noted with it, what was not is not.
        cli.acting_as("cli:lan").suspend_client("one-stop-shop", true).unwrap();
        let acts = gateway.acts().unwrap();
        let noted: Vec<(&str, &str)> = acts.iter().map(|act| (act.actor.as_str(), act.act.as_str())).collect();
        assert_eq!(noted, [("unnamed", "client.add"), ("cli:lan", "client.suspend")]);
        acts.iter().for_each(|act| gateway.forget_act(&act.id).unwrap());
        assert!(cli.acts().unwrap().is_empty());
    }
}
