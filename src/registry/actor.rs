//! The actor of a change of the registry: a person with a certificate or by an OpenID provider's word, a client for its own tokens, the system's user
//! on the gateway's host, or the gateway itself.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A SHA-256 digest, hexadecimal where it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest(pub [u8; 32]);

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&crate::hex::hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = crate::hex::unhex(&text).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        bytes.map(Digest).ok_or_else(|| serde::de::Error::custom("must be 64 hexadecimal digits"))
    }
}

/// The actor of a change of the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Actor {
    /// A member of staff, through `ndxp.admin.v1`, with their certificate.
    Staff {
        /// Their id.
        id: String,
        /// SHA-256 of their certificate.
        thumbprint: Digest,
        /// SHA-256 of its public key (SubjectPublicKeyInfo).
        key: Digest,
        /// Its URI and DNS names, in canonical form.
        names: Vec<String>,
        /// The peer's address, `ip:port`.
        address: String,
    },
    /// A member of staff who has signed in at an OpenID provider, without a certificate.
    Federated {
        /// Their id.
        id: String,
        /// The provider's issuer identifier.
        provider: String,
        /// Their certificate names in the registry: what they may not do for their own certificate, they may not do here.
        names: Vec<String>,
        /// The peer's address, `ip:port`.
        address: String,
    },
    /// A client that revokes one of its own tokens.
    Client {
        /// Its id.
        id: String,
        /// SHA-256 of its certificate.
        thumbprint: Digest,
        /// The peer's address, `ip:port`.
        address: String,
    },
    /// A user of the gateway's own host, without a certificate: for bootstrapping and emergencies.
    Local {
        /// The system's user id.
        uid: u32,
        /// Its name.
        user: String,
    },
    /// The gateway itself: an upgrade, or an expiry.
    System,
}

impl Actor {
    /// Returns the user of this process. If somebody signed in as another user and then became this one (`sudo`), the
    /// system still knows that user: the result is that user, as Linux audit names them.
    pub fn local() -> Self {
        let own = rustix::process::getuid().as_raw();
        let read = std::fs::read_to_string("/proc/self/loginuid").ok();
        let login: Option<u32> = read.and_then(|text| text.trim().parse().ok()).filter(|uid| *uid != u32::MAX);
        let uid = login.unwrap_or(own);
        let user = uzers::get_user_by_uid(uid).map(|user| user.name().to_string_lossy().into_owned());
        // A user without a name in the system is identified by the number alone.
        Actor::Local { uid, user: user.unwrap_or_default() }
    }

    /// Returns their id, or the user's name: used for sharing resources, never for rights.
    pub fn id(&self) -> &str {
        match self {
            Actor::Staff { id, .. } | Actor::Federated { id, .. } | Actor::Client { id, .. } => id,
            Actor::Local { user, .. } => user,
            Actor::System => "system",
        }
    }

    /// Returns the id of a member of staff, however they have proved who they are.
    pub fn staff(&self) -> Option<&str> {
        match self {
            Actor::Staff { id, .. } | Actor::Federated { id, .. } => Some(id),
            Actor::Client { .. } | Actor::Local { .. } | Actor::System => None,
        }
    }

    /// Returns the certificate names of a member of staff; nothing of others.
    pub fn names(&self) -> &[String] {
        match self {
            Actor::Staff { names, .. } | Actor::Federated { names, .. } => names,
            Actor::Client { .. } | Actor::Local { .. } | Actor::System => &[],
        }
    }

    /// Returns the issuer of the OpenID provider that has vouched for them; empty if none has.
    pub fn provider(&self) -> &str {
        match self {
            Actor::Federated { provider, .. } => provider,
            _ => "",
        }
    }

    /// Returns the SHA-256 of their certificate; empty without one.
    pub fn thumbprint(&self) -> &[u8] {
        match self {
            Actor::Staff { thumbprint, .. } | Actor::Client { thumbprint, .. } => &thumbprint.0,
            Actor::Federated { .. } | Actor::Local { .. } | Actor::System => &[],
        }
    }

    /// Returns their address; empty without a connection.
    pub fn address(&self) -> &str {
        match self {
            Actor::Staff { address, .. } | Actor::Federated { address, .. } | Actor::Client { address, .. } => address,
            Actor::Local { .. } | Actor::System => "",
        }
    }

    /// Returns whether two actors are one person, as far as can be determined: the same id, certificate or key, or a
    /// common certificate name. Two ids with one certificate are one person.
    pub fn is_same_person(&self, other: &Actor) -> bool {
        let both = |one: &[u8], other: &[u8]| !one.is_empty() && one == other;
        match (self, other) {
            (
                Actor::Staff { thumbprint, key, .. },
                Actor::Staff { thumbprint: other_thumbprint, key: other_key, .. },
            ) if thumbprint == other_thumbprint || key == other_key => true,
            _ if self.staff().is_some() && other.staff().is_some() => {
                self.staff() == other.staff() || self.names().iter().any(|name| other.names().contains(name))
            }
            (Actor::Local { uid, .. }, Actor::Local { uid: other, .. }) => uid == other,
            (Actor::Client { id, .. }, Actor::Client { id: other, .. }) if id == other => true,
            (Actor::System, Actor::System) => true,
            _ => both(self.thumbprint(), other.thumbprint()),
        }
    }
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Actor::Staff { id, .. } | Actor::Federated { id, .. } => write!(f, "staff:{id}"),
            Actor::Client { id, .. } => write!(f, "client:{id}"),
            Actor::Local { uid, user } => write!(f, "local:{user}({uid})"),
            Actor::System => f.write_str("system"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staff(id: &str, thumbprint: u8, key: u8, name: &str) -> Actor {
        Actor::Staff {
            id: id.into(),
            thumbprint: Digest([thumbprint; 32]),
            key: Digest([key; 32]),
            names: vec![name.into()],
            address: "192.0.2.1:1".into(),
        }
    }

    fn federated(id: &str, name: &str) -> Actor {
        Actor::Federated {
            id: id.into(),
            provider: "https://sso.vn".into(),
            names: vec![name.into()],
            address: "192.0.2.1:2".into(),
        }
    }

    #[test]
    fn t2_one_person_is_one_by_certificate_and_by_a_provider_s_word() {
        let lan = staff("lan", 1, 1, "lan.vn");
        for same in [federated("lan", "new.vn"), federated("x", "lan.vn")] {
            assert!(lan.is_same_person(&same) && same.is_same_person(&lan), "{same:?}");
        }
        assert!(federated("lan", "a.vn").is_same_person(&federated("lan", "b.vn")));
        let client = Actor::Client { id: "lan".into(), thumbprint: Digest([1; 32]), address: String::new() };
        for other in
            [staff("minh", 2, 2, "minh.vn"), client, Actor::Local { uid: 7, user: "lan".into() }, Actor::System]
        {
            let lan = federated("lan", "lan.vn");
            assert!(!lan.is_same_person(&other) && !other.is_same_person(&lan), "{other:?}");
        }
    }

    #[test]
    fn t2_one_person_is_one_whichever_id_certificate_key_or_name_is_shown() {
        let lan = staff("lan", 1, 1, "lan.vn");
        for same in [
            staff("lan", 2, 2, "new.vn"),
            staff("x", 1, 2, "x.vn"),
            staff("x", 2, 1, "x.vn"),
            staff("x", 2, 2, "lan.vn"),
        ] {
            assert!(lan.is_same_person(&same) && same.is_same_person(&lan), "{same:?}");
        }
        let local = |uid| Actor::Local { uid, user: "lan".into() };
        let client = Actor::Client { id: "lan".into(), thumbprint: Digest([1; 32]), address: String::new() };
        assert!(local(7).is_same_person(&local(7)) && client.is_same_person(&lan));
        for other in [staff("minh", 2, 2, "minh.vn"), local(7), Actor::System] {
            assert!(!lan.is_same_person(&other) && !other.is_same_person(&lan), "{other:?}");
        }
        assert!(!local(7).is_same_person(&local(8)));
    }

    #[test]
    fn an_actor_is_read_back_as_it_was_written() {
        for actor in [staff("lan", 1, 2, "lan.vn"), federated("lan", "lan.vn"), Actor::local(), Actor::System] {
            let text = serde_json::to_string(&actor).unwrap_or_default();
            assert_eq!(serde_json::from_str::<Actor>(&text).ok(), Some(actor));
        }
        assert!(Actor::local().to_string().starts_with("local:"));
    }
}
