//! The registry as calls see it: plain maps, swapped as a whole.

use super::{Client, Grant, Loaded, SigningKey, Staff};
use jsonwebtoken::{Algorithm, DecodingKey};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A client with its grants.
#[derive(Debug)]
pub struct ClientView {
    /// The client.
    pub client: Client,
    /// Its grants that are not withdrawn; validity is checked at each call.
    pub grants: Vec<Arc<Grant>>,
}

/// A key that tokens may be signed with.
pub struct VerifyingKey {
    /// The only algorithm that this key is used with (RFC 8725, section 3.1).
    pub algorithm: Algorithm,
    /// The key.
    pub key: DecodingKey,
    /// Believed until then, Unix time in seconds; 0: no end set.
    pub believed_until: i64,
}

/// The registry at one moment.
#[derive(Default)]
pub struct Snapshot {
    by_id: HashMap<String, Arc<ClientView>>,
    by_name: HashMap<String, Arc<ClientView>>,
    revoked: HashSet<String>,
    keys: HashMap<String, VerifyingKey>,
    staff: HashMap<String, Arc<Staff>>,
    signing: Option<SigningKey>,
    public_keys: Vec<SigningKey>,
}

impl Snapshot {
    /// Puts the maps together. A key that cannot be read is left out and told: its tokens are refused.
    pub fn new(loaded: Loaded) -> Self {
        let mut grants: HashMap<String, Vec<Arc<Grant>>> = HashMap::new();
        for grant in loaded.grants {
            grants.entry(grant.client.clone()).or_default().push(Arc::new(grant));
        }
        let mut snapshot = Snapshot { revoked: loaded.revoked.into_iter().collect(), ..Snapshot::default() };
        for client in loaded.clients {
            let grants = grants.remove(&client.id).unwrap_or_default();
            let view = Arc::new(ClientView { client, grants });
            for name in &view.client.names {
                snapshot.by_name.insert(name.clone(), view.clone());
            }
            snapshot.by_id.insert(view.client.id.clone(), view);
        }
        for staff in loaded.staff {
            let staff = Arc::new(staff);
            for name in &staff.names {
                snapshot.staff.insert(name.clone(), staff.clone());
            }
        }
        for key in loaded.keys {
            let (algorithm, decoding) = match key.algorithm.as_str() {
                "EdDSA" => (Algorithm::EdDSA, DecodingKey::from_ed_pem(key.public_pem.as_bytes())),
                _ => (Algorithm::ES256, DecodingKey::from_ec_pem(key.public_pem.as_bytes())),
            };
            match decoding {
                Ok(decoding) => {
                    let believed_until = key.believed_until;
                    if believed_until == 0 {
                        snapshot.signing = Some(key.clone());
                    }
                    snapshot.public_keys.push(key.clone());
                    snapshot.keys.insert(key.kid, VerifyingKey { algorithm, key: decoding, believed_until });
                }
                _ => tracing::error!(kid = key.kid, "a signing key of the registry cannot be read"),
            }
        }
        snapshot
    }

    /// The client of this id.
    pub fn client(&self, id: &str) -> Option<&Arc<ClientView>> {
        self.by_id.get(id)
    }

    /// The client of the first of these certificate names that is registered.
    pub fn client_of(&self, names: &[String]) -> Option<&Arc<ClientView>> {
        names.iter().find_map(|name| self.by_name.get(name))
    }

    /// The key that tokens are signed with now.
    pub fn signing(&self) -> Option<&SigningKey> {
        self.signing.as_ref()
    }

    /// The public keys whose tokens are believed, oldest first.
    pub fn public_keys(&self, now: i64) -> impl Iterator<Item = &SigningKey> {
        self.public_keys.iter().filter(move |key| key.believed_until == 0 || now < key.believed_until)
    }

    /// Who administers under one of these certificate names.
    pub fn staff_of(&self, names: &[String]) -> Option<&Arc<Staff>> {
        names.iter().find_map(|name| self.staff.get(name))
    }

    /// Whether a token was revoked.
    pub fn is_revoked(&self, token: &str) -> bool {
        self.revoked.contains(token)
    }

    /// The key of this id, if it is still believed.
    pub fn key(&self, kid: &str, now: i64) -> Option<&VerifyingKey> {
        self.keys.get(kid).filter(|key| key.believed_until == 0 || now < key.believed_until)
    }
}
