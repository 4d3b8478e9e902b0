//! The registry: clients, grants, tokens and keys, the state that administrators change.
//!
//! A [`Store`] keeps it durably; gateways read a [`Snapshot`] that is swapped as a whole when the store changes, so a
//! call sees one state from its beginning to its end, and looks nothing up in a database.

mod network;
pub mod snapshot;
pub mod sqlite;
pub mod usage;

pub use network::Network;
use serde::{Deserialize, Serialize};

pub use snapshot::{ClientView, Snapshot};

/// Why the registry cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The store failed.
    #[error("the registry cannot be used: {0}")]
    Store(String),
    /// Nothing of this kind and id.
    #[error("there is no {0} {1:?}")]
    Unknown(&'static str, String),
    /// It exists already.
    #[error("there is a {0} {1:?} already")]
    Exists(&'static str, String),
    /// A rule forbids it.
    #[error("{0}")]
    Forbidden(&'static str),
    /// A value is not in its format.
    #[error("{0} must be {1}")]
    Invalid(&'static str, String),
}

/// A registered provincial system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Client {
    /// Id: lower-case letters, digits, hyphens.
    pub id: String,
    /// Agency code (mã định danh).
    pub agency: String,
    /// Whom to call when something is wrong.
    pub contact: String,
    /// Names in the certificate's SAN: `spiffe://…/client/ID`, or a DNS name.
    pub names: Vec<String>,
    /// Whether it may call.
    pub suspended: bool,
    /// Unix time in seconds.
    pub created: i64,
}

/// What an administrator allows a client.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Grant {
    /// Id.
    pub id: String,
    /// Whose.
    pub client: String,
    /// Scopes (`population:read`).
    pub scopes: Vec<String>,
    /// Purposes: `*`, `procedure:CODE`, or `dossier:AGENCY` (dossiers of that agency and those below it).
    pub purposes: Vec<String>,
    /// Answer fields by path; `*` for all.
    pub fields: Vec<String>,
    /// Calls a second, sustained.
    pub rate: u32,
    /// Calls at once above that.
    pub burst: u32,
    /// Calls a day (Ho Chi Minh City); 0: no quota.
    pub daily_quota: u64,
    /// In force from, Unix time in seconds.
    pub not_before: i64,
    /// In force until.
    pub not_after: i64,
    /// Legal basis (căn cứ pháp lý).
    pub legal_basis: String,
    /// Networks that calls may come from; none: any.
    pub networks: Vec<Network>,
    /// Who asked for it; set by the store.
    pub requested_by: String,
    /// Who approved it.
    pub approved_by: Option<String>,
    /// Whether it works only when a second person has approved it.
    pub needs_approval: bool,
    /// Whether it was withdrawn.
    pub withdrawn: bool,
}

impl Grant {
    /// Whether it works now, as far as time and approval go.
    pub fn in_force(&self, now: i64) -> bool {
        !self.withdrawn
            && (!self.needs_approval || self.approved_by.is_some())
            && (self.not_before..self.not_after).contains(&now)
    }
}

/// What somebody who administers the gateway may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Registers, grants, issues.
    Administrator,
    /// Approves what an administrator asked for.
    Approver,
    /// Reviews exchanges.
    Auditor,
    /// Runs the gateway; revokes tokens in an emergency.
    Operator,
}

/// A person who administers the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Staff {
    /// Id.
    pub id: String,
    /// What they may do.
    pub roles: Vec<Role>,
    /// Names in their certificate.
    pub names: Vec<String>,
}

/// A token that was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenRecord {
    /// `jti`.
    pub id: String,
    /// Whose.
    pub client: String,
    /// Scopes that it carries.
    pub scopes: Vec<String>,
    /// `cnf.x5t#S256`.
    pub certificate: String,
    /// Unix time in seconds.
    pub issued: i64,
    /// When it begins to be valid.
    pub starts: i64,
    /// When it ends.
    pub expires: i64,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// A signing key's public half.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SigningKey {
    /// Key id.
    pub kid: String,
    /// JWS algorithm: ES256 or EdDSA.
    pub algorithm: String,
    /// Public key, SPKI PEM.
    pub public_pem: String,
    /// Unix time in seconds.
    pub created: i64,
    /// Tokens signed with it are believed until then; 0: no end set.
    pub believed_until: i64,
}

/// What somebody changed, on its way into the exchange log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// UUIDv7: the id of its entry, so that one logged twice is seen to be one.
    pub id: [u8; 16],
    /// Unix time in microseconds.
    pub time_us: i64,
    /// Who did it: `cli:<user>`.
    pub actor: String,
    /// What was done (`grant.add`).
    pub act: String,
    /// To what, as `kind:id`.
    pub object: String,
}

/// Where the registry is kept. Every change is durable when its call returns, and is seen by every [`Store::load`]
/// that begins later, in any process. [`Store::version`] changes after any change by any process.
pub trait Store: Send + Sync {
    /// Everything that a gateway needs, as of one moment.
    fn load(&self) -> Result<Loaded, RegistryError>;
    /// A number that differs after any change.
    fn version(&self) -> Result<u64, RegistryError>;
    /// Adds a client.
    fn add_client(&self, client: &Client) -> Result<(), RegistryError>;
    /// Suspends or resumes a client.
    fn suspend_client(&self, id: &str, suspended: bool) -> Result<(), RegistryError>;
    /// Adds a grant.
    fn add_grant(&self, grant: &Grant) -> Result<(), RegistryError>;
    /// Approves a grant that waits for it; not in the name of who asked for it.
    fn approve_grant(&self, id: &str) -> Result<(), RegistryError>;
    /// Grants, those that wait for approval and those withdrawn included.
    fn all_grants(&self) -> Result<Vec<Grant>, RegistryError>;
    /// Registers a person.
    fn add_staff(&self, staff: &Staff) -> Result<(), RegistryError>;
    /// Removes a person.
    fn remove_staff(&self, id: &str) -> Result<(), RegistryError>;
    /// Ends the belief in a key at once.
    fn retire_key(&self, kid: &str) -> Result<(), RegistryError>;
    /// Withdraws a grant.
    fn withdraw_grant(&self, id: &str) -> Result<(), RegistryError>;
    /// Records tokens that clients fetched; not an administrator's act.
    fn add_tokens(&self, tokens: &[TokenRecord]) -> Result<(), RegistryError>;
    /// Records a token that an administrator issued.
    fn add_token(&self, token: &TokenRecord) -> Result<(), RegistryError>;
    /// Revokes a token.
    fn revoke_token(&self, id: &str) -> Result<(), RegistryError>;
    /// Tokens of one client or of all, newest first, at most 10,000.
    fn tokens(&self, client: Option<&str>) -> Result<Vec<TokenRecord>, RegistryError>;
    /// The same store, for changes in another's name.
    fn named(&self, actor: &str) -> Box<dyn Store>;
    /// The oldest acts that are not in the exchange log yet, at most a thousand. Each change notes its act with itself.
    fn acts(&self) -> Result<Vec<Act>, RegistryError>;
    /// Forgets an act that is in the exchange log now.
    fn forget_act(&self, id: &[u8; 16]) -> Result<(), RegistryError>;
    /// Adds a signing key and lets the others be believed until `others_until`.
    fn add_key(&self, key: &SigningKey, others_until: i64) -> Result<(), RegistryError>;
}

/// What [`Store::load`] gives.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// All clients.
    pub clients: Vec<Client>,
    /// Grants that are not withdrawn and, where they need it, approved.
    pub grants: Vec<Grant>,
    /// Ids of revoked tokens that have not expired.
    pub revoked: Vec<String>,
    /// All signing keys, oldest first.
    pub keys: Vec<SigningKey>,
    /// All who administer.
    pub staff: Vec<Staff>,
}

/// Unix time in seconds.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Checks an id: 1 to 64 lower-case letters, digits, hyphens, dots.
pub fn check_id(what: &'static str, id: &str) -> Result<(), RegistryError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    if (1..=64).contains(&id.len()) && id.chars().all(plain) {
        Ok(())
    } else {
        Err(RegistryError::Invalid(what, "1 to 64 lower-case letters, digits, hyphens or dots".into()))
    }
}
