//! The registry as calls see it: plain maps, swapped as a whole.

use super::{
    Client, ClientView, GrantView, Item, MaintenanceNotice, RegistryError, SigningKey, Staff, Store, now, signing_key,
};
// Seeded at random like std's, and several times faster on the short texts that every call looks up.
use foldhash::HashMap;
use jsonwebtoken::{Algorithm, DecodingKey};
use std::sync::Arc;

/// A revoked token is remembered for longer than any clock skew that the configuration can tolerate: until then it
/// might count as not yet expired.
pub const MAX_SKEW_S: i64 = 600;

/// A key that tokens may be signed with.
pub struct VerifyingKey {
    /// The only algorithm that this key is used with (RFC 8725, section 3.1).
    pub algorithm: Algorithm,
    /// The key.
    pub key: DecodingKey,
    /// Trusted until then, Unix time in seconds; 0: no end set.
    pub trusted_until: i64,
}

/// Signing keys.
#[derive(Default)]
struct Keys {
    by_id: HashMap<String, VerifyingKey>,
    public: Vec<SigningKey>,
}

impl Keys {
    /// A key that cannot be read is skipped and reported: its tokens are refused.
    fn new(all: Vec<SigningKey>) -> Self {
        let mut keys = Keys::default();
        for key in all {
            let (algorithm, decoding) = match key.algorithm.as_str() {
                "EdDSA" => (Algorithm::EdDSA, DecodingKey::from_ed_pem(key.public_pem.as_bytes())),
                _ => (Algorithm::ES256, DecodingKey::from_ec_pem(key.public_pem.as_bytes())),
            };
            let Ok(decoding) = decoding else {
                tracing::error!(kid = key.kid, "a signing key of the registry cannot be read");
                continue;
            };
            let trusted_until = key.trusted_until;
            keys.public.push(key.clone());
            keys.by_id.insert(key.kid, VerifyingKey { algorithm, key: decoding, trusted_until });
        }
        keys
    }
}

/// The identity that a certificate names.
#[derive(Debug, Clone, Copy)]
pub enum NameOwner<'s> {
    /// Nobody who is registered now.
    Unregistered,
    /// One client.
    Client(&'s Arc<ClientView>),
    /// One person.
    Staff(&'s Arc<Staff>),
    /// More than one identity, including retired clients: it is unknown which right is used.
    Ambiguous,
    /// The registry as it is now is not known here: whoever it was may have no right any more.
    Outdated,
}

/// The owner of one name.
#[derive(Debug, Clone)]
enum HeldName {
    Client(Arc<ClientView>),
    /// A retired client, by id: it has no rights, and no one can take its id.
    Retired(Arc<str>),
    Staff(Arc<Staff>),
    /// The store has it twice, which its own key forbids: its file was edited.
    Contested,
}

impl HeldName {
    fn is_same(&self, other: &HeldName) -> bool {
        match (self, other) {
            (HeldName::Client(one), HeldName::Client(other)) => one.client.id == other.client.id,
            (HeldName::Retired(one), HeldName::Retired(other)) => one == other,
            (HeldName::Staff(one), HeldName::Staff(other)) => one.id == other.id,
            _ => false,
        }
    }

    fn is_client(&self, id: &str) -> bool {
        match self {
            HeldName::Client(view) => view.client.id == id,
            HeldName::Retired(retired) => **retired == *id,
            HeldName::Staff(_) | HeldName::Contested => false,
        }
    }
}

/// The registry at one moment.
#[derive(Default, Clone)]
pub struct Snapshot {
    revision: u64,
    by_id: HashMap<Arc<str>, Arc<ClientView>>,
    /// Owners of certificate names, in canonical form.
    by_name: HashMap<Arc<str>, HeldName>,
    /// Names of retired clients, by id.
    retired: HashMap<Arc<str>, Vec<String>>,
    /// Revoked tokens, and when they would expire.
    revoked: HashMap<String, i64>,
    keys: Arc<Keys>,
    staff: Vec<Arc<Staff>>,
    notices: Arc<HashMap<String, Arc<MaintenanceNotice>>>,
    /// Whether other gateways may have changed the registry without this one knowing it.
    outdated: bool,
}

/// The records read so far.
#[derive(Default)]
struct SnapshotBuilder {
    clients: HashMap<String, (Client, Vec<GrantView>)>,
    revoked: Vec<(String, i64)>,
    keys: Option<Vec<SigningKey>>,
    staff: Option<Vec<Staff>>,
    notices: Option<Vec<MaintenanceNotice>>,
}

impl SnapshotBuilder {
    fn take(&mut self, item: Item<'_>) {
        match item {
            Item::Client(client) => drop(self.clients.insert(client.id.clone(), (client, Vec::new()))),
            Item::Grant(client, grant) => {
                if let Some((_, grants)) = self.clients.get_mut(client) {
                    grants.push(grant);
                }
            }
            Item::Revoked(token, expires) => self.revoked.push((token, expires)),
            Item::Keys(keys) => self.keys = Some(keys),
            Item::Staff(staff) => self.staff = Some(staff),
            Item::Notices(notices) => self.notices = Some(notices),
        }
    }
}

impl Snapshot {
    /// Reads the complete registry.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn read(store: &dyn Store) -> Result<Self, RegistryError> {
        let mut read = SnapshotBuilder::default();
        let revision = store.read(None, &mut |item| read.take(item))?;
        let mut fresh = Snapshot { revision, ..Snapshot::default() };
        fresh.put(read);
        Ok(fresh)
    }

    /// Reads what has changed since; returns `None` if nothing has.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn follow(&self, store: &dyn Store) -> Result<Option<Self>, RegistryError> {
        if store.revision()? == self.revision {
            return Ok(None);
        }
        let mut read = SnapshotBuilder::default();
        let revision = store.read(Some(self.revision), &mut |item| read.take(item))?;
        let mut next = Snapshot { revision, ..self.clone() };
        let now = now();
        next.revoked.retain(|_, expires| *expires > now - MAX_SKEW_S);
        next.put(read);
        Ok(Some(next))
    }

    fn put(&mut self, read: SnapshotBuilder) {
        // First all removals, then all additions: a name may have moved from one changed client to another.
        for id in read.clients.keys() {
            let names = self.by_id.remove(id.as_str()).map(|before| before.client.names.clone());
            for name in names.or_else(|| self.retired.remove(id.as_str())).unwrap_or_default() {
                if self.by_name.get(name.as_str()).is_some_and(|named| named.is_client(id)) {
                    self.by_name.remove(name.as_str());
                }
            }
        }
        if read.staff.is_some() {
            self.by_name.retain(|_, named| !matches!(named, HeldName::Staff(_)));
        }
        self.by_id.reserve(read.clients.len());
        self.by_name.reserve(read.clients.len());
        for (id, (client, grants)) in read.clients {
            if client.retired {
                let id: Arc<str> = id.into();
                client.names.iter().for_each(|name| self.name(name, HeldName::Retired(id.clone())));
                self.retired.insert(id, client.names);
                continue;
            }
            let view = Arc::new(ClientView::new(client, grants));
            for name in &view.client.names {
                self.name(name, HeldName::Client(view.clone()));
            }
            self.by_id.insert(id.into(), view);
        }
        self.revoked.extend(read.revoked);
        if let Some(keys) = read.keys {
            self.keys = Arc::new(Keys::new(keys));
        }
        if let Some(notices) = read.notices {
            let notices = notices.into_iter().map(|notice| (notice.source.clone(), Arc::new(notice)));
            self.notices = Arc::new(notices.collect());
        }
        if let Some(staff) = read.staff {
            self.staff = staff.into_iter().map(Arc::new).collect();
            for person in self.staff.clone() {
                person.names.iter().for_each(|name| self.name(name, HeldName::Staff(person.clone())));
            }
        }
    }

    /// Records the owner of a name. A name with two owners has none.
    fn name(&mut self, name: &str, holder: HeldName) {
        match self.by_name.get_mut(name) {
            Some(before) if !before.is_same(&holder) => {
                tracing::error!(name, "the registry gives a certificate name to two holders: it is nobody's");
                *before = HeldName::Contested;
            }
            Some(before) => *before = holder,
            None => drop(self.by_name.insert(name.into(), holder)),
        }
    }

    /// Returns the client of this id.
    pub fn client(&self, id: &str) -> Option<&Arc<ClientView>> {
        self.by_id.get(id)
    }

    /// Returns every client that is not retired.
    pub fn clients(&self) -> impl Iterator<Item = &Arc<ClientView>> {
        self.by_id.values()
    }

    /// Returns the revision of the registry.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the same registry, known to be up to date or not: one that is not gives nobody a right.
    pub fn known_as(self, outdated: bool) -> Self {
        Snapshot { outdated, ..self }
    }

    /// Returns whether it gives nobody a right, since other gateways may have changed the registry.
    pub fn is_outdated(&self) -> bool {
        self.outdated
    }

    /// Returns the owner of these certificate names (in canonical form). Names without an owner are ignored.
    pub fn owner_of(&self, names: &[String]) -> NameOwner<'_> {
        if self.outdated {
            return NameOwner::Outdated;
        }
        let mut held = names.iter().filter_map(|name| self.by_name.get(name.as_str()));
        let Some(first) = held.next() else { return NameOwner::Unregistered };
        if held.any(|other| !first.is_same(other)) {
            return NameOwner::Ambiguous;
        }
        match first {
            HeldName::Client(view) => NameOwner::Client(view),
            HeldName::Staff(person) => NameOwner::Staff(person),
            HeldName::Retired(_) => NameOwner::Unregistered,
            HeldName::Contested => NameOwner::Ambiguous,
        }
    }

    /// Returns the client of these certificate names, if they identify one client and no one else.
    pub fn client_of(&self, names: &[String]) -> Option<&Arc<ClientView>> {
        match self.owner_of(names) {
            NameOwner::Client(view) => Some(view),
            _ => None,
        }
    }

    /// Returns the key that signs tokens at a time.
    pub fn signing(&self, now: i64) -> Option<&SigningKey> {
        signing_key(&self.keys.public, now)
    }

    /// Returns the public keys whose tokens are or will be trusted, oldest first.
    pub fn public_keys(&self, now: i64) -> impl Iterator<Item = &SigningKey> {
        self.keys.public.iter().filter(move |key| key.is_trusted(now))
    }

    /// Returns the member of staff with these certificate names, if they identify one person and no one else.
    pub fn staff_of(&self, names: &[String]) -> Option<&Arc<Staff>> {
        match self.owner_of(names) {
            NameOwner::Staff(person) => Some(person),
            _ => None,
        }
    }

    /// Returns the maintenance notice of which a source's callers are told now.
    pub fn notice(&self, source: &str, now: i64) -> Option<&Arc<MaintenanceNotice>> {
        self.notices.get(source).filter(|notice| notice.is_announced(now))
    }

    /// Returns whether a token was revoked by itself.
    pub fn has_revoked(&self, token: &str) -> bool {
        self.revoked.contains_key(token)
    }

    /// Returns the member of staff of this id, to the letter.
    pub fn staff_by_id(&self, id: &str) -> Option<&Arc<Staff>> {
        self.staff.iter().filter(|_| !self.outdated).find(|person| person.id == id)
    }

    /// Returns whether a token was revoked, by itself or with all of its client's tokens.
    pub fn is_revoked(&self, token: &str, issued: i64, client: &Client) -> bool {
        issued < client.tokens_from || self.revoked.contains_key(token)
    }

    /// Returns the key of this id, if it is still trusted.
    pub fn key(&self, kid: &str, now: i64) -> Option<&VerifyingKey> {
        self.keys.by_id.get(kid).filter(|key| key.trusted_until == 0 || now < key.trusted_until)
    }
}
