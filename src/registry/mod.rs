//! The registry: clients, grants, tokens and keys, the state that administrators change.
//!
//! A [`Store`] keeps it durably. Gateways read a [`Snapshot`] that is swapped as a whole when the store changes, so a
//! call sees one state from its beginning to its end, without database access. A gateway follows a change by reading
//! what changed, not everything: with 100,000 clients and a million grants a change is in force as soon as with ten.

mod actor;
pub mod admin_event;
mod admin_event_key;
pub(crate) mod lists;
pub mod name;
mod network;
pub mod notice;
mod page;
pub mod pending;
pub mod replication;
pub mod snapshot;
pub mod sqlite;
pub mod state_file;
mod store;
pub mod usage;
mod view;

use crate::exchange_log::clock;
pub use actor::{Actor, Digest};
pub use admin_event::{AdminEvent, LoggedEvent, ObjectChange, RefusedEvent};
pub use admin_event_key::AdminEventKey;
pub use name::canonical_name;
pub use network::Network;
pub use notice::MaintenanceNotice;
pub use page::{AllRecords, ClientFilter, GrantFilter, ListPage, Page, TokenFilter};
pub use pending::{ChangeOutcome, PendingChange};
use serde::{Deserialize, Serialize};
pub use snapshot::{MAX_SKEW_S, NameOwner, Snapshot};
use std::time::Duration;
pub use store::{Item, Store};
pub use view::{ClientView, GrantView, Granted};

/// The longest lifetime of a token that any policy can allow, and therefore the time for which tokens of a replaced key
/// are still trusted.
pub const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The reason that an operation of the registry fails.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The store failed.
    #[error("the registry cannot be used: {0}")]
    Store(String),
    /// There is no object of this kind and id.
    #[error("there is no {0} {1:?}")]
    Unknown(&'static str, String),
    /// It exists already.
    #[error("there is a {0} {1:?} already")]
    Exists(&'static str, String),
    /// A certificate name belongs to another client or person.
    #[error("the certificate name {name:?} belongs to {owner} already; a name has one holder")]
    NameTaken {
        /// The name, in canonical form.
        name: String,
        /// Its owner, as `kind:id`.
        owner: String,
    },
    /// The object has changed since the change was requested.
    #[error("it has changed since the change was requested: request it again")]
    Outdated,
    /// A limit is reached.
    #[error("too many {0}")]
    Full(&'static str),
    /// A record or a text that the registry does not accept.
    #[error("{0}")]
    Invalid(&'static str),
    /// A rule forbids it.
    #[error("{0}")]
    Forbidden(&'static str),
}

/// A registered provincial system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Id: lower-case letters, digits, hyphens.
    pub id: String,
    /// Agency code (mã định danh).
    pub agency: String,
    /// The contact for problems.
    pub contact: String,
    /// Names in the certificate's SAN: `spiffe://…/client/ID`, or a DNS name.
    pub names: Vec<String>,
    /// Whether it is suspended.
    pub suspended: bool,
    /// Unix time in seconds.
    pub created: i64,
    /// Retired permanently; its id and certificate names stay reserved, so that no one can impersonate it.
    pub retired: bool,
    /// Tokens issued before this time are revoked, Unix time in seconds.
    pub tokens_from: i64,
}

/// The rights that an administrator gives a client.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// Id.
    pub id: String,
    /// The client's id.
    pub client: String,
    /// Scopes (`population:read`).
    pub scopes: Vec<String>,
    /// Purposes: `*`, `procedure:CODE`, or `dossier:AGENCY` (dossiers of that agency and those below it).
    pub purposes: Vec<String>,
    /// Response fields by path; `*` for all.
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
    /// The requester; set by the store.
    pub requested_by: String,
    /// The requester with certificate and address, to check that the approver is another person; set by the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requester: Option<Actor>,
    /// The approver.
    pub approved_by: Option<String>,
    /// Whether it works only after a second person has approved it.
    pub needs_approval: bool,
    /// Whether it was withdrawn.
    pub withdrawn: bool,
}

/// The state of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum GrantState {
    /// It works.
    InForce,
    /// It waits for a second person.
    Pending,
    /// Its time has not begun, or is over.
    OutOfTime,
    /// It was withdrawn.
    Withdrawn,
}

impl Grant {
    /// Returns when a pending grant expires, Unix time in seconds: a week after its request, which its id records, or
    /// at its own end.
    pub fn pending_until(&self) -> i64 {
        let requested = self.requested();
        requested.map_or(self.not_after, |requested| self.not_after.min(requested.saturating_add(pending::PENDING_S)))
    }

    /// When it was asked for, Unix time in seconds, as its id tells; `None` where the id is none that the gateway has made.
    pub fn requested(&self) -> Option<i64> {
        let made = uuid::Uuid::try_parse(self.id.strip_prefix("g-")?).ok()?.get_timestamp()?;
        i64::try_from(made.to_unix().0).ok()
    }

    /// Returns its state.
    pub fn state(&self, now: i64) -> GrantState {
        match self {
            Grant { withdrawn: true, .. } => GrantState::Withdrawn,
            Grant { needs_approval: true, approved_by: None, .. } => GrantState::Pending,
            grant if (grant.not_before..grant.not_after).contains(&now) => GrantState::InForce,
            _ => GrantState::OutOfTime,
        }
    }
}

/// The state of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ClientState {
    /// It may call.
    Active,
    /// It may not call, for now.
    Suspended,
    /// It is retired.
    Retired,
}

impl Client {
    /// Returns its state.
    pub fn state(&self) -> ClientState {
        match (self.retired, self.suspended) {
            (true, _) => ClientState::Retired,
            (false, true) => ClientState::Suspended,
            (false, false) => ClientState::Active,
        }
    }
}

/// The state of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TokenState {
    /// It is valid, or will be.
    InForce,
    /// It has expired.
    Expired,
    /// It was revoked.
    Revoked,
}

impl TokenRecord {
    /// Returns its state.
    pub fn state(&self, now: i64) -> TokenState {
        match self {
            TokenRecord { revoked: true, .. } => TokenState::Revoked,
            token if token.expires <= now => TokenState::Expired,
            _ => TokenState::InForce,
        }
    }
}

/// What a member of staff may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Registers, grants, issues.
    Administrator,
    /// Approves what an administrator requested.
    Approver,
    /// Reviews exchanges.
    Auditor,
    /// Runs the gateway; revokes tokens in an emergency.
    Operator,
}

/// A person who administers the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staff {
    /// Id.
    pub id: String,
    /// Their roles.
    pub roles: Vec<Role>,
    /// Names in their certificate.
    pub names: Vec<String>,
}

/// A token that was issued.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TokenRecord {
    /// `jti`.
    pub id: String,
    /// The client's id.
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
    /// It is published before then, and signs from then on, Unix time in seconds.
    pub signs_from: i64,
    /// Tokens signed with it are trusted until then; 0: no end set. Entries of the log use this name.
    #[serde(rename = "believed_until")]
    pub trusted_until: i64,
}

/// The state of a signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It is in JWKS, and signs nothing yet.
    Published,
    /// Tokens are signed with it.
    Signing,
    /// A newer key signs; its tokens are trusted until its end.
    Replaced,
    /// Its tokens are refused, and it is no longer in JWKS.
    Retired,
}

impl SigningKey {
    /// Returns whether its tokens are trusted.
    pub fn is_trusted(&self, now: i64) -> bool {
        self.trusted_until == 0 || now < self.trusted_until
    }

    /// Returns its state among all keys.
    pub fn state(&self, all: &[SigningKey], now: i64) -> KeyState {
        if !self.is_trusted(now) {
            return KeyState::Retired;
        }
        match signing_key(all, now) {
            Some(signing) if signing.kid == self.kid => KeyState::Signing,
            _ if self.signs_from > now => KeyState::Published,
            _ => KeyState::Replaced,
        }
    }
}

/// Returns the key that signs: the newest of those whose time has begun. If that one was retired, the next published
/// key signs before its time; a replaced key never signs again. `all` is in order of age, oldest first.
pub fn signing_key(all: &[SigningKey], now: i64) -> Option<&SigningKey> {
    let newest = all.iter().rposition(|key| key.signs_from <= now)?;
    all.get(newest..)?.iter().find(|key| key.is_trusted(now))
}

/// Returns the Unix time in seconds, by a clock that does not go back ([`clock`]).
pub fn now() -> i64 {
    clock::now_us().div_euclid(1_000_000)
}

/// Returns whether a text can be the id of a client or a person: 1 to 64 lower-case letters, digits, hyphens, dots.
pub fn is_id(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    (1..=64).contains(&text.len()) && text.chars().all(plain)
}
