//! The registry: clients, grants, tokens and keys, the state that administrators change.
//!
//! A [`Store`] keeps it durably; gateways read a [`Snapshot`] that is swapped as a whole when the store changes, so a
//! call sees one state from its beginning to its end, and looks nothing up in a database. A change is followed by reading
//! what changed, not everything: with 100,000 clients and a million grants it is in force as soon as with ten.

mod actor;
pub mod admin_event;
mod admin_event_key;
pub(crate) mod lists;
pub mod name;
mod network;
mod page;
pub mod pending;
pub mod snapshot;
pub mod sqlite;
pub mod state_file;
pub mod usage;

use crate::exchange_log::clock;
pub use actor::{Actor, Digest};
pub use admin_event::{AdminEvent, LoggedEvent, ObjectChange, RefusedEvent};
pub use admin_event_key::AdminEventKey;
pub use name::canonical_name;
pub use network::Network;
pub use page::{AllRecords, ClientFilter, GrantFilter, ListPage, Page, TokenFilter};
pub use pending::{ChangeOutcome, PendingChange};
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub use snapshot::{ClientView, GrantView, Granted, MAX_SKEW_S, NameOwner, Snapshot};

/// The longest life of a token that any policy can allow, and so how long those of a replaced key are still believed.
pub const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

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
    /// A certificate name belongs to another client or person.
    #[error("the certificate name {name:?} belongs to {owner} already; a name has one holder")]
    NameTaken {
        /// Which name, in canonical form.
        name: String,
        /// Whose it is, as `kind:id`.
        owner: String,
    },
    /// The object has changed since the change was requested.
    #[error("it is no longer as it was when the change was asked for: ask for it anew")]
    Outdated,
    /// A bound is reached.
    #[error("too many {0}")]
    Full(&'static str),
    /// A record or a text that the registry does not take.
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
    /// Whom to call when something is wrong.
    pub contact: String,
    /// Names in the certificate's SAN: `spiffe://…/client/ID`, or a DNS name.
    pub names: Vec<String>,
    /// Whether it may call.
    pub suspended: bool,
    /// Unix time in seconds.
    pub created: i64,
    /// Retired for good; its id and certificate names stay taken, so that no one can impersonate it.
    pub retired: bool,
    /// Tokens issued before then are revoked, Unix time in seconds.
    pub tokens_from: i64,
}

/// What an administrator allows a client.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// Who requested it; set by the store.
    pub requested_by: String,
    /// The same with certificate and address, by which the approver is known to be another person; set by the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requester: Option<Actor>,
    /// Who approved it.
    pub approved_by: Option<String>,
    /// Whether it works only when a second person has approved it.
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
    /// When it ends by itself while it waits for approval, Unix time in seconds: a week after it was asked for, which its id
    /// tells, or at its own end.
    pub fn pending_until(&self) -> i64 {
        let asked = self.id.strip_prefix("g-").and_then(|id| uuid::Uuid::try_parse(id).ok()?.get_timestamp());
        let asked = asked.and_then(|time| i64::try_from(time.to_unix().0).ok());
        asked.map_or(self.not_after, |asked| self.not_after.min(asked.saturating_add(pending::PENDING_S)))
    }

    /// Its state.
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
    /// It may not, for now.
    Suspended,
    /// It is gone.
    Retired,
}

impl Client {
    /// Its state.
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
    /// It is good, or will be.
    InForce,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl TokenRecord {
    /// Its state.
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
    /// What they may do.
    pub roles: Vec<Role>,
    /// Names in their certificate.
    pub names: Vec<String>,
}

/// A token that was issued.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
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
    /// It is published before then, and signs from then on, Unix time in seconds.
    pub signs_from: i64,
    /// Tokens signed with it are trusted until then; 0: no end set. Entries of the log have it under this name.
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
    /// Its tokens are refused, and it is in JWKS no more.
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

/// The key that signs: of those whose time has begun, the one made last. Where that was retired, the next one that is
/// published signs before its time; one that was replaced never signs again. `all` are oldest first.
pub fn signing_key(all: &[SigningKey], now: i64) -> Option<&SigningKey> {
    let newest = all.iter().rposition(|key| key.signs_from <= now)?;
    all.get(newest..)?.iter().find(|key| key.is_trusted(now))
}

/// Something that a gateway needs, as [`Store::read`] hands it over.
pub enum Item<'r> {
    /// A client; its grants, as they now are, follow.
    Client(Client),
    /// A grant that is approved where it must be, not withdrawn and not over, of a client that came before.
    Grant(&'r str, GrantView),
    /// A token was revoked, and would end then (Unix time in seconds).
    Revoked(String, i64),
    /// All signing keys, oldest first.
    Keys(Vec<SigningKey>),
    /// All who administer.
    Staff(Vec<Staff>),
}

/// The registry's storage. Every change is durable when its call returns, is seen by every read that begins later, in any process, and
/// increases the registry's revision.
///
/// Calls block: none is made on a thread that serves calls. [`Store::revision`] and [`Store::read`], by which a gateway
/// follows changes, wait for no other call; listings and single reads wait for no change.
pub trait Store: Send + Sync {
    /// The revision: grows with every change that a gateway must follow.
    fn revision(&self) -> Result<u64, RegistryError>;
    /// Visits everything (`None`), or what changed after a revision, and returns the revision that was read. All of it belongs to one
    /// moment.
    fn read(&self, after: Option<u64>, take: &mut dyn FnMut(Item<'_>)) -> Result<u64, RegistryError>;

    /// One client.
    fn client(&self, id: &str) -> Result<Client, RegistryError>;
    /// One client with the grants that may be in force, as a gateway sees it.
    fn view(&self, id: &str) -> Result<ClientView, RegistryError>;
    /// Clients by id.
    fn clients(&self, page: Page<'_, ClientFilter<'_>>) -> Result<ListPage<Client>, RegistryError>;
    /// Adds a client.
    fn add_client(&self, client: &Client) -> Result<(), RegistryError>;
    /// Changes a client's agency, contact and names. A name that it did not have waits for a second person while it has a
    /// grant, approved or not, that needs approval.
    fn change_client(&self, client: &Client) -> Result<ChangeOutcome, RegistryError>;
    /// Suspends a client, or resumes it as [`Store::resume_client`] does.
    fn suspend_client(&self, id: &str, suspended: bool) -> Result<(), RegistryError>;
    /// Lets a suspended client call again. While it has an approved grant that needed approval, that waits for a second person.
    fn resume_client(&self, id: &str) -> Result<ChangeOutcome, RegistryError>;
    /// Ends a client for good, with its grants.
    fn retire_client(&self, id: &str) -> Result<(), RegistryError>;

    /// One grant.
    fn grant(&self, id: &str) -> Result<Grant, RegistryError>;
    /// Grants of one client or of all by id, those that wait for approval and those withdrawn included.
    fn grants(&self, client: Option<&str>, page: Page<'_, GrantFilter>) -> Result<ListPage<Grant>, RegistryError>;
    /// Adds a grant.
    fn add_grant(&self, grant: &Grant) -> Result<(), RegistryError>;
    /// Approves a pending grant; not in the name of its requester.
    fn approve_grant(&self, id: &str) -> Result<(), RegistryError>;
    /// Puts a grant in place of the one of this id. What it would allow and did not waits for a second person, where
    /// either of them needs approval.
    fn change_grant(&self, grant: &Grant) -> Result<ChangeOutcome, RegistryError>;
    /// Withdraws a grant.
    fn withdraw_grant(&self, id: &str) -> Result<(), RegistryError>;

    /// One issued token.
    fn token(&self, id: &str) -> Result<TokenRecord, RegistryError>;
    /// Tokens of one client or of all, newest first.
    fn tokens(&self, client: Option<&str>, page: Page<'_, TokenFilter>)
    -> Result<ListPage<TokenRecord>, RegistryError>;
    /// How many tokens on record ended before a time (Unix time in seconds).
    fn ended_tokens(&self, before: i64) -> Result<u64, RegistryError>;
    /// Removes tokens that ended before a time (Unix time in seconds), the oldest first, with their revocations; at most
    /// so many. Gives how many.
    fn remove_ended_tokens(&self, before: i64, most: usize) -> Result<usize, RegistryError>;
    /// Records tokens that clients fetched; not an administrator's event.
    fn add_tokens(&self, tokens: &[TokenRecord]) -> Result<(), RegistryError>;
    /// Records a token that an administrator issued.
    fn add_token(&self, token: &TokenRecord) -> Result<(), RegistryError>;
    /// Revokes a token.
    fn revoke_token(&self, id: &str) -> Result<(), RegistryError>;
    /// Revokes a token that its owner shows, also where its record was lost: then what the token says stands for it.
    fn revoke_shown_token(&self, shown: &TokenRecord) -> Result<(), RegistryError>;
    /// Who holds certificate names (in canonical form) now, as `kind:id`: clients, retired ones included, and staff.
    fn owners(&self, names: &[String]) -> Result<Vec<String>, RegistryError>;
    /// Revokes every token of a client, and returns how many were in force.
    fn revoke_client_tokens(&self, client: &str) -> Result<u64, RegistryError>;

    /// Signing keys, oldest first.
    fn keys(&self) -> Result<Vec<SigningKey>, RegistryError>;
    /// Adds a signing key; the others are trusted until `others_until`.
    fn add_key(&self, key: &SigningKey, others_until: i64) -> Result<(), RegistryError>;
    /// Ends the belief in a key at once.
    fn retire_key(&self, kid: &str) -> Result<(), RegistryError>;

    /// All who administer.
    fn staff(&self) -> Result<Vec<Staff>, RegistryError>;
    /// Registers the first administrator and the first approver, two people, while there is no approver yet.
    fn bootstrap(&self, administrator: &Staff, approver: &Staff) -> Result<(), RegistryError>;
    /// Asks for a person to be registered: a second person approves.
    fn add_staff(&self, staff: &Staff) -> Result<PendingChange, RegistryError>;
    /// Puts a person's roles and names in place of the ones before. One that they did not have waits for a second person.
    fn change_staff(&self, staff: &Staff) -> Result<ChangeOutcome, RegistryError>;
    /// Removes a person; not the last administrator or approver. Their names stay theirs.
    fn remove_staff(&self, id: &str) -> Result<(), RegistryError>;

    /// Changes that wait for a second person, oldest first: those after an id, at most so many.
    fn pending_changes(&self, after: &str, most: usize) -> Result<Vec<PendingChange>, RegistryError>;
    /// Makes a pending change, in the name of another person than its requester, if its object is unchanged.
    fn approve_change(&self, id: &str) -> Result<PendingChange, RegistryError>;
    /// Ends a change that waits.
    fn reject_change(&self, id: &str) -> Result<PendingChange, RegistryError>;
    /// Ends the changes whose time is over, withdraws grants that were not approved in time, and returns how many.
    fn end_pending_changes(&self) -> Result<usize, RegistryError>;
    /// How many changes and grants wait for a second person; at most [`pending::MAX_PENDING`].
    fn count_pending(&self) -> Result<u64, RegistryError>;

    /// In whose name changes are made.
    fn actor(&self) -> &Actor;
    /// The same store, for changes in another's name, with their reason (at most [`admin_event::MAX_JUSTIFICATION`] characters,
    /// or it is refused).
    fn named(&self, actor: Actor, justification: &str) -> Result<Box<dyn Store>, RegistryError>;
    /// The oldest acts that are not in the exchange log yet, at most some hundred. Each change notes its event with itself. Rows
    /// that nobody can vouch for are left out.
    fn admin_events(&self) -> Result<Vec<AdminEvent>, RegistryError> {
        let admin_events = self.logged_events(0)?.into_iter().filter_map(|noted| match noted {
            LoggedEvent::Authentic(event) | LoggedEvent::Upgraded(event) => Some(event),
            LoggedEvent::Refused(_) => None,
        });
        Ok(admin_events.collect())
    }
    /// The oldest rows of events behind a place in their sequence, at most some hundred, each with whether it is believed.
    fn logged_events(&self, after: u64) -> Result<Vec<LoggedEvent>, RegistryError>;
    /// How many rows of events are left up to a place in their sequence, and the first of them: what is in the log is forgotten, so
    /// these are not what was noted there.
    fn remaining_events(&self, until: u64) -> Result<(u64, Option<LoggedEvent>), RegistryError>;
    /// Has the next event noted behind this place in the sequence at least: the log has gone that far.
    fn note_events_after(&self, sequence: u64) -> Result<(), RegistryError>;
    /// Forgets an event that is in the exchange log now.
    fn forget_event(&self, id: &[u8; 16]) -> Result<(), RegistryError>;
}

/// Unix time in seconds, by a clock that does not go back ([`clock`]).
pub fn now() -> i64 {
    clock::now_us().div_euclid(1_000_000)
}

/// Whether a text can be the id of a client or a person: 1 to 64 lower-case letters, digits, hyphens, dots.
pub fn is_id(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    (1..=64).contains(&text.len()) && text.chars().all(plain)
}
