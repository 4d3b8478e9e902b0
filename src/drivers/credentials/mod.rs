//! Credentials towards a source or hub: each kind in its own file, all behind one enum.

mod cached;
mod hashed_basic;
mod oauth2;
mod session;
mod wsse;

pub use hashed_basic::HashedBasic;
pub use oauth2::{Lgsp, OAuth2};
pub use session::LoginSession;
pub use wsse::{UsernameToken, digest as wsse_digest};

use super::SourceError;
use super::http::HttpEndpoint;
pub use crate::secret::Secret;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

/// How the gateway authenticates itself.
#[derive(Debug)]
pub enum Credentials {
    /// The TLS certificate alone, or nothing.
    None,
    /// A key in a header.
    ApiKey {
        /// Header name.
        header: HeaderName,
        /// The key.
        key: Secret,
    },
    /// OAuth2 client credentials, as NDXP has them, with the LGSP header if an LGSP is in front.
    OAuth2(OAuth2),
    /// A login call that returns a session, which goes into every body.
    Session(LoginSession),
    /// NDXP's SOAP side: timestamped hashed Basic.
    HashedBasic(HashedBasic),
    /// WS-Security UsernameToken with a password digest.
    UsernameToken(UsernameToken),
}

/// What to add to one request.
#[derive(Debug, Default)]
pub struct Proof {
    /// Headers.
    pub headers: HeaderMap,
    /// Fields at the root of a JSON body.
    pub body: Vec<(String, Value)>,
    /// A block for the SOAP header.
    pub soap_header: Option<String>,
    /// Epoch of the token or session that was used, to distinguish it from a newer one.
    epoch: Option<u64>,
}

/// The part of a request that carries credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialLocation {
    /// In a header.
    Header,
    /// At the root of a JSON body.
    JsonBody,
    /// In the SOAP header.
    SoapHeader,
}

impl Proof {
    /// Returns the epoch of its token or session; `None` if it has neither.
    pub(super) fn epoch(&self) -> Option<u64> {
        self.epoch
    }
}

impl Credentials {
    /// Returns the part of a request that carries them; `None` if there are none.
    pub fn location(&self) -> Option<CredentialLocation> {
        match self {
            Credentials::None => None,
            Credentials::ApiKey { .. } | Credentials::OAuth2(_) | Credentials::HashedBasic(_) => {
                Some(CredentialLocation::Header)
            }
            Credentials::Session(_) => Some(CredentialLocation::JsonBody),
            Credentials::UsernameToken(_) => Some(CredentialLocation::SoapHeader),
        }
    }

    /// Makes the proof for one request to `path` at `endpoint`. If no token or session is cached, it gets one from
    /// `login` first.
    ///
    /// # Errors
    /// The error of the token's or session's call, by whose fault it is; the gateway's ([`SourceError::Gateway`]) if a
    /// setting is not valid in a header.
    pub async fn prove(&self, login: &HttpEndpoint, endpoint: &HttpEndpoint, path: &str) -> Result<Proof, SourceError> {
        let mut proof = Proof::default();
        match self {
            Credentials::None => {}
            Credentials::ApiKey { header, key } => {
                proof.headers.insert(header.clone(), sensitive(key.reveal())?);
            }
            Credentials::OAuth2(oauth2) => {
                let (token, epoch) = oauth2.token(login).await?;
                proof.headers.insert(http::header::AUTHORIZATION, sensitive(&format!("Bearer {}", token.reveal()))?);
                oauth2.lgsp_header(&mut proof.headers)?;
                proof.epoch = Some(epoch);
            }
            Credentials::Session(session) => {
                let (id, epoch) = session.id(login).await?;
                proof.body.push((session.field().to_owned(), Value::from(id.reveal())));
                proof.epoch = Some(epoch);
            }
            Credentials::HashedBasic(basic) => basic.headers(endpoint, path, &mut proof.headers)?,
            Credentials::UsernameToken(token) => proof.soap_header = Some(token.header()?),
        }
        Ok(proof)
    }

    /// Records that the source refused a proof of this epoch: drops what is cached, and returns true if another attempt
    /// makes sense.
    pub(super) fn refused(&self, epoch: Option<u64>) -> bool {
        match (self, epoch) {
            (Credentials::OAuth2(oauth2), Some(epoch)) => oauth2.drop_token(epoch),
            (Credentials::Session(session), Some(epoch)) => session.drop_id(epoch),
            _ => return false,
        }
        true
    }
}

/// A header value that HTTP/2 never indexes and no `Debug` prints.
fn sensitive(text: &str) -> Result<HeaderValue, SourceError> {
    let mut value =
        HeaderValue::from_str(text).map_err(|_| SourceError::internal("a credential is not valid in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Returns 16 unpredictable bytes.
fn nonce() -> Result<[u8; 16], SourceError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SourceError::internal("no random numbers"))?;
    Ok(bytes)
}
