//! The issuer: signing keys, and access tokens by RFC 9068, bound to a certificate by RFC 8705.

mod check;
#[cfg(feature = "pkcs11")]
mod hsm;

pub use check::HandIssue;

use crate::identity::Thumbprint;
use crate::keyfile::{SharedSecrets, Vault};
pub use crate::registry::MAX_LIFETIME;
use crate::registry::{ClientView, RegistryError, SigningKey, Store, TokenRecord, now, signing_key};
use crate::secret::Secret;
#[cfg(feature = "pkcs11")]
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Longest token in bytes: calls carry no longer one (`crate::access::token`), and it fits the gRPC port's bound on a
/// call's metadata ([`crate::http2::server`]) twice.
pub const MAX_TOKEN: usize = 8_192;
// A call has room for the longest token and as much beside it.
const _: () = assert!(2 * MAX_TOKEN <= crate::http2::server::MAX_HEADERS);

/// Time between the rotation of a key and its first signature, in addition to the time that JWKS may be cached: the
/// gateway publishes it meanwhile.
const PUBLISHED_WITHIN_S: i64 = 2;

/// The reason that no token or key was made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The key file.
    #[error("the signing key {path}: {reason}")]
    Key {
        /// The file.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
    /// No key yet.
    #[error("there is no signing key yet: run `ndxp-gateway keys rotate`")]
    NoKey,
    /// A scope that no grant allows.
    #[error("client {client:?} has no grant in force for the scope {scope:?}: {why}")]
    NotGranted {
        /// The client of the token.
        client: String,
        /// The scope.
        scope: String,
        /// Grants that are pending, begin later, or have ended.
        why: String,
    },
    /// No scope at all.
    #[error("client {client:?} has no grant in force: {why}")]
    NoScopeInForce {
        /// The client of the token.
        client: String,
        /// Grants that are pending, begin later, or have ended.
        why: String,
    },
    /// A suspended client.
    #[error("client {0:?} is suspended")]
    Suspended(String),
    /// A retired client.
    #[error("client {0:?} is retired")]
    Retired(String),
    /// A certificate that would make the token useless.
    #[error("the certificate: {0}")]
    Certificate(String),
    /// A token that no call could carry.
    #[error("a token for these {scopes} scopes has {bytes} bytes, calls carry {MAX_TOKEN} at most: name fewer scopes")]
    TooLarge {
        /// Scopes.
        scopes: usize,
        /// Its size; a lower bound if it was not made.
        bytes: usize,
    },
    /// The lifetime is too long.
    #[error("a token lives at most {} minutes by this gateway's policy, and begins within {} hours", .0.as_secs() / 60, MAX_LIFETIME.as_secs() / 3600)]
    TooLong(Duration),
}

/// The claims of an access token (RFC 9068, section 2.2; RFC 8705, section 3.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Issuer.
    pub iss: String,
    /// Audience.
    pub aud: Audience,
    /// Subject: the client.
    pub sub: String,
    /// The client.
    pub client_id: String,
    /// Scopes, by spaces.
    pub scope: String,
    /// Id.
    pub jti: String,
    /// Issued at, Unix time in seconds.
    pub iat: i64,
    /// Expires.
    pub exp: i64,
    /// Not before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// Proof of possession.
    pub cnf: Confirmation,
}

/// `aud`: one audience or several (RFC 7519, section 4.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Audience {
    /// Returns whether it includes this audience.
    pub fn has(&self, audience: &str) -> bool {
        match self {
            Audience::One(one) => one == audience,
            Audience::Many(many) => many.iter().any(|one| one == audience),
        }
    }
}

/// `cnf` (RFC 8705, section 3.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// SHA-256 of the certificate, base64url.
    #[serde(rename = "x5t#S256")]
    pub x5t_s256: String,
}

/// The properties of a requested token.
#[derive(Debug, Clone)]
pub struct IssueRequest {
    /// Scopes to carry; none: all that are granted.
    pub scopes: Vec<String>,
    /// The certificate to which it is bound.
    pub certificate: Thumbprint,
    /// Its lifetime, at most the policy's (`tokens.max_lifetime_s`).
    pub lifetime: Duration,
    /// Time from now until it is valid, at most [`MAX_LIFETIME`].
    pub starts_in: Duration,
}

/// The hardware security module of the signing keys.
#[derive(Clone)]
pub struct HsmSettings {
    /// The PKCS#11 module, a shared library.
    pub module: PathBuf,
    /// Label of the token.
    pub token: String,
    /// The user's PIN.
    pub pin: Secret,
}

/// How tokens are signed. The configuration makes it.
#[derive(Clone)]
pub struct IssuerSettings {
    /// Folder of the private keys.
    pub keys: PathBuf,
    /// Opens them.
    pub vault: Vault,
    /// Where several gateways share them.
    pub shared: Option<Arc<dyn SharedSecrets>>,
    /// The hardware security module, if new keys are made in one.
    pub hsm: Option<HsmSettings>,
    /// `iss` of the tokens.
    pub issuer: String,
    /// `aud` of the tokens.
    pub audience: String,
    /// Longest lifetime of a token, by policy; at most [`MAX_LIFETIME`].
    pub longest: Duration,
    /// How long JWKS may be cached.
    pub jwks_max_age: Duration,
}

/// Signs tokens.
pub struct Issuer<'s> {
    store: &'s dyn Store,
    settings: IssuerSettings,
}

/// Its name among the secrets that gateways share.
fn shared_name(kid: &str) -> String {
    format!("signing/{kid}")
}

/// A signing key, loaded.
pub struct Signer {
    /// Key id.
    pub kid: String,
    algorithm: Algorithm,
    key: PrivateKey,
}

impl Signer {
    /// Returns whether it signs within some tens of microseconds, without waiting for a module.
    pub fn is_local(&self) -> bool {
        matches!(self.key, PrivateKey::File(_))
    }
}

enum PrivateKey {
    File(EncodingKey),
    #[cfg(feature = "pkcs11")]
    Hsm(hsm::HsmKey),
}

/// An algorithm that tokens are signed with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    #[default]
    Es256,
    /// Ed25519.
    Eddsa,
}

impl<'s> Issuer<'s> {
    /// An issuer over a registry, with the private keys of a configuration.
    pub fn new(store: &'s dyn Store, settings: IssuerSettings) -> Self {
        Issuer { store, settings }
    }

    fn key_path(&self, kid: &str) -> PathBuf {
        self.settings.keys.join(format!("{kid}.pem"))
    }

    /// Makes a new signing key. It is published at once and signs when no cached JWKS without it can be in use any
    /// more, or `at_once`; if no other key signs, at once too. Tokens of older keys are trusted until the last of them
    /// has expired.
    ///
    /// # Errors
    /// [`IssueError::Registry`] if the store cannot be written; [`IssueError::Key`] if the key cannot be made.
    pub fn rotate_key(&self, algorithm: KeyAlgorithm, at_once: bool) -> Result<SigningKey, IssueError> {
        let now = now();
        let at_once = at_once || signing_key(&self.store.keys()?, now).is_none();
        let kid = uuid::Uuid::now_v7().simple().to_string();
        let name = match algorithm {
            KeyAlgorithm::Es256 => "ES256",
            KeyAlgorithm::Eddsa => "EdDSA",
        };
        let public_pem = match &self.settings.hsm {
            Some(hsm) => self.make_in_hsm(hsm, &kid, algorithm)?,
            None => self.make_in_file(&kid, algorithm)?,
        };
        let published = self.settings.jwks_max_age.as_secs() as i64 + PUBLISHED_WITHIN_S;
        let signs_from = if at_once { now } else { now + published };
        let key = SigningKey { kid, algorithm: name.into(), public_pem, created: now, signs_from, trusted_until: 0 };
        // The other keys sign until then; a token may begin a lifetime later and live for one more.
        self.store.add_key(&key, signs_from + 2 * MAX_LIFETIME.as_secs() as i64)?;
        Ok(key)
    }

    /// [`Issuer::rotate_key`], not at once.
    ///
    /// # Errors
    /// As for [`Issuer::rotate_key`].
    pub fn rotate(&self, algorithm: KeyAlgorithm) -> Result<SigningKey, IssueError> {
        self.rotate_key(algorithm, false)
    }

    fn make_in_file(&self, kid: &str, algorithm: KeyAlgorithm) -> Result<String, IssueError> {
        let path = self.key_path(kid);
        let fail = |reason: String| IssueError::Key { path: path.clone(), reason };
        let kind = match algorithm {
            KeyAlgorithm::Es256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyAlgorithm::Eddsa => &rcgen::PKCS_ED25519,
        };
        let pair = rcgen::KeyPair::generate_for(kind).map_err(|error| fail(error.to_string()))?;
        let pem = zeroize::Zeroizing::new(pair.serialize_pem());
        // Before it is in the registry: every gateway signs with the newest key there.
        if let Some(shared) = &self.settings.shared {
            shared.agree(&shared_name(kid), pem.as_bytes()).map_err(|error| fail(error.to_string()))?;
        }
        self.settings.vault.write(&path, pem.as_bytes()).map_err(|error| fail(error.to_string()))?;
        Ok(pair.public_key_pem())
    }

    #[cfg(feature = "pkcs11")]
    fn make_in_hsm(&self, hsm: &HsmSettings, kid: &str, algorithm: KeyAlgorithm) -> Result<String, IssueError> {
        let fail = |reason: String| IssueError::Key { path: hsm.module.clone(), reason };
        if algorithm != KeyAlgorithm::Es256 {
            return Err(fail("keys in the module are ES256".into()));
        }
        Ok(crate::pem::encode("PUBLIC KEY", &hsm::generate(hsm, kid).map_err(fail)?))
    }

    /// The configuration refuses a module in this case.
    #[cfg(not(feature = "pkcs11"))]
    fn make_in_hsm(&self, hsm: &HsmSettings, _: &str, _: KeyAlgorithm) -> Result<String, IssueError> {
        Err(IssueError::Key { path: hsm.module.clone(), reason: "built without PKCS#11".into() })
    }

    /// Returns the record of a token to be issued: a grant in force must allow each of its scopes; without named
    /// scopes, it gets all granted ones.
    ///
    /// # Errors
    /// [`IssueError::NotGranted`], [`IssueError::NoScopeInForce`], [`IssueError::Suspended`] or [`IssueError::Retired`].
    pub fn prepare(&self, client: &ClientView, request: IssueRequest) -> Result<TokenRecord, IssueError> {
        let IssueRequest { scopes, certificate, lifetime, starts_in } = request;
        if client.client.suspended {
            return Err(IssueError::Suspended(client.client.id.clone()));
        }
        if lifetime > self.settings.longest || starts_in > MAX_LIFETIME {
            return Err(IssueError::TooLong(self.settings.longest));
        }
        // After "revoke all of this client", a token issued in the same second begins with the next.
        let issued = now().max(client.client.tokens_from);
        let in_force = client.grants.iter().filter(|grant| grant.in_force(issued));
        let mut granted: Vec<&String> = in_force.flat_map(|grant| grant.scopes.iter()).collect();
        granted.sort();
        granted.dedup();
        // A set: a scope that is named twice is in the token once.
        let mut named = HashSet::new();
        let scopes: Vec<String> = scopes.into_iter().filter(|scope| named.insert(scope.clone())).collect();
        if let Some(scope) = scopes.iter().find(|scope| granted.binary_search(scope).is_err()) {
            let client = client.client.id.clone();
            return Err(IssueError::NotGranted {
                why: self.why_not(&client, Some(scope)),
                client,
                scope: scope.clone(),
            });
        }
        let scopes: Vec<String> = if scopes.is_empty() { granted.into_iter().cloned().collect() } else { scopes };
        // Base64 makes four bytes of three: a token that cannot fit need not be signed.
        let bytes = scopes.iter().map(|scope| scope.len() + 1).sum::<usize>() * 4 / 3;
        if bytes > MAX_TOKEN {
            return Err(IssueError::TooLarge { scopes: scopes.len(), bytes });
        }
        let starts = issued + starts_in.as_secs() as i64;
        Ok(TokenRecord {
            id: uuid::Uuid::now_v7().to_string(),
            client: client.client.id.clone(),
            scopes,
            certificate: certificate.base64url(),
            issued,
            starts,
            expires: starts + lifetime.as_secs() as i64,
            revoked: false,
        })
    }

    /// Issues a token, as an administrator does.
    ///
    /// # Errors
    /// As for [`Issuer::prepare`]; [`IssueError::NoKey`] or [`IssueError::Key`] if none can sign; [`IssueError::Registry`] if the
    /// record cannot be written.
    pub fn issue(&self, client: &ClientView, request: IssueRequest) -> Result<(String, TokenRecord), IssueError> {
        let record = self.prepare(client, request)?;
        let token = self.sign_now(&record)?;
        self.store.add_token(&record)?;
        Ok((token, record))
    }

    /// Signs with the present signing key.
    fn sign_now(&self, record: &TokenRecord) -> Result<String, IssueError> {
        let keys = self.store.keys()?;
        let key = signing_key(&keys, now()).ok_or(IssueError::NoKey)?;
        self.sign(&self.signer(key)?, record)
    }

    /// Loads a signing key.
    ///
    /// # Errors
    /// [`IssueError::Key`] if its file or token cannot be used.
    pub fn signer(&self, key: &SigningKey) -> Result<Signer, IssueError> {
        let path = self.key_path(&key.kid);
        // A key from before the module was configured is still in its file.
        #[cfg(feature = "pkcs11")]
        if let Some(hsm) = self.settings.hsm.as_ref().filter(|_| !path.exists()) {
            let fail = |reason: String| IssueError::Key { path: hsm.module.clone(), reason };
            let found = hsm::HsmKey::find(hsm, &key.kid).map_err(fail)?;
            return Ok(Signer { kid: key.kid.clone(), algorithm: Algorithm::ES256, key: PrivateKey::Hsm(found) });
        }
        let fail = |reason: String| IssueError::Key { path: path.clone(), reason };
        let pem = self.private_key(&key.kid).map_err(|error| fail(error.to_string()))?;
        let (algorithm, read) = match key.algorithm.as_str() {
            "EdDSA" => (Algorithm::EdDSA, EncodingKey::from_ed_pem(&pem)),
            _ => (Algorithm::ES256, EncodingKey::from_ec_pem(&pem)),
        };
        Ok(Signer {
            kid: key.kid.clone(),
            algorithm,
            key: PrivateKey::File(read.map_err(|_| fail("is no key of its algorithm".into()))?),
        })
    }

    /// Fetches the private keys that other gateways have made and this one does not have yet, so that its folder is whole.
    ///
    /// # Errors
    /// [`IssueError::Registry`] or [`IssueError::Key`]: the other gateways cannot be asked, or a key cannot be written.
    pub fn fetch_shared(&self) -> Result<(), IssueError> {
        if self.settings.shared.is_none() || self.settings.hsm.is_some() {
            return Ok(());
        }
        for key in self.store.keys()? {
            let fail =
                |error: std::io::Error| IssueError::Key { path: self.key_path(&key.kid), reason: error.to_string() };
            self.private_key(&key.kid).map_err(fail)?;
        }
        Ok(())
    }

    /// Reads a private key; one that another gateway has made is fetched, and stored here.
    fn private_key(&self, kid: &str) -> std::io::Result<zeroize::Zeroizing<Vec<u8>>> {
        let (path, IssuerSettings { vault, shared, .. }) = (self.key_path(kid), &self.settings);
        match (vault.read(&path), shared) {
            (Err(error), Some(shared)) if error.kind() == std::io::ErrorKind::NotFound => {
                let pem = shared.get(&shared_name(kid))?.ok_or(error)?;
                vault.write(&path, &pem)?;
                Ok(pem)
            }
            (read, _) => read,
        }
    }

    /// Signs a prepared record.
    ///
    /// # Errors
    /// [`IssueError::TooLarge`] if no call could carry the token.
    pub fn sign(&self, signer: &Signer, record: &TokenRecord) -> Result<String, IssueError> {
        let token = self.sign_any(signer, record)?;
        if token.len() > MAX_TOKEN {
            return Err(IssueError::TooLarge { scopes: record.scopes.len(), bytes: token.len() });
        }
        Ok(token)
    }

    fn sign_any(&self, signer: &Signer, record: &TokenRecord) -> Result<String, IssueError> {
        let mut header = Header::new(signer.algorithm);
        header.typ = Some("at+jwt".into());
        header.kid = Some(signer.kid.clone());
        let claims = Claims {
            iss: self.settings.issuer.clone(),
            aud: Audience::One(self.settings.audience.clone()),
            sub: record.client.clone(),
            client_id: record.client.clone(),
            scope: record.scopes.join(" "),
            jti: record.id.clone(),
            iat: record.issued,
            exp: record.expires,
            nbf: (record.starts > record.issued).then_some(record.starts),
            cnf: Confirmation { x5t_s256: record.certificate.clone() },
        };
        let fail = |reason: String| IssueError::Key { path: self.key_path(&signer.kid), reason };
        match &signer.key {
            PrivateKey::File(key) => {
                jsonwebtoken::encode(&header, &claims, key).map_err(|_| fail("cannot sign".into()))
            }
            #[cfg(feature = "pkcs11")]
            PrivateKey::Hsm(key) => {
                let part = |json: serde_json::Result<Vec<u8>>| {
                    json.map(|json| URL_SAFE_NO_PAD.encode(json)).map_err(|error| fail(error.to_string()))
                };
                let input = format!("{}.{}", part(serde_json::to_vec(&header))?, part(serde_json::to_vec(&claims))?);
                let signature = key.sign(input.as_bytes()).map_err(fail)?;
                Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
